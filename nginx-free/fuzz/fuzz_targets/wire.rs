//! What the look at the raw bytes finds does not depend on the pieces that they come in, and where it accepts a head, it
//! ends where `httparse` (and so hyper) ends it, and its body is as long.
//!
//! The input is a line of digits, the lengths of the pieces in turn, and the bytes of a connection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nginx_free::fuzzing::{Look, Seen};

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|b| *b == b'\n') else { return };
    let (lengths, bytes) = (&data[..end], &data[end + 1..]);
    let whole = Look::default().at(bytes);

    let (mut look, mut rest, mut in_pieces) = (Look::default(), bytes, Ok(Seen::Request));
    for digit in lengths.iter().cycle().take(bytes.len() + lengths.len()) {
        let (piece, after) = rest.split_at(usize::from(digit % 16).min(rest.len()));
        rest = after;
        in_pieces = look.at(piece);
        if in_pieces.is_err() || rest.is_empty() {
            break;
        }
    }
    if in_pieces.is_err() || rest.is_empty() {
        assert_eq!(in_pieces, whole);
    }
    // The same, byte by byte, noting where heads end.
    let (mut look, mut place, mut ends) = (Look::default(), Seen::Request, Vec::new());
    for (at, byte) in bytes.iter().enumerate() {
        match look.at(&[*byte]) {
            Ok(now) => {
                if place == Seen::Fields && now != Seen::Fields {
                    ends.push((at + 1, now));
                }
                place = now;
            }
            Err(refusal) => {
                assert_eq!(whole, Err(refusal));
                return check(bytes, &ends, true);
            }
        }
    }
    assert_eq!(whole, Ok(place));
    check(bytes, &ends, false);
});

/// Follows the heads as httparse does. `ends` are where the look saw them end, and what it saw follow.
fn check(bytes: &[u8], ends: &[(usize, Seen)], refused: bool) {
    let mut start = 0;
    let mut ends = ends.iter();
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut fields);
        let Some(rest) = bytes.get(start..) else { return };
        let length = match request.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => {
                assert_eq!(ends.next(), None, "the look ended a head that httparse has not seen the end of");
                return;
            }
            // hyper refuses it, and closes.
            Err(_) => return,
        };
        let Some((end, seen)) = ends.next() else {
            assert!(refused, "httparse ended a head that the look has not seen the end of");
            return;
        };
        assert_eq!(*end, start + length, "a head ends in two places");
        let named = |name: &str| {
            request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).collect::<Vec<_>>()
        };
        let lengths = named("content-length");
        let unseen = !named("transfer-encoding").is_empty() || !named("upgrade").is_empty();
        if unseen {
            assert_eq!(*seen, Seen::Unseen);
            return;
        }
        assert!(lengths.len() <= 1, "two lengths passed");
        let length = lengths.first().map_or(0, |field| {
            let text = std::str::from_utf8(field.value).expect("a length that is no text passed").trim();
            assert!(!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()), "{text:?} passed");
            text.parse::<u64>().expect("a length that is no number passed")
        });
        assert_eq!(*seen, if length == 0 { Seen::Request } else { Seen::Body(length) });
        start = end.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
    }
}
