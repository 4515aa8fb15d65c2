//! Images: from what a person names to a file or folder on this node, and what its scripts are. All of it outside the
//! sandbox, with the person's own configuration, credentials and cache.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::Pid;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{ImageSpec, Runtime, scripts};
use crate::{config::node_name, sys::process::start_ticks};

/// The schemes that `apptainer pull` takes; anything else is a path.
const SCHEMES: [&str; 10] = [
    "docker",
    "docker-daemon",
    "docker-archive",
    "oras",
    "library",
    "shub",
    "oci",
    "oci-archive",
    "http",
    "https",
];

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such file or folder.
    #[error("no image at {path}: {source}")]
    Missing {
        /// As it was named.
        path: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It is there, and is no image.
    #[error("{path} is no image: {why}")]
    NoImage {
        /// As it was named.
        path: String,
        /// What it is instead, or what the runtime says.
        why: String,
    },
    /// It could not be pulled; the runtime has said why on stderr.
    #[error("cannot pull {uri}: {why}")]
    NotPulled {
        /// As it was named.
        uri: String,
        /// How the runtime ended.
        why: String,
    },
    /// The runtime itself could not be run.
    #[error("cannot run {program}: {source}")]
    Runtime {
        /// Its path.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Whether a name is a URI that has to be pulled.
fn scheme(named: &str) -> Option<&str> {
    let (scheme, _) = named.split_once(':')?;
    (SCHEMES.contains(&scheme) && !Path::new(named).exists()).then_some(scheme)
}

/// From a name to an image on this node, pulling it into `cache` if it is a URI.
///
/// # Errors
/// As [`ImageError`].
pub fn resolve(named: &str, runtime: &Runtime, cache: &Path) -> Result<ImageSpec, ImageError> {
    let path = match scheme(named) {
        Some(_) => pull(named, runtime, &cache.join("images"))?,
        None => {
            let missing = |source| ImageError::Missing { path: named.to_owned(), source };
            fs::canonicalize(named).map_err(missing)?
        }
    };
    check(named, &path)?;
    Ok(ImageSpec { named: named.to_owned(), path, cache: cache.to_owned() })
}

fn check(named: &str, path: &Path) -> Result<(), ImageError> {
    let no_image = |why: String| ImageError::NoImage { path: named.to_owned(), why };
    let kind = fs::metadata(path).map_err(|source| ImageError::Missing { path: named.to_owned(), source })?;
    if kind.is_dir() {
        let inside = ["bin", "usr", ".singularity.d"].iter().any(|name| path.join(name).exists());
        return if inside {
            Ok(())
        } else {
            Err(no_image("a folder without a root filesystem in it".to_owned()))
        };
    }
    if !kind.is_file() {
        return Err(no_image("neither a file nor a folder".to_owned()));
    }
    let mut head = Vec::new();
    let read = fs::File::open(path)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, 2048), &mut head));
    read.map_err(|error| no_image(error.to_string()))?;
    // SIF says so after its launch line; squashfs at its start; an ext3 image has its magic at 1080.
    let sif = head.get(32..42).is_some_and(|magic| magic.starts_with(b"SIF_MAGIC"));
    let squashfs = head.starts_with(b"hsqs");
    let ext3 = head.get(1080..1082) == Some(&[0x53, 0xef]);
    if sif || squashfs || ext3 {
        Ok(())
    } else {
        Err(no_image("neither SIF nor squashfs nor ext3".to_owned()))
    }
}

/// Pulls a URI into `cache`: each time, since what a tag means can change; the runtime's own cache knows what it has
/// already. Sessions that run keep the file they have. Progress goes to stderr, as the runtime shows it.
///
/// # Errors
/// As [`ImageError`].
pub fn pull(uri: &str, runtime: &Runtime, cache: &Path) -> Result<PathBuf, ImageError> {
    let not_pulled = |why: String| ImageError::NotPulled { uri: uri.to_owned(), why };
    fs::create_dir_all(cache)
        .map_err(|error| not_pulled(format!("cannot make {}: {error}", cache.display())))?;
    let digest: String =
        Sha256::digest(uri.as_bytes()).iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let stem = Path::new(uri).file_name().unwrap_or_default().to_string_lossy().replace(':', "_");
    let target = cache.join(format!("{stem}-{digest}.sif"));
    remove_abandoned(cache);
    let partial = cache.join(format!(".{digest}-{}.{}", std::process::id(), mark()));
    let mut command = Command::new(&runtime.program);
    // All it prints is progress, and our stdout belongs to the URL.
    command.arg("pull").arg("--force").arg(&partial).arg(uri).stdin(Stdio::null()).stdout(io::stderr());
    let status = command
        .status()
        .map_err(|source| ImageError::Runtime { program: runtime.program.display().to_string(), source })?;
    if !status.success() {
        // A half-pulled image must not be found next time.
        let _ = fs::remove_file(&partial);
        return Err(not_pulled(format!("{} ended with {status}", runtime.program.display())));
    }
    fs::rename(&partial, &target).map_err(|error| not_pulled(error.to_string()))?;
    Ok(target)
}

