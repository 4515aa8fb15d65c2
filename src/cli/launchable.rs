//! From what was typed and what is configured to a session that can be launched: the meaning of `start`'s options.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::unistd::{User, gethostname, getuid};

use super::{Failure, args::StartArgs};
use crate::{
    config::{
        Config, HostChoice, Listen, Overrides, PartialGateway, RuntimeChoice, node_name,
        paths::{home, runtime_path},
    },
    host::{AppSpec, Container, ImageSpec, Runtime, resolve},
    sandbox::{Footprint, NetworkHelper, SandboxSpec},
    session::{
        GatewayRecord, GatewaySpec, Lock, LockError, Record, SessionSpec, State, Work, log_path,
        pid_namespace, surroundings,
    },
    words::{PodNumber, RuntimeKind, SessionId, SessionName},
};

/// The flags, as a layer of configuration.
pub(super) fn overrides(args: &StartArgs) -> Overrides {
    Overrides {
        isolation: args.isolation,
        network: args.network,
        tmp: args.tmp,
        runtime: args.runtime,
        ready_timeout: args.ready_timeout,
        idle_timeout: args.idle_timeout,
        gateway: PartialGateway { listen: args.listen, ..PartialGateway::default() },
        ..Overrides::default()
    }
}

/// The app, image and all. Pulls the image where it has to be.
pub(super) fn app(args: &StartArgs, config: &Config) -> Result<AppSpec, Failure> {
    let cwd = std::env::current_dir().map_err(Failure::io("cannot tell the current folder"))?;
    let container = match &args.image {
        Some(image) => Some(container(args, config, image)?),
        None => {
            refuse_container_options(args)?;
            None
        }
    };
    if args.args.is_empty() && container.as_ref().is_none_or(|container| container.exec) {
        return Err(Failure::Usage(
            match container {
                Some(_) => "--exec needs a command after --",
                None => "there is nothing to start: give an image, or a command after --",
            }
            .to_owned(),
        ));
    }
    let cwd = match (&args.pwd, &container) {
        (Some(pwd), None) => cwd.join(pwd),
        _ => cwd,
    };
    if !cwd.is_dir() {
        return Err(Failure::Usage(format!("{} is no folder", cwd.display())));
    }
    let configured = config.app.env.iter().chain(&args.env);
    let mut extra_env: Vec<(OsString, OsString)> =
        configured.map(|variable| (variable.name().into(), variable.value().into())).collect();
    if args.tmux {
        extra_env.push(("SHLOGIN_TMUX".into(), "1".into()));
    }
    Ok(AppSpec {
        container,
        args: args.args.clone(),
        env: std::env::vars_os().collect(),
        extra_env,
        cwd,
        umask: umask(),
    })
}

/// The person's file mode creation mask, read by setting it: from here on ours is the strictest.
fn umask() -> u32 {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077)).bits()
}

fn container(args: &StartArgs, config: &Config, named: &str) -> Result<Container, Failure> {
    let asked = match config.runtime {
        RuntimeChoice::Auto => None,
        RuntimeChoice::Apptainer => Some(RuntimeKind::Apptainer),
        RuntimeChoice::Singularity => Some(RuntimeKind::Singularity),
        RuntimeChoice::Bare => {
            return Err(Failure::Usage("the runtime `bare` takes no image: leave it out".to_owned()));
        }
    };
    let runtime = Runtime::find(asked, config.images.apptainer.path(), config.images.singularity.path())?;
    let image: ImageSpec = resolve(named, &runtime, &cache())?;
    Ok(Container { runtime, image, exec: args.exec, options: options(args, config), pwd: args.pwd.clone() })
}

fn options(args: &StartArgs, config: &Config) -> Vec<OsString> {
    let mut options = Vec::<OsString>::new();
    let mut pair = |option: &str, value: &OsStr| options.extend([OsString::from(option), value.to_owned()]);
    for bind in config.app.bind.iter().chain(&args.bind) {
        pair("--bind", bind.as_ref());
    }
    for overlay in &args.overlay {
        pair("--overlay", overlay.as_ref());
    }
    if let Some(home) = &args.home {
        pair("--home", home.as_ref());
    }
    if args.no_home {
        // The home comes in as the working folder, too, where one stands in it.
        options.extend(["--no-home", "--no-mount", "home,cwd"].map(OsString::from));
    }
    let flags = [("--nv", args.nv), ("--rocm", args.rocm)];
    options.extend(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| OsString::from(flag)));
    options.extend(args.runtime_arg.iter().cloned());
    options
}

