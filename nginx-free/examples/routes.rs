//! Many apps under one host, each under a prefix that it knows (`keep`) or does not (`strip`):
//!
//! ```console
//! $ cargo run --example routes -- --listen 127.0.0.1:8443 --cert chain.pem --key key.pem \
//!     --route /lab=keep:127.0.0.1:8888 --route /ide=strip:127.0.0.1:3000
//! listening on 127.0.0.1:8443
//! ```
//!
//! Without a certificate it speaks plain HTTP. It lets everybody in: a real gateway judges in [`Admit::admit`].

use std::{error::Error, io, sync::Arc};

use http::{Response, StatusCode};
use nginx_free::{Admit, Body, Dial, Gate, Head, Limits, Listener, Prefix, Proxy, Routes, Upstream, Verdict};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

struct App(String);

impl Dial for App {
    type Stream = TcpStream;
    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.0).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

struct Everybody(Routes<Arc<Upstream<App>>>);

impl Admit for Everybody {
    type Dial = App;
    async fn admit<'r>(&self, head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, App> {
        match self.0.find(head.path) {
            Some((prefix, upstream)) => Verdict::Forward(gate.open(upstream).under(prefix)),
            None => {
                let mut answer = Response::new(Body::full("nothing is served here\n"));
                *answer.status_mut() = StatusCode::NOT_FOUND;
                Verdict::Answer(answer)
            }
        }
    }
}

#[derive(Default)]
struct Arguments {
    listen: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    routes: Routes<Arc<Upstream<App>>>,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut read = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(option) = words.next() {
            let value = words.next().ok_or_else(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--listen" => read.listen = Some(value),
                "--cert" => read.cert = Some(value),
                "--key" => read.key = Some(value),
                "--route" => {
                    let (path, rest) = value.split_once('=').ok_or("--route PREFIX=keep|strip:HOST:PORT")?;
                    let (prefix, address) = match rest.split_once(':') {
                        Some(("keep", address)) => (Prefix::kept(path)?, address),
                        Some(("strip", address)) => (Prefix::stripped(path)?, address),
                        _ => return Err("--route PREFIX=keep|strip:HOST:PORT".into()),
                    };
                    let upstream = Upstream::new(App(address.to_owned()), Limits::default());
                    read.routes.add(prefix, upstream)?;
                }
                _ => return Err(format!("{option} is not an option").into()),
            }
        }
        Ok(read)
    }
}

fn tls(cert: &str, key: &str) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let arguments = Arguments::read()?;
    let socket = TcpListener::bind(arguments.listen.as_deref().unwrap_or("127.0.0.1:0")).await?;
    println!("listening on {}", socket.local_addr()?);
    let mut listener = Listener::tcp(socket);
    if let (Some(cert), Some(key)) = (&arguments.cert, &arguments.key) {
        listener = listener.with_tls(tls(cert, key)?);
    }
    let limits = Limits { routed_segments: arguments.routes.segments(), ..Limits::default() };
    let proxy = Proxy::new(Everybody(arguments.routes), limits);
    let (end, closing) = watch::channel(false);
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminated.recv().await;
        end.send_replace(true);
    });
    proxy.serve(listener, closing).await;
    Ok(())
}
