//! Files: whose they are, who may read them, what becomes of them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::harness::{Running, Site, User, place::place, program::bare, seconds, sh, until};

pub(crate) fn a_runtime_folder_that_somebody_else_made_is_refused(site: &Site) {
    let (alice, mallory) = (&site.alice, &site.mallory);
    // Without XDG_RUNTIME_DIR, the folder has a name in /tmp that everybody can guess.
    let folder = PathBuf::from(format!("/tmp/shlogin-{}", alice.uid));
    let start = || {
        let mut args = vec!["start".to_owned()];
        args.extend(bare("trap", &["--network", "isolated"], &[]));
        let mut command = alice.shlogin_command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.env_remove("XDG_RUNTIME_DIR");
        Running::spawn(command).finish(seconds(30))
    };
    let refused = |what: &str| {
        let output = start();
        assert!(
            output.code() != 0 && output.stderr.contains(folder.to_str().unwrap()),
            "{what}: {output:#?}"
        );
        assert!(alice.processes().is_empty(), "{what}");
    };

    mallory.own_folder(&folder, 0o777);
    refused("a folder of somebody else's");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing was put into it");
    fs::remove_dir(&folder).unwrap();

    let elsewhere = mallory.home.join("elsewhere");
    mallory.own_folder(&elsewhere, 0o777);
    fs::set_permissions(&mallory.home, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(&elsewhere, &folder).unwrap();
    std::os::unix::fs::lchown(&folder, Some(mallory.uid), Some(mallory.gid)).unwrap();
    refused("a link");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing was put through it");
    fs::remove_file(&folder).unwrap();

    mkfifo(&folder, Mode::from_bits_truncate(0o666)).unwrap();
    refused("a FIFO");
    fs::remove_file(&folder).unwrap();

    alice.own_folder(&folder, 0o777);
    refused("a folder of her own that is open to all");
    fs::remove_dir(&folder).unwrap();

    start().ok();
    let mut stop = alice.shlogin_command(&["stop", "--all"]);
    stop.env_remove("XDG_RUNTIME_DIR");
    Running::spawn(stop).finish(seconds(30)).ok();
    fs::remove_dir_all(&folder).unwrap();
}

/// All files and folders of a user below some folders.
fn belongings(user: &User, folders: &[PathBuf]) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.to_vec();
    while let Some(path) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.uid() == user.uid && !meta.is_symlink() {
            found.push((path.clone(), meta.mode()));
        }
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found
}

fn folders_of(user: &User) -> Vec<PathBuf> {
    let mut folders = vec![user.runtime.join("shlogin"), user.state()];
    let scratch = format!("shlogin-{}-", user.uid);
    folders.extend(
        fs::read_dir("/var/tmp")
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&scratch))
            .map(|entry| entry.path()),
    );
    folders
}

pub(crate) fn everything_private_is_private_whatever_the_umask(site: &Site) {
    let alice = &site.alice;
    fs::set_permissions(&alice.home, fs::Permissions::from_mode(0o777)).unwrap();
    let program = place().program().display().to_string();
    let mut args = vec![
        "-c".to_owned(),
        "umask 000; exec \"$@\"".to_owned(),
        "sh".to_owned(),
        program,
        "start".to_owned(),
    ];
    args.extend(bare("open", &["--network", "isolated"], &[]));
    let words: Vec<_> = std::iter::once("sh").chain(args.iter().map(String::as_str)).collect();
    alice.run(&words).ok();

    // the app's own files, in its /tmp, have the mode that the app gives them
    let of_the_app = |path: &Path| {
        path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tmp" | "var-tmp" | "room")))
    };
    let all = belongings(alice, &folders_of(alice));
    assert!(all.len() > 6, "records, lock, sockets and folders: {all:?}");
    for (path, mode) in &all {
        let inside_scratch =
            path.starts_with("/var/tmp") && of_the_app(path.strip_prefix("/var/tmp").unwrap());
        assert!(mode & 0o077 == 0 || inside_scratch, "{} is {mode:o}", path.display());
    }
    for key in all
        .iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "tls") && path.is_file())
    {
        assert_eq!(key.1 & 0o177, 0, "{}", key.0.display());
    }
    let scan = site.mallory.scan(&crate::harness::scan::Targets {
        paths: all.into_iter().map(|(path, _)| path).collect(),
        ports: vec![1],
        ..Default::default()
    });
    assert!(scan.files.is_empty(), "another user opened {:?}", scan.files);
}

