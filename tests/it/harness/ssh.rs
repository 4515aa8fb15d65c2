//! The real OpenSSH client, as a user has it, on the way to a session.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{
    Session, User,
    program::{Output, Running},
    seconds,
};

/// A user's key, and how she goes to a session by its port.
pub(crate) struct Ssh<'a> {
    user: &'a User,
    /// Options that all of her commands have.
    options: Vec<String>,
    host: String,
    /// The program that types her password for her.
    ask: Option<PathBuf>,
}

impl<'a> Ssh<'a> {
    /// As `user` with a new key, by the session's port on this node. The key opens it once it is in `authorized_keys`.
    pub(crate) fn with_key(user: &'a User, session: &Session<'_>) -> Self {
        let key = user.home.join(".ssh/id_ed25519");
        if !key.exists() {
            user.own_folder(&user.home.join(".ssh"), 0o700);
            user.run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key.display().to_string()]).ok();
        }
        let record = session.show();
        let host_key = record["ssh"]["host_key"].as_str().unwrap();
        let known =
            user.own_file(&format!("known-{}", session.id()), &format!("session {host_key}\n"), 0o600);
        let port = record["ssh"]["port"].as_u64().unwrap();
        let mut options: Vec<String> = ["-F", "none", "-p"].map(str::to_owned).to_vec();
        options.push(port.to_string());
        for option in [
            format!("UserKnownHostsFile={}", known.display()),
            "HostKeyAlias=session".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "UpdateHostKeys=no".to_owned(),
            "BatchMode=yes".to_owned(),
            format!("User={}", session.user.name),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        Self { user, options, host: "127.0.0.1".to_owned(), ask: None }
    }

    /// Somebody who has no key, and says this when she is asked for a password, once.
    pub(crate) fn with_password(&self, password: &str) -> Self {
        let first = ["BatchMode=no", "PubkeyAuthentication=no", "NumberOfPasswordPrompts=1"];
        let first = first.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]);
        let options = first.chain(self.options.iter().cloned()).collect();
        let script = format!("#!/bin/sh\ncat <<'END'\n{password}\nEND\n");
        let ask = Some(self.user.own_file("ask", &script, 0o700));
        Self { user: self.user, options, host: self.host.clone(), ask }
    }

    /// As the owner, let in by her key with these options of `authorized_keys`.
    pub(crate) fn as_owner(session: &'a Session<'_>, key_options: &str) -> Self {
        let ssh = Self::with_key(session.user, session);
        let public = fs::read_to_string(session.user.home.join(".ssh/id_ed25519.pub")).unwrap();
        session.user.own_file(".ssh/authorized_keys", &format!("{key_options} {public}"), 0o600);
        ssh
    }

    /// The same, with more options.
    pub(crate) fn with(&self, more: &[&str]) -> Self {
        let options = self.options.iter().cloned().chain(more.iter().map(|&word| word.to_owned())).collect();
        Self { user: self.user, options, host: self.host.clone(), ask: self.ask.clone() }
    }

    /// The same, under another name.
    pub(crate) fn under_the_name(&self, name: &str) -> Self {
        let options =
            ["-l", name].iter().map(|&word| word.to_owned()).chain(self.options.iter().cloned()).collect();
        Self { user: self.user, options, host: self.host.clone(), ask: self.ask.clone() }
    }

    /// `ssh HOST words…`, not started yet.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.user.command("ssh");
        command.args(&self.options).arg(&self.host).args(words);
        if let Some(ask) = &self.ask {
            command.env("SSH_ASKPASS", ask).env("SSH_ASKPASS_REQUIRE", "force");
        }
        command
    }

    /// The words of that, for a terminal.
    pub(crate) fn words(&self, words: &[&str]) -> Vec<String> {
        let mut all = vec!["ssh".to_owned()];
        all.extend(self.options.iter().cloned());
        all.push(self.host.clone());
        all.extend(words.iter().map(|&word| word.to_owned()));
        all
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.start(words).finish(seconds(60))
    }

    /// Runs a command.
    pub(crate) fn start(&self, words: &[&str]) -> Running {
        Running::spawn(self.command(words))
    }

    /// Runs a shell line of the user's in which `$SSH` and `$SCP` are the programs with all their options, and `$HOST` is
    /// the host.
    pub(crate) fn line(&self, line: &str) -> Output {
        self.start_line(line).finish(seconds(120))
    }

    /// The same, without waiting.
    pub(crate) fn start_line(&self, line: &str) -> Running {
        let mut command = self.user.command("bash");
        let quoted: Vec<_> = self.options.iter().map(|word| format!("'{word}'")).collect();
        let functions = format!("ssh() {{ command ssh {} \"$@\"; }}\n", quoted.join(" "));
        command.args(["-c", &format!("{functions}{line}")]).env("HOST", &self.host).stdin(Stdio::null());
        Running::spawn(command)
    }

    /// A program that is ssh with all the options, for those that start it themselves.
    pub(crate) fn program(&self) -> String {
        let quoted: Vec<_> = self.options.iter().map(|word| format!("'{word}'")).collect();
        let text = format!("#!/bin/sh\nexec ssh {} \"$@\"\n", quoted.join(" "));
        self.user.own_file("as-ssh", &text, 0o700).display().to_string()
    }

    /// A path in her home folder.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.user.home.join(name)
    }
}
