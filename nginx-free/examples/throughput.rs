//! What one channel of a trunk carries over TCP's loopback, and what TLS and a lasting stream below it cost.
//!
//! `cargo run --release -p nginx-free --example throughput [MIB [MESSAGES [WAY]]]`: all of it on one thread, both ends
//! included, with an app that is reached by TCP at the far one. On each of 16 channels at once, as many messages of 1,200
//! bytes are asked for. `WAY` picks the ways whose names have it in them.
use std::{env, error::Error, fs, io, sync::Arc, time::Instant};

use nginx_free::{
    lasting::{Lasting, LastingLimits, lasting},
    trunk::{Channel, Trunk, TrunkLimits, serve},
};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs, version::TLS13};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// What is written and read at once.
const PIECE: usize = 64 * 1024;
/// Channels at once for messages.
const CHANNELS: u64 = 16;
const MESSAGE: usize = 1200;
const QUESTION: usize = 200;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut words = env::args().skip(1);
    let mib = words.next().map_or(Ok(1024), |text| text.parse::<u64>())?;
    let messages = words.next().map_or(Ok(5000), |text| text.parse::<u64>())?;
    let way = words.next().unwrap_or_default();
    let load = Load { mib, messages };
    let picked = |name: &str| name.contains(&way).then(|| name.to_owned());
    if let Some(name) = picked("TCP") {
        let (theirs, ours) = loopback().await?;
        report(&name, load, ours, theirs).await?;
    }
    if let Some(name) = picked("TLS") {
        let (theirs, ours) = encrypted().await?;
        report(&name, load, ours, theirs).await?;
    }
    if let Some(name) = picked("TLS, lasting") {
        let (theirs, ours) = encrypted().await?;
        report(&name, load, carried(ours), carried(theirs)).await?;
    }
    if let Some(name) = picked("TCP, trunk") {
        let (theirs, ours) = loopback().await?;
        channels(&name, load, ours, theirs).await?;
    }
    if let Some(name) = picked("TCP, lasting, trunk") {
        let (theirs, ours) = loopback().await?;
        let (ours, theirs) = (BufReader::with_capacity(PIECE, ours), BufReader::with_capacity(PIECE, theirs));
        channels(&name, load, carried(ours), carried(theirs)).await?;
    }
    if let Some(name) = picked("TLS, lasting, trunk") {
        let (theirs, ours) = encrypted().await?;
        channels(&name, load, carried(ours), carried(theirs)).await?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Load {
    mib: u64,
    messages: u64,
}

async fn loopback() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let theirs = TcpStream::connect(listener.local_addr()?).await?;
    let (ours, _) = listener.accept().await?;
    theirs.set_nodelay(true)?;
    ours.set_nodelay(true)?;
    Ok((theirs, ours))
}

/// The first dials.
async fn encrypted() -> Result<(TlsStream<TcpStream>, TlsStream<TcpStream>), Failure> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let mut trusted = RootCertStore::empty();
    trusted.add(made.cert.der().clone())?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let (theirs, ours) = loopback().await?;
    let connector = TlsConnector::from(Arc::new(client));
    let (theirs, ours) = tokio::try_join!(
        connector.connect(ServerName::try_from("localhost").map_err(io::Error::other)?, theirs),
        TlsAcceptor::from(Arc::new(server)).accept(ours),
    )?;
    Ok((theirs.into(), ours.into()))
}

/// A lasting stream over this one connection.
fn carried<C: AsyncBufRead + AsyncWrite + Send + Unpin + 'static>(connection: C) -> Lasting {
    let (stream, mut carrier) = lasting(LastingLimits::default());
    tokio::spawn(async move { carrier.carry_buffered(connection).await });
    stream
}

