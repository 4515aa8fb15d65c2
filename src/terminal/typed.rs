//! How much of what each page has typed has been taken, so that what is sent again after a broken connection is not typed
//! twice.

use std::{collections::VecDeque, str::FromStr};

use bytes::Bytes;

/// So many pages are remembered; the one that typed longest ago makes room.
const REMEMBERED: usize = 64;

/// What a page calls itself while it is open: 16 to 64 characters of `[A-Za-z0-9_-]`, at random. No secret.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientId(String);

/// It is not of that form.
#[derive(Debug, thiserror::Error)]
#[error("a page's name has 16 to 64 letters, digits, - or _")]
pub struct InvalidClient;

impl FromStr for ClientId {
    type Err = InvalidClient;

    fn from_str(text: &str) -> Result<Self, InvalidClient> {
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        let valid = (16..=64).contains(&text.len()) && text.bytes().all(fits);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidClient) }
    }
}

/// The count of each page.
#[derive(Default)]
pub(super) struct Typed(VecDeque<(ClientId, u64)>);

impl Typed {
    /// How many bytes of this page's have been taken.
    pub(super) fn taken(&self, client: &ClientId) -> u64 {
        self.0.iter().find(|(its, _)| its == client).map_or(0, |(_, taken)| *taken)
    }

    /// Takes what is new of `bytes`, which stand at offset `at` of what this page has typed. Nothing where something is
    /// missing in between: the page sends it again.
    pub(super) fn take(&mut self, client: &ClientId, at: u64, mut bytes: Bytes) -> Bytes {
        let taken = self.taken(client);
        let end = at.saturating_add(bytes.len() as u64);
        if at > taken || end <= taken {
            return Bytes::new();
        }
        self.0.retain(|(its, _)| its != client);
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((client.clone(), end));
        #[allow(clippy::cast_possible_truncation, reason = "less than the length, which is a usize")]
        bytes.split_off((taken - at) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> ClientId {
        format!("client-{n:0>16}").parse().unwrap()
    }

    #[test]
    fn what_is_sent_twice_is_typed_once_and_a_gap_is_not_jumped() {
        let mut typed = Typed::default();
        let me = client(0);
        assert_eq!(typed.take(&me, 0, Bytes::from("hello")), "hello");
        assert_eq!(typed.take(&me, 0, Bytes::from("hello")), "");
        assert_eq!(typed.take(&me, 3, Bytes::from("lo world")), " world");
        assert_eq!(typed.take(&me, 100, Bytes::from("x")), "");
        assert_eq!(typed.take(&me, u64::MAX, Bytes::from("x")), "");
        assert_eq!(typed.taken(&me), 11);
        assert_eq!(typed.take(&client(1), 0, Bytes::from("a")), "a");
    }

    #[test]
    fn who_types_is_remembered_and_the_number_of_pages_is_bounded() {
        let mut typed = Typed::default();
        typed.take(&client(0), 0, Bytes::from("a"));
        for n in 1..200_u32 {
            typed.take(&client(0), n.into(), Bytes::from("a"));
            typed.take(&client(n), 0, Bytes::from("a"));
        }
        assert_eq!(typed.taken(&client(0)), 200);
        assert_eq!((typed.0.len(), typed.taken(&client(1))), (REMEMBERED, 0));
    }

    #[test]
    fn a_page_s_name_is_plain() {
        for bad in ["", "short", "0123456789abcde\n", &"x".repeat(65), "0123456789abcdé0"] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad}");
        }
    }
}
