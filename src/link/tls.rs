//! Keys made for one session, and TLS between their two holders.

use std::{fmt, str::FromStr, sync::Arc};

use nix::unistd::geteuid;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    },
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::pin;

/// What is spoken above TLS (RFC 7301).
const PROTOCOL: &[u8] = b"shlogin-link/1";
/// What a connection's own number is derived for (RFC 8446 §7.5, RFC 5705).
const BINDING: &[u8] = b"EXPORTER-shlogin-link-1";

/// SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of this certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is no fingerprint.
#[derive(Debug, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits")]
pub struct InvalidFingerprint;

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 64 || !text.is_ascii() {
            return Err(InvalidFingerprint);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            let digits = text.get(at..at + 2).ok_or(InvalidFingerprint)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = InvalidFingerprint;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It could not be made.
    #[error("cannot make a key for the link: {0}")]
    Make(#[from] rcgen::Error),
    /// What is kept of it is none.
    #[error("the link's key cannot be read: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// TLS cannot use it.
    #[error("the link's key cannot be used: {0}")]
    Tls(#[from] Error),
}

/// A certificate with its key, whose only word is its fingerprint.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn make() -> Result<Self, IdentityError> {
        Self::from_pem(Self::make_pem()?.as_bytes())
    }

    /// A new one, as text that [`Identity::from_pem`] reads. It holds the key.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn make_pem() -> Result<Zeroizing<String>, IdentityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(vec!["shlogin-link".to_owned()])?.self_signed(&key)?;
        let secret = Zeroizing::new(key.serialize_pem());
        Ok(Zeroizing::new(format!("{}{}", certificate.pem(), *secret)))
    }

    /// One that was kept.
    ///
    /// # Errors
    /// [`IdentityError::Pem`].
    pub fn from_pem(text: &[u8]) -> Result<Self, IdentityError> {
        Ok(Self {
            certificate: CertificateDer::from_pem_slice(text)?,
            key: PrivateKeyDer::from_pem_slice(text)?,
        })
    }

    /// What the other end knows it by.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The gateway's TLS: 1.3, for clients that have a certificate, whichever it is.
    ///
    /// # Errors
    /// [`IdentityError::Tls`].
    pub fn server(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let provider = provider();
        let anybody = Anybody(provider.signature_verification_algorithms);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(anybody))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Each connection is proven by the keys themselves.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// The host's TLS: 1.3, with the holder of one certificate and nobody else.
    ///
    /// # Errors
    /// [`IdentityError::Tls`].
    pub fn client(&self, gateway: Fingerprint) -> Result<Arc<ClientConfig>, IdentityError> {
        let provider = provider();
        let only = pin::only(move |certificate| Fingerprint::of(certificate) == gateway, &provider);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(only)
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// The TLS of somebody who has no certificate: no gateway takes it.
///
/// # Errors
/// [`IdentityError::Tls`].
pub fn without_certificate(gateway: Fingerprint) -> Result<Arc<ClientConfig>, IdentityError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let only = pin::only(move |certificate| Fingerprint::of(certificate) == gateway, &provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(only)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// AWS-LC's, with AES-128-GCM first of what is offered: a sixth to a fourth cheaper than AES-256 at each end, and no weaker than
/// the P-256 keys that it is agreed with.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The name that TLS wants to have; nobody looks at it.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// What is this connection's alone, and the same at both of its ends.
///
/// # Errors
/// Before the handshake is done.
pub fn binding<D>(connection: &rustls::ConnectionCommon<D>) -> Result<String, Error> {
    let number = connection.export_keying_material([0_u8; 32], BINDING, None)?;
    Ok(format!("{} {}", geteuid(), number.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

/// Takes every client that holds the key of its certificate: whose it is, is judged afterwards.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, ConnectionCommon, ServerConnection};

    use super::*;

    fn hand_over<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets().unwrap();
        }
    }

    #[test]
    fn both_ends_agree_on_aes_128() {
        let (gateway, host) = (Identity::make().unwrap(), Identity::make().unwrap());
        let mut server = ServerConnection::new(gateway.server().unwrap()).unwrap();
        let client = host.client(gateway.fingerprint()).unwrap();
        let mut client = ClientConnection::new(client, server_name()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            hand_over(&mut client, &mut server);
            hand_over(&mut server, &mut client);
        }
        for agreed in [client.negotiated_cipher_suite(), server.negotiated_cipher_suite()] {
            assert_eq!(agreed.unwrap().suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        }
    }
}
