//! TLS: which certificate a client is shown, read from files and read again when they change, and a configuration that
//! offers nothing weak.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs,
    server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName,
    pem::{self, PemObject},
};

pub use crate::transport::Transport;

/// Bytes that are best given to TLS at once. With what it adds to them in four records they leave as one packet: they fit
/// into one segment of the loopback interface, whose packets have 64 KiB, and into what a network card makes 45 segments of
/// Ethernet of. With 64 KiB itself, each packet is followed by one of a hundred bytes.
pub const AT_ONCE: usize = 64_160;

/// Of these, room for the heads of the frames of HTTP/2 that the rest is sent in.
pub(crate) const FRAME_HEADS: usize = 160;

/// The files of one certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The certificate and the chain to its issuer, in PEM.
    pub chain: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
    /// An OCSP response that is handed out with it, in DER, as `openssl ocsp -respout` writes it (RFC 6066 §8). Whoever
    /// puts it there renews it.
    pub ocsp: Option<PathBuf>,
}

/// Why a certificate can't be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate, or no key, in PEM.
    #[error("cannot read {}: {source}", path.display())]
    Pem {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The certificate and the key do not fit, or are of a kind that is not served.
    #[error("cannot serve {} with {}: {source}", chain.display(), key.display())]
    Unfit {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// There is no certificate at all, or the machine has no random numbers.
    #[error("no TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// The certificates of a listener. A client gets the first that is good for the name it asks for (SNI, RFC 6066 §3), or
/// the first of all where none is, or it asks for none.
pub struct Certificates {
    files: Vec<CertificateFiles>,
    loaded: RwLock<Loaded>,
}

struct Loaded {
    keys: Arc<[Arc<CertifiedKey>]>,
    stamps: Vec<Stamp>,
}

/// What changes when a file does: its inode too, for a renamed file may be older than the one it replaces.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stamp(Option<(u64, u64, SystemTime)>);

impl Certificates {
    /// Reads all of them.
    ///
    /// # Errors
    /// Where one can't be served.
    pub fn load(files: Vec<CertificateFiles>) -> Result<Arc<Self>, TlsError> {
        if files.is_empty() {
            return Err(rustls::Error::NoCertificatesPresented.into());
        }
        let loaded = RwLock::new(load(&files)?);
        Ok(Arc::new(Self { files, loaded }))
    }

    /// Reads them again where a file has changed, and says whether one had. New connections get the new ones; those that
    /// are open stay as they are. Blocks while it reads.
    ///
    /// # Errors
    /// Where one of the new ones can't be served: then all stay as they were.
    pub fn reload(&self) -> Result<bool, TlsError> {
        if self.read().stamps == stamps(&self.files) {
            return Ok(false);
        }
        let loaded = load(&self.files)?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(true)
    }

    /// Looks every so often whether a file has changed, reloads, and returns when there are new certificates in use. What
    /// goes wrong is logged, once for each change.
    pub async fn changed(self: Arc<Self>, every: Duration) {
        let mut told = None;
        loop {
            tokio::time::sleep(every).await;
            let me = Arc::clone(&self);
            // Certificates may lie on a network file system, which may hang.
            let looked = tokio::task::spawn_blocking(move || (me.reload(), stamps(&me.files))).await;
            match looked {
                Ok((Ok(true), _)) => {
                    tracing::info!("the certificates have changed, and are in use");
                    return;
                }
                Ok((Err(error), stamps)) if told.as_ref() != Some(&stamps) => {
                    tracing::warn!(%error, "changed certificates are not used: the old ones stay");
                    told = Some(stamps);
                }
                _ => {}
            }
        }
    }

    /// The first certificate's own part of its chain, in DER, as it is at the moment.
    pub fn first(&self) -> Option<CertificateDer<'static>> {
        self.read().keys.first().and_then(|key| key.cert.first().cloned())
    }

    /// A configuration that serves these: TLS 1.3 and 1.2 with forward secrecy and authenticated encryption only, HTTP/2
    /// and HTTP/1.1 (ALPN), resumption by tickets whose keys change by themselves. No early data, for it can be
    /// replayed.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Each costs an encryption and 250 bytes; browsers use one.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Loaded> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn for_name(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let keys = Arc::clone(&self.read().keys);
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let fitting = name.and_then(|name| {
            keys.iter().find(|key| {
                let own = key.end_entity_cert().and_then(ParsedCertificate::try_from);
                own.is_ok_and(|own| verify_server_name(&own, &name).is_ok())
            })
        });
        fitting.or(keys.first()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if self.files.len() == 1 {
            return self.read().keys.first().cloned();
        }
        self.for_name(hello.server_name())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

fn load(files: &[CertificateFiles]) -> Result<Loaded, TlsError> {
    // Taken first: what changes while it is read is read once more.
    let stamps = stamps(files);
    let keys = files.iter().map(|one| load_one(one).map(Arc::new)).collect::<Result<_, _>>()?;
    Ok(Loaded { keys, stamps })
}

fn load_one(files: &CertificateFiles) -> Result<CertifiedKey, TlsError> {
    let pem = |path: &Path, source| TlsError::Pem { path: path.to_owned(), source };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.chain)
        .and_then(Iterator::collect)
        .map_err(|source| pem(&files.chain, source))?;
    if chain.is_empty() {
        return Err(pem(&files.chain, pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| pem(&files.key, source))?;
    let unfit = |source| TlsError::Unfit { chain: files.chain.clone(), key: files.key.clone(), source };
    let mut certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(unfit)?;
    if let Some(path) = &files.ocsp {
        let response = fs::read(path).map_err(|source| TlsError::File { path: path.clone(), source })?;
        certified.ocsp = Some(response);
    }
    Ok(certified)
}

fn stamps(files: &[CertificateFiles]) -> Vec<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let paths = files.iter().flat_map(|one| [Some(&one.chain), Some(&one.key), one.ocsp.as_ref()]);
    let stamp = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.len(), found.modified().ok()?))
    };
    paths.flatten().map(|path| Stamp(stamp(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let at = |kind: &str| folder.join(format!("{name}.{kind}"));
        for (kind, text) in [("chain", made.cert.pem()), ("key", made.signing_key.serialize_pem())] {
            // Renamed into place, as careful tools do it.
            fs::write(at("new"), text).unwrap();
            fs::rename(at("new"), at(kind)).unwrap();
        }
        CertificateFiles { chain: at("chain"), key: at("key"), ocsp: None }
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("nginx-free-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
        let folder = folder("sni");
        let files = vec![
            write(&folder, "first", &["first.example"]),
            write(&folder, "wild", &["*.pods.example", "10.0.0.1"]),
        ];
        let certificates = Certificates::load(files).unwrap();
        let first = certificates.read().keys[0].cert[0].clone();
        let shown = |name| certificates.for_name(name).unwrap().cert[0] == first;
        assert!(shown(None) && shown(Some("first.example")) && shown(Some("other.example")));
        assert!(shown(Some("a.b.pods.example")) && shown(Some("not a name")));
        assert!(!shown(Some("pod-1.pods.example")) && !shown(Some("POD-1.Pods.example")));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_changed_is_read_and_what_is_broken_is_not_used() {
        let folder = folder("reload");
        let files = write(&folder, "one", &["one.example"]);
        let certificates = Certificates::load(vec![files.clone()]).unwrap();
        let before = certificates.first().unwrap();
        assert!(!certificates.reload().unwrap());
        write(&folder, "one", &["one.example"]);
        assert!(certificates.reload().unwrap());
        let after = certificates.first().unwrap();
        assert_ne!(before, after);
        fs::write(&files.key, "no key").unwrap();
        let error = certificates.reload().unwrap_err().to_string();
        assert!(error.contains("one.key"), "{error}");
        assert_eq!(certificates.first().unwrap(), after);
        // A key that fits another certificate.
        let other = write(&folder, "other", &["one.example"]);
        fs::copy(other.key, &files.key).unwrap();
        assert!(matches!(certificates.reload(), Err(TlsError::Unfit { .. })));
        fs::remove_file(&files.key).unwrap();
        assert!(certificates.reload().is_err());
        assert_eq!(certificates.first().unwrap(), after);
        assert!(Certificates::load(Vec::new()).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    /// What a server writes at once when it has more than enough to say, after a handshake in memory.
    fn written_at_once(limit: usize) -> usize {
        let folder = folder("at-once");
        let certificates =
            Arc::new(Certificates::load(vec![write(&folder, "one", &["one.example"])]).unwrap());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificates.first().unwrap()).unwrap();
        fs::remove_dir_all(folder).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("one.example").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = rustls::ServerConnection::new(certificates.server_config().unwrap()).unwrap();
        let mut bytes = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets().unwrap();
            bytes.clear();
        }
        server.set_buffer_limit(Some(limit));
        assert_eq!(io::Write::write(&mut server.writer(), &vec![0; 2 * limit]).unwrap(), limit);
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        bytes.len()
    }

    #[test]
    fn what_is_given_to_tls_at_once_leaves_as_one_packet() {
        // Without the headers of IPv6 and TCP, and the latter's time stamps.
        let loopback = 65_536 - 40 - 20 - 12;
        let ethernet = (1500 - 40 - 20 - 12) * 45;
        let written = written_at_once(AT_ONCE);
        assert!(written <= loopback && written <= ethernet, "{written}");
        assert!(written_at_once(64 * 1024) > loopback);
    }
}
