//! The gateway's certificate: an administrator's, or a self-signed one made once per user and host.
//!
//! The self-signed one is kept with its key in one file, so that both change in one step. Processes that want it at
//! the same
//! moment end up with the same one: the first to link its own into place wins, and the others take that.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nginx_free::tls::{CertificateFiles, Certificates, TlsError};
use nix::fcntl::{Flock, FlockArg};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};

/// A certificate with its key, ready to serve.
#[derive(Clone)]
pub struct Certificate {
    loaded: Arc<Certificates>,
    config: Arc<ServerConfig>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file or folder can't be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder is not ours alone.
    #[error("cannot keep a key in {}: it must belong to you, with mode 0700", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
    },
    /// It can't be read, or not be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

impl Certificate {
    /// SHA-256 of the certificate, as browsers show it: `AB:CD:…`.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.loaded.first().as_deref().unwrap_or_default());
        digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Returns when the files have changed, and the new certificate is in use.
    pub async fn renewed(&self) {
        Arc::clone(&self.loaded).changed(LOOK).await;
    }
}

/// How often to look whether a certificate's files have changed.
const LOOK: Duration = Duration::from_secs(60);

/// An administrator's certificate, with its chain, its key, and maybe an OCSP response.
///
/// # Errors
/// Where the files can't be read or do not fit each other.
pub fn from_files(chain: &Path, key: &Path, ocsp: Option<&Path>) -> Result<Certificate, CertificateError> {
    let (chain, key, ocsp) = (chain.to_owned(), key.to_owned(), ocsp.map(Path::to_owned));
    let loaded = Certificates::load(vec![CertificateFiles { chain, key, ocsp }])?;
    let config = loaded.server_config()?;
    Ok(Certificate { loaded, config })
}

/// The file in the folder, and the lock beside it.
const FILE: &str = "gateway.pem";
const LOCK: &str = "lock";
/// Mozilla's profiles for servers (version 5.7) want 366 days at most, and browsers 398.
const DAYS: i64 = 365;
/// A certificate that ends within this time is renewed, so that none ends in the middle of a session.
const MARGIN: u64 = 30 * 24 * 3600;
/// Names that an old certificate had are kept in a new one, up to so many.
const MAX_NAMES: usize = 64;

/// The self-signed certificate in `dir`, made or renewed where there is none that is good for all of `names`
/// (host names and addresses) and `localhost`, `127.0.0.1` and `::1`.
///
/// # Errors
/// Where the folder can't be used, or is open to others.
pub fn load_or_create(dir: &Path, names: &[String]) -> Result<Certificate, CertificateError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::File { path, source }
    };
    private_folder(dir)?;
    let (path, lock) = (dir.join(FILE), dir.join(LOCK));
    let mut wanted: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    wanted.extend(names.iter().filter(|name| ServerName::try_from(name.as_str()).is_ok()).cloned());

    if let Some(found) = usable(&path, &wanted) {
        return Ok(found);
    }
    // One at a time makes a new one. Some network file systems know no locks: there, linking decides.
    let lock_file = private_file().create(true).truncate(false).open(&lock).map_err(at(&lock))?;
    let _guard = Flock::lock(lock_file, FlockArg::LockExclusive).ok();
    if let Some(found) = usable(&path, &wanted) {
        return Ok(found);
    }
    let text = make(&with_old_names(&path, &wanted))?;
    let temporary = dir.join(format!(".{FILE}.{}", uuid::Uuid::new_v4()));
    let written = write(&temporary, &text).and_then(|()| match fs::hard_link(&temporary, &path) {
        Ok(()) => Ok(()),
        // Somebody was faster; or what is there is no good, and gives way.
        Err(_) if usable(&path, &wanted).is_some() => Ok(()),
        Err(_) => fs::rename(&temporary, &path),
    });
    // Gone already where it was renamed.
    let _ = fs::remove_file(&temporary);
    written.map_err(at(&path))?;
    load(&path)
}

/// A folder for secrets: made if it is not there, refused if it is anybody else's too.
fn private_folder(dir: &Path) -> Result<(), CertificateError> {
    let at = |source| CertificateError::File { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
    let found = fs::symlink_metadata(dir).map_err(at)?;
    let ours = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw();
    if !ours || found.mode() & 0o077 != 0 {
        return Err(CertificateError::Folder { path: dir.to_owned() });
    }
    Ok(())
}

fn private_file() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    options
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = private_file().create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn load(path: &Path) -> Result<Certificate, CertificateError> {
    from_files(path, path, None)
}

/// The certificate in the file, if a client would take it for each of `names` for some time to come.
fn usable(path: &Path, names: &[String]) -> Option<Certificate> {
    let found = fs::symlink_metadata(path).ok()?;
    if !found.is_file() || found.mode() & 0o077 != 0 || found.uid() != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let certificate = CertificateDer::from_pem_file(path).ok()?;
    let later =
        UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs().saturating_add(MARGIN)));
    let all = names
        .iter()
        .all(|name| covers(&certificate, name, later) && covers(&certificate, name, UnixTime::now()));
    if all { load(path).ok() } else { None }
}

