//! What the trial of the namespaces means, and which of the kernel's switches is in the way.

use nix::{errno::Errno, unistd::geteuid};

use super::{
    Finding, Verdict,
    machine::{Machine, set_sysctl},
    probe::Outcome,
};
use crate::{config::Config, words::Isolation};

const WHAT: &str = "user namespaces";

/// `user namespaces`, `/proc` and nesting.
pub(super) fn examine(config: &Config, machine: &Machine, outcome: &Outcome) -> Vec<Finding> {
    let mut findings = judge(machine, outcome, geteuid().is_root());
    if config.isolation == Isolation::Socket {
        // What is not asked for does not stand in the way.
        for finding in &mut findings {
            finding.verdict = finding.verdict.min(Verdict::Limited);
        }
    }
    findings
}

fn judge(machine: &Machine, outcome: &Outcome, is_root: bool) -> Vec<Finding> {
    let (step, errno) = match outcome {
        Outcome::Works => return vec![works(machine, is_root), Finding::ok("a /proc of its own", "")],
        Outcome::Unknown(why) => {
            return vec![Finding::blocked(WHAT, why, "run doctor by shlogin's full path")];
        }
        Outcome::Failed { step, errno } => (*step, *errno),
    };
    match step {
        "proc" => vec![works(machine, is_root), no_proc(machine, errno)],
        "nested" => vec![
            Finding::limited(
                WHAT,
                format!("one works, one inside it does not ({}): Apptainer needs both", errno.desc()),
                switch_in_the_way(machine)
                    .map_or_else(|| set_sysctl("user.max_user_namespaces=65536"), |(_, remedy)| remedy),
            ),
            Finding::ok("a /proc of its own", ""),
        ],
        _ => vec![forbidden(machine, step, errno)],
    }
}

/// They work for who asks. Root is asked for more: whether they would for others.
fn works(machine: &Machine, is_root: bool) -> Finding {
    match switch_in_the_way(machine).filter(|_| is_root) {
        Some((detail, remedy)) => {
            Finding::limited(WHAT, format!("work for root; for users, {detail}"), remedy)
        }
        None => Finding::ok(WHAT, ""),
    }
}

fn forbidden(machine: &Machine, step: &str, errno: Errno) -> Finding {
    if let Some((detail, remedy)) = switch_in_the_way(machine) {
        return Finding::blocked(WHAT, detail, remedy);
    }
    let tried = match step {
        "user" => "unshare(CLONE_NEWUSER)".to_owned(),
        "map" => "mapping one's own user".to_owned(),
        kind => format!("a namespace of kind {kind}"),
    };
    let detail = format!("{tried} fails: {}", errno.desc());
    let limit = format!("user.max_{}_namespaces", if step == "map" { "user" } else { step });
    match errno {
        Errno::ENOSPC => {
            let now = machine.sysctl(&limit).unwrap_or_else(|| "unknown".to_owned());
            Finding::blocked(
                WHAT,
                format!("{detail} ({limit} = {now})"),
                set_sysctl(&format!("{limit}=65536")),
            )
        }
        Errno::EINVAL | Errno::ENOSYS => Finding::blocked(
            WHAT,
            format!("{detail}: the kernel is built without them"),
            "boot a kernel with CONFIG_USER_NS=y",
        ),
        Errno::EUSERS => {
            Finding::blocked(WHAT, detail, "start from fewer nested namespaces (the kernel has 32)")
        }
        _ if is_filtered(machine) => Finding::blocked(
            WHAT,
            format!("{detail}: a seccomp filter forbids it, as in a container"),
            "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined (podman: \
             --security-opt seccomp=unconfined --security-opt unmask=ALL)",
        ),
        _ => Finding::blocked(
            WHAT,
            detail,
            "shlogin start --isolation socket, or ask why in `dmesg` and the audit log",
        ),
    }
}

/// The first switch that forbids users what a session needs: what it says, and what turns it.
fn switch_in_the_way(machine: &Machine) -> Option<(String, String)> {
    let is = |name: &str, value: &str| machine.sysctl(name).as_deref() == Some(value);
    for kind in ["user", "net", "mnt", "pid", "ipc"] {
        let name = format!("user.max_{kind}_namespaces");
        if is(&name, "0") {
            return Some((format!("{name} = 0 forbids them"), set_sysctl(&format!("{name}=65536"))));
        }
    }
    if is("kernel.unprivileged_userns_clone", "0") {
        let detail = "kernel.unprivileged_userns_clone = 0 forbids them".to_owned();
        return Some((detail, set_sysctl("kernel.unprivileged_userns_clone=1")));
    }
    if is("kernel.apparmor_restrict_unprivileged_userns", "1") && !machine.has("etc/apparmor.d/shlogin") {
        let detail =
            "AppArmor takes their rights (kernel.apparmor_restrict_unprivileged_userns = 1)".to_owned();
        return Some((detail, apparmor_remedy()));
    }
    None
}

