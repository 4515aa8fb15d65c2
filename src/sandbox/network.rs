//! The way out of a sandbox: pasta or slirp4netns, run by the keeper, held until it says that the network stands.

use std::{
    fs::File,
    io::{self, Read, Seek},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{fcntl::OFlag, unistd::pipe2};

use super::{HelperKind, NetworkHelper, protocol::Demise};
use crate::sys::{
    descriptor::anonymous_file,
    netlink::{self, Prefix},
    spawn,
};

const READY_WITHIN: Duration = Duration::from_secs(15);

/// What must not be reached through the helper: the addresses at which cloud providers give the whole machine's
/// credentials to whoever asks, and loopback, which the helper would take for the node's.
const KEPT_LOCAL: [Prefix; 6] = [
    Prefix { address: IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), bits: 32 },
    Prefix { address: IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)), bits: 32 },
    Prefix { address: IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), bits: 32 },
    Prefix { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), bits: 128 },
    Prefix { address: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
];

/// Closes those ways in the current network namespace, when its helper's device is there and before the app is.
pub(super) fn close_ways() -> io::Result<()> {
    // Asked of the namespace, for /proc may be gone: a kernel without IPv6 has no such ways to close.
    let ipv6 = std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    for device in netlink::devices()? {
        for prefix in KEPT_LOCAL.iter().filter(|prefix| ipv6 || prefix.address.is_ipv4()) {
            netlink::keep_local(*prefix, device)?;
        }
    }
    Ok(())
}

/// Starts the helper for the namespaces of process `init` and waits until the network stands. The helper is killed when
/// this process dies.
pub(super) fn start(helper: &NetworkHelper, init: i32) -> Result<Child, Demise> {
    let failed = |detail: String| Demise::NoNetwork { program: helper.program.display().to_string(), detail };
    let told = |error: io::Error| failed(error.to_string());
    let words = File::from(anonymous_file("shlogin-helper", b"").map_err(told)?);
    let (ready, write_end) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| told(errno.into()))?;
    let mut command = match helper.kind {
        HelperKind::Pasta => pasta(helper, init),
        HelperKind::Slirp4netns => slirp4netns(helper, init),
    };
    // Its standard output is the pipe: pasta writes its PID there, slirp4netns a `1`, when all is set up. Its standard
    // input is one that the keeper holds and never writes to.
    command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(write_end);
    command.stderr(words.try_clone().map_err(told)?);
    let mut child = spawn::helper(command).map_err(told)?;
    match wait_ready(&ready) {
        Ok(()) => Ok(child),
        Err(error) => {
            // It has failed, or it is to: either way it must not linger.
            let _ = child.kill();
            let _ = child.wait();
            Err(failed(last_words(words).unwrap_or_else(|| error.to_string())))
        }
    }
}

fn pasta(helper: &NetworkHelper, init: i32) -> Command {
    let mut command = Command::new(&helper.program);
    // -t/-u none: nothing comes in. -T/-U none: the node's loopback ports do not show inside. --no-map-gw: nor do they
    // under the gateway's address.
    command.args([
        "-f",
        "-q",
        "-t",
        "none",
        "-u",
        "none",
        "-T",
        "none",
        "-U",
        "none",
        "--no-map-gw",
        "--config-net",
    ]);
    command.args(["--pid", "/proc/self/fd/1"]);
    command.arg("--userns").arg(format!("/proc/{init}/ns/user"));
    command.arg("--netns").arg(format!("/proc/{init}/ns/net"));
    command
}

fn slirp4netns(helper: &NetworkHelper, init: i32) -> Command {
    let mut command = Command::new(&helper.program);
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=1", "--exit-fd=0"]);
    command.arg(format!("--userns-path=/proc/{init}/ns/user")).arg(init.to_string()).arg("tap0");
    command
}

fn wait_ready(pipe: &OwnedFd) -> io::Result<()> {
    super::protocol::wait_readable(pipe, READY_WITHIN)?;
    let mut first = [0];
    match nix::unistd::read(pipe, &mut first)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without a word")),
        _ => Ok(()),
    }
}

fn last_words(mut file: File) -> Option<String> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(64 * 1024).read_to_string(&mut text).ok()?;
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.contains("syslog"));
    lines.next_back().map(str::to_owned)
}
