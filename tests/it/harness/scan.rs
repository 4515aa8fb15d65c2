//! Another user's eyes and hands: this binary, run again as that user, tries everything and says what it got.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{ifaddrs::getifaddrs, unistd::Pid};
use serde::{Deserialize, Serialize};

use super::{User, http::Gate, interfaces::still, place::place, program::Running, seconds};

/// The word in `argv[1]` for this role.
pub(crate) const ROLE: &str = "@scan";

/// What to try.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Targets {
    /// What the app answers with: wherever this is read, the attack got through.
    pub(crate) mark: String,
    /// Processes of the session.
    pub(crate) pids: Vec<i32>,
    /// Files and folders of the session.
    pub(crate) paths: Vec<PathBuf>,
    /// Only these ports; all where empty.
    pub(crate) ports: Vec<u16>,
}

/// What it got.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// The addresses that were tried.
    pub(crate) addresses: Vec<IpAddr>,
    /// How many connections were tried.
    pub(crate) tried: usize,
    /// Where somebody answered the call.
    pub(crate) open: Vec<SocketAddr>,
    /// Where the app's mark was read.
    pub(crate) reached: Vec<String>,
    /// Abstract sockets that are seen.
    pub(crate) abstract_sockets: Vec<String>,
    /// Of the processes, what could be opened or read.
    pub(crate) processes: Vec<String>,
    /// Of the files, what could be opened or listed.
    pub(crate) files: Vec<String>,
}

impl User {
    /// Tries everything as this user.
    pub(crate) fn scan(&self, targets: &Targets) -> Findings {
        let mut command = self.command(place().myself());
        command.arg(ROLE).arg(serde_json::to_string(targets).unwrap());
        let _still = still();
        let output = Running::spawn(command).finish(seconds(300)).ok();
        serde_json::from_str(&output.stdout).unwrap()
    }
}

/// All of a session's processes, as targets.
pub(crate) fn pids_of(user: &User) -> Vec<i32> {
    user.processes().iter().map(|process| process.pid).map(Pid::as_raw).collect()
}

/// The role: tries, and prints the findings.
pub(crate) fn run(targets: &str) {
    let targets: Targets = serde_json::from_str(targets).unwrap();
    let mut findings = Findings {
        addresses: Vec::new(),
        tried: 0,
        open: Vec::new(),
        reached: Vec::new(),
        abstract_sockets: Vec::new(),
        processes: Vec::new(),
        files: Vec::new(),
    };
    findings.ports(&targets);
    findings.sockets(&targets);
    for pid in &targets.pids {
        findings.process(*pid);
    }
    for path in &targets.paths {
        findings.path(path);
    }
    println!("{}", serde_json::to_string(&findings).unwrap());
}

impl Findings {
    fn ports(&mut self, targets: &Targets) {
        let every: Vec<u16> = (1..=65535).collect();
        let ports = if targets.ports.is_empty() { &every } else { &targets.ports };
        for base in addresses() {
            self.addresses.push(base.ip());
            for &port in ports {
                let mut address = base;
                address.set_port(port);
                self.tried += 1;
                // on this node, a port is open or refused at once
                let Ok(mut wire) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) else {
                    continue;
                };
                self.open.push(address);
                let _ = wire.set_read_timeout(Some(Duration::from_millis(500)));
                let _ = wire.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
                self.note(&targets.mark, &format!("http {address}"), &read_some(&mut wire));
                if let Ok(mut wire) = Gate::at(address, &format!("https://localhost:{port}/")).connect() {
                    let _ = wire.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
                    self.note(&targets.mark, &format!("https {address}"), &read_some(&mut wire));
                }
            }
        }
    }

    fn note(&mut self, mark: &str, what: &str, got: &[u8]) {
        if !mark.is_empty() && got.windows(mark.len()).any(|part| part == mark.as_bytes()) {
            self.reached.push(what.to_owned());
        }
    }

    fn sockets(&mut self, targets: &Targets) {
        let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        for name in table.lines().filter_map(|line| line.split_whitespace().nth(7)) {
            let wire = match name.strip_prefix('@') {
                Some(hidden) => {
                    self.abstract_sockets.push(hidden.to_owned());
                    UnixAddress::from_abstract_name(hidden)
                        .and_then(|address| UnixStream::connect_addr(&address))
                }
                None => UnixStream::connect(name),
            };
            if let Ok(mut wire) = wire {
                let _ = wire.set_read_timeout(Some(Duration::from_millis(300)));
                self.note(&targets.mark, name, &read_some(&mut wire));
            }
        }
    }

    fn process(&mut self, pid: i32) {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        for name in ["environ", "mem", "maps", "auxv", "syscall", "stack", "io", "pagemap", "clear_refs"] {
            let path = folder.join(name);
            let got = File::open(&path).and_then(|mut file| file.read(&mut [0; 64]));
            if got.is_ok_and(|count| count > 0) {
                self.processes.push(path.display().to_string());
            }
        }
        for name in ["fd", "root", "cwd", "map_files", "fdinfo"] {
            let path = folder.join(name);
            if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
                self.processes.push(path.display().to_string());
            }
        }
        for name in ["exe", "cwd", "root", "ns/net", "ns/mnt", "ns/user", "ns/pid", "ns/ipc"] {
            let path = folder.join(name);
            if fs::read_link(&path).is_ok() || File::open(&path).is_ok() {
                self.processes.push(path.display().to_string());
            }
        }
        for fd in 0..64 {
            let path = folder.join(format!("fd/{fd}"));
            if fs::read_link(&path).is_ok() || File::open(&path).is_ok() {
                self.processes.push(path.display().to_string());
            }
        }
        if nix::sys::signal::kill(Pid::from_raw(pid), None).is_ok() {
            self.processes.push(format!("signal {pid}"));
        }
    }

    fn path(&mut self, path: &Path) {
        if fs::read_dir(path).is_ok() || File::open(path).is_ok() || UnixStream::connect(path).is_ok() {
            self.files.push(path.display().to_string());
        }
    }
}

fn read_some(wire: &mut impl Read) -> Vec<u8> {
    let mut got = vec![0; 4096];
    let count = wire.read(&mut got).unwrap_or_default();
    got.truncate(count);
    got
}

/// Every address of the node, and both loopbacks.
fn addresses() -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = getifaddrs()
        .unwrap()
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            address.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), 0)).or_else(|| {
                address.as_sockaddr_in6().map(|v6| SocketAddrV6::new(v6.ip(), 0, 0, v6.scope_id()).into())
            })
        })
        .collect();
    found.sort();
    found.dedup();
    found
}
