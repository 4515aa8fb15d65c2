//! Codes that one person tells another: short enough to be read out, too long to be guessed.

use std::io;

use crate::words::{Secret, SecretHash};

/// Without those that are taken for others: 0 and o, 1 and l and i.
const LETTERS: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// Letters in a code, in groups of four: some 79 bits.
const LENGTH: usize = 16;

/// A new one.
pub(super) fn new() -> io::Result<Secret> {
    let mut text = String::with_capacity(LENGTH + LENGTH / 4);
    let mut chosen = 0;
    while chosen < LENGTH {
        let mut byte = [0];
        getrandom::fill(&mut byte).map_err(io::Error::other)?;
        // Numbers past the last whole round of the letters would favour the first ones.
        let Some(letter) = LETTERS.get(usize::from(byte[0]) % 32) else { continue };
        if chosen > 0 && chosen % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(*letter));
        chosen += 1;
    }
    Ok(Secret::from_text(text))
}

/// The hash of a code however it was written down: case, spaces and hyphens do not matter.
pub(super) fn hash(presented: &str) -> SecretHash {
    let letters: String = presented
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(LENGTH * 2)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    SecretHash::of(&letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_can_be_read_out_and_written_down() {
        let code = new().unwrap();
        let text = code.reveal();
        assert_eq!((text.len(), text.matches('-').count()), (19, 3));
        assert!(hash(text).matches(&hash(&text.replace('-', " ").to_uppercase())));
        assert!(!hash(text).matches(&hash(&text[..18])));
        assert!(!hash(text).matches(&hash(new().unwrap().reveal())));
        assert!(!hash(text).matches(&hash(&format!("{text}a"))));
    }
}
