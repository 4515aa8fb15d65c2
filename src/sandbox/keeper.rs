//! The keeper: parent of init and of the network helper, in the node's own namespaces. It outlives the supervisor by as
//! long as it takes to end everything and remove the session's folders.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, ExitCode},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use super::{
    SandboxSpec, mounts, network,
    protocol::{self, Demise, Ended, Go, InitToKeeper},
};
use crate::{
    sys::{
        descriptor::{INHERITED, inherited},
        message,
        process::{self, Exit, PidFd},
        rights,
        spawn::{self, Leash, role},
    },
    words::{Isolation, Network},
};

const BORN_WITHIN: Duration = Duration::from_secs(10);

/// The role `@keeper`. Descriptors: 3 the supervisor, 4 init's end of its link to the supervisor, 5 the [`SandboxSpec`] as
/// a file, 6 the session's lock, held until the folders are removed.
pub fn run() -> ExitCode {
    let [supervisor, link, spec, lock] = match [0, 1, 2, 3].map(|n| inherited(INHERITED + n)) {
        [Ok(a), Ok(b), Ok(c), Ok(d)] => [a, b, c, d],
        _ => return ExitCode::FAILURE,
    };
    let Ok(spec) = protocol::from_file::<SandboxSpec>(spec) else { return ExitCode::FAILURE };
    // Without a PID namespace, what an app leaves behind comes to us when init is gone.
    let _ = prctl::set_child_subreaper(true);
    let mut sandbox = Sandbox { init: None, helper: None };
    let built = sandbox.build(&spec, link).and_then(|()| {
        // All that needed any is running. Only root's keeper had some.
        rights::drop_capabilities().map_err(|error| Demise::Failed {
            what: "dropping the keeper's capabilities".to_owned(),
            errno: error.raw_os_error().unwrap_or_default(),
        })
    });
    let why = match built {
        Ok(()) => sandbox.keep(&supervisor),
        Err(why) => Some(why),
    };
    sandbox.end();
    if let Some(why) = why {
        // The supervisor may be gone; then nobody is left to be told.
        let _ = protocol::send(supervisor.as_fd(), &Ended { why }, &[]);
        // It has a gateway to close and a record to write before the folders go.
        let _ = protocol::wait_readable(&supervisor, Duration::from_secs(10));
    }
    if spec.footprint.remove(lock.as_fd()).is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Our own children. Each is signalled by its number only while it has not been waited for, when that is still its own.
struct Sandbox {
    init: Option<Pid>,
    helper: Option<Child>,
}

impl Sandbox {
    fn build(&mut self, spec: &SandboxSpec, link: OwnedFd) -> Result<(), Demise> {
        let failed = |what: &str, error: &io::Error| Demise::Failed {
            what: what.to_owned(),
            errno: error.raw_os_error().unwrap_or_default(),
        };
        mounts::prepare(spec)
            .map_err(|error| failed(&format!("making {}", spec.footprint.scratch.display()), &error))?;
        let (ours, theirs) = message::pair().map_err(|error| failed("socketpair", &error))?;
        let file =
            protocol::to_file(spec).map_err(|error| failed("writing the sandbox's description", &error))?;
        let mut stage =
            spawn::role(role::INIT, &label(spec), vec![link, theirs, file], None, Leash::DiesWithParent)
                .map_err(|error| failed("starting the sandbox's first process", &error))?;
        protocol::wait_readable(&ours, BORN_WITHIN)
            .map_err(|error| failed("waiting for the sandbox", &error))?;
        let init = match protocol::receive::<InitToKeeper>(ours.as_fd()) {
            Ok(Some((InitToKeeper::Born { pid }, _))) => Pid::from_raw(pid),
            Ok(Some((InitToKeeper::Failed { what, errno }, _))) => {
                return Err(Demise::Forbidden { what, errno });
            }
            Ok(None) => {
                return Err(failed("the sandbox's first process", &io::ErrorKind::UnexpectedEof.into()));
            }
            Err(error) => return Err(failed("hearing from the sandbox", &error)),
        };
        self.init = Some(init);
        if spec.isolation == Isolation::Namespace {
            // The stage that made the namespaces has left; init is our own child.
            stage.wait().map_err(|error| failed("waiting for the sandbox's first stage", &error))?;
        }
        if let (Some(helper), Network::Outbound) = (&spec.helper, spec.network) {
            self.helper = Some(network::start(helper, init.as_raw())?);
        }
        protocol::send(ours.as_fd(), &Go, &[])
            .map_err(|error| failed("telling the sandbox to go", &error))?;
        Ok(())
    }
}

fn label(spec: &SandboxSpec) -> String {
    spec.footprint.session.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Sandbox {
    /// Watches until something ends: init or the helper (said why), or the supervisor (`None`).
    fn keep(&mut self, supervisor: &OwnedFd) -> Option<Demise> {
        let helper_pid =
            self.helper.as_ref().and_then(|child| i32::try_from(child.id()).ok()).map(Pid::from_raw);
        let pid = self.init?;
        let Ok(init) = PidFd::open(pid) else { return Some(Demise::InitEnded(Exit::Signal(9))) };
        let helper = helper_pid.and_then(|pid| PidFd::open(pid).ok());
        loop {
            let mut set = vec![
                PollFd::new(supervisor.as_fd(), PollFlags::POLLIN),
                PollFd::new(init.as_fd(), PollFlags::POLLIN),
            ];
            set.extend(helper.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            match poll(&mut set, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return None,
            }
            let fired = |n: usize| set.get(n).and_then(PollFd::any).unwrap_or_default();
            if fired(0) {
                return None;
            }
            if fired(1) {
                self.init = None;
                return Some(Demise::InitEnded(exit_of(pid)));
            }
            if let (true, Some(pid)) = (fired(2), helper_pid) {
                self.helper = None;
                return Some(Demise::HelperEnded(exit_of(pid)));
            }
        }
    }
}

impl Sandbox {
    /// Ends all of it. Init and helper are ended by what we know of them, not by what /proc shows: with `hidepid` it shows
    /// neither, for they let nobody look into them.
    fn end(&mut self) {
        if let Some(init) = self.init.take() {
            let _ = kill(init, Signal::SIGKILL);
        }
        if let Some(mut helper) = self.helper.take() {
            let _ = helper.kill();
        }
        end_descendants();
    }
}

fn exit_of(child: Pid) -> Exit {
    use nix::sys::wait::WaitStatus;
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, status)) => Exit::Status(u8::try_from(status & 0xff).unwrap_or(255)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(u8::try_from(signal as i32).unwrap_or(255)),
        _ => Exit::Status(255),
    }
}

/// How long to wait for what has been killed: a process in the hands of a dead file server may take for ever.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Kills all that descends from this process and waits until none is left. With a PID namespace that is init and the
/// helper, and the kernel does the rest; without one, new ones may appear while old ones go, so it is done until quiet.
pub(super) fn end_descendants() {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        process::kill_descendants();
        while process::reap().is_some() {}
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(nix::errno::Errno::ECHILD) => return,
            _ if Instant::now() > until => return,
            // Children that are on their way out; there is no descriptor for "any of them".
            _ => std::thread::park_timeout(Duration::from_millis(2)),
        }
    }
}
