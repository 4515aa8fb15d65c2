//! One connection: what its client asks, judged by what it may do, and handed to a task for each channel. Nothing here
//! waits for a program or for somebody to read: while it does, the whole connection stands still.

use std::{collections::HashMap, ffi::OsString, io, os::unix::ffi::OsStringExt, sync::Arc, time::Duration};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig,
    keys::Certificate,
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    agent::Agent,
    auth::Authentication,
    channels::{Channels, Kind, Lane},
    environment::{self, Environment},
    forward::{self, Destination},
    guest::{self, Reception},
    listening::{Key, Listening},
    permits::Permits,
    pty::{self, Screen},
    server::Inside,
    session_channel::{self, Client, Control, Job, What},
    signals,
};
use crate::{
    host::Invocation,
    share::Visit,
    words::{Isolation, Size},
};

/// The longest command line: what the kernel takes as one word of a program (`MAX_ARG_STRLEN`).
const LONGEST_LINE: usize = 128 * 1024 - 1;
/// The longest path of a unix socket (`unix(7)`).
const LONGEST_PATH: usize = 107;
/// The longest host name (RFC 1035).
const LONGEST_NAME: usize = 255;
/// How long init may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a connection ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// The protocol was not kept, or the network broke.
    #[error(transparent)]
    Protocol(#[from] russh::Error),
    /// The client has sent more than it was told to.
    #[error("its client sends without being told to")]
    Flood,
}

/// A connection's client, and what it has.
pub(super) struct Connection {
    inside: Arc<Inside>,
    authentication: Authentication,
    /// What programs hear of where it comes from.
    origin: Vec<(OsString, OsString)>,
    channels: Arc<Channels>,
    sessions: HashMap<ChannelId, SessionChannel>,
    listening: Listening,
    agent: Option<Agent>,
}

/// A session channel, before and after there is something to run in it.
enum SessionChannel {
    Prepared(Box<Prepared>),
    Running(mpsc::Sender<Control>),
}

impl SessionChannel {
    fn has_ended(&self) -> bool {
        matches!(self, Self::Running(control) if control.is_closed())
    }
}

struct Prepared {
    channel: ChannelWriteHalf<Msg>,
    lane: Lane,
    environment: Environment,
    screen: Option<Screen>,
}

/// What a client wants to have run.
enum Asked {
    Shell,
    Line(Vec<u8>),
    FileTransfer,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.channels.clear();
    }
}

impl Connection {
    pub(super) fn new(
        inside: Arc<Inside>,
        authentication: Authentication,
        origin: Vec<(OsString, OsString)>,
    ) -> Self {
        let channels = Arc::new(Channels::new(inside.activity.clone()));
        let listening = Listening::new(Arc::clone(&inside.host), Arc::clone(&channels));
        Self { inside, authentication, origin, channels, sessions: HashMap::new(), listening, agent: None }
    }

    fn permits(&self) -> Option<&Permits> {
        self.authentication.permits()
    }

    fn prepared(&mut self, id: ChannelId) -> Option<&mut Prepared> {
        match self.sessions.get_mut(&id) {
            Some(SessionChannel::Prepared(prepared)) => Some(prepared),
            _ => None,
        }
    }

    /// Starts what is asked for, or what the client's key has instead. `false` where there is no such channel, or something
    /// runs in it already.
    fn run(&mut self, id: ChannelId, asked: Asked, session: &Session) -> bool {
        if let Some(visit) = self.authentication.visit().cloned() {
            return matches!(asked, Asked::Shell) && self.receive(id, visit, session);
        }
        let Some(permits) = self.authentication.permits() else { return false };
        let prepared = match self.sessions.remove(&id) {
            Some(SessionChannel::Prepared(prepared)) => *prepared,
            Some(running) => {
                self.sessions.insert(id, running);
                return false;
            }
            None => return false,
        };
        let Prepared { channel, lane, environment, screen } = prepared;
        let mut env = environment.into_vec();
        if screen.is_none() {
            // It needs a terminal.
            env.retain(|(name, _)| name != "SHLOGIN_TMUX");
        }
        env.extend(permits.environment.iter().cloned());
        env.extend(self.origin.iter().cloned());
        env.extend(self.agent.iter().map(Agent::variable));
        let what = match (&permits.command, asked) {
            (Some(command), asked) => {
                let original = match asked {
                    Asked::Shell => None,
                    Asked::Line(line) => Some(OsString::from_vec(line)),
                    Asked::FileTransfer => Some("sftp".into()),
                };
                env.extend(original.map(|line| ("SSH_ORIGINAL_COMMAND".into(), line)));
                What::Program(Invocation::Line(command.clone()))
            }
            (None, Asked::Shell) => What::Program(Invocation::Login),
            (None, Asked::Line(line)) => What::Program(Invocation::Line(OsString::from_vec(line))),
            (None, Asked::FileTransfer) => What::FileTransfer,
        };
        // What does not fit is lost: nobody sends so many signals and means it.
        let (sender, control) = mpsc::channel(16);
        let client = Client { handle: session.handle(), channel, channels: Arc::clone(&self.channels), lane };
        let job = Job { host: Arc::clone(&self.inside.host), what, env, client, control };
        match screen {
            Some(screen) => {
                let Inside { terminals, guests, .. } = &*self.inside;
                tokio::spawn(pty::run(terminals.clone(), guests.clone(), screen, job));
            }
            None => drop(tokio::spawn(session_channel::run(job))),
        }
        self.sessions.insert(id, SessionChannel::Running(sender));
        true
    }

