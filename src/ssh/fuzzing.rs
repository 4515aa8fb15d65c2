//! What the fuzz target needs to see of the inside. Compiled for it alone (`cfg(fuzzing)`, which `cargo fuzz` sets).

use std::{net::IpAddr, time::SystemTime};

use super::{
    authorized_keys::{self, Entry},
    options,
    source::{Addresses, Source},
};

/// A line of `authorized_keys` that can be used.
pub struct Line(Entry);

/// Reads a line; `None` where it has no key or can't be used.
pub fn line(text: &[u8]) -> Option<Line> {
    authorized_keys::parse(text).ok().flatten().map(Line)
}

/// Whether a variable may not be set by a line.
pub fn chooses_code(name: &str) -> bool {
    options::chooses_code(name)
}

/// Whether a `from=` lets an address in; `None` where it is no list.
pub fn have(list: &str, address: IpAddr) -> Option<bool> {
    Addresses::patterns(list).ok().map(|list| list.have(&Source::new(Some(address))))
}

impl Line {
    /// The key, as it stands in a file.
    pub fn key(&self) -> String {
        let key = russh::keys::PublicKey::from(self.0.key.clone());
        key.to_openssh().unwrap_or_default()
    }

    /// Whether it has no options.
    pub fn is_bare(&self) -> bool {
        self.0.options == options::Options::none()
    }

    /// Whether it may be used from an address at a time.
    pub fn counts(&self, address: Option<IpAddr>, now: SystemTime) -> bool {
        self.0.options.allow_now(&Source::new(address), now).is_ok()
    }

    /// Whether it permits a terminal, an agent, and forwarding.
    pub fn permits(&self) -> [bool; 3] {
        let permits = &self.0.options.permits;
        [permits.pty, permits.agent, permits.forwarding]
    }

    /// Whether it permits connections to a place, and waiting at one.
    pub fn may(&self, host: &str, port: u16) -> [bool; 2] {
        let permits = &self.0.options.permits;
        [permits.may_open(host, port), permits.may_listen(host, port)]
    }

    /// The names of the variables it sets.
    pub fn variables(&self) -> Vec<String> {
        let names = self.0.options.permits.environment.iter();
        names.map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    }

    /// Whether it forces a command.
    pub fn forces(&self) -> bool {
        self.0.options.permits.command.is_some()
    }
}
