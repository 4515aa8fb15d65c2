//! What is negotiated: nothing that is weak, nothing that is there for the sake of old clients. OpenSSH has had all of it
//! since 2014.

use std::{borrow::Cow, time::Duration};

use russh::{
    Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex,
    keys::{Algorithm, PrivateKey},
    mac, server,
};

use super::inbound::WINDOW;

/// Key exchanges, the best first. The last is no exchange: it makes the sequence numbers strict, which is what keeps a man
/// in the middle from cutting off the beginning (CVE-2023-48795).
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// The client's order decides; its first is fast wherever the processor knows AES.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// For those of the ciphers that have none of their own: over what is encrypted.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// A connection that is silent is asked whether it lives, and after three questions without an answer it does not.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const UNANSWERED: usize = 3;

/// A client that takes nothing of what it asked for is gone after this.
const INACTIVITY: Duration = Duration::from_secs(75);

/// How long it takes to hear that one is refused, whatever the reason.
const REFUSAL: Duration = Duration::from_millis(250);

/// "none", and six that count (OpenSSH's `MaxAuthTries`).
const ATTEMPTS: usize = 7;

/// As much encrypted under one key as OpenSSH allows, and as long.
const REKEY_BYTES: usize = 1 << 30;
const REKEY_TIME: Duration = Duration::from_secs(3600);

/// The most data in one packet: OpenSSH's.
const PACKET: u32 = 32 * 1024;

/// So many messages of channels may wait to be encrypted. Each is a packet at most, so this bounds a connection's memory,
/// and how long others on this thread wait while it is written.
const UNDER_WAY: usize = 32;

/// A server's configuration for clients who prove who they are by `methods`.
pub(super) fn config(key: PrivateKey, methods: &[MethodKind]) -> server::Config {
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-shlogin_", env!("CARGO_PKG_VERSION")))),
        methods: MethodSet::from(methods),
        auth_rejection_time: REFUSAL,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        certificates: Vec::new(),
        limits: Limits::new(REKEY_BYTES, REKEY_BYTES, REKEY_TIME),
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        // Not used: `Connection` reads no channel, it is handed all data.
        channel_buffer_size: 1,
        event_buffer_size: UNDER_WAY,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(&[Algorithm::Ed25519]),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        max_auth_attempts: ATTEMPTS,
        inactivity_timeout: Some(INACTIVITY),
        keepalive_interval: Some(KEEP_ALIVE),
        keepalive_max: UNANSWERED,
        nodelay: true,
    }
}
