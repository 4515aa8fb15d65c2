//! Another user's running sessions, as root finds them: by their supervisors.
//!
//! The record's place depends on that user's `$XDG_STATE_HOME`, of which nothing is left in the supervisor's empty
//! environment. But it holds its diagnostics open, and that file is beside the record.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{VerifyError, processes, target::Identity};
use crate::{
    session::{DIAGNOSTICS, RecordsError},
    sys::spawn::role,
};

/// A running session of another user's.
pub(super) struct Supervisor {
    pub(super) name: String,
    /// The folder of its record.
    pub(super) folder: PathBuf,
}

/// The one session of `owner`'s with this name, or whose name alone begins so.
///
/// # Errors
/// `RecordsError::NotFound` and `RecordsError::Ambiguous`, as with one's own.
pub(super) fn find(owner: &Identity, name: &str) -> Result<Supervisor, VerifyError> {
    let mut all = running(owner);
    if let Some(exact) = all.iter().position(|its| its.name == name) {
        return Ok(all.swap_remove(exact));
    }
    all.retain(|its| !name.is_empty() && its.name.starts_with(name));
    match all.len() {
        1 => Ok(all.swap_remove(0)),
        0 => Err(RecordsError::NotFound(name.to_owned()).into()),
        _ => {
            let names = all.into_iter().map(|its| its.name).collect();
            Err(RecordsError::Ambiguous { prefix: name.to_owned(), names }.into())
        }
    }
}

fn running(owner: &Identity) -> Vec<Supervisor> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let words = processes::words(pid);
        let [_, what, name] = &words[..] else { return None };
        // The files of one that is not dumpable belong to root; its task folder does not say, so its status must.
        ([role::SUPERVISE, role::GATE].contains(&what.as_str()) && uid_of(pid)? == owner.uid).then_some(())?;
        let folder = folder_of(&PathBuf::from(format!("/proc/{pid}/fd")))?;
        Some(Supervisor { name: name.clone(), folder })
    })
    .collect()
}

/// The real user of a process (`proc_pid_status(5)`).
pub(super) fn uid_of(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse().ok())
}

/// The folder of the diagnostics that one of these descriptors is of.
fn folder_of(descriptors: &Path) -> Option<PathBuf> {
    fs::read_dir(descriptors).ok()?.flatten().find_map(|entry| {
        let file = fs::read_link(entry.path()).ok()?;
        let is_it = file.file_name()? == DIAGNOSTICS && fs::metadata(entry.path()).ok()?.nlink() > 0;
        is_it.then(|| file.parent().map(Path::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::scratch::Scratch;

    #[test]
    fn a_record_is_found_by_the_file_beside_it_and_only_while_it_is_there() {
        let base = Scratch::new();
        let path = base.path().join(DIAGNOSTICS);
        let _held = fs::File::create(&path).unwrap();
        let folder = base.path().canonicalize().unwrap();
        let is_ours = |found: Option<PathBuf>| found.is_some_and(|found| found == folder);
        assert!(is_ours(folder_of(Path::new("/proc/self/fd"))));
        fs::remove_file(&path).unwrap();
        assert!(!is_ours(folder_of(Path::new("/proc/self/fd"))));
    }

    #[test]
    fn the_user_of_a_process_is_read() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(uid_of(me), Some(nix::unistd::getuid().as_raw()));
        assert_eq!(uid_of(0), None);
    }
}
