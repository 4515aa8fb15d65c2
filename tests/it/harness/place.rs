//! The one folder of this run, where ordinary users can reach what they are to run; and the removal of what a killed
//! earlier run left.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex, OnceLock},
};

use nix::sys::signal::{Signal, kill};

use super::{census, cluster, needs::Need};

const ALL_RUNS: &str = "/var/lib/shlogin-tests";
/// Every user that a test makes has a name that begins so, and goes on with the number of the process that made it.
pub(crate) const USER_PREFIX: &str = "shlt-";

/// This run's folder, made when first asked for.
pub(crate) struct Place {
    root: PathBuf,
    images: Mutex<Vec<(String, PathBuf)>>,
}

static MADE: OnceLock<()> = OnceLock::new();
static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let _ = MADE.set(());
    sweep();
    let root = Path::new(ALL_RUNS).join(std::process::id().to_string());
    fs::create_dir_all(root.join("bin")).unwrap();
    for folder in [Path::new(ALL_RUNS), &root, &root.join("bin")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let place = Place { root, images: Mutex::default() };
    put(Path::new(env!("CARGO_BIN_EXE_shlogin")), &place.program(), 0o755);
    put(&std::env::current_exe().unwrap(), &place.myself(), 0o755);
    put(&Path::new(env!("CARGO_MANIFEST_DIR")).join("singularity/tiny/app.py"), &place.app(), 0o755);
    place
});

/// This run's place.
pub(crate) fn place() -> &'static Place {
    &PLACE
}

/// Removes this run's folder, if there is one.
pub(crate) fn remove() {
    if MADE.get().is_some() {
        remove_run(&place().root);
    }
}

/// Removes the folder of a run and its clusters, and not what is mounted there.
fn remove_run(root: &Path) {
    cluster::take_down_below(root);
    unmount_below(root);
    let _ = fs::remove_dir_all(root);
}

fn unmount_below(folder: &Path) {
    for point in census::mounts_below(folder) {
        let _ = Command::new("umount").arg("-l").arg(point).status();
    }
}

impl Place {
    /// Its folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The program under test.
    pub(crate) fn program(&self) -> PathBuf {
        self.root.join("bin/shlogin")
    }

    /// This test binary, for its roles as another user.
    pub(crate) fn myself(&self) -> PathBuf {
        self.root.join("bin/it")
    }

    /// The small app, for sessions without an image.
    pub(crate) fn app(&self) -> PathBuf {
        self.root.join("bin/app.py")
    }

    /// An image of `singularity/`, built if need be.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        let mut images = self.images.lock().unwrap();
        if let Some((_, path)) = images.iter().find(|(known, _)| known == name) {
            return path.clone();
        }
        assert_eq!(Need::Apptainer.missing(), None);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-image");
        let output = Command::new(script).arg(name).output().unwrap();
        assert!(output.status.success(), "image {name}: {}", String::from_utf8_lossy(&output.stderr));
        let built = String::from_utf8(output.stdout).unwrap();
        let path = self.root.join(format!("{name}.sif"));
        put(Path::new(built.trim()), &path, 0o644);
        images.push((name.to_owned(), path.clone()));
        path
    }
}

/// A copy of its own, so that no user's access or test changes the original.
fn put(from: &Path, to: &Path, mode: u32) {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{} to {}: {error}", from.display(), to.display()));
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
}

/// Removes users, processes, networks, PAM services and folders of runs whose process is no more.
fn sweep() {
    let gone = |pid: &str| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    for line in passwd.lines().filter(|line| line.starts_with(USER_PREFIX)) {
        let fields: Vec<_> = line.split(':').collect();
        let pid = fields[0].trim_start_matches(USER_PREFIX).split('-').next().unwrap_or_default();
        if let (true, Ok(uid)) = (gone(pid), fields[2].parse()) {
            erase_user(fields[0], uid, Path::new(fields[5]));
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(USER_PREFIX).and_then(|rest| rest.split('-').next()).is_some_and(gone) {
            super::pair::erase(&name);
        }
    }
    for entry in fs::read_dir("/etc/pam.d").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(USER_PREFIX).and_then(|rest| rest.split('-').next()).is_some_and(gone) {
            let _ = fs::remove_file(entry.path());
        }
    }
    for entry in fs::read_dir(ALL_RUNS).into_iter().flatten().flatten() {
        if gone(&entry.file_name().to_string_lossy()) {
            remove_run(&entry.path());
        }
    }
}

/// Ends everything of a user's, and removes her and all she left.
pub(crate) fn erase_user(name: &str, uid: u32, home: &Path) {
    cluster::forget(uid);
    loop {
        let left = census::processes_of(uid);
        if left.iter().all(|process| process.is_zombie()) {
            break;
        }
        for process in left {
            let _ = kill(process.pid, Signal::SIGKILL);
        }
    }
    unmount_below(home);
    let _ = fs::remove_dir_all(home);
    let _ = fs::remove_dir_all(format!("/run/user/{uid}"));
    for shared in ["/tmp", "/tmp/.X11-unix", "/var/tmp", "/dev/shm"] {
        for entry in fs::read_dir(shared).into_iter().flatten().flatten() {
            if entry.metadata().is_ok_and(|meta| meta.uid() == uid) {
                let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
            }
        }
    }
    super::users::with_passwd_locked(|| {
        Command::new("userdel").arg(name).output().is_ok_and(|o| o.status.success())
    });
}
