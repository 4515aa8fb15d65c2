//! What runs images: Apptainer or SingularityCE, how it is installed, and what mounts a SIF without root.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::{
    Finding,
    machine::Machine,
    run::{Answer, Asked},
};
use crate::config::{Config, PathChoice, RuntimeChoice, find_program};

/// The programs that were asked.
pub(super) struct Running {
    runtime: RuntimeChoice,
    apptainer: Option<Program>,
    singularity: Option<Program>,
    squashfuse: Option<PathBuf>,
}

struct Program {
    path: PathBuf,
    version: Option<Asked>,
    settings: Option<Asked>,
}

impl Running {
    pub(super) fn start(config: &Config) -> Self {
        let find = |choice: &PathChoice, name| match choice {
            PathChoice::Auto => find_program(name),
            PathChoice::At(path) => Some(path.to_path_buf()),
        };
        let apptainer = find(&config.images.apptainer, "apptainer").map(Program::ask);
        let real = |program: &Path| fs::canonicalize(program).ok();
        // Apptainer's package has a link `singularity` to itself.
        let singularity = find(&config.images.singularity, "singularity")
            .filter(|path| apptainer.as_ref().is_none_or(|a| real(path) != real(&a.path)))
            .map(Program::ask);
        let squashfuse = find_program("squashfuse_ll").or_else(|| find_program("squashfuse"));
        Self { runtime: config.runtime, apptainer, singularity, squashfuse }
    }

    pub(super) fn examine(self, machine: &Machine) -> Vec<Finding> {
        let needed = match self.runtime {
            RuntimeChoice::Apptainer => Some("Apptainer"),
            RuntimeChoice::Singularity => Some("SingularityCE"),
            RuntimeChoice::Auto | RuntimeChoice::Bare => None,
        };
        let has_any = self.apptainer.is_some() || self.singularity.is_some();
        let mut findings = vec![];
        let mut own_squashfuse = None;
        for (what, program) in [("Apptainer", self.apptainer), ("SingularityCE", self.singularity)] {
            match program {
                Some(program) => {
                    let answered = program.listen();
                    own_squashfuse = own_squashfuse.or_else(|| answered.squashfuse());
                    findings.push(answered.judge(what));
                }
                None if needed == Some(what) => {
                    findings.push(Finding::blocked(
                        what,
                        format!("not found, and runtime = {}", self.runtime),
                        how_to_get(machine),
                    ));
                }
                None if what == "Apptainer" && has_any => {
                    findings.push(Finding::ok(what, "not found; SingularityCE serves"))
                }
                None if what == "Apptainer" => {
                    let detail = "not found: sessions without an image only";
                    findings.push(Finding::limited(what, detail, how_to_get(machine)));
                }
                None => {}
            }
        }
        if has_any {
            findings.push(match own_squashfuse.or(self.squashfuse) {
                Some(path) => Finding::ok("squashfuse", path.display().to_string()),
                None => Finding::limited(
                    "squashfuse",
                    "not found: each start unpacks the whole image",
                    machine.install("squashfuse", "epel:squashfuse"),
                ),
            });
        }
        findings.push(fuse(machine, has_any));
        findings
    }
}

impl Program {
    fn ask(path: PathBuf) -> Self {
        let version = Asked::start(&path, &["--version"]);
        let settings = Asked::start(&path, &["buildcfg"]);
        Self { path, version, settings }
    }

    fn listen(self) -> Answered {
        let heard = |asked: Option<Asked>| asked.map(Asked::answer).filter(Answer::succeeded);
        Answered { path: self.path, version: heard(self.version), settings: heard(self.settings) }
    }
}

struct Answered {
    path: PathBuf,
    version: Option<Answer>,
    settings: Option<Answer>,
}

