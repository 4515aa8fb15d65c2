//! Where host and gateway meet: a file in the session's folder of records, which both see and nobody else does. It says
//! where the gateway listens and what its certificate is; a gateway that takes a session over on another node writes it
//! anew, and the host finds it there when it dials again. Nothing in it is secret.
//!
//! The keys lie beside it: the gateway's own, so that another gateway can take over, and, where there is no MUNGE, the
//! host's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Fingerprint, Identity, IdentityError, RunId};
use crate::{
    config::paths::{Durability, FolderError, PrivateFolder},
    words::SessionId,
};

const FILE: &str = "link.json";
const GATEWAY_KEY: &str = "gateway.pem";
const HOST_KEY: &str = "host.pem";

/// What a host has to know of its gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rendezvous {
    /// The session.
    pub session: SessionId,
    /// Names or addresses of the gateway's machine, in the order in which to try them.
    pub hosts: Vec<String>,
    /// The port of the link.
    pub port: u16,
    /// The gateway's certificate.
    pub gateway: Fingerprint,
    /// The gateway's process, told from another at the same place.
    pub gate: RunId,
    /// The socket of the MUNGE daemon, where it is not MUNGE's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub munge_socket: Option<PathBuf>,
    /// How long, in seconds, a host is to look for a gateway before any has ever answered.
    pub patience: u64,
}

/// Why it cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// There is no file, or it is not what it should be.
    #[error("{path}/{FILE} says no gateway")]
    Missing {
        /// Where it should be.
        path: String,
    },
    /// A key cannot be made or read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Rendezvous {
    /// Reads it.
    ///
    /// # Errors
    /// As [`RendezvousError`].
    pub fn read(folder: &PrivateFolder) -> Result<Self, RendezvousError> {
        let text = folder.read(FILE)?;
        text.and_then(|text| serde_json::from_slice(&text).ok()).ok_or_else(|| missing(folder.path()))
    }

    /// Writes it.
    ///
    /// # Errors
    /// As [`RendezvousError`].
    pub fn write(&self, folder: &PrivateFolder) -> Result<(), RendezvousError> {
        let text = serde_json::to_vec_pretty(self).map_err(|_| missing(folder.path()))?;
        Ok(folder.write(FILE, &text, Durability::Passing)?)
    }

    /// Removes it: the session is over. A host that begins later than that, as one does whose job was submitted though
    /// Slurm did not say so in time, finds no gateway and ends at once.
    ///
    /// # Errors
    /// As `unlink(2)`.
    pub fn remove(folder: &PrivateFolder) -> io::Result<()> {
        match fs::remove_file(folder.path().join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Removes what the folder holds for the link: nobody needs it any more.
///
/// # Errors
/// As `unlink(2)`; what is not there is no error.
pub fn remove_keys(folder: &PrivateFolder) -> std::io::Result<()> {
    [GATEWAY_KEY, HOST_KEY, FILE].iter().try_for_each(|name| {
        match std::fs::remove_file(folder.path().join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

/// The gateway's key of this session, made where there is none.
///
/// # Errors
/// As [`RendezvousError`].
pub fn gateway_key(folder: &PrivateFolder) -> Result<Identity, RendezvousError> {
    key(folder, GATEWAY_KEY)
}

/// The host's, likewise: for where nothing else tells who it is.
///
/// # Errors
/// As [`RendezvousError`].
pub fn host_key(folder: &PrivateFolder) -> Result<Identity, RendezvousError> {
    key(folder, HOST_KEY)
}

/// Whether the folder holds a key for the host.
///
/// # Errors
/// As [`FolderError`].
pub fn kept_host_key(folder: &PrivateFolder) -> Result<Option<Identity>, RendezvousError> {
    let text = folder.read(HOST_KEY)?.map(zeroize::Zeroizing::new);
    Ok(text.map(|text| Identity::from_pem(&text)).transpose()?)
}

fn key(folder: &PrivateFolder, name: &str) -> Result<Identity, RendezvousError> {
    if let Some(text) = folder.read(name)? {
        return Ok(Identity::from_pem(&zeroize::Zeroizing::new(text))?);
    }
    let text = Identity::make_pem()?;
    // Whoever was faster has made the one that counts.
    if folder.write_new(name, text.as_bytes())? {
        return Ok(Identity::from_pem(text.as_bytes())?);
    }
    let text = folder.read(name)?.ok_or_else(|| missing(folder.path()))?;
    Ok(Identity::from_pem(&zeroize::Zeroizing::new(text))?)
}

fn missing(path: &Path) -> RendezvousError {
    RendezvousError::Missing { path: path.display().to_string() }
}
