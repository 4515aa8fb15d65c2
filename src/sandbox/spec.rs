//! What a sandbox is to be: all that keeper and init are told, and nothing secret.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Footprint;
use crate::words::{Isolation, Network, TmpMode};

/// A sandbox, described.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// With namespaces, or without.
    pub isolation: Isolation,
    /// What it may reach.
    pub network: Network,
    /// Whose `/tmp` it sees.
    pub tmp: TmpMode,
    /// What it leaves on the node while it lives.
    pub footprint: Footprint,
    /// The folder that is covered, inside, by the session's [`Footprint::room`]: the runtime folder with its sockets.
    pub cover: PathBuf,
    /// Paths that must stay visible inside although they lie below a private `/tmp`: image, binds, home, working folder.
    pub keep: Vec<PathBuf>,
    /// Name servers of the node that listen on its loopback, which is out of reach inside: init listens at the same
    /// addresses there, for the supervisor to pass the questions on.
    pub resolvers: Vec<IpAddr>,
    /// The program that gives [`Network::Outbound`].
    pub helper: Option<NetworkHelper>,
}

/// A program that connects a network namespace to the node's network without privileges.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkHelper {
    /// Which one.
    pub kind: HelperKind,
    /// Where it is.
    pub program: PathBuf,
}

/// The helpers known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HelperKind {
    /// pasta, of the passt package.
    Pasta,
    /// slirp4netns.
    Slirp4netns,
}
