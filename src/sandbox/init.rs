//! Init: makes the namespaces, becomes PID 1 in them, drops every right it had, and serves the supervisor: it starts
//! programs, reaps, dials the app, and says what listens. An app runs as the same user and may try to take it over, so it
//! holds nothing worth taking.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, ExitCode},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{Signal, killpg},
        signalfd::SignalFd,
    },
    unistd::{Pid, getgid, getpid, getuid},
};

use super::{
    SandboxSpec, keeper, listeners, mounts, network,
    protocol::{self, Event, Go, InitToKeeper, Request, RequestId},
};
use crate::{
    sys::{
        descriptor::{INHERITED, inherited},
        namespace::{self, Fork},
        process,
        process::PidFd,
        rights,
        spawn::{self, Program, Streams, role},
        usage,
    },
    words::{Isolation, Network},
};

mod dial;
mod names;

/// The role `@init`. Descriptors: 3 the supervisor, 4 the keeper, 5 the [`SandboxSpec`] as a file.
pub fn run() -> ExitCode {
    let [supervisor, keeper, spec] = match [0, 1, 2].map(|n| inherited(INHERITED + n)) {
        [Ok(a), Ok(b), Ok(c)] => [a, b, c],
        _ => return ExitCode::FAILURE,
    };
    let Ok(spec) = protocol::from_file::<SandboxSpec>(spec) else { return ExitCode::FAILURE };
    match spec.isolation {
        Isolation::Namespace => match enter(&keeper) {
            Ok(Fork::Child) => {}
            Ok(Fork::Parent(_)) => return ExitCode::SUCCESS,
            Err(()) => return ExitCode::FAILURE,
        },
        Isolation::Socket => {
            let _ = prctl::set_child_subreaper(true);
            let born = InitToKeeper::Born { pid: getpid().as_raw() };
            if protocol::send(keeper.as_fd(), &born, &[]).is_err() {
                return ExitCode::FAILURE;
            }
        }
    }
    let settled = settle(&spec, &keeper);
    let told = match &settled {
        Ok(_) => Event::Ready,
        Err((what, error)) => Event::Failed { what: what.clone(), errno: errno(error) },
    };
    let name_service = settled.as_deref().unwrap_or_default();
    let sockets: Vec<_> = name_service.iter().map(AsFd::as_fd).collect();
    if protocol::send(supervisor.as_fd(), &told, &sockets).is_err() || settled.is_err() {
        return ExitCode::FAILURE;
    }
    drop((keeper, settled));
    let served = Server::new(supervisor, spec.isolation).and_then(Server::serve);
    if spec.isolation == Isolation::Socket {
        keeper::end_descendants();
    }
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes the namespaces and forks PID 1, which is a child of the keeper; the parent's part ends here.
fn enter(keeper: &OwnedFd) -> Result<Fork, ()> {
    let refuse = |what: &str, error: &io::Error| {
        let failed = InitToKeeper::Failed { what: what.to_owned(), errno: errno(error) };
        // The keeper's only other news would be our end, which says less.
        let _ = protocol::send(keeper.as_fd(), &failed, &[]);
    };
    namespace::enter_new(getuid(), getgid()).map_err(|error| refuse("making namespaces", &error))?;
    namespace::bring_loopback_up().map_err(|error| refuse("bringing up its loopback", &error))?;
    let fork = namespace::fork_sibling().map_err(|error| refuse("starting its first process", &error))?;
    if let Fork::Parent(pid) = fork {
        // If this fails the keeper is gone, and the new process notices by its own means.
        let _ = protocol::send(keeper.as_fd(), &InitToKeeper::Born { pid: pid.as_raw() }, &[]);
    }
    Ok(fork)
}

/// As PID 1: mounts, then waits for the network, then gives up every right. Returns the sockets for the name service.
fn settle(spec: &SandboxSpec, keeper: &OwnedFd) -> Result<Vec<OwnedFd>, mounts::Failure> {
    let because = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| (what, error)
    };
    if spec.isolation == Isolation::Namespace {
        // The keeper is our parent, though in another PID namespace: its death is ours, even if we are stopped.
        prctl::set_pdeathsig(Signal::SIGKILL)
            .map_err(|errno| because("tying init to the keeper")(errno.into()))?;
        mounts::arrange(spec)?;
    }
    match protocol::receive::<Go>(keeper.as_fd()).map_err(because("waiting for the network"))? {
        Some(_) => {}
        None => return Err(because("waiting for the network")(io::ErrorKind::UnexpectedEof.into())),
    }
    if spec.isolation == Isolation::Namespace && spec.network == Network::Outbound {
        network::close_ways()
            .map_err(because("closing the ways to the node's loopback and to metadata services"))?;
    }
    let name_service = match spec.isolation {
        Isolation::Namespace => {
            names::sockets(&spec.resolvers).map_err(because("listening for the name service"))?
        }
        Isolation::Socket => Vec::new(),
    };
    drop_rights().map_err(because("dropping capabilities"))?;
    Ok(name_service)
}

