//! A terminal's relay and the page's messages: whatever comes, each seat hears the output in order, without a gap that it
//! is not told of and with no byte twice; a viewer's bytes go nowhere; what a page sends twice is typed once; nobody but an
//! owner changes the size.
//!
//! The input is lines, each a letter, a digit for the seat, and a text.
//!
//! | letter | |
//! |---|---|
//! | `o` | the program writes the text |
//! | `O`, `T`, `V` | an owner, a guest who types, a viewer comes; `have` and a width are in the text |
//! | `x` | a seat is left |
//! | `h` | a seat hears all that there is |
//! | `t` | a seat types the text, at the offset where it is; `r`: it sends all that it has typed again |
//! | `z`, `f`, `s` | it changes its size, looks, has seen all |
//! | `j` | the text is a message |
#![no_main]

use libfuzzer_sys::fuzz_target;
use shlogin::{
    gateway::fuzzing::from_page,
    terminal::{Event, fuzzing::Relay},
    words::{Access, Size},
};

struct Seat {
    id: u64,
    number: usize,
    access: Access,
    at: u64,
    typed: Vec<u8>,
}

fuzz_target!(|data: &[u8]| {
    let mut relay = Relay::new();
    let (mut output, mut seats): (Vec<u8>, Vec<Seat>) = (Vec::new(), Vec::new());
    let mut reached: Vec<Vec<u8>> = vec![Vec::new(); 10];
    for line in data.split(|byte| *byte == b'\n').take(128) {
        let [letter, digit, text @ ..] = line else { continue };
        let number = usize::from(digit % 10);
        let value = text.iter().fold(0_u32, |n, byte| n.wrapping_mul(31).wrapping_add(u32::from(*byte)));
        let size = Size::near(value, value >> 16);
        let known = seats.iter().position(|seat| seat.number == number);
        let before = relay.size();
        match (letter, known) {
            (b'o', _) => {
                relay.output(text);
                output.extend_from_slice(text);
            }
            (b'O' | b'T' | b'V', None) if seats.len() < 8 => {
                let access = match letter {
                    b'O' => Access::Owner,
                    b'T' => Access::Type,
                    _ => Access::View,
                };
                let client = format!("page-{number:0>16}").parse().ok();
                let have = text.first().map(|_| u64::from(value) % (output.len() as u64 + 3));
                let (id, began) = relay.seat(access, client, have, size);
                assert!(began.from <= output.len() as u64);
                assert!(began.reset || Some(began.from) == have);
                assert_eq!(began.taken, reached[number].len() as u64);
                let typed = reached[number].clone();
                seats.push(Seat { id, number, access, at: began.from, typed });
                if access == Access::Owner {
                    continue; // its size counts at once
                }
            }
            (b'x', Some(known)) => {
                relay.leave(seats.swap_remove(known).id);
                continue; // another owner's size may count now
            }
            (b'h', Some(known)) => {
                let seat = &mut seats[known];
                while let Some(event) = relay.next(seat.id) {
                    match event {
                        Event::Output { at, bytes } => {
                            assert_eq!(at, seat.at);
                            seat.at += bytes.len() as u64;
                            assert_eq!(bytes[..], output[at as usize..seat.at as usize]);
                        }
                        Event::Skip { from, .. } => {
                            assert!(from > seat.at);
                            seat.at = from;
                        }
                        Event::Redraw(_) | Event::Size { .. } | Event::Notice(_) => {}
                        Event::Ended(_) => unreachable!("no program ended"),
                    }
                }
                assert_eq!(seat.at, output.len() as u64);
            }
            (b't' | b'r', Some(known)) => {
                let seat = &mut seats[known];
                let at = if *letter == b't' { seat.typed.len() } else { 0 };
                if *letter == b't' {
                    seat.typed.extend_from_slice(text);
                }
                let new = relay.typed(seat.id, Some(at as u64), &seat.typed[at..]);
                if seat.access == Access::View {
                    assert!(new.is_empty(), "a viewer typed");
                    seat.typed.clear();
                } else {
                    reached[number].extend_from_slice(&new);
                    assert_eq!(reached[number], seat.typed);
                }
                if seat.access == Access::Owner {
                    continue;
                }
            }
            (b'z', Some(known)) => {
                relay.resize(seats[known].id, size);
                if seats[known].access == Access::Owner {
                    continue;
                }
            }
            (b'f', Some(known)) => {
                relay.focus(seats[known].id);
                if seats[known].access == Access::Owner {
                    continue;
                }
            }
            (b's', Some(known)) => relay.shown(seats[known].id, u64::from(value)),
            (b'j', _) => {
                if let Some(Some(size)) = std::str::from_utf8(text).ok().and_then(from_page) {
                    assert_eq!(size, Size::near(size.cols().into(), size.rows().into()));
                }
            }
            _ => {}
        }
        assert_eq!(relay.size(), before, "somebody else than an owner changed the size");
        assert!(relay.title().chars().count() <= 200 && !relay.title().chars().any(char::is_control));
    }
});
