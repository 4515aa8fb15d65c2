//! Which pods are free, whether their ports can be bound, and what else takes ports from the same range.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt},
};

use super::{
    Finding,
    machine::{Machine, set_sysctl},
};
use crate::{
    config::{Config, Listen},
    words::PodRange,
};

/// `pods`, `gateway address` and `port range`.
pub(super) fn examine(config: &Config, machine: &Machine) -> Vec<Finding> {
    let ports = ports(config.pods);
    let mut findings = vec![pods(config.pods, &ports, machine)];
    if let Listen::Address(ip) = config.gateway.listen {
        findings.push(match bound(SocketAddr::new(ip, 0)) {
            Ok(()) => Finding::ok("gateway address", ip.to_string()),
            Err(e) => Finding::blocked(
                "gateway address",
                format!("{ip}: {}", e.desc()),
                "set gateway.listen to all, or to an address of `ip -brief address`",
            ),
        });
    }
    findings.extend(ephemeral(&ports, machine));
    findings
}

/// From the first pod's first port to the last pod's last, those that are still without use included.
fn ports(range: PodRange) -> RangeInclusive<u16> {
    let mut first_ports = range.pods().map(|pod| range.ssh_port(pod));
    let (first, second) = (first_ports.next().unwrap_or(0), first_ports.next());
    let width = second.map_or(2, |second| second - first);
    let last = first_ports.last().or(second).unwrap_or(first);
    first..=last + (width - 1)
}

/// A pod is free where both its ports can be bound: a port that is bound and has no listener shows nowhere else. Each is
/// let go at once.
fn pods(range: PodRange, ports: &RangeInclusive<u16>, machine: &Machine) -> Finding {
    let what = "pods";
    let lowest = machine.sysctl("net.ipv4.ip_unprivileged_port_start").and_then(|n| n.parse::<u16>().ok());
    if let Some(lowest) = lowest.filter(|lowest| lowest > ports.start()) {
        let detail =
            format!("net.ipv4.ip_unprivileged_port_start = {lowest} is above port {}", ports.start());
        return Finding::blocked(what, detail, set_sysctl("net.ipv4.ip_unprivileged_port_start=1024"));
    }
    let mut last_error = None;
    let mut is_free = |port| bound_on_all(port).map_err(|e| last_error = Some(e)).is_ok();
    let free: Vec<_> =
        range.pods().filter(|pod| is_free(range.ssh_port(*pod)) && is_free(range.https_port(*pod))).collect();
    let all = range.pods().count();
    let shown = format!("{} of {all} free, ports {}-{}", free.len(), ports.start(), ports.end());
    match (free.first(), last_error) {
        (Some(_), _) if free.len() * 10 >= all => Finding::ok(what, shown),
        (Some(_), _) => Finding::limited(what, shown, "raise pods.count, or stop sessions that nobody uses"),
        (None, Some(Errno::EADDRINUSE)) | (None, None) => Finding::blocked(
            what,
            shown,
            "raise pods.count, or stop sessions that nobody uses (shlogin list)",
        ),
        (None, Some(e)) => Finding::blocked(
            what,
            format!("binding a port fails: {}", e.desc()),
            "shlogin start --listen unix",
        ),
    }
}

/// The kernel gives outgoing connections any port of `net.ipv4.ip_local_port_range`, also a pod's.
fn ephemeral(ports: &RangeInclusive<u16>, machine: &Machine) -> Option<Finding> {
    let range = machine.sysctl("net.ipv4.ip_local_port_range")?;
    let (low, high) = range.split_once(char::is_whitespace)?;
    let (low, high): (u16, u16) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    let what = "outgoing ports";
    if high < *ports.start() || *ports.end() < low {
        return Some(Finding::ok(what, format!("{low}-{high}, none of them a pod's")));
    }
    let reserved = machine.sysctl("net.ipv4.ip_local_reserved_ports").unwrap_or_default();
    let shared = low.max(*ports.start())..=high.min(*ports.end());
    if is_covered(&shared, &reserved) {
        return Some(Finding::ok(what, format!("{low}-{high}, those of the pods are reserved")));
    }
    let (first, last) = (ports.start(), ports.end());
    let also = if reserved.is_empty() { String::new() } else { format!("{reserved},") };
    Some(Finding::limited(
        what,
        format!("{low}-{high} takes ports of the pods ({first}-{last})"),
        set_sysctl(&format!("net.ipv4.ip_local_reserved_ports={also}{first}-{last}")),
    ))
}

/// Whether every port of `wanted` is in a list such as `3000-4000,8080`.
fn is_covered(wanted: &RangeInclusive<u16>, reserved: &str) -> bool {
    let range = |item: &str| {
        let (low, high) = item.split_once('-').unwrap_or((item, item));
        Some(low.trim().parse().ok()?..=high.trim().parse().ok()?)
    };
    let ranges: Vec<RangeInclusive<u16>> = reserved.split(',').filter_map(range).collect();
    wanted.clone().all(|port| ranges.iter().any(|range| range.contains(&port)))
}

fn bound_on_all(port: u16) -> Result<(), Errno> {
    match bound((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => bound((Ipv4Addr::UNSPECIFIED, port).into()),
        other => other,
    }
}

fn bound(address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Verdict, machine::made::Made};

    #[test]
    fn a_pod_with_a_port_in_use_is_not_counted() {
        // Below the ports that the kernel gives to outgoing connections, which others make meanwhile.
        let range = PodRange::new(14_300, 2, 1).unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:14302").unwrap();
        let made = Made::with(&[("a", "")]);
        let finding = pods(range, &ports(range), &made.0);
        assert_eq!(
            (finding.verdict, finding.detail.starts_with("0 of 1 free")),
            (Verdict::Blocked, true),
            "{finding:?}"
        );
        drop(taken);
        assert_eq!(pods(range, &ports(range), &made.0).verdict, Verdict::Ok);
    }

    #[test]
    fn outgoing_connections_must_not_take_a_pods_port() {
        let pods = ports(PodRange::new(3000, 10, 1000).unwrap());
        assert_eq!(pods, 3010..=13009);
        for (range, reserved, verdict) in [
            ("32768\t60999\n", "", Verdict::Ok),
            ("10000\t60999\n", "", Verdict::Limited),
            ("10000\t60999\n", "8080,3010-13009\n", Verdict::Ok),
            ("10000\t60999\n", "3010-13000\n", Verdict::Limited),
        ] {
            let made = Made::with(&[
                ("proc/sys/net/ipv4/ip_local_port_range", range),
                ("proc/sys/net/ipv4/ip_local_reserved_ports", reserved),
            ]);
            assert_eq!(ephemeral(&pods, &made.0).unwrap().verdict, verdict, "{range:?} {reserved:?}");
        }
    }

    #[test]
    fn ports_only_root_can_bind_are_named() {
        let made = Made::with(&[("proc/sys/net/ipv4/ip_unprivileged_port_start", "5000\n")]);
        let range = PodRange::new(3000, 10, 3).unwrap();
        assert!(pods(range, &ports(range), &made.0).detail.contains("= 5000 is above port 3010"));
    }
}
