//! `[slurm]`: entries with names of the site's own in layers and locks, and whose template it is.

use super::*;

fn words(options: &[JobOption]) -> Vec<&str> {
    options.iter().map(JobOption::as_str).collect()
}

#[test]
fn the_default_asks_for_nothing() {
    let slurm = Site::new().resolved().config.slurm;
    assert!(slurm.options.is_empty() && slurm.partitions.is_empty() && slurm.apps.is_empty());
    assert_eq!((slurm.programs, slurm.munge_socket), (PathChoice::Auto, PathChoice::Auto));
    assert_eq!((slurm.link_host, slurm.template), (HostChoice::Auto, PathChoice::Auto));
    assert_eq!((slurm.munge, slurm.allocation), (Munge::Auto, Allocation::Listen));
    assert_eq!(slurm.startup_timeout.duration().as_secs(), 300);
    assert_eq!(slurm.attach_command, []);
}

#[test]
fn a_stronger_layer_replaces_the_entries_it_names_and_leaves_the_others() {
    let site = Site::new()
        .site(
            "[slurm]\noptions = ['--account=a', '--time=1']\nmunge = 'require'\n\
             [slurm.partitions.gpu]\noptions = ['--gres=gpu:1', '--time=1']\n\
             [slurm.partitions.\"big.mem\"]\noptions = ['--mem=1T']\n[slurm.apps.\"r*.x\"]\noptions = ['-c2']\n",
        )
        .user("[slurm.partitions.gpu]\noptions = ['--gres=gpu:2']\n[slurm.apps.'r é']\noptions = ['-c4']\n")
        .variable("SHLOGIN_SLURM_OPTIONS", "['--gres=a:1,b:2', '--exclusive']")
        .variable("SHLOGIN_SLURM_LINK_HOST", "login-ib")
        .variable("SHLOGIN_SLURM_PROGRAMS", "/opt/slurm/bin")
        .variable("SHLOGIN_SLURM_ALLOCATION", "dial")
        .variable("SHLOGIN_SLURM_ATTACH_COMMAND", "ssh,{submit_host},shlogin,attach,{name}");
    let resolved = site.resolved();
    let slurm = &resolved.config.slurm;
    assert_eq!(words(&slurm.options), ["--gres=a:1,b:2", "--exclusive"]);
    assert_eq!(words(slurm.for_partition("gpu")), ["--gres=gpu:2"]);
    assert_eq!(words(slurm.for_partition("big.mem")), ["--mem=1T"]);
    assert_eq!(words(slurm.for_partition("cpu")), [""; 0]);
    assert_eq!(slurm.for_app("rstudio.x").map(JobOption::as_str).collect::<Vec<_>>(), ["-c2"]);
    assert_eq!(slurm.for_app("r é").map(JobOption::as_str).collect::<Vec<_>>(), ["-c4"]);
    assert_eq!(slurm.link_host.to_string(), "login-ib");
    assert_eq!(slurm.programs.path(), Some(Path::new("/opt/slurm/bin")));
    assert_eq!((slurm.munge, slurm.allocation), (Munge::Require, Allocation::Dial));
    let attach: Vec<_> = slurm.attach_command.iter().map(|word| word.filled_in("l1", "lab", "-")).collect();
    assert_eq!(attach, ["ssh", "l1", "shlogin", "attach", "lab"]);

    let origin = |key: &str| resolved.entry(key).unwrap().origin.clone();
    assert_eq!(origin("slurm.partitions.gpu.options"), Origin::User(site.sources.user.clone().unwrap()));
    assert_eq!(origin("slurm.partitions.\"big.mem\".options"), Origin::Site(site.sources.site.clone()));
    // What is shown says the same again, names with dots and all.
    let again = Site::new().user(&resolved.show()).resolved();
    assert_eq!(again.config, resolved.config);
}

#[test]
fn of_several_patterns_the_one_that_says_most_comes_last() {
    let slurm = Site::new()
        .user("[slurm.apps]\n'jupyter-lab'={options=['-t4']}\n'*'={options=['-t1']}\n'j*'={options=['-t2']}\n'*-lab'={options=['-t3']}\n'k'={}\n")
        .resolved()
        .config
        .slurm;
    let options: Vec<_> = slurm.for_app("jupyter-lab").map(JobOption::as_str).collect();
    assert_eq!(options, ["-t1", "-t2", "-t3", "-t4"]);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, said) in [
        ("[slurm]\n\noption = []\n", "/user.toml:3: unknown key `option`, expected one of `options`"),
        ("[slurm.partitions.gpu]\nopts = []\n", "/user.toml:2: unknown key `opts`, expected `options`"),
        ("[slurm.partitions]\ngpu = '-t1'\n", "/user.toml:2: "),
        (
            "[slurm]\noptions = ['--time=1',\n'--array=1-3']\n",
            "/user.toml:2: --array is not possible: a session is one job",
        ),
        (
            "[slurm]\noptions = ['--time 4']\n",
            "/user.toml:2: \"--time 4\" is no option of sbatch in one word",
        ),
        ("[slurm.apps.'*']\noptions = ['-o/tmp/x']\n", "/user.toml:2: --output is not possible"),
        ("[slurm.partitions.'a,b']\noptions = []\n", "/user.toml:1: \"a,b\" is not a partition's name"),
        ("[slurm.apps.'a/b']\noptions = []\n", "/user.toml:1: \"a/b\" is not a pattern"),
        ("[slurm]\nmunge = 'on'\n", "/user.toml:2: unknown value `on`, expected one of `auto`"),
        ("[slurm]\nprograms = 'bin'\n", "/user.toml:2: \"bin\" is not a path that begins with /"),
    ] {
        let error = Site::new().user(text).error();
        assert!(error.starts_with(said) && !error.contains('\n'), "{text:?} gave {error:?}");
    }
    let error = Site::new().variable("SHLOGIN_SLURM_OPTIONS", "--gres=a:1,b:2").error();
    assert!(error.starts_with("SHLOGIN_SLURM_OPTIONS: \"b:2\" is no option of sbatch"), "{error}");
    let resolved = Site::new().variable("SHLOGIN_SLURM_PARTITIONS_GPU_OPTIONS", "-t1").resolved();
    assert_eq!(resolved.warnings.len(), 1);
}

