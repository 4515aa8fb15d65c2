//! The role `@host`: a session's host on a compute node. The job's script execs it, so what Slurm sends to the script, it
//! sends to us. It dials the session's gateway, is told what to do, does it, and ends with the app's status.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ExitCode},
    time::Duration,
};

use nix::sys::{prctl, wait::waitpid};
use slurm::munge::Munge;
use tracing_subscriber::filter::LevelFilter;

use super::{here::FromHostHere, manner::Manner, node_life::Node, own_end::OwnEnd};
use crate::{
    config::{node_name, paths::PrivateFolder},
    link::{
        DialError, Dialler, Identity, IdentityError, Prover, Rendezvous, RendezvousError, Run, RunId,
        kept_host_key,
    },
    sandbox::Footprint,
    session::{End, Lock},
    sys::process,
};

/// How long the keeper may take to end what it keeps and to remove its folders.
const KEEPER_GRACE: Duration = Duration::from_secs(15);

/// Why a host does not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostFailure {
    #[error("@host is for job scripts that shlogin has submitted: {0}")]
    Usage(String),
    #[error(transparent)]
    Rendezvous(#[from] RendezvousError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot prove whose job this is: {0}")]
    Munge(#[from] slurm::ProgramError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
}

/// The role `@host FOLDER`, with the session's folder of records.
pub fn run() -> ExitCode {
    let _ = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(io::stderr)
        .with_target(false)
        .with_max_level(LevelFilter::INFO)
        .try_init();
    match host() {
        Ok(code) => code,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn host() -> Result<ExitCode, HostFailure> {
    let usage = |what: &str| HostFailure::Usage(what.to_owned());
    let mut words = std::env::args_os().skip(2);
    let folder = words.next().map(PathBuf::from).ok_or_else(|| usage("no folder was named"))?;
    let manner = Manner::of(words.next().as_deref()).ok_or_else(|| usage("its last word is unknown"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // It holds the session's keys: no other process of this user may look in.
    prctl::set_dumpable(false).map_err(|errno| HostFailure::Io("closing its memory", errno.into()))?;
    prctl::set_child_subreaper(true).map_err(|errno| HostFailure::Io("adopting orphans", errno.into()))?;
    process::raise_descriptor_limit()
        .map_err(|error| HostFailure::Io("raising the number of descriptors", error))?;
    process::keep_freed_memory(super::KEPT)
        .map_err(|error| HostFailure::Io("setting up its memory", error))?;
    let own_end =
        OwnEnd::of(manner, &folder).map_err(|error| HostFailure::Io("finding who began it", error))?;
    let mut dialler = dialler(&folder)?;
    if manner == Manner::Start {
        // A person is to come, and gives up when she likes.
        dialler.patience = Duration::MAX;
    }
    if let Some(own) = &own_end {
        own.begin().map_err(|error| HostFailure::Io("writing the record", error))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| HostFailure::Io("starting its runtime", error))?;
    let mut done = Done::default();
    let ended = runtime.block_on(Node::live(dialler, &mut done, manner, own_end.as_ref()));
    // All that it had on the runtime goes: link to the gateway, link to init, link to the keeper.
    runtime.shutdown_timeout(Duration::from_millis(200));
    done.tidy();
    if let Some(own) = &own_end {
        last_word(own, &ended, done.heard);
    }
    let end = ended?;
    tracing::info!("{end}");
    Ok(match end {
        End::App(exit) => exit.code().into(),
        // The job has done what it was told; few apps end with 0 when they are asked to.
        End::Stopped(_) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Says how it ended where nobody else does.
fn last_word(own: &OwnEnd, ended: &Result<End, HostFailure>, heard: bool) {
    let end = match ended {
        Ok(end) => {
            if !heard && let Err(error) = own.put_down(end) {
                tracing::warn!(%error, "no gateway has heard of the end, and it cannot be put down");
            }
            end.clone()
        }
        // A gateway is there, and knows better.
        Err(failure) => End::Broken(failure.to_string()),
    };
    own.tell(&FromHostHere::Ended { end });
}

fn dialler(folder: &Path) -> Result<Dialler, HostFailure> {
    let usage = |what: String| HostFailure::Usage(what);
    let opened = PrivateFolder::existing(folder).map_err(|error| usage(error.to_string()))?;
    let folder = opened.ok_or_else(|| usage(format!("there is no {}", folder.display())))?;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let job = number("SLURM_JOB_ID").ok_or_else(|| usage("this is no Slurm job".to_owned()))?;
    let run = Run {
        id: RunId::random(),
        job,
        restarts: number("SLURM_RESTART_COUNT").unwrap_or_default(),
        node: std::env::var("SLURMD_NODENAME").unwrap_or_else(|_| node_name().as_str().to_owned()),
    };
    let meet = Rendezvous::read(&folder)?;
    let (identity, prover) = match kept_host_key(&folder)? {
        Some(identity) => (identity, Prover::Key),
        None => {
            let munge = Munge::find(None)?;
            let munge = meet.munge_socket.map_or(munge.clone(), |socket| munge.with_socket(socket));
            (Identity::make()?, Prover::Munge(munge))
        }
    };
    let patience = Duration::from_secs(meet.patience);
    Ok(Dialler { folder, identity, prover, run, patience })
}

/// What is to be tidied up in the end.
#[derive(Default)]
pub(super) struct Done {
    pub(super) keeper: Option<Child>,
    pub(super) kept: Option<(Footprint, Lock)>,
    /// A gate has heard how it ended.
    pub(super) heard: bool,
}

impl Done {
    fn tidy(&mut self) {
        if let Some(keeper) = &mut self.keeper
            && !process::ends_within(keeper, KEEPER_GRACE)
        {
            let _ = keeper.kill();
        }
        process::kill_descendants();
        while waitpid(None, None).is_ok() {}
        if let Some((footprint, lock)) = &self.kept
            && let Err(error) = footprint.remove(lock.as_fd())
        {
            tracing::warn!(%error, "something is left on this node");
        }
    }
}