/// Channels to an app at the other end.
async fn channels<S>(what: &str, load: Load, ours: S, theirs: S) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let app = TcpListener::bind("127.0.0.1:0").await?;
    let address = app.local_addr()?;
    tokio::spawn(serve(theirs, TrunkLimits::default(), move |asked| async move {
        let Ok(stream) = TcpStream::connect(address).await else { return };
        if let Ok(channel) = asked.accept() {
            drop(join(channel, stream).await);
        }
    }));
    let trunk = Trunk::over(ours, TrunkLimits::default()).await?;
    let (near, far) = pair(&trunk, &app).await?;
    let (far, near) = bulk(&format!("{what}, up"), load, near, far).await?;
    bulk(&format!("{what}, down"), load, far, near).await?;
    let mut asking = Vec::new();
    for _ in 0..CHANNELS {
        let (mut near, mut far) = pair(&trunk, &app).await?;
        asking.push(async move {
            let answering = tokio::spawn(async move { answer(&mut far, load.messages).await });
            ask(&mut near, load.messages).await?;
            drop(answering.await?);
            Ok::<_, Failure>(())
        });
    }
    let (begun, spent) = (Instant::now(), spent()?);
    let mut tasks: Vec<_> = asking.into_iter().map(tokio::spawn).collect();
    for task in tasks.drain(..) {
        task.await??;
    }
    tell(&format!("{what}, messages"), begun, spent, (CHANNELS * load.messages) as f64, "messages")
}

async fn join(channel: Channel, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    channel.join(stream).await
}

/// A channel, and the app's end of what it leads to.
async fn pair(trunk: &Trunk, app: &TcpListener) -> Result<(Channel, TcpStream), Failure> {
    let (near, far) = tokio::join!(trunk.open("app:1"), app.accept());
    let (far, _) = far?;
    far.set_nodelay(true)?;
    Ok((near?, far))
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, messages: u64) -> io::Result<()> {
    let mut message = vec![0; MESSAGE];
    for _ in 0..messages {
        stream.write_all(&[7; QUESTION]).await?;
        stream.read_exact(&mut message).await?;
    }
    Ok(())
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, messages: u64) -> io::Result<()> {
    let mut question = vec![0; QUESTION];
    for _ in 0..messages {
        stream.read_exact(&mut question).await?;
        stream.write_all(&[7; MESSAGE]).await?;
    }
    Ok(())
}

async fn report<N, F>(what: &str, load: Load, near: N, far: F) -> Result<(), Failure>
where
    N: AsyncWrite + Unpin + Send + 'static,
    F: AsyncRead + Unpin,
{
    bulk(what, load, near, far).await.map(drop)
}

async fn bulk<N, F>(what: &str, load: Load, mut near: N, mut far: F) -> Result<(F, N), Failure>
where
    N: AsyncWrite + Unpin + Send + 'static,
    F: AsyncRead + Unpin,
{
    let (begun, spent) = (Instant::now(), spent()?);
    let total = load.mib << 20;
    let writing = tokio::spawn(async move {
        let piece = vec![7; PIECE];
        for _ in 0..total / PIECE as u64 {
            near.write_all(&piece).await?;
        }
        near.flush().await?;
        Ok::<_, io::Error>(near)
    });
    let (mut buffer, mut read) = (vec![0; PIECE], 0);
    while read < total {
        match far.read(&mut buffer).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => read += count as u64,
        }
    }
    let near = writing.await??;
    tell(what, begun, spent, read as f64 / f64::from(1 << 20), "MiB")?;
    Ok((far, near))
}

fn tell(what: &str, begun: Instant, before: f64, done: f64, unit: &str) -> Result<(), Failure> {
    let took = spent()? - before;
    let rate = done / begun.elapsed().as_secs_f64();
    println!("{what}: {rate:.0} {unit}/s, {:.1} µs of processor time each", took / done * 1e6);
    Ok(())
}

/// Seconds of processor time of this thread.
fn spent() -> Result<f64, Failure> {
    let told = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(told.split(' ').next().unwrap_or_default().parse::<f64>()? / 1e9)
}
