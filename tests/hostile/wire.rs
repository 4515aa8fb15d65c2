//! Connections of attackers: TLS, and whatever they like over it.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::http::client_config;

pub(crate) type Stream = TlsStream<TcpStream>;

/// What an attacker runs on.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A TLS connection to the gateway.
///
/// # Panics
/// When there is none: all who attack here are within the limits of connections.
pub(crate) async fn connect(address: SocketAddr, alpn: &[&[u8]]) -> Stream {
    try_connect(address, alpn).await.unwrap()
}

async fn try_connect(address: SocketAddr, alpn: &[&[u8]]) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::new(client_config(alpn))).connect(name, stream).await
}
