//! Paths made absolute, and `~` in them.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use super::{
    names::Names,
    refusal::{Refusal, Status},
};

/// The absolute path without links, of something that is there or could be made: only the last part may be missing.
pub(super) fn real(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(Component::Normal(last)) = path.components().next_back() else { return Err(error) };
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            Ok(fs::canonicalize(folder.unwrap_or(Path::new(".")))?.join(last))
        }
        done => done,
    }
}

/// A path in which `~` and `~NAME` at its beginning stand for a home folder; what is relative begins in `home`.
pub(super) fn expand(path: &Path, home: &Path, names: &Names) -> Result<PathBuf, Refusal> {
    let Some(rest) = path.as_os_str().as_bytes().strip_prefix(b"~") else { return Ok(home.join(path)) };
    let (name, rest) = match rest.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&rest[..slash], &rest[slash + 1..]),
        None => (rest, &[][..]),
    };
    let of_name = if name.is_empty() { Some(home) } else { names.home_of(name) };
    let base = of_name.ok_or_else(|| Refusal::new(Status::NoSuchFile, "no such user is known"))?;
    // `join` would take an absolute path for the whole.
    let rest = rest.iter().position(|byte| *byte != b'/').map_or(&[][..], |start| &rest[start..]);
    Ok(if rest.is_empty() { base.to_owned() } else { base.join(OsStr::from_bytes(rest)) })
}
