//! Finds programs as a shell would.

use std::{
    ffi::OsStr,
    fs::Metadata,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Where programs of root's often are and an ordinary user's `PATH` often does not lead.
const ALSO: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/sbin"];

/// The first executable file called `name` in the absolute folders of `PATH`, then in the usual ones. A relative folder
/// in `PATH` is passed over: whose program that is depends on where one stands.
pub fn find_program(name: &str) -> Option<PathBuf> {
    candidates(&std::env::var_os("PATH").unwrap_or_default(), name).find(|file| is_executable(file))
}

/// The same with somebody's `PATH`, of those programs that root alone can have put there: what is run beside a session must not be
/// chosen by an app that may write to its owner's folders.
pub fn find_program_of_root_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    candidates(path, name).filter_map(|file| file.canonicalize().ok()).find(|file| {
        is_executable(file)
            && file.ancestors().all(|place| place.metadata().is_ok_and(|meta| is_roots(&meta)))
    })
}

fn candidates(path: &OsStr, name: &str) -> impl Iterator<Item = PathBuf> {
    let folders: Vec<_> = std::env::split_paths(path).chain(ALSO.iter().map(PathBuf::from)).collect();
    folders.into_iter().filter(|folder| folder.is_absolute()).map(move |folder| folder.join(name))
}

/// Whether nobody but root can change it.
fn is_roots(meta: &Metadata) -> bool {
    meta.uid() == 0 && meta.mode() & 0o022 == 0
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

    #[test]
    fn what_others_can_change_is_no_program_of_root_s() {
        let folder = std::env::temp_dir().join(format!("shlogin-programs-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("sh"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(folder.join("sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("/bin/sh", folder.join("link")).unwrap();
        // Below a folder in which all may write, whosever it is.
        let found = find_program_of_root_in(folder.as_os_str(), "sh").unwrap();
        assert!(found.starts_with("/usr") || found.starts_with("/bin"), "{found:?}");
        // What somebody's link leads to is root's all the same.
        assert!(find_program_of_root_in(folder.as_os_str(), "link").is_some());
        assert_eq!(find_program_of_root_in(OsStr::new("/bin"), "no-such-program"), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
