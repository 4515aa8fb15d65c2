//! Trusts one certificate: the one whose SHA-256 the session's record has. Names, dates and issuers say nothing here,
//! for a self-signed certificate has only its own word for them; its key is proven all the same.

use std::sync::Arc;

use rustls::{ClientConfig, Error, crypto::aws_lc_rs};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::link::pin;

/// A client that speaks only to the holder of the certificate with this fingerprint (hexadecimal pairs with colons).
///
/// # Errors
/// Where the cryptographic library has no protocol in common with itself.
pub(super) fn client(fingerprint: &str) -> Result<Arc<ClientConfig>, Error> {
    let provider = aws_lc_rs::default_provider();
    let wanted = fingerprint.to_owned();
    let only = pin::only(move |certificate| self::fingerprint(certificate) == wanted, &provider);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(only)
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

#[cfg(test)]
mod tests {
    use rustls_pki_types::ServerName;

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
