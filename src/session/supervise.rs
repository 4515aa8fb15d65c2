//! The supervisor: brings a session up, serves its gateway and its control socket, and takes it down, whatever the
//! reason. One thread with an async runtime, and two that write logs.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, ExitCode},
    time::Duration,
};

use nginx_free::log::{Format, Lines};
use nix::sys::{prctl, wait::waitpid};
use tracing_subscriber::{filter::LevelFilter, prelude::*};

use super::{
    Record, Records, SessionSpec,
    later::Later,
    log,
    log::{Log, LogPump},
    record::DIAGNOSTICS,
};
use crate::{
    config::{AccessLog, paths::PrivateFolder},
    sandbox::protocol,
    sys::{
        descriptor::{INHERITED, inherited},
        message, process, rights,
        spawn::{self, Leash, role},
    },
};
use life::{Born, Session};

pub use end::{End, FromLauncher, ToLauncher};
pub use job::{
    FromHostHere, HostHere, host_process, run_gate, run_host, run_host_in_job, wait_for_a_gateway,
};

mod app_life;
mod door;
mod end;
mod idle;
mod job;
mod life;
mod requests;
mod sharing;
mod ssh;
mod time_left;

/// The role `@supervise`. Descriptors: 3 the launching process, 4 the [`SessionSpec`] as a file, 5 the name's lock, 6 the
/// pod's ssh port, 7 the gateway's listener.
pub fn run() -> ExitCode {
    let [launcher, spec, lock, ssh, listener] = match [0, 1, 2, 3, 4].map(|n| inherited(INHERITED + n)) {
        [Ok(a), Ok(b), Ok(c), Ok(d), Ok(e)] => [a, b, c, d, e],
        _ => return ExitCode::FAILURE,
    };
    let Ok(spec) = protocol::from_file::<SessionSpec>(spec) else { return ExitCode::FAILURE };
    let footprint = spec.work.sandbox.footprint.clone();
    let ended = match lock
        .try_clone()
        .map_err(|error| error.to_string())
        .and_then(|lock| Supervisor::new(spec, lock))
    {
        Ok(supervisor) => supervisor.run(&launcher, &ssh, listener),
        Err(why) => Finished { end: End::Broken(why), record: None, tail: Vec::new() },
    };
    // Should the keeper have been killed, what it held came to us, and its duty too.
    process::kill_descendants();
    while waitpid(None, None).is_ok() {}
    let removed = footprint.remove(lock.as_fd());
    drop(ssh);
    let Finished { end, record, tail } = ended;
    // Nobody may be there to hear it; the record says the same.
    let _ = protocol::send(launcher.as_fd(), &ToLauncher::Ended { end, record, tail }, &[]);
    if removed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Finished {
    end: End,
    record: Option<Box<Record>>,
    tail: Vec<String>,
}

struct Supervisor {
    spec: SessionSpec,
    records: Records,
    keeper: Child,
    to_keeper: OwnedFd,
    to_init: OwnedFd,
    diagnostics: Log,
    later: Later,
}

impl Supervisor {
    /// Starts the keeper, before there is any thread.
    fn new(spec: SessionSpec, lock: OwnedFd) -> Result<Self, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("{what}: {error}")
        };
        // It holds the tokens: no other process of this user may look in.
        prctl::set_dumpable(false).map_err(|errno| failed("closing its memory")(errno.into()))?;
        prctl::set_child_subreaper(true).map_err(|errno| failed("adopting orphans")(errno.into()))?;
        process::raise_descriptor_limit().map_err(failed("raising the number of descriptors"))?;
        let state = PrivateFolder::open_or_make(&spec.state).map_err(|error| error.to_string())?;
        let folder = state.folder(spec.record.id.to_string()).map_err(|error| error.to_string())?;
        let records = Records::open(state);
        let diagnostics = Log::create(&folder.path().join(DIAGNOSTICS), MAX_DIAGNOSTICS)
            .map_err(failed("opening its log"))?;
        let stderr = diagnostics.share().map_err(failed("opening its log"))?;
        let later = Later::default();
        subscribe(&later);
        let (to_keeper, keepers) = message::pair().map_err(failed("socketpair"))?;
        let (to_init, inits) = message::pair().map_err(failed("socketpair"))?;
        let file = protocol::to_file(&spec.work.sandbox).map_err(failed("describing the sandbox"))?;
        let label = spec.record.name.to_string();
        let fds = vec![keepers, inits, file, lock];
        let keeper = spawn::role(role::KEEPER, &label, fds, Some(stderr.into()), Leash::NoticesItself)
            .map_err(failed("starting the keeper"))?;
        // What strangers' bytes come to has no rights but its user's; only root's had more.
        rights::drop_capabilities().map_err(failed("dropping capabilities"))?;
        Ok(Self { spec, records, keeper, to_keeper, to_init, diagnostics, later })
    }

    fn run(self, launcher: &OwnedFd, ssh: &OwnedFd, listener: OwnedFd) -> Finished {
        let Self { spec, records, mut keeper, to_keeper, to_init, diagnostics, later } = self;
        let broken = |why: String| Finished { end: End::Broken(why), record: None, tail: Vec::new() };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return broken(format!("starting its runtime: {error}")),
        };
        let mut record = spec.record.clone();
        record.pid = std::process::id();
        record.pid_began = process::start_ticks(nix::unistd::Pid::this()).ok();
        let log = record.log.clone();
        let pump = match LogPump::start(&record.log, spec.max_log) {
            Ok(pump) => pump,
            Err(error) => return broken(format!("cannot write {}: {error}", record.log.display())),
        };
        let (pump, output, log_len) = pump;
        let request_log = request_lines(&later, spec.gateway.access_log);
        let writer = match later.bring_to(diagnostics) {
            Ok(writer) => writer,
            Err(error) => return broken(format!("starting a thread: {error}")),
        };
        let (end, record) = runtime.block_on(async {
            let born = Born { launcher, ssh, listener, to_init, to_keeper, log_len, request_log };
            let session = Session::open(spec, record, &records, born);
            match session {
                Ok((session, life)) => session.live(life, output).await,
                Err(failed) => {
                    let (end, mut record) = *failed;
                    life::put_down(&mut record, &end);
                    let _ = records.write(&record);
                    (end, record)
                }
            }
        });
        // All that the session had on the runtime goes: gateway, link to init, link to the keeper.
        runtime.shutdown_timeout(Duration::from_millis(200));
        if !process::ends_within(&mut keeper, KEEPER_GRACE) {
            // It is stopped, or waits for something that does not come; what it has is killed with it, or comes to us.
            let _ = keeper.kill();
        }
        pump.finish();
        writer.finish();
        let tail = log::tail(&log, 20);
        Finished { end, record: Some(Box::new(record)), tail }
    }
}

/// How long the keeper may take to end what it keeps and to remove its folders.
const KEEPER_GRACE: Duration = Duration::from_secs(15);

/// How much is kept of what shlogin itself has to say of a session: mostly, who asked for what at its gateway.
const MAX_DIAGNOSTICS: u64 = 4 * 1024 * 1024;

/// Sends what happens to the diagnostics, as text. Requests go there by themselves ([`request_lines`]).
fn subscribe(later: &Later) {
    let later = later.clone();
    let text = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || later.clone());
    // Only a second call fails, and this is the first of the process.
    let _ = tracing_subscriber::registry().with(LevelFilter::INFO).with(text).try_init();
}

/// Where the gateway's requests go: to the diagnostics, as lines of their own kind, or nowhere.
type RequestLog = Option<Lines<Later>>;

fn request_lines(later: &Later, access: AccessLog) -> RequestLog {
    let format = match access {
        AccessLog::Text => Format::Text,
        AccessLog::Json => Format::Json,
        AccessLog::Off => return None,
    };
    Some(Lines::new(format, later.clone()))
}
