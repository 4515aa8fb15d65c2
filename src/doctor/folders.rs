//! The folders that sessions live in, and the filesystems they are on.

use std::path::{Path, PathBuf};

use nix::{
    sys::{
        statfs::{self, FsType, Statfs, statfs},
        statvfs::{FsFlags, statvfs},
    },
    unistd::{AccessFlags, access},
};

use super::Finding;
use crate::config::{
    Config,
    paths::{self, FolderError, goes_at_sign_out, runtime_folder, runtime_path, state_path},
};

/// Below this, a scratch folder is too full for apps.
const ENOUGH: u64 = 1 << 30;

/// A unix socket's path has 107 bytes; `/NAME/control` takes up to 57 of them.
const LONGEST_RUNTIME_PATH: usize = 50;

/// `runtime folder`, `records` and `scratch`.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    vec![runtime(), records(), scratch(&config.scratch)]
}

fn runtime() -> Finding {
    let what = "runtime folder";
    let path = runtime_path();
    if let Err(e) = runtime_folder() {
        return refused(what, &e);
    }
    let shown = path.display().to_string();
    if path.as_os_str().len() > LONGEST_RUNTIME_PATH {
        return Finding::limited(
            what,
            format!("{shown} is too long for sockets in it"),
            "unset XDG_RUNTIME_DIR",
        );
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(xdg) if goes_at_sign_out(&xdg) => {
            Finding::ok(what, format!("{shown} ({} goes when you sign out)", xdg.display()))
        }
        _ => Finding::ok(what, shown),
    }
}

fn refused(what: &'static str, error: &FolderError) -> Finding {
    let look = "ls -ld on each folder of that path".to_owned();
    Finding::blocked(what, error.reason(), error.remedy().unwrap_or(look))
}

/// Looks without making: the folder comes with the first session.
fn records() -> Finding {
    let what = "records";
    let Some(path) = state_path() else {
        return Finding::blocked(what, "no home", "export HOME=/a/folder/of/yours");
    };
    for folder in [path.parent().unwrap_or(&path), &path] {
        if let Err(e) = paths::PrivateFolder::existing(folder) {
            return refused(what, &e);
        }
    }
    let existing = nearest_existing(&path);
    if access(existing, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let detail = format!("{} cannot be written", existing.display());
        return Finding::blocked(what, detail, "export XDG_STATE_HOME=/a/folder/of/yours");
    }
    let on = match statfs(existing) {
        Ok(stat) if is_network(stat.filesystem_type()) => " (on the network: one folder for each node)",
        _ => "",
    };
    Finding::ok(what, format!("{}{on}", path.display()))
}

fn scratch(path: &Path) -> Finding {
    let what = "scratch";
    let shown = path.display();
    let remedy = "set scratch in /etc/shlogin/config.toml to a folder on a disk of the node, mode 1777";
    let stat = match statfs(path) {
        Ok(stat) => stat,
        Err(e) => return Finding::blocked(what, format!("{shown}: {}", e.desc()), remedy),
    };
    if access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        return Finding::blocked(what, format!("{shown} cannot be written"), format!("chmod 1777 {shown}"));
    }
    let free = free(&stat);
    let size = format!("{shown}, {} GiB free", free >> 30);
    if stat.filesystem_type() == statfs::TMPFS_MAGIC {
        return Finding::limited(what, format!("{size}, in memory"), remedy);
    }
    if is_network(stat.filesystem_type()) {
        return Finding::limited(what, format!("{size}, on the network"), remedy);
    }
    let is_noexec = statvfs(path).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC));
    if is_noexec {
        return Finding::limited(
            what,
            format!("{size}, mounted noexec: apps can't run what they put in /tmp"),
            remedy,
        );
    }
    if free < ENOUGH {
        return Finding::limited(what, size, format!("make room in {shown}"));
    }
    Finding::ok(what, size)
}

fn free(stat: &Statfs) -> u64 {
    let block = u64::try_from(stat.block_size()).unwrap_or(0);
    stat.blocks_available().saturating_mul(block)
}

/// The filesystems that HPC sites have homes and scratch on, by the numbers in their headers.
/// Whether other machines have the same files.
pub(super) fn is_network(kind: FsType) -> bool {
    const LUSTRE: FsType = FsType(0x0bd0_0bd0);
    const GPFS: FsType = FsType(0x4750_4653);
    const BEEGFS: FsType = FsType(0x1983_0326);
    const CEPH: FsType = FsType(0x00c3_6400);
    const CIFS: FsType = FsType(0xff53_4d42);
    const SMB2: FsType = FsType(0xfe53_4d42);
    const ALL: [FsType; 9] = [
        statfs::NFS_SUPER_MAGIC,
        statfs::AFS_SUPER_MAGIC,
        statfs::SMB_SUPER_MAGIC,
        LUSTRE,
        GPFS,
        BEEGFS,
        CEPH,
        CIFS,
        SMB2,
    ];
    ALL.contains(&kind)
}

pub(super) fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn scratch_in_memory_or_not_there_is_named() {
        assert_eq!(scratch(Path::new("/nonexistent")).verdict, Verdict::Blocked);
        let shm = Path::new("/dev/shm");
        if statfs(shm).is_ok_and(|stat| stat.filesystem_type() == statfs::TMPFS_MAGIC) {
            assert!(scratch(shm).detail.contains("in memory"));
        }
    }
}
