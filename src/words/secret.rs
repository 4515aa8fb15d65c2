//! Secrets that a stranger may present, and what is kept of them.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text: by default 256 random bits, written as 43 characters that need no escaping in a URL, a cookie or a shell.
///
/// Prints as `***`, is wiped when dropped, and has no `Serialize`: whoever sends one on says so with [`Secret::reveal`].
pub struct Secret(Zeroizing<String>);

/// What is kept of a [`Secret`]: its SHA-256. Compared in constant time.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl Secret {
    /// A new one, from the kernel's random source.
    ///
    /// # Errors
    /// Where the kernel has no random source (`getrandom(2)`): there is nothing to fall back to.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *bytes).map_err(std::io::Error::other)?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// One that was made elsewhere, from random numbers of that kind: a code to be read out, say.
    pub fn from_text(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one who is to have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What to keep of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.reveal())
    }
}

impl SecretHash {
    /// The hash of a text that a stranger presents.
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    /// Whether both are of the same secret, in a time that does not tell how much of them agrees.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_url_safe_and_never_printed() {
        let (a, b) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_eq!(a.reveal().len(), 43);
        assert!(a.reveal().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        assert_ne!(a.reveal(), b.reveal());
        assert_eq!(format!("{a:?}{:?}", a.hash()), "******");
        assert!(SecretHash::of(a.reveal()).matches(&a.hash()));
        assert!(!a.hash().matches(&b.hash()));
    }
}
