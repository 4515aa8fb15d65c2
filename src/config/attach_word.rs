//! A word of `slurm.attach_command`: text, in which a few words in braces stand for what is known of the session.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::values::{InvalidValue, through_text};

/// The node from which the allocation was asked for.
const SUBMIT_HOST: &str = "{submit_host}";
/// The session's name.
const NAME: &str = "{name}";
/// Its identity.
const ID: &str = "{id}";

/// One word of the command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttachWord(String);

impl AttachWord {
    /// The word for this session.
    pub fn filled_in(&self, submit_host: &str, name: &str, id: &str) -> String {
        // None of the three has braces in it.
        self.0.replace(SUBMIT_HOST, submit_host).replace(NAME, name).replace(ID, id)
    }
}

impl FromStr for AttachWord {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let rest =
            [SUBMIT_HOST, NAME, ID].iter().fold(text.to_owned(), |text, known| text.replace(known, ""));
        if text.is_empty() || rest.contains(['{', '}', '\0']) {
            return Err(InvalidValue::new(text, "a word, with no braces but {submit_host}, {name} and {id}"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AttachWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

through_text!(String, parse: AttachWord);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_the_session_is_filled_in_and_other_braces_are_a_mistake() {
        let word = |text: &str| text.parse::<AttachWord>().map(|word| word.filled_in("login1", "lab", "0-1"));
        assert_eq!(word("{submit_host}").unwrap(), "login1");
        assert_eq!(word("ada@{submit_host}:{name}/{id}").unwrap(), "ada@login1:lab/0-1");
        assert_eq!(word("-oBatchMode=yes").unwrap(), "-oBatchMode=yes");
        for wrong in ["", "{host}", "{name", "a}", "{{name}}"] {
            assert!(word(wrong).is_err(), "{wrong}");
        }
    }
}
