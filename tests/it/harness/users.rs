//! Real users of the node, made for one test and removed after it, however it ends.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    place::{self, place},
    program::{Output, Running},
    seconds, until,
};

/// Two users who have nothing to do with each other.
pub(crate) struct Site {
    /// Whose sessions the test is about.
    pub(crate) alice: User,
    /// The other one.
    pub(crate) mallory: User,
}

impl Site {
    /// Makes the two.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { alice: User::make(number, 'a'), mallory: User::make(number, 'm') }
    }

    /// Ends what the test left running, by the program's own means, and checks that this leaves nothing.
    pub(crate) fn close(&self) {
        for user in [&self.alice, &self.mallory] {
            if !super::census::Census::of(user).is_empty() {
                user.shlogin(&["stop", "--all", "--grace", "1s"]);
                user.wait_until_nothing_is_left(seconds(5));
            }
        }
    }
}

/// An ordinary user with a home folder and a runtime folder, as after a login.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
    /// `$XDG_RUNTIME_DIR`.
    pub(crate) runtime: PathBuf,
}

impl User {
    fn make(number: u32, letter: char) -> Self {
        let name = format!("{}{}-{number}{letter}", place::USER_PREFIX, std::process::id());
        let home = place().root().join(format!("{number}{letter}"));
        with_passwd_locked(|| {
            // without a range of subordinate ids: nothing may need one
            Command::new("useradd")
                .args(["--no-create-home", "--user-group", "--shell", "/bin/bash", "-K", "SUB_UID_COUNT=0"])
                .args(["-K", "SUB_GID_COUNT=0", "--home-dir"])
                .arg(&home)
                .arg(&name)
                .output()
                .is_ok_and(|output| output.status.success())
        });
        let known = nix::unistd::User::from_name(&name).unwrap().unwrap();
        let (uid, gid) = (known.uid.as_raw(), known.gid.as_raw());
        let runtime = PathBuf::from(format!("/run/user/{uid}"));
        let user = Self { name, uid, gid, home, runtime };
        user.own_folder(&user.home, 0o700);
        fs::create_dir_all("/run/user").unwrap();
        user.own_folder(&user.runtime, 0o700);
        user
    }

    /// Makes a folder that is hers.
    pub(crate) fn own_folder(&self, path: &Path, mode: u32) {
        fs::create_dir_all(path).unwrap();
        chown(path, Some(self.uid), Some(self.gid)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Makes a file that is hers, in her home folder.
    pub(crate) fn own_file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.home.join(name);
        if let Some(folder) = path.parent() {
            self.own_folder(folder, 0o700);
        }
        fs::write(&path, text).unwrap();
        chown(&path, Some(self.uid), Some(self.gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A command that will run as her, in her home folder, with the environment of a fresh login.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // The standard library drops all supplementary groups with the user id.
        command.uid(self.uid).gid(self.gid).current_dir(&self.home).env_clear().envs(self.environment());
        command.stdin(Stdio::null());
        command
    }

    /// The environment of a fresh login.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HOME", self.home.display().to_string()),
            ("USER", self.name.clone()),
            ("LOGNAME", self.name.clone()),
            ("SHELL", "/bin/bash".to_owned()),
            ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TERM", "xterm".to_owned()),
            ("XDG_RUNTIME_DIR", self.runtime.display().to_string()),
        ]
    }

    /// A command that will run the program under test.
    pub(crate) fn shlogin_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(place().program());
        command.args(args);
        command
    }

    /// Runs the program under test to its end.
    pub(crate) fn shlogin(&self, args: &[&str]) -> Output {
        Running::spawn(self.shlogin_command(args)).finish(seconds(90))
    }

    /// Runs any program as her to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let mut command = self.command(words[0]);
        command.args(&words[1..]);
        Running::spawn(command).finish(seconds(60))
    }

    /// Where her records are.
    pub(crate) fn state(&self) -> PathBuf {
        self.home.join(".local/state/shlogin")
    }
}

impl Drop for User {
    fn drop(&mut self) {
        place::erase_user(&self.name, self.uid, &self.home);
    }
}

/// `useradd` and `userdel` do not wait for each other, nor for those of another run.
pub(crate) fn with_passwd_locked(mut attempt: impl FnMut() -> bool) {
    static PASSWD: Mutex<()> = Mutex::new(());
    let _one_at_a_time = PASSWD.lock().unwrap_or_else(PoisonError::into_inner);
    until(seconds(20), "/etc/passwd can be changed", || attempt().then_some(()));
}
