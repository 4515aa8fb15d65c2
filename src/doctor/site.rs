//! What else a site does that bears on sessions: what happens when a user signs out or a file gets
//! old, and how freely one user's processes may look at each other. None of it stands in the way.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::{Finding, machine::Machine};
use crate::config::{Config, paths};

/// What this site does.
pub(super) fn examine(config: &Config, machine: &Machine) -> Vec<Finding> {
    let scratch = config.scratch.join(format!("shlogin-{}", geteuid()));
    // What a session leaves alone for days and needs.
    let kept = [paths::runtime_path(), scratch];
    vec![sign_out(machine), clean_up(machine, &kept), ptrace(machine), tiocsti(machine)]
}

/// `logind.conf(5)`: with `KillUserProcesses=yes` a session that runs in the background ends with its user's sign-in.
fn sign_out(machine: &Machine) -> Finding {
    let what = "signing out";
    let texts = ["usr/lib/systemd/logind.conf", "etc/systemd/logind.conf"];
    let kills = |text: &str| {
        let mut values = text.lines().filter_map(|line| line.trim().strip_prefix("KillUserProcesses="));
        values.next_back().map(|value| ["yes", "true", "1", "on"].contains(&value.trim()))
    };
    let dropped_in = machine.texts_in(&["usr/lib/systemd/logind.conf.d", "etc/systemd/logind.conf.d"]);
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

/// `tmpfiles.d(5)`: whether files that nobody has touched for days are removed from under a session.
fn clean_up(machine: &Machine, kept: &[PathBuf]) -> Finding {
    let what = "clean-up";
    let lines = machine.texts_in(&["usr/lib/tmpfiles.d", "run/tmpfiles.d", "etc/tmpfiles.d"]).join("\n");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> =
        lines.lines().map(words).filter(|line| line.len() >= 2 && !line[0].starts_with('#')).collect();
    let is_exempt = lines.iter().any(|line| line[0].starts_with(['x', 'X']) && line[1].contains("/shlogin-"));
    let cleaned = lines.iter().find(|line| {
        let has_age = line.get(5).is_some_and(|age| age != "-");
        has_age && kept.iter().any(|path| path.parent() == Some(Path::new(&line[1])))
    });
    match cleaned {
        Some(line) if !is_exempt => {
            let mut folders: Vec<_> = kept.iter().filter_map(|path| path.parent()).collect();
            folders.dedup();
            let exempt: String =
                folders.iter().map(|folder| format!("x {}/shlogin-*\\n", folder.display())).collect();
            let detail = format!("what is {} old is removed from {}, also from sessions", line[5], line[1]);
            Finding::limited(what, detail, format!("printf '{exempt}' > /etc/tmpfiles.d/shlogin.conf"))
        }
        _ => Finding::ok(what, "leaves the folders of sessions alone"),
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

    #[test]
    fn a_clean_up_that_takes_old_files_of_sessions_is_seen_unless_they_are_exempt() {
        let kept = [PathBuf::from("/tmp/shlogin-1"), PathBuf::from("/var/tmp/shlogin-1")];
        let aged =
            ("usr/lib/tmpfiles.d/tmp.conf", "q /tmp 1777 root root 10d\nq /var/tmp 1777 root root 30d\n");
        let found = clean_up(&Made::with(&[aged]).0, &kept);
        assert_eq!(found.verdict, Verdict::Limited);
        let remedy = "printf 'x /tmp/shlogin-*\\nx /var/tmp/shlogin-*\\n' > /etc/tmpfiles.d/shlogin.conf";
        assert_eq!(found.remedy.unwrap(), remedy);

        let exempt = ("etc/tmpfiles.d/shlogin.conf", "x /tmp/shlogin-*\nx /var/tmp/shlogin-*\n");
        assert_eq!(clean_up(&Made::with(&[aged, exempt]).0, &kept).verdict, Verdict::Ok);
        let overridden =
            ("etc/tmpfiles.d/tmp.conf", "q /tmp 1777 root root -\n#q /var/tmp 1777 root root 30d\n");
        assert_eq!(clean_up(&Made::with(&[aged, overridden]).0, &kept).verdict, Verdict::Ok);
    }
}
