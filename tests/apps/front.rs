//! The proxy in front of the apps: `nginx-free/examples/routes.rs`, run as an ordinary user.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use nix::sys::signal::Signal;
use rcgen::PublicKeyData;
use sha2::{Digest, Sha256};

use crate::{
    app::Started,
    harness::{Running, User, place::place, seconds},
};

/// Not `localhost`, to which apps are kinder: browsers take every name below it to the loopback.
const HOST: &str = "apps.localhost";

/// Why it cannot be run; `None` where it can.
pub(crate) fn missing() -> Option<String> {
    (!built().is_file())
        .then(|| "missing: the example `routes`; cargo build --workspace --examples makes it".to_owned())
}

/// The example's program, as `cargo test --workspace` builds it.
fn built() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_shlogin")).with_file_name("examples").join("routes")
}

/// A copy of it, and a certificate, where every user can read them; and how a browser can tell that the certificate is it.
struct Front {
    program: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    pin: String,
}

static FRONT: LazyLock<Front> = LazyLock::new(|| {
    let folder = place().root().join("front");
    fs::create_dir(&folder).unwrap();
    let put = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let program = folder.join("routes");
    fs::copy(built(), &program).unwrap();
    Front {
        program,
        certificate: put("certificate.pem", made.cert.pem()),
        key: put("key.pem", made.signing_key.serialize_pem()),
        pin: BASE64_STANDARD.encode(Sha256::digest(made.signing_key.subject_public_key_info())),
    }
});

/// The proxy, with some routes, until it is dropped.
pub(crate) struct Routes {
    running: Running,
    authority: String,
}

impl Routes {
    /// Runs it as `user`: these apps, each below the prefix that stands beside it.
    pub(crate) fn to(user: &User, apps: &[(&str, &Started)]) -> Self {
        let mut command = user.command(&FRONT.program);
        command.args(["--listen", "127.0.0.1:0", "--cert"]).arg(&FRONT.certificate);
        command.arg("--key").arg(&FRONT.key);
        for (prefix, app) in apps {
            let how = if app.keeps() { "keep" } else { "strip" };
            command.args(["--route", &format!("{prefix}={how}:{}", app.at)]);
        }
        let running = Running::spawn(command);
        running.wait_for(seconds(10), "listening on ");
        let said = running.stdout();
        let port = said.trim().rsplit_once(':').unwrap().1;
        Self { authority: format!("{HOST}:{port}"), running }
    }

    /// A page of this host's.
    pub(crate) fn url(&self, page: &str) -> String {
        format!("https://{}{page}", self.authority)
    }

    /// Lets a driver believe the certificate, as one of a known authority: service workers want that.
    pub(crate) fn trust() -> String {
        format!("--trusts={}", FRONT.pin)
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        peak(self.running.pid().as_raw())
    }

    /// Ends it, as a service manager would.
    pub(crate) fn stop(self) {
        self.running.signal(Signal::SIGTERM);
        self.running.finish(seconds(20)).ok();
    }
}

/// The most memory that a process ever had, in bytes.
pub(crate) fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib * 1024
}