/// No capability in any set, none to be regained by running a program, and no look into our memory for the app.
fn drop_rights() -> io::Result<()> {
    rights::drop_capabilities()?;
    rights::no_new_privileges()?;
    prctl::set_dumpable(false)?;
    Ok(())
}

/// The most listeners that are told: a message has its bounds, and an app with more is looked for at its first ones.
const MOST_LISTENERS: usize = 512;

/// Init's loop: one thread, one `poll(2)`.
struct Server {
    supervisor: OwnedFd,
    isolation: Isolation,
    children: SignalFd,
    /// Programs started on request, by PID.
    programs: HashMap<Pid, RequestId>,
    /// Those of them that are roles of our own.
    roles: HashSet<Pid>,
    /// Without namespaces: those that hid what they have open when they were last looked at.
    hidden: HashSet<Pid>,
    /// Processes whose end is the end of the room.
    room: Vec<(PidFd, String)>,
    dials: dial::Pending,
    sockets: dial::Sockets,
}

impl Server {
    fn new(supervisor: OwnedFd, isolation: Isolation) -> io::Result<Self> {
        Ok(Self {
            supervisor,
            isolation,
            children: process::signals(&[Signal::SIGCHLD])?,
            programs: HashMap::new(),
            roles: HashSet::new(),
            hidden: HashSet::new(),
            room: Vec::new(),
            dials: dial::Pending::default(),
            sockets: dial::Sockets::default(),
        })
    }

    /// Serves until the supervisor is gone.
    fn serve(mut self) -> io::Result<()> {
        loop {
            let (asked, ended, broken) = self.wait()?;
            if ended {
                self.reap()?;
            }
            for name in broken {
                self.tell(&Event::RoomBroken { name })?;
            }
            for (event, socket) in self.dials.finished() {
                let fds: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
                protocol::send(self.supervisor.as_fd(), &event, &fds)?;
            }
            if asked && !self.answer()? {
                return Ok(());
            }
        }
    }

