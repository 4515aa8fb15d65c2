//! Tokens and cookies open the gateway for their time and their place, whatever stands around them; a redirect that takes
//! a token out stays on this host and keeps every other byte; an app cannot set the gateway's cookies.
//!
//! The input is lines, each a letter and a text. In the text, `$0` to `$9` stand for the tokens that were issued, `@0` to
//! `@9` for the cookies, `~` for the cookies' name.
//!
//! | letter | |
//! |---|---|
//! | `I`, `C` | issues a token, a cookie |
//! | `+` | so many seconds pass |
//! | `L`, `S` | looks at a text as at a token, spends it |
//! | `R` | a path and a query with tokens is asked for |
//! | `K`, `X` | a line of cookies comes from where they were fetched, from elsewhere |
//! | `A` | the app sets a cookie |
#![no_main]

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Response, header};
use libfuzzer_sys::fuzz_target;
use nginx_free::Peer;
use shlogin::gateway::fuzzing::{self, Keys};
use url::Url;

const TTL: Duration = Duration::from_secs(600);
/// Fewer than what makes the oldest give way.
const MOST: usize = 10;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut run = Run::new();
    for line in text.split('\n').take(64) {
        let mut chars = line.chars();
        let (letter, text) = (chars.next(), run.filled_in(chars.as_str()));
        match letter {
            Some('I') if run.tokens.len() < MOST => {
                let token = run.keys.token(run.now);
                run.tokens.push(Issued { text: token, until: run.now + TTL, spent: false });
            }
            Some('C') if run.cookies.len() < MOST => run.cookie(),
            Some('+') => run.now += Duration::from_secs(text.parse::<u16>().unwrap_or(1).into()),
            Some('L') => assert_eq!(run.keys.look(&text, run.now), run.expected(&text), "{text:?}"),
            Some('S') => run.spend(&text),
            Some('R') => redirect(&text),
            Some('K') => run.present(&text, "10.0.0.1:9"),
            Some('X') => run.present(&text, "10.0.0.2:1"),
            Some('A') => run.app_sets(&text),
            _ => {}
        }
    }
});

struct Issued {
    text: String,
    until: Instant,
    spent: bool,
}

struct Run {
    keys: Keys,
    now: Instant,
    name: String,
    tokens: Vec<Issued>,
    cookies: Vec<Issued>,
}

impl Run {
    fn new() -> Self {
        let (mut keys, now) = (Keys::new(TTL), Instant::now());
        let set = keys.cookie(&peer("10.0.0.9:1"), now);
        let name = set.split('=').next().unwrap().to_owned();
        Self { keys, now, name, tokens: Vec::new(), cookies: Vec::new() }
    }

    fn filled_in(&self, text: &str) -> String {
        let mut filled = text.replace('~', &self.name);
        for (mark, issued) in [('$', &self.tokens), ('@', &self.cookies)] {
            for (index, one) in issued.iter().enumerate() {
                filled = filled.replace(&format!("{mark}{index}"), &one.text);
            }
        }
        filled
    }

    fn expected(&self, text: &str) -> Option<bool> {
        let found = self.tokens.iter().find(|token| token.text == text)?;
        Some(!found.spent && self.now < found.until)
    }

    fn spend(&mut self, text: &str) {
        let expected = self.expected(text);
        assert_eq!(self.keys.spend(text, self.now), expected, "{text:?}");
        self.tokens.iter_mut().filter(|token| token.text == text).for_each(|token| token.spent = true);
    }

    fn cookie(&mut self) {
        let set = self.keys.cookie(&peer("10.0.0.1:1"), self.now);
        let (pair, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Max-Age=600; Path=/; Secure; HttpOnly; SameSite=Lax");
        let value = pair.strip_prefix(&format!("{}=", self.name)).unwrap().to_owned();
        self.cookies.push(Issued { text: value, until: self.now + TTL, spent: false });
    }

    /// A client sends a line of cookies.
    fn present(&self, line: &str, from: &str) {
        let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) else { return };
        let fields = HeaderMap::from_iter([(header::COOKIE, value)]);
        // As many as are looked at: who sends more of this name is no browser.
        let values = line.split(';').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (blanks_off(name) == self.name).then_some(blanks_off(value))
        });
        let good = values
            .take(4)
            .any(|value| self.cookies.iter().any(|cookie| cookie.text == value && self.now < cookie.until));
        let expected = good && from.starts_with("10.0.0.1:");
        assert_eq!(self.keys.is_good(&fields, &peer(from), self.now), expected, "{line:?} from {from}");
    }

    /// An app answers with a cookie: the browser's next request must not be taken for a signed-in one's, nor signed out.
    fn app_sets(&self, text: &str) {
        let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) else { return };
        let mut answer = Response::new(());
        answer.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static("first=1"));
        answer.headers_mut().append(header::SET_COOKIE, value);
        let (mut head, ()) = answer.into_parts();
        fuzzing::edit_answer(&mut head);
        let kept: Vec<&[u8]> =
            head.headers.get_all(header::SET_COOKIE).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(kept[0], b"first=1");
        let Some(kept) = kept.get(1) else { return };
        assert_eq!(*kept, text.as_bytes(), "it is passed on as it is, or not at all");
        let mut parts = text.split(';');
        let pair = parts.next().unwrap_or_default();
        // What the browser sends: `name=value`, or for a cookie without a name its value alone.
        let (name, value) = pair.split_once('=').unwrap_or(("", pair));
        let (name, value) = (blanks_off(name), blanks_off(value));
        let sent = if name.is_empty() { value.to_owned() } else { format!("{name}={value}") };
        let sent_name = blanks_off(sent.split('=').next().unwrap_or_default()).to_ascii_lowercase();
        assert!(!sent_name.starts_with("__host-shlogin-"), "{text:?}");
        for part in parts {
            let name = blanks_off(part.split('=').next().unwrap_or_default());
            assert!(!name.eq_ignore_ascii_case("domain"), "{text:?} is for a whole domain");
        }
    }
}

/// A browser asks for a path with a token in its query, and is led to where there is none.
fn redirect(text: &str) {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    // Anything else is refused before.
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return;
    }
    let tokens = fuzzing::tokens(query);
    let mut expected = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name == "token" && pair.contains('=') {
            expected.push(value);
        }
    }
    assert_eq!(tokens, expected, "{query:?}");

    for token in tokens {
        let led = fuzzing::without(path, query, token);
        let mut bytes = led.bytes();
        assert_eq!(bytes.next(), Some(b'/'), "{led:?}");
        assert!(!matches!(bytes.next(), Some(b'/' | b'\\')), "{led:?}");
        let base = Url::parse("https://node.example:3011/asked/for").unwrap();
        let url = base.join(&led).unwrap();
        assert_eq!(url.origin(), base.origin(), "{led:?}");

        // Every other byte is there, in its order.
        let rest: Vec<&str> =
            query.split('&').filter(|pair| pair.split_once('=') != Some(("token", token))).collect();
        let (led_path, led_query) = led.split_once('?').unwrap_or((&led, ""));
        assert_eq!(led_query, rest.join("&"), "{query:?} without {token:?}");
        assert!(path.ends_with(&led_path[1..]), "{path:?} became {led_path:?}");
        let cut = &path[..path.len() + 1 - led_path.len()];
        assert!(cut.bytes().all(|b| matches!(b, b'/' | b'\\')), "{path:?} became {led_path:?}");
    }
}

fn blanks_off(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn peer(address: &str) -> Peer {
    Peer::tcp(address.parse().unwrap())
}
