//! What one layer says, as it is written: every setting may be missing.

use serde::{Deserialize, Serialize};

use super::{
    amounts::{ByteSize, TimeSpan},
    idle::IdleTimeout,
    slurm::PartialSlurm,
    values::{
        AbsolutePath, AccessLog, FileChoice, HostChoice, HostName, Listen, OutboundHelper, PamService,
        PathChoice, RuntimeChoice, Variable,
    },
};
use crate::words::{Isolation, Network, TmpMode};

/// The settings of one layer. The flags of a command are one: the command line fills it in.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct Partial {
    /// What stronger layers may not change: keys, or whole tables. Heard in the administrator's file alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locked: Vec<String>,
    pub isolation: Option<Isolation>,
    pub network: Option<Network>,
    pub tmp: Option<TmpMode>,
    pub runtime: Option<RuntimeChoice>,
    pub ready_timeout: Option<TimeSpan>,
    pub stop_grace: Option<TimeSpan>,
    pub idle_timeout: Option<IdleTimeout>,
    pub scratch: Option<AbsolutePath>,
    pub pods: PartialPods,
    pub gateway: PartialGateway,
    pub ssh: PartialSsh,
    pub records: PartialRecords,
    pub outbound: PartialOutbound,
    pub images: PartialImages,
    pub app: PartialApp,
    pub slurm: PartialSlurm,
}

/// `[pods]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct PartialPods {
    pub base: Option<u16>,
    pub width: Option<u16>,
    pub count: Option<u16>,
}

/// `[gateway]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct PartialGateway {
    pub listen: Option<Listen>,
    pub host: Option<HostChoice>,
    pub names: Option<Vec<HostName>>,
    pub certificate: Option<FileChoice>,
    pub key: Option<FileChoice>,
    pub ocsp: Option<FileChoice>,
    pub token_lifetime: Option<TimeSpan>,
    pub cookie_lifetime: Option<TimeSpan>,
    pub bind_cookie_to_address: Option<bool>,
    pub access_log: Option<AccessLog>,
    pub server_timing: Option<bool>,
}

/// `[ssh]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct PartialSsh {
    pub enabled: Option<bool>,
    pub password: Option<bool>,
    pub pam_service: Option<PamService>,
    pub login_grace: Option<TimeSpan>,
}

/// `[records]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct PartialRecords {
    pub max_age: Option<TimeSpan>,
    pub max_log: Option<ByteSize>,
}

/// `[outbound]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct PartialOutbound {
    pub helper: Option<OutboundHelper>,
}

/// `[images]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct PartialImages {
    pub apptainer: Option<PathChoice>,
    pub singularity: Option<PathChoice>,
}

/// `[app]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml documents each key")]
pub struct PartialApp {
    pub bind: Option<Vec<String>>,
    pub env: Option<Vec<Variable>>,
}
