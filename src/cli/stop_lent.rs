//! `stop` of a session in a job that is not the session's own, while it has no gateway: its host reads in the record that it
//! is to end. The job goes on.

use std::time::{Duration, Instant};

use super::{Failure, in_allocation, sessions::records_of};
use crate::{
    config::paths::PrivateFolder,
    session::{Record, SessionSpec, State},
};

/// How long a host may take to look, and what ending a sandbox may take beyond its app's grace.
const PATIENCE: Duration = Duration::from_secs(35);
/// Between two looks at what the host leaves last.
const LOOK: Duration = Duration::from_millis(200);

/// Puts down the end, and waits until the host has followed.
pub(super) fn stop(record: &mut Record) -> Result<(), Failure> {
    record.state = State::Ended;
    record.reason = Some("it was stopped while it had no gateway".to_owned());
    record.ended_at = Some(jiff::Timestamp::now());
    let folder = in_allocation::folder_of(record);
    let opened = || PrivateFolder::existing(&folder).ok().flatten();
    let spec = opened().and_then(|folder| SessionSpec::saved_in(&folder).ok());
    records_of(record)?.write(record)?;
    let Some(spec) = spec else { return Ok(()) };
    let until = Instant::now() + spec.work.stop_grace + PATIENCE;
    // It removes that when nothing of it is left on its node.
    while opened().is_some_and(|folder| SessionSpec::saved_in(&folder).is_ok()) {
        if Instant::now() > until {
            let job = record.job.as_ref();
            let node = job.and_then(|job| job.node.as_deref()).unwrap_or("its node");
            return Err(Failure::Session(format!(
                "{} is put down as ended, and its host on {node} does not say that it has heard: it ends with its job{}",
                record.name,
                job.map(|job| format!(" {}", job.id)).unwrap_or_default()
            )));
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}