    /// Shows a guest his terminal. `false` where he has none of his own to see it on, or sees it already.
    fn receive(&mut self, id: ChannelId, visit: Visit, session: &Session) -> bool {
        let (channel, lane, size) = match self.sessions.remove(&id) {
            Some(SessionChannel::Prepared(prepared)) => match *prepared {
                Prepared { channel, lane, screen: Some(screen), .. } => (channel, lane, screen.size),
                prepared => {
                    self.sessions.insert(id, SessionChannel::Prepared(Box::new(prepared)));
                    return false;
                }
            },
            Some(running) => {
                self.sessions.insert(id, running);
                return false;
            }
            None => return false,
        };
        let (sender, control) = mpsc::channel(16);
        let client = Client { handle: session.handle(), channel, channels: Arc::clone(&self.channels), lane };
        let owner = self.authentication.owner_name().to_owned();
        let reception = Reception { visit, owner, size, client, control };
        tokio::spawn(guest::run(self.inside.terminals.clone(), reception));
        self.sessions.insert(id, SessionChannel::Running(sender));
        true
    }

    fn answer(session: &mut Session, id: ChannelId, done: bool) -> Result<(), ConnectionError> {
        if done {
            session.channel_success(id)?
        } else {
            session.channel_failure(id)?
        }
        Ok(())
    }

    fn take(&self, id: ChannelId, bytes: &[u8]) {
        if let Some(inbound) = self.channels.inbound(id) {
            inbound.take(bytes);
        }
    }

    /// Why nothing is forwarded here at all.
    fn unforwardable(&self, to: &Destination) -> Option<ChannelOpenFailure> {
        let Some(permits) = self.permits() else {
            return Some(ChannelOpenFailure::AdministrativelyProhibited);
        };
        match to {
            Destination::Tcp(..) if self.inside.host.isolation() == Isolation::Socket => {
                // 1: SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1).
                let reason = "this session has no network of its own (--isolation socket)".to_owned();
                Some(ChannelOpenFailure::Other { code: 1, reason })
            }
            Destination::Tcp(host, port) if permits.may_open(host, *port) => None,
            Destination::Unix(_) if permits.may_open_sockets() => None,
            _ => Some(ChannelOpenFailure::AdministrativelyProhibited),
        }
    }

    async fn forward(&self, channel: Channel<Msg>, to: Destination, reply: ChannelOpenHandle) {
        let id = channel.id();
        if let Some(why) = self.unforwardable(&to) {
            return reply.reject(why).await;
        }
        let Some(lane) = self.channels.admit(id, Kind::Forward) else {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        };
        // All data comes to this connection's own `data`: what is read from a channel waits in the way of all others.
        let (_, channel) = channel.split();
        let (host, channels) = (Arc::clone(&self.inside.host), Arc::clone(&self.channels));
        tokio::spawn(forward::open(host, to, channel, reply, channels, lane));
    }
}

