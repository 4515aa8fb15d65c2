//! The host's end: dials the gateway for as long as the session lives, and dials again whenever the connection is lost.

use std::{collections::HashSet, io, net::SocketAddr, time::Duration};

use nginx_free::{
    lasting::{Carrier, Lasting, LastingLimits, lasting},
    tls::{AT_ONCE, Transport},
};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Identity, IdentityError, Prover, Rendezvous, RendezvousError,
    hello::{Hello, LONGEST, Reply, Run, StreamId, VERSION, statement},
    message::{hear, say},
    tls::{binding, server_name},
};
use crate::config::paths::PrivateFolder;

/// How long one address may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a gateway may take to say whether it knows us.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two attempts: first so long, and then longer and longer.
const SOON: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(5);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answered in time, the first time.
    #[error("no gateway answered within {} s: {last}", patience.as_secs())]
    NobodyAnswers {
        /// How long it was tried.
        patience: Duration,
        /// What came of the last attempt.
        last: String,
    },
    /// The gateway says no, and will say so again.
    #[error("the gateway refuses this host: {0}")]
    Refused(String),
    /// Our own key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// One host's side of its link.
pub struct Dialler {
    /// The session's folder of records, with its [`Rendezvous`].
    pub folder: PrivateFolder,
    /// Our key.
    pub identity: Identity,
    /// How we prove ourselves.
    pub prover: Prover,
    /// Who we are.
    pub run: Run,
    /// How long to try before anybody has ever answered.
    pub patience: Duration,
}

/// The stream, while there is one.
struct Held {
    id: StreamId,
    carrier: Carrier,
}

/// What came of one attempt.
#[expect(clippy::large_enum_variant, reason = "one at a time, and it is taken apart at once")]
enum Attempt {
    Welcome(StreamId, TlsStream<Transport<TcpStream>>),
    Refused(String),
}

impl Dialler {
    /// Dials until the gateway refuses us. Each new stream goes to `streams`; an old one has ended then.
    ///
    /// # Errors
    /// As [`DialError`]: it does not end otherwise.
    pub async fn keep(self, streams: mpsc::Sender<Lasting>) -> Result<(), DialError> {
        let mut held: Option<Held> = None;
        let (begun, mut pause, mut ever) = (Instant::now(), SOON, false);
        loop {
            match self.attempt(held.as_ref().map(|held| held.id)).await {
                Ok(Attempt::Refused(why)) => return Err(DialError::Refused(why)),
                Ok(Attempt::Welcome(id, connection)) => {
                    (pause, ever) = (SOON, true);
                    if held.as_ref().is_none_or(|held| held.id != id) {
                        let (stream, carrier) = lasting(LastingLimits::default());
                        held = Some(Held { id, carrier });
                        if streams.send(stream).await.is_err() {
                            return Ok(());
                        }
                    }
                    let Some(Held { carrier, .. }) = &mut held else { continue };
                    match carrier.carry_buffered(connection).await {
                        Ok(()) => held = None,
                        Err(broken) => {
                            tracing::info!(%broken, "the connection to the gateway was lost");
                            if broken.is_final() {
                                held = None;
                            }
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no gateway");
                    if !ever && begun.elapsed() > self.patience {
                        return Err(DialError::NobodyAnswers {
                            patience: self.patience,
                            last: error.to_string(),
                        });
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LATEST);
        }
    }

    /// Tries all addresses of the gateway: what answers at one of them may be somebody else.
    async fn attempt(&self, stream: Option<StreamId>) -> Result<Attempt, AttemptError> {
        // Read each time: the gateway may be another one by now, on another node.
        let meet = Rendezvous::read(&self.folder)?;
        let connector = TlsConnector::from(self.identity.client(meet.gateway)?);
        let mut last = AttemptError::from(io::Error::from(io::ErrorKind::AddrNotAvailable));
        for address in addresses(&meet).await {
            match self.at(address, &meet, &connector, stream).await {
                Err(AttemptError::Later) => return Err(AttemptError::Later),
                Err(error) => last = error,
                reached => return reached,
            }
        }
        Err(last)
    }

    async fn at(
        &self,
        address: SocketAddr,
        meet: &Rendezvous,
        connector: &TlsConnector,
        stream: Option<StreamId>,
    ) -> Result<Attempt, AttemptError> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let tcp = timeout(CONNECT, TcpStream::connect(address)).await.map_err(late)??;
        tcp.set_nodelay(true)?;
        let said = async {
            let mut tls = connector.connect(server_name(), Transport::new(tcp)).await?;
            tls.get_mut().1.set_buffer_limit(Some(AT_ONCE));
            let binding = binding(tls.get_ref().1).map_err(io::Error::other)?;
            let statement = statement(meet.session, &self.run, &binding);
            let credential = match self.prover.credential(statement).await {
                Ok(credential) => credential,
                // A gateway that knows us needs none.
                Err(error) if stream.is_some() => {
                    tracing::warn!(%error, "no MUNGE credential");
                    None
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            let run = self.run.clone();
            say(&mut tls, &Hello { version: VERSION, session: meet.session, run, credential, stream })
                .await?;
            let reply: Reply = hear(&mut tls, LONGEST).await?;
            Ok::<_, io::Error>((reply, tls))
        };
        match timeout(PATIENCE, said).await.map_err(late)?? {
            (Reply::Welcome { stream }, tls) => Ok(Attempt::Welcome(stream, tls)),
            (Reply::Refused { why }, _) => Ok(Attempt::Refused(why)),
            (Reply::Later, _) => Err(AttemptError::Later),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Rendezvous(#[from] RendezvousError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the gateway does not know this host yet")]
    Later,
}

/// Where the gateway may be, in the order in which to try.
async fn addresses(meet: &Rendezvous) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for host in &meet.hosts {
        // A name that nobody knows here is none; its address is in the list as well.
        if let Ok(Ok(addresses)) = timeout(CONNECT, lookup_host((host.as_str(), meet.port))).await {
            found.extend(addresses);
        }
    }
    let mut seen = HashSet::new();
    found.retain(|address| seen.insert(*address));
    found
}
