//! The types of settings that are no words of the whole program: names, paths, and choices with an `auto` in them.
//!
//! Each is parsed from the same text in a file, a variable and a flag, and prints as a text that parses to itself.

use std::{
    fmt,
    net::IpAddr,
    ops::Deref,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Where the gateway listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// Every address of this host.
    All,
    /// One address of this host.
    Address(IpAddr),
    /// A unix socket in the session's own folder.
    Unix,
}

/// Which runtime starts the app.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeChoice {
    /// With an image, Apptainer, else SingularityCE; without one, none.
    Auto,
    /// Apptainer.
    Apptainer,
    /// SingularityCE.
    Singularity,
    /// None: the node's own filesystem.
    Bare,
}

/// What brings packets out of a session's network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OutboundHelper {
    /// pasta, else slirp4netns.
    Auto,
    /// pasta, of the `passt` package.
    Pasta,
    /// slirp4netns.
    Slirp4netns,
}

/// How the gateway writes down who asked for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// A line of text for each request.
    Text,
    /// A line of JSON for each request.
    Json,
    /// Not at all.
    Off,
}

/// The name of this host in the URLs that are printed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostChoice {
    /// What this host calls itself.
    Auto,
    /// This name or address.
    Named(HostName),
}

/// A DNS name or an IP address, without port: lower case, and nothing in it that a URL or a `Host` header would read
/// as anything else. An IPv6 address stands without brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// The name of a file in `/etc/pam.d`: 1 to 64 characters of `a-z`, `A-Z`, `0-9`, `.`, `_`, `-`, the first a letter or a
/// digit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PamService(String);

/// A path from the root: what a setting means must not depend on where one stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AbsolutePath(PathBuf);

/// A file, or none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FileChoice {
    /// Written as `none`.
    None,
    /// This file.
    File(AbsolutePath),
}

/// A program, another file or a folder, or whatever is found where such things are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PathChoice {
    /// Written as `auto`.
    Auto,
    /// This one.
    At(AbsolutePath),
}

/// A `NAME=value` for the environment of apps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Variable {
    name: String,
    value: String,
}

/// Why a text is no value of the kind that was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidValue {
    text: String,
    expected: &'static str,
}

impl InvalidValue {
    pub(super) fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

impl FromStr for Listen {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "all" => Ok(Self::All),
            "unix" => Ok(Self::Unix),
            address => match address.trim_matches(['[', ']']).parse() {
                Ok(address) => Ok(Self::Address(address)),
                Err(_) => Err(InvalidValue::new(text, "all, unix or an IP address of this host")),
            },
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Unix => f.write_str("unix"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl HostName {
    /// The name that every host has for itself.
    pub fn localhost() -> Self {
        Self("localhost".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidValue::new(text, "a host's name or an IP address, without port"))
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PamService {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PamService {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins_well && text.len() <= 64 && text.bytes().all(is_good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidValue::new(text, "the name of a file in /etc/pam.d"))
        }
    }
}

impl fmt::Display for PamService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostChoice {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Named) }
    }
}

impl fmt::Display for HostChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Named(name) => name.fmt(f),
        }
    }
}

impl Deref for AbsolutePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for AbsolutePath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl FromStr for AbsolutePath {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.starts_with('/') && !text.contains('\0') {
            Ok(Self(text.into()))
        } else {
            Err(InvalidValue::new(text, "a path that begins with /"))
        }
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl PathChoice {
    /// The path, where one is named.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Auto => None,
            Self::At(path) => Some(path),
        }
    }
}

impl FileChoice {
    /// The file, if there is to be one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::File(path) => Some(path),
        }
    }
}

impl FromStr for FileChoice {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::File) }
    }
}

impl fmt::Display for FileChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl FromStr for PathChoice {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::At) }
    }
}

impl fmt::Display for PathChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::At(path) => path.fmt(f),
        }
    }
}

impl Variable {
    /// What stands left of the first `=`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stands right of it.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Variable {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        match text.split_once('=') {
            Some((name, value)) if is_name(name) && !value.contains('\0') => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(InvalidValue::new(text, "a NAME=value")),
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

macro_rules! through_text {
    ($from:ty, $parse:ident: $($type:ty),*) => {$(
        impl TryFrom<$from> for $type {
            type Error = $crate::config::InvalidValue;

            fn try_from(text: $from) -> Result<Self, Self::Error> {
                text.$parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )*};
}
pub(super) use through_text;
through_text!(String, parse: Listen, HostName, HostChoice, PamService);
through_text!(String, parse: AbsolutePath, FileChoice, PathChoice, Variable);

macro_rules! display_as_value {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = self.to_possible_value();
                f.write_str(value.as_ref().map_or("", |v| v.get_name()))
            }
        }
    )*};
}
display_as_value!(RuntimeChoice, OutboundHelper, AccessLog);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_cannot_smuggle_a_port_a_path_or_a_user() {
        for text in ["", "a:1", "a/b", "u@a", "a b", "a.", ".a", "-a", "a\r\n", "é", &"a".repeat(64)] {
            assert!(text.parse::<HostName>().is_err(), "{text:?}");
        }
        assert_eq!("Login1.HPC.example".parse::<HostName>().unwrap().as_str(), "login1.hpc.example");
        assert_eq!("0:0::1".parse::<HostName>().unwrap().as_str(), "::1");
    }

    #[test]
    fn a_pam_service_is_one_file_s_name() {
        for text in ["sshd", "login", "sssd-shadowutils", "shlogin.2"] {
            assert_eq!(text.parse::<PamService>().unwrap().to_string(), text);
        }
        for text in ["", ".", "..", "../sshd", "/etc/pam.d/sshd", "a b", "a\0", "é", &"a".repeat(65)] {
            assert!(text.parse::<PamService>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_choice_prints_as_the_text_it_was_read_from() {
        for text in ["all", "unix", "10.0.0.1", "::1"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert!("localhost".parse::<Listen>().is_err());
        assert_eq!("none".parse::<FileChoice>().unwrap().path(), None);
        assert!("relative.pem".parse::<FileChoice>().is_err());
        let variable: Variable = "A=b=c".parse().unwrap();
        assert_eq!((variable.name(), variable.value(), variable.to_string().as_str()), ("A", "b=c", "A=b=c"));
        for text in ["A", "=b", "1A=b", "A-B=c"] {
            assert!(text.parse::<Variable>().is_err(), "{text:?}");
        }
    }
}
