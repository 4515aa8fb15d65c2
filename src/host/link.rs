//! The supervisor's end of its link to init. One task owns the socket; everybody else holds a [`Link`] and asks.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{Channel, names};

use crate::{
    sandbox::protocol::{Endpoint, Event, Request, RequestId, to_file},
    sftp::SftpSpec,
    sys::{
        message,
        process::Exit,
        spawn::{Program, Streams},
    },
};

/// Why init did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The sandbox is gone.
    #[error("the sandbox has ended")]
    Gone,
    /// The kernel said no, inside.
    #[error(transparent)]
    Refused(#[from] io::Error),
}

/// A handle on the task that talks to init. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    orders: mpsc::Sender<Order>,
    health: watch::Receiver<Health>,
}

/// What init has said of the sandbox as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// It is being made.
    Starting,
    /// It stands.
    Ready,
    /// It could not be made, for this reason.
    Failed(String),
    /// This process of the room has ended.
    RoomBroken(String),
    /// The link is closed, for this reason.
    Closed(String),
}

/// What listens inside.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// TCP, in no order.
    pub addresses: Vec<SocketAddr>,
    /// Abstract unix sockets; only without namespaces, where others could reach them.
    pub names: Vec<String>,
}

enum Order {
    Spawn {
        file: OwnedFd,
        streams: Streams,
        started: oneshot::Sender<io::Result<RequestId>>,
        exited: oneshot::Sender<Exit>,
    },
    Sftp {
        file: OwnedFd,
        streams: [OwnedFd; 3],
        started: oneshot::Sender<io::Result<RequestId>>,
        exited: oneshot::Sender<Exit>,
    },
    Signal {
        id: RequestId,
        signal: i32,
    },
    Dial {
        to: Endpoint,
        reply: oneshot::Sender<io::Result<OwnedFd>>,
    },
    Listen {
        at: Endpoint,
        reply: oneshot::Sender<io::Result<OwnedFd>>,
    },
    Unlink {
        path: PathBuf,
    },
    Listeners {
        reply: oneshot::Sender<Listening>,
    },
    Usage {
        reply: oneshot::Sender<Option<Duration>>,
    },
    WatchRoom,
}

/// A program that runs in the sandbox.
pub struct Started {
    id: RequestId,
    exited: oneshot::Receiver<Exit>,
}

impl Started {
    pub(super) fn new(id: RequestId, exited: oneshot::Receiver<Exit>) -> Self {
        Self { id, exited }
    }

    /// Its number, for [`Link::signal`].
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`LinkError::Gone`] where the sandbox ended first.
    pub async fn exit(self) -> Result<Exit, LinkError> {
        self.exited.await.map_err(|_| LinkError::Gone)
    }
}

impl Link {
    /// Takes the socket to init, and serves it on the current runtime until either end is dropped. `resolvers` are those of
    /// the sandbox's description, whose questions are passed on.
    ///
    /// # Errors
    /// Where the socket cannot be registered with the runtime.
    pub fn open(socket: OwnedFd, resolvers: Vec<IpAddr>) -> io::Result<Self> {
        let socket = Channel::new(socket)?;
        let (orders, inbox) = mpsc::channel(64);
        let (health_sender, health) = watch::channel(Health::Starting);
        let task = Task {
            socket,
            resolvers,
            health: health_sender,
            next: 1,
            starting: HashMap::new(),
            running: HashMap::new(),
            dials: HashMap::new(),
            listens: HashMap::new(),
            listings: HashMap::new(),
            usages: HashMap::new(),
        };
        tokio::spawn(task.run(inbox));
        Ok(Self { orders, health })
    }

    /// What init has said of the sandbox as a whole, as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Starts a program.
    ///
    /// # Errors
    /// [`LinkError::Refused`] as `execve(2)`; [`LinkError::Gone`].
    pub async fn spawn(&self, program: &Program, streams: Streams) -> Result<Started, LinkError> {
        let (started, answer) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        self.order(Order::Spawn { file: to_file(program)?, streams, started, exited }).await?;
        let id = answer.await.map_err(|_| LinkError::Gone)??;
        Ok(Started { id, exited: exit })
    }

