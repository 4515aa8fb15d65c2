//! A small internet: a node with a way out, and a world with a name server and a web server, each in a network of its own.
//!
//! ```text
//!   node 198.51.100.2 ──── veth ──── 198.51.100.1 world
//!   programs under test              dnsmasq :53, a web server :80, a neighbour's eyes
//! ```

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    User, place,
    place::place,
    program::{Output, Running},
    seconds, sh, until,
};

/// A name that only the world's name server knows.
pub(crate) const NAME: &str = "mirror.example";
/// What the web server there says.
pub(crate) const SAYS: &str = "greetings from the world";
/// The world's address.
pub(crate) const WORLD: &str = "198.51.100.1";
/// The node's.
pub(crate) const METADATA: &str = "169.254.169.254";
pub(crate) const NODE: &str = "198.51.100.2";

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
    node: String,
    world: String,
    servers: Vec<Child>,
}

impl Internet {
    /// Makes them.
    pub(crate) fn new(resolver: Resolver) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let prefix =
            format!("{}{}-{}", place::USER_PREFIX, std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (node, world) = (format!("{prefix}n"), format!("{prefix}w"));
        let mut internet = Self { node: node.clone(), world: world.clone(), servers: Vec::new() };
        for name in [&node, &world] {
            sh(&["ip", "netns", "add", name]);
            sh(&["ip", "-n", name, "link", "set", "lo", "up"]);
        }
        sh(&[
            "ip", "-n", &node, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &world,
        ]);
        for (name, address) in [(&node, NODE), (&world, WORLD)] {
            sh(&["ip", "-n", name, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
            sh(&["ip", "-n", name, "link", "set", "eth0", "up"]);
        }
        sh(&["ip", "-n", &node, "route", "add", "default", "via", WORLD]);
        // As cloud providers have it: whoever can reach it gets the machine's credentials.
        sh(&["ip", "-n", &world, "address", "add", &format!("{METADATA}/32"), "dev", "eth0"]);

        let pages = place().root().join(format!("{prefix}-pages"));
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

    /// A command that `user` runs on the node.
    pub(crate) fn on_node(&self, user: &User, words: &[&str]) -> Command {
        self.as_user(&self.node, user, words)
    }

    /// A command that `user` runs out in the world.
    pub(crate) fn in_world(&self, user: &User, words: &[&str]) -> Command {
        self.as_user(&self.world, user, words)
    }

    fn as_user(&self, within: &str, user: &User, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            within,
            "setpriv",
            "--reuid",
            &user.uid.to_string(),
            "--regid",
            &user.gid.to_string(),
        ]);
        command.args(["--clear-groups", "--"]).args(words);
        command.current_dir(&user.home).env_clear().envs(user.environment()).stdin(Stdio::null());
        // for `ip`; setpriv's own program is found in the user's PATH
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command
    }

    /// Runs the program under test on the node.
    pub(crate) fn shlogin(&self, user: &User, args: &[&str]) -> Output {
        let program = place().program().display().to_string();
        let words: Vec<_> = std::iter::once(program.as_str()).chain(args.iter().copied()).collect();
        Running::spawn(self.on_node(user, &words)).finish(seconds(90))
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        erase(&self.node);
        erase(&self.world);
    }
}

/// Removes a network by its name.
pub(crate) fn erase(name: &str) {
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
    let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(name));
}
