//! Says what this machine can do for shlogin, what stands in the way, and exactly what removes it.
//!
//! What can be tried is tried (namespaces, `/proc`, ports, devices), as the user who asks; what can't is read from the
//! kernel's own switches. Nothing here changes the machine, or takes longer than a second: programs that are
//! asked for their version have [`run::PATIENCE`]. Where Slurm is, its controller has five seconds, and the name service two.

#![forbid(unsafe_code)]

mod folders;
mod images;
mod machine;
mod namespaces;
mod network;
mod ports;
mod probe;
mod run;
mod site;
mod slurm;

use serde::Serialize;

use crate::config::Config;
use machine::Machine;

pub use probe::probe_namespaces;

/// What a thing is good for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing in the way.
    Ok,
    /// Works, with something missing.
    Limited,
    /// What the configuration asks for can't be had.
    Blocked,
}

/// One line of the examination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at: `user namespaces`.
    pub what: &'static str,
    /// What it is good for.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// The command that mends it, or the setting that does without it.
    pub remedy: Option<String>,
}

/// Looks at this machine with the eyes of the user who asks, for what `config` wants of it.
pub fn examine(config: &Config) -> Vec<Finding> {
    let machine = Machine::real();
    // The programs run while the rest is looked at.
    let probe = probe::Running::start();
    let images = images::Running::start(config);
    let slurm = slurm::Running::start(config);
    let outbound = network::Running::start(config);

    let namespaces = probe.outcome();
    let mut findings = folders::examine(config);
    findings.extend(ports::examine(config, &machine));
    findings.extend(namespaces::examine(config, &machine, &namespaces));
    findings.extend(images.examine(&machine));
    findings.extend(outbound.examine(&machine));
    findings.extend(slurm.examine(config, &machine, &namespaces));
    findings.extend(site::examine(config, &machine));
    findings
}

/// The findings for a person, one line each.
pub fn render(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{}\n", finding.line())).collect()
}

/// The worst of them: `Blocked` where something stands in the way.
pub fn verdict(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
}

impl Finding {
    fn ok(what: &'static str, detail: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Ok, detail: detail.into(), remedy: None }
    }

    fn limited(what: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Limited, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn blocked(what: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Blocked, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    /// `no   /dev/fuse: permission denied → chmod 0666 /dev/fuse`, with nothing in it that a terminal would obey.
    fn line(&self) -> String {
        let mark = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Limited => "some",
            Verdict::Blocked => "no  ",
        };
        let mut line = format!("{mark} {}", self.what);
        if !self.detail.is_empty() {
            line += &format!(": {}", self.detail);
        }
        if let Some(remedy) = &self.remedy {
            line += &format!(" → {remedy}");
        }
        line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_remedy_and_no_escape() {
        let findings = [
            Finding::ok("user namespaces", ""),
            Finding::blocked("/dev/fuse", "permission denied", "chmod 0666 /dev/fuse"),
            Finding::ok("Slurm", "a\u{1b}]0;b\n"),
        ];
        assert_eq!(
            render(&findings),
            "ok   user namespaces\nno   /dev/fuse: permission denied → chmod 0666 /dev/fuse\nok   Slurm: a\u{fffd}]0;b\u{fffd}\n"
        );
        assert_eq!(verdict(&findings), Verdict::Blocked);
        assert_eq!(verdict(&findings[..1]), Verdict::Ok);
    }

    #[test]
    fn an_examination_takes_less_than_a_second_and_looks_at_all() {
        let before = std::time::Instant::now();
        let config = Config::load(&crate::config::Overrides::default()).unwrap().config;
        let findings = examine(&config);
        assert!(before.elapsed() < std::time::Duration::from_millis(1500), "{:?}", before.elapsed());
        for what in [
            "user namespaces",
            "/dev/fuse",
            "Apptainer",
            "outbound network",
            "runtime folder",
            "pods",
            "Slurm",
            "MUNGE",
        ] {
            assert!(findings.iter().any(|finding| finding.what == what), "{what}");
        }
        assert!(findings.iter().all(|f| (f.verdict == Verdict::Ok) == f.remedy.is_none()));
    }
}
