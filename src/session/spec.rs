//! All that a supervisor is told: it exists only if it can be launched.

use std::{ffi::OsString, io, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{BatchSpec, Record};
use crate::{
    config::{
        AccessLog, Ssh,
        paths::{Durability, PrivateFolder},
    },
    host::{AppSpec, Link, LocalHost, Target},
    link,
    sandbox::SandboxSpec,
    words::{Isolation, SessionId, SessionName, TmpMode},
};

/// A session, fully described. Written to an anonymous file that only the supervisor gets.
#[derive(Serialize, Deserialize)]
pub struct SessionSpec {
    /// What is known of it already; the supervisor keeps it up to date.
    pub record: Record,
    /// What it does.
    pub work: Work,
    /// Bytes of log that are kept.
    pub max_log: u64,
    /// The folder of records.
    pub state: PathBuf,
    /// The gateway.
    pub gateway: GatewaySpec,
    /// The ssh server.
    pub ssh: Ssh,
    /// The Slurm job in which it is to run; here, without.
    pub batch: Option<BatchSpec>,
}

/// What of a session is kept while it lives, for another gateway to take over.
const SAVED: &str = "session.json";

impl SessionSpec {
    /// Keeps it in the session's folder of records: all but the environment in which it was started, which may hold secrets of
    /// the person's, and which whoever takes over has of her own.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn save_in(&self, folder: &PrivateFolder) -> io::Result<()> {
        let mut text = serde_json::to_value(self)?;
        if let Some(env) = text.pointer_mut("/work/app/env") {
            *env = serde_json::Value::Array(Vec::new());
        }
        folder.write(SAVED, &serde_json::to_vec(&text)?, Durability::Lasting).map_err(io::Error::other)
    }

    /// Removes it.
    ///
    /// # Errors
    /// As `unlink(2)`; one that is not there is no error.
    fn remove_from(folder: &PrivateFolder) -> io::Result<()> {
        match std::fs::remove_file(folder.path().join(SAVED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// One that was kept, with this process's environment.
    ///
    /// # Errors
    /// Where there is none, or one of another version.
    pub fn saved_in(folder: &PrivateFolder) -> io::Result<Self> {
        let text = folder.read(SAVED).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
        let mut spec: Self = serde_json::from_slice(&text)?;
        spec.work.app.env = std::env::vars_os().collect();
        Ok(spec)
    }
}

/// Removes what another gateway of a session in a job would need, from its folder of records: nobody takes over one that has ended.
///
/// # Errors
/// As `unlink(2)`; what is not there is no error.
pub fn forget_secrets(folder: &PrivateFolder) -> io::Result<()> {
    link::remove_keys(folder).and(SessionSpec::remove_from(folder))
}

/// What a session does, on whichever machine: its sandbox and its app.
#[derive(Clone, Serialize, Deserialize)]
pub struct Work {
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
    /// The person's login shell.
    pub login_shell: PathBuf,
}

impl Work {
    /// The host of its sandbox, over a link to its init.
    pub fn host(&self, link: Link, id: SessionId, name: &SessionName, base_url: &str) -> LocalHost {
        let env = self.session_env(id, name, base_url);
        let login_shell = self.login_shell.clone().into_os_string();
        LocalHost::new(link, &self.sandbox, self.app.clone(), env, login_shell)
    }

    /// Which port is the app's.
    pub fn target(&self) -> Target {
        match (self.sandbox.isolation, self.port) {
            (Isolation::Socket, _) => Target::Socket(self.app_socket()),
            (_, Some(port)) => Target::Port(port),
            (_, None) => Target::Found,
        }
    }

    /// Where an app without namespaces is to listen.
    pub fn app_socket(&self) -> PathBuf {
        self.sandbox.footprint.session.join("app")
    }

    /// What every app is told. None of it is secret: an app's environment is its owner's to read.
    fn session_env(&self, id: SessionId, name: &SessionName, base_url: &str) -> Vec<(OsString, OsString)> {
        let mut env = vec![
            ("SHLOGIN_SESSION".into(), id.to_string().into()),
            ("SHLOGIN_NAME".into(), name.to_string().into()),
            ("SHLOGIN_URL".into(), base_url.into()),
            ("SHLOGIN_BASE_PATH".into(), "/".into()),
        ];
        if let Some(port) = self.port {
            env.push(("SHLOGIN_PORT".into(), port.to_string().into()));
        }
        if self.sandbox.tmp == TmpMode::Shared || self.sandbox.isolation == Isolation::Socket {
            // tmux finds its server by a socket there: with the node's own /tmp, that is the node's server.
            env.push(("SHLOGIN_TMUX_SOCKET".into(), format!("shlogin-{id}").into()));
        }
        if self.sandbox.isolation == Isolation::Socket {
            env.push(("SHLOGIN_SOCKET".into(), self.app_socket().into()));
        }
        env
    }
}

/// The gateway of a session.
#[derive(Serialize, Deserialize)]
pub struct GatewaySpec {
    /// The folder of this user's keys on this node: certificate and ssh host key.
    pub keys: PathBuf,
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
