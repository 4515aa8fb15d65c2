//! hyper's server and client over rustls, and nothing else: what is left of nginx-free without checks, rules, limits and a log. A
//! floor for `benches/proxy`, and nothing to be put before an app.
//!
//! `--cert FILE --key FILE --to ADDRESS`; prints its port.
#![forbid(unsafe_code)]

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, Response, Uri, Version, header};
use hyper::{body::Incoming, client::conn::http1::SendRequest, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nginx_free::tls::Transport;
use proxy_bench::{Result, arguments::Arguments, tls};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse(std::env::args().skip(1))?;
    let (certificate, key): (PathBuf, PathBuf) = (arguments.required("cert")?, arguments.required("key")?);
    let app = Arc::new(App { address: arguments.required("to")?, idle: Mutex::default() });
    arguments.end()?;
    let acceptor = TlsAcceptor::from(tls::server(&certificate, &key, &[b"h2", b"http/1.1"])?);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("port {}", listener.local_addr()?.port());
    loop {
        let (client, _) = listener.accept().await?;
        let (acceptor, app) = (acceptor.clone(), Arc::clone(&app));
        tokio::spawn(async move {
            // Clients that go away are no event.
            drop(serve(client, acceptor, app).await);
        });
    }
}

async fn serve(client: TcpStream, acceptor: TlsAcceptor, app: Arc<App>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let stream = acceptor.accept(Transport::new(client)).await?;
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let ask = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { app.ask(request).await }
    });
    if speaks_http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(stream), ask).await.map_err(io::Error::other)
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        server.serve_connection(TokioIo::new(stream), ask).await.map_err(io::Error::other)
    }
}

/// The app, and the connections to it, of which the one used last is used next.
struct App {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Incoming>>>,
}

impl App {
    async fn ask(&self, mut request: Request<Incoming>) -> io::Result<Response<Incoming>> {
        let mut connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.dial().await?,
        };
        if request.version() == Version::HTTP_2 {
            let host = request.uri().host().unwrap_or_default().parse().map_err(io::Error::other)?;
            request.headers_mut().insert(header::HOST, host);
            *request.version_mut() = Version::HTTP_11;
        }
        let target = std::mem::take(request.uri_mut()).into_parts().path_and_query;
        *request.uri_mut() = target.map_or_else(Uri::default, Uri::from);
        let answer = connection.send_request(request).await.map_err(io::Error::other)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }

    fn take_idle(&self) -> Option<SendRequest<Incoming>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().rposition(SendRequest::is_ready).map(|last| idle.remove(last))
    }

    async fn dial(&self) -> io::Result<SendRequest<Incoming>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Whoever waits for an answer is told of its end as well.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}
