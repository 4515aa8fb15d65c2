//! What the fuzz target needs to see of the inside. Compiled for it alone (`cfg(fuzzing)`, which `cargo fuzz` sets).

use std::time::{Duration, Instant};

use http::{HeaderMap, response};
use nginx_free::Peer;

use super::{
    cookies::{Binding, Cookies, Holder},
    filter,
    query::{self, Query},
    tokens::{Presented, Tokens},
};
use crate::words::SessionId;

/// What opens a gateway.
pub struct Keys {
    tokens: Tokens,
    cookies: Cookies,
}

impl Keys {
    /// None yet; each lives so long, and cookies are good only from where they were fetched.
    pub fn new(ttl: Duration) -> Self {
        let cookies = Cookies::new(SessionId::random(), ttl, Binding::Address);
        Self { tokens: Tokens::new(ttl), cookies }
    }

    /// A new token.
    pub fn token(&mut self, now: Instant) -> String {
        self.tokens.issue(now).map(|secret| secret.reveal().to_owned()).unwrap_or_default()
    }

    /// Whether a text is a token that opens (`Some(true)`), one that once did (`Some(false)`) or none of ours.
    pub fn look(&mut self, text: &str, now: Instant) -> Option<bool> {
        told(self.tokens.look(text, now))
    }

    /// The same, spending it.
    pub fn spend(&mut self, text: &str, now: Instant) -> Option<bool> {
        told(self.tokens.spend(text, now))
    }

    /// A new cookie, as a `Set-Cookie` field.
    pub fn cookie(&mut self, peer: &Peer, now: Instant) -> String {
        self.cookies.issue(Holder::Owner, peer, now).unwrap_or_default()
    }

    /// Whether these fields have a cookie that is good.
    pub fn is_good(&self, fields: &HeaderMap, peer: &Peer, now: Instant) -> bool {
        self.cookies.holder(fields, peer, now).is_some()
    }
}

fn told(presented: Presented) -> Option<bool> {
    match presented {
        Presented::Valid => Some(true),
        Presented::Spent => Some(false),
        Presented::Unknown => None,
    }
}

/// The tokens in a query.
pub fn tokens(query: &str) -> Vec<&str> {
    Query::of(query).tokens().collect()
}

/// Where a browser is led when `token` was taken.
pub fn without(path: &str, query: &str, token: &str) -> String {
    query::without(path, &Query::of(query), token)
}

/// Takes out of an app's answer what it may not tell the browser.
pub fn edit_answer(head: &mut response::Parts) {
    filter::edit_answer(head);
}
