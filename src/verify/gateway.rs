//! The gateway, from outside: what it must answer to those without a cookie, and to pages from elsewhere.

use std::net::SocketAddr;

use super::{
    Finding,
    client::{self, Reply, request},
    finding::Outcome,
    pin,
    target::{Door, Identity, Mark, Place, Target},
};

/// One request that has to be refused.
pub(super) struct Attempt {
    pub(super) what: String,
    pub(super) request: Vec<u8>,
    /// The answers that only the gateway itself gives to it.
    pub(super) refusals: &'static [u16],
}

impl Attempt {
    pub(super) fn new(
        what: impl Into<String>,
        method: &str,
        host: &str,
        fields: &[(&str, &str)],
        refusals: &'static [u16],
    ) -> Self {
        Self { what: what.into(), request: request(method, host, fields), refusals }
    }

    async fn make(&self, door: &Door, mark: Option<&Mark>) -> Finding {
        let answered = client::over_tls(door, &self.request).await;
        let line = self.request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let tried = hide_token(&String::from_utf8_lossy(line));
        Finding::new(format!("gateway, {}", self.what), tried, judge(answered, self.refusals, mark))
    }
}

/// Makes all of them, one after the other.
pub(super) async fn make_all(attempts: &[Attempt], door: &Door, mark: Option<&Mark>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for attempt in attempts {
        findings.push(attempt.make(door, mark).await);
    }
    findings
}

/// The methods that no gateway carries out, whoever asks.
pub(super) fn never(host: &str, with: &str, fields: &[(&str, &str)]) -> [Attempt; 2] {
    const REFUSALS: &[u16] = &[400, 401, 403, 405, 421, 501];
    let connect = format!("CONNECT {host}");
    [
        Attempt::new(format!("CONNECT with {with}"), &connect, host, fields, REFUSALS),
        Attempt::new(format!("TRACE with {with}"), "TRACE /", host, fields, REFUSALS),
    ]
}

/// The fields of a WebSocket's opening handshake (RFC 6455, section 4.1).
pub(super) const WEBSOCKET: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "c2hsb2dpbiB2ZXJpZnkuLg=="),
];

/// All that somebody without a cookie can try.
pub(super) async fn attack(target: &Target, attacker: &Identity) -> Vec<Finding> {
    let door = &target.door;
    let mut findings = Vec::new();
    if let Place::Unix(path) = &door.place
        && attacker.uid != target.owner.uid
    {
        let outcome = match client::reach(&door.place).await {
            Ok(()) => Outcome::Through("connected".to_owned()),
            Err(error) => Outcome::Held(error.to_string()),
        };
        let got_in = matches!(outcome, Outcome::Through(_));
        findings.push(Finding::new("gateway's socket", format!("connect to {}", path.display()), outcome));
        if !got_in {
            return findings;
        }
    }
    findings.push(certificate(door).await);
    findings.extend(make_all(&without_a_cookie(target), door, target.mark.as_ref()).await);
    findings.push(in_the_clear(door, target.mark.as_ref()).await);
    findings
}

fn without_a_cookie(target: &Target) -> Vec<Attempt> {
    let host = &target.door.authority();
    let made_up = "A".repeat(43);
    let get_with = |token: &str| format!("GET /?token={token}");
    let cookie = [("Cookie", target.made_up_cookie.as_str())];
    let mut attempts = vec![
        Attempt::new("no token", "GET /", host, &[], &[401]),
        Attempt::new("no token, its log", "GET /-/starting/log", host, &[], &[401]),
        Attempt::new("a used token", &get_with(&target.used_token), host, &[], &[403]),
        Attempt::new("a made-up token", &get_with(&made_up), host, &[], &[403]),
        Attempt::new("a cookie of the right name with a wrong value", "GET /", host, &cookie, &[401]),
        Attempt::new("a WebSocket without a cookie", "GET /", host, &WEBSOCKET, &[401]),
        Attempt::new("a foreign Host", "GET /", "evil.example", &[], &[421]),
    ];
    attempts.extend(never(host, "no cookie", &[]));
    attempts
}

