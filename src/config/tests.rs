//! Layers, locks, origins and trust, with folders made for each test.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{Uid, geteuid};

use super::*;
use crate::words::{Isolation, Network};

/// A folder of a test's own, gone with it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("shlogin-test-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Site {
    scratch: Scratch,
    sources: Sources,
}

impl Site {
    fn new() -> Self {
        let scratch = Scratch::new();
        let sources = Sources {
            site: scratch.path().join("etc.toml"),
            site_owner: geteuid(),
            user: Some(scratch.path().join("user.toml")),
            variables: vec![],
        };
        Self { scratch, sources }
    }

    fn site(self, text: &str) -> Self {
        write(&self.sources.site, text, 0o644);
        self
    }

    fn user(self, text: &str) -> Self {
        write(self.sources.user.as_ref().unwrap(), text, 0o600);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.variables.push((name.into(), value.into()));
        self
    }

    fn resolve(&self, flags: &Partial) -> Result<Resolved, ConfigError> {
        self.sources.resolve(flags)
    }

    fn resolved(&self) -> Resolved {
        self.resolve(&Partial::default()).unwrap()
    }

    fn error(&self) -> String {
        self.resolve(&Partial::default())
            .unwrap_err()
            .to_string()
            .replace(&self.scratch.path().display().to_string(), "")
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn network(network: Network) -> Partial {
    Partial { network: Some(network), ..Partial::default() }
}

#[test]
fn the_embedded_default_is_whole_and_what_the_documentation_says() {
    let resolved = Site::new().resolved();
    let config = &resolved.config;
    assert_eq!((config.isolation, config.network), (Isolation::Namespace, Network::Outbound));
    assert_eq!(config.ready_timeout.duration(), Duration::from_secs(120));
    assert_eq!(config.stop_grace.duration(), Duration::from_secs(10));
    assert_eq!(config.gateway.token_lifetime.duration(), Duration::from_secs(600));
    assert_eq!(config.records.max_log.bytes(), 64 << 20);
    assert_eq!(config.pods.https_port(config.pods.pod(1).unwrap()), 3011);
    assert_eq!(&*config.scratch, Path::new("/var/tmp"));
    assert_eq!(config.gateway.certificate(), None);
    assert!(config.gateway.bind_cookie_to_address);
    assert!(config.ssh.enabled && config.ssh.password);
    assert_eq!(config.ssh.pam_service.as_str(), "sshd");
    assert_eq!(config.ssh.login_grace.duration(), Duration::from_secs(60));
    assert!(resolved.entries.iter().all(|e| e.origin == Origin::Default && !e.locked));
}

#[test]
fn every_key_has_its_line_in_the_documentation() {
    let documentation = include_str!("../../docs/config.md");
    for entry in Site::new().resolved().entries {
        let variable = format!("SHLOGIN_{}", entry.key.replace('.', "_").to_uppercase());
        let line = documentation.lines().find(|line| line.starts_with(&format!("| `{}` |", entry.key)));
        let line = line.unwrap_or_else(|| panic!("{} is missing", entry.key));
        assert!(line.contains(&format!("`{variable}`")), "{line}");
        assert!(line.contains(&format!("`{}`", entry.value).replace('"', "")), "{line}");
    }
}

#[test]
fn each_layer_wins_over_those_below_and_is_named() {
    let site = Site::new()
        .site("ready_timeout = '1s'\nstop_grace = '1s'\n[gateway]\nlisten = '10.0.0.1'\nnames = ['a.example', 'b']\n")
        .user("ready_timeout = '2s'\nstop_grace = '2s'\ntmp = 'shared'\n")
        .variable("SHLOGIN_READY_TIMEOUT", "3s")
        .variable("SHLOGIN_STOP_GRACE", "3s");
    let flags = Partial { ready_timeout: Some("4s".parse().unwrap()), ..Partial::default() };
    let resolved = site.resolve(&flags).unwrap();
    assert_eq!(resolved.config.ready_timeout.duration().as_secs(), 4);
    assert_eq!(resolved.config.stop_grace.duration().as_secs(), 3);
    assert_eq!(resolved.config.gateway.listen, Listen::Address("10.0.0.1".parse().unwrap()));
    let origin = |key| resolved.entry(key).unwrap().origin.clone();
    assert_eq!(origin("ready_timeout"), Origin::Flag);
    assert_eq!(origin("stop_grace"), Origin::Environment("SHLOGIN_STOP_GRACE".into()));
    assert_eq!(origin("tmp"), Origin::User(site.sources.user.clone().unwrap()));
    assert_eq!(origin("gateway.listen"), Origin::Site(site.sources.site.clone()));
    assert_eq!(origin("network"), Origin::Default);
    let shown = resolved.show();
    assert!(
        shown.lines().any(|l| l.starts_with("gateway.listen = \"10.0.0.1\"") && l.contains("  # from /")),
        "{shown}"
    );
}

#[test]
fn what_is_shown_is_a_configuration_that_says_the_same() {
    let first = Site::new().user("[app]\nenv = ['A=\"b\" # c']\n[records]\nmax_age = '90 min'\n").resolved();
    let second = Site::new().user(&first.show()).resolved();
    assert_eq!(first.config, second.config);
    assert_eq!(second.config.app.env[0].value(), "\"b\" # c");
}

#[test]
fn variables_are_read_as_the_kind_their_key_has() {
    let config = Site::new()
        .variable("SHLOGIN_PODS_COUNT", "7")
        .variable("SHLOGIN_GATEWAY_BIND_COOKIE_TO_ADDRESS", "false")
        .variable("SHLOGIN_GATEWAY_NAMES", "a.example, b.example")
        .variable("SHLOGIN_APP_ENV", "['A=1,2', 'B=3']")
        .variable("SHLOGIN_SCRATCH", "/scratch")
        .variable("SHLOGIN_NETWORK", "")
        .resolved()
        .config;
    assert_eq!(config.pods.pods().count(), 7);
    assert!(!config.gateway.bind_cookie_to_address);
    assert_eq!(config.gateway.names.len(), 2);
    assert_eq!(config.app.env[0].value(), "1,2");
    assert_eq!(&*config.scratch, Path::new("/scratch"));
    assert_eq!(config.network, Network::Outbound);
    for (name, value, said) in [
        ("SHLOGIN_PODS_COUNT", "many", "SHLOGIN_PODS_COUNT: \"many\" is not a whole number"),
        ("SHLOGIN_GATEWAY_BIND_COOKIE_TO_ADDRESS", "yes", "neither true nor false"),
        ("SHLOGIN_NETWORK", "none", "SHLOGIN_NETWORK: unknown value `none`, expected one of"),
        ("SHLOGIN_READY_TIMEOUT", "soon", "\"soon\" is not a duration"),
        ("SHLOGIN_PODS_BASE", "70000", "SHLOGIN_PODS_BASE: "),
        ("SHLOGIN_APP_ENV", "['A=1'", "SHLOGIN_APP_ENV: "),
    ] {
        let error = Site::new().variable(name, value).error();
        assert!(error.contains(said) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_a_warning_and_what_an_app_is_told_is_none() {
    let resolved = Site::new()
        .variable("SHLOGIN_NETWROK", "isolated")
        .variable("SHLOGIN_SESSION", "x")
        .variable("SHLOGIN_LOCKED", "network")
        .resolved();
    assert_eq!(
        resolved.warnings,
        ["$SHLOGIN_NETWROK is no setting and is ignored", "$SHLOGIN_LOCKED is no setting and is ignored"]
    );
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_file_and_line() {
    for (text, said) in [
        ("tmp = 'shared'\nnetwrok = 'isolated'\n", "/user.toml:2: unknown key `netwrok`, expected one of"),
        ("[gateway]\n\nlisen = 'all'\n", "/user.toml:3: unknown key `lisen`"),
        ("[gatway]\n", "/user.toml:1: unknown key `gatway`"),
        ("network = 'wide'\n", "/user.toml:1: unknown value `wide`, expected one of `isolated`"),
        (
            "\n\n[gateway]\nlisten = 'localhost'\n",
            "/user.toml:4: \"localhost\" is not all, unix or an IP address",
        ),
        ("ready_timeout = 1.5\n", "/user.toml:1: expected a text or a whole number"),
        ("[pods]\nbase = -1\n", "/user.toml:2: "),
        ("a = = b\n", "/user.toml:1: "),
        ("scratch = 'tmp'\n", "/user.toml:1: \"tmp\" is not a path that begins with /"),
        ("locked = ['network']\n", "locked (/user.toml) can only stand in the administrator's file"),
    ] {
        let error = Site::new().user(text).error();
        assert!(error.starts_with(said) && !error.contains('\n'), "{text:?} gave {error:?}");
    }
    let error = Site::new().site("tmp = 'shared'\nlocked = ['tmp', 'netwrok']\n").error();
    assert_eq!(error, "/etc.toml:2: locked names \"netwrok\", which is no key and no table");
}

#[test]
fn what_the_administrator_locks_no_layer_above_changes_and_the_lock_is_named() {
    let text =
        "locked = ['network', 'gateway', 'ready_timeout']\nnetwork = 'isolated'\nready_timeout = '2m'\n";
    let said = "is not possible: /etc.toml locks";
    let error = Site::new().site(text).user("network = 'outbound'\n").error();
    assert_eq!(error, format!("network = \"outbound\" (/user.toml) {said} network at \"isolated\""));
    let error = Site::new().site(text).variable("SHLOGIN_GATEWAY_LISTEN", "unix").error();
    assert_eq!(
        error,
        format!("gateway.listen = \"unix\" ($SHLOGIN_GATEWAY_LISTEN) {said} gateway.listen at \"all\"")
    );
    let site = Site::new().site(text);
    let error = site.resolve(&network(Network::Outbound)).unwrap_err();
    assert!(matches!(&error, ConfigError::Locked(locked) if locked.origin == Origin::Flag), "{error}");

    // The same in other words is no change, and what is not locked stays free.
    let site = Site::new().site(text).user("network = 'isolated'\nready_timeout = '120s'\ntmp = 'shared'\n");
    let resolved = site.resolve(&network(Network::Isolated)).unwrap();
    assert!(resolved.entry("network").unwrap().locked && !resolved.entry("tmp").unwrap().locked);
    assert!(resolved.show().contains(", locked"));
    let shown = serde_json::to_value(resolved.entry("network").unwrap()).unwrap();
    let origin = &site.sources.site;
    assert_eq!(
        shown,
        serde_json::json!({"key": "network", "value": "isolated", "origin": origin, "locked": true})
    );
}

#[test]
fn a_site_can_settle_how_long_a_session_may_be_idle() {
    assert_eq!(Site::new().resolved().config.idle_timeout.after(), None);
    let text = "locked = ['idle_timeout']\nidle_timeout = '4h'\n";
    assert_eq!(Site::new().site(text).resolved().config.idle_timeout.to_string(), "4h");
    let error = Site::new().site(text).user("idle_timeout = 'off'\n").error();
    assert_eq!(
        error,
        "idle_timeout = \"off\" (/user.toml) is not possible: /etc.toml locks idle_timeout at \"4h\""
    );
    let error = Site::new().user("idle_timeout = 3\n").error();
    assert!(error.contains("at least 5 seconds"), "{error}");
}

#[test]
fn a_network_that_the_isolation_cannot_give_is_refused_and_never_replaced() {
    let follows = Site::new().user("isolation = 'socket'\n").resolved();
    assert_eq!(follows.config.network, Network::Host);
    assert_eq!(follows.entry("network").unwrap().origin, Origin::FollowsFrom("isolation"));
    assert_eq!(
        Site::new().user("isolation = 'socket'\nnetwork = 'host'\n").resolved().config.network,
        Network::Host
    );
    for (site, user) in [
        ("", "isolation = 'socket'\nnetwork = 'isolated'\n"),
        ("", "network = 'host'\n"),
        ("network = 'outbound'\n", "isolation = 'socket'\n"),
        ("locked = ['network']\n", "isolation = 'socket'\n"),
    ] {
        let error = Site::new().site(site).user(user).error();
        assert!(error.contains("is not possible with isolation"), "{error}");
    }
}

#[test]
fn ports_and_certificates_have_to_make_sense_together() {
    let error = Site::new().user("[pods]\nbase = 60000\n").error();
    assert!(error.contains("pods.base = 60000") && error.contains("(/user.toml)"), "{error}");
    let error = Site::new().user("[gateway]\ncertificate = '/a.pem'\n").error();
    assert!(error.contains("gateway.key is none (/user.toml gives the other)"), "{error}");
    let config = Site::new().user("[gateway]\ncertificate = '/a.pem'\nkey = '/b.pem'\n").resolved().config;
    assert_eq!(config.gateway.certificate(), Some((Path::new("/a.pem"), Path::new("/b.pem"))));
}

#[test]
fn a_file_that_others_can_write_or_own_is_refused_with_the_remedy() {
    for mode in [0o666, 0o664, 0o602] {
        let site = Site::new().user("tmp = 'shared'\n");
        fs::set_permissions(site.sources.user.as_ref().unwrap(), fs::Permissions::from_mode(mode)).unwrap();
        let error = site.error();
        assert!(
            error.contains("others can write to it") && error.ends_with("chmod go-w /user.toml"),
            "{error}"
        );
    }
    let mut site = Site::new().site("tmp = 'shared'\n");
    site.sources.site_owner = Uid::from_raw(geteuid().as_raw() + 1);
    assert!(site.error().contains("it belongs to user"), "{}", site.error());

    let site = Site::new().site("tmp = 'shared'\n");
    fs::set_permissions(site.scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(site.error().contains("others can write to it (mode 0777)"), "{}", site.error());
}

#[test]
fn a_file_that_is_none_does_not_hang_and_one_that_is_not_there_says_nothing() {
    let site = Site::new();
    nix::unistd::mkfifo(site.sources.user.as_ref().unwrap(), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(site.error().contains("not a regular file"), "{}", site.error());

    let mut site = Site::new();
    site.sources.user = None;
    site.sources.site = "/dev/null/config.toml".into();
    assert!(site.resolve(&Partial::default()).is_ok());
}

mod slurm;

mod folders {
    use super::*;
    use crate::config::paths::{Durability, FolderError, PrivateFolder};

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_folder_is_made_with_those_above_it_and_is_private() {
        let scratch = Scratch::new();
        let path = scratch.path().join("a/b/c");
        let folder = PrivateFolder::open_or_make(&path).unwrap();
        assert_eq!(
            (folder.path(), mode(&path), mode(&scratch.path().join("a"))),
            (path.as_path(), 0o700, 0o700)
        );
        PrivateFolder::open_or_make(&path).unwrap();
        assert!(PrivateFolder::existing(&path).unwrap().is_some());
        assert!(PrivateFolder::existing(&scratch.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn threat_8_what_somebody_put_in_its_place_is_refused_with_the_reason() {
        let scratch = Scratch::new();
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir(at("own")).unwrap();
        fs::set_permissions(at("own"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(at("own"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("dangling")).unwrap();
        fs::write(at("file"), "").unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, what) in [
            ("link", "a symbolic link"),
            ("dangling", "a symbolic link"),
            ("file", "a file"),
            ("fifo", "a FIFO"),
        ] {
            let error = PrivateFolder::open_or_make(&at(name)).unwrap_err().to_string();
            assert!(error.contains(&format!("is {what}, not a folder")), "{error}");
        }
        assert!(!at("nowhere").exists(), "a dangling link must not be followed");

        for mode in [0o755, 0o710, 0o701, 0o777] {
            fs::set_permissions(at("own"), fs::Permissions::from_mode(mode)).unwrap();
            let error = PrivateFolder::open_or_make(&at("own")).unwrap_err().to_string();
            assert!(error.contains("is open to others") && error.contains("chmod 0700"), "{error}");
        }
    }

    #[test]
    fn threat_8_somebody_elses_folder_is_refused() {
        let scratch = Scratch::new();
        let theirs = if geteuid().is_root() {
            let path = scratch.path().join("theirs");
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(&path, Some(54321), None).unwrap();
            path
        } else {
            "/usr".into()
        };
        let error = PrivateFolder::open_or_make(&theirs).unwrap_err();
        assert!(matches!(error, FolderError::Foreign { .. }), "{error}");
    }

    #[test]
    fn a_file_is_written_whole_and_private_and_its_old_self_stays_until_then() {
        let scratch = Scratch::new();
        let folder = PrivateFolder::open_or_make(&scratch.path().join("f")).unwrap();
        assert_eq!(folder.read("record").unwrap(), None);
        folder.write("record", b"one", Durability::Lasting).unwrap();
        folder.write("record", b"two", Durability::Lasting).unwrap();
        assert_eq!(folder.read("record").unwrap().unwrap(), b"two");
        assert_eq!(mode(&folder.path().join("record")), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");

        fs::create_dir(folder.path().join("taken")).unwrap();
        folder.write("taken", b"x", Durability::Lasting).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn no_name_leads_out_of_a_folder_and_no_link_is_read() {
        let scratch = Scratch::new();
        let folder = PrivateFolder::open_or_make(&scratch.path().join("f")).unwrap();
        for name in ["", ".", "..", "a/b", "/etc", "a/", "./a"] {
            assert!(folder.write(name, b"", Durability::Lasting).is_err(), "{name:?}");
            assert!(folder.folder(name).is_err(), "{name:?}");
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        assert!(folder.read("link").is_err());
    }

    #[test]
    fn a_new_folder_is_had_by_one_only() {
        let scratch = Scratch::new();
        let folder = PrivateFolder::open_or_make(&scratch.path().join("f")).unwrap();
        assert!(folder.new_folder("name").unwrap().is_some());
        assert!(folder.new_folder("name").unwrap().is_none());
        assert!(folder.existing_folder("name").unwrap().is_some());
    }

    /// Runs the test `name` of this file once more, as a process of its own with this umask, and as an ordinary user:
    /// root passes through a folder whatever its mode.
    fn run_with_umask(umask: &str, name: &str) {
        let scratch = Scratch::new();
        let test = scratch.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
        let home = scratch.path().join("home");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
        let ordinary = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
        let run = std::process::Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"])
            .args(ordinary.iter().filter(|_| geteuid().is_root()))
            .args([test.as_os_str(), "--exact".as_ref(), name.as_ref(), "--ignored".as_ref()])
            .env("HOME", &home)
            .env("UMASK", umask)
            .env_remove("XDG_STATE_HOME")
            .output()
            .unwrap();
        assert!(run.status.success(), "umask {umask}: {}", String::from_utf8_lossy(&run.stdout));
        assert!(String::from_utf8_lossy(&run.stdout).contains("1 passed"));
    }

    #[test]
    fn threat_9_no_umask_and_no_open_home_changes_a_mode() {
        for umask in ["0000", "0777", "0027"] {
            run_with_umask(umask, "config::tests::folders::in_a_process_with_another_umask");
        }
    }

    #[test]
    #[ignore = "threat_9 runs it with a umask"]
    fn in_a_process_with_another_umask() {
        if std::env::var_os("UMASK").is_none() {
            return;
        }
        let state = paths::state_folder().unwrap();
        state.folder("x").unwrap().write("record.json", b"{}", Durability::Lasting).unwrap();
        let home = paths::home().unwrap();
        for (path, expected) in [
            (".local", 0o700),
            (".local/state/shlogin", 0o700),
            (&*format!(".local/state/shlogin/{}", node_name()), 0o700),
            (&*format!(".local/state/shlogin/{}/x", node_name()), 0o700),
            (&*format!(".local/state/shlogin/{}/x/record.json", node_name()), 0o600),
        ] {
            assert_eq!(mode(&home.join(path)), expected, "{path}");
        }
    }
}
