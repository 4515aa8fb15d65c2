//! The processes of a session: what their words and environment tell, and what `/proc` lets others see of them.

use std::{
    fs::{self, File, OpenOptions},
    path::PathBuf,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::kill,
    unistd::Pid,
};

use super::{
    Finding,
    finding::Outcome,
    target::{Process, Target},
};
use crate::sys::process::PidFd;

/// What of `/proc/PID` only the owner may open, and the links that only the owner may read.
const FILES: [&str; 4] = ["environ", "mem", "maps", "auxv"];
const FOLDERS: [&str; 2] = ["fd", "map_files"];
const LINKS: [&str; 8] = ["root", "cwd", "exe", "ns/net", "ns/mnt", "ns/user", "ns/pid", "ns/ipc"];

/// A process as `/proc` names it; `None` where it has ended.
pub(super) fn process(pid: i32) -> Option<Process> {
    let name = fs::read(of(pid, "comm")).ok()?;
    Some(Process { pid, name: String::from_utf8_lossy(&name).trim_end().to_owned() })
}

/// The words of a process; none where it has ended.
pub(super) fn words(pid: i32) -> Vec<String> {
    let line = fs::read(of(pid, "cmdline")).unwrap_or_default();
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Looks for secrets in the words of all processes, and in the environments that this process may read.
pub(super) fn search(processes: &[Process], holds: impl Fn(&[u8]) -> bool) -> Finding {
    let mut readable = 0;
    let mut found = Vec::new();
    for process in processes {
        if fs::read(of(process.pid, "cmdline")).is_ok_and(|bytes| holds(&bytes)) {
            found.push(format!("{} has one in its arguments", process.what()));
        }
        if let Ok(bytes) = fs::read(of(process.pid, "environ")) {
            readable += 1;
            if holds(&bytes) {
                found.push(format!("{} has one in its environment", process.what()));
            }
        }
    }
    let held = format!(
        "none in the arguments of {}, nor in the environments of the {readable} that may be read",
        processes.len()
    );
    let tried = "look for a token, a cookie, the key";
    Finding::new("arguments and environments", tried, Outcome::of_opened(&found, held))
}

/// Tries to look into each process, as another user. Changes this process where it succeeds: to be called last.
pub(super) fn attack(target: &Target) -> Vec<Finding> {
    target.processes.iter().map(look_into).collect()
}

fn look_into(process: &Process) -> Finding {
    let pid = process.pid;
    let mut opened: Vec<String> = Vec::new();
    let mut note = |name: &str, got_through: bool| {
        if got_through {
            opened.push(name.to_owned());
        }
    };
    for name in FILES {
        note(name, File::open(of(pid, name)).is_ok());
    }
    note("mem for writing", OpenOptions::new().write(true).open(of(pid, "mem")).is_ok());
    for name in FOLDERS {
        note(name, fs::read_dir(of(pid, name)).is_ok());
    }
    for name in LINKS {
        note(name, fs::read_link(of(pid, name)).is_ok() || fs::metadata(of(pid, name)).is_ok());
    }
    note("a signal", kill(Pid::from_raw(pid), None).is_ok());
    let into = |flags| PidFd::open(Pid::from_raw(pid)).is_ok_and(|held| setns(held, flags).is_ok());
    note("its network namespace", into(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET));
    note("its mount namespace", into(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS));
    let gone = fs::metadata(of(pid, "")).is_err();
    let held = if gone { "it has ended" } else { "each was refused" };
    let tried = format!("{}, {}, {}, signal, setns", FILES.join(", "), FOLDERS.join(", "), LINKS.join(", "));
    let opened: Vec<String> = opened.into_iter().map(|name| format!("got {name}")).collect();
    Finding::new(process.what(), tried, Outcome::of_opened(&opened, held))
}

/// Tries to read the memory of those that hold what others want, as the same user: they must not be dumpable.
pub(super) fn attack_memory(target: &Target) -> Vec<Finding> {
    let look = |process: &Process| {
        let opened =
            ["environ", "mem", "maps"].iter().filter(|name| File::open(of(process.pid, name)).is_ok());
        let opened: Vec<String> = opened.map(|name| format!("{name} opened")).collect();
        let outcome = Outcome::of_opened(&opened, "each was refused");
        Finding::new(process.what(), "environ, mem, maps as the same user", outcome)
    };
    target.keepers.iter().map(look).collect()
}

fn of(pid: i32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };

    #[test]
    fn a_secret_in_arguments_or_environment_is_found() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo up; read end", "in-words"]).env("V", "in-env");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Before it has said so, it need not have its words yet.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let all = [process(pid).unwrap()];
        let look = |secret: &'static [u8]| {
            search(&all, move |bytes| bytes.windows(secret.len()).any(|part| part == secret))
        };
        assert_eq!(words(pid), ["sh", "-c", "echo up; read end", "in-words"]);
        assert!(look(b"in-words").result.contains("arguments"));
        assert!(look(b"in-env").result.contains("environment"));
        assert!(!look(b"absent").got_through);
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_may_be_looked_into_is_told() {
        let target = process(std::process::id().try_into().unwrap()).unwrap();
        // `setns` into one's own user namespace is refused (setns(2)), so this process stays where it is.
        let finding = look_into(&target);
        assert!(finding.got_through);
        for part in ["environ", "mem", "maps", "fd", "root", "cwd", "exe", "ns/net", "a signal"] {
            assert!(finding.result.contains(&format!("got {part}")), "{}", finding.line());
        }
    }
}
