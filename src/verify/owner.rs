//! The owner's way in, and what only somebody who has a cookie can try.

use std::net::SocketAddr;

use zeroize::Zeroizing;

use super::{
    Finding,
    client::{self, Reply, request},
    gateway::{self, Attempt, WEBSOCKET},
    target::{Door, Mark, Place},
};
use crate::session::{
    Record, State,
    control::{Answer, Client, Request},
};

/// What the owner was let in with.
pub(super) struct Pass {
    /// Used.
    pub(super) token: Zeroizing<String>,
    /// `name=value`.
    pub(super) cookie: Zeroizing<String>,
}

impl Pass {
    pub(super) fn cookie_name(&self) -> &str {
        self.cookie.split_once('=').map_or("", |(name, _)| name)
    }

    pub(super) fn cookie_value(&self) -> &str {
        self.cookie.split_once('=').map_or("", |(_, value)| value)
    }
}

/// Where the gateway of a session answers.
///
/// # Errors
/// Where it answers nowhere.
pub(super) async fn door(record: &Record, addresses: &[SocketAddr]) -> Result<Door, String> {
    let its = &record.gateway;
    let place = match &its.socket {
        Some(path) => Place::Unix(path.clone()),
        None => gateway::place_of(its.port, addresses)
            .await
            .ok_or_else(|| format!("it answers on no address of this host, port {}", its.port))?,
    };
    let (host, fingerprint) = (its.host.clone(), its.fingerprint.clone());
    Ok(Door { place, host, port: its.port, fingerprint })
}

/// Takes a new token to the gateway, and makes sure that its cookie opens: without that, refusals would prove nothing.
///
/// # Errors
/// What happened instead.
pub(super) async fn sign_in(record: &Record, door: &Door) -> Result<Pass, String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let client = Client::connect(&record.footprint.session).map_err(failed("its control socket"))?;
    let url = match client.call(&Request::Url).map_err(failed("asking for a token"))? {
        Answer::Url { url } => Zeroizing::new(url),
        Answer::Failed { why } => return Err(why),
        _ => return Err("it gave no URL".to_owned()),
    };
    let token = url.split_once("token=").map(|(_, token)| token.to_owned());
    let token = Zeroizing::new(token.ok_or("its URL has no token")?);
    let entry = format!("GET /?token={}", token.as_str());
    let reply = ask(door, &entry, &[]).await?;
    let set = reply.field("set-cookie").and_then(|set| set.split(';').next());
    let (Some(303), Some(cookie)) = (reply.status(), set) else {
        return Err(format!("it answered a new token with {}", shown(&reply)));
    };
    let pass = Pass { token, cookie: Zeroizing::new(cookie.to_owned()) };
    // A path of the gateway's own, which is answered with 401 to those who have no cookie.
    let reply = ask(door, "GET /-/verify", &[("Cookie", &pass.cookie)]).await?;
    match reply.status() {
        Some(404) => Ok(pass),
        _ => Err(format!("it answered its own cookie with {}", shown(&reply))),
    }
}

/// By what the app's page is known again; `None` where it has none that could be.
pub(super) async fn mark(record: &Record, door: &Door, pass: &Pass) -> Option<Mark> {
    if record.state != State::Running {
        return None;
    }
    let fields = [("Cookie", pass.cookie.as_str()), ("Accept", "text/html")];
    let mut path = "/".to_owned();
    // An app may lead from its root to its page.
    for _ in 0..3 {
        let reply = ask(door, &format!("GET {path}"), &fields).await.ok()?;
        match (reply.status(), reply.field("location")) {
            (Some(300..=399), Some(to)) if to.starts_with('/') => to.clone_into(&mut path),
            _ => return Mark::of(reply.body()),
        }
    }
    None
}

/// All that has to be refused although the cookie is good; `other` is the pass of another session of the same owner.
pub(super) async fn attack(
    door: &Door,
    pass: &Pass,
    other: Option<&Pass>,
    mark: Option<&Mark>,
) -> Vec<Finding> {
    let host = &door.authority();
    let cookie = ("Cookie", pass.cookie.as_str());
    let next_port = format!("https://{}", Door { port: door.port ^ 1, ..door.clone() }.authority());
    let mut attempts = Vec::new();
    let origins = [
        ("https://evil.example", "a foreign Origin"),
        ("null", "Origin null"),
        (next_port.as_str(), "another port's Origin"),
    ];
    for (origin, what) in origins {
        let mut fields = WEBSOCKET.to_vec();
        fields.extend([cookie, ("Origin", origin)]);
        attempts.push(Attempt::new(
            format!("a WebSocket with the cookie and {what}"),
            "GET /",
            host,
            &fields,
            &[403],
        ));
        let fields = [cookie, ("Origin", origin), ("Content-Length", "0")];
        attempts.push(Attempt::new(
            format!("a POST with the cookie and {what}"),
            "POST /",
            host,
            &fields,
            &[403],
        ));
    }
    attempts.push(Attempt::new("a foreign Host with the cookie", "GET /", "evil.example", &[cookie], &[421]));
    attempts.extend(gateway::never(host, "the cookie", &[cookie]));
    if let Some(other) = other {
        let renamed = Zeroizing::new(format!("{}={}", pass.cookie_name(), other.cookie_value()));
        for (what, cookie) in [
            ("another session's cookie", other.cookie.as_str()),
            ("another session's cookie under this one's name", renamed.as_str()),
        ] {
            attempts.push(Attempt::new(what, "GET /", host, &[("Cookie", cookie)], &[401]));
        }
    }
    gateway::make_all(&attempts, door, mark).await
}

async fn ask(door: &Door, method: &str, fields: &[(&str, &str)]) -> Result<Reply, String> {
    let request = Zeroizing::new(request(method, &door.authority(), fields));
    client::over_tls(door, &request).await.map_err(|error| error.to_string())
}

fn shown(reply: &Reply) -> String {
    reply.status().map_or_else(|| "nothing".to_owned(), |status| status.to_string())
}
