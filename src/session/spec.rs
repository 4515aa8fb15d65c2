//! All that a supervisor is told: it exists only if it can be launched.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::Record;
use crate::{
    config::{AccessLog, Ssh},
    host::AppSpec,
    sandbox::SandboxSpec,
};

/// A session, fully described. Written to an anonymous file that only the supervisor gets.
#[derive(Serialize, Deserialize)]
pub struct SessionSpec {
    /// What is known of it already; the supervisor keeps it up to date.
    pub record: Record,
    /// Its folders and namespaces.
    pub sandbox: SandboxSpec,
    /// Its app.
    pub app: AppSpec,
    /// The app's port, where the person named it.
    pub port: Option<u16>,
    /// How long the app has until it answers.
    pub ready_timeout: Duration,
    /// How long it has between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// Bytes of log that are kept.
    pub max_log: u64,
    /// The folder of records.
    pub state: PathBuf,
    /// The gateway.
    pub gateway: GatewaySpec,
    /// The ssh server.
    pub ssh: Ssh,
    /// The person's login shell.
    pub login_shell: PathBuf,
}

/// The gateway of a session.
#[derive(Serialize, Deserialize)]
pub struct GatewaySpec {
    /// The name in URLs.
    pub host: String,
    /// All names that a request may be for.
    pub names: Vec<String>,
    /// Certificate and key, where the site has them; else a self-signed one is made once.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The OCSP response that goes with it.
    pub ocsp: Option<PathBuf>,
    /// How long a URL's token can be used.
    pub token_lifetime: Duration,
    /// How long a browser stays signed in.
    pub cookie_lifetime: Duration,
    /// Whether a sign-in holds only for the address it was made from.
    pub bind_cookie_to_address: bool,
    /// How it writes down who asked for what.
    pub access_log: AccessLog,
    /// Whether it tells browsers how long the app took.
    pub server_timing: bool,
}
