//! A reverse proxy in twenty lines: `cargo run --example reverse_proxy -- 127.0.0.1:8080 127.0.0.1:8888`.

use std::{io, sync::Arc};

use nginx_free::{Admit, Dial, Gate, Head, Limits, Listener, Proxy, Upstream, Verdict};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

struct App(String);

impl Dial for App {
    type Stream = TcpStream;
    async fn dial(&self) -> io::Result<TcpStream> {
        TcpStream::connect(&self.0).await
    }
}

struct Everybody(Arc<Upstream<App>>);

impl Admit for Everybody {
    type Dial = App;
    async fn admit<'r>(&self, _head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, App> {
        Verdict::Forward(gate.open(&self.0))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(app)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: reverse_proxy LISTEN APP"));
    };
    let proxy = Proxy::new(Everybody(Upstream::new(App(app), Limits::default())), Limits::default());
    let (_running, closing) = watch::channel(false);
    proxy.serve(Listener::tcp(TcpListener::bind(listen).await?), closing).await;
    Ok(())
}
