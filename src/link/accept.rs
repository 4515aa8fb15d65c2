//! The gateway's end: a listener on the login node, and who is let through to the session.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nginx_free::{
    lasting::{Carrier, LastingLimits, lasting},
    tls::{AT_ONCE, Transport},
    trunk::{Trunk, TrunkLimits},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Fingerprint, Identity, IdentityError, Proof,
    hello::{Hello, LONGEST, NOT_ITS_HOST, Reply, Run, StreamId, VERSION, statement},
    message::{hear, say},
    proof::Doubt,
    strangers::{Complaints, Strangers},
    tls::binding,
};
use crate::words::SessionId;

/// How long one has to prove something.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a channel may take to open: an outage of the link is no refusal.
const OPEN: Duration = Duration::from_secs(90);
/// As good as never: the lasting stream has a heartbeat of its own.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Which run may hold the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    /// The job; `None` while it is not known.
    pub job: Option<u32>,
    /// How often it was restarted, at least.
    pub restarts: u32,
}

/// A host that has been let through.
#[derive(Clone)]
pub struct Linked {
    /// What it says of itself.
    pub run: Run,
    /// What is opened to it.
    pub trunk: Trunk,
}

/// Takes hosts in, on the current runtime, until it is dropped.
pub struct Links {
    linked: watch::Receiver<Option<Linked>>,
    carried: watch::Receiver<bool>,
    _open: mpsc::Sender<()>,
}

struct Gate {
    session: SessionId,
    proof: Proof,
    expected: watch::Receiver<Expected>,
    held: Mutex<Option<Held>>,
    linked: watch::Sender<Option<Linked>>,
    carried: watch::Sender<bool>,
    complaints: Mutex<Complaints>,
}

/// The run that holds the session.
struct Held {
    run: Run,
    peer: Fingerprint,
    stream: StreamId,
    /// To whoever carries its stream.
    connections: mpsc::Sender<TlsStream<Transport<TcpStream>>>,
}

impl Links {
    /// Serves `listener`.
    ///
    /// # Errors
    /// Where TLS cannot use the key, or the runtime not the listener.
    pub fn open(
        listener: TcpListener,
        session: SessionId,
        identity: &Identity,
        proof: Proof,
        expected: watch::Receiver<Expected>,
    ) -> Result<Self, OpenError> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = TlsAcceptor::from(identity.server()?);
        let (linked, linked_seen) = watch::channel(None);
        let (carried, carried_seen) = watch::channel(false);
        let gate = Arc::new(Gate {
            session,
            proof,
            expected,
            held: Mutex::default(),
            linked,
            carried,
            complaints: Mutex::default(),
        });
        let (open, mut closed) = mpsc::channel::<()>(1);
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, acceptor, Arc::clone(&gate)) => {}
                _ = closed.recv() => {}
            }
            *gate.held() = None;
        });
        Ok(Self { linked: linked_seen, carried: carried_seen, _open: open })
    }

    /// The host that holds the session; another value with each run, and with each stream.
    pub fn linked(&self) -> watch::Receiver<Option<Linked>> {
        self.linked.clone()
    }

    /// Whether there is a connection to it at this moment.
    pub fn carried(&self) -> watch::Receiver<bool> {
        self.carried.clone()
    }
}

/// Why no hosts can be taken in.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The listener cannot be used.
    #[error("cannot listen for the session's host: {0}")]
    Listener(#[from] io::Error),
    /// The key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, gate: Arc<Gate>) {
    let mut strangers = Strangers::default();
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Out of descriptors, for one.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (acceptor, gate) = (acceptor.clone(), Arc::clone(&gate));
        let stranger = tokio::spawn(async move {
            match timeout(PATIENCE, gate.judge(&acceptor, stream)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => gate.complain(from, &error),
                Err(_) => gate.complain(from, &"it proved nothing in time"),
            }
        });
        strangers.take(from.ip(), stranger.abort_handle());
    }
}

