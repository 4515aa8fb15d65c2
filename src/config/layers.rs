//! Puts the layers on top of each other: who says what, who may, and what holds in the end.
//!
//! A layer is parsed into a [`Partial`] (so that it is refused where it is wrong, with its file and line) and written out
//! again as a flat map from dotted keys to values. All of "who wins", "who has locked it" and "where is it from" is then
//! one pass over maps, whatever keys there are.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, geteuid};
use serde::{Deserialize, Serialize, Serializer};
use toml::{Table, Value};

use super::{
    Config,
    error::{ConfigError, Locked},
    file::{self, Trusted},
    partial::Partial,
    paths,
};
use crate::words::{Isolation, Network, PodRange};

/// The settings that hold where nobody says otherwise, and their documentation.
pub const DEFAULT: &str = include_str!("default.toml");

/// Where the administrator's settings are.
pub const SITE_FILE: &str = "/etc/shlogin/config.toml";

/// Variables that begin like settings and are none: what an app is told, and what the
/// project's own scripts use.
const NO_SETTINGS: [&str; 7] = [
    "SHLOGIN_PORT",
    "SHLOGIN_URL",
    "SHLOGIN_SESSION",
    "SHLOGIN_NAME",
    "SHLOGIN_SOCKET",
    "SHLOGIN_BASE_PATH",
    "SHLOGIN_CACHE",
];

/// Which layer a value is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The embedded default.
    Default,
    /// The administrator's file.
    Site(PathBuf),
    /// The user's file.
    User(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command.
    Flag,
    /// Nobody says it; another key leaves no choice.
    FollowsFrom(&'static str),
}

/// One key with what holds for it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Dotted: `gateway.listen`.
    pub key: String,
    /// As in a file.
    pub value: Value,
    /// Which layer says so.
    pub origin: Origin,
    /// Whether the administrator has locked it.
    pub locked: bool,
}

/// Everything that holds, and why.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The settings.
    pub config: Config,
    /// Each key with its origin, in the order of their names.
    pub entries: Vec<Entry>,
    /// What looks like a mistake and is no error.
    pub warnings: Vec<String>,
}

/// Where the layers are read from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The administrator's file.
    pub site: PathBuf,
    /// To whom it has to belong.
    pub site_owner: Uid,
    /// The user's file, if the user has a home.
    pub user: Option<PathBuf>,
    /// The environment.
    pub variables: Vec<(OsString, OsString)>,
}

/// The tables whose keys are names of the site's or the user's, each an entry of its own.
const OPEN: [&str; 2] = ["slurm.partitions", "slurm.apps"];

type Flat = BTreeMap<String, Value>;

impl Sources {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        Self {
            site: SITE_FILE.into(),
            site_owner: Uid::from_raw(0),
            user: paths::config_home().map(|home| home.join("shlogin/config.toml")),
            variables: std::env::vars_os().collect(),
        }
    }

    /// Reads all layers, puts `flags` on top and says what holds.
    ///
    /// # Errors
    /// The first thing that is wrong with any layer, or between them.
    pub fn resolve(&self, flags: &Partial) -> Result<Resolved, ConfigError> {
        let default = parse(Path::new("default.toml"), DEFAULT)?;
        let mut merged = Merged::new(&default)?;
        if let Some(text) = file::read(&self.site, Trusted::Site(self.site_owner))? {
            let site = parse(&self.site, &text)?;
            merged.lock(&self.site, &text, &site.locked)?;
            merged.put(&site, Origin::Site(self.site.clone()))?;
        }
        merged.locks_hold = true;
        if let Some(path) = &self.user
            && let Some(text) = file::read(path, Trusted::User(geteuid()))?
        {
            merged.put_unlocked(&parse(path, &text)?, Origin::User(path.clone()))?;
        }
        let schema = flatten(&default)?;
        let (variables, warnings) = settings_of(&self.variables, &schema);
        for (name, key, text) in variables {
            let partial = partial_of_variable(&name, &key, &text, &schema)?;
            merged.put_unlocked(&partial, Origin::Environment(name))?;
        }
        merged.put_unlocked(flags, Origin::Flag)?;
        let config = merged.config()?;
        Ok(Resolved { config, entries: merged.entries(), warnings })
    }
}

