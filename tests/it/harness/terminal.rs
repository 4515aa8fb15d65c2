//! A terminal with a program in it, as a person has at her login.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::pty::{Winsize, openpty};

use super::{User, place::place};

/// A program on a terminal of its own.
pub(crate) struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    /// Runs these words as `user`, the terminal being theirs.
    pub(crate) fn run(user: &User, words: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        // `setsid --ctty` makes standard input the controlling terminal, which only a session's leader may do
        let mut command: Command = user.command("setsid");
        command.args(["--ctty", "--wait"]).args(words);
        let side = || Stdio::from(pair.slave.try_clone().unwrap());
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        drop(command);
        let mut output = File::from(pair.master.try_clone().unwrap());
        let screen = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { keyboard: File::from(pair.master), screen, child }
    }

    /// Runs the program under test.
    pub(crate) fn shlogin(user: &User, args: &[&str]) -> Self {
        let program = place().program().display().to_string();
        let words: Vec<_> = std::iter::once(program.as_str()).chain(args.iter().copied()).collect();
        Self::run(user, &words)
    }

    /// Types.
    pub(crate) fn keys(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// At a shell's prompt, starts what would last and interrupts it.
    ///
    /// It speaks once it has the terminal: an interrupt that came before would be the shell's, which lets it pass.
    pub(crate) fn begin_and_interrupt(&mut self) {
        self.keys("sh -c 'echo runs-$((6*7)); exec sleep 1000'\r");
        self.wait_for(Duration::from_secs(10), "runs-42");
        self.keys("\u{3}");
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        shlogin::sys::terminal::resize(std::os::fd::AsFd::as_fd(&self.keyboard), &size).unwrap();
    }

    /// All that was shown.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Waits until this is shown.
    pub(crate) fn wait_for(&self, within: Duration, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed() < within, "not within {within:?}: {text:?} on {:?}", self.screen());
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Waits for the program's end and returns its status; 128 + N for signal N, as `setsid` says it.
    pub(crate) fn finish(mut self, within: Duration) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < within, "it has not ended within {within:?} on {:?}", self.screen());
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its processes are its user's, and go with her.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
