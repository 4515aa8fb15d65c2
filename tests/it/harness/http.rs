//! A client that says exactly what it is told to: TLS without a look at the certificate, HTTP/1.1 by hand, WebSockets.

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        self.headers.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))?;
        write!(f, "{}", self.text().chars().take(2000).collect::<String>())
    }
}

/// What carries bytes both ways.
pub(crate) trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Where a gateway listens.
#[derive(Clone)]
enum Where {
    Port(SocketAddr),
    Socket(PathBuf),
}

/// A session's gateway, as a browser with its cookies sees it.
#[derive(Clone)]
pub(crate) struct Gate {
    at: Where,
    /// What a browser would send as `Host`.
    pub(crate) authority: String,
    /// `name=value`, as they came.
    pub(crate) cookies: Vec<String>,
}

/// A URL's authority, its path with the query, and the port.
pub(crate) fn split(url: &str) -> (String, String, u16) {
    let rest = url.strip_prefix("https://").unwrap_or_else(|| panic!("{url} is not https"));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(443);
    (authority.to_owned(), format!("/{path}"), port)
}

impl Gate {
    /// The gateway of this URL, on this node, whatever the URL calls the node.
    pub(crate) fn to(url: &str) -> Self {
        let (authority, _, port) = split(url);
        Self { at: Where::Port(([127, 0, 0, 1], port).into()), authority, cookies: Vec::new() }
    }

    /// The gateway at an address, under this URL's name.
    pub(crate) fn at(address: SocketAddr, url: &str) -> Self {
        Self { at: Where::Port(address), authority: split(url).0, cookies: Vec::new() }
    }

    /// The gateway behind a socket.
    pub(crate) fn behind(socket: PathBuf, url: &str) -> Self {
        Self { at: Where::Socket(socket), authority: split(url).0, cookies: Vec::new() }
    }

    /// A TLS connection.
    ///
    /// # Errors
    /// As `connect(2)`, or the handshake's.
    pub(crate) fn connect(&self) -> io::Result<Box<dyn Wire>> {
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        let name =
            ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(Arc::clone(&TLS), name).map_err(io::Error::other)?;
        Ok(match &self.at {
            Where::Port(address) => {
                let mut wire = TcpStream::connect_timeout(address, PATIENCE)?;
                wire.set_read_timeout(Some(PATIENCE))?;
                wire.set_nodelay(true)?;
                session.complete_io(&mut wire)?;
                Box::new(StreamOwned::new(session, wire))
            }
            Where::Socket(path) => {
                let mut wire = UnixStream::connect(path)?;
                wire.set_read_timeout(Some(PATIENCE))?;
                session.complete_io(&mut wire)?;
                Box::new(StreamOwned::new(session, wire))
            }
        })
    }