async fn certificate(door: &Door) -> Finding {
    let outcome = match client::handshake(door).await {
        Ok(()) => Outcome::Held(format!("its SHA-256 is the recorded {}", door.fingerprint)),
        Err(error) if pin::is_foreign(&error) => {
            Outcome::Through("somebody else's certificate is shown in its place".to_owned())
        }
        Err(error) => Outcome::Held(format!("no connection: {error}")),
    };
    Finding::new("gateway's certificate", "TLS handshake", outcome)
}

async fn in_the_clear(door: &Door, mark: Option<&Mark>) -> Finding {
    let answered = client::in_the_clear(&door.place, &request("GET /", &door.authority(), &[])).await;
    Finding::new("gateway, no TLS", "GET / in the clear", judge(answered, &[400, 401, 403, 421, 426], mark))
}

/// An answer other than the gateway's own refusal may be the app's, and then it got through.
fn judge(answered: std::io::Result<Reply>, refusals: &[u16], mark: Option<&Mark>) -> Outcome {
    let reply = match answered {
        Ok(reply) => reply,
        Err(error) => return Outcome::Held(format!("no connection: {error}")),
    };
    if mark.is_some_and(|mark| mark.is_in(reply.bytes())) {
        return Outcome::Through("the app's own page came back".to_owned());
    }
    match reply.status() {
        Some(status) if refusals.contains(&status) => Outcome::Held(format!("refused with {status}")),
        Some(status) => {
            Outcome::Through(format!("answered with {status}, which is no refusal of the gateway's"))
        }
        None if reply.bytes().is_empty() => Outcome::Held("closed without an answer".to_owned()),
        // A TLS alert (RFC 8446, section 6) to somebody who speaks none.
        None if reply.bytes()[0] == 21 => Outcome::Held("refused with a TLS alert".to_owned()),
        None => Outcome::Through("answered with something that is not HTTP".to_owned()),
    }
}

fn hide_token(line: &str) -> String {
    let line = line.trim_end_matches(" HTTP/1.1");
    match line.split_once("token=") {
        Some((before, _)) => format!("{before}token=…"),
        None => line.to_owned(),
    }
}

/// Where a gateway of this port answers: loopback first, for what is listened on everywhere is there too.
pub(super) async fn place_of(port: u16, addresses: &[SocketAddr]) -> Option<Place> {
    for address in addresses {
        let place = Place::Tcp(super::ports::with_port(*address, port));
        if client::reach(&place).await.is_ok() {
            return Some(place);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_of_the_gateways_own_counts_as_one() {
        let page: String = (0..40).map(|n| format!("line {n}\n")).collect();
        let mark = Mark::of(page.as_bytes());
        let got_through = |bytes: &str| {
            let outcome = judge(Ok(Reply::new(bytes.as_bytes())), &[401], mark.as_ref());
            matches!(outcome, Outcome::Through(_))
        };
        assert!(!got_through("HTTP/1.1 401 Unauthorized\r\n\r\nsign in"));
        assert!(!got_through("") && !got_through("\u{15}\u{3}\u{1}"));
        assert!(got_through("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(got_through("HTTP/1.1 404 Not Found\r\n\r\n"));
        assert!(got_through(&format!("HTTP/1.1 401 Unauthorized\r\n\r\n{page}")));
        assert!(got_through("SSH-2.0-x"));
        let refused = judge(Err(std::io::ErrorKind::ConnectionRefused.into()), &[401], None);
        assert!(matches!(refused, Outcome::Held(_)));
    }

    #[test]
    fn no_report_shows_a_token() {
        assert_eq!(hide_token("GET /?token=abc HTTP/1.1"), "GET /?token=…");
        assert_eq!(hide_token("TRACE / HTTP/1.1"), "TRACE /");
    }
}
