//! From what a session is to do to what it does on this very node: folders, helper, programs, devices, environment.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
    str::FromStr,
};

use nix::unistd::getuid;

use crate::{
    config::{
        OutboundHelper,
        paths::{runtime_folder, runtime_path},
    },
    host::{AppSpec, Runtime},
    sandbox::Footprint,
    session::{Lock, Work, launch, surroundings},
    words::{SessionId, SessionName},
};

/// What a session's name on a node begins with; the rest is its identity.
const NAME: &str = "job-";

/// Why it cannot be done here.
pub(super) enum NotHere {
    /// The image, or what runs it, is missing.
    Image(String),
    /// There is nothing to give the app a network.
    Network(String),
    /// A folder cannot be made, or is missing.
    Other(String),
}

/// Settles everything that depends on the node; makes the session's folder in its runtime folder, and takes its lock.
pub(super) fn prepare(
    work: &mut Work,
    id: SessionId,
    outbound: OutboundHelper,
    scratch: &Path,
    node: &str,
) -> Result<Lock, NotHere> {
    let other = |error: &dyn std::fmt::Display| NotHere::Other(error.to_string());
    prepare_app(&mut work.app, node)?;
    let helper = surroundings::helper(work.sandbox.network, outbound);
    work.sandbox.helper = helper.map_err(|error| NotHere::Network(format!("on node {node}: {error}")))?;
    work.sandbox.resolvers =
        if work.sandbox.helper.is_some() { surroundings::loopback_resolvers() } else { Vec::new() };
    work.sandbox.keep = surroundings::real_paths(&work.sandbox.keep);
    runtime_folder().map_err(|error| other(&error))?;
    let runtime = runtime_path();
    tidy_up_after_others(&runtime, scratch);
    let name = name(id).map_err(|error| other(&error))?;
    let lock = Lock::take(&runtime, &name).map_err(|error| other(&error))?;
    let footprint = footprint(&runtime, scratch, id, &name);
    // An earlier run of the job may have been cut off on this very node.
    footprint.remove_scratch().map_err(|error| other(&error))?;
    launch::make_folder(&footprint.session).map_err(|error| other(&error))?;
    work.sandbox.footprint = footprint;
    work.sandbox.cover = runtime;
    Ok(lock)
}

/// The session's name is its gateway's: here it could be that of another session of the same user.
fn name(id: SessionId) -> Result<SessionName, <SessionName as FromStr>::Err> {
    format!("{NAME}{}", id.simple()).parse()
}

fn footprint(runtime: &Path, scratch: &Path, id: SessionId, name: &SessionName) -> Footprint {
    Footprint {
        session: runtime.join(name.as_str()),
        // Not the gateway's, which may be on this very machine.
        scratch: scratch.join(format!("shlogin-{}-job-{id}", getuid())),
        lock: Lock::path_in(runtime, name),
    }
}

/// Removes what other sessions have left here whose processes were killed all at once, so that none could tidy up: as
/// Slurm does where it tracks them and a host did not end in time, or was killed itself.
fn tidy_up_after_others(runtime: &Path, scratch: &Path) {
    for entry in fs::read_dir(runtime).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let id = found.to_str().and_then(|found| found.strip_prefix(NAME)?.parse::<SessionId>().ok());
        let Some((id, name)) = id.and_then(|id| Some((id, name(id).ok()?))) else { continue };
        // That of one that lives is held.
        let Ok(lock) = Lock::take(runtime, &name) else { continue };
        if let Err(error) = footprint(runtime, scratch, id, &name).remove(lock.as_fd()) {
            tracing::warn!(%id, %error, "something of another session is left on this node");
        }
    }
}

fn prepare_app(app: &mut AppSpec, node: &str) -> Result<(), NotHere> {
    if !app.cwd.is_dir() {
        return Err(NotHere::Other(format!("node {node} has no folder {}", app.cwd.display())));
    }
    app.env = merged(std::mem::take(&mut app.env), std::env::vars_os().collect());
    if let Some(container) = &mut app.container {
        if !container.image.path.exists() {
            let path = container.image.path.display();
            return Err(NotHere::Image(format!(
                "node {node} does not see {path}: an image must lie where all nodes see it"
            )));
        }
        if !container.runtime.program.exists() {
            let found = Runtime::find(Some(container.runtime.kind), None, None);
            container.runtime = found.map_err(|error| NotHere::Image(format!("on node {node}: {error}")))?;
        }
        surroundings::add_devices(container, &app.env);
    }
    Ok(())
}

/// What a job's environment says about the job, and nothing about the person: hers of that name means another job, or another
/// node's devices.
const OF_THE_JOB: [&str; 4] = ["SLURM_", "SLURMD_", "PMI_", "PMIX_"];
const OF_THE_NODE: [&str; 11] = [
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "HOSTNAME",
    "DISPLAY",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
    "TMPDIR",
];

/// The login node's environment as it is here: what the job says of itself, and all that only the job has, such as what a
/// site's prolog sets.
fn merged(login: Vec<(OsString, OsString)>, job: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let begins = |name: &OsStr| OF_THE_JOB.iter().any(|begin| name.as_bytes().starts_with(begin.as_bytes()));
    let not_hers = |name: &OsStr| begins(name) || OF_THE_NODE.iter().any(|known| name == *known);
    let mut env: Vec<_> = login.into_iter().filter(|(name, _)| !not_hers(name)).collect();
    for (name, value) in job {
        // The app's own temporary files and its folder are others than the script's.
        let ours = name == "TMPDIR" || name == "PWD";
        let sets = |its: &OsStr| *its == name;
        if !ours && !env.iter().any(|(its, _)| sets(its)) {
            env.push((name, value));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn a_job_s_own_variables_win_and_a_person_s_stay() {
        let login = env(&[
            ("PATH", "/login/bin"),
            ("SLURM_JOB_ID", "7"),
            ("HOSTNAME", "login1"),
            ("API_KEY", "mine"),
            ("CUDA_VISIBLE_DEVICES", "0,1"),
            ("CUDA_HOME", "/opt/cuda"),
            ("DISPLAY", ":1"),
        ]);
        let job = env(&[
            ("PATH", "/bin"),
            ("SLURM_JOB_ID", "8"),
            ("CUDA_VISIBLE_DEVICES", "1"),
            ("SITE_SCRATCH", "/local/8"),
            ("TMPDIR", "/tmp/8"),
        ]);
        let mut got = merged(login, job);
        got.sort();
        let want = env(&[
            ("API_KEY", "mine"),
            ("CUDA_HOME", "/opt/cuda"),
            ("CUDA_VISIBLE_DEVICES", "1"),
            ("PATH", "/login/bin"),
            ("SITE_SCRATCH", "/local/8"),
            ("SLURM_JOB_ID", "8"),
        ]);
        assert_eq!(got, want);
    }
}
