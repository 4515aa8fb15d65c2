//! A real browser, run as a user: the drivers in `tests/browser`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::Value;

use super::{User, interfaces::still, place::place, program::Running, seconds, sh};

/// The drivers, with what they need from npm, in this run's place. What npm brought is kept between runs, outside the
/// clone, under a name that says which lock file it is of.
static DRIVERS: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let folder = place().root().join("browser");
    sh(&["cp", "-r", source.to_str().unwrap(), folder.to_str().unwrap()]);
    let lock = source.join("package-lock.json").display().to_string();
    let hash: String = sh(&["sha256sum", &lock]).chars().take(16).collect();
    let kept = cache().join(format!("browser-{hash}"));
    if !kept.join("node_modules").is_dir() {
        let fresh = cache().join(format!(".browser-{}", std::process::id()));
        fs::create_dir_all(&fresh).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(source.join(file), fresh.join(file)).unwrap();
        }
        let output = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&fresh)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "npm ci: {}", String::from_utf8_lossy(&output.stderr));
        // whoever comes second finds the first one's there
        let _ = fs::rename(&fresh, &kept);
        let _ = fs::remove_dir_all(&fresh);
    }
    let _ = fs::remove_dir_all(folder.join("node_modules"));
    sh(&["cp", "-r", kept.join("node_modules").to_str().unwrap(), folder.to_str().unwrap()]);
    sh(&["chmod", "-R", "a+rX", folder.to_str().unwrap()]);
    folder
});

/// As `scripts/common.sh` has it.
fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("SHLOGIN_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("shlogin")))
        .unwrap_or_else(|| variable("HOME").unwrap().join(".cache/shlogin"))
}

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