/// Whether a client that trusts this certificate would take it for `name` at `time`.
fn covers(certificate: &CertificateDer<'_>, name: &str, time: UnixTime) -> bool {
    let mut roots = RootCertStore::empty();
    if roots.add(certificate.clone().into_owned()).is_err() {
        return false;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    let Ok(name) = ServerName::try_from(name) else { return false };
    verifier.verify_server_cert(certificate, &[], &name, &[], time).is_ok()
}

/// Certificate and key in PEM, with the names in a line of their own for whoever renews it.
fn make(names: &[String]) -> Result<String, CertificateError> {
    let mut params = CertificateParams::new(names.to_vec())?;
    let mut who = DistinguishedName::new();
    let common = names.iter().find(|name| name.parse::<IpAddr>().is_err() && *name != "localhost");
    who.push(DnType::CommonName, common.map_or("localhost", String::as_str));
    who.push(DnType::OrganizationName, "shlogin self-signed");
    params.distinguished_name = who;
    // From yesterday, for clocks that are behind.
    let ((y, m, d), (last_y, last_m, last_d)) = (date(-1), date(DAYS - 1));
    params.not_before = rcgen::date_time_ymd(y, m, d);
    params.not_after = rcgen::date_time_ymd(last_y, last_m, last_d);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{NAMES}{}\n{}{}", names.join(" "), certificate.pem(), key.serialize_pem()))
}

const NAMES: &str = "Names: ";

/// `names` and those that the file in `path` has, so that two sessions with names of their own do not renew it in turn.
fn with_old_names(path: &Path, names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    let text = fs::read_to_string(path).unwrap_or_default();
    let old = text.lines().find_map(|line| line.strip_prefix(NAMES)).unwrap_or_default();
    names.extend(old.split(' ').filter(|name| ServerName::try_from(*name).is_ok()).map(str::to_owned));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names.truncate(MAX_NAMES);
    names
}

/// Year, month and day so many days from today.
fn date(days: i64) -> (i32, u8, u8) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let date = today.saturating_add(jiff::Span::new().days(days));
    let part = |number: i8| u8::try_from(number).unwrap_or(1);
    (i32::from(date.year()), part(date.month()), part(date.day()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("shlogin-certificate-{name}-{}", uuid::Uuid::new_v4()))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn der(dir: &Path) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(dir.join(FILE)).unwrap()
    }

    #[test]
    fn is_made_once_for_all_names_and_kept_private() {
        let dir = folder("once");
        let wanted = names(&["node", "node.example.org", "10.0.0.1", "2001:db8::1", "not a name"]);
        let first = load_or_create(&dir, &wanted).unwrap();
        let second = load_or_create(&dir, &names(&["node"])).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
        assert_eq!((mode(&dir), mode(&dir.join(FILE))), (0o700, 0o600));
        let now = UnixTime::now();
        for name in ["node", "node.example.org", "10.0.0.1", "2001:db8::1", "localhost", "127.0.0.1", "::1"] {
            assert!(covers(&der(&dir), name, now), "{name}");
        }
        assert!(!covers(&der(&dir), "other", now));
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "nothing temporary stays: {left:?}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn lives_no_longer_than_browsers_allow() {
        let dir = folder("long");
        load_or_create(&dir, &[]).unwrap();
        let at = |days: u64| {
            UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + days * 86_400))
        };
        assert!(covers(&der(&dir), "localhost", at(362)));
        assert!(!covers(&der(&dir), "localhost", at(366)));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn is_renewed_for_a_new_name_and_keeps_the_old_ones() {
        let dir = folder("renew");
        let first = load_or_create(&dir, &names(&["one"])).unwrap();
        let second = load_or_create(&dir, &names(&["two"])).unwrap();
        assert_ne!(first.fingerprint(), second.fingerprint());
        let third = load_or_create(&dir, &names(&["one"])).unwrap();
        assert_eq!(second.fingerprint(), third.fingerprint());
        fs::write(dir.join(FILE), "no certificate").unwrap();
        load_or_create(&dir, &names(&["one"])).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn all_who_race_for_it_get_the_same_one() {
        let dir = folder("race");
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let dir = dir.clone();
                std::thread::spawn(move || {
                    load_or_create(&dir, &names(&["node"])).unwrap().fingerprint().to_owned()
                })
            })
            .collect();
        let mut prints: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        prints.dedup();
        assert_eq!(prints.len(), 1, "{prints:?}");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn no_key_goes_into_a_folder_that_others_can_open() {
        let dir = folder("open");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(load_or_create(&dir, &[]), Err(CertificateError::Folder { .. })));
        assert!(!dir.join(FILE).exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let (dir, target) = (folder("link"), folder("target"));
        private_folder(&dir).unwrap();
        std::os::unix::fs::symlink(&target, dir.join(FILE)).unwrap();
        load_or_create(&dir, &[]).unwrap();
        assert!(!target.exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_administrators_files_are_named_when_they_do_not_do() {
        let dir = folder("files");
        private_folder(&dir).unwrap();
        let text = make(&names(&["node"])).unwrap();
        let (chain, empty) = (dir.join("chain.pem"), dir.join("empty.pem"));
        fs::write(&chain, text).unwrap();
        fs::write(&empty, "").unwrap();
        assert!(from_files(&chain, &chain, None).is_ok());
        let error = from_files(&empty, &chain, None).err().unwrap().to_string();
        assert!(error.contains("empty.pem"), "{error}");
        assert!(from_files(&chain, &empty, None).is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