    /// Starts the role that serves the session's files over SFTP, on these stdin, stdout and stderr.
    ///
    /// # Errors
    /// [`LinkError::Refused`] as `execve(2)`; [`LinkError::Gone`].
    pub async fn sftp(&self, spec: &SftpSpec, streams: [OwnedFd; 3]) -> Result<Started, LinkError> {
        let (started, answer) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        self.order(Order::Sftp { file: to_file(spec)?, streams, started, exited }).await?;
        let id = answer.await.map_err(|_| LinkError::Gone)??;
        Ok(Started { id, exited: exit })
    }

    /// Signals the process group of a program; one that has ended is no error.
    ///
    /// # Errors
    /// [`LinkError::Gone`].
    pub async fn signal(&self, id: RequestId, signal: nix::sys::signal::Signal) -> Result<(), LinkError> {
        self.order(Order::Signal { id, signal: signal as i32 }).await
    }

    /// Connects to `to`, inside. What comes out is a connected stream socket; this is checked.
    ///
    /// # Errors
    /// [`LinkError::Refused`] as `connect(2)`; [`LinkError::Gone`].
    pub async fn dial(&self, to: Endpoint) -> Result<OwnedFd, LinkError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Dial { to, reply }).await?;
        Ok(answer.await.map_err(|_| LinkError::Gone)??)
    }

    /// Listens at `at`, inside. What comes out is a listening stream socket; this is checked.
    ///
    /// # Errors
    /// [`LinkError::Refused`] as `bind(2)`; [`LinkError::Gone`].
    pub async fn listen(&self, at: Endpoint) -> Result<OwnedFd, LinkError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Listen { at, reply }).await?;
        Ok(answer.await.map_err(|_| LinkError::Gone)??)
    }

    /// Has the unix socket removed that [`Link::listen`] made at `path`. Waits for nothing, so that it can be done in a drop;
    /// where init has more to do than is noted down, it is done by a task.
    pub(super) fn unlink(&self, path: PathBuf) {
        if let Err(mpsc::error::TrySendError::Full(order)) = self.orders.try_send(Order::Unlink { path })
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let orders = self.orders.clone();
            runtime.spawn(async move { orders.send(order).await });
        }
    }

    /// What listens, inside.
    ///
    /// # Errors
    /// [`LinkError::Gone`].
    pub async fn listeners(&self) -> Result<Listening, LinkError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Listeners { reply }).await?;
        answer.await.map_err(|_| LinkError::Gone)
    }

    /// The time that the processes inside have had on processors; none where it cannot be read.
    ///
    /// # Errors
    /// [`LinkError::Gone`].
    pub async fn usage(&self) -> Result<Option<Duration>, LinkError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Usage { reply }).await?;
        answer.await.map_err(|_| LinkError::Gone)
    }

    /// Makes the end of any process that runs inside at this moment [`Health::RoomBroken`].
    ///
    /// # Errors
    /// [`LinkError::Gone`].
    pub async fn watch_room(&self) -> Result<(), LinkError> {
        self.order(Order::WatchRoom).await
    }

    async fn order(&self, order: Order) -> Result<(), LinkError> {
        self.orders.send(order).await.map_err(|_| LinkError::Gone)
    }
}