    /// Sends these bytes and reads one answer. `None` where the connection is closed without one.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Option<Answer> {
        self.try_raw(bytes).unwrap()
    }

    fn try_raw(&self, bytes: &[u8]) -> io::Result<Option<Answer>> {
        let mut wire = self.connect()?;
        wire.write_all(bytes)?;
        wire.flush()?;
        read_answer(&mut wire, bytes.starts_with(b"HEAD "))
    }

    /// A request as a browser would make it, with these headers besides.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = self.try_request(method, path, headers, body).unwrap();
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// The same of a gateway that may be gone, or go meanwhile.
    ///
    /// # Errors
    /// As of the connection.
    pub(crate) fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Option<Answer>> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.authority);
        head += &self.cookie_header();
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        self.try_raw(&[head.as_bytes(), b"\r\n", body].concat())
    }

    /// A plain GET.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    /// The `Cookie` header's line, or nothing.
    pub(crate) fn cookie_header(&self) -> String {
        if self.cookies.is_empty() {
            String::new()
        } else {
            format!("Cookie: {}\r\n", self.cookies.join("; "))
        }
    }

    /// Goes in by a URL with a token, and keeps the cookie. Returns the answer.
    ///
    /// # Panics
    /// When it is not let in.
    pub(crate) fn sign_in(&mut self, url: &str) -> Answer {
        let answer = self.get(&split(url).1);
        assert!((300..400).contains(&answer.status), "{url}: {answer:?}");
        self.keep_cookies(&answer);
        assert!(!self.cookies.is_empty(), "no cookie: {answer:?}");
        answer
    }

    fn keep_cookies(&mut self, answer: &Answer) {
        for (name, value) in &answer.headers {
            if name.eq_ignore_ascii_case("set-cookie") {
                self.cookies.push(value.split(';').next().unwrap_or_default().to_owned());
            }
        }
    }

    /// The address of its own pages' `Origin`.
    pub(crate) fn origin(&self) -> String {
        format!("https://{}", self.authority)
    }

    /// Opens a WebSocket with these headers besides.
    ///
    /// # Errors
    /// The answer, where it is not 101.
    pub(crate) fn websocket(&self, path: &str, headers: &[(&str, &str)]) -> Result<WebSocket, Answer> {
        let mut head = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            self.authority
        );
        head += &self.cookie_header();
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut wire = self.connect().unwrap();
        wire.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        wire.flush().unwrap();
        let answer = read_answer(&mut wire, false).unwrap().expect("an answer");
        if answer.status != 101 {
            return Err(answer);
        }
        // RFC 6455, section 1.3: the answer to the key of its own example
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Ok(WebSocket { wire })
    }
}

/// An open WebSocket.
pub(crate) struct WebSocket {
    wire: Box<dyn Wire>,
}

impl WebSocket {
    /// Sends a text and returns the text that comes back.
    pub(crate) fn ask(&mut self, text: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![0x81];
        match u16::try_from(text.len()).unwrap() {
            short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                frame.push(0x80 | 126);
                frame.extend(long.to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(text.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.wire.write_all(&frame).unwrap();
        self.wire.flush().unwrap();

        let mut start = [0; 2];
        self.wire.read_exact(&mut start).unwrap();
        let size = match start[1] & 0x7f {
            126 => {
                let mut long = [0; 2];
                self.wire.read_exact(&mut long).unwrap();
                usize::from(u16::from_be_bytes(long))
            }
            short => usize::from(short),
        };
        let mut answer = vec![0; size];
        self.wire.read_exact(&mut answer).unwrap();
        answer
    }
}

/// Reads one answer. `None` where nothing comes.
///
/// # Errors
/// As `read(2)`; `InvalidData` for what is no HTTP.
pub(crate) fn read_answer(wire: &mut impl Read, no_body: bool) -> io::Result<Option<Answer>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match wire.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => head.push(byte[0]),
            Err(error) if head.is_empty() && is_close(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, head.clone()))?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    if no_body || status < 200 || matches!(status, 204 | 304) {
        return Ok(Some(answer));
    }
    if answer.header("transfer-encoding").is_some() {
        answer.body = read_chunks(wire)?;
    } else if let Some(length) = answer.header("content-length").and_then(|length| length.parse().ok()) {
        answer.body = vec![0; length];
        wire.read_exact(&mut answer.body)?;
    } else if let Err(error) = wire.read_to_end(&mut answer.body)
        && !is_close(&error)
    {
        return Err(error);
    }
    Ok(Some(answer))
}

fn is_close(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

fn read_chunks(wire: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = || -> io::Result<(String, Vec<u8>)> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n") {
            let mut byte = [0];
            wire.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        let size = usize::from_str_radix(text.split(';').next().unwrap_or_default(), 16).unwrap_or_default();
        let mut chunk = vec![0; if size == 0 { 0 } else { size + 2 }];
        wire.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok((text, chunk))
    };
    let mut body = Vec::new();
    loop {
        match line()? {
            (_, chunk) if chunk.is_empty() => return Ok(body),
            (_, chunk) => body.extend(chunk),
        }
    }
}

static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| Arc::new(client_config(&[b"http/1.1"])));

/// What a client of these protocols needs for TLS, whatever certificate it is shown.
pub(crate) fn client_config(alpn: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// Takes every certificate, as a person does who clicks the warning away. Signatures are checked all the same.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
