//! The process that asks PAM about a password, with the real PAM and real users: the role `@password`, spoken to as the ssh
//! server does.

use std::{
    fs,
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use shlogin::sys::message;

use crate::harness::{
    Site, User,
    place::{USER_PREFIX, place},
    seconds, until,
    users::with_passwd_locked,
};

/// A file in `/etc/pam.d`, gone with it.
struct Service {
    name: String,
}

impl Service {
    fn new(lines: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let service = Self { name: format!("{USER_PREFIX}{}-{number}", std::process::id()) };
        fs::write(service.path(), lines).unwrap();
        service
    }

    fn unix() -> Self {
        Self::new("auth required pam_unix.so nullok nodelay\naccount required pam_unix.so\n")
    }

    /// With a script where the password would be checked.
    fn script(user: &User, name: &str, text: &str) -> Self {
        let script = user.own_file(name, &format!("#!/bin/sh\n{text}\n"), 0o755);
        Self::new(&format!(
            "auth required pam_exec.so {}\naccount required pam_permit.so\n",
            script.display()
        ))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/etc/pam.d").join(&self.name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

/// A helper that has been asked.
struct Helper {
    child: Child,
    socket: OwnedFd,
}

impl Helper {
    /// Has `as_` run a helper and asks it about `user`'s password.
    fn ask(as_: &User, service: &Service, user: &str, password: &str, limit: Duration) -> Self {
        let (socket, theirs) = message::pair().unwrap();
        let mut command = as_.command("/bin/sh");
        command.args(["-c", "exec \"$0\" @password test 3<&0 0</dev/null"]).arg(place().program());
        let child = command.stdin(theirs).stdout(Stdio::null()).spawn().unwrap();
        // What is dropped here would keep the socket open for us as well.
        drop(command);
        let question =
            [&limit.as_secs().to_string(), service.name.as_str(), user, "192.0.2.7", password].join("\0");
        message::send(socket.as_fd(), question.as_bytes(), &[]).unwrap();
        Self { child, socket }
    }

    /// Its verdict; `None` where it ended without one.
    fn verdict(&mut self) -> Option<String> {
        let mut buffer = vec![0; message::MAX_LEN];
        let answer = message::receive(self.socket.as_fd(), &mut buffer).unwrap();
        let ended = until(seconds(10), "the helper's end", || self.child.try_wait().unwrap());
        assert_eq!(ended.success(), answer.is_some(), "{ended}");
        answer.map(|(length, _)| String::from_utf8(buffer[..length].to_vec()).unwrap())
    }
}

fn verdict(as_: &User, service: &Service, user: &str, password: &str) -> String {
    Helper::ask(as_, service, user, password, seconds(30)).verdict().unwrap()
}

fn set_password(user: &User, password: &str) {
    with_passwd_locked(|| {
        let mut child = Command::new("chpasswd").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{}:{password}\n", user.name).as_bytes()).unwrap();
        child.wait().unwrap().success()
    });
}

fn change(words: &[&str]) {
    with_passwd_locked(|| {
        Command::new(words[0]).args(&words[1..]).output().is_ok_and(|output| output.status.success())
    });
}

/// Threats 30 and 31.
pub(crate) fn pam_lets_in_by_one_s_own_password_alone(site: &Site) {
    let (alice, mallory) = (&site.alice, &site.mallory);
    let service = Service::unix();
    set_password(alice, "alice's own, wïth a space");
    set_password(mallory, "mallory's");
    assert_eq!(verdict(alice, &service, &alice.name, "alice's own, wïth a space"), "\"Yes\"");
    for wrong in ["alice's own", "alice's own, wïth a space ", "mallory's", "x", ""] {
        let said = verdict(alice, &service, &alice.name, wrong);
        assert!(said.contains("the password"), "{wrong:?}: {said}");
    }
    let said = verdict(alice, &service, &mallory.name, "mallory's");
    assert!(said.contains("somebody else"), "{said}");
    let said = verdict(alice, &service, "root", "x");
    assert!(said.contains("somebody else"), "{said}");
    assert!(verdict(mallory, &service, &mallory.name, "mallory's").contains("Yes"));
    change(&["passwd", "--delete", &alice.name]);
    for password in ["", "x"] {
        let said = verdict(alice, &service, &alice.name, password);
        assert!(said.contains("No"), "no password is needed, but none is none: {said}");
    }
}

/// Threat 31.
pub(crate) fn an_account_that_is_no_longer_good_is_refused(site: &Site) {
    let alice = &site.alice;
    let service = Service::unix();
    set_password(alice, "secret");
    assert!(verdict(alice, &service, &alice.name, "secret").contains("Yes"));
    change(&["chage", "-E", "0", &alice.name]);
    let said = verdict(alice, &service, &alice.name, "secret");
    assert!(said.contains("the account"), "{said}");
    change(&["chage", "-E", "-1", "-d", "0", &alice.name]);
    let said = verdict(alice, &service, &alice.name, "secret");
    assert!(said.contains("the account"), "a password that has to be changed is no way in: {said}");
    change(&["chage", "-d", "2020-01-01", &alice.name]);
    assert!(verdict(alice, &service, &alice.name, "secret").contains("Yes"));
    change(&["passwd", "--lock", &alice.name]);
    assert!(verdict(alice, &service, &alice.name, "secret").contains("No"));
}

/// Threat 31.
pub(crate) fn a_module_that_hangs_or_crashes_says_nothing(site: &Site) {
    let alice = &site.alice;
    let mark = alice.home.join("hangs");
    let hanging = format!("echo $$ $PPID > {0}.new; mv {0}.new {0}; exec sleep 3600", mark.display());
    let service = Service::script(alice, "hang.sh", &hanging);
    let begun = Instant::now();
    let mut helper = Helper::ask(alice, &service, &alice.name, "a secret to look for", seconds(2));
    let pids = until(seconds(10), "the module's script", || fs::read_to_string(&mark).ok());
    let (script, parent) = pids.trim().split_once(' ').unwrap();
    assert_eq!(parent, helper.child.id().to_string());
    for file in ["cmdline", "environ"] {
        for pid in [script, parent] {
            let shown = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(!String::from_utf8_lossy(&shown).contains("a secret to look for"), "{pid}: {file}");
        }
    }
    let memory = fs::metadata(format!("/proc/{parent}/mem")).unwrap();
    assert_eq!(memory.uid(), 0, "its user's other processes can look into it");
    assert_eq!(helper.verdict(), None);
    assert!(begun.elapsed() < seconds(10), "{:?}", begun.elapsed());
    kill(Pid::from_raw(script.parse().unwrap()), Signal::SIGKILL).unwrap();

    let crashing = Service::script(alice, "crash.sh", "kill -ABRT $PPID; exec sleep 3600");
    let mut helper = Helper::ask(alice, &crashing, &alice.name, "x", seconds(30));
    assert_eq!(helper.verdict(), None);
    for process in alice.processes() {
        let _ = kill(process.pid, Signal::SIGKILL);
    }

    let refusing = Service::script(alice, "refuse.sh", "exit 1");
    assert!(verdict(alice, &refusing, &alice.name, "x").contains("the password"));
    let asking = Service::new("auth required pam_surely_not_there.so\naccount required pam_permit.so\n");
    assert!(verdict(alice, &asking, &alice.name, "x").contains("No"));
}
