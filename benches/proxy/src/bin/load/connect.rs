//! Connections to what is measured, with TLS or without.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use bytes::BytesMut;
use proxy_bench::{
    Result,
    tls::{self, Tickets},
};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::{
    io::BufReader,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

/// What is measured.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The certificate it has; none where it speaks no TLS.
    pub(crate) certificate: Option<PathBuf>,
    /// Where connections come from; none for sixteen addresses in turn. A session knows who signed in by where she did.
    pub(crate) source: Option<Ipv4Addr>,
}

/// A byte stream, without TLS or with it.
pub(crate) type Stream = Either<TcpStream, TlsStream<BufReader<TcpStream>>>;

/// A connection, with what was read of it and not used.
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) buffer: BytesMut,
}

/// How much is read from a socket at once. rustls alone would read 4 KiB, and the client has to be the cheaper side.
const READ: usize = 64 * 1024;

/// Makes connections to one target.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    source: Option<Ipv4Addr>,
    read: usize,
}

impl Dialer {
    pub(crate) fn new(target: &Target, tickets: Tickets) -> Result<Self> {
        let config: Option<Arc<ClientConfig>> =
            target.certificate.as_deref().map(|path| tls::client(path, tickets)).transpose()?;
        Ok(Self {
            address: target.address,
            tls: config.map(TlsConnector::from),
            source: target.source,
            read: READ,
        })
    }

    /// The same, reading so much at once where there is TLS: a large buffer takes long to make.
    pub(crate) fn reading(self, read: usize) -> Self {
        Self { read, ..self }
    }

    /// Connects. Where no source is told, the `turn` picks one of sixteen addresses, so that ports do not run short.
    pub(crate) async fn dial(&self, turn: usize) -> Result<(Connection, Option<HandshakeKind>)> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        let last = u8::try_from(turn % 16)? + 2;
        let source = self.source.unwrap_or(Ipv4Addr::new(127, 0, 0, last));
        socket.bind((source, 0).into())?;
        let tcp = socket.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let (stream, kind) = self.secure(tcp).await?;
        Ok((Connection { stream, buffer: BytesMut::new() }, kind))
    }

    async fn secure(&self, tcp: TcpStream) -> Result<(Stream, Option<HandshakeKind>)> {
        let Some(connector) = &self.tls else { return Ok((Either::Left(tcp), None)) };
        let name = ServerName::try_from("localhost")?;
        let tls = connector.connect(name, BufReader::with_capacity(self.read, tcp)).await?;
        let kind = tls.get_ref().1.handshake_kind();
        Ok((Either::Right(tls), kind))
    }
}
