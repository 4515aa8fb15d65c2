//! What a person and a site have settled beforehand, and the folders that belong to a user.
//!
//! Layers: flags > `SHLOGIN_*` > the user's file > the administrator's file > `default.toml`, which is part of the
//! program and documents every key. What holds is a [`Config`], which has no options left: whoever uses it need not know
//! of layers. The administrator can lock keys; a layer above that differs is refused, never overruled in silence.

#![forbid(unsafe_code)]

mod amounts;
mod attach_word;
mod error;
mod file;
mod host;
mod idle;
mod job_option;
mod layers;
mod partial;
pub mod paths;
mod programs;
mod slurm;
mod template;
mod values;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

pub use amounts::{ByteSize, TimeSpan};
pub use attach_word::AttachWord;
pub use error::{ConfigError, Locked};
pub use host::{host_name, link_hosts, node_name};
pub use idle::IdleTimeout;
pub use job_option::{JobOption, JobOptionError, REFUSED, RefusedOption, refusal};
pub use layers::{DEFAULT, Entry, Origin, Resolved, SITE_FILE, Sources};
pub use partial::{
    Partial, PartialApp, PartialGateway, PartialImages, PartialOutbound, PartialPods, PartialRecords,
    PartialSsh,
};
pub use programs::{find_program, find_program_of_root_in};
pub use slurm::{
    Allocation, AppPattern, JobOptions, Munge, PartialJobOptions, PartialSlurm, PartitionName, Slurm,
};
pub use template::{TEMPLATE_NAME, TemplateText};
pub use values::{
    AbsolutePath, AccessLog, FileChoice, HostChoice, HostName, InvalidValue, Listen, OutboundHelper,
    PamService, PathChoice, RuntimeChoice, Variable,
};

use crate::words::{Isolation, Network, PodRange, TmpMode};

/// The layer of a command's flags.
pub type Overrides = Partial;

/// Every setting, with what holds for it. `default.toml` says what each means.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How the app is kept from everybody else on the node. Agrees with `network`.
    pub isolation: Isolation,
    /// What the app may reach. Agrees with `isolation`.
    pub network: Network,
    /// Where the app's `/tmp` is.
    pub tmp: TmpMode,
    /// What starts the app.
    pub runtime: RuntimeChoice,
    /// How long an app has until it answers.
    pub ready_timeout: TimeSpan,
    /// How long an app has between SIGTERM and SIGKILL.
    pub stop_grace: TimeSpan,
    /// How long nobody may use a session before it ends.
    pub idle_timeout: IdleTimeout,
    /// The folder for private `/tmp` and for what the runtime writes.
    pub scratch: AbsolutePath,
    /// Which pods this node has.
    #[serde(deserialize_with = "pods")]
    pub pods: PodRange,
    /// The HTTPS listener.
    pub gateway: Gateway,
    /// The ssh server.
    pub ssh: Ssh,
    /// What stays of a session.
    pub records: Records,
    /// The way out.
    pub outbound: Outbound,
    /// The programs that run images.
    pub images: Images,
    /// What every app gets.
    pub app: App,
    /// How sessions get into jobs.
    pub slurm: Slurm,
}

/// The HTTPS listener in front of the app.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Where it listens.
    pub listen: Listen,
    /// This host's name in URLs; [`Gateway::host_name`] is the name itself.
    pub host: HostChoice,
    /// Other names that a request may be for.
    pub names: Vec<HostName>,
    /// The certificate's file; [`Gateway::certificate`] has both.
    pub certificate: FileChoice,
    /// Its key's file.
    pub key: FileChoice,
    /// The file of the OCSP response that goes with it.
    pub ocsp: FileChoice,
    /// How long a URL's token can be used.
    pub token_lifetime: TimeSpan,
    /// How long a browser stays signed in.
    pub cookie_lifetime: TimeSpan,
    /// Whether a sign-in holds only for the address it was made from.
    pub bind_cookie_to_address: bool,
    /// How it writes down who asked for what.
    pub access_log: AccessLog,
    /// Whether it tells browsers how long the app took to answer.
    pub server_timing: bool,
}

/// The ssh server on a session's first port.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// Whether there is one.
    pub enabled: bool,
    /// Whether the owner's password opens it.
    pub password: bool,
    /// By which rules a password is checked.
    pub pam_service: PamService,
    /// How long somebody has to prove to be the owner.
    pub login_grace: TimeSpan,
}

/// What stays of a session that has ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// How long it stays.
    pub max_age: TimeSpan,
    /// How much of its log.
    pub max_log: ByteSize,
}

/// What brings packets out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    /// The program.
    pub helper: OutboundHelper,
}

/// The programs that run images.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// Apptainer.
    pub apptainer: PathChoice,
    /// SingularityCE.
    pub singularity: PathChoice,
}

/// What every app gets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Folders of the node that an image gets to see, as the runtime's `--bind` has them.
    pub bind: Vec<String>,
    /// Variables.
    pub env: Vec<Variable>,
}

impl Config {
    /// Reads the layers of this process and puts `flags` on top.
    ///
    /// # Errors
    /// The first thing that is wrong with any layer, or between them.
    pub fn load(flags: &Overrides) -> Result<Resolved, ConfigError> {
        Sources::of_this_process().resolve(flags)
    }
}

impl Gateway {
    /// The certificate's and its key's file; `None` where it is to be self-signed.
    pub fn certificate(&self) -> Option<(&Path, &Path)> {
        self.certificate.path().zip(self.key.path())
    }

    /// This host's name in URLs.
    pub fn host_name(&self) -> HostName {
        match &self.host {
            HostChoice::Named(name) => name.clone(),
            HostChoice::Auto => host_name(),
        }
    }
}

fn pods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PodRange, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pods {
        base: u16,
        width: u16,
        count: u16,
    }
    let Pods { base, width, count } = Pods::deserialize(deserializer)?;
    PodRange::new(base, width, count).ok_or_else(|| serde::de::Error::custom("no such ports"))
}
