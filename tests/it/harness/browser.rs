//! A real browser, run as a user: the drivers in `tests/browser`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use serde_json::Value;

use super::{User, interfaces::still, place::place, program::Running, seconds, sh};

/// The drivers, with what they need from npm, in this run's place.
static DRIVERS: LazyLock<PathBuf> = LazyLock::new(|| {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = place().root().join("browser");
    sh(&["cp", "-r", top.join("tests/browser").to_str().unwrap(), folder.to_str().unwrap()]);
    let modules = sh(&[top.join("scripts/install-playwright").to_str().unwrap()]);
    let _ = fs::remove_dir_all(folder.join("node_modules"));
    sh(&["cp", "-r", &format!("{}/node_modules", modules.trim()), folder.to_str().unwrap()]);
    sh(&["chmod", "-R", "a+rX", folder.to_str().unwrap()]);
    folder
});

impl User {
    /// Runs a driver of `tests/browser` as her. Returns what it saw, and where it put its picture.
    ///
    /// # Panics
    /// When it failed, with what it saw until then.
    pub(crate) fn browse(&self, driver: &str, words: &[&str]) -> (Value, PathBuf) {
        let picture = self.home.join(format!("{driver}.png"));
        let (url, rest) = words.split_first().unwrap();
        let mut command = self.command("node");
        command
            .current_dir(&*DRIVERS)
            .arg(DRIVERS.join(format!("{driver}.mjs")))
            .arg(url)
            .arg(&picture)
            .args(rest);
        command.env("SHLOGIN_BROWSER_MODULES", &*DRIVERS).env("TMPDIR", &self.home);
        // what a browser keeps there is none of a session's
        command.env_remove("XDG_RUNTIME_DIR");
        let _still = still();
        let output = Running::spawn(command).finish(seconds(240));
        if output.code() != 0 {
            keep(&picture, driver);
        }
        let output = output.ok();
        (output.json(), picture)
    }
}

/// A picture outlives its user where somebody asked for it.
pub(crate) fn keep(picture: &Path, name: &str) {
    if let Some(folder) = std::env::var_os("SHLOGIN_TEST_PICTURES") {
        let folder = PathBuf::from(folder);
        let _ = fs::create_dir_all(&folder);
        let _ = fs::copy(picture, folder.join(format!("{name}.png")));
    }
}
