//! Whether a browser sends a request on behalf of this gateway's own pages.
//!
//! `SameSite` does not tell: another port of this host is the same *site*, and the page of another user's app is there.
//! So `Origin` decides, and where a browser leaves it out, `Sec-Fetch-Site`, which pages can't forge.
//!
//! | request | `Origin` | verdict |
//! |---|---|---|
//! | any | `https://` + `Host`, exactly | own |
//! | any | anything else, `null` included | foreign; but `null` with `Sec-Fetch-Site: same-origin` is own for a plain request, as browsers send it for a form on a page with `Referrer-Policy: no-referrer` |
//! | WebSocket, or neither GET nor HEAD | none | own, unless `Sec-Fetch-Site` is there and neither `same-origin` nor `none`: a program that has the cookie is no browser to be tricked |
//! | GET, HEAD | none | own, unless `Sec-Fetch-Site` is `same-site` and it is no top-level navigation: an image, script or frame on another port's page. `cross-site` needs no rule: `SameSite=Lax` keeps the cookie away |

use http::{HeaderMap, Method, header};
use nginx_free::{Head, Host, Kind};

/// On whose behalf a request is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Behalf {
    Own,
    Foreign,
}

/// Judges a request by what the browser says of it.
pub(crate) fn behalf(head: &Head<'_>) -> Behalf {
    let site = one(head.fields, "sec-fetch-site");
    let mut origins = head.fields.get_all(header::ORIGIN).iter();
    let origin = origins.next();
    if origins.next().is_some() {
        return Behalf::Foreign;
    }
    let reads = head.kind == Kind::Plain && matches!(*head.method, Method::GET | Method::HEAD);
    let own = match (origin, site) {
        (Some(origin), _) if is_own(origin.as_bytes(), &head.host) => true,
        (Some(origin), Some("same-origin")) => origin.as_bytes() == b"null" && head.kind == Kind::Plain,
        (Some(_), _) => false,
        (None, None | Some("same-origin" | "none")) => true,
        (None, Some("same-site")) if reads => {
            one(head.fields, "sec-fetch-mode") == Some("navigate")
                && one(head.fields, "sec-fetch-dest") == Some("document")
        }
        (None, Some(_)) => reads,
    };
    if own { Behalf::Own } else { Behalf::Foreign }
}

fn is_own(origin: &[u8], host: &Host<'_>) -> bool {
    std::str::from_utf8(origin)
        .ok()
        .and_then(|text| text.strip_prefix("https://"))
        .and_then(Host::parse)
        .is_some_and(|origin| origin.same_as(host, 443))
}

/// The value of a field; a field that is there twice says nothing good.
pub(crate) fn one<'f>(fields: &'f HeaderMap, name: &str) -> Option<&'f str> {
    let mut values = fields.get_all(name).iter();
    let value = values.next()?;
    Some(if values.next().is_some() { "" } else { value.to_str().unwrap_or("") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nginx_free::Peer;

    fn judge(kind: Kind, method: Method, fields: &[(&'static str, &'static str)]) -> Behalf {
        let fields: HeaderMap =
            fields.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        let mut map = HeaderMap::new();
        map.extend(fields);
        let peer = Peer::Unix { uid: None };
        let host = Host::parse("node.example:3011").unwrap();
        behalf(&Head { method: &method, host, path: "/", query: None, fields: &map, peer: &peer, kind })
    }

    #[test]
    fn a_websocket_is_opened_by_our_own_pages_only() {
        let socket = |fields: &[(&'static str, &'static str)]| judge(Kind::WebSocket, Method::GET, fields);
        assert_eq!(socket(&[("origin", "https://node.example:3011")]), Behalf::Own);
        assert_eq!(socket(&[]), Behalf::Own);
        assert_eq!(socket(&[("sec-fetch-site", "same-origin")]), Behalf::Own);
        for origin in [
            "https://evil.example",
            "https://node.example:3021",
            "https://node.example",
            "http://node.example:3011",
            "https://node.example:3011.evil.example",
            "https://node.example:3011@evil.example",
            "https://node.example:3011/",
            "https://evilnode.example:3011",
            "null",
            "",
        ] {
            assert_eq!(socket(&[("origin", origin)]), Behalf::Foreign, "{origin}");
        }
        assert_eq!(socket(&[("origin", "null"), ("sec-fetch-site", "same-origin")]), Behalf::Foreign);
        for site in ["same-site", "cross-site", "other"] {
            assert_eq!(socket(&[("sec-fetch-site", site)]), Behalf::Foreign, "{site}");
        }
    }

    #[test]
    fn what_changes_something_comes_from_our_own_pages_only() {
        for method in [Method::POST, Method::DELETE, Method::OPTIONS, Method::PUT] {
            let post = |fields: &[(&'static str, &'static str)]| judge(Kind::Plain, method.clone(), fields);
            assert_eq!(post(&[("origin", "https://node.example:3011")]), Behalf::Own);
            assert_eq!(post(&[]), Behalf::Own);
            assert_eq!(post(&[("origin", "https://node.example:3021")]), Behalf::Foreign);
            assert_eq!(post(&[("origin", "null")]), Behalf::Foreign);
            assert_eq!(post(&[("origin", "null"), ("sec-fetch-site", "cross-site")]), Behalf::Foreign);
            assert_eq!(post(&[("origin", "null"), ("sec-fetch-site", "same-origin")]), Behalf::Own);
            assert_eq!(post(&[("sec-fetch-site", "same-site")]), Behalf::Foreign);
        }
    }

    #[test]
    fn another_port_may_link_here_but_not_embed() {
        let get = |fields: &[(&'static str, &'static str)]| judge(Kind::Plain, Method::GET, fields);
        assert_eq!(get(&[]), Behalf::Own);
        assert_eq!(get(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), Behalf::Own);
        let from_port = |mode, dest| {
            get(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)])
        };
        assert_eq!(from_port("navigate", "document"), Behalf::Own);
        assert_eq!(from_port("navigate", "iframe"), Behalf::Foreign);
        assert_eq!(from_port("no-cors", "script"), Behalf::Foreign);
        assert_eq!(get(&[("origin", "https://node.example:3021")]), Behalf::Foreign);
    }
}
