//! The kernel's switches and the distribution, read below a root that a test can make.

use std::{collections::BTreeMap, fs, path::PathBuf};

/// A file tree with `/proc/sys` and `/etc` in it.
pub(super) struct Machine {
    root: PathBuf,
}

/// Which package manager a distribution has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packages {
    Apt,
    Dnf,
    Zypper,
    Unknown,
}

impl Machine {
    /// This one.
    pub(super) fn real() -> Self {
        Self { root: "/".into() }
    }

    /// The text of a file, `None` where there is none.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path.trim_start_matches('/'))).ok()
    }

    /// The texts of the `*.conf` in these folders, in the order of their names; of two with one name, that in the later
    /// folder.
    pub(super) fn texts_in(&self, folders: &[&str]) -> Vec<String> {
        let mut files = BTreeMap::new();
        for folder in folders {
            let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
            files.extend(entries.map(|entry| (entry.file_name(), entry.path())));
        }
        let configurations = files.values().filter(|path| path.extension().is_some_and(|e| e == "conf"));
        configurations.filter_map(|path| fs::read_to_string(path).ok()).collect()
    }

    /// A file is there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path.trim_start_matches('/')).exists()
    }

    /// The value of a sysctl by its dotted name.
    pub(super) fn sysctl(&self, name: &str) -> Option<String> {
        self.text(&format!("proc/sys/{}", name.replace('.', "/"))).map(|text| text.trim().to_owned())
    }

    /// The command that installs a package: its name with Debian, with Red Hat, elsewhere. Red Hat's name begins with
    /// `epel:` where EPEL has it.
    pub(super) fn install(&self, debian: &str, red_hat: &str) -> String {
        match (self.packages(), red_hat.strip_prefix("epel:")) {
            (Packages::Apt, _) => format!("apt-get install -y {debian}"),
            (Packages::Dnf, Some(package)) => {
                format!("dnf install -y epel-release && dnf install -y {package}")
            }
            (Packages::Dnf, None) => format!("dnf install -y {red_hat}"),
            (Packages::Zypper, name) => format!("zypper install -y {}", name.unwrap_or(red_hat)),
            (Packages::Unknown, _) => format!("install the package {debian}"),
        }
    }

    fn packages(&self) -> Packages {
        let text = self.text("etc/os-release").unwrap_or_default();
        let ids = text.lines().filter_map(|l| l.strip_prefix("ID=").or_else(|| l.strip_prefix("ID_LIKE=")));
        let ids: Vec<_> = ids.flat_map(|ids| ids.trim_matches('"').split(' ')).collect();
        let is = |names: &[&str]| ids.iter().any(|id| names.contains(id));
        if is(&["debian", "ubuntu"]) {
            Packages::Apt
        } else if is(&["rhel", "fedora", "centos"]) {
            Packages::Dnf
        } else if is(&["suse", "sles", "opensuse"]) {
            Packages::Zypper
        } else {
            Packages::Unknown
        }
    }
}

/// The command that sets a sysctl now and at every boot.
pub(super) fn set_sysctl(setting: &str) -> String {
    format!("echo '{setting}' >> /etc/sysctl.d/90-shlogin.conf && sysctl --system")
}

#[cfg(test)]
pub(super) mod made {
    use super::*;

    /// A machine made for a test, gone with it.
    pub(in crate::doctor) struct Made(pub(in crate::doctor) Machine);

    impl Made {
        pub(in crate::doctor) fn with(files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("shlogin-machine-{}", uuid::Uuid::new_v4().simple()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(Machine { root })
        }
    }

    impl Drop for Made {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.root);
        }
    }

    #[test]
    fn each_distribution_gets_its_own_command() {
        for (release, command) in [
            ("ID=debian\n", "apt-get install -y squashfuse"),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt-get install -y squashfuse"),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                "dnf install -y epel-release && dnf install -y squashfuse",
            ),
            ("ID=\"sles\"\nID_LIKE=\"suse\"\n", "zypper install -y squashfuse"),
            ("ID=arch\n", "install the package squashfuse"),
        ] {
            let made = Made::with(&[("etc/os-release", release)]);
            assert_eq!(made.0.install("squashfuse", "epel:squashfuse"), command);
        }
    }
}
