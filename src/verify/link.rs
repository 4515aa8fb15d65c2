//! The port where a session's host comes in from its compute node: whoever else comes must be sent away.
//!
//! Each attempt says that it is a host of job 0, so that one which is believed is found out and takes nothing away from
//! the session: whose job it is, is asked after who it is.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::ClientConfig;
use slurm::munge::Munge;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Finding,
    client::{self, CONNECT, request},
    finding::Outcome,
    pin,
    ports::with_port,
    tables,
    target::{Identity, LinkDoor, LinkProof, Place, Target},
};
use crate::{
    config::find_program,
    link::{
        Hello, Identity as Certificate, LONGEST, NOT_ITS_HOST, Reply, Run, RunId, VERSION, binding,
        message::{hear, say},
        server_name, statement, without_certificate,
    },
};

/// How long a gateway may take to judge: it asks MUNGE.
const JUDGED: Duration = Duration::from_secs(20);
/// What every finding here is about.
const WHAT: &str = "link";

/// All that somebody who is not its host can try.
pub(super) async fn attack(target: &Target, attacker: &Identity) -> Vec<Finding> {
    let Some(link) = &target.link else { return Vec::new() };
    let Some(at) = place(link).await else {
        let port = link.port;
        let why = format!("it answers on no address, port {port}");
        return vec![Finding::new(WHAT, "TCP connect", Outcome::Untried(why))];
    };
    let mut findings = vec![
        finding("TLS without a certificate", bare(at, link, target).await),
        finding("TLS with a certificate of one's own", foreign(at, link, target, Credential::None).await),
        finding("HTTP instead of a greeting, over TLS", http_over_tls(at, link).await),
        finding("HTTP in the clear", in_the_clear(at, &request("GET /", "localhost", &[])).await),
        finding("what is no TLS", in_the_clear(at, &garbage()).await),
    ];
    if let LinkProof::Munge(socket) = &link.proof {
        let munge = munge(socket.as_deref());
        let (credential, tried) = if attacker.uid == target.owner.uid {
            (Credential::OfAnother(munge), "a MUNGE credential of its owner's for another connection")
        } else {
            (Credential::Own(munge), "a MUNGE credential of one's own")
        };
        findings.push(finding(tried, foreign(at, link, target, credential).await));
    }
    findings
}

fn finding(tried: &str, outcome: Outcome) -> Finding {
    Finding::new(WHAT, tried, outcome)
}

/// The first address at which it answers: this machine's own, then those that hosts are told.
async fn place(link: &LinkDoor) -> Option<SocketAddr> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for host in &link.hosts {
        if let Ok(Ok(found)) = timeout(CONNECT, lookup_host((host.as_str(), link.port))).await {
            all.extend(found);
        }
    }
    all.extend(tables::host_addresses().into_iter().map(|address| with_port(address, link.port)));
    for address in all {
        if client::reach(&Place::Tcp(address)).await.is_ok() {
            return Some(address);
        }
    }
    None
}

/// What to prove oneself by.
enum Credential {
    None,
    /// A true one, of the wrong user.
    Own(Option<Munge>),
    /// One of the right user, caught on another connection.
    OfAnother(Option<Munge>),
}

async fn bare(at: SocketAddr, link: &LinkDoor, target: &Target) -> Outcome {
    let Ok(config) = without_certificate(link.gateway) else { return no_tls() };
    match secure(at, config).await {
        Ok(stream) => greet(stream, &hello(target, None), target).await,
        Err(error) => refused(&error),
    }
}

async fn foreign(at: SocketAddr, link: &LinkDoor, target: &Target, by: Credential) -> Outcome {
    let Ok(config) = Certificate::make().and_then(|mine| mine.client(link.gateway)) else { return no_tls() };
    let stream = match secure(at, config).await {
        Ok(stream) => stream,
        Err(error) => return refused(&error),
    };
    let mut hello = hello(target, None);
    let Ok(this) = binding(stream.get_ref().1) else { return no_tls() };
    let (munge, says) = match by {
        Credential::None => return greet(stream, &hello, target).await,
        Credential::Own(munge) => (munge, statement(target.id, &hello.run, &this)),
        Credential::OfAnother(munge) => {
            let another: String = this.chars().rev().collect();
            (munge, statement(target.id, &hello.run, &another))
        }
    };
    let Some(munge) = munge else { return Outcome::Untried("MUNGE's programs are not here".to_owned()) };
    match munge.encode(says.as_bytes(), Some(target.owner.uid), Duration::from_secs(60)) {
        Ok(credential) => hello.credential = Some(credential),
        Err(error) => return Outcome::Untried(error.to_string()),
    }
    greet(stream, &hello, target).await
}

fn hello(target: &Target, credential: Option<String>) -> Hello {
    let run = Run { id: RunId::random(), job: 0, restarts: 0, node: "verify".to_owned() };
    Hello { version: VERSION, session: target.id, run, credential, stream: None }
}

/// Says it, and judges the answer.
async fn greet(mut stream: TlsStream<TcpStream>, hello: &Hello, target: &Target) -> Outcome {
    let talk = async {
        say(&mut stream, hello).await?;
        hear::<Reply>(&mut stream, LONGEST).await
    };
    match timeout(JUDGED, talk).await {
        Err(_) => Outcome::Untried("it did not answer in time".to_owned()),
        Ok(Err(error)) => refused(&error),
        Ok(Ok(Reply::Refused { why })) if why == NOT_ITS_HOST => Outcome::Held(format!("refused: {why}")),
        Ok(Ok(Reply::Refused { why })) if why.contains("another version") => {
            Outcome::Untried(format!("its gateway is of another version of shlogin ({why})"))
        }
        Ok(Ok(_)) => Outcome::Through(format!("it was taken for the host of {}", target.name)),
    }
}

