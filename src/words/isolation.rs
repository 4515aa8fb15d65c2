//! What a person chooses of a session's surroundings: how it is fenced, what it may reach, and what starts it.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the app's port is kept from everybody else on the node. There is no third way, and no fallback between these.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// User, network, PID, mount and IPC namespaces of the session's own.
    #[default]
    Namespace,
    /// No namespaces: the app listens on a unix socket in a folder only its owner can enter.
    Socket,
}

/// What a session may reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Only its own loopback.
    Isolated,
    /// What the node reaches, but not the node's own loopback; nothing comes in.
    #[default]
    Outbound,
    /// The node's own network; only with --isolation socket, which has no network of its own to offer.
    Host,
}

/// Where the session's `/tmp` and `/var/tmp` are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TmpMode {
    /// A folder of the session's own on disk, removed with it.
    #[default]
    Private,
    /// The node's.
    Shared,
}

/// What starts the app.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Apptainer, in an instance.
    Apptainer,
    /// SingularityCE: the same verbs under another name.
    Singularity,
    /// No image: the node's own filesystem.
    Bare,
}

macro_rules! display_as_value {
    ($($type:ty),*) => {$(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let value = self.to_possible_value();
                f.write_str(value.as_ref().map_or("", |v| v.get_name()))
            }
        }
    )*};
}
display_as_value!(Isolation, Network, TmpMode, RuntimeKind);
