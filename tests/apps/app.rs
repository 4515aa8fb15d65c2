//! The apps: what each is started with, where it may stand, and how it is looked at.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::harness::{Running, User, place::place, seconds, sh, until};

/// The folder that `scripts/install-apps` made, mounted where every user can reach it: a cache may lie in root's home.
pub(crate) static INSTALLED: LazyLock<PathBuf> = LazyLock::new(|| {
    let installed = find().unwrap();
    let folder = place().root().join("apps");
    fs::create_dir(&folder).unwrap();
    // read-only, so that nothing that clears this run's folder away can reach through it
    sh(&["mount", "--bind", "-o", "ro,nosuid,nodev", installed.trim(), folder.to_str().unwrap()]);
    folder
});

/// Why the apps cannot be started; `None` where they can.
pub(crate) fn missing() -> Option<String> {
    let desktop =
        ["bin/Xvnc", "bin/openbox", "bin/xauth", "bin/xterm", "bin/websockify", "share/novnc/vnc.html"];
    let absent: Vec<_> = desktop.into_iter().filter(|file| !Path::new("/usr").join(file).exists()).collect();
    if !absent.is_empty() {
        return Some(format!("missing: {}; scripts/setup test installs it", absent.join(", ")));
    }
    find().err()
}

/// Where the apps were installed.
///
/// # Errors
/// Why they are not there.
fn find() -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-apps");
    let output = Command::new(script).arg("--find").output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum App {
    Theia,
    CodeServer,
    JupyterLab,
    Shiny,
    Streamlit,
    /// A desktop, by noVNC.
    Desktop,
}

impl App {
    pub(crate) const ALL: [Self; 6] =
        [Self::Theia, Self::CodeServer, Self::JupyterLab, Self::Shiny, Self::Streamlit, Self::Desktop];

    /// What it is called, in names of tests, in paths, and by the driver in `tests/browser`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Theia => "theia",
            Self::CodeServer => "code-server",
            Self::JupyterLab => "jupyterlab",
            Self::Shiny => "shiny",
            Self::Streamlit => "streamlit",
            Self::Desktop => "desktop",
        }
    }

    /// Whether it has to know its prefix, and is asked for whole paths: `keep`, else `strip`.
    pub(crate) fn keeps(self) -> bool {
        matches!(self, Self::JupyterLab | Self::Streamlit)
    }

    /// Its page, below `base`, which ends in a slash.
    pub(crate) fn page(self, base: &str) -> String {
        match self {
            // noVNC takes its WebSocket's path to be one of the host, not of the page
            Self::Desktop => {
                format!("{base}vnc.html?autoconnect=1&path={}websockify", base.trim_start_matches('/'))
            }
            _ => base.to_owned(),
        }
    }

    /// The command that runs it for `user`, at this address, below `base`. What it works on is in her folder `work`.
    pub(crate) fn words(self, user: &User, at: SocketAddr, base: &str) -> Vec<String> {
        let work = user.home.join("work");
        user.own_folder(&work, 0o700);
        let work = work.display();
        let apps = INSTALLED.display();
        let (ip, port) = (at.ip(), at.port());
        let python = format!("{apps}/python/bin/python");
        let line = match self {
            Self::Theia => {
                format!("{apps}/node {apps}/theia/lib/backend/main.js {work} --hostname {ip} --port {port}")
            }
            Self::CodeServer => {
                // text instead of a canvas in terminals; nothing that calls home, and nothing in the way
                let settings = r#"{"terminal.integrated.gpuAcceleration": "off", "workbench.startupEditor": "none",
                    "chat.disableAIFeatures": true, "workbench.secondarySideBar.defaultVisibility": "hidden"}"#;
                user.own_folder(&user.home.join("code-server"), 0o700);
                user.own_file("code-server/User/settings.json", settings, 0o600);
                user.own_file("work/a-file", "", 0o600);
                let main = format!("{apps}/code-server/node_modules/code-server/out/node/entry.js");
                format!(
                    "env EXTENSIONS_GALLERY={{\"serviceUrl\":\"\"}} {apps}/node {main} --bind-addr {at} --auth none \
                     --user-data-dir {home}/code-server --disable-telemetry --disable-update-check \
                     --disable-workspace-trust {work}",
                    home = user.home.display()
                )
            }
            Self::JupyterLab => format!(
                "{python} -m jupyterlab --no-browser --ip={ip} --port={port} --ServerApp.base_url={base} \
                 --ServerApp.root_dir={work} --ServerApp.allow_remote_access=True --IdentityProvider.token= \
                 --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
            ),
            Self::Shiny => {
                user.own_file("work/shiny_app.py", include_str!("shiny_app.py"), 0o600);
                format!("{python} -m uvicorn --app-dir {work} shiny_app:app --host {ip} --port {port}")
            }
            Self::Streamlit => {
                user.own_file("work/streamlit_app.py", include_str!("streamlit_app.py"), 0o600);
                format!(
                    "{python} -m streamlit run {work}/streamlit_app.py --server.headless true \
                     --server.address {ip} --server.port {port} --server.baseUrlPath {base} \
                     --browser.gatherUsageStats false --server.fileWatcherType none"
                )
            }
            Self::Desktop => {
                let script = user.own_file("desktop.sh", include_str!("desktop.sh"), 0o600);
                format!("bash {} {ip} {port}", script.display())
            }
        };
        line.split_whitespace().map(str::to_owned).collect()
    }

    /// Starts it for `user`, below `base`, and waits until it listens. `number` tells several of hers apart.
    pub(crate) fn start(self, user: &User, number: u8, base: &str) -> Started {
        let at = SocketAddr::new(address_of(user, number).into(), 8000);
        let words = self.words(user, at, base);
        let mut command = user.command(&words[0]);
        command.args(&words[1..]);
        let started = Started { app: self, at, running: Running::spawn(command) };
        until(seconds(60), &format!("{} listens", self.name()), || TcpStream::connect(at).ok());
        started
    }
}

/// An address of loopback that is this user's alone: a port on it is free, without a look that is old by the time it is bound.
fn address_of(user: &User, number: u8) -> Ipv4Addr {
    let [.., high, low] = user.uid.to_be_bytes();
    Ipv4Addr::new(127, high, low, number)
}

/// An app that runs, until it is dropped.
pub(crate) struct Started {
    app: App,
    pub(crate) at: SocketAddr,
    running: Running,
}

impl Started {
    /// See [`App::keeps`].
    pub(crate) fn keeps(&self) -> bool {
        self.app.keeps()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} said:\n{}{}", self.app.name(), self.running.stdout(), self.running.stderr());
        }
    }
}
