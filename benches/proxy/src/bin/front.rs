//! nginx-free with all it offers switched on: TLS, HTTP/2, a judge that looks a session up, hooks, an access log.
//!
//! One thread, like one worker of nginx. SIGTERM ends it in an orderly way.
#![forbid(unsafe_code)]

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufWriter, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest;
use http::{Response, StatusCode, header, response};
use nginx_free::{
    Admit, Body, Dial, Gate, Head, Hooks, Limits, Listener, Proxy, Upstream, Verdict, cookies,
    log::{Format, Lines},
};
use proxy_bench::{COOKIE, Result, arguments::Arguments, tls};
use tokio::{
    net::{TcpSocket, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::MissedTickBehavior,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse(std::env::args().skip(1))?;
    let app: SocketAddr = arguments.required("app")?;
    let certificate: PathBuf = arguments.required("cert")?;
    let key: PathBuf = arguments.required("key")?;
    let token: String = arguments.required("token")?;
    let log: PathBuf = arguments.required("log")?;
    arguments.end()?;

    let log = Log(Arc::new(Mutex::new(BufWriter::with_capacity(64 * 1024, File::create(log)?))));
    let writer = log.clone();
    tokio::spawn(flush_each_second(log));

    let limits = Limits {
        connections: 20_000,
        connections_per_peer: 20_000,
        requests: 20_000,
        requests_per_peer: 20_000,
        pool: 512,
        // what nginx has, too
        pool_idle: Duration::from_secs(60),
        // bounds the idle time as well, and the idle connections are to be seen while they are idle
        head: Duration::from_secs(600),
        idle: Duration::from_secs(600),
        ..Limits::default()
    };
    let door = Door {
        sessions: HashSet::from([hash(token.as_bytes())]),
        upstream: Upstream::new(App(app), limits.clone()),
        hooks: Arc::new(Hooks {
            hides_cookie: Some(Box::new(|name| name == COOKIE.as_bytes())),
            edit_answer: Some(Box::new(keep_our_cookie)),
            on_failure: None,
        }),
    };
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(4096)?;
    println!("port {}", listener.local_addr()?.port());
    let listener = Listener::tcp(listener).with_tls(tls::server(&certificate, &key, &[b"h2", b"http/1.1"])?);
    let (running, closing) = watch::channel(false);
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminated.recv().await;
        running.send_replace(true);
    });
    Proxy::new(door, limits).with_access_log(Lines::new(Format::Text, writer)).serve(listener, closing).await;
    Ok(())
}

/// How the app is reached.
struct App(SocketAddr);

impl Dial for App {
    type Stream = TcpStream;

    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Lets in who has a session. Only its hash is kept, so that finding it tells nothing of it by the time it takes.
struct Door {
    sessions: HashSet<[u8; 32]>,
    upstream: Arc<Upstream<App>>,
    hooks: Arc<Hooks>,
}

impl Admit for Door {
    type Dial = App;

    async fn admit<'r>(&self, head: &Head<'_>, gate: Gate<'r>) -> Verdict<'r, App> {
        let known =
            cookies::values(head.fields, COOKIE.as_bytes()).any(|token| self.sessions.contains(&hash(token)));
        if known {
            return Verdict::Forward(gate.open(&self.upstream).with(&self.hooks));
        }
        let mut answer = Response::new(Body::full("no session\n"));
        *answer.status_mut() = StatusCode::FORBIDDEN;
        Verdict::Answer(answer)
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    hash
}

/// The app may set every cookie but ours.
fn keep_our_cookie(head: &mut response::Parts) {
    let ours = |value: &header::HeaderValue| value.as_bytes().starts_with(COOKIE.as_bytes());
    if !head.headers.get_all(header::SET_COOKIE).iter().any(ours) {
        return;
    }
    let all: Vec<_> = head.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    head.headers.remove(header::SET_COOKIE);
    for value in all.into_iter().filter(|value| !ours(value)) {
        head.headers.append(header::SET_COOKIE, value);
    }
}

/// A log that is written when 64 KiB are full, and each second: nginx's `buffer=64k flush=1s`.
#[derive(Clone)]
struct Log(Arc<Mutex<BufWriter<File>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

async fn flush_each_second(mut log: Log) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        if let Err(error) = log.flush() {
            eprintln!("front: the access log cannot be written: {error}");
        }
    }
}
