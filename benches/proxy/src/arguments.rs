//! Arguments of the form `--name value`; a name may come more than once.

use std::str::FromStr;

use crate::Result;

/// The arguments that were not taken yet.
pub struct Arguments(Vec<(String, String)>);

impl Arguments {
    /// Reads `words`.
    ///
    /// # Errors
    /// Where they are not pairs of `--name` and value.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut pairs = Vec::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word} is not an option"))?;
            let value = words.next().ok_or_else(|| format!("--{name} wants a value"))?;
            pairs.push((name.to_owned(), value));
        }
        Ok(Self(pairs))
    }

    /// All values of `name`.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|pair| pair.0 == name);
        self.0 = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|pair| pair.1).collect()
    }

    /// The last value of `name`, where it was given.
    ///
    /// # Errors
    /// Where it is not a `T`.
    pub fn optional<T: FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.all(name).pop() else { return Ok(None) };
        Ok(Some(text.parse().map_err(|_| format!("--{name} {text} does not make sense"))?))
    }

    /// The last value of `name`.
    ///
    /// # Errors
    /// Where there is none, or it is not a `T`.
    pub fn required<T: FromStr>(&mut self, name: &str) -> Result<T> {
        Ok(self.optional(name)?.ok_or_else(|| format!("--{name} is missing"))?)
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// Where there is such a thing.
    pub fn end(self) -> Result<()> {
        match self.0.first() {
            Some((name, _)) => Err(format!("--{name} is unknown").into()),
            None => Ok(()),
        }
    }
}
