//! Trusts one certificate: the one whose SHA-256 the session's record has. Names, dates and issuers say nothing here,
//! for a self-signed certificate has only its own word for them; its key is proven all the same.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

#[derive(Debug)]
struct Pin {
    fingerprint: String,
    algorithms: WebPkiSupportedAlgorithms,
}

/// A client that speaks only to the holder of the certificate with this fingerprint (hexadecimal pairs with colons).
///
/// # Errors
/// Where the cryptographic library has no protocol in common with itself.
pub(super) fn client(fingerprint: &str) -> Result<Arc<ClientConfig>, Error> {
    let provider = aws_lc_rs::default_provider();
    let pin =
        Pin { fingerprint: fingerprint.to_owned(), algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pin))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whether a handshake failed for the certificate's sake.
pub(super) fn is_foreign(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(inner, Some(Error::InvalidCertificate(_)))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if fingerprint(certificate) == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::certificate;
    use crate::verify::scratch::Scratch;

    /// A handshake in memory, between a client that wants `fingerprint` and a server with its certificate in `folder`.
    fn handshake(fingerprint: &str, server: Arc<rustls::ServerConfig>) -> Result<(), Error> {
        let name = ServerName::try_from("whatever.example").unwrap();
        let mut client = rustls::ClientConnection::new(client(fingerprint).unwrap(), name).unwrap();
        let mut server = rustls::ServerConnection::new(server).unwrap();
        while client.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn only_the_one_certificate_is_trusted() {
        let folder = Scratch::new();
        let made = |name: &str| certificate::load_or_create(&folder.path().join(name), &[]).unwrap();
        let (ours, theirs) = (made("ours"), made("theirs"));
        handshake(&ours.fingerprint(), ours.server_config()).unwrap();
        let refused = handshake(&ours.fingerprint(), theirs.server_config()).unwrap_err();
        assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
        assert!(is_foreign(&std::io::Error::other(refused)));
        assert!(handshake("", ours.server_config()).is_err());
    }
}