fn refuse_container_options(args: &StartArgs) -> Result<(), Failure> {
    let given = [
        ("--bind", !args.bind.is_empty()),
        ("--overlay", !args.overlay.is_empty()),
        ("--home", args.home.is_some()),
        ("--no-home", args.no_home),
        ("--nv", args.nv),
        ("--rocm", args.rocm),
        ("--runtime-arg", !args.runtime_arg.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Failure::Usage(format!("{option} needs an image"))),
        None => Ok(()),
    }
}

fn cache() -> PathBuf {
    let xdg = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    xdg.or_else(|| Some(home()?.join(".cache")))
        .unwrap_or_else(|| PathBuf::from("/nonexistent"))
        .join("shlogin")
}

/// Takes the name that was asked for, or the first free one made from image or command; none of those in `used`, whatever their locks say.
pub(super) fn name(args: &StartArgs, used: &HashSet<SessionName>) -> Result<(SessionName, Lock), Failure> {
    let runtime = runtime_path();
    if let Some(name) = &args.name {
        if used.contains(name) {
            return Err(LockError::InUse(name.clone()).into());
        }
        return Ok((name.clone(), Lock::take(&runtime, name)?));
    }
    let from =
        args.image.as_ref().map(OsString::from).or_else(|| args.args.first().cloned()).unwrap_or_default();
    let stem = SessionName::from_path_lossy(Path::new(&from));
    let mut n = 1;
    loop {
        let name = stem.numbered(n);
        if used.contains(&name) && n < 9999 {
            n += 1;
            continue;
        }
        match Lock::take(&runtime, &name) {
            Ok(lock) => return Ok((name, lock)),
            Err(LockError::InUse(_)) if n < 9999 => n += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The helper for a way out, where one is wanted.
///
/// Without one there is no session: an app that was promised a network must not find out by itself that it has none.
pub(super) fn helper(config: &Config) -> Result<Option<NetworkHelper>, Failure> {
    surroundings::helper(config.network, config.outbound.helper)
        .map_err(|error| Failure::NoHelper(error.to_string()))
}

/// What has been taken for a session before its supervisor runs.
pub(super) struct Taken {
    pub(super) id: SessionId,
    pub(super) name: SessionName,
    pub(super) pod: Option<PodNumber>,
    pub(super) port: u16,
    pub(super) footprint: Footprint,
    pub(super) socket: Option<PathBuf>,
}

/// The folders a session of this name will have.
pub(super) fn footprint(config: &Config, name: &SessionName, id: SessionId) -> Footprint {
    let runtime = runtime_path();
    Footprint {
        session: runtime.join(name.as_str()),
        scratch: config.scratch.join(format!("shlogin-{}-{id}", getuid())),
        lock: Lock::path_in(&runtime, name),
    }
}

/// The whole of it.
pub(super) fn spec(
    args: &StartArgs,
    config: &Config,
    app: AppSpec,
    helper: Option<NetworkHelper>,
    taken: Taken,
    state: PathBuf,
) -> SessionSpec {
    let (host, names) = host_names(config, taken.socket.is_some());
    let runtime = runtime_path();
    let record = Record {
        name: taken.name,
        id: taken.id,
        pod: taken.pod,
        state: State::Starting,
        app_port: None,
        gateway: gateway_record(config, host.clone(), taken.port, taken.socket),
        ssh: None,
        node: Some(node_name().as_str().to_owned()),
        detached: false,
        job: None,
        within: None,
        runtime: app.runtime(),
        image: args.image.clone(),
        command: app.args.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        network: config.network,
        isolation: config.isolation,
        tmp: config.tmp,
        pid: 0,
        pid_began: None,
        pid_namespace: pid_namespace(),
        started_at: Timestamp::now(),
        ready_at: None,
        ended_at: None,
        status: None,
        exit: None,
        reason: None,
        interrupted_until: None,
        idle_timeout: config.idle_timeout.after().map(|after| after.as_secs()),
        log: log_path(&state, taken.id),
        footprint: taken.footprint.clone(),
    };
    let sandbox = SandboxSpec {
        isolation: config.isolation,
        network: config.network,
        tmp: config.tmp,
        footprint: taken.footprint,
        cover: runtime,
        keep: keep(args, config, &app),
        resolvers: if helper.is_some() { surroundings::loopback_resolvers() } else { Vec::new() },
        helper,
    };
    SessionSpec {
        record,
        work: Work {
            sandbox,
            app,
            port: args.port,
            ready_timeout: config.ready_timeout.duration(),
            stop_grace: config.stop_grace.duration(),
            login_shell: login_shell(),
        },
        max_log: config.records.max_log.bytes(),
        gateway: gateway_spec(config, host, names, state.clone()),
        state,
        ssh: config.ssh.clone(),
        batch: None,
    }
}

/// `keys` is the folder of this user's keys on this node.
fn gateway_spec(config: &Config, host: String, names: Vec<String>, keys: PathBuf) -> GatewaySpec {
    GatewaySpec {
        keys,
        host,
        names,
        certificate: config.gateway.certificate().map(|(chain, key)| (chain.to_owned(), key.to_owned())),
        ocsp: config.gateway.ocsp.path().map(Path::to_owned),
        token_lifetime: config.gateway.token_lifetime.duration(),
        cookie_lifetime: config.gateway.cookie_lifetime.duration(),
        bind_cookie_to_address: config.gateway.bind_cookie_to_address,
        access_log: config.gateway.access_log,
        server_timing: config.gateway.server_timing,
    }
}

/// Gives a session that goes on another gateway: here, on this pod, with the `keys` of this node.
pub(super) fn place(
    spec: &mut SessionSpec,
    config: &Config,
    pod: PodNumber,
    port: u16,
    socket: Option<PathBuf>,
    footprint: Footprint,
    keys: PathBuf,
) {
    let (host, names) = host_names(config, socket.is_some());
    spec.record.pod = Some(pod);
    spec.record.node = Some(node_name().as_str().to_owned());
    spec.record.pid_namespace = pid_namespace();
    spec.record.footprint = footprint.clone();
    spec.record.gateway = gateway_record(config, host.clone(), port, socket);
    spec.work.sandbox.footprint = footprint;
    spec.gateway = gateway_spec(config, host, names, keys);
    spec.ssh = config.ssh.clone();
}

fn gateway_record(config: &Config, host: String, port: u16, socket: Option<PathBuf>) -> GatewayRecord {
    GatewayRecord {
        host,
        port,
        fingerprint: String::new(),
        address: match config.gateway.listen {
            Listen::Address(ip) => Some(ip),
            _ => None,
        },
        socket,
    }
}

/// The name in URLs, and all names under which a request may come.
fn host_names(config: &Config, socket: bool) -> (String, Vec<String>) {
    let host = match config.gateway.listen {
        // Reached through a forwarded port, at the laptop's own end of it.
        _ if socket => "localhost".to_owned(),
        Listen::Address(ip) if config.gateway.host == HostChoice::Auto => ip.to_string(),
        _ => config.gateway.host_name().as_str().to_owned(),
    };
    let mut names = vec![host.clone(), "localhost".to_owned()];
    names.extend(gethostname().ok().and_then(|name| name.into_string().ok()));
    names.extend(config.gateway.names.iter().map(|name| name.as_str().to_owned()));
    names.sort();
    names.dedup();
    (host, names)
}

/// What the person named must stay visible, even below a private `/tmp`.
fn keep(args: &StartArgs, config: &Config, app: &AppSpec) -> Vec<PathBuf> {
    let source = |text: &str| app.cwd.join(text.split(':').next().unwrap_or_default());
    let mut paths: Vec<PathBuf> =
        config.app.bind.iter().chain(&args.bind).flat_map(|binds| binds.split(',')).map(source).collect();
    paths.extend(args.overlay.iter().map(|overlay| source(overlay)));
    paths.extend(args.home.iter().map(|home| source(home)));
    paths.extend(app.container.iter().map(|container| container.image.path.clone()));
    paths.extend(home());
    paths.push(app.cwd.clone());
    paths.extend(
        app.args
            .first()
            .map(|word| PathBuf::from(OsStr::from_bytes(word.as_bytes())))
            .filter(|path| path.is_absolute()),
    );
    surroundings::real_paths(paths)
}

fn login_shell() -> PathBuf {
    let user = User::from_uid(getuid()).ok().flatten();
    user.map(|user| user.shell).filter(|shell| shell.is_absolute()).unwrap_or_else(|| "/bin/sh".into())
}
