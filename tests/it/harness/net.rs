//! A small internet: a node with a way out, and a world with a name server and a web server, each in a network of its own.
//!
//! ```text
//!   node 198.51.100.2 ──── veth ──── 198.51.100.1 world
//!   programs under test              dnsmasq :53, a web server :80, a neighbour's eyes
//! ```

use std::{
    fs,
    ops::Deref,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

pub(crate) use super::pair::{NODE, WORLD};
use super::{pair::Pair, place::place, seconds, sh, until};

/// A name that only the world's name server knows.
pub(crate) const NAME: &str = "mirror.example";
/// What the web server there says.
pub(crate) const SAYS: &str = "greetings from the world";
/// What cloud providers answer at.
pub(crate) const METADATA: &str = "169.254.169.254";

/// How the node's `/etc/resolv.conf` is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolver {
    /// It names the world's name server.
    Direct,
    /// It names a forwarder on the node's own loopback, which asks the world's.
    Loopback,
}

/// The two networks, with their servers.
pub(crate) struct Internet {
    servers: Vec<Child>,
    /// Dropped after the servers have ended.
    pair: Pair,
}

impl Internet {
    /// Makes them.
    pub(crate) fn new(resolver: Resolver) -> Self {
        let mut internet = Self { servers: Vec::new(), pair: Pair::new() };
        let (node, world) = (internet.node().to_owned(), internet.world().to_owned());
        sh(&["ip", "-n", &node, "route", "add", "default", "via", WORLD]);
        // As cloud providers have it: whoever can reach it gets the machine's credentials.
        sh(&["ip", "-n", &world, "address", "add", &format!("{METADATA}/32"), "dev", "eth0"]);

        let pages = place().root().join(format!("{node}-pages"));
        fs::create_dir_all(&pages).unwrap();
        fs::write(pages.join("index.html"), SAYS).unwrap();
        let address = format!("--address=/{NAME}/{WORLD}");
        let dns = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
        ];
        internet.serve(&world, &[&dns[..], &[&address, "--listen-address", WORLD]].concat());
        internet
            .serve(&world, &["python3", "-m", "http.server", "80", "--directory", pages.to_str().unwrap()]);
        internet.wait_for_port(&world, WORLD, "53");
        internet.wait_for_port(&world, WORLD, "80");
        let nameserver = match resolver {
            Resolver::Direct => WORLD,
            Resolver::Loopback => {
                let upstream = format!("--server={WORLD}");
                internet.serve(&node, &[&dns[..], &[&upstream, "--listen-address", "127.0.0.53"]].concat());
                internet.wait_for_port(&node, "127.0.0.53", "53");
                "127.0.0.53"
            }
        };
        // `ip netns exec` shows this as /etc/resolv.conf
        let folder = PathBuf::from("/etc/netns").join(&node);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("resolv.conf"), format!("nameserver {nameserver}\n")).unwrap();
        internet
    }

    fn serve(&mut self, within: &str, words: &[&str]) {
        let child = Command::new("ip")
            .args(["netns", "exec", within])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.servers.push(child.unwrap());
    }

    fn wait_for_port(&self, within: &str, address: &str, port: &str) {
        let probe = format!("exec 3<>/dev/tcp/{address}/{port}");
        until(seconds(15), &format!("{address} port {port} answers"), || {
            let status = Command::new("ip")
                .args(["netns", "exec", within, "bash", "-c", &probe])
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success()).then_some(())
        });
    }
}

impl Deref for Internet {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
