//! What a key, a certificate or a password lets its holder do.

use std::ffi::OsString;

use super::patterns;

/// What somebody who has proved who they are may do.
///
/// X11, tunnels and `~/.ssh/rc` are not among it: this server has none of them for anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Permits {
    /// Have a terminal.
    pub(crate) pty: bool,
    /// Have their agent forwarded.
    pub(crate) agent: bool,
    /// Have ports and sockets forwarded, as far as `open` and `listen` go.
    pub(crate) forwarding: bool,
    /// Where forwarded connections may go (`-L`, `-D`, `-W`); `None` for anywhere.
    pub(crate) open: Option<Vec<HostPort>>,
    /// Where connections to be forwarded may be waited for (`-R`); `None` for anywhere.
    pub(crate) listen: Option<Vec<HostPort>>,
    /// What is run instead of whatever is asked for, shells and subsystems included.
    pub(crate) command: Option<OsString>,
    /// Variables that what is run gets on top.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

/// A host and a port, either of which may stand for any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HostPort {
    host: String,
    /// `None` for any.
    port: Option<u16>,
}

impl Permits {
    /// Everything: what the owner's password or the session's token gives.
    pub(crate) fn all() -> Self {
        Self {
            pty: true,
            agent: true,
            forwarding: true,
            open: None,
            listen: None,
            command: None,
            environment: Vec::new(),
        }
    }

    /// Whether a connection to `host` and `port` may be forwarded. "No pattern matching or name lookup is performed"
    /// (`sshd(8)`, `permitopen`); `*` alone is any host.
    pub(crate) fn may_open(&self, host: &str, port: u16) -> bool {
        let fits = |one: &HostPort| (one.host == "*" || one.host == host) && one.has(port);
        self.forwarding && self.open.as_ref().is_none_or(|list| list.iter().any(fits))
    }

    /// Whether connections to `host` and `port`, as the client names them, may be waited for. "Hostnames may include
    /// wildcards" (`sshd(8)`, `permitlisten`). Port 0, by which the client leaves the choice to the server, is allowed only
    /// where every port is.
    pub(crate) fn may_listen(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let fits = |one: &HostPort| {
            patterns::fits(host.as_bytes(), one.host.to_ascii_lowercase().as_bytes()) && one.has(port)
        };
        self.forwarding && self.listen.as_ref().is_none_or(|list| list.iter().any(fits))
    }

    /// Whether connections to unix sockets may be forwarded. A list of hosts and ports names none.
    pub(crate) fn may_open_sockets(&self) -> bool {
        self.forwarding && self.open.is_none()
    }

    /// Whether connections to unix sockets may be waited for. sshd allows it even with `permitlisten`; here a list of hosts
    /// and ports names none.
    pub(crate) fn may_listen_on_sockets(&self) -> bool {
        self.forwarding && self.listen.is_none()
    }
}

impl HostPort {
    const MAX_HOST: usize = 1024;

    /// A `permitopen`: `host:port`, an IPv6 address in brackets.
    pub(super) fn to_open(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:")?,
            None => text.split_once(':')?,
        };
        let is_host = !host.is_empty()
            && host.len() <= Self::MAX_HOST
            && host.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'[' | b']' | b'/'));
        let port = match port {
            "*" => None,
            _ if port.bytes().all(|b| b.is_ascii_digit()) => {
                Some(port.parse().ok().filter(|port| *port != 0)?)
            }
            _ => return None,
        };
        is_host.then(|| Self { host: host.to_owned(), port })
    }

    /// A `permitlisten`: the host may be missing, which is any.
    pub(super) fn to_listen(text: &str) -> Option<Self> {
        if text.contains(':') { Self::to_open(text) } else { Self::to_open(&format!("*:{text}")) }
    }

    fn has(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(list: &[&str]) -> Permits {
        let open = Some(list.iter().map(|text| HostPort::to_open(text).unwrap()).collect());
        Permits { open, ..Permits::all() }
    }

    fn listening(list: &[&str]) -> Permits {
        let listen = Some(list.iter().map(|text| HostPort::to_listen(text).unwrap()).collect());
        Permits { listen, ..Permits::all() }
    }

    #[test]
    fn without_a_list_every_place_is_allowed_and_without_forwarding_none() {
        let all = Permits::all();
        assert!(all.may_open("a", 1) && all.may_listen("", 0));
        assert!(all.may_open_sockets() && all.may_listen_on_sockets());
        let none = Permits { forwarding: false, ..all };
        assert!(!none.may_open("a", 1) && !none.may_listen("a", 1));
        assert!(!none.may_open_sockets() && !none.may_listen_on_sockets());
    }

    #[test]
    fn hosts_to_open_are_literal() {
        let permits = opening(&["192.0.2.1:80", "[::1]:22000", "node:*", "*:443"]);
        assert!(permits.may_open("192.0.2.1", 80) && !permits.may_open("192.0.2.1", 81));
        assert!(permits.may_open("::1", 22000) && !permits.may_open("[::1]", 22000));
        assert!(permits.may_open("node", 1) && !permits.may_open("Node", 1));
        assert!(permits.may_open("anything", 443));
        assert!(!permits.may_open_sockets() && permits.may_listen_on_sockets());
        assert!(!opening(&["192.0.2.*:80"]).may_open("192.0.2.1", 80));
        assert!(!opening(&[]).may_open("a", 1));
    }

    #[test]
    fn hosts_to_listen_at_may_be_patterns_or_missing() {
        let permits = listening(&["localhost:8080", "[::1]:22000", "9000", "*.example:*"]);
        assert!(permits.may_listen("localhost", 8080) && !permits.may_listen("127.0.0.1", 8080));
        assert!(permits.may_listen("LOCALHOST", 8080));
        assert!(permits.may_listen("::1", 22000) && permits.may_listen("", 9000));
        assert!(permits.may_listen("a.example", 5) && !permits.may_listen("example", 5));
        assert!(!permits.may_listen("localhost", 0), "any port is not the one that is allowed");
        assert!(!permits.may_listen_on_sockets() && permits.may_open_sockets());
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        for text in [
            "", "a", ":1", "a:", "a:0", "a:65536", "a:-1", "a:+1", "a:1:2", "[::1]", "[::1]1", "::1:1",
            "a b:1",
        ] {
            assert_eq!(HostPort::to_open(text), None, "{text:?}");
        }
        for text in ["", "*:", "0", "a", "-1"] {
            assert_eq!(HostPort::to_listen(text), None, "{text:?}");
        }
        assert_eq!(HostPort::to_listen("*"), HostPort::to_listen("*:*"));
    }
}