/// Installs a profile that lets this program, and what it starts, have user namespaces.
fn apparmor_remedy() -> String {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.to_str()).unwrap_or("/usr/local/bin/shlogin");
    format!(
        "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile shlogin \"{program}\" flags=(unconfined) \
         {{\\n  userns,\\n}}\\n' > /etc/apparmor.d/shlogin && apparmor_parser -r /etc/apparmor.d/shlogin"
    )
}

/// Whether this process runs under a seccomp filter (`proc_pid_status(5)`).
fn is_filtered(machine: &Machine) -> bool {
    let status = machine.text("proc/self/status").unwrap_or_default();
    status.lines().filter_map(|line| line.strip_prefix("Seccomp:")).any(|mode| mode.trim() == "2")
}

/// The kernel gives a new `/proc` only to who sees all of the old one (`mount_namespaces(7)`).
fn no_proc(machine: &Machine, errno: Errno) -> Finding {
    // On every node: it covers nothing.
    const HARMLESS: &str = "/proc/sys/fs/binfmt_misc";
    let what = "a /proc of its own";
    let mounts = machine.text("proc/self/mountinfo").unwrap_or_default();
    let below = |line: &str| {
        line.split(' ').nth(4).filter(|at| at.starts_with("/proc/") && *at != HARMLESS).map(str::to_owned)
    };
    let covers: Vec<_> = mounts.lines().filter_map(below).collect();
    let detail = match covers.first() {
        Some(first) => format!("{}: {} is mounted over, as in a container", errno.desc(), first),
        None => format!("mounting it fails: {}", errno.desc()),
    };
    let remedy = "docker run --security-opt systempaths=unconfined (podman: --security-opt unmask=ALL); on a node, unmount \
                  what lies over /proc";
    Finding::blocked(what, detail, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::machine::made::Made;

    fn failed(step: &'static str, errno: Errno) -> Outcome {
        Outcome::Failed { step, errno }
    }

    fn finding(files: &[(&str, &str)], outcome: &Outcome, is_root: bool) -> Finding {
        judge(&Made::with(files).0, outcome, is_root).remove(0)
    }

    #[test]
    fn each_switch_in_the_way_is_named_with_what_turns_it() {
        for (file, value, outcome, named) in [
            (
                "user/max_user_namespaces",
                "0\n",
                failed("user", Errno::ENOSPC),
                "'user.max_user_namespaces=65536'",
            ),
            (
                "user/max_net_namespaces",
                "0\n",
                failed("net", Errno::ENOSPC),
                "'user.max_net_namespaces=65536'",
            ),
            (
                "kernel/unprivileged_userns_clone",
                "0\n",
                failed("user", Errno::EPERM),
                "'kernel.unprivileged_userns_clone=1'",
            ),
            (
                "kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
                failed("net", Errno::EPERM),
                "> /etc/apparmor.d/shlogin && apparmor_parser -r",
            ),
        ] {
            let finding = finding(&[(&format!("proc/sys/{file}"), value)], &outcome, false);
            assert_eq!(finding.verdict, Verdict::Blocked);
            assert!(finding.detail.contains(&file.replace('/', ".")), "{finding:?}");
            assert!(finding.remedy.as_ref().unwrap().contains(named), "{finding:?}");
        }
    }

    #[test]
    fn without_a_switch_the_errno_and_the_filter_say_what_it_is() {
        let full =
            finding(&[("proc/sys/user/max_pid_namespaces", "9")], &failed("pid", Errno::ENOSPC), false);
        assert!(full.detail.contains("(user.max_pid_namespaces = 9)"), "{full:?}");
        let filtered =
            finding(&[("proc/self/status", "Name:\tx\nSeccomp:\t2\n")], &failed("user", Errno::EPERM), false);
        assert!(filtered.remedy.unwrap().contains("seccomp=unconfined"));
        let unknown = finding(&[("proc/self/status", "Seccomp:\t0\n")], &failed("user", Errno::EPERM), false);
        assert!(unknown.remedy.unwrap().contains("--isolation socket"));
    }

    #[test]
    fn root_is_told_what_users_will_meet_and_users_are_told_what_they_have() {
        let off = [("proc/sys/kernel/unprivileged_userns_clone", "0\n")];
        assert_eq!(finding(&off, &Outcome::Works, true).verdict, Verdict::Limited);
        assert_eq!(finding(&off, &Outcome::Works, false).verdict, Verdict::Ok);
        assert_eq!(finding(&[("a", "")], &Outcome::Works, true).verdict, Verdict::Ok);
    }

    #[test]
    fn a_covered_proc_is_named() {
        let info = "1 0 8:1 / / rw - ext4 a rw\n3 1 0:6 / /proc/sys/fs/binfmt_misc rw - autofs x rw\n2 1 0:5 / /proc/kcore rw - tmpfs tmpfs rw\n";
        let made = Made::with(&[("proc/self/mountinfo", info)]);
        let findings = judge(&made.0, &failed("proc", Errno::EPERM), false);
        assert_eq!((findings[0].verdict, findings[1].verdict), (Verdict::Ok, Verdict::Blocked));
        assert!(findings[1].detail.contains("/proc/kcore is mounted over"));
    }
}
