//! Certificates in files, a proxy that shows them, and clients that say what they were shown.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use nginx_free::{
    Hooks, Limits,
    tls::{CertificateFiles, Certificates},
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::*;

/// A folder of one test's certificates, removed after it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("nginx-free-it-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a new self-signed certificate for a name, in place of the one before.
    pub(crate) fn certificate(&self, name: &str) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let put = |kind: &str, text: String| {
            let (fresh, path) = (self.0.join("fresh"), self.0.join(format!("{name}.{kind}")));
            fs::write(&fresh, text).unwrap();
            fs::rename(&fresh, &path).unwrap();
            path
        };
        let chain = put("chain", made.cert.pem());
        CertificateFiles { chain, key: put("key", made.signing_key.serialize_pem()), ocsp: None }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A proxy that shows these certificates.
pub(crate) async fn showing(
    app: std::net::SocketAddr,
    limits: Limits,
    files: Vec<CertificateFiles>,
) -> (Running, Arc<Certificates>) {
    let certificates = Certificates::load(files).unwrap();
    let config = certificates.server_config().unwrap();
    (proxy_with(app, limits, Hooks::default(), Some(config)).await, certificates)
}

/// A proxy with some certificate.
pub(crate) async fn certified(app: std::net::SocketAddr, limits: Limits) -> Running {
    let folder = Folder::new();
    showing(app, limits, vec![folder.certificate("node")]).await.0
}

/// A client that takes whatever it is shown, and keeps it.
pub(crate) struct Client {
    connector: TlsConnector,
    shown: Arc<Shown>,
}

impl Client {
    pub(crate) fn new(alpn: &str) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown = Arc::new(Shown { provider: Arc::clone(&provider), last: Mutex::default() });
        let verifier = Arc::clone(&shown) as Arc<dyn ServerCertVerifier>;
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.into()];
        Self { connector: TlsConnector::from(Arc::new(config)), shown }
    }

    /// Connects, asking for the certificate of a name.
    pub(crate) async fn connect(&self, proxy: &Running, name: &str) -> TlsStream<TcpStream> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        self.connector.connect(name, proxy.connect().await).await.unwrap()
    }

    /// The certificate, and the OCSP response, that the last full handshake showed.
    pub(crate) fn shown(&self) -> (CertificateDer<'static>, Vec<u8>) {
        self.shown.last.lock().unwrap().clone().unwrap()
    }
}

#[derive(Debug)]
struct Shown {
    provider: Arc<CryptoProvider>,
    last: Mutex<Option<(CertificateDer<'static>, Vec<u8>)>>,
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.last.lock().unwrap() = Some((end_entity.clone().into_owned(), ocsp.to_vec()));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
