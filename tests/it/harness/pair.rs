//! Two networks with a cable between them, apart from the machine's own.
//!
//! ```text
//!   node 198.51.100.2 ──── veth ──── 198.51.100.1 world
//! ```

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    User, place,
    place::place,
    program::{Output, Running},
    seconds, sh,
};

/// The world's address.
pub(crate) const WORLD: &str = "198.51.100.1";
/// The node's.
pub(crate) const NODE: &str = "198.51.100.2";

/// The two networks. They are gone when this is dropped.
pub(crate) struct Pair {
    node: String,
    world: String,
}

impl Pair {
    /// Makes them.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let prefix =
            format!("{}{}-{}", place::USER_PREFIX, std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // first of all, so that what was made is removed where the rest cannot be
        let pair = Self { node: format!("{prefix}n"), world: format!("{prefix}w") };
        for name in [pair.node(), pair.world()] {
            sh(&["ip", "netns", "add", name]);
            sh(&["ip", "-n", name, "link", "set", "lo", "up"]);
        }
        let (node, world) = (pair.node(), pair.world());
        sh(&[
            "ip", "-n", node, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", world,
        ]);
        for (name, address) in [(node, NODE), (world, WORLD)] {
            sh(&["ip", "-n", name, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
            sh(&["ip", "-n", name, "link", "set", "eth0", "up"]);
        }
        pair
    }

    /// The name of the node's network.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// The name of the world's.
    pub(crate) fn world(&self) -> &str {
        &self.world
    }

    /// A command that `user` runs on the node.
    pub(crate) fn on_node(&self, user: &User, words: &[&str]) -> Command {
        as_user(&self.node, user, words)
    }

    /// A command that `user` runs out in the world.
    pub(crate) fn in_world(&self, user: &User, words: &[&str]) -> Command {
        as_user(&self.world, user, words)
    }

    /// Runs the program under test on the node.
    pub(crate) fn shlogin(&self, user: &User, args: &[&str]) -> Output {
        let program = place().program().display().to_string();
        let words: Vec<_> = std::iter::once(program.as_str()).chain(args.iter().copied()).collect();
        Running::spawn(self.on_node(user, &words)).finish(seconds(90))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        erase(&self.node);
        erase(&self.world);
    }
}

fn as_user(within: &str, user: &User, words: &[&str]) -> Command {
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

/// Removes a network by its name.
pub(crate) fn erase(name: &str) {
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
    let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(name));
}