/// How the name of a file ends that a pull on this node is writing: nodes share homes, and each knows its own processes.
fn mark() -> String {
    format!("{}.part", node_name())
}

/// Removes what pulls that were interrupted have left: files named after a process of this node that is no more.
fn remove_abandoned(cache: &Path) {
    let mark = mark();
    let puller = |name: &str| {
        name.strip_prefix('.')?.strip_suffix(&mark)?.strip_suffix('.')?.split_once('-')?.1.parse().ok()
    };
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(puller);
        if pid.is_some_and(|pid| start_ticks(Pid::from_raw(pid)).is_err()) {
            // If it stays, the next pull tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The scripts of an image that matter to a start.
#[derive(Default)]
pub struct Scripts {
    /// Its start script, if it has one that does something.
    pub start: Option<Script>,
}

/// A script of an image.
pub struct Script(String);

impl Script {
    /// `None` where the text holds nothing but comments and blank lines.
    pub fn new(text: String) -> Option<Self> {
        let does_something =
            text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#'));
        does_something.then_some(Self(text))
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The words of its first line after `#!` (at most one argument, as `execve(2)` has it); `/bin/sh` without one.
    pub fn interpreter(&self) -> Vec<OsString> {
        let line =
            self.0.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim).unwrap_or_default();
        let mut words = line.splitn(2, char::is_whitespace).map(str::trim).filter(|word| !word.is_empty());
        match words.next() {
            Some(first) => std::iter::once(first).chain(words).map(OsString::from).collect(),
            None => vec!["/bin/sh".into()],
        }
    }
}

#[derive(Deserialize)]
struct Inspected {
    data: InspectedData,
}

#[derive(Deserialize)]
struct InspectedData {
    attributes: InspectedAttributes,
}

#[derive(Deserialize)]
struct InspectedAttributes {
    #[serde(default)]
    startscript: Option<String>,
}

/// An image's scripts: as remembered, or as the runtime says (`inspect --json --startscript`).
///
/// # Errors
/// As [`ImageError`].
pub async fn inspect(
    image: &ImageSpec,
    runtime: &Runtime,
    env: &[(OsString, OsString)],
) -> Result<Scripts, ImageError> {
    if let Some(start) = scripts::recall(image) {
        return Ok(Scripts { start: start.and_then(Script::new) });
    }
    let mut command = tokio::process::Command::new(&runtime.program);
    command.args(["inspect", "--json", "--startscript"]).arg(&image.path);
    command
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let program = || runtime.program.display().to_string();
    let output =
        command.output().await.map_err(|source| ImageError::Runtime { program: program(), source })?;
    let no_image = |why: String| ImageError::NoImage { path: image.named.clone(), why };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it cannot be inspected");
        return Err(no_image(last.to_owned()));
    }
    let inspected: Inspected = serde_json::from_slice(&output.stdout)
        .map_err(|error| no_image(format!("unreadable description: {error}")))?;
    let start = inspected.data.attributes.startscript;
    scripts::remember(image, start.as_deref());
    Ok(Scripts { start: start.and_then(Script::new) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_script_that_does_something_counts() {
        for text in ["", "#!/bin/sh\n", "#!/bin/sh\n\n  # exec app\n"] {
            assert!(Script::new(text.to_owned()).is_none(), "{text:?}");
        }
        let script = Script::new("#!/bin/bash -e\n exec app \"$@\"\n".to_owned()).unwrap();
        assert_eq!(script.interpreter(), ["/bin/bash", "-e"]);
        assert_eq!(Script::new("exec app".to_owned()).unwrap().interpreter(), ["/bin/sh"]);
    }

    #[test]
    fn what_an_interrupted_pull_left_is_removed_and_what_one_under_way_has_stays() {
        let cache = std::env::temp_dir().join(format!("shlogin-pull-{}", std::process::id()));
        fs::create_dir_all(&cache).unwrap();
        let ours = format!(".ab12-{}.{}", std::process::id(), mark());
        let dead = format!(".ab12-4194305.{}", mark());
        // No process has this number: it is beyond the most that the kernel gives (proc_sys_kernel(5)).
        for name in [&ours, &dead, ".ab12-4194305.another-node.part", "image.sif", ".other"] {
            fs::write(cache.join(name), "").unwrap();
        }
        remove_abandoned(&cache);
        let mut left: Vec<_> =
            fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut stays = [ours.as_str(), ".ab12-4194305.another-node.part", ".other", "image.sif"];
        stays.sort_unstable();
        assert_eq!(left, stays);
        fs::remove_dir_all(&cache).unwrap();
    }

    #[test]
    fn a_path_with_a_colon_is_a_path_where_it_exists() {
        assert_eq!(scheme("docker://alpine"), Some("docker"));
        assert_eq!(scheme("/images/x:1.sif"), None);
        assert_eq!(scheme("x.sif"), None);
    }
}