#[test]
fn a_lock_holds_for_entries_that_are_not_there_yet() {
    let gpu = "[slurm.partitions.gpu]\noptions = ['-t1']\n";
    let other = "[slurm.partitions.cpu]\noptions = ['-t2']\n";
    for (locked, user, is_refused) in [
        ("slurm", other, true),
        ("slurm.partitions", other, true),
        ("slurm.partitions", "[slurm.partitions.gpu]\noptions = ['-t2']\n", true),
        ("slurm.partitions", gpu, false),
        ("slurm.partitions.cpu", other, true),
        ("slurm.partitions.gpu", other, false),
        ("slurm.partitions", "[slurm.apps.cpu]\noptions = ['-t2']\n", false),
        ("slurm.apps.\\\"a.*\\\"", "[slurm.apps.'a.*']\noptions = ['-t2']\n", true),
        ("slurm.options", "[slurm]\noptions = ['-t2']\n", true),
        ("slurm.options", other, false),
        ("slurm.munge", "[slurm]\nmunge = 'off'\n", true),
    ] {
        let site = Site::new().site(&format!("locked = [\"{locked}\"]\n{gpu}")).user(user);
        match site.resolve(&Partial::default()) {
            Ok(resolved) => {
                assert!(!is_refused, "{locked}: {user}");
                let gpu = resolved.entry("slurm.partitions.gpu.options").unwrap();
                assert_eq!(gpu.locked, "slurm.partitions.gpu".starts_with(locked), "{locked}");
            }
            Err(_) => {
                assert!(is_refused && site.error().contains("/etc.toml locks slurm."), "{}", site.error())
            }
        }
    }
    let site = Site::new().site("locked = ['slurm.partitions']\n").user(other);
    assert_eq!(
        site.error(),
        "slurm.partitions.cpu.options = [\"-t2\"] (/user.toml) is not possible: /etc.toml locks slurm.partitions.cpu.options at nothing"
    );
    let error = Site::new().site("locked = ['slurm.partition']\n").error();
    assert_eq!(error, "/etc.toml:1: locked names \"slurm.partition\", which is no key and no table");
}

#[test]
fn a_user_s_template_wins_over_the_site_s_unless_that_is_locked() {
    let put = |site: &Site, name: &str, text: &str| write(&site.scratch.path().join(name), text, 0o644);
    let site = || {
        // The two folders, as /etc/shlogin and ~/.config/shlogin are two.
        let mut site = Site::new();
        fs::create_dir(site.scratch.path().join("home")).unwrap();
        fs::set_permissions(site.scratch.path().join("home"), fs::Permissions::from_mode(0o755)).unwrap();
        site.sources.user = Some(site.scratch.path().join("home/config.toml"));
        site
    };
    let text = |site: &Site| {
        let found = site.sources.template(&site.resolved());
        found.map(|found| found.map(|found| found.text)).map_err(|error| error.to_string())
    };
    let alone = site();
    assert_eq!(text(&alone), Ok(None));
    put(&alone, "session.sbatch", "site");
    assert_eq!(text(&alone), Ok(Some("site".to_owned())));
    put(&alone, "home/session.sbatch", "user");
    assert_eq!(text(&alone), Ok(Some("user".to_owned())));
    let alone = alone.site("locked = ['slurm.template']\n");
    assert_eq!(text(&alone), Ok(Some("site".to_owned())));

    let named = site();
    put(&named, "home/session.sbatch", "user");
    put(&named, "other", "other");
    let path = named.scratch.path().join("other").display().to_string();
    let named = named.site(&format!("[slurm]\ntemplate = '{path}'\n"));
    assert_eq!(text(&named), Ok(Some("other".to_owned())));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(text(&named).unwrap_err().contains("others can write to it"));
    fs::remove_file(&path).unwrap();
    assert!(text(&named).unwrap_err().starts_with(&format!("cannot read {path}: ")));
}
