//! What a test needs of the machine. Where it is missing, a person sees which test is left out and why; in CI it fails.

use std::path::Path;

use nix::unistd::geteuid;

/// A part of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// To make users and namespaces.
    Root,
    /// For images.
    Apptainer,
    /// For a way out of a session.
    Pasta,
    /// Chromium, node and npm.
    Browser,
    /// `ip` and `dnsmasq`.
    Internet,
    /// PAM with `pam_unix`, and what changes passwords.
    Pam,
    /// OpenSSH's client and its tools.
    OpenSsh,
    /// Slurm's daemons and commands, and what the cluster is made with.
    Slurm,
}

impl Need {
    /// Why it is not there; `None` where it is.
    pub(crate) fn missing(self) -> Option<String> {
        let commands: &[&str] = match self {
            Self::Root if geteuid().is_root() => &["useradd", "userdel", "python3"],
            Self::Root => return Some("not root".to_owned()),
            Self::Apptainer => &["apptainer"],
            Self::Pasta => &["pasta"],
            Self::Browser => &["chromium", "node", "npm"],
            Self::Internet => &["ip", "dnsmasq"],
            Self::Pam => &["unix_chkpwd", "chpasswd", "chage", "passwd"],
            Self::OpenSsh => {
                &["ssh", "ssh-keygen", "ssh-agent", "ssh-add", "scp", "sftp", "rsync", "git", "curl"]
            }
            Self::Slurm => &["slurmctld", "slurmd", "srun", "sbatch", "munged", "ip", "pgrep"],
        };
        absent(commands)
    }
}

/// Which of these commands are not there; `None` where all are.
pub(crate) fn absent(commands: &[&str]) -> Option<String> {
    let absent: Vec<_> = commands.iter().copied().filter(|name| !installed(name)).collect();
    (!absent.is_empty()).then(|| format!("missing: {}; scripts/setup test installs it", absent.join(", ")))
}

fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|folder| Path::new(&folder).join(name).is_file())
}