impl Answered {
    fn judge(&self, what: &'static str) -> Finding {
        let path = self.path.display();
        let Some(version) = self.version.as_ref().and_then(Answer::version) else {
            let remedy = format!("{path} --version");
            return Finding::blocked(what, format!("{path} does not say its version in time"), remedy);
        };
        if let Some(file) = self.forbidden_by() {
            let remedy = format!("sed -i 's/^allow user ns *=.*/allow user ns = yes/' {file}");
            return Finding::blocked(what, format!("{version}, {file} has `allow user ns = no`"), remedy);
        }
        let setuid = if self.is_setuid() {
            "setuid, not used: always started with --userns"
        } else {
            "without setuid"
        };
        Finding::ok(what, format!("{version}, {path}, {setuid}"))
    }

    /// A value of `buildcfg`, whichever of the two names is in front.
    fn setting(&self, name: &str) -> Option<&str> {
        let settings = self.settings.as_ref()?;
        settings.text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key == name
                || key.strip_prefix("APPTAINER_") == Some(name)
                || key.strip_prefix("SINGULARITY_") == Some(name))
            .then_some(value)
        })
    }

    /// Where its helpers are: `LIBEXECDIR/apptainer/bin`.
    fn helpers(&self) -> Vec<PathBuf> {
        let folder = self.setting("LIBEXECDIR").map(Path::new);
        folder
            .map(|f| ["apptainer/bin", "singularity/bin"].map(|sub| f.join(sub)).to_vec())
            .unwrap_or_default()
    }

    fn is_setuid(&self) -> bool {
        self.helpers().iter().any(|folder| folder.join("starter-suid").exists())
    }

    fn squashfuse(&self) -> Option<PathBuf> {
        let names = ["squashfuse_ll", "squashfuse"];
        self.helpers()
            .iter()
            .flat_map(|folder| names.map(|name| folder.join(name)))
            .find(|path| path.exists())
    }

    /// Its configuration file, where that forbids user namespaces.
    fn forbidden_by(&self) -> Option<&str> {
        let file = self.setting("CONF_FILE")?;
        let text = fs::read_to_string(file).ok()?;
        forbids_user_namespaces(&text).then_some(file)
    }
}

fn forbids_user_namespaces(text: &str) -> bool {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .any(|(k, v)| k.trim() == "allow user ns" && v.trim() == "no")
}

/// Red Hat's family has it in EPEL, Ubuntu in Apptainer's own archive; Debian 12 has no package of it.
fn how_to_get(machine: &Machine) -> String {
    let command = machine.install("apptainer", "epel:apptainer");
    let is_ubuntu =
        machine.text("etc/os-release").is_some_and(|text| text.lines().any(|line| line == "ID=ubuntu"));
    if is_ubuntu {
        format!("add-apt-repository -y ppa:apptainer/ppa && {command}")
    } else if command.starts_with("apt-get") {
        "apt-get install -y ./apptainer_*.deb, with the file of https://github.com/apptainer/apptainer/releases".to_owned()
    } else {
        command
    }
}

/// Images are mounted by FUSE; opening the device is all that takes.
fn fuse(machine: &Machine, is_needed: bool) -> Finding {
    let what = "/dev/fuse";
    let (detail, remedy) = match File::options().read(true).write(true).open(what) {
        Ok(_) => return Finding::ok(what, ""),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let remedy = format!("modprobe fuse; if it stays away, {}", machine.install("fuse3", "fuse3"));
            ("not there".to_owned(), remedy)
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            ("permission denied".to_owned(), "chmod 0666 /dev/fuse".to_owned())
        }
        Err(e) => (e.to_string(), "modprobe fuse".to_owned()),
    };
    if is_needed { Finding::blocked(what, detail, remedy) } else { Finding::limited(what, detail, remedy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_line_that_forbids_is_found_among_comments() {
        assert!(forbids_user_namespaces("# allow user ns = yes\nallow user ns = no\n"));
        assert!(!forbids_user_namespaces("#allow user ns = no\nallow user ns = yes\nallow pid ns = no\n"));
    }
}
