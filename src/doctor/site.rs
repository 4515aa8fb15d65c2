//! What else a site has or does that bears on sessions: Slurm, MUNGE, what happens when a user signs out, and how freely
//! one user's processes may look at each other. None of it stands in the way.

use std::os::unix::net::UnixStream;

use super::{Finding, machine::Machine, run::Asked};
use crate::config::find_program;

/// Where `munged(8)` listens, with its successive names.
const MUNGE_SOCKETS: [&str; 2] = ["/run/munge/munge.socket.2", "/var/run/munge/munge.socket.2"];

/// The programs that were asked.
pub(super) struct Running {
    sbatch: Option<Asked>,
    scontrol: bool,
}

impl Running {
    pub(super) fn start() -> Self {
        let sbatch = find_program("sbatch").and_then(|path| Asked::start(&path, &["--version"]));
        Self { sbatch, scontrol: find_program("scontrol").is_some() }
    }

    pub(super) fn examine(self, machine: &Machine) -> Vec<Finding> {
        let answer = self.sbatch.map(Asked::answer);
        let slurm = match answer.as_ref().map(|answer| answer.version()) {
            Some(Some(version)) if self.scontrol => version.to_owned(),
            Some(Some(version)) => format!("{version}, without scontrol"),
            Some(None) => "sbatch does not say its version in time".to_owned(),
            None => "not here: sessions run on this node".to_owned(),
        };
        let munge = match MUNGE_SOCKETS.iter().find(|socket| machine.has(socket)) {
            Some(socket) if UnixStream::connect(socket).is_ok() => format!("answers at {socket}"),
            Some(socket) => format!("{socket} is there, and nobody answers"),
            None => "not here".to_owned(),
        };
        let (slurm, munge) = (Finding::ok("Slurm", slurm), Finding::ok("MUNGE", munge));
        vec![slurm, munge, sign_out(machine), ptrace(machine), tiocsti(machine)]
    }
}

/// `logind.conf(5)`: with `KillUserProcesses=yes` a session that runs in the background ends with its user's sign-in.
fn sign_out(machine: &Machine) -> Finding {
    let what = "signing out";
    let texts = ["usr/lib/systemd/logind.conf", "etc/systemd/logind.conf"];
    let kills = |text: &str| {
        let mut values = text.lines().filter_map(|line| line.trim().strip_prefix("KillUserProcesses="));
        values.next_back().map(|value| ["yes", "true", "1", "on"].contains(&value.trim()))
    };
    let dropped_in = machine.texts_in("etc/systemd/logind.conf.d");
    let all = texts.iter().filter_map(|file| machine.text(file)).chain(dropped_in);
    match all.filter_map(|text| kills(&text)).next_back() {
        Some(true) => Finding::limited(
            what,
            "ends all you leave running (KillUserProcesses=yes)",
            "loginctl enable-linger, and systemd-run --user --scope shlogin start …",
        ),
        _ => Finding::ok(what, "leaves sessions running"),
    }
}

/// `ptrace(2)`, Yama: whether processes of one user may attach to each other.
fn ptrace(machine: &Machine) -> Finding {
    let detail = match machine.sysctl("kernel.yama.ptrace_scope").as_deref() {
        None => "no Yama: your own processes may attach to each other; shlogin's forbid it for themselves",
        Some("0") => "0: your own processes may attach to each other; shlogin's forbid it for themselves",
        Some("1") => "1: your processes may attach to their own children only",
        Some(_) => "2 or 3: only root may attach to processes",
    };
    Finding::ok("ptrace", detail)
}

/// Kernels before 6.2 let every program on a terminal type into it.
fn tiocsti(machine: &Machine) -> Finding {
    let detail = match machine.sysctl("dev.tty.legacy_tiocsti").as_deref() {
        Some("0") => "off: no program can type into your terminal",
        _ => "on: a program on your terminal could type into it; apps get a terminal of their own, or none",
    };
    Finding::ok("TIOCSTI", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, machine::made::Made};

    #[test]
    fn a_site_that_kills_at_sign_out_is_seen_wherever_it_says_so() {
        for (files, verdict) in [
            (&[("etc/systemd/logind.conf", "#KillUserProcesses=yes\n")][..], Verdict::Ok),
            (&[("etc/systemd/logind.conf", "[Login]\nKillUserProcesses=yes\n")][..], Verdict::Limited),
            (
                &[
                    ("etc/systemd/logind.conf", "KillUserProcesses=yes\n"),
                    ("etc/systemd/logind.conf.d/a.conf", "KillUserProcesses=no\n"),
                ][..],
                Verdict::Ok,
            ),
        ] {
            assert_eq!(sign_out(&Made::with(files).0).verdict, verdict, "{files:?}");
        }
    }
}
