//! The gateway from outside, over TLS, with an app behind it that shows what it was sent.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nginx_free::{Dial, log::Events};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
};

use super::{Gateway, Options, Phase, Restart, Seen, admission, certificate, query};
use crate::{
    activity::Activity,
    host::{AppSpec, Host, Link, LocalHost},
    sandbox::{Footprint, SandboxSpec},
    share::{Guests, Terms},
    sys::message,
    terminal::{TerminalId, Terminals},
    words::{Access, Isolation, Network, SessionId, TmpMode},
};

mod restart;

struct Loopback(SocketAddr);

impl Dial for Loopback {
    type Stream = tokio::net::TcpStream;

    async fn dial(&self) -> io::Result<tokio::net::TcpStream> {
        tokio::net::TcpStream::connect(self.0).await
    }
}

/// The terminals of a session in which nothing can be run: init does not answer.
fn no_terminals(folder: &std::path::Path) -> (Terminals, std::os::fd::OwnedFd) {
    let (ours, init) = message::pair().unwrap();
    let path = |name: &str| folder.join(name);
    let footprint = Footprint { session: path("session"), scratch: path("scratch"), lock: path("lock") };
    let sandbox = SandboxSpec {
        isolation: Isolation::Namespace,
        network: Network::Isolated,
        tmp: TmpMode::Private,
        footprint,
        cover: path("runtime"),
        keep: Vec::new(),
        resolvers: Vec::new(),
        helper: None,
    };
    let app = AppSpec {
        container: None,
        args: Vec::new(),
        env: Vec::new(),
        extra_env: Vec::new(),
        cwd: path(""),
        umask: 0o077,
    };
    let link = Link::open(ours, Vec::new()).unwrap();
    let host = LocalHost::new(link, &sandbox, app, Vec::new(), "/bin/sh".into());
    (Terminals::new(Arc::new(Host::Local(Arc::new(host))), Activity::default()), init)
}

struct Running {
    gateway: Arc<Gateway<Loopback>>,
    guests: Guests,
    _init: std::os::fd::OwnedFd,
    address: SocketAddr,
    folder: PathBuf,
    client: Arc<ClientConfig>,
    phase: watch::Sender<Phase>,
    restarts: Option<mpsc::Receiver<Restart>>,
    log_length: watch::Sender<u64>,
    _closing: watch::Sender<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An app that answers with the head it was sent, and tries to set cookies that are not its own.
async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                if head.windows(9).any(|part| part == b"websocket") {
                    // The answer to the key that these tests send.
                    let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSet-Cookie: __Host-shlogin-0=x\r\n\
                                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
                    stream.write_all(format!("HTTP/1.1 101 Hi\r\n{fields}\r\n").as_bytes()).await?;
                    return stream.write_all(&head).await;
                }
                let fields = "Set-Cookie: own=1\r\nSet-Cookie: __Host-shlogin-0=x; Path=/; Secure\r\n\
                              Set-Cookie: wide=1; Domain=example\r\nClear-Site-Data: \"*\"\r\nAlt-Svc: h3=\":1\"\r\n";
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\n{fields}Connection: close\r\n\r\n").as_bytes())
                    .await?;
                stream.write_all(&head).await
            });
        }
    });
    address
}

