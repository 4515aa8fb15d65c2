//! TLS as all sides of the benchmark speak it: 1.3, one cipher suite, one group, one certificate.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    server::ServerSessionMemoryCache,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use crate::Result;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

/// A server with the certificate and the key in these files, offering `alpn`. It keeps sessions as shlogin's gateway
/// does: in memory, with one ticket per handshake.
///
/// # Errors
/// Where the files can't be used.
pub fn server(certificate: &Path, key: &Path, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = ServerSessionMemoryCache::new(64);
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Whether a client comes back with a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tickets {
    /// It does where it has one.
    Used,
    /// Each of its handshakes is a full one.
    Ignored,
}

/// A client that trusts the one certificate in this file. It remembers sessions for itself alone.
///
/// # Errors
/// Where the file can't be used.
pub fn client(certificate: &Path, tickets: Tickets) -> Result<Arc<ClientConfig>> {
    let provider = provider();
    let certificate = CertificateDer::from_pem_file(certificate)?;
    let pinned = Pinned { certificate, provider: Arc::clone(&provider), shown: AtomicUsize::new(0) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = match tickets {
        Tickets::Used => Resumption::in_memory_sessions(8),
        Tickets::Ignored => Resumption::disabled(),
    };
    Ok(Arc::new(config))
}

/// Trusts one certificate, and has its key proved once in a while. To check a signature takes longer than to make it, no
/// server can know whether it will be, and the client is to be the cheaper side.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
    shown: AtomicUsize,
}

/// Of so many signatures, one is checked.
const CHECKED: usize = 16;

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("not the benchmark's certificate".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        if !self.shown.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKED) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
