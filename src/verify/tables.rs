//! What `/proc/net` of a namespace shows (`proc_pid_net(5)`), and whose socket is whose.

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use super::target::AbstractSocket;
use crate::sandbox::parse_address;

/// A listening TCP socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listening {
    pub(super) address: SocketAddr,
    pub(super) uid: u32,
    pub(super) inode: u64,
}

impl Listening {
    /// Whether a connection to `to` may have ended here.
    pub(super) fn takes(&self, to: SocketAddr) -> bool {
        let ip = self.address.ip();
        let same_ip = ip.to_canonical() == to.ip().to_canonical();
        // `::` also takes what comes over IPv4, unless told not to, which the table does not show.
        let all = ip.is_unspecified() && (ip.is_ipv6() || to.ip().to_canonical().is_ipv4());
        self.address.port() == to.port() && (same_ip || all)
    }
}

/// The tables of this process.
pub(super) fn ours() -> PathBuf {
    PathBuf::from("/proc/self/net")
}

/// The tables that process `pid` sees.
pub(super) fn of_process(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/net"))
}

/// All listening TCP sockets of a network.
pub(super) fn listening(net: &Path) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        match fs::read_to_string(net.join(table)) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(parse_listening)),
            // A kernel without IPv6 has no such table.
            Err(error) if table == "tcp6" && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn parse_listening(line: &str) -> Option<Listening> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, "0A", _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    Some(Listening { address: parse_address(local)?, uid: uid.parse().ok()?, inode: inode.parse().ok()? })
}

/// All named sockets in the abstract namespace of a network.
pub(super) fn abstract_sockets(net: &Path) -> io::Result<Vec<AbstractSocket>> {
    let text = fs::read(net.join("unix"))?;
    Ok(text.split(|byte| *byte == b'\n').skip(1).filter_map(parse_abstract).collect())
}

/// `Num: RefCount Protocol Flags Type St Inode @name`. A name may hold spaces, and bytes that are no text.
fn parse_abstract(line: &[u8]) -> Option<AbstractSocket> {
    let mut rest = line;
    let mut fields = Vec::new();
    while fields.len() < 7 {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ')?;
        fields.push(std::str::from_utf8(&rest[..end]).ok()?);
        rest = &rest[end..];
    }
    let name = rest.strip_prefix(b" ")?.strip_prefix(b"@")?.to_vec();
    Some(AbstractSocket {
        name,
        kind: i32::from_str_radix(fields[4], 16).ok()?,
        inode: fields[6].parse().ok()?,
    })
}

/// The sockets that these processes hold open, of those that may be looked into.
pub(super) fn held_by(processes: impl Iterator<Item = i32>) -> HashSet<u64> {
    let links =
        processes.flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten());
    links
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Where one may connect to this host, by its own word (`getifaddrs(3)`); ports are 0.
pub(super) fn host_addresses() -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = ["127.0.0.1", "127.0.0.2", "::1"]
        .iter()
        .filter_map(|ip| Some((ip.parse::<IpAddr>().ok()?, 0).into()))
        .collect();
    for address in nix::ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| interface.address)
    {
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => SocketAddr::from((v4.ip(), 0)),
            // With its scope: a link-local address means nothing without its link.
            (_, Some(v6)) => std::net::SocketAddrV6::new(v6.ip(), 0, 0, v6.scope_id()).into(),
            _ => continue,
        };
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_who_listens_and_leaves_out_what_is_connected() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(at).unwrap();
        let table = listening(&ours()).unwrap();
        let mine: Vec<_> = table.iter().filter(|one| one.takes(at)).collect();
        assert_eq!(mine.len(), 1);
        assert_eq!(mine[0].uid, nix::unistd::geteuid().as_raw());
        assert!(held_by([std::process::id().try_into().unwrap()].into_iter()).contains(&mine[0].inode));
        assert!(!table.iter().any(|one| one.address == client.local_addr().unwrap()));
    }

    #[test]
    fn a_listener_on_all_addresses_takes_each_and_one_on_loopback_only_that() {
        let on = |address: &str| Listening { address: address.parse().unwrap(), uid: 0, inode: 0 };
        let takes = |on: &Listening, to: &str| on.takes(to.parse().unwrap());
        assert!(takes(&on("0.0.0.0:80"), "10.0.0.1:80") && !takes(&on("0.0.0.0:80"), "[::1]:80"));
        assert!(takes(&on("[::]:80"), "10.0.0.1:80") && takes(&on("[::]:80"), "[fe80::1]:80"));
        assert!(!takes(&on("127.0.0.1:80"), "127.0.0.2:80") && !takes(&on("0.0.0.0:80"), "10.0.0.1:81"));
        assert!(takes(&on("[::ffff:127.0.0.1]:80"), "127.0.0.1:80"));
    }

    #[test]
    fn abstract_names_are_bytes_and_other_sockets_are_left_out() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 4711 @a b\xff";
        let socket = parse_abstract(line).unwrap();
        assert_eq!((socket.name.as_slice(), socket.kind, socket.inode), (&b"a b\xff"[..], 1, 4711));
        for line in [
            &b"0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/x"[..],
            b"0000000000000000: 00000002 00000000 00000000 0001 03 4711",
            b"",
        ] {
            assert!(parse_abstract(line).is_none());
        }
    }

    #[test]
    fn this_host_has_loopback_of_both_kinds() {
        let all = host_addresses();
        for ip in ["127.0.0.1", "127.0.0.2", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(all.iter().filter(|address| address.ip() == ip).count(), 1);
        }
    }
}
