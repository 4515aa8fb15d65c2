//! From `start --slurm` to a job that can be submitted: its options and script, and how its host finds its way back.

use std::path::PathBuf;

use super::{
    Failure,
    args::StartArgs,
    batch::{Batch, Job, app_name},
};
pub(super) use crate::config::link_hosts;
use crate::{
    config::{Config, Munge, TemplateText},
    session::{BatchSpec, MungeUse, Record},
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
    Ok(BatchSpec { options, script, ..without_job(config) })
}

/// What a gateway needs beside a job.
pub(super) fn without_job(config: &Config) -> BatchSpec {
    let slurm = &config.slurm;
    BatchSpec {
        options: Vec::new(),
        script: String::new(),
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
        lent: None,
    }
}
