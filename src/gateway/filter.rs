//! What an app may not tell the browser: anything about our cookies, about other gateways on this host, or about the
//! host as such.

use http::{HeaderValue, header, response};

use super::cookies;

/// Takes such fields out of an app's answer.
pub(crate) fn edit_answer(head: &mut response::Parts) {
    // Each of these speaks for the whole host or its every port, and lasts: logging out of, or locking out, the
    // neighbours.
    for name in ["clear-site-data", "strict-transport-security", "alt-svc"] {
        head.headers.remove(name);
    }
    if head.headers.contains_key(header::SET_COOKIE) {
        let all: Vec<HeaderValue> = head.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
        head.headers.remove(header::SET_COOKIE);
        for value in all.into_iter().filter(|value| may_set(value.as_bytes())) {
            head.headers.append(header::SET_COOKIE, value);
        }
    }
}

/// Whether an app may set a cookie: none of our family, and none for a whole domain.
fn may_set(cookie: &[u8]) -> bool {
    let mut parts = cookie.split(|b| *b == b';');
    let pair = parts.next().unwrap_or_default();
    let (name, value) = match pair.iter().position(|b| *b == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (&b""[..], pair),
    };
    // A cookie without a name is sent as its bare value, which may look like a name and a value.
    if cookies::is_ours(name) || (name.trim_ascii().is_empty() && cookies::is_ours(value)) {
        return false;
    }
    parts.all(|part| {
        let attribute = part.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
        !attribute.eq_ignore_ascii_case(b"domain")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_sets_its_own_cookies_and_no_others() {
        for cookie in
            ["a=1", "a=1; Path=/x; HttpOnly", "theia-connection-token=x; Path=/", "domain=1", "a=domain", "a"]
        {
            assert!(may_set(cookie.as_bytes()), "{cookie}");
        }
        for cookie in [
            "__Host-shlogin-0123456789abcdef=x; Path=/; Secure",
            " __host-shlogin-0 = x",
            "=__Host-shlogin-0=x",
            "__Host-shlogin-0",
            "a=1; Domain=example.org",
            "a=1;  DOMAIN = example.org",
            "a=1; domain",
        ] {
            assert!(!may_set(cookie.as_bytes()), "{cookie}");
        }
    }

    #[test]
    fn the_rest_of_an_answer_stays() {
        let (mut head, ()) = http::Response::builder()
            .header("Clear-Site-Data", "\"*\"")
            .header("Strict-Transport-Security", "max-age=1")
            .header("Alt-Svc", "h3=\":1\"")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2; Domain=x")
            .header("Set-Cookie", "c=3")
            .header("X-Own", "1")
            .body(())
            .unwrap()
            .into_parts();
        edit_answer(&mut head);
        let left: Vec<_> =
            head.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        assert_eq!(left, ["x-own: 1", "set-cookie: a=1", "set-cookie: c=3"]);
    }
}
