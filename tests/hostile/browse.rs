//! Somebody who works on while others attack: this binary, run again on the node as the session's owner. It loads pages
//! as a browser does, over fresh connections of HTTP/2 and over kept ones, and says how long each answer took.

use std::{
    error::Error,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Bytes,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpStream,
    signal::unix::{SignalKind, signal},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    app,
    harness::http::{Gate, client_config},
};

/// The word in `argv[1]` for this role; then a URL with a token, the address to connect to, how many pages to load.
pub(crate) const ROLE: &str = "@browse";
/// What it says once it has seen a page.
pub(crate) const WORKS: &str = "works";

/// Between two pages.
const PAUSE: Duration = Duration::from_millis(100);
/// What a page is made of.
const ASSETS: usize = 6;
/// A person would have gone by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// How long each answer took, in microseconds, in order of size; with the connection's making where it is fresh.
    waits: Vec<u64>,
    /// What did not work.
    pub(crate) failures: Vec<String>,
    /// The gateway's counters, at the end.
    metrics: String,
}

impl Seen {
    /// How long so many of a hundred answers took at most.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let at = (self.waits.len() * percent).div_ceil(100).saturating_sub(1);
        Duration::from_micros(self.waits[at])
    }

    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    /// How many answers there were.
    pub(crate) fn answers(&self) -> usize {
        self.waits.len()
    }

    /// One of the gateway's counters, by its name without the prefix.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let value = |line: &str| {
            line.strip_prefix("nginx_free_")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()
        };
        self.metrics.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {}", self.metrics))
    }
}

/// The role: works until it is asked to end, or has loaded so many pages.
pub(crate) fn run(url: &str, address: &str, pages: &str) {
    let (address, pages) = (address.parse().unwrap(), pages.parse().unwrap());
    let mut gate = Gate::at(address, url);
    gate.sign_in(url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut seen = runtime.block_on(work(&gate, address, pages));
    seen.waits.sort_unstable();
    seen.metrics = gate.get("/-/metrics").text();
    println!("{}", serde_json::to_string(&seen).unwrap());
}

async fn work(gate: &Gate, address: SocketAddr, pages: usize) -> Seen {
    let mut told_to_end = signal(SignalKind::terminate()).unwrap();
    let mut seen = Seen { waits: Vec::new(), failures: Vec::new(), metrics: String::new() };
    let browser = Browser {
        address,
        authority: gate.authority.clone(),
        cookie: gate.cookies.join("; "),
        http1: Arc::new(client_config(&[b"http/1.1"])),
        http2: Arc::new(client_config(&[b"h2"])),
    };
    let mut kept = browser.kept().await;
    let mut next = tokio::time::interval(PAUSE);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for page in 0..pages {
        tokio::select! {
            _ = next.tick() => {}
            _ = told_to_end.recv() => break,
        }
        seen.note(browser.page().await);
        match &mut kept {
            Ok(kept) => seen.note(browser.ask_kept(kept).await),
            Err(error) => seen.note(Err(std::mem::replace(error, "no connection is kept".into()))),
        }
        if page == 0 {
            println!("{WORKS}");
        }
    }
    seen
}

impl Seen {
    fn note(&mut self, waits: Result<Vec<Duration>>) {
        match waits {
            Ok(waits) => self.waits.extend(waits.iter().map(|wait| u64::try_from(wait.as_micros()).unwrap())),
            Err(error) => self.failures.push(error.to_string()),
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Ask1 = http1::SendRequest<Empty<Bytes>>;
type Ask2 = http2::SendRequest<Empty<Bytes>>;

struct Browser {
    address: SocketAddr,
    authority: String,
    cookie: String,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Browser {
    async fn connect(&self, config: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name = ServerName::try_from(name.to_owned())?;
        Ok(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)
    }

    async fn speak2(&self) -> Result<Ask2> {
        let io = TokioIo::new(self.connect(&self.http2).await?);
        let (ask, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(ask)
    }

    async fn kept(&self) -> Result<(Ask1, Ask2)> {
        let io = TokioIo::new(self.connect(&self.http1).await?);
        let (ask, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok((ask, self.speak2().await?))
    }

    fn get(&self, path: &str) -> http::request::Builder {
        Request::get(path).header(header::COOKIE, &self.cookie)
    }

    /// One page over a fresh connection, then all that it is made of at once.
    async fn page(&self) -> Result<Vec<Duration>> {
        let begun = Instant::now();
        let mut ask = in_time(self.speak2()).await?;
        let url = |path| format!("https://{}{path}", self.authority);
        let page = self.get(&url("/")).body(Empty::new())?;
        body(ask.send_request(page), app::PAGE).await?;
        let mut waits = vec![begun.elapsed()];
        let mut assets = tokio::task::JoinSet::new();
        for _ in 0..ASSETS {
            let asset = self.get(&url("/asset")).body(Empty::new())?;
            let (begun, sent) = (Instant::now(), ask.send_request(asset));
            assets.spawn(async move {
                let came = body(sent, app::ASSET).await.map_err(|error| error.to_string());
                came.map(|()| begun.elapsed())
            });
        }
        while let Some(asset) = assets.join_next().await {
            waits.push(asset??);
        }
        Ok(waits)
    }

    async fn ask_kept(&self, (ask1, ask2): &mut (Ask1, Ask2)) -> Result<Vec<Duration>> {
        let begun = Instant::now();
        in_time(async { Ok(ask1.ready().await?) }).await?;
        let request = self.get("/asset").header(header::HOST, &self.authority).body(Empty::new())?;
        body(ask1.send_request(request), app::ASSET).await?;
        let (first, begun) = (begun.elapsed(), Instant::now());
        let request = self.get(&format!("https://{}/asset", self.authority)).body(Empty::new())?;
        body(ask2.send_request(request), app::ASSET).await?;
        Ok(vec![first, begun.elapsed()])
    }
}

/// The whole of an answer, which is one of the app's.
async fn body(
    sent: impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
    length: usize,
) -> Result<()> {
    let whole = async {
        let answer = sent.await?;
        let status = answer.status();
        let came = answer.into_body().collect().await?.to_bytes().len();
        if status != 200 || came != length {
            return Err(format!("{status} with {came} bytes").into());
        }
        Ok(())
    };
    in_time(whole).await
}

async fn in_time<T>(doing: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, doing).await?
}
