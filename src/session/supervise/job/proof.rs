//! How a session's host is to prove itself: settled once, before there is one.

use std::{path::PathBuf, time::Duration};

use slurm::{Slurm, munge::Munge};

use crate::{
    config::paths::PrivateFolder,
    link::{self, Proof},
    session::{BatchSpec, MungeUse},
};

/// MUNGE where it works, else a key in a file. With the socket of munged, where it is named.
///
/// # Errors
/// Where MUNGE is required and does not work, or the key cannot be made.
pub(super) fn settle(
    batch: &BatchSpec,
    folder: &PrivateFolder,
    slurm: Option<&Slurm>,
) -> Result<(Proof, Option<PathBuf>), String> {
    let key = || {
        let identity = link::host_key(folder).map_err(|error| error.to_string())?;
        Ok((Proof::Key(identity.fingerprint()), None))
    };
    // A host that runs already was told by an earlier gateway.
    let kept = link::kept_host_key(folder).map_err(|error| error.to_string())?.is_some();
    let munge_use = match (&batch.resume, kept) {
        (Some(_), true) => MungeUse::Off,
        (Some(_), false) => MungeUse::Require,
        (None, _) => batch.munge,
    };
    if munge_use == MungeUse::Off {
        return key();
    }
    let of_slurm = || slurm?.config().ok()?.munge_socket;
    let socket = batch.munge_socket.clone().or_else(of_slurm);
    let munge = Munge::find(None).map_err(|error| error.to_string()).and_then(|munge| {
        let munge = socket.clone().map_or(munge.clone(), |socket| munge.with_socket(socket));
        munge.encode(b"shlogin", None, Duration::from_secs(60)).map_err(|error| error.to_string())?;
        Ok(munge)
    });
    match munge {
        Ok(munge) => Ok((Proof::Munge(munge), socket)),
        Err(why) if munge_use == MungeUse::Require => {
            Err(format!("MUNGE is required, and does not work: {why}"))
        }
        Err(why) => {
            tracing::info!("no MUNGE ({why}): the job's host gets a key in a file");
            key()
        }
    }
}
