//! The terminal page and its files, as `scripts/build-web` made them. Owns how they are answered; who may have them is for
//! `admission` to say.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use nginx_free::{Body, Head};

use super::{escape, with_fields};
use crate::words::SessionName;

/// A file of the page. Its name has a hash of its content in it.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    /// The same, compressed.
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/terminal_page.rs"));

/// Where the page has the session's name.
const SESSION: &str = "@SESSION@";

/// What the terminal page may do. Its script and its style are files of ours; xterm.js makes styles as it runs, for each colour.
const POLICY: &str = include_str!("../../../web/terminal.csp").trim_ascii_end();

/// What is under a name never changes.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

/// The page with the terminal of the session `name`, at `/-/terminal`.
pub(crate) fn terminal_page(name: &SessionName) -> Response<Body> {
    let html = PAGE.replace(SESSION, &escape(name.as_str()));
    let mut answer = with_fields(StatusCode::OK, "text/html; charset=utf-8", Body::full(html));
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer
}

/// The file `name` of the terminal page, at `/-/terminal/assets/NAME`. There is none but what was built in.
pub(crate) fn asset(name: &str, head: &Head<'_>) -> Option<Response<Body>> {
    let asset = ASSETS.iter().find(|asset| asset.name == name)?;
    let gzip = asset.gzip.filter(|_| takes_gzip(head.fields));
    let mut answer = with_fields(StatusCode::OK, asset.kind, Body::full(gzip.unwrap_or(asset.bytes)));
    let fields = answer.headers_mut();
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(FOR_EVER));
    if asset.gzip.is_some() {
        fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if gzip.is_some() {
        fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Some(answer)
}

/// Whether `Accept-Encoding` names gzip, or all there are, and does not give it the weight 0 (RFC 9110, section 12.5.3).
fn takes_gzip(fields: &HeaderMap) -> bool {
    let values = fields.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = false;
    for coding in values.flat_map(|value| value.split(',')) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().to_ascii_lowercase();
        let wanted = match weight.strip_prefix("q=") {
            Some(weight) => weight.trim().parse().is_ok_and(|weight: f32| weight > 0.0),
            None => weight.is_empty(),
        };
        match name.trim() {
            // What is said of gzip counts more than what is said of all.
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                return wanted;
            }
            "*" => any = wanted,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use http_body_util::BodyExt;
    use nginx_free::{Host, Kind, Peer};

    fn ask(name: &str, encodings: &[&'static str]) -> Option<Response<Body>> {
        let mut fields = HeaderMap::new();
        for encoding in encodings {
            fields.append(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        }
        let host = Host::parse("node.example:3011").unwrap();
        let peer = Peer::Unix { uid: None };
        let (method, path) = (&Method::GET, "/-/terminal/assets/x");
        asset(
            name,
            &Head { method, host, path, query: None, fields: &fields, peer: &peer, kind: Kind::Plain },
        )
    }

    async fn bytes(answer: Response<Body>) -> Vec<u8> {
        answer.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    fn field<'a>(answer: &'a Response<Body>, name: &str) -> &'a str {
        answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[tokio::test]
    async fn the_page_names_its_session_and_only_files_that_are_there() {
        let answer = terminal_page(&"notes".parse().unwrap());
        assert_eq!(field(&answer, "cache-control"), "no-store");
        assert_eq!(field(&answer, "x-frame-options"), "DENY");
        let page = String::from_utf8(bytes(answer).await).unwrap();
        assert!(page.contains("<title>notes</title>") && !page.contains(SESSION));
        let named: Vec<&str> =
            page.split("/-/terminal/assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(
            named.iter().any(|name| name.ends_with(".js")) && named.iter().any(|name| name.ends_with(".css"))
        );
        for name in named {
            assert!(ask(name, &[]).is_some(), "{name}");
        }
    }

    #[tokio::test]
    async fn the_page_has_nothing_inline_that_its_policy_forbids() {
        let answer = terminal_page(&"notes".parse().unwrap());
        let policy = field(&answer, "content-security-policy").to_owned();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe-eval") && !policy.contains("script-src 'self' "), "{policy}");
        let page = String::from_utf8(bytes(answer).await).unwrap();
        for script in page.split("<script").skip(1) {
            let (tag, content) = script.split_once('>').unwrap();
            assert!(tag.contains(" src=") && content.starts_with("</script>"), "{tag}");
        }
        for forbidden in ["<style", " style=", " onclick=", "javascript:", "http://", "https://"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[tokio::test]
    async fn a_file_is_kept_for_ever_and_compressed_for_whoever_takes_it() {
        let kept = ASSETS.iter().find(|asset| asset.gzip.is_some()).unwrap();
        let plain = ask(kept.name, &[]).unwrap();
        assert_eq!(field(&plain, "cache-control"), FOR_EVER);
        assert_eq!(field(&plain, "x-content-type-options"), "nosniff");
        assert_eq!(field(&plain, "cross-origin-resource-policy"), "same-origin");
        assert_eq!(field(&plain, "content-type"), kept.kind);
        assert_eq!((field(&plain, "vary"), field(&plain, "content-encoding")), ("accept-encoding", ""));
        assert_eq!(bytes(plain).await, kept.bytes);

        let gzip = ask(kept.name, &["br, gzip;q=0.8"]).unwrap();
        assert_eq!((field(&gzip, "vary"), field(&gzip, "content-encoding")), ("accept-encoding", "gzip"));
        let gzip = bytes(gzip).await;
        assert!(gzip.starts_with(&[0x1f, 0x8b]) && gzip.len() < kept.bytes.len());
    }

    #[test]
    fn gzip_is_sent_to_nobody_who_does_not_take_it() {
        let name = ASSETS.iter().find(|asset| asset.gzip.is_some()).unwrap().name;
        let encoded = |encodings: &[&'static str]| {
            !field(&ask(name, encodings).unwrap(), "content-encoding").is_empty()
        };
        for takes in
            [&["gzip"][..], &["GZIP"], &["*"], &["br", "deflate, gzip"], &["*;q=0, gzip"], &["gzip; q=0.001"]]
        {
            assert!(encoded(takes), "{takes:?}");
        }
        for refuses in [
            &[][..],
            &[""],
            &["identity"],
            &["gzip;q=0"],
            &["*, gzip;q=0.0"],
            &["*;q=0"],
            &["gzipped"],
            &["gzip;q=x"],
        ] {
            assert!(!encoded(refuses), "{refuses:?}");
        }
    }

    #[test]
    fn nothing_else_is_there() {
        for name in ["", ".", "..", "../terminal.html", "terminal.html", "style.css"] {
            assert!(ask(name, &["gzip"]).is_none(), "{name}");
        }
        // the compressed form is no file of its own
        assert!(ask(&format!("{}.gz", ASSETS.first().unwrap().name), &[]).is_none());
    }
}