impl Handler for Connection {
    type Error = ConnectionError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        Ok(self.authentication.none(user))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        Ok(self.authentication.password(user, password).await)
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.authentication.offered(user, offer.public_key, offer.algorithm).await)
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.authentication.key(user, key.public_key, key.algorithm).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        Ok(self.authentication.certificate(user, certificate).await)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        self.authentication.succeeded();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let id = channel.id();
        // Of what has ended, russh does not tell.
        self.sessions.retain(|_, session| !session.has_ended());
        let Some(lane) = self.channels.admit(id, Kind::Session) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (_, channel) = channel.split();
        let prepared = Prepared { channel, lane, environment: Environment::default(), screen: None };
        self.sessions.insert(id, SessionChannel::Prepared(Box::new(prepared)));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        match forward::port(port).filter(|_| host.len() <= LONGEST_NAME) {
            Some(port) => self.forward(channel, Destination::Tcp(host.to_owned(), port), reply).await,
            None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if is_socket_path(path) {
            self.forward(channel, Destination::Unix(path.to_owned()), reply).await;
        } else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        // Before its first data comes. Where there are too many it is closed by whoever has opened it.
        self.channels.admit(id, Kind::Forward);
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.sessions.remove(&id);
        self.channels.remove(id);
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(inbound) = self.channels.inbound(id) {
            inbound.end();
        }
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, bytes: &[u8], _session: &mut Session) -> Result<(), Self::Error> {
        self.take(id, bytes);
        let backlog = self.channels.backlog();
        if backlog.is_too_much() {
            return Err(ConnectionError::Flood);
        }
        if let Some(pause) = backlog.pause_after(bytes.len()) {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    fn adjust_window(&mut self, _channel: ChannelId, _current: u32) -> u32 {
        self.channels.backlog().window()
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        cols: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let guest = self.authentication.visit().is_some();
        let may = guest || self.permits().is_some_and(|permits| permits.pty);
        let prepared = self.prepared(id).filter(|_| may);
        let done = prepared.is_some();
        if let Some(prepared) = prepared {
            let term = environment::term(term).to_owned();
            prepared.screen = Some(Screen { term, size: Size::near(cols, rows), modes: modes.to_vec() });
        }
        Self::answer(session, id, done)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Self::answer(session, id, false)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let done = self.prepared(id).is_some_and(|prepared| prepared.environment.set(name, value));
        Self::answer(session, id, done)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        let done = self.run(id, Asked::Shell, session);
        Self::answer(session, id, done)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let done = line.len() <= LONGEST_LINE
            && !line.contains(&0)
            && self.run(id, Asked::Line(line.to_vec()), session);
        Self::answer(session, id, done)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let done = name == "sftp" && self.run(id, Asked::FileTransfer, session);
        Self::answer(session, id, done)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        cols: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = Size::near(cols, rows);
        match self.sessions.get_mut(&id) {
            Some(SessionChannel::Running(control)) => drop(control.try_send(Control::Resize(size))),
            Some(SessionChannel::Prepared(prepared)) => {
                if let Some(screen) = &mut prepared.screen {
                    screen.size = size;
                }
            }
            None => {}
        }
        Self::answer(session, id, true)
    }

    async fn signal(&mut self, id: ChannelId, name: Sig, _session: &mut Session) -> Result<(), Self::Error> {
        if let (Some(SessionChannel::Running(control)), Some(signal)) =
            (self.sessions.get(&id), signals::from_client(&name))
        {
            let _ = control.try_send(Control::Signal(signal));
        }
        Ok(())
    }

    async fn agent_request(&mut self, id: ChannelId, session: &mut Session) -> Result<bool, Self::Error> {
        let may = self.permits().is_some_and(|permits| permits.agent) && self.prepared(id).is_some();
        if may && self.agent.is_none() {
            let channels = Arc::clone(&self.channels);
            let opened = match &self.inside.temporary {
                Some(temporary) => Agent::open(temporary, session.handle(), channels),
                None => Agent::open_far(&self.inside.host, session.handle(), channels).await,
            };
            match opened {
                Ok(agent) => self.agent = Some(agent),
                Err(error) => tracing::warn!(%error, "cannot forward an ssh agent"),
            }
        }
        Ok(may && self.agent.is_some())
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Ok(wanted) = u16::try_from(*port) else { return Ok(false) };
        let may = self.permits().is_some_and(|permits| permits.may_listen(host, wanted))
            && self.inside.host.isolation() != Isolation::Socket
            && host.len() <= LONGEST_NAME;
        if !may {
            return Ok(false);
        }
        let handle = session.handle();
        match listens(self.listening.tcp(&handle, host, wanted)).await {
            Some(got) => {
                *port = u32::from(got);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let key = u16::try_from(port).map(|port| Key::Tcp(host.to_owned(), port));
        Ok(key.is_ok_and(|key| self.listening.cancel(&key)))
    }

    async fn streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, Self::Error> {
        let may = self.permits().is_some_and(Permits::may_listen_on_sockets) && is_socket_path(path);
        let handle = session.handle();
        Ok(may && listens(self.listening.unix(&handle, path)).await.is_some())
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listening.cancel(&Key::Unix(path.to_owned())))
    }
}

/// What listens now, if it does in time.
async fn listens<T>(listening: impl Future<Output = io::Result<T>>) -> Option<T> {
    match timeout(PATIENCE, listening).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::info!(%error, "cannot listen for a client");
            None
        }
        Err(_) => None,
    }
}

fn is_socket_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= LONGEST_PATH && !path.contains('\0')
}
