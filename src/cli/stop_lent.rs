//! `stop` of a session in a job that is not the session's own, while it has no gateway: its host reads in the record that it
//! is to end. The job goes on.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Failure, in_allocation, sessions::records_of};
use crate::{
    config::paths::PrivateFolder,
    session::{Record, SessionSpec, State},
};

/// How long a host may take to look, and what ending a sandbox may take beyond its app's grace.
const PATIENCE: Duration = Duration::from_secs(35);
/// Between two looks at what the host leaves last.
const LOOK: Duration = Duration::from_millis(200);

/// A host that is to follow its record.
pub(super) struct Told {
    name: String,
    /// Where the host is, or was.
    at: String,
    folder: PathBuf,
    until: Instant,
}

/// Puts down the end.
pub(super) fn put_down(record: &mut Record) -> Result<Told, Failure> {
    let folder = in_allocation::folder_of(record);
    let grace = saved(&folder).map(|spec| spec.work.stop_grace).unwrap_or_default();
    record.state = State::Ended;
    record.reason = Some("it was stopped while it had no gateway".to_owned());
    record.ended_at = Some(jiff::Timestamp::now());
    records_of(record)?.write(record)?;
    let job = record.job.as_ref();
    let node = job.and_then(|job| job.node.as_deref()).unwrap_or("its node");
    let at = job.map(|job| format!("{node} ends with job {}", job.id)).unwrap_or_default();
    Ok(Told { name: record.name.to_string(), at, folder, until: Instant::now() + grace + PATIENCE })
}

impl Told {
    /// Waits until the host has followed: what the session was started with, it removes when nothing of it is left there.
    pub(super) fn wait(self) -> Result<(), Failure> {
        while saved(&self.folder).is_some() {
            if Instant::now() > self.until {
                return Err(Failure::Session(format!(
                    "{} is put down as ended, but its host does not say that it has heard: what is on {} at the latest",
                    self.name, self.at
                )));
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }
}

fn saved(folder: &Path) -> Option<SessionSpec> {
    let opened = PrivateFolder::existing(folder).ok().flatten()?;
    SessionSpec::saved_in(&opened).ok()
}