pub(crate) fn a_full_disk_is_told_and_leaves_nothing(site: &Site) {
    let alice = &site.alice;
    let full = alice.home.join("full");
    alice.own_folder(&full, 0o700);
    let options = format!("size=16k,mode=0700,uid={},gid={}", alice.uid, alice.gid);
    sh(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", full.to_str().unwrap()]);
    let fill = alice.run(&["sh", "-c", "head -c 1000000 /dev/zero > full/filler"]);
    assert_ne!(fill.code(), 0, "the disk is full");

    for variable in ["XDG_STATE_HOME", "SHLOGIN_SCRATCH", "XDG_RUNTIME_DIR"] {
        let mut args = vec!["start".to_owned(), "--json".to_owned()];
        args.extend(bare("full", &["--network", "isolated"], &[]));
        let mut command = alice.shlogin_command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        command.env(variable, &full);
        let output = Running::spawn(command).finish(seconds(60));
        if output.code() == 0 {
            // What fits into no page may still be made; then all of it has to work.
            alice
                .run(&[
                    "env",
                    &format!("{variable}={}", full.display()),
                    place().program().to_str().unwrap(),
                    "stop",
                    "--all",
                ])
                .ok();
        } else {
            let message = output.json()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("full") || message.contains("space"), "{variable}: {message}");
        }
        until(seconds(2), &format!("no process is left with a full {variable}"), || {
            alice.processes().is_empty().then_some(())
        });
    }
    sh(&["umount", full.to_str().unwrap()]);
    alice.wait_until_nothing_is_left(seconds(2));
}

pub(crate) fn the_private_tmp_is_the_session_s_own_and_on_disk(site: &Site) {
    let alice = &site.alice;
    let outside = Path::new("/tmp").join(format!("{}-outside", alice.name));
    fs::write(&outside, "").unwrap();
    let seen = outside.display().to_string();
    alice.start_bare("private", &["--network", "isolated"], &[]);
    alice.shlogin(&["exec", "private", "--", "test", "!", "-e", &seen]).ok();
    alice
        .shlogin(&[
            "exec",
            "private",
            "--",
            "sh",
            "-c",
            "echo secret > /tmp/inside && echo secret > /var/tmp/inside",
        ])
        .ok();
    assert!(!Path::new("/tmp/inside").exists() && !Path::new("/var/tmp/inside").exists());
    let kind = alice.shlogin(&["exec", "private", "--", "stat", "-f", "-c", "%T", "/tmp"]).ok().stdout;
    assert_ne!(kind.trim(), "tmpfs", "a job's /tmp is not to eat its memory");

    alice.start_bare("shared", &["--network", "isolated", "--tmp", "shared"], &[]);
    alice.shlogin(&["exec", "shared", "--", "test", "-e", &seen]).ok();
    fs::remove_file(&outside).unwrap();
}

pub(crate) fn nothing_is_left_of_a_session_s_files(site: &Site) {
    let alice = &site.alice;
    let session = alice.start_bare("tidy", &["--network", "isolated"], &[]);
    // What an app makes hard to remove.
    let awkward = "mkdir -p /tmp/a/b && touch /tmp/a/b/c && chmod 0 /tmp/a/b && ln -s / /tmp/a/root && chmod 0500 /tmp/a";
    alice.shlogin(&["exec", "tidy", "--", "sh", "-c", awkward]).ok();
    session.stop();
    alice.wait_until_nothing_is_left(seconds(2));
    let left = belongings(alice, &folders_of(alice));
    for (path, _) in &left {
        let text = path.display().to_string();
        assert!(text.contains("/.local/state/shlogin") || path.ends_with("shlogin"), "{text} is left");
    }
}
