//! Requests and answers that nobody would write and everybody may send.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::messages::{Blob, Fields, Framing, Plan};

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) request: Request,
    pub(super) answer: Answer,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Fields,
    pub(super) body: Plan,
    pub(super) pieces: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Plan,
    pub(super) pieces: Vec<usize>,
    /// An interim answer comes first.
    pub(super) interim: bool,
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    (request(), answer()).prop_map(|(request, answer)| Case { request, answer })
}

fn request() -> impl Strategy<Value = Request> {
    let special = prop_oneof![
        select(
            &[
                ("Connection", "keep-alive"),
                ("Connection", "x-named, Keep-Alive"),
                ("connection", "X-Named"),
                ("Keep-Alive", "timeout=5"),
                ("TE", "trailers"),
                ("Proxy-Authorization", "Basic eDp5"),
                ("Proxy-Connection", "keep-alive"),
                ("Forwarded", "for=6.6.6.6"),
                ("X-Forwarded-For", "6.6.6.6"),
                ("X_Forwarded_For", "6.6.6.6"),
                ("X-Forwarded-Prefix", "/evil"),
                ("X-Script-Name", "/evil"),
                ("x-real-ip", "6.6.6.6"),
                ("Proxy", "http://evil"),
                ("REMOTE_USER", "root"),
                ("Content_Length", "5"),
                ("Expect", "100-continue"),
                ("Trailer", "x-checksum"),
                ("X-Named", "1"),
            ][..]
        )
        .prop_map(|(name, value)| (name.to_owned(), Bytes::from(value))),
        cookies(),
    ];
    let usual = [
        "Accept",
        "Accept-Encoding",
        "Accept-Language",
        "Authorization",
        "Cache-Control",
        "Content-Type",
        "DNT",
        "If-None-Match",
        "Origin",
        "Range",
        "Referer",
        "Sec-Fetch-Mode",
        "User-Agent",
        "X-Named",
        "X-Requested-With",
        "my_own",
    ];
    let fields = vec(prop_oneof![3 => field(&usual), 1 => special], 0..=30);
    let body = plan(vec![just_none(), length(), chunks()], false);
    (method(), target(), fields, body, pieces()).prop_map(|(method, target, fields, body, pieces)| Request {
        method,
        target,
        fields,
        body,
        pieces,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    let special = select(
        &[
            ("Connection", "keep-alive"),
            ("Connection", "X-Named"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authenticate", "Basic"),
            ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("Trailer", "x-checksum, x-second"),
            ("X-Named", "1"),
            ("X-Forwarded-For", "an app may say so"),
            ("Location", "/login?next=%2F#top"),
            ("Location", "https://elsewhere.example/x"),
            ("Location", "beside"),
            ("Content-Location", "/a/b"),
            ("Service-Worker-Allowed", "/"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=\"x y\"; Path=/; HttpOnly"),
            ("Set-Cookie", "c=; HttpOnly; Path=/x"),
        ][..],
    )
    .prop_map(|(name, value)| (name.to_owned(), Bytes::from(value)));
    let usual = [
        "Cache-Control",
        "Content-Type",
        "Content-Encoding",
        "ETag",
        "Link",
        "Server",
        "Vary",
        "WWW-Authenticate",
        "X-Named",
        "X-Frame-Options",
        "my_own",
    ];
    let fields = vec(prop_oneof![3 => field(&usual), 1 => special], 0..=30);
    let body = plan(vec![length(), chunks(), Just(Framing::Close).boxed()], true);
    let status = select(
        &[
            200, 201, 202, 203, 204, 205, 206, 299, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404,
            405, 409, 410, 416, 418, 429, 451, 500, 501, 503, 599, 799,
        ][..],
    );
    (status, fields, body, pieces(), prop::bool::weighted(0.1)).prop_map(
        |(status, fields, body, pieces, interim)| Answer {
            status,
            fields: once(fields),
            body,
            pieces,
            interim,
        },
    )
}

/// Fields that count once are there once.
fn once(mut fields: Fields) -> Fields {
    let mut seen = std::collections::HashSet::new();
    fields.retain(|(name, _)| {
        let name = name.to_ascii_lowercase();
        !matches!(&*name, "location" | "date" | "content-location" | "service-worker-allowed")
            || seen.insert(name)
    });
    fields
}

fn method() -> impl Strategy<Value = String> {
    let usual =
        select(&["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH"][..]);
    prop_oneof![
        8 => usual.prop_map(str::to_owned),
        1 => token().prop_filter("these are refused", |method| {
            !matches!(&**method, "TRACE" | "CONNECT") && !method.contains('#')
        }),
    ]
}

/// RFC 9110 §5.6.2.
fn token() -> impl Strategy<Value = String> {
    let bytes = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
    vec(select(&bytes[..]), 1..20).prop_map(|bytes| bytes.into_iter().map(char::from).collect())
}

/// RFC 3986 §3.3 and §3.4, and what clients send beyond it.
fn target() -> impl Strategy<Value = String> {
    let plain = b"abcXYZ019-._~!$&'()*+,=:@";
    let piece = |bytes: &'static [u8]| {
        prop_oneof![
            6 => select(bytes).prop_map(|byte| char::from(byte).to_string()),
            1 => any::<u8>().prop_map(|byte| format!("%{byte:02X}")),
            1 => any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
        ]
    };
    let first = vec(select(&plain[..]), 0..8).prop_map(|bytes| bytes.into_iter().map(char::from).collect());
    let rest = vec(piece(b"abcXYZ019-._~!$&'()*+,;=:@////..|\"{}"), 0..30).prop_map(|pieces| pieces.concat());
    let query = vec(piece(b"abcXYZ019-._~!$&'()*+,;=:@/?&&==|{}"), 0..40).prop_map(|pieces| pieces.concat());
    let whole = (first, option::of(rest), option::of(query)).prop_map(
        |(first, rest, query): (String, Option<String>, Option<String>)| {
            let rest = rest.map(|rest| format!("/{rest}")).unwrap_or_default();
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            format!("/{first}{rest}{query}")
        },
    );
    whole.prop_filter("a path has one reading", |target| {
        let path = target.split('?').next().unwrap_or_default();
        // Under a prefix of two segments, too.
        nginx_free::path::is_plain(path, 1) && nginx_free::path::is_plain(&format!("/pod/3{path}"), 2)
    })
}

fn field(usual: &[&'static str]) -> impl Strategy<Value = (String, Bytes)> + use<> {
    let names = prop_oneof![
        3 => select(usual.to_vec()).prop_map(str::to_owned),
        1 => token().prop_filter("these frame, route or upgrade, and have tests of their own", |name| {
            let name = name.to_ascii_lowercase().replace('_', "-");
            !matches!(&*name, "host" | "upgrade" | "te" | "connection" | "cookie" | "date" | "expect")
        }),
    ];
    (names, value())
}

/// RFC 9110 §5.5, obs-text included.
fn value() -> impl Strategy<Value = Bytes> {
    let byte = prop_oneof![12 => 0x20..0x7f_u8, 2 => 0x80..=0xff_u8, 1 => Just(b'\t')];
    vec(byte, 0..40).prop_map(|bytes| Bytes::copy_from_slice(bytes.trim_ascii()))
}

fn cookies() -> impl Strategy<Value = (String, Bytes)> {
    let name = select(&["a", "hidden", "sid", "_xsrf", "hidden2", ""][..]);
    let byte = prop_oneof![9 => 0x21..0x7f_u8, 1 => 0x80..=0xff_u8];
    let value = vec(byte.prop_filter("ends a pair", |byte| *byte != b';'), 0..12);
    let pair = (name, select(&["=", " = ", ""][..]), value)
        .prop_map(|(name, equals, value)| [name.as_bytes(), equals.as_bytes(), &value].concat());
    let line = vec((pair, select(&["; ", ";", ";; "][..])), 1..5).prop_map(|pairs| {
        let mut line: Vec<u8> =
            pairs.into_iter().flat_map(|(pair, end)| [&pair[..], end.as_bytes()].concat()).collect();
        while line.last().is_some_and(|byte| matches!(byte, b';' | b' ')) {
            line.pop();
        }
        Bytes::copy_from_slice(line.trim_ascii())
    });
    (select(&["Cookie", "cookie"][..]), line).prop_map(|(name, line)| (name.to_owned(), line))
}

fn just_none() -> BoxedStrategy<Framing> {
    Just(Framing::None).boxed()
}

fn length() -> BoxedStrategy<Framing> {
    Just(Framing::Length).boxed()
}

fn chunks() -> BoxedStrategy<Framing> {
    let size = prop_oneof![1..20_usize, 20..2000_usize, 2000..70_000_usize];
    vec(size, 1..4).prop_map(Framing::Chunks).boxed()
}

fn plan(framings: Vec<BoxedStrategy<Framing>>, is_answer: bool) -> impl Strategy<Value = Plan> {
    let framing = proptest::strategy::Union::new(framings);
    let length = prop_oneof![2 => Just(0_usize), 4 => 1..300_usize, 2 => 300..20_000_usize, 1 => 20_000..200_000_usize];
    let kept = select(&["x-checksum", "X-Second"][..]).prop_map(str::to_owned);
    let dropped = select(&["Content-Type", "set-cookie", "x-forwarded-for", "content-length"][..])
        .prop_map(str::to_owned);
    let trailer = prop_oneof![3 => kept, 1 => dropped];
    let trailers = prop_oneof![3 => Just(Fields::new()), 1 => vec((trailer, value()), 1..3)];
    (framing, length, any::<u32>(), trailers).prop_map(move |(framing, length, seed, trailers)| {
        let mut bytes = Blob { length, seed };
        // A few bytes a chunk, and many chunks, would only take time.
        if let Framing::Chunks(sizes) = &framing {
            bytes.length = length.min(300 * sizes.iter().max().copied().unwrap_or(1));
        }
        if framing == Framing::None && !is_answer {
            bytes.length = 0;
        }
        Plan { framing, bytes, trailers }
    })
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![usize::MAX]),
        vec(prop_oneof![20..200_usize, 1000..20_000_usize], 1..4).prop_map(|mut pieces| {
            // The first may be a single byte.
            pieces.insert(0, 1);
            pieces.push(30_000);
            pieces
        }),
    ]
}
