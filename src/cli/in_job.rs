//! From `start --slurm` to a job that can be submitted: its options and script, and how its host finds its way back.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use slurm::{Allocation, Slurm};

use super::{
    Failure,
    args::StartArgs,
    batch::{Batch, Job, app_name},
};
pub(super) use crate::config::link_hosts;
use crate::{
    config::{Config, Munge, TemplateText, node_name},
    host::AppSpec,
    session::{BatchSpec, JobRecord, MungeUse, Record, surroundings},
};

/// The job of a session. Its record says where the session's folder is.
pub(super) fn batch_spec(
    args: &StartArgs,
    config: &Config,
    template: Option<&TemplateText>,
    record: &Record,
) -> Result<BatchSpec, Failure> {
    let program = std::env::current_exe().map_err(Failure::io("cannot tell where this program is"))?;
    let folder = record.log.parent().map(PathBuf::from).unwrap_or_default();
    let app = app_name(args.image.as_deref(), &args.args);
    let job = Job { name: &record.name, app: &app, program: &program, folder: &folder };
    let Batch { options, script } = Batch::new(&args.slurm, config, template, &job)?;
    let slurm = &config.slurm;
    Ok(BatchSpec {
        options,
        script,
        programs: slurm.programs.path().map(PathBuf::from),
        munge: match slurm.munge {
            Munge::Auto => MungeUse::Auto,
            Munge::Off => MungeUse::Off,
            Munge::Require => MungeUse::Require,
        },
        munge_socket: slurm.munge_socket.path().map(PathBuf::from),
        link_hosts: link_hosts(&slurm.link_host),
        startup_timeout: slurm.startup_timeout.duration(),
        linger: slurm.linger.duration(),
        outbound: config.outbound.helper,
        scratch: config.scratch.to_path_buf(),
        resume: None,
    })
}

/// How long Slurm may take to tell when a job ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// The job within which this very command runs, if it does: the session ends with it at the latest, and has its devices.
pub(super) fn surrounding(app: &mut AppSpec, config: &Config) -> Option<JobRecord> {
    // Variables that say something else are somebody's own affair: no job is known then.
    let allocation = Allocation::of(std::env::vars_os()).ok().flatten()?;
    if let Some(container) = &mut app.container {
        surroundings::add_devices(container, &app.env);
    }
    let mut record = JobRecord {
        state: slurm::State::Running,
        partition: allocation.partition,
        restarts: allocation.restarts,
        ..JobRecord::new(allocation.job)
    };
    // Older versions tell a job of its end only when asked; one that does not answer must not keep a session from starting.
    let slurm = Slurm::find(config.slurm.programs.path());
    if let Ok(job) =
        slurm.map_err(drop).and_then(|slurm| slurm.with_deadline(PATIENCE).job(allocation.job).map_err(drop))
    {
        record.update(&job);
        record.state = slurm::State::Running;
    }
    record.node = Some(node_name().as_str().to_owned());
    record.ends_at = record.ends_at.or_else(|| Timestamp::from_second(allocation.ends_at?).ok());
    Some(record)
}
