//! What this host is called. Asks the kernel and `/etc/hosts`, never the network: a name server that does not answer must
//! not hold up a start.

use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use super::values::{HostChoice, HostName};

/// This host's name with its domain where the host name has one, or `/etc/hosts` knows one for it; else without.
/// `localhost` where the kernel's name can't stand in a URL.
pub fn host_name() -> HostName {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = full_name(&name, &hosts).unwrap_or(&name).to_owned();
    name.parse().unwrap_or_else(|_| HostName::localhost())
}

/// What the kernel calls this node, whatever `/etc/hosts` makes of it: a folder's name in a home that nodes share.
pub fn node_name() -> HostName {
    let name =
        nix::unistd::gethostname().ok().and_then(|name| name.to_str().and_then(|name| name.parse().ok()));
    name.unwrap_or_else(HostName::localhost)
}

/// By what compute nodes may reach this one: what is configured, else its names and then all its addresses but those that
/// every machine has.
pub fn link_hosts(configured: &HostChoice) -> Vec<String> {
    if let HostChoice::Named(name) = configured {
        return vec![name.as_str().to_owned()];
    }
    let mut hosts = vec![node_name().as_str().to_owned(), host_name().as_str().to_owned()];
    let interfaces = getifaddrs().into_iter().flatten();
    hosts.extend(interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip()));
        // A link-local address means nothing without its interface.
        let usable = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        };
        v4.or(v6).filter(usable).map(|ip| ip.to_string())
    }));
    let mut seen = std::collections::HashSet::new();
    hosts.retain(|host| host != "localhost" && seen.insert(host.clone()));
    hosts
}

/// The first name with a dot among those that `/etc/hosts` has on a line with `name`.
fn full_name<'a>(name: &str, hosts: &'a str) -> Option<&'a str> {
    if name.contains('.') {
        return None;
    }
    let names = |line: &'a str| line.split('#').next().unwrap_or("").split_whitespace().skip(1);
    hosts
        .lines()
        .filter(|line| names(line).any(|n| n.eq_ignore_ascii_case(name)))
        .flat_map(names)
        .find(|n| n.contains('.') && !n.starts_with("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_gets_its_domain_from_the_hosts_file() {
        let hosts = "127.0.0.1 localhost.localdomain localhost\n10.0.0.5\tlogin1.hpc.example login1 # comment node.x\n";
        assert_eq!(full_name("login1", hosts), Some("login1.hpc.example"));
        assert_eq!(full_name("LOGIN1", hosts), Some("login1.hpc.example"));
        assert_eq!(full_name("login2", hosts), None);
        assert_eq!(full_name("localhost", hosts), None);
        assert_eq!(full_name("login1.other", hosts), None);
    }

    #[test]
    fn this_host_has_a_name() {
        assert!(!host_name().as_str().is_empty());
        assert!(!node_name().as_str().contains('/'));
    }
}
