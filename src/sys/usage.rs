//! What processes have used, as `/proc` says.

use std::{fs, io, time::Duration};

use nix::unistd::{Pid, SysconfVar, sysconf};

use super::process::{are_hidden, descendants};

/// The time on processors of all that descends from this process, in user and in kernel mode: of those that run, and of those
/// that have ended and were waited for. This process's own is no part of it.
///
/// What ends without being waited for (its parent ignores `SIGCHLD`) is lost, so the sum can become less.
///
/// # Errors
/// Where `/proc` cannot be read, or hides processes.
pub fn cpu_of_descendants() -> io::Result<Duration> {
    if are_hidden() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut ticks = times(Pid::this())?.children;
    for pid in descendants()? {
        // One that has ended since is in its parent's sum, now or at the next look.
        if let Ok(its) = times(pid) {
            ticks += its.own + its.children;
        }
    }
    let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let per_second = per_second.ok_or(io::ErrorKind::Unsupported)?;
    Ok(Duration::from_millis(ticks.saturating_mul(1000) / per_second))
}

/// In clock ticks.
struct Times {
    own: u64,
    /// Of children that were waited for, and theirs.
    children: u64,
}

/// Fields 14 to 17 of `/proc/PID/stat` (`proc_pid_stat(5)`).
fn times(pid: Pid) -> io::Result<Times> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(4));
    let fields: Option<Vec<u64>> = fields.and_then(|fields| fields.map(|field| field.parse().ok()).collect());
    match fields.as_deref() {
        Some([user, system, children_user, children_system]) => {
            Ok(Times { own: user + system, children: children_user + children_system })
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// It uses some, tells, and stays until its standard input ends.
    #[test]
    fn what_a_child_and_its_children_use_is_seen_while_they_run_and_when_they_have_ended() {
        let busy = "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done";
        let before = cpu_of_descendants().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("sh -c '{busy}'; {busy}; echo done; read wait")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        let running = cpu_of_descendants().unwrap();
        assert!(running > before + Duration::from_millis(50), "{before:?} {running:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(cpu_of_descendants().unwrap() >= running);
    }
}
