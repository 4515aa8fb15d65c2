//! The real program, run as a user, with a deadline; and the sessions it starts.

use std::{
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::Value;

use super::{User, http::Gate, place::place, seconds, until};

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Its exit status; 128 + N for signal N.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// Its one JSON value.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }

    /// # Panics
    /// When it did not end with 0.
    pub(crate) fn ok(self) -> Self {
        self.ended_with(0)
    }

    /// # Panics
    /// When it did not end with this status.
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self:#?}");
        self
    }

    /// # Panics
    /// When its standard output is anything else.
    pub(crate) fn is(self, text: &str) -> Self {
        assert_eq!(self.stdout, text, "{self:#?}");
        self
    }

    /// # Panics
    /// When it said this nowhere.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "{text:?} is not in {self:#?}");
        self
    }
}

type Said = Arc<Mutex<Vec<u8>>>;

/// A program that runs. Dropped, it and its process group are killed.
pub(crate) struct Running {
    pid: Pid,
    stdout: Said,
    stderr: Said,
    ended: mpsc::Receiver<ExitStatus>,
    silent: mpsc::Receiver<()>,
    over: bool,
}

impl Running {
    /// Starts it in a process group of its own.
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (says_end, ended) = mpsc::channel();
        let (falls_silent, silent) = mpsc::channel();
        let stdout = listen(child.stdout.take().unwrap(), falls_silent.clone());
        let stderr = listen(child.stderr.take().unwrap(), falls_silent);
        thread::spawn(move || {
            if let Ok(status) = child.wait() {
                let _ = says_end.send(status);
            }
        });
        Self { pid, stdout, stderr, ended, silent, over: false }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// What it has said on standard output until now.
    pub(crate) fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has said on standard error until now.
    pub(crate) fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Waits until it has said this.
    pub(crate) fn wait_for(&self, within: Duration, words: &str) {
        let start = Instant::now();
        while !self.stdout().contains(words) && !self.stderr().contains(words) {
            assert!(
                start.elapsed() < within,
                "not within {within:?}: {words:?} in {}{}",
                self.stdout(),
                self.stderr()
            );
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// Waits for its end, and for its output's: who leaves a process behind that holds its output is found out here.
    ///
    /// # Panics
    /// When it has not ended in time; it and its process group are killed then.
    pub(crate) fn finish(mut self, within: Duration) -> Output {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        let Ok(status) = self.ended.recv_timeout(left()) else {
            panic!("runs longer than {within:?}; said:\n{}\n{}", self.stdout(), self.stderr());
        };
        self.over = true;
        for _ in 0..2 {
            let silent = self.silent.recv_timeout(left());
            assert!(
                silent.is_ok(),
                "has ended, but something it left holds its output: {}{}",
                self.stdout(),
                self.stderr()
            );
        }
        Output { status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }
}

fn listen(mut from: impl Read + Send + 'static, falls_silent: mpsc::Sender<()>) -> Said {
    let said = Said::default();
    let heard = Arc::clone(&said);
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            heard.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
        let _ = falls_silent.send(());
    });
    said
}

fn text(said: &Said) -> String {
    String::from_utf8_lossy(&said.lock().unwrap()).into_owned()
}

/// A session that was started, and the JSON that `start` printed.
pub(crate) struct Session<'u> {
    pub(crate) user: &'u User,
    pub(crate) json: Value,
}

impl User {
    /// Starts a session and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) fn start(&self, args: &[&str]) -> Session<'_> {
        let words: Vec<_> = ["start", "--json"].iter().chain(args).copied().collect();
        Session { user: self, json: self.shlogin(&words).ok().json() }
    }

    /// Starts the small app as a session without an image. `words` are the app's; see `singularity/tiny/app.py`.
    pub(crate) fn start_bare(&self, name: &str, options: &[&str], words: &[&str]) -> Session<'_> {
        self.start(&bare(name, options, words).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts the small app as a session in an image.
    pub(crate) fn start_image(&self, name: &str, options: &[&str], words: &[&str]) -> Session<'_> {
        let image = place().image("tiny").display().to_string();
        let mut args = vec!["--name", name];
        args.extend(options);
        args.extend([image.as_str(), "--"]);
        args.extend(words);
        self.start(&args)
    }

    /// Her live sessions, as `list --json` has them.
    pub(crate) fn list(&self) -> Vec<Value> {
        self.shlogin(&["list", "--json"]).ok().json().as_array().unwrap().clone()
    }
}

/// The arguments of `start` for the small app without an image.
pub(crate) fn bare(name: &str, options: &[&str], words: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = vec!["--name".into(), name.into()];
    args.extend(options.iter().map(|&option| option.to_owned()));
    args.extend(["--", "/usr/bin/python3", "-S", "-E"].map(str::to_owned));
    args.push(place().app().display().to_string());
    args.extend(words.iter().map(|&word| word.to_owned()));
    args
}

impl Session<'_> {
    fn text(&self, pointer: &str) -> &str {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer} in {:#}", self.json))
    }

    fn number(&self, pointer: &str) -> u64 {
        self.json
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no {pointer} in {:#}", self.json))
    }

    pub(crate) fn name(&self) -> &str {
        self.text("/name")
    }

    pub(crate) fn url(&self) -> &str {
        self.text("/url")
    }

    pub(crate) fn id(&self) -> &str {
        self.text("/id")
    }

    pub(crate) fn pod(&self) -> u64 {
        self.number("/pod")
    }

    pub(crate) fn app_port(&self) -> u16 {
        u16::try_from(self.number("/app_port")).unwrap()
    }

    pub(crate) fn gateway_port(&self) -> u16 {
        u16::try_from(self.number("/gateway/port")).unwrap()
    }

    /// The supervisor.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.number("/pid")).unwrap())
    }

    /// A client that nobody let in yet.
    pub(crate) fn stranger(&self) -> Gate {
        Gate::to(self.url())
    }

    /// A client that went in by a fresh token.
    pub(crate) fn signed_in(&self) -> Gate {
        let url = self.user.shlogin(&["url", self.name()]).ok().stdout;
        let mut gate = Gate::to(url.trim());
        gate.sign_in(url.trim());
        gate
    }

    /// What the small app says of itself.
    pub(crate) fn report(&self) -> Value {
        let answer = self.signed_in().get("/report");
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Its record.
    pub(crate) fn show(&self) -> Value {
        self.user.shlogin(&["show", "--json", self.name()]).ok().json()
    }

    /// Stops it and waits until nothing of it is left.
    pub(crate) fn stop(&self) {
        self.user.shlogin(&["stop", self.name()]).ok();
    }

    /// Waits until its record says that it ended.
    pub(crate) fn wait_until_ended(&self) -> Value {
        until(seconds(10), "the session's end", || {
            Some(self.show()).filter(|record| record["state"] == "ended")
        })
    }
}
