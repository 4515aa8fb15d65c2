//! Whether a session's host lives: it is looked for on its own node, among the processes of its user. For a job that goes on
//! when its host is gone, Slurm cannot tell.

use std::{
    fs,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use nix::unistd::{Pid, getuid};
use slurm::{JobId, Slurm, Step, StepError};

use crate::sys::{process, spawn::role};

const THERE: &str = "there";
const GONE: &str = "gone";
const HIDDEN: &str = "hidden";

/// The role `@host-in-job FOLDER`, run on the node by srun: says whether the host is there of the session with this folder.
pub fn run() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(2).map(PathBuf::from) else { return ExitCode::FAILURE };
    let word = match host_process(&folder) {
        Some(_) => THERE,
        None if process::are_hidden() => HIDDEN,
        None => GONE,
    };
    match io::stdout().write_all(word.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The host process on this node of the session with this folder of records, if it is this user's.
pub fn host_process(folder: &Path) -> Option<Pid> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_host(&words, folder) && uid_of(*pid) == Some(getuid().as_raw())
    };
    pids.into_iter().find(is_it).map(Pid::from_raw)
}

/// Whether these are a host's words (`proc_pid_cmdline(5)`).
fn is_host(words: &[u8], folder: &Path) -> bool {
    let mut words = words.split(|byte| *byte == 0).skip(1);
    words.next() == Some(role::HOST.as_bytes()) && words.next() == Some(folder.as_os_str().as_bytes())
}

/// A process that has closed its memory has files in `/proc` that seem to be root's.
fn uid_of(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse().ok())
}

/// Looks for it from another node. Blocks.
///
/// # Errors
/// Where nothing could be seen.
pub(super) fn is_there(
    slurm: &Slurm,
    job: JobId,
    node: &str,
    program: &Path,
    folder: &Path,
) -> Result<bool, StepError> {
    let failed = |words: String| StepError::Failed { job, words };
    let folder = folder.to_str().ok_or_else(|| failed("the session's folder is not UTF-8".to_owned()))?;
    let args = [role::HOST_IN_JOB, folder];
    let said = slurm.run_in_job(Step { job, node, program, args: &args, input: &[] })?;
    match std::str::from_utf8(&said) {
        Ok(THERE) => Ok(true),
        Ok(GONE) => Ok(false),
        Ok(HIDDEN) => Err(failed(format!("{node} shows nobody which processes there are (hidepid)"))),
        _ => Err(failed("what came back says nothing".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_its_role_and_its_folder() {
        let folder = Path::new("/home/ada/x");
        assert!(is_host(b"shlogin\0@host\0/home/ada/x\0", folder));
        assert!(is_host(b"/p/shlogin\0@host\0/home/ada/x\0step\0", folder));
        assert!(!is_host(b"shlogin\0@host\0/home/ada/xy\0", folder));
        assert!(!is_host(b"shlogin\0@gate\0/home/ada/x\0", folder));
        assert!(!is_host(b"vi\0/home/ada/x\0", folder) && !is_host(b"", folder));
    }
}