enum Verdict {
    /// It is the run that holds the session.
    Known,
    /// It takes the session.
    Takes,
    /// It is to ask again; what the log says.
    Later(String),
    /// What it is told, and what the log says.
    Refused(&'static str, String),
}

impl Gate {
    /// Says that somebody was not let through; not of each one who comes without end.
    fn complain(&self, from: SocketAddr, why: &dyn fmt::Display) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unsaid) = complaints.may_say(Instant::now()) {
            tracing::warn!(%from, %why, unsaid, "nobody was let through to the link");
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn judge(self: &Arc<Self>, acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = acceptor.accept(Transport::new(stream)).await?;
        let (_, tls) = stream.get_mut();
        tls.set_buffer_limit(Some(AT_ONCE));
        let peer = tls.peer_certificates().and_then(<[_]>::first).map(Fingerprint::of);
        let (peer, binding) =
            (peer.ok_or(io::ErrorKind::InvalidData)?, binding(tls).map_err(io::Error::other)?);
        let hello: Hello = hear(&mut stream, LONGEST).await?;
        match self.verdict(&hello, peer, &binding).await {
            Verdict::Later(reason) => {
                say(&mut stream, &Reply::Later).await?;
                Err(io::Error::other(reason))
            }
            Verdict::Refused(why, reason) => {
                say(&mut stream, &Reply::Refused { why: why.to_owned() }).await?;
                Err(io::Error::other(reason))
            }
            Verdict::Known | Verdict::Takes => self.let_through(hello, peer, stream).await,
        }
    }

    async fn verdict(&self, hello: &Hello, peer: Fingerprint, binding: &str) -> Verdict {
        if hello.version != VERSION {
            // Its gateway may yet be one of its own version.
            return Verdict::Later("it speaks another version of this".to_owned());
        }
        if hello.session != self.session {
            return Verdict::Refused(
                "this is not your session's gateway",
                "another session's host".to_owned(),
            );
        }
        // Of a job that is over, nobody is known any more.
        let job = self.expected.borrow().job;
        let known =
            |held: &Held| (held.run.id, held.peer) == (hello.run.id, peer) && job == Some(held.run.job);
        if self.held().as_ref().is_some_and(known) {
            return Verdict::Known;
        }
        let statement = statement(self.session, &hello.run, binding);
        match self.proof.holds(peer, hello.credential.clone(), statement).await {
            Ok(()) => {}
            Err(Doubt::Stranger(why)) => return Verdict::Refused(NOT_ITS_HOST, why),
            // A host that has nothing to show at all says nothing before it has; but one that was here may find its gateway
            // anew at a moment when MUNGE does not answer.
            Err(Doubt::Unproven(why)) if hello.credential.is_none() && hello.stream.is_none() => {
                return Verdict::Refused(NOT_ITS_HOST, why);
            }
            Err(Doubt::Unproven(why)) => return Verdict::Later(why),
        }
        let expected = *self.expected.borrow();
        let Some(job) = expected.job else { return Verdict::Later("its job has no number yet".to_owned()) };
        if job != hello.run.job {
            return Verdict::Refused(
                "this is not the session's job",
                format!("job {} is not {job}", hello.run.job),
            );
        }
        if hello.run.restarts > expected.restarts {
            return Verdict::Later("Slurm has not said yet that the job was started anew".to_owned());
        }
        // As it is now: another may have come while this one was looked at.
        let held = self.held().as_ref().map(|held| held.run.clone()).filter(|run| run.job == job);
        let least = held.map_or(expected.restarts, |run| expected.restarts.max(run.restarts + 1));
        if hello.run.restarts < least {
            return Verdict::Refused(
                "the job was started anew since",
                "an earlier run of the job".to_owned(),
            );
        }
        Verdict::Takes
    }

    async fn let_through(
        self: &Arc<Self>,
        hello: Hello,
        peer: Fingerprint,
        mut stream: TlsStream<Transport<TcpStream>>,
    ) -> io::Result<()> {
        let goes_on = {
            let held = self.held();
            let held =
                held.as_ref().filter(|held| held.run.id == hello.run.id && Some(held.stream) == hello.stream);
            held.map(|held| (held.stream, held.connections.clone()))
        };
        if let Some((id, connections)) = goes_on {
            say(&mut stream, &Reply::Welcome { stream: id }).await?;
            return connections.send(stream).await.map_err(|_| io::ErrorKind::BrokenPipe.into());
        }
        let id = StreamId::random();
        say(&mut stream, &Reply::Welcome { stream: id }).await?;
        let (lasting, carrier) = lasting(LastingLimits::default());
        let (connections, come) = mpsc::channel(1);
        let _ = connections.try_send(stream);
        let run = hello.run;
        *self.held() = Some(Held { run: run.clone(), peer, stream: id, connections });
        let gate = Arc::clone(self);
        tokio::spawn(async move { gate.carry(id, carrier, come).await });
        let gate = Arc::clone(self);
        tokio::spawn(async move {
            match Trunk::over(lasting, limits()).await {
                Ok(trunk) => gate.link(id, Linked { run, trunk }).await,
                Err(error) => tracing::warn!(%error, "the session's host does not speak HTTP/2"),
            }
        });
        Ok(())
    }

    /// Says that a host is there, for as long as it is.
    async fn link(&self, id: StreamId, linked: Linked) {
        let trunk = linked.trunk.clone();
        if self.held().as_ref().is_none_or(|held| held.stream != id) {
            return;
        }
        self.linked.send_replace(Some(linked));
        let why = trunk.ended().await;
        tracing::info!(%why, "the link to the session's host has ended");
        let mut held = self.held();
        if held.as_ref().is_some_and(|held| held.stream == id) {
            *held = None;
            self.linked.send_replace(None);
        }
    }

    /// Carries a stream over one connection after the other; the newest counts.
    async fn carry(
        &self,
        id: StreamId,
        mut carrier: Carrier,
        mut come: mpsc::Receiver<TlsStream<Transport<TcpStream>>>,
    ) {
        let mut next = come.recv().await;
        while let Some(connection) = next.take() {
            self.carried.send_replace(true);
            tokio::select! {
                carried = carrier.carry_buffered(connection) => {
                    let Err(broken) = carried else { break };
                    tracing::info!(%broken, "the connection to the session's host was lost");
                    self.carried.send_replace(false);
                    if broken.is_final() {
                        break;
                    }
                    next = come.recv().await;
                }
                newer = come.recv() => next = newer,
            }
        }
        let mut held = self.held();
        // Another may hold the session by now.
        if held.as_ref().is_some_and(|held| held.stream == id) {
            *held = None;
            self.carried.send_replace(false);
            self.linked.send_replace(None);
        }
    }
}

fn limits() -> TrunkLimits {
    TrunkLimits { open: OPEN, ping: NEVER, pong: NEVER, ..TrunkLimits::default() }
}
