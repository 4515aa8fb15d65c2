//! The server's host key: Ed25519, made once per user and host, and the same for all of the user's sessions there.
//!
//! It is never renewed: a key that changes looks to every client like an attack. A file that holds none is an error that
//! names it, and stays as it is. Those who make one at the same moment end up with the same one: the first to link its own
//! into place wins, and the others take that.

use std::path::{Path, PathBuf};

use russh::keys::{
    HashAlg, PrivateKey, PublicKey,
    ssh_key::{self, LineEnding, private::Ed25519Keypair},
};
use zeroize::Zeroizing;

use crate::config::{
    HostName,
    paths::{FolderError, PrivateFolder},
};

/// The file in the folder.
const FILE: &str = "ssh_host_ed25519_key";

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostKeyError {
    /// The folder or the file can't be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It is there, and is no Ed25519 key without a passphrase.
    #[error("{} holds no host key ({why}); remove it to have a new one made", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: ssh_key::Error,
    },
    /// A new one can't be written out.
    #[error("cannot make a host key: {0}")]
    Make(ssh_key::Error),
    /// The kernel has no random numbers.
    #[error("cannot make a host key: {0}")]
    Random(getrandom::Error),
}

/// The host key in `folder`, made where there is none; the folder is made as well.
///
/// # Errors
/// Where the folder is not this user's alone or can't be written to, or what is there is no host key.
pub(crate) fn load_or_create(folder: &Path) -> Result<PrivateKey, HostKeyError> {
    let folder = PrivateFolder::open_or_make(folder)?;
    if let Some(found) = load(&folder)? {
        return Ok(found);
    }
    let made = make()?;
    let text = made.to_openssh(LineEnding::LF).map_err(HostKeyError::Make)?;
    folder.write_new(FILE, text.as_bytes())?;
    // Maybe somebody was faster: what is there counts.
    Ok(load(&folder)?.unwrap_or(made))
}

fn load(folder: &PrivateFolder) -> Result<Option<PrivateKey>, HostKeyError> {
    let Some(text) = folder.read(FILE)?.map(Zeroizing::new) else { return Ok(None) };
    let damaged = |why| HostKeyError::Damaged { path: folder.path().join(FILE), why };
    let key = PrivateKey::from_openssh(&*text).map_err(damaged)?;
    if key.is_encrypted() {
        return Err(damaged(ssh_key::Error::Encrypted));
    }
    if key.algorithm() != ssh_key::Algorithm::Ed25519 {
        return Err(damaged(ssh_key::Error::AlgorithmUnknown));
    }
    Ok(Some(key))
}

fn make() -> Result<PrivateKey, HostKeyError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *seed).map_err(HostKeyError::Random)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// SHA-256 of the key, as `ssh-keygen -l` and clients show it: `SHA256:…`.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// A line for `known_hosts` (`sshd(8)`, SSH_KNOWN_HOSTS FILE FORMAT), without an end of line: the server at `port` of the
/// host with these names has this key.
pub(crate) fn known_hosts_line(key: &PublicKey, names: &[HostName], port: u16) -> String {
    let at = |name: &HostName| if port == 22 { name.to_string() } else { format!("[{name}]:{port}") };
    let names: Vec<String> = names.iter().map(at).collect();
    // A comment would say nothing.
    let key = PublicKey::from(key.key_data().clone()).to_openssh().unwrap_or_default();
    format!("{} {key}", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        process::Command,
    };

    /// A folder's path of a test's own, gone with it.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            let name = format!("shlogin-host-key-{}", uuid::Uuid::new_v4().simple());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn print_of(place: &Place) -> String {
        fingerprint(load_or_create(&place.0).unwrap().public_key())
    }

    #[test]
    fn is_made_once_and_kept_private() {
        let place = Place::new();
        let first = print_of(&place);
        assert_eq!(first, print_of(&place));
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&place.0), mode(&place.0.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1, "nothing temporary stays");
        assert_ne!(first, print_of(&Place::new()));
    }

    #[test]
    fn all_who_race_for_it_get_the_same_one() {
        let place = Place::new();
        let mut prints: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..16).map(|_| scope.spawn(|| print_of(&place))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        prints.dedup();
        assert_eq!(prints.len(), 1, "{prints:?}");
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_one_is_named_and_stays() {
        let place = Place::new();
        print_of(&place);
        for text in
            ["", "no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"]
        {
            fs::write(place.0.join(FILE), text).unwrap();
            let error = load_or_create(&place.0).unwrap_err().to_string();
            assert!(error.contains(FILE), "{error}");
            assert_eq!(fs::read_to_string(place.0.join(FILE)).unwrap(), text);
        }
    }

    #[test]
    fn no_key_goes_where_others_can_get_at_it() {
        let place = Place::new();
        fs::create_dir(&place.0).unwrap();
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(load_or_create(&place.0), Err(HostKeyError::Folder(_))));
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let (place, target) = (Place::new(), Place::new());
        fs::create_dir(&place.0).unwrap();
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&target.0, place.0.join(FILE)).unwrap();
        assert!(load_or_create(&place.0).is_err() && !target.0.exists());
    }

    #[test]
    fn openssh_reads_the_key_and_agrees_about_its_fingerprint() {
        let place = Place::new();
        let key = load_or_create(&place.0).unwrap();
        let keygen = |words: &[&str], file: &Path| {
            let output = Command::new("ssh-keygen").args(words).arg(file).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let public = keygen(&["-y", "-f"], &place.0.join(FILE));
        assert_eq!(public.trim(), key.public_key().to_openssh().unwrap());
        let print = fingerprint(key.public_key());
        assert!(keygen(&["-l", "-f"], &place.0.join(FILE)).contains(&print), "{print}");

        let names = ["node", "10.0.0.1", "2001:db8::1"].map(|name| name.parse().unwrap());
        let line = known_hosts_line(key.public_key(), &names, 3030);
        assert!(line.starts_with("[node]:3030,[10.0.0.1]:3030,[2001:db8::1]:3030 ssh-ed25519 "), "{line}");
        assert!(!line.contains('\n') && line.split(' ').count() == 3);
        let known = place.0.join("known_hosts");
        fs::write(&known, format!("{line}\n{}\n", known_hosts_line(key.public_key(), &names[..1], 22)))
            .unwrap();
        for name in ["[node]:3030", "[2001:db8::1]:3030", "node"] {
            assert!(keygen(&["-l", "-F", name, "-f"], &known).contains(&print), "{name}");
        }
    }
}
