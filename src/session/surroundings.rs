//! What a session needs of the machine that it runs on: the helper that gives it a network, name servers, folders.

use std::{
    ffi::OsString,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::{
    config::{OutboundHelper, find_program},
    host::Container,
    sandbox::{HelperKind, NetworkHelper},
    words::Network,
};

/// There is nothing here to give an app a network.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no pasta (package passt) and no slirp4netns here to give the app a network: have one installed, or \
     start with --network isolated"
)]
pub struct NoHelper;

/// The helper for a way out, where one is wanted.
///
/// # Errors
/// Where there is none: an app that was promised a network must not find out by itself that it has none.
pub fn helper(network: Network, choice: OutboundHelper) -> Result<Option<NetworkHelper>, NoHelper> {
    if network != Network::Outbound {
        return Ok(None);
    }
    let candidates: &[_] = match choice {
        OutboundHelper::Auto => &[(HelperKind::Pasta, "pasta"), (HelperKind::Slirp4netns, "slirp4netns")],
        OutboundHelper::Pasta => &[(HelperKind::Pasta, "pasta")],
        OutboundHelper::Slirp4netns => &[(HelperKind::Slirp4netns, "slirp4netns")],
    };
    let found = candidates
        .iter()
        .find_map(|(kind, name)| Some(NetworkHelper { kind: *kind, program: find_program(name)? }));
    found.map(Some).ok_or(NoHelper)
}

/// The machine's name servers that listen on its own loopback, such as 127.0.0.53. At most three count
/// (`resolv.conf(5)`).
pub fn loopback_resolvers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers =
        text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.take(3).filter(IpAddr::is_loopback).collect()
}

/// The real paths of these, those inside others after them, so that they are mounted on what is already there; what is
/// missing cannot be kept.
pub fn real_paths<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Vec<PathBuf> {
    let mut real: Vec<PathBuf> =
        paths.into_iter().filter_map(|path| path.as_ref().canonicalize().ok()).collect();
    real.sort();
    real.dedup();
    real
}

/// The runtime's option for the GPUs that the job has, unless its owner has chosen.
pub fn add_devices(container: &mut Container, env: &[(OsString, OsString)]) {
    let chosen = container.options.iter().any(|option| {
        let option = option.to_string_lossy();
        ["--nv", "--rocm", "--nvccli"].iter().any(|known| option.starts_with(known))
    });
    let has = |names: &[&str]| {
        env.iter().any(|(name, value)| names.iter().any(|its| name == its) && !value.is_empty())
    };
    if chosen {
        return;
    }
    if has(&["CUDA_VISIBLE_DEVICES"]) && Path::new("/dev/nvidiactl").exists() {
        container.options.push("--nv".into());
    }
    if has(&["ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"]) && Path::new("/dev/kfd").exists() {
        container.options.push("--rocm".into());
    }
}
