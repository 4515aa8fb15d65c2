//! Finds programs as a shell would.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Where programs of root's often are and an ordinary user's `PATH` often does not lead.
const ALSO: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/sbin"];

/// The first executable file called `name` in the absolute folders of `PATH`, then in the usual ones. A relative folder
/// in `PATH` is passed over: whose program that is depends on where one stands.
pub fn find_program(name: &str) -> Option<PathBuf> {
    find_program_in(&std::env::var_os("PATH").unwrap_or_default(), name)
}

/// The same, with somebody's `PATH`.
pub fn find_program_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .chain(ALSO.iter().map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_and_nothing_that_is_none() {
        assert!(find_program("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find_program("no-such-program"), None);
        assert!(!is_executable(Path::new("/")) && !is_executable(Path::new("/etc/passwd")));
    }
}