    /// Waits for something to do: a request, a child's end, the ends of processes of the room.
    fn wait(&mut self) -> io::Result<(bool, bool, Vec<String>)> {
        let mut set = vec![
            PollFd::new(self.supervisor.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
        ];
        set.extend(self.room.iter().map(|(process, _)| PollFd::new(process.as_fd(), PollFlags::POLLIN)));
        set.extend(self.dials.sockets().map(|socket| PollFd::new(socket, PollFlags::POLLOUT)));
        match poll(&mut set, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let fired: Vec<bool> = set.iter().map(|fd| fd.any().unwrap_or_default()).collect();
        drop(set);
        let mut fates = fired[2..].iter();
        let mut broken = Vec::new();
        self.room.retain(|(_, name)| {
            let gone = fates.next().copied().unwrap_or_default();
            if gone {
                broken.push(name.clone());
            }
            !gone
        });
        Ok((fired[0], fired[1], broken))
    }

    fn tell(&self, event: &Event) -> io::Result<()> {
        protocol::send(self.supervisor.as_fd(), event, &[])
    }

    fn reap(&mut self) -> io::Result<()> {
        while self.children.read_signal()?.is_some() {}
        while let Some((pid, exit)) = process::reap() {
            self.roles.remove(&pid);
            if let Some(id) = self.programs.remove(&pid) {
                self.tell(&Event::Exited { id, exit })?;
            }
        }
        Ok(())
    }

    /// Answers one request. `false` where the supervisor is gone.
    fn answer(&mut self) -> io::Result<bool> {
        let Some((request, fds)) = protocol::receive::<Request>(self.supervisor.as_fd())? else {
            return Ok(false);
        };
        match request {
            Request::Spawn { id, terminal } => self.note(id, start(fds, terminal))?,
            Request::Sftp { id } => {
                let started = start_sftp(fds);
                self.roles.extend(started.as_ref().ok());
                self.note(id, started)?;
            }
            Request::Signal { id, signal } => {
                let group = self.programs.iter().find(|(_, its)| **its == id);
                if let (Some((pid, _)), Ok(signal)) = (group, Signal::try_from(signal)) {
                    // It is a child not yet reaped, so the number is still its own; it may have ended, which is no error.
                    let _ = killpg(*pid, signal);
                }
            }
            Request::Dial { id, to } => {
                if let Some(event) = self.dials.begin(id, &to) {
                    self.tell(&event)?;
                }
            }
            Request::Listen { id, at } => match self.sockets.listen(&at) {
                Ok(socket) => {
                    protocol::send(self.supervisor.as_fd(), &Event::Listening { id }, &[socket.as_fd()])?;
                }
                Err(error) => self.tell(&Event::NotListening { id, errno: errno(&error) })?,
            },
            Request::Unlink { path } => self.sockets.unlink(&path),
            Request::Listeners { id } => {
                let found = match self.isolation {
                    Isolation::Namespace => listeners::all()?,
                    Isolation::Socket => listeners::of(&process::descendants()?)?,
                };
                let names =
                    match self.isolation {
                        Isolation::Namespace => Vec::new(),
                        Isolation::Socket => {
                            let mut processes = process::descendants()?;
                            let mut names = listeners::abstract_names_of(&processes)?;
                            // A role that has joined a container hides what it has open, by the kernel's rule; it listens
                            // on nothing.
                            processes.retain(|pid| !self.roles.contains(pid));
                            let hidden = listeners::hidden(&processes);
                            // A runtime's starter hides for a moment, on its way into the container; an app that hides stays so.
                            let still = hidden.intersection(&self.hidden);
                            names.extend(still.map(|pid| {
                                format!("something unknown: process {pid} hides what it has open")
                            }));
                            self.hidden = hidden;
                            names
                        }
                    };
                let addresses = found.into_iter().map(|(address, _)| address).take(MOST_LISTENERS).collect();
                self.tell(&Event::Listeners { id, addresses, names })?;
            }
            Request::Usage { id } => {
                self.tell(&Event::Usage { id, cpu: usage::cpu_of_descendants().ok() })?;
            }
            Request::WatchRoom => self.watch_room()?,
        }
        Ok(true)
    }

    /// Remembers what was started, or not, and tells.
    fn note(&mut self, id: RequestId, started: io::Result<Pid>) -> io::Result<()> {
        let event = match started {
            Ok(pid) => {
                self.programs.insert(pid, id);
                Event::Spawned { id }
            }
            Err(error) => Event::NotSpawned { id, errno: errno(&error) },
        };
        self.tell(&event)
    }

    fn watch_room(&mut self) -> io::Result<()> {
        for pid in process::descendants()? {
            let Ok(held) = PidFd::open(pid) else { continue };
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            self.room.push((held, name.trim_end().to_owned()));
        }
        Ok(())
    }
}

/// Starts a program with the descriptors of its request.
fn start(fds: Vec<OwnedFd>, terminal: bool) -> io::Result<Pid> {
    let mut fds = fds.into_iter();
    let program: Program = protocol::from_file(fds.next().ok_or(io::ErrorKind::InvalidData)?)?;
    let streams = match (terminal, fds.next(), fds.next(), fds.next()) {
        (true, Some(tty), None, None) => Streams::Terminal(tty),
        (false, Some(input), Some(output), Some(error)) => Streams::Separate([input, output, error]),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    pid_of(&spawn::program(&program, streams)?)
}

/// Starts the role that serves files, with the descriptors of its request.
fn start_sftp(fds: Vec<OwnedFd>) -> io::Result<Pid> {
    let [told, input, output, error] =
        <[OwnedFd; 4]>::try_from(fds).map_err(|_| io::ErrorKind::InvalidData)?;
    pid_of(&spawn::serving_role(role::SFTP, told, [input, output, error])?)
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}