async fn running(phase: Phase) -> Running {
    let folder = std::env::temp_dir().join(format!("shlogin-gateway-{}", SessionId::random()));
    let certificate = certificate::load_or_create(&folder, &["node.example".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("gateway.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let options = Options {
        session: SessionId::random(),
        name: "notes".parse().unwrap(),
        names: vec!["node.example".to_owned(), "localhost".to_owned()],
        token_lifetime: Duration::from_secs(600),
        cookie_lifetime: Duration::from_secs(3600),
        bind_cookie: true,
        server_timing: false,
        log: folder.join("log"),
    };
    let (phase, phase_seen) = watch::channel(phase);
    let (log_length, length_seen) = watch::channel(0);
    let (closing, closed) = watch::channel(false);
    let dial = Loopback(echo().await);
    let (terminals, init) = no_terminals(&folder);
    let guests = Guests::new(true, |_, _| {});
    let (_, ends) = watch::channel(None);
    let (restart, restarts) = mpsc::channel(1);
    let activity = Activity::counting();
    let seen = Seen {
        phase: phase_seen,
        log_len: length_seen,
        terminals,
        guests: guests.clone(),
        ends,
        restart,
        activity,
    };
    let gateway = Gateway::new(options, certificate.server_config(), dial, seen, Events);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Arc::clone(&gateway).serve_tcp(listener, closed));
    let client = Arc::new(client);
    Running {
        gateway,
        guests,
        _init: init,
        address,
        folder,
        client,
        phase,
        restarts: Some(restarts),
        log_length,
        _closing: closing,
    }
}

impl Running {
    /// Sends one request and returns all that comes.
    async fn ask(&self, request: &str) -> String {
        self.ask_from("127.0.0.1", request).await
    }

    /// The same, over a connection from another loopback address.
    async fn ask_from(&self, from: &str, request: &str) -> String {
        let (address, client, from) = (self.address, Arc::clone(&self.client), from.to_owned());
        let request = request.replace('\n', "\r\n") + "Connection: close\r\n\r\n";
        tokio::task::spawn_blocking(move || {
            let socket = connect_from(&from, address);
            let name = ServerName::try_from("node.example").unwrap();
            let mut stream = StreamOwned::new(ClientConnection::new(client, name).unwrap(), socket);
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            // A close without an alert is an end, too.
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        })
        .await
        .unwrap()
    }

    /// Signs in, and returns the cookie as a browser sends it.
    async fn sign_in(&self) -> String {
        let token = self.gateway.issue().unwrap();
        let answer =
            self.ask(&format!("GET /lab?a=1&token={} HTTP/1.1\nHost: node.example\n", token.reveal())).await;
        assert_eq!(status(&answer), 303, "{answer}");
        field(&answer, "set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }
}

/// From one of the many addresses that loopback has.
fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let from: SocketAddr = format!("{from}:0").parse().unwrap();
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    bind(socket.as_raw_fd(), &SockaddrIn::from(from)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    TcpStream::from(socket)
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[tokio::test]
async fn a_token_becomes_a_cookie_and_a_clean_url() {
    let running = running(Phase::Running).await;
    let token = running.gateway.issue().unwrap();
    let with_token = format!("GET /lab?a=1&token={} HTTP/1.1\nHost: node.example\n", token.reveal());

    let answer = running.ask(&with_token.replacen("GET", "HEAD", 1)).await;
    assert_eq!(status(&answer), 401, "a HEAD spends nothing");
    let answer = running.ask(&format!("{with_token}Sec-Purpose: prefetch\n")).await;
    assert_eq!(status(&answer), 503, "a prefetch spends nothing");

    let answer = running.ask(&with_token).await;
    assert_eq!(status(&answer), 303);
    assert_eq!(field(&answer, "location"), Some("/lab?a=1"));
    assert_eq!(field(&answer, "referrer-policy"), Some("no-referrer"));
    assert_eq!(field(&answer, "cache-control"), Some("no-store"));
    let set = field(&answer, "set-cookie").unwrap();
    assert!(set.starts_with("__Host-shlogin-"), "{set}");
    for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(set.contains(attribute), "{set}");
    }
    let cookie = set.split(';').next().unwrap();

    let answer = running.ask(&with_token).await;
    assert_eq!(status(&answer), 403, "a token opens once");
    assert!(answer.contains("shlogin url NAME") && !answer.contains("node.example"), "{answer}");
    let answer = running.ask(&format!("{with_token}Cookie: {cookie}\n")).await;
    assert_eq!((status(&answer), field(&answer, "location")), (303, Some("/lab?a=1")), "a reload goes on");

    let another = running.gateway.issue().unwrap();
    let with_another = with_token.replace(token.reveal(), another.reveal());
    let answer = running.ask(&format!("{with_another}Cookie: {cookie}\n")).await;
    assert_eq!((status(&answer), field(&answer, "set-cookie")), (303, None));
    assert_eq!(status(&running.ask(&with_another).await), 403, "whoever presents it, a token opens once");
}

#[tokio::test]
async fn the_app_is_sent_neither_token_nor_cookie_of_ours_and_can_set_none() {
    let running = running(Phase::Running).await;
    let cookie = running.sign_in().await;
    let answer = running
        .ask(&format!(
            "GET /lab?token=jupyters HTTP/1.1\nHost: node.example\nCookie: a=1; {cookie}; __Host-shlogin-other=2; b=3\n"
        ))
        .await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("GET /lab?token=jupyters HTTP/1.1"), "an app's own token is its own: {answer}");
    assert!(answer.contains("cookie: a=1; b=3\r\n"), "{answer}");
    assert!(answer.contains("x-forwarded-proto: https") && answer.contains("x-forwarded-for: 127.0.0.1"));
    assert!(answer.contains("set-cookie: own=1"), "{answer}");
    let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
    for gone in ["shlogin", "wide", "clear-site-data", "alt-svc"] {
        assert!(!head.contains(gone), "{gone}: {head}");
    }
}

#[tokio::test]
async fn its_owner_can_read_what_the_gateway_counts() {
    let running = running(Phase::Running).await;
    let get = "GET /-/metrics HTTP/1.1\nHost: node.example\n";
    assert_eq!(status(&running.ask(get).await), 401);
    let cookie = running.sign_in().await;
    let answer = running.ask(&format!("{get}Cookie: {cookie}\n")).await;
    assert_eq!(field(&answer, "content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(answer.contains("nginx_free_answers_total{class=\"4xx\"} 1\n"), "{answer}");
    let post = get.replacen("GET", "POST", 1);
    assert_eq!(status(&running.ask(&format!("{post}Cookie: {cookie}\n")).await), 405);
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let running = running(Phase::Running).await;
    let cookie = running.sign_in().await;
    let get = format!("GET / HTTP/1.1\nHost: node.example\nCookie: {cookie}\n");
    assert_eq!(status(&running.ask(&get).await), 200);
    assert_eq!(
        status(&running.ask_from("127.0.0.9", &get).await),
        401,
        "a cookie is good where it was fetched"
    );
    let without = running.ask("GET / HTTP/1.1\nHost: node.example\n").await;
    assert_eq!(status(&without), 401);
    assert!(!without.contains("GET / HTTP"), "{without}");
    let (name, value) = cookie.split_once('=').unwrap();
    let wrong = format!("{name}={}", value.chars().rev().collect::<String>());
    assert_eq!(status(&running.ask(&get.replace(&cookie, &wrong)).await), 401);
    assert_eq!(status(&running.ask(&get.replace("node.example", "rebound.example")).await), 421);
    assert_eq!(status(&running.ask(&get.replace("node.example", "127.0.0.1:3011")).await), 200);
    assert_eq!(status(&running.ask(&get.replace("node.example", "node.example.")).await), 421);

    for (origin, expected) in [
        ("https://node.example", 200),
        ("https://node.example:3021", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ] {
        let post = get.replacen("GET", "POST", 1) + &format!("Origin: {origin}\nContent-Length: 0\n");
        assert_eq!(status(&running.ask(&post).await), expected, "{origin}");
    }
    for origin in ["https://node.example:3021", "https://evil.example", "null", "http://node.example"] {
        let answer = running.ask(&format!("{get}{SOCKET}Origin: {origin}\n")).await;
        assert_eq!(status(&answer), 403, "{origin}");
    }
}

const SOCKET: &str = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n";

#[tokio::test]
async fn a_websocket_passes_the_same_door() {
    let running = running(Phase::Running).await;
    let cookie = running.sign_in().await;
    let get = format!("GET /ws HTTP/1.1\nHost: node.example\n{SOCKET}");
    assert_eq!(status(&running.ask(&get).await), 401);
    assert_eq!(status(&running.ask(&format!("{get}Origin: https://node.example\n")).await), 401);
    let answer = running
        .ask(&format!("{get}Origin: https://node.example\nCookie: {cookie}; a=1\nX-Forwarded-For: 6.6.6.6\n"))
        .await;
    assert_eq!(status(&answer), 101, "{answer}");
    assert_eq!(field(&answer, "set-cookie"), None, "{answer}");
    assert!(answer.contains("cookie: a=1\r\n") && !answer.contains("6.6.6.6"), "{answer}");
    let token = running.gateway.issue().unwrap();
    let with_token = get.replace("/ws", &format!("/ws?token={}", token.reveal()));
    assert_eq!(status(&running.ask(&with_token).await), 403, "a WebSocket spends no token");
    running.phase.send_replace(Phase::Starting);
    assert_eq!(status(&running.ask(&format!("{get}Cookie: {cookie}\n")).await), 503);
}

/// Threats 34 and 37: a guest's cookie opens the terminal, and nothing else, for as long as he may stay.
#[tokio::test]
async fn threat_37_a_guest_gets_to_his_terminal_and_to_nothing_else() {
    let running = running(Phase::Running).await;
    let lasts = Duration::from_secs(60);
    let terms = Terms { access: Access::Type, lasts, label: None, terminal: TerminalId::from(1) };
    let (guest, code) = running.guests.grant(terms).unwrap();
    let ask = |method: &str, path: &str, cookie: &str| {
        format!("{method} {path} HTTP/1.1\nHost: node.example\nContent-Length: 0\nCookie: {cookie}\n")
    };
    let with_code = format!("/-/terminal?token={}", code.reveal());
    assert_eq!(status(&running.ask(&ask("GET", "/-/terminal", "")).await), 401);
    let answer = running.ask(&ask("GET", &with_code, "")).await;
    assert_eq!((status(&answer), field(&answer, "location")), (303, Some("/-/terminal")), "{answer}");
    let cookie = field(&answer, "set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let elsewhere = running.ask_from("127.0.0.9", &ask("GET", &with_code, "")).await;
    assert_eq!(status(&elsewhere), 403, "a code is one person's");

    assert_eq!(status(&running.ask(&ask("GET", "/-/terminal", &cookie)).await), 200);
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        for path in
            ["/", "/lab", "/-/metrics", "/-/starting/log", "/-/", "/-/terminals", "/terminal/socket", "//"]
        {
            let answer = running.ask(&ask(method, path, &cookie)).await;
            assert!(matches!(status(&answer), 400 | 403 | 404 | 405), "{method} {path}: {answer}");
            assert!(!answer.contains("x-forwarded-for"), "{method} {path} got to the app");
        }
    }
    let socket = |path: &str| format!("{}{SOCKET}Origin: https://node.example\n", ask("GET", path, &cookie));
    let app = running.ask(&socket("/ws")).await;
    assert_eq!(status(&app), 403, "{app}");
    let foreign = socket("/-/terminal/socket").replace("https://node.example", "https://evil.example");
    assert_eq!(status(&running.ask(&foreign).await), 403);
    assert_eq!(running.guests.revoke(&guest.to_string()), 1);
    for path in ["/-/terminal", "/", &with_code] {
        let answer = running.ask(&ask("GET", path, &cookie)).await;
        assert!(matches!(status(&answer), 401 | 403), "{path}: {answer}");
        assert_eq!(field(&answer, "set-cookie"), None);
    }
    assert_eq!(status(&running.ask(&socket("/-/terminal/socket")).await), 401);
}

/// All that is logged in this process, down to the least: a subscriber for one thread misses what other tests' threads
/// have switched off for all.
static LINES: std::sync::LazyLock<Lines> = std::sync::LazyLock::new(|| {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    lines
});

#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_token_nor_cookie_is_in_any_log() {
    let lines = &*LINES;
    let running = running(Phase::Running).await;
    let token = running.gateway.issue().unwrap();
    let get = format!("GET /?token={} HTTP/1.1\nHost: node.example\n", token.reveal());
    let answer = running.ask(&get).await;
    let cookie = field(&answer, "set-cookie").unwrap().split([';', '=']).nth(1).unwrap().to_owned();
    assert_eq!(status(&running.ask(&get).await), 403);
    let text = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(text.contains("status=303"), "nothing was logged");
    assert!(!text.contains(token.reveal()) && !text.contains(&cookie));
}

#[tokio::test]
async fn a_page_follows_the_start_and_tells_the_end() {
    let running = running(Phase::Starting).await;
    let cookie = running.sign_in().await;
    let ask = |path: &str, accept: &str| {
        format!("GET {path} HTTP/1.1\nHost: node.example\nCookie: {cookie}\nAccept: {accept}\n")
    };
    let page = running.ask(&ask("/", "text/html,*/*")).await;
    assert_eq!(status(&page), 200);
    assert!(page.contains("notes is starting") && field(&page, "x-frame-options") == Some("DENY"), "{page}");
    let data = running.ask(&ask("/api", "application/json")).await;
    assert_eq!((status(&data), field(&data, "retry-after")), (503, Some("1")));

    std::fs::write(running.folder.join("log"), "hello <b>\n").unwrap();
    running.log_length.send_replace(10);
    let request = ask("/-/starting/log", "text/event-stream");
    let events = running.ask(&request);
    let then_running = async {
        tokio::task::yield_now().await;
        running.phase.send_replace(Phase::Running);
    };
    let (events, ()) = tokio::join!(events, then_running);
    assert_eq!(field(&events, "content-type"), Some("text/event-stream"));
    assert!(events.contains("data: \"hello <b>\\n\"") && events.contains("event: over"), "{events}");
    let stranger = running.ask("GET /-/starting/log HTTP/1.1\nHost: node.example\n").await;
    assert_eq!(status(&stranger), 401);

    running.phase.send_replace(Phase::Ended { summary: "It exited with status 3 <x>.".to_owned() });
    let page = running.ask(&ask("/", "text/html")).await;
    assert_eq!(status(&page), 410);
    assert!(page.contains("status 3 &lt;x&gt;."), "{page}");
}
