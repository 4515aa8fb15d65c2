//! Tells what a terminal answers by itself, when a program asks it something, from what a person types.

/// Whether all of these bytes are answers (ECMA-48; xterm's `ctlseqs`): to where the cursor is, what terminal this is, how it is
/// set, and what colours it has. F3 with a modifier looks like the first, and is taken for it.
pub(super) fn are_answers(mut bytes: &[u8]) -> bool {
    while let Some(rest) = bytes.strip_prefix(b"\x1b") {
        let end = match rest.first() {
            Some(b'[') => {
                let body = rest.iter().skip(1).position(|byte| (0x40..=0x7e).contains(byte)).map(|at| at + 1);
                let digits =
                    rest.get(1).is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'?' | b'>'));
                body.filter(|at| digits && rest.get(*at).is_some_and(|last| b"Rcnyt".contains(last)))
            }
            // A string, to its terminator.
            Some(b']' | b'P') => rest
                .iter()
                .position(|byte| *byte == 7)
                .or_else(|| rest.windows(2).position(|two| two == b"\x1b\\").map(|at| at + 1)),
            _ => None,
        };
        match end {
            Some(at) => bytes = rest.get(at + 1..).unwrap_or_default(),
            None => return false,
        }
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_keys() {
        for answer in [
            "\x1b[24;80R",
            "\x1b[?62;22c",
            "\x1b[>0;276;0c\x1b[1;1R",
            "\x1b[0n",
            "\x1b[?2004;1$y",
            "\x1b]11;rgb:0000/0000/0000\x07",
            "\x1b]11;rgb:0000/0000/0000\x1b\\",
            "\x1bP1+r544e\x1b\\",
        ] {
            assert!(are_answers(answer.as_bytes()), "{answer:?}");
        }
        for keys in [
            "a",
            "\r",
            "\x03",
            "\x1b",
            "\x1b[A",
            "\x1bOP",
            "\x1b[15~",
            "\x1b[1;5C",
            "\x1bx",
            "\x1b[24;80Rx",
            "\x1b[<0;10;10M",
            "\x1b[I",
            "\x1b[200~c\x1b[201~",
            "\x1b[",
            "\x1b]11;",
        ] {
            assert!(!are_answers(keys.as_bytes()), "{keys:?}");
        }
    }
}
