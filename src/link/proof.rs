//! By what a host proves that it is its user's, and in which job: MUNGE's word, or a key that only that user can read.

use slurm::munge::{Munge, MungeError};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::Fingerprint;

/// What a gateway takes for proof.
#[derive(Clone)]
pub enum Proof {
    /// A MUNGE credential of this process's own user that states what it should.
    Munge(Munge),
    /// The key that belongs to this certificate.
    Key(Fingerprint),
}

/// What a host proves itself by.
#[derive(Clone)]
pub enum Prover {
    /// A MUNGE credential.
    Munge(Munge),
    /// Its key, as TLS has it.
    Key,
}

/// How long a credential may take from one node to the other, clocks that differ a little included.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(300);

/// Credentials that are looked at, at a time: each takes a process, and strangers send what they like.
static LOOKED_AT: Semaphore = Semaphore::const_new(16);

/// Why a proof does not hold. For the gateway's own log.
pub(super) enum Doubt {
    /// It is somebody else's, and will be for ever.
    Stranger(String),
    /// Nothing is proven, which may be MUNGE's fault: a daemon that is just being started says as little of its own user.
    Unproven(String),
}

impl From<MungeError> for Doubt {
    fn from(error: MungeError) -> Self {
        let why = error.to_string();
        match error {
            MungeError::Replayed | MungeError::NotForUs | MungeError::Invalid(_) => Self::Stranger(why),
            _ => Self::Unproven(why),
        }
    }
}

impl Proof {
    /// Whether it holds. The reason where it does not is for the gateway's own log.
    pub(super) async fn holds(
        &self,
        peer: Fingerprint,
        credential: Option<String>,
        statement: String,
    ) -> Result<(), Doubt> {
        match self {
            Self::Key(known) if *known == peer => Ok(()),
            Self::Key(_) => Err(Doubt::Stranger("it does not have the session's key".to_owned())),
            Self::Munge(munge) => {
                let missing = || Doubt::Unproven("it has no MUNGE credential".to_owned());
                let credential = credential.ok_or_else(missing)?;
                let (munge, turn) = (munge.clone(), LOOKED_AT.acquire().await);
                let decoded = spawn_blocking(move || {
                    let _turn = turn;
                    munge.decode(&credential)
                });
                let decoded = decoded.await.map_err(|error| Doubt::Unproven(error.to_string()))??;
                let own = nix::unistd::geteuid().as_raw();
                if decoded.uid != own {
                    let whose = format!("its credential is of user {}, not of {own}", decoded.uid);
                    return Err(Doubt::Stranger(whose));
                }
                if decoded.payload != statement.as_bytes() {
                    let what = "its credential is of another connection, session or job";
                    return Err(Doubt::Stranger(what.to_owned()));
                }
                Ok(())
            }
        }
    }
}

impl Prover {
    /// A credential for this statement, where one is needed.
    ///
    /// # Errors
    /// As [`MungeError`].
    pub(super) async fn credential(&self, statement: String) -> Result<Option<String>, MungeError> {
        let Self::Munge(munge) = self else { return Ok(None) };
        let munge = munge.clone();
        let own = nix::unistd::geteuid().as_raw();
        let made = spawn_blocking(move || munge.encode(statement.as_bytes(), Some(own), LIFETIME)).await;
        // A task that was cut off has no credential; the gateway says what is missing.
        made.unwrap_or_else(|_| Ok(String::new())).map(Some)
    }
}