impl Resolved {
    /// One line a key, `key = value  # origin`: a configuration file that says what holds.
    pub fn show(&self) -> String {
        let lines: Vec<_> = self.entries.iter().map(|e| (format!("{} = {}", e.key, e.value), e)).collect();
        let width =
            lines.iter().map(|(line, _)| line.chars().count()).filter(|w| *w <= 60).max().unwrap_or(0);
        let line = |(line, e): &(String, &Entry)| {
            let lock = if e.locked { ", locked" } else { "" };
            format!("{line:width$}  # from {}{lock}\n", e.origin)
        };
        lines.iter().map(line).collect()
    }

    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Site(path) | Self::User(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag => f.write_str("flag"),
            Self::FollowsFrom(key) => write!(f, "{key}, which leaves no choice"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The layers so far.
struct Merged {
    values: BTreeMap<String, (Value, Origin)>,
    locked: Vec<String>,
    locked_by: PathBuf,
    /// Off while the administrator's own file is put in.
    locks_hold: bool,
}

impl Merged {
    fn new(default: &Partial) -> Result<Self, ConfigError> {
        let mut merged =
            Self { values: BTreeMap::new(), locked: vec![], locked_by: PathBuf::new(), locks_hold: false };
        merged.put(default, Origin::Default)?;
        Ok(merged)
    }

    /// Notes what the administrator's `file` locks; a table stands for all its keys.
    fn lock(&mut self, file: &Path, text: &str, locked: &[String]) -> Result<(), ConfigError> {
        file.clone_into(&mut self.locked_by);
        for name in locked {
            if self.values.keys().any(|key| lies_in(key, name)) || OPEN.iter().any(|open| lies_in(name, open))
            {
                self.locked.push(name.clone());
            } else {
                let list = text.find("locked").unwrap_or(0);
                let line = line_at(text, list + text[list..].find(name.as_str()).unwrap_or(0));
                let message = format!("locked names {name:?}, which is no key and no table");
                return Err(ConfigError::File { file: file.to_owned(), line, message });
            }
        }
        Ok(())
    }

    fn put_unlocked(&mut self, layer: &Partial, origin: Origin) -> Result<(), ConfigError> {
        if layer.locked.is_empty() {
            self.put(layer, origin)
        } else {
            Err(ConfigError::LockElsewhere(origin))
        }
    }

    fn put(&mut self, layer: &Partial, origin: Origin) -> Result<(), ConfigError> {
        for (key, value) in flatten(layer)? {
            if self.locks_hold && self.is_locked(&key) {
                let held = self.values.get(&key).map(|(held, _)| held);
                if held != Some(&value) {
                    let held = held.map_or_else(|| "nothing".to_owned(), Value::to_string);
                    let (wanted, by) = (value.to_string(), self.locked_by.clone());
                    let locked = Locked { key, wanted, origin, value: held, by };
                    return Err(ConfigError::Locked(Box::new(locked)));
                }
            } else {
                self.values.insert(key, (value, origin.clone()));
            }
        }
        Ok(())
    }

    fn is_locked(&self, key: &str) -> bool {
        self.locked.iter().any(|name| lies_in(key, name))
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |(key, (value, origin)): (&String, &(Value, Origin))| Entry {
            key: key.clone(),
            value: value.clone(),
            origin: origin.clone(),
            locked: self.is_locked(key),
        };
        self.values.iter().map(entry).collect()
    }

    /// Checks what a layer alone can't get wrong, and makes the whole.
    fn config(&mut self) -> Result<Config, ConfigError> {
        self.settle_network()?;
        let partial: Partial = self.table().try_into()?;
        let (base, width, count) = (partial.pods.base, partial.pods.width, partial.pods.count);
        if let (Some(base), Some(width), Some(count)) = (base, width, count)
            && PodRange::new(base, width, count).is_none()
        {
            let origins = ["pods.base", "pods.width", "pods.count"].map(|key| self.origin(key));
            let origin = origins.into_iter().find(|o| *o != Origin::Default).unwrap_or(Origin::Default);
            return Err(ConfigError::Pods { base, width, count, origin });
        }
        let config = Config::deserialize(self.table())?;
        match (config.gateway.certificate.path(), config.gateway.key.path()) {
            (Some(_), None) => Err(ConfigError::HalfCertificate {
                missing: "gateway.key",
                origin: self.origin("gateway.certificate"),
            }),
            (None, Some(_)) => Err(ConfigError::HalfCertificate {
                missing: "gateway.certificate",
                origin: self.origin("gateway.key"),
            }),
            _ => Ok(config),
        }
    }

    /// `isolation = "socket"` has the node's network and no other; `"namespace"` never has it. A network that somebody
    /// asked for and can't get is an error: nobody shall believe an app to be fenced that is not.
    fn settle_network(&mut self) -> Result<(), ConfigError> {
        let partial: Partial = self.table().try_into()?;
        let (Some(isolation), Some(network)) = (partial.isolation, partial.network) else { return Ok(()) };
        let why = match (isolation, network) {
            (Isolation::Socket, Network::Host) => return Ok(()),
            (Isolation::Namespace, Network::Isolated | Network::Outbound) => return Ok(()),
            (Isolation::Socket, _) => {
                let is_asked_for = self.origin("network") != Origin::Default || self.is_locked("network");
                if !is_asked_for {
                    let host = Value::String(Network::Host.to_string());
                    self.values.insert("network".into(), (host, Origin::FollowsFrom("isolation")));
                    return Ok(());
                }
                "without namespaces an app has the node's network: say network = \"host\" to have it so"
            }
            (Isolation::Namespace, Network::Host) => "the node's network takes isolation = \"socket\"",
        };
        Err(ConfigError::Network {
            network,
            network_origin: self.origin("network"),
            isolation,
            isolation_origin: self.origin("isolation"),
            why,
        })
    }

    fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    fn table(&self) -> Table {
        let mut root = Table::new();
        for (key, (value, _)) in &self.values {
            insert(&mut root, key, value.clone());
        }
        root
    }
}

fn parse(file: &Path, text: &str) -> Result<Partial, ConfigError> {
    toml::from_str(text).map_err(|e| ConfigError::File {
        file: file.to_owned(),
        line: e.span().map_or(1, |span| line_at(text, span.start)),
        message: said(&e),
    })
}

/// What an error of the TOML parser says, in our words and on one line.
fn said(error: &toml::de::Error) -> String {
    error
        .message()
        .trim_end()
        .replace("unknown field", "unknown key")
        .replace("unknown variant", "unknown value")
        .replace('\n', "; ")
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// Whether a dotted key is `name`, or in the table of that name.
fn lies_in(key: &str, name: &str) -> bool {
    key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A layer as a map from dotted keys to values. The keys are TOML's: an entry's name stands in quotation marks where it
/// has to, and there are none in it.
fn flatten(layer: &Partial) -> Result<Flat, ConfigError> {
    fn walk(prefix: &str, table: Table, flat: &mut Flat) {
        let bare = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        for (key, value) in table {
            let key = if bare(&key) { key } else { format!("\"{key}\"") };
            match value {
                Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, flat),
                value => {
                    flat.insert(format!("{prefix}{key}"), value);
                }
            }
        }
    }
    let mut flat = Flat::new();
    walk("", Table::try_from(layer)?, &mut flat);
    flat.remove("locked");
    Ok(flat)
}

/// Puts a value where its dotted key says.
fn insert(root: &mut Table, key: &str, value: Value) {
    let (first, rest) = match key.strip_prefix('"').and_then(|key| key.split_once('"')) {
        Some((name, rest)) => (name, rest.strip_prefix('.')),
        None => key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest))),
    };
    match rest {
        None => {
            root.insert(first.to_owned(), value);
        }
        Some(rest) => {
            if let Value::Table(table) = root.entry(first).or_insert_with(|| Value::Table(Table::new())) {
                insert(table, rest, value);
            }
        }
    }
}

/// Those of the `SHLOGIN_*` that are settings, as (name, key, text), and a warning for each that is nothing we know. An
/// unknown one is no error: modules and packagers set `SHLOGIN_ROOT` and the like.
fn settings_of(
    all: &[(OsString, OsString)],
    schema: &Flat,
) -> (Vec<(String, String, OsString)>, Vec<String>) {
    let keys: BTreeMap<String, &String> = schema.keys().map(|key| (variable_of(key), key)).collect();
    let (mut settings, mut warnings) = (vec![], vec![]);
    for (name, text) in all {
        let Some(name) = name.to_str().filter(|name| name.starts_with("SHLOGIN_")) else { continue };
        match keys.get(name) {
            Some(_) if text.is_empty() => {}
            Some(key) => settings.push((name.to_owned(), (*key).clone(), text.clone())),
            None if NO_SETTINGS.contains(&name) => {}
            None => warnings.push(format!("${name} is no setting and is ignored")),
        }
    }
    (settings, warnings)
}

/// `gateway.listen` is `SHLOGIN_GATEWAY_LISTEN`.
fn variable_of(key: &str) -> String {
    format!("SHLOGIN_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Reads a variable's text as the kind of value that the default has for the same key.
fn partial_of_variable(
    name: &str,
    key: &str,
    text: &OsString,
    schema: &Flat,
) -> Result<Partial, ConfigError> {
    let wrong = |message: String| ConfigError::Variable { name: name.to_owned(), message };
    let text = text.to_str().ok_or_else(|| wrong("it is not UTF-8".to_owned()))?.trim();
    let value = match schema.get(key) {
        Some(Value::Integer(_)) => {
            Value::Integer(text.parse().map_err(|_| wrong(format!("{text:?} is not a whole number")))?)
        }
        Some(Value::Boolean(_)) => {
            Value::Boolean(text.parse().map_err(|_| wrong(format!("{text:?} is neither true nor false")))?)
        }
        Some(Value::Array(_)) if text.starts_with('[') => {
            let table: Table = format!("list = {text}").parse().map_err(|e| wrong(said(&e)))?;
            table.into_iter().next().map_or(Value::Array(vec![]), |(_, list)| list)
        }
        Some(Value::Array(_)) => {
            Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    };
    let mut root = Table::new();
    insert(&mut root, key, value);
    root.try_into().map_err(|e: toml::de::Error| wrong(said(&e)))
}