struct Task {
    socket: Channel,
    resolvers: Vec<IpAddr>,
    health: watch::Sender<Health>,
    next: RequestId,
    starting: HashMap<RequestId, (oneshot::Sender<io::Result<RequestId>>, oneshot::Sender<Exit>)>,
    running: HashMap<RequestId, oneshot::Sender<Exit>>,
    dials: HashMap<RequestId, oneshot::Sender<io::Result<OwnedFd>>>,
    listens: HashMap<RequestId, oneshot::Sender<io::Result<OwnedFd>>>,
    listings: HashMap<RequestId, oneshot::Sender<Listening>>,
    usages: HashMap<RequestId, oneshot::Sender<Option<Duration>>>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut buffer = vec![0; message::MAX_LEN];
        let why = loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    None => break "the supervisor is done".to_owned(),
                    Some(order) => if let Err(error) = self.send(order).await { break format!("cannot write to init: {error}") },
                },
                received = self.socket.receive::<Event>(&mut buffer) => match received {
                    Ok(Some((event, fds))) => {
                        if self.take(event, fds).is_none() { break "init said something that does not fit".to_owned() }
                    }
                    Ok(None) => break "init is gone".to_owned(),
                    Err(error) => break format!("cannot read from init: {error}"),
                },
            }
        };
        // The first reason is the one that counts: a failed start closes the link as well.
        self.health.send_if_modified(|health| {
            let open = matches!(health, Health::Starting | Health::Ready);
            if open {
                *health = Health::Closed(why);
            }
            open
        });
    }

    async fn send(&mut self, order: Order) -> io::Result<()> {
        let id = self.next;
        self.next += 1;
        match order {
            Order::Spawn { file, streams, started, exited } => {
                self.starting.insert(id, (started, exited));
                match streams {
                    Streams::Terminal(tty) => {
                        self.write(&Request::Spawn { id, terminal: true }, &[file.as_fd(), tty.as_fd()]).await
                    }
                    Streams::Separate([a, b, c]) => {
                        let fds = [file.as_fd(), a.as_fd(), b.as_fd(), c.as_fd()];
                        self.write(&Request::Spawn { id, terminal: false }, &fds).await
                    }
                }
            }
            Order::Sftp { file, streams: [a, b, c], started, exited } => {
                self.starting.insert(id, (started, exited));
                self.write(&Request::Sftp { id }, &[file.as_fd(), a.as_fd(), b.as_fd(), c.as_fd()]).await
            }
            Order::Signal { id, signal } => self.write(&Request::Signal { id, signal }, &[]).await,
            Order::Dial { to, reply } => {
                self.dials.insert(id, reply);
                self.write(&Request::Dial { id, to }, &[]).await
            }
            Order::Listen { at, reply } => {
                self.listens.insert(id, reply);
                self.write(&Request::Listen { id, at }, &[]).await
            }
            Order::Unlink { path } => self.write(&Request::Unlink { path }, &[]).await,
            Order::Listeners { reply } => {
                self.listings.insert(id, reply);
                self.write(&Request::Listeners { id }, &[]).await
            }
            Order::Usage { reply } => {
                self.usages.insert(id, reply);
                self.write(&Request::Usage { id }, &[]).await
            }
            Order::WatchRoom => self.write(&Request::WatchRoom, &[]).await,
        }
    }

    async fn write(&self, request: &Request, fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.send(request, fds).await
    }

    /// Takes one event in. `None` where it answers nothing that was asked, or carries what it should not.
    /// A requester that no longer listens is no fault of init's.
    fn take(&mut self, event: Event, mut fds: Vec<OwnedFd>) -> Option<()> {
        if matches!(event, Event::Ready) {
            let questions = std::mem::take(&mut self.resolvers);
            names::relay(&questions, std::mem::take(&mut fds)).ok()?;
        }
        let socket = fds.pop();
        let carries = matches!(event, Event::Connected { .. } | Event::Listening { .. });
        if (socket.is_some() && !carries) || !fds.is_empty() {
            return None;
        }
        match event {
            Event::Ready => self.change(Health::Starting, Health::Ready)?,
            Event::Failed { what, errno } => {
                let why = format!("{what}: {}", io::Error::from_raw_os_error(errno));
                self.change(Health::Starting, Health::Failed(why))?;
            }
            Event::Spawned { id } => {
                let (started, exited) = self.starting.remove(&id)?;
                let _ = started.send(Ok(id));
                self.running.insert(id, exited);
            }
            Event::NotSpawned { id, errno } => drop(self.starting.remove(&id)?.0.send(refused(errno))),
            Event::Exited { id, exit } => drop(self.running.remove(&id)?.send(exit)),
            Event::Connected { id } => {
                let _ = self.dials.remove(&id)?.send(checked(socket, message::is_connected_stream)?);
            }
            Event::NotConnected { id, errno } => drop(self.dials.remove(&id)?.send(refused(errno))),
            Event::Listening { id } => {
                let _ = self.listens.remove(&id)?.send(checked(socket, message::is_listening_stream)?);
            }
            Event::NotListening { id, errno } => drop(self.listens.remove(&id)?.send(refused(errno))),
            Event::Listeners { id, addresses, names } => {
                drop(self.listings.remove(&id)?.send(Listening { addresses, names }));
            }
            Event::Usage { id, cpu } => drop(self.usages.remove(&id)?.send(cpu)),
            Event::RoomBroken { name } => {
                self.health.send_replace(Health::RoomBroken(name));
            }
        }
        Some(())
    }

    fn change(&self, from: Health, to: Health) -> Option<()> {
        self.health.send_if_modified(|health| {
            let fits = *health == from;
            if fits {
                *health = to;
            }
            fits
        });
        Some(())
    }
}

