//! What a gateway and a host on another machine cannot do without: one end takes TLS and goes on over TLS of its own, the other
//! takes that and goes on in the clear. No HTTP, no channels, nothing that outlives a connection: a floor for `benches/link.py`,
//! and the second end alone for `benches/proxy`.
//!
//! `--cert FILE --key FILE --to ADDRESS [--listen ADDRESS] [--through tls]`; prints its port.
#![forbid(unsafe_code)]

use std::{io, net::SocketAddr, path::PathBuf};

use nginx_free::tls::{AT_ONCE, Transport};
use proxy_bench::{
    Result,
    arguments::Arguments,
    tls::{self, Tickets},
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse(std::env::args().skip(1))?;
    let (certificate, key): (PathBuf, PathBuf) = (arguments.required("cert")?, arguments.required("key")?);
    let to: SocketAddr = arguments.required("to")?;
    let listen = arguments.optional("listen")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    let encrypted = arguments.optional::<String>("through")?.is_some();
    arguments.end()?;
    let acceptor = TlsAcceptor::from(tls::server(&certificate, &key, &[b"http/1.1"])?);
    let connector = TlsConnector::from(tls::client(&certificate, Tickets::Ignored)?);
    let listener = TcpListener::bind(listen).await?;
    println!("port {}", listener.local_addr()?.port());
    loop {
        let (client, _) = listener.accept().await?;
        let (acceptor, connector) = (acceptor.clone(), connector.clone());
        tokio::spawn(async move {
            let relayed = async {
                client.set_nodelay(true)?;
                let client = acceptor.accept(Transport::new(client)).await?;
                let server = TcpStream::connect(to).await?;
                server.set_nodelay(true)?;
                if !encrypted {
                    return relay(client, server).await;
                }
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                relay(client, connector.connect(name, Transport::new(server)).await?).await
            };
            // Clients that go away are no event.
            let _ = relayed.await;
        });
    }
}

async fn relay<A, B>(mut client: A, mut server: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    copy_bidirectional_with_sizes(&mut client, &mut server, AT_ONCE, AT_ONCE).await?;
    Ok(())
}
