//! What an end of a lasting stream makes of what it is told does not depend on the pieces that it comes in, it never holds
//! more than it has granted, and nothing that the other end says makes it panic, over a first connection or a next one.
//!
//! The input is a line of digits, the lengths of the pieces in turn, and the bytes of a connection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nginx_free::fuzzing::{UNREAD, hear, hear_twice};

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|b| *b == b'\n') else { return };
    let (lengths, bytes) = (&data[..end], &data[end + 1..]);
    let whole = hear(std::iter::once(bytes));
    assert!(whole.read.len() <= UNREAD, "{} bytes are held", whole.read.len());
    let mut rest = bytes;
    let mut lengths = lengths.iter().map(|digit| usize::from(digit % 16).max(1)).cycle();
    let pieces: Vec<&[u8]> = std::iter::from_fn(|| {
        let length = lengths.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
    .collect();
    assert_eq!(hear(pieces.iter().copied()), whole);
    hear_twice(pieces.iter().copied());
});
