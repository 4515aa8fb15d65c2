//! The way out of a session's network, its names, and what this host is called.

use std::{
    fs::File,
    net::{IpAddr, ToSocketAddrs},
    path::PathBuf,
    sync::mpsc,
    time::Duration,
};

use super::{
    Finding,
    machine::Machine,
    run::{Answer, Asked},
};
use crate::{
    config::{Config, HostName, Listen, OutboundHelper, find_program},
    words::Network,
};

/// How long a name server has.
const RESOLVE_WITHIN: Duration = Duration::from_millis(400);

/// What was asked.
pub(super) struct Running {
    is_needed: bool,
    wanted: OutboundHelper,
    helper: Option<(&'static str, PathBuf, Option<Asked>)>,
    listen: Listen,
    host: HostName,
    resolved: mpsc::Receiver<bool>,
}

impl Running {
    pub(super) fn start(config: &Config) -> Self {
        let names: &[&'static str] = match config.outbound.helper {
            OutboundHelper::Auto => &["pasta", "slirp4netns"],
            OutboundHelper::Pasta => &["pasta"],
            OutboundHelper::Slirp4netns => &["slirp4netns"],
        };
        let helper = names.iter().find_map(|name| Some((*name, find_program(name)?)));
        let helper = helper.map(|(name, path)| {
            let asked = Asked::start(&path, &["--version"]);
            (name, path, asked)
        });
        let host = config.gateway.host_name();
        Self {
            is_needed: config.network == Network::Outbound,
            wanted: config.outbound.helper,
            helper,
            listen: config.gateway.listen,
            resolved: resolve(host.clone()),
            host,
        }
    }

    pub(super) fn examine(self, machine: &Machine) -> Vec<Finding> {
        let mut findings = vec![self.name()];
        let Self { is_needed, wanted, helper, .. } = self;
        findings.push(match helper {
            Some((name, path, asked)) => {
                let answer = asked.map(Asked::answer);
                let version = answer.as_ref().and_then(Answer::version).unwrap_or("of an unknown version");
                Finding::ok("outbound network", format!("{name} {version}, {}", path.display()))
            }
            None => {
                let (names, install) = match wanted {
                    OutboundHelper::Pasta => ("no pasta", machine.install("passt", "passt")),
                    OutboundHelper::Slirp4netns => {
                        ("no slirp4netns", machine.install("slirp4netns", "slirp4netns"))
                    }
                    OutboundHelper::Auto => {
                        let newer = machine.install("passt", "passt");
                        ("neither pasta nor slirp4netns", format!("{newer} (older releases: slirp4netns)"))
                    }
                };
                let remedy = format!("{install}, or shlogin start --network isolated");
                needed(is_needed, "outbound network", format!("{names} found"), remedy)
            }
        });
        findings.push(match File::options().read(true).write(true).open("/dev/net/tun") {
            Ok(_) => Finding::ok("/dev/net/tun", ""),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                needed(is_needed, "/dev/net/tun", "not there".to_owned(), "modprobe tun".to_owned())
            }
            Err(e) => needed(is_needed, "/dev/net/tun", e.to_string(), "chmod 0666 /dev/net/tun".to_owned()),
        });
        findings.push(name_servers(machine));
        findings
    }

    fn name(&self) -> Finding {
        let what = "host name";
        let name = &self.host;
        let remedy =
            "set gateway.host in /etc/shlogin/config.toml to a name that browsers can resolve".to_owned();
        if self.listen == Listen::Unix {
            return Finding::ok(what, format!("{name}, not needed with gateway.listen = unix"));
        }
        match self.resolved.recv_timeout(RESOLVE_WITHIN) {
            Ok(true) if name.as_str().contains(['.', ':']) => Finding::ok(what, name.as_str()),
            Ok(true) => Finding::limited(
                what,
                format!("{name} has no domain: URLs work in this network only"),
                remedy,
            ),
            Ok(false) => Finding::limited(
                what,
                format!("{name} does not resolve to an address others can reach"),
                remedy,
            ),
            Err(_) => Finding::limited(what, format!("{name}: no answer from the name server"), remedy),
        }
    }
}

fn needed(is_needed: bool, what: &'static str, detail: String, remedy: String) -> Finding {
    if is_needed { Finding::blocked(what, detail, remedy) } else { Finding::limited(what, detail, remedy) }
}

/// Asks in a thread of its own, which may outlive the question: `getaddrinfo(3)` can't be told how long to wait.
fn resolve(name: HostName) -> mpsc::Receiver<bool> {
    let (answer, answers) = mpsc::channel();
    std::thread::spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let is_outside = |mut a: std::vec::IntoIter<std::net::SocketAddr>| a.any(|a| !a.ip().is_loopback());
        // Nobody listens any more where the answer is late.
        let _ = answer.send(found.is_ok_and(is_outside));
    });
    answers
}

/// One on the node's own loopback is out of a session's reach: the session passes the app's questions on to it.
fn name_servers(machine: &Machine) -> Finding {
    let what = "name servers";
    let text = machine.text("etc/resolv.conf").unwrap_or_default();
    let address = |line: &str| line.strip_prefix("nameserver")?.trim().split('%').next()?.parse().ok();
    let servers: Vec<IpAddr> = text.lines().filter_map(|line| address(line.trim())).collect();
    let shown = |server: &IpAddr| match server.is_loopback() {
        true => format!("{server} (on the node's loopback: sessions pass questions on to it)"),
        false => server.to_string(),
    };
    if servers.is_empty() {
        let remedy = "add a `nameserver ADDRESS` line to /etc/resolv.conf";
        return Finding::limited(what, "none in /etc/resolv.conf", remedy);
    }
    Finding::ok(what, servers.iter().map(shown).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, machine::made::Made};

    #[test]
    fn a_name_server_on_the_loopback_is_told_from_the_others() {
        for (text, verdict, said) in [
            ("nameserver 10.0.0.2\n", Verdict::Ok, "10.0.0.2"),
            (
                "# x\nnameserver 127.0.0.53\n",
                Verdict::Ok,
                "127.0.0.53 (on the node's loopback: sessions pass",
            ),
            ("nameserver 10.0.0.2\nnameserver fe80::1%eth0\n", Verdict::Ok, "10.0.0.2, fe80::1"),
            ("search x\n", Verdict::Limited, "none"),
        ] {
            let finding = name_servers(&Made::with(&[("etc/resolv.conf", text)]).0);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.detail.starts_with(said), "{finding:?}");
        }
    }
}
