//! What listens, and whose it is: from `sock_diag(7)`, or, where the kernel has none, from `/proc/net/tcp` and
//! `/proc/net/tcp6` (`proc_pid_net(5)`).

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::unistd::Pid;

use crate::sys::diag::{Family, listening};

const LISTEN: &str = "0A";

/// Every listening TCP socket of this process's network namespace, with its inode.
pub(super) fn all() -> io::Result<Vec<(SocketAddr, u64)>> {
    match listening(Family::V4) {
        Ok(mut found) => {
            // A kernel without IPv6 has none to tell of.
            found.extend(listening(Family::V6).unwrap_or_default());
            Ok(found)
        }
        Err(_) => from_tables(),
    }
}

fn from_tables() -> io::Result<Vec<(SocketAddr, u64)>> {
    let mut found = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(parse_line)),
            // A kernel without IPv6 has no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The listening TCP sockets that one of `processes` holds open.
pub(super) fn of(processes: &[Pid]) -> io::Result<Vec<(SocketAddr, u64)>> {
    let inodes = sockets_of(processes);
    Ok(all()?.into_iter().filter(|(_, inode)| inodes.contains(inode)).collect())
}

/// The names of abstract unix sockets (`unix(7)`) that one of `processes` has bound: no file's mode guards them.
pub(super) fn abstract_names_of(processes: &[Pid]) -> io::Result<Vec<String>> {
    let inodes = sockets_of(processes);
    let table = fs::read("/proc/self/net/unix")?;
    let table = String::from_utf8_lossy(&table);
    let named = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let inode = fields.nth(6)?.parse().ok()?;
        let name = fields.next()?;
        (name.starts_with('@') && inodes.contains(&inode)).then(|| name.to_owned())
    });
    Ok(named.collect())
}

/// Processes that let nobody see what they have open (`PR_SET_DUMPABLE`): what they listen on cannot be known.
pub(super) fn hidden(processes: &[Pid]) -> HashSet<Pid> {
    let denied = |pid: &&Pid| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    processes.iter().filter(denied).copied().collect()
}

fn sockets_of(processes: &[Pid]) -> HashSet<u64> {
    let mut inodes = HashSet::new();
    for pid in processes {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            inodes.extend::<Option<u64>>(inode);
        }
    }
    inodes
}

fn parse_line(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == LISTEN).then_some(())?;
    Some((parse_address(local)?, inode))
}

/// `0100007F:1F90`: the address as 32-bit words in the machine's byte order, the port as a number.
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut words = address.as_bytes().chunks(8).map(|chunk| {
        let word = std::str::from_utf8(chunk).ok()?;
        u32::from_str_radix(word, 16).ok()
    });
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(words.next()??.to_ne_bytes()).into(),
        32 => {
            let mut octets = [0; 16];
            for (four, word) in octets.chunks_mut(4).zip(words) {
                four.copy_from_slice(&word?.to_ne_bytes());
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Where to connect in order to reach what listens at `address`: itself, or loopback where it listens everywhere.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_abstract_names_and_whose_they_are() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("shlogin-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        assert!(abstract_names_of(&[Pid::this()]).unwrap().contains(&format!("@{name}")));
        assert!(abstract_names_of(&[]).unwrap().is_empty());
    }

    #[test]
    fn finds_listeners_of_either_family_and_only_those() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let listener = std::net::TcpListener::bind(address).unwrap();
            let at = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(reachable(at)).unwrap();
            for look in [all, from_tables] {
                let seen: Vec<_> = look().unwrap().into_iter().map(|(address, _)| address).collect();
                assert!(seen.contains(&at), "{at} not in {seen:?}");
                assert!(!seen.contains(&client.local_addr().unwrap()));
            }
            let inode = |look: fn() -> io::Result<Vec<(SocketAddr, u64)>>| {
                look().unwrap().into_iter().find(|(address, _)| *address == at).unwrap().1
            };
            assert_eq!(inode(all), inode(from_tables));
            let mine: Vec<_> = of(&[Pid::this()]).unwrap().into_iter().map(|(address, _)| address).collect();
            assert!(mine.contains(&at));
            assert!(!of(&[]).unwrap().iter().any(|(address, _)| *address == at));
        }
    }
}
