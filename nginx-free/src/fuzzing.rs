//! What the fuzz targets need to see of the inside. Compiled for them alone (`cfg(fuzzing)`, which `cargo fuzz` sets):
//! nothing of it is part of the API.

use http::{HeaderMap, Uri, response};

use crate::{
    Host, Peer, Prefix, cookies, fields,
    fields::{Scheme, Word},
    rewrite,
    scan::{Place, Scanner},
};

fn scheme(tls: bool) -> Scheme {
    if tls { Scheme::Https } else { Scheme::Http }
}

/// Makes a request's fields the app's. `false` where the request would be refused for its `Connection` field.
pub fn to_app(
    fields: &mut HeaderMap,
    peer: &Peer,
    host: Host<'_>,
    tls: bool,
    stripped: Option<&Prefix>,
) -> bool {
    let Ok(mut ending) = fields::named_by_connection(fields) else { return false };
    ending.extend(fields.keys().filter(|name| fields::ends_here(name.as_str())).cloned());
    fields::to_app(fields, &ending, &Word::new(peer, host, scheme(tls)), stripped);
    true
}

/// Makes an answer's fields the client's.
pub fn to_client(fields: &mut HeaderMap) {
    fields::to_client(fields);
}

/// Cuts cookies out.
pub fn cut_cookies(fields: &mut HeaderMap, hidden: impl Fn(&[u8]) -> bool) {
    cookies::cut(fields, hidden);
}

/// What the app under `prefix` is asked for.
pub fn target(prefix: &Prefix, uri: Uri) -> Option<Uri> {
    prefix.target(uri)
}

/// Puts an answer's head right, as the path `asked` was asked for.
pub fn rewrite(prefix: &Prefix, host: Host<'_>, tls: bool, asked: &str, head: &mut response::Parts) {
    rewrite::Place { prefix, host, scheme: scheme(tls), asked }.rewrite(head);
}

/// Where the look at a connection's bytes has got to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Before a head, or in its first line.
    Request,
    /// In a head.
    Fields,
    /// In a body that has so many bytes left.
    Body(u64),
    /// Where nothing is looked at any more.
    Unseen,
}

/// Looks at a connection's bytes, piece by piece.
#[derive(Default)]
pub struct Look(Scanner);

impl Look {
    /// Looks at one piece more. `Err` says which rule was broken.
    pub fn at(&mut self, piece: &[u8]) -> Result<Seen, String> {
        self.0.scan(piece).map_err(|refusal| refusal.to_string())?;
        Ok(match self.0.place {
            Place::Request => Seen::Request,
            Place::Fields => Seen::Fields,
            Place::Body(left) => Seen::Body(left),
            Place::Unseen => Seen::Unseen,
        })
    }
}
