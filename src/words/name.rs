//! A session's name: what a person types, and a folder's name on disk.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

/// A session's name, unique among its owner's live sessions on one node.
///
/// 1 to 48 characters of `a-z`, `A-Z`, `0-9`, `.`, `_`, `-`, the first a letter or a digit: it can be a file's name, a
/// host alias and a part of a URL as it is, and is never mistaken for an option.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionName(String);

/// Why a text is not a [`SessionName`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no name for a session: use 1 to 48 of a-z A-Z 0-9 . _ -, beginning with a letter or a digit"
)]
pub struct InvalidName(String);

impl SessionName {
    const MAX: usize = 48;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name made from an image's or command's path: its file name without extension, with what a name can't have
    /// replaced by `-`. `session` where nothing remains.
    pub fn from_path_lossy(path: &Path) -> Self {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut name: String = stem
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .skip_while(|c| !c.is_ascii_alphanumeric())
            .take(Self::MAX - 4)
            .collect();
        if name.is_empty() {
            name = "session".to_owned();
        }
        Self(name)
    }

    /// `name`, `name-2`, `name-3`, …: the `n`th name to try where the first is taken. `n` counts from 1.
    pub fn numbered(&self, n: u16) -> Self {
        if n <= 1 {
            return self.clone();
        }
        let suffix = format!("-{n}");
        let keep = self.0.len().min(Self::MAX - suffix.len());
        Self(format!("{}{suffix}", &self.0[..keep]))
    }
}

impl FromStr for SessionName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if first && rest && text.len() <= Self::MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.chars().take(64).collect()))
        }
    }
}

impl TryFrom<String> for SessionName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<SessionName> for String {
    fn from(name: SessionName) -> Self {
        name.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_be_a_path_an_option_or_an_escape() {
        for text in ["", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "a\u{1b}[0m", "é", &"a".repeat(49)] {
            assert!(text.parse::<SessionName>().is_err(), "{text:?}");
        }
        for text in ["a", "0", "jupyter-2", "A.b_c-d", &"a".repeat(48)] {
            assert_eq!(text.parse::<SessionName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_name_made_from_a_path_is_always_a_name() {
        for path in ["/x/Note book.sif", "--", "/", "é.sif", &format!("/{}.sif", "x".repeat(300))] {
            let name = SessionName::from_path_lossy(Path::new(path));
            assert!(name.as_str().parse::<SessionName>().is_ok(), "{path} gave {name}");
            assert!(name.numbered(9999).as_str().parse::<SessionName>().is_ok());
        }
    }
}