fn refused<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

/// A socket that came out, if it is what was asked for. `None` where it is something else.
fn checked(socket: Option<OwnedFd>, fits: fn(&OwnedFd) -> bool) -> Option<io::Result<OwnedFd>> {
    match socket {
        Some(socket) => fits(&socket).then_some(Ok(socket)),
        // It was lost for want of a number: one connection's trouble, not the session's.
        None => Some(refused(libc::EMFILE)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    /// A link, and the end of it that an app which has taken init over would hold.
    fn taken_over() -> (Link, OwnedFd) {
        let (ours, theirs) = message::pair().unwrap();
        (Link::open(ours, Vec::new()).unwrap(), theirs)
    }

    async fn closes(link: &Link) -> String {
        let mut health = link.health();
        let closed = health.wait_for(|health| matches!(health, Health::Closed(_)));
        match &*tokio::time::timeout(std::time::Duration::from_secs(5), closed).await.unwrap().unwrap() {
            Health::Closed(why) => why.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn say(socket: &OwnedFd, bytes: &[u8], fds: &[std::os::fd::RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        // It may have been cut off before it has said all it wants to.
        let _ = sendmsg::<()>(
            socket.as_raw_fd(),
            &[io::IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
    }

    /// How many descriptors of this process are of the same open socket.
    fn copies_of(socket: &impl AsRawFd) -> usize {
        let same = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        all.filter(|entry| std::fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|its| its == same))
            .count()
    }

    /// Threat 4: whatever a taken-over init sends, the link closes and keeps nothing.
    #[tokio::test]
    async fn threat_4_a_taken_over_init_is_cut_off_and_leaves_no_descriptor() {
        let bait = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let fd = bait.as_raw_fd();
        let json = |event: &Event| serde_json::to_vec(event).unwrap();
        let attacks: [(&str, Vec<u8>, Vec<std::os::fd::RawFd>); 7] = [
            ("253 descriptors", json(&Event::Ready), vec![fd; 253]),
            ("one too many", json(&Event::Ready), vec![fd; message::MAX_FDS + 1]),
            ("descriptors where none belong", json(&Event::Ready), vec![fd]),
            ("no data", Vec::new(), vec![fd]),
            ("no JSON", b"{\"Exited\":".to_vec(), vec![fd; 3]),
            ("an answer to nothing", json(&Event::Connected { id: 7 }), vec![fd]),
            ("64 KiB of it", vec![b' '; message::MAX_LEN + 1], vec![fd; 8]),
        ];
        for (what, bytes, fds) in attacks {
            let (link, init) = taken_over();
            say(&init, &bytes, &fds);
            let why = closes(&link).await;
            assert_eq!(copies_of(&bait), 1, "{what}: {why}");
            assert!(matches!(link.listeners().await, Err(LinkError::Gone)), "{what}");
        }
    }

    /// Threat 4: ten thousand messages, each an answer that nobody waits for.
    #[tokio::test]
    async fn threat_4_a_flood_ends_at_its_first_message() {
        let (link, init) = taken_over();
        let flood = std::thread::spawn(move || {
            let event = serde_json::to_vec(&Event::Spawned { id: 1 }).unwrap();
            (0..10_000).for_each(|_| say(&init, &event, &[]));
        });
        closes(&link).await;
        flood.join().unwrap();
    }

    /// A descriptor that is no connected stream socket is not taken for a connection.
    #[tokio::test]
    async fn threat_4_only_a_connection_answers_a_dial() {
        for listening in [false, true] {
            let (link, init) = taken_over();
            let dial = tokio::spawn({
                let link = link.clone();
                async move { link.dial(Endpoint::Tcp(([127, 0, 0, 1], 1).into())).await }
            });
            let wrong: OwnedFd = if listening {
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().into()
            } else {
                std::fs::File::open("/dev/null").unwrap().into()
            };
            let answer = serde_json::to_vec(&Event::Connected { id: 1 }).unwrap();
            tokio::task::yield_now().await;
            say(&init, &answer, &[wrong.as_raw_fd()]);
            assert!(matches!(dial.await.unwrap(), Err(LinkError::Gone)));
            closes(&link).await;
        }
    }
}
