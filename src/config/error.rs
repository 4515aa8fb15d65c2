//! Why a configuration can't be used. Each names the file and line, the variable or the layer that is at fault.

use std::path::PathBuf;

use super::layers::Origin;
use crate::words::{Isolation, Network};

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is there and can't be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else could have written a file.
    #[error("{} is not trusted: {reason}; remedy: {remedy}", file.display())]
    Untrusted {
        /// The file, or the folder it is in.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The command that mends it.
        remedy: String,
    },
    /// What stands in a file is not TOML, no key, or no value for its key.
    #[error("{}:{line}: {message}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A variable has a value that is none.
    #[error("{name}: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A user's layer differs from what the administrator has locked.
    #[error("{} = {} ({}) is not possible: {} locks {} at {}", .0.key, .0.wanted, .0.origin, .0.by.display(), .0.key, .0.value)]
    Locked(Box<Locked>),
    /// A layer other than the administrator's file has a `locked`.
    #[error("locked ({0}) can only stand in the administrator's file")]
    LockElsewhere(Origin),
    /// The ports of the pods don't exist.
    #[error(
        "pods.base = {base}, pods.width = {width}, pods.count = {count} ({origin}): the ports have to lie between 1024 \
         and 65535, at least two to a pod"
    )]
    Pods {
        /// `pods.base`.
        base: u16,
        /// `pods.width`.
        width: u16,
        /// `pods.count`.
        count: u16,
        /// The strongest layer that said one of them.
        origin: Origin,
    },
    /// One of certificate and key is given, the other is not.
    #[error(
        "gateway.certificate and gateway.key belong together: {missing} is none ({origin} gives the other)"
    )]
    HalfCertificate {
        /// The key that is missing.
        missing: &'static str,
        /// The layer that gives the other.
        origin: Origin,
    },
    /// A network that the isolation can't give.
    #[error(
        "network = {network} ({network_origin}) is not possible with isolation = {isolation} ({isolation_origin}): {why}"
    )]
    Network {
        /// `network`.
        network: Network,
        /// Who says so.
        network_origin: Origin,
        /// `isolation`.
        isolation: Isolation,
        /// Who says so.
        isolation_origin: Origin,
        /// What would be possible.
        why: &'static str,
    },
    /// The layers fit, and don't make a whole: the embedded default lacks a key.
    #[error("the embedded default is incomplete: {0}")]
    Incomplete(#[from] toml::de::Error),
    /// A value can't be written as TOML.
    #[error("a setting cannot be written as TOML: {0}")]
    Unwritable(#[from] toml::ser::Error),
}

/// A setting that differs from what the administrator has locked.
#[derive(Debug)]
pub struct Locked {
    /// The key.
    pub key: String,
    /// What a user's layer says.
    pub wanted: String,
    /// That layer.
    pub origin: Origin,
    /// What holds.
    pub value: String,
    /// The administrator's file.
    pub by: PathBuf,
}
