//! Patterns with `*` and `?`, as PATTERNS in `ssh_config(5)` has them. They know no brackets and no escapes.

/// Whether all of `text` fits `pattern`, case and all.
///
/// Takes at most as many steps as the product of both lengths, whatever stands in them.
pub(super) fn fits(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // The last `*`, and where in the text what follows it was tried.
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(next) {
            Some(b'*') => {
                retry = Some((next, at));
                next += 1;
            }
            Some(b'?') => (at, next) = (at + 1, next + 1),
            Some(byte) if *byte == text[at] => (at, next) = (at + 1, next + 1),
            _ => match &mut retry {
                Some((star, tried)) => {
                    *tried += 1;
                    (at, next) = (*tried, *star + 1);
                }
                None => return false,
            },
        }
    }
    pattern[next..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_those_of_ssh_config() {
        for (text, pattern, expected) in [
            ("192.168.0.7", "192.168.0.?", true),
            ("192.168.0.77", "192.168.0.?", false),
            ("a.co.uk", "*.co.uk", true),
            ("co.uk", "*.co.uk", false),
            ("", "", true),
            ("", "*", true),
            ("", "?", false),
            ("a", "", false),
            ("abcabc", "*abc", true),
            ("abcabd", "*abc", false),
            ("a.b.c", "a*.*c", true),
            ("A", "a", false),
            ("a", "[a]", false),
            ("a*", "a\\*", false),
            ("ab", "**", true),
        ] {
            assert_eq!(fits(text.as_bytes(), pattern.as_bytes()), expected, "{text:?} {pattern:?}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let (text, pattern) = ("a".repeat(4000), "a*".repeat(2000) + "b");
        assert!(!fits(text.as_bytes(), pattern.as_bytes()));
    }
}