/// A request where a greeting should be: its first bytes are a length beyond all bounds.
async fn http_over_tls(at: SocketAddr, link: &LinkDoor) -> Outcome {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(config) = Certificate::make().and_then(|mine| mine.client(link.gateway)) else { return no_tls() };
    let mut stream = match secure(at, config).await {
        Ok(stream) => stream,
        Err(error) => return refused(&error),
    };
    let mut said = [0; 64];
    let talk = async {
        stream.write_all(&request("GET /", "localhost", &[])).await?;
        stream.flush().await?;
        stream.read(&mut said).await
    };
    match timeout(JUDGED, talk).await {
        Ok(Ok(0)) => Outcome::Held("closed without an answer".to_owned()),
        Ok(Ok(_)) => Outcome::Through("it answered".to_owned()),
        Ok(Err(error)) => refused(&error),
        Err(_) => Outcome::Untried("it neither answered nor closed in time".to_owned()),
    }
}

async fn in_the_clear(at: SocketAddr, bytes: &[u8]) -> Outcome {
    match client::in_the_clear(&Place::Tcp(at), bytes).await {
        Err(error) => Outcome::Untried(format!("no connection: {error}")),
        Ok(reply) if reply.bytes().is_empty() => Outcome::Held("closed without an answer".to_owned()),
        // A TLS alert (RFC 8446, section 6).
        Ok(reply) if reply.bytes()[0] == 21 => Outcome::Held("refused with a TLS alert".to_owned()),
        Ok(_) => Outcome::Through("answered with something that is no TLS".to_owned()),
    }
}

/// The head of a TLS record, and then nothing that could be one.
fn garbage() -> Vec<u8> {
    let mut bytes = vec![22, 3, 1, 0x3f, 0xff];
    bytes.extend((0..0x3fff_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]));
    bytes
}

async fn secure(at: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = timeout(CONNECT, TcpStream::connect(at)).await??;
    timeout(JUDGED, TlsConnector::from(config).connect(server_name(), stream)).await?
}

fn refused(error: &io::Error) -> Outcome {
    match error.kind() {
        _ if pin::is_foreign(error) => {
            Outcome::Through("somebody else's certificate is shown in its place".to_owned())
        }
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Outcome::Held("closed without an answer".to_owned())
        }
        io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused => {
            Outcome::Untried(format!("no connection: {error}"))
        }
        _ => Outcome::Held(format!("refused: {error}")),
    }
}

fn no_tls() -> Outcome {
    Outcome::Untried("no TLS of one's own".to_owned())
}

/// The programs, also for who has no `PATH`.
fn munge(socket: Option<&Path>) -> Option<Munge> {
    let found = find_program("munge");
    let folder = found.as_deref().and_then(Path::parent).unwrap_or(Path::new("/usr/bin"));
    let munge = Munge::find(Some(folder)).ok()?;
    Some(socket.map_or(munge.clone(), |socket| munge.with_socket(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        verify::target::{Door, SandboxAt},
        words::{Isolation, SessionId},
    };

    fn target(link: LinkDoor) -> Target {
        Target {
            name: "x".parse().unwrap(),
            id: SessionId::random(),
            owner: Identity::of_this_process(),
            isolation: Isolation::Namespace,
            sandbox: SandboxAt::Elsewhere { node: None, port: None },
            link: Some(link),
            keepers: Vec::new(),
            processes: Vec::new(),
            ports: Vec::new(),
            abstracts: Vec::new(),
            roots: Vec::new(),
            door: Door {
                place: Place::Unix("/nowhere".into()),
                host: "h".to_owned(),
                port: 1,
                fingerprint: String::new(),
            },
            doors: Vec::new(),
            used_token: String::new(),
            made_up_cookie: String::new(),
            mark: None,
        }
    }

    /// What each attempt comes to at a gateway that answers every greeting so.
    async fn against(reply: fn() -> Reply) -> Vec<Finding> {
        let gateway = Certificate::make().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = tokio_rustls::TlsAcceptor::from(gateway.server().unwrap());
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                if hear::<Hello>(&mut stream, LONGEST).await.is_ok() {
                    let _ = say(&mut stream, &reply()).await;
                }
            }
        });
        let hosts = vec!["127.0.0.1".to_owned()];
        let target = target(LinkDoor { hosts, port, gateway: gateway.fingerprint(), proof: LinkProof::Key });
        let findings = attack(&target, &target.owner).await;
        serving.abort();
        findings
    }

    #[tokio::test]
    async fn a_gateway_that_believes_anybody_is_found_out() {
        let refused = || Reply::Refused { why: NOT_ITS_HOST.to_owned() };
        let held = against(refused).await;
        assert_eq!(held.len(), 5);
        assert!(held.iter().all(|finding| !finding.got_through && !finding.untried), "{held:#?}");
        for believes in [
            || Reply::Later,
            || Reply::Refused { why: "this is not the session's job".to_owned() },
            || Reply::Welcome { stream: RunId::random() },
        ] {
            let through = against(believes).await;
            let through: Vec<_> = through.iter().filter(|finding| finding.got_through).collect();
            assert_eq!(through.len(), 1, "{through:#?}");
            assert_eq!(through[0].tried, "TLS with a certificate of one's own");
        }
        let older = || Reply::Refused { why: "another version of shlogin holds this session".to_owned() };
        assert_eq!(against(older).await.iter().filter(|finding| finding.untried).count(), 1);
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_was_tried() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let gateway = Certificate::make().unwrap().fingerprint();
        let target = target(LinkDoor { hosts: Vec::new(), port, gateway, proof: LinkProof::Key });
        let findings = attack(&target, &target.owner).await;
        assert!(findings.len() == 1 && findings[0].untried, "{findings:#?}");
    }
}
