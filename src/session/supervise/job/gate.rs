//! The role `@gate`: a session's gateway on the login node, while what it leads to runs, or waits to run, in a Slurm job.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use nix::sys::{prctl, wait::waitpid};
use slurm::Slurm;
use tokio::sync::watch;

use super::{
    gate_life::{Gate, Opened, Over},
    papers::Papers,
    proof::settle,
};
use crate::{
    config::paths::PrivateFolder,
    link::{self, Expected, Links, Rendezvous, RunId},
    sandbox::protocol,
    session::{
        Records, SessionSpec, State,
        later::Later,
        log::{self, Log, LogPump},
        record::DIAGNOSTICS,
        supervise::{End, Finished, MAX_DIAGNOSTICS, ToLauncher, life::put_down, request_lines, subscribe},
    },
    sys::{
        descriptor::{INHERITED, inherited},
        process, rights,
    },
};

/// The role. Descriptors: 3 the launching process, 4 the [`SessionSpec`] as a file, 5 the name's lock, 6 the pod's ssh port,
/// 7 the gateway's listener, 8 the link's. Its environment is what Slurm's programs need of the person's.
pub fn run() -> ExitCode {
    let fds = [0, 1, 2, 3, 4, 5].map(|n| inherited(INHERITED + n));
    let [Ok(launcher), Ok(spec), Ok(lock), Ok(ssh), Ok(listener), Ok(link)] = fds else {
        return ExitCode::FAILURE;
    };
    let Ok(spec) = protocol::from_file::<SessionSpec>(spec) else { return ExitCode::FAILURE };
    let footprint = spec.work.sandbox.footprint.clone();
    let born = Born { launcher: &launcher, ssh: &ssh, listener, link };
    let (Finished { end, record, tail }, follower) = match live(spec, born) {
        Ok(finished) => finished,
        Err(why) => (Finished { end: End::Broken(why), record: None, tail: Vec::new() }, None),
    };
    let removed = footprint.remove(lock.as_fd());
    drop(ssh);
    let ended = ToLauncher::Ended { end, record, tail };
    // Nobody may be there to hear it; the record says the same.
    for listener in [Some(launcher), follower].iter().flatten() {
        let _ = protocol::send(listener.as_fd(), &ended, &[]);
    }
    if removed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a gate was born with.
pub(super) struct Born<'a> {
    pub(super) launcher: &'a OwnedFd,
    pub(super) ssh: &'a OwnedFd,
    pub(super) listener: OwnedFd,
    pub(super) link: OwnedFd,
}

/// Lives. How it ended, and who joined it last.
fn live(spec: SessionSpec, born: Born<'_>) -> Result<(Finished, Option<OwnedFd>), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // It holds the tokens and the link's key: no other process of this user may look in.
    prctl::set_dumpable(false).map_err(|errno| failed("closing its memory")(errno.into()))?;
    process::raise_descriptor_limit().map_err(failed("raising the number of descriptors"))?;
    process::keep_freed_memory(super::KEPT).map_err(failed("setting up its memory"))?;
    let state = PrivateFolder::open_or_make(&spec.state).map_err(|error| error.to_string())?;
    let folder = state.folder(spec.record.id.to_string()).map_err(|error| error.to_string())?;
    let records = Arc::new(Records::open(state));
    let diagnostics = Log::create_or_append(&folder.path().join(DIAGNOSTICS), MAX_DIAGNOSTICS)
        .map_err(failed("opening its log"))?;
    let later = Later::default();
    subscribe(&later);
    let request_log = request_lines(&later, spec.gateway.access_log);
    spec.save_in(&folder).map_err(failed("keeping what it was started with"))?;
    rights::drop_capabilities().map_err(failed("dropping capabilities"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("starting its runtime"))?;
    let resumes = spec.batch.as_ref().is_some_and(|batch| batch.resume.is_some());
    let mut record = spec.record.clone();
    record.pid = std::process::id();
    record.pid_began = process::start_ticks(nix::unistd::Pid::this()).ok();
    let log = record.log.clone();
    let (pump, output, log_len) = LogPump::go_on(&record.log, spec.max_log)
        .map_err(|error| format!("cannot write {}: {error}", record.log.display()))?;
    let writer = later.bring_to(diagnostics).map_err(failed("starting a thread"))?;
    let Over { end, record, follower } = runtime.block_on(async {
        let opened = open(&spec, &folder, Arc::clone(&records), born.link);
        match opened.and_then(|opened| {
            Gate::open(
                spec,
                record.clone(),
                opened,
                (born.launcher, born.ssh, born.listener),
                output,
                log_len,
                request_log,
            )
        }) {
            Ok(gate) => gate.live().await,
            Err(why) => {
                let end = End::Broken(why);
                // A session that goes on without this gateway has not ended.
                if !resumes {
                    put_down(&mut record, &end);
                    let _ = records.write(&record);
                }
                Over { end, record, follower: None }
            }
        }
    });
    // Of a session that goes on, it is another gateway's, or the next one's.
    if record.state == State::Ended
        && let Err(error) = Rendezvous::remove(&folder)
    {
        tracing::warn!(%error, "link.json cannot be removed");
    }
    // All that the session had on the runtime goes: gateway and link.
    runtime.shutdown_timeout(Duration::from_millis(200));
    // One of Slurm's programs may still wait for a controller that does not answer.
    process::kill_descendants();
    while waitpid(None, None).is_ok() {}
    pump.finish();
    writer.finish();
    let tail = log::tail(&log, 20);
    Ok((Finished { end, record: Some(Box::new(record)), tail }, follower))
}

/// Opens the link, and says in the session's folder where.
fn open(
    spec: &SessionSpec,
    folder: &PrivateFolder,
    records: Arc<Records>,
    listener: OwnedFd,
) -> Result<Opened, String> {
    let batch = spec.batch.as_ref().ok_or("there is no job to submit")?;
    let slurm = Slurm::find(batch.programs.as_deref()).map_err(|error| error.to_string())?;
    let identity = link::gateway_key(folder).map_err(|error| error.to_string())?;
    let (proof, munge_socket) = settle(batch, folder, Some(&slurm))?;
    let listener = std::net::TcpListener::from(listener);
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let meet = Rendezvous {
        session: spec.record.id,
        hosts: batch.link_hosts.clone(),
        port,
        gateway: identity.fingerprint(),
        gate: RunId::random(),
        munge_socket,
        patience: batch.startup_timeout.as_secs(),
    };
    let folder = PrivateFolder::existing(folder.path()).ok().flatten().ok_or("its folder is gone")?;
    let (expected, wanted) = watch::channel(Expected::default());
    let links = Links::open(listener, spec.record.id, &identity, proof, wanted);
    let links = links.map_err(|error| error.to_string())?;
    Ok(Opened { slurm, links, expected, papers: Papers::new(records, folder, meet) })
}
