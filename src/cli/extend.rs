//! `extend`: more time for a session's job. Slurm decides who may have it.

use std::process::ExitCode;

use serde_json::json;
use slurm::{ChangeError, Slurm, TimeLimit};

use super::{Failure, args::ExtendArgs, output::Output, sessions::records};
use crate::{
    config::{Config, Overrides},
    session::{State, Which},
};

pub(super) fn extend(args: &ExtendArgs, output: &Output) -> Result<ExitCode, Failure> {
    let record = records()?.find(&args.name, Which::Live)?;
    let name = &record.name;
    let Some(job) = &record.job else {
        return Err(Failure::Session(format!("{name} runs in no job: its time is not limited")));
    };
    if record.state == State::Interrupted {
        return Err(Failure::Session(format!(
            "job {} gets no more time: it is over; `shlogin restart {name}` asks for another",
            job.id
        )));
    }
    let config = Config::load(&Overrides::default())?.config;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Session(format!("job {} gets no more time: {error}", job.id))
    };
    let slurm = Slurm::find(config.slurm.programs.path()).map_err(|error| failed(&error))?;
    let now = slurm.job(job.id).map_err(|error| failed(&error))?;
    let minutes = u32::try_from(args.by.duration().as_secs().div_ceil(60)).unwrap_or(u32::MAX);
    let limit = match now.time_limit {
        Some(TimeLimit::Minutes(before)) => TimeLimit::Minutes(before.saturating_add(minutes)),
        Some(TimeLimit::Unlimited) => {
            return Err(Failure::Session(format!("job {} has no time limit", job.id)));
        }
        None => return Err(failed(&"Slurm does not say how long it may run")),
    };
    match slurm.set_time_limit(job.id, limit) {
        Ok(()) => {
            output.result(&json!({ "name": name, "job": job.id, "time_limit": limit }), || {
                format!("job {} may run for {limit} in all", job.id)
            });
            Ok(ExitCode::SUCCESS)
        }
        Err(ChangeError::Denied { .. }) => Err(Failure::Session(format!(
            "job {} gets no more time: this site lets nobody but its operators give a running job more",
            job.id
        ))),
        Err(error) => Err(failed(&error)),
    }
}
