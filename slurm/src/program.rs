//! Runs one program to its end, within a deadline.
//!
//! Slurm's programs wait for a controller that does not answer, and some try again for ever. So each is killed when its
//! time is over, with all it has started, and reaped. It gets what it is to read by stdin; both of its outputs are read
//! while it runs, up to a bound, so that no pipe fills up.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    io::{self, Read, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::waitpid,
    },
    unistd::Pid,
};

/// Bytes of one output that are read at most: 100,000 jobs.
const MOST_OUTPUT: u64 = 64 * 1024 * 1024;

/// Time for a killed program to be reaped. One that hangs in the kernel, as on a dead file server, is left to a thread.
const REAP: Duration = Duration::from_secs(1);

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// There is none of that name.
    #[error("cannot find the program {program}: it is not in {}", .looked.to_string_lossy())]
    Missing {
        /// Its name.
        program: &'static str,
        /// The folder, or the value of PATH, where it is not.
        looked: OsString,
    },
    /// It could not be started.
    #[error("cannot start {}: {source}", .path.display())]
    Start {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("{program} did not answer within {} seconds, and was ended", .after.as_secs_f32())]
    Silent {
        /// Its name.
        program: &'static str,
        /// The time that it had.
        after: Duration,
    },
    /// Its output could not be read, or was too much.
    #[error("cannot read what {program} answered: {source}")]
    Output {
        /// Its name.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A program that was found.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    path: PathBuf,
}

/// What a program is given.
pub(crate) struct Call<'a> {
    pub(crate) args: Vec<OsString>,
    pub(crate) input: &'a [u8],
    /// Variables of ours that it does not get, by name.
    pub(crate) without: &'a dyn Fn(&OsStr) -> bool,
    /// Variables that it gets besides.
    pub(crate) with: Vec<(&'static str, OsString)>,
    pub(crate) deadline: Duration,
}

/// How a program ended, and what it said.
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl Answer {
    /// What it has to say to a person, without its own name before each line.
    pub(crate) fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.err);
        let lines = text.lines().map(|line| {
            let line = line.trim();
            let said = line.split_once(": ").filter(|(who, _)| crate::PROGRAMS.contains(who));
            let said = said.map_or(line, |(_, said)| said);
            said.strip_prefix("error: ").or_else(|| said.strip_prefix("Error: ")).unwrap_or(said)
        });
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Debug for Answer {
    /// What it printed may be a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Program {
    /// The program of that name in `folder`, or else in the absolute folders of PATH.
    pub(crate) fn find(name: &'static str, folder: Option<&Path>) -> Result<Self, ProgramError> {
        let looked = match folder {
            Some(folder) => folder.as_os_str().to_owned(),
            None => env::var_os("PATH").unwrap_or_default(),
        };
        let mut folders: Box<dyn Iterator<Item = PathBuf>> = match folder {
            Some(folder) => Box::new(std::iter::once(folder.to_owned())),
            // A relative one would be the current folder's, which may be anybody's.
            None => Box::new(env::split_paths(&looked).filter(|folder| folder.is_absolute())),
        };
        let found = folders.find_map(|folder| executable(folder.join(name)));
        drop(folders);
        found.map(|path| Self { name, path }).ok_or(ProgramError::Missing { program: name, looked })
    }

    /// What will run it, for a caller that does not wait for its end.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.path)
    }

    /// Why it could not be started.
    pub(crate) fn not_started(&self, source: io::Error) -> ProgramError {
        if source.kind() == io::ErrorKind::NotFound {
            return ProgramError::Missing { program: self.name, looked: self.path.clone().into() };
        }
        ProgramError::Start { path: self.path.clone(), source }
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, call: Call<'_>) -> Result<Answer, ProgramError> {
        let until = Instant::now() + call.deadline;
        let silent = || ProgramError::Silent { program: self.name, after: call.deadline };
        let failed = |source| ProgramError::Output { program: self.name, source };
        let mut running = self.start(&call)?;

        if let Some(mut stdin) = running.child.stdin.take() {
            let input = call.input.to_vec();
            // One that ends before it has read all is not to blame for that: its status says how it went.
            thread::spawn(move || stdin.write_all(&input));
        }
        let outs = running.child.stdout.take().map(gather);
        let errs = running.child.stderr.take().map(gather);
        let read = |pipe: Option<Gathered>| {
            let Some(pipe) = pipe else { return Ok(Vec::new()) };
            let left = until.saturating_duration_since(Instant::now());
            pipe.recv_timeout(left).map_err(|_| silent())?.map_err(failed)
        };
        let (out, err) = (read(outs)?, read(errs)?);
        let status = running.wait(until).map_err(failed)?.ok_or_else(silent)?;
        Ok(Answer { status, out, err })
    }

    fn start(&self, call: &Call<'_>) -> Result<Running, ProgramError> {
        let mut command = self.command();
        command.args(&call.args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if call.input.is_empty() { Stdio::null() } else { Stdio::piped() });
        // A group of its own, so that a site's wrapper is killed with what it has started.
        command.process_group(0);
        for (name, _) in env::vars_os() {
            if (call.without)(&name) {
                command.env_remove(name);
            }
        }
        command.envs(call.with.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().map_err(|source| self.not_started(source))?;
        Ok(Running { child, reaped: false })
    }
}

fn executable(path: PathBuf) -> Option<PathBuf> {
    let meta = path.metadata().ok()?;
    (meta.is_file() && meta.permissions().mode() & 0o111 != 0).then_some(path)
}

/// A child that does not outlive its deadline.
struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    /// Its outputs are closed, so it ends now or soon.
    fn wait(&mut self, until: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.reaped = true;
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // It is the leader of its group, and not reaped: the number is its own.
        if let Ok(group) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        if !matches!(self.wait(Instant::now() + REAP), Ok(Some(_))) {
            let number = self.child.id();
            thread::spawn(move || i32::try_from(number).map(|number| waitpid(Pid::from_raw(number), None)));
        }
    }
}

type Gathered = mpsc::Receiver<io::Result<Vec<u8>>>;

/// Reads a pipe to its end, on a thread that lasts as long as somebody holds the other one.
fn gather(pipe: impl Read + Send + 'static) -> Gathered {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        let read = pipe.take(MOST_OUTPUT + 1).read_to_end(&mut all);
        let whole = read.and_then(|count| {
            let fits = u64::try_from(count).is_ok_and(|count| count <= MOST_OUTPUT);
            fits.then_some(all).ok_or_else(|| io::Error::other("it is more than 64 MiB"))
        });
        // Nobody listens any more where the deadline is over.
        let _ = send.send(whole);
    });
    receive
}

/// Arguments from texts of all kinds.
pub(crate) fn args<S: AsRef<OsStr>>(all: impl IntoIterator<Item = S>) -> Vec<OsString> {
    all.into_iter().map(|one| one.as_ref().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], deadline: Duration) -> Result<Answer, ProgramError> {
        let program = Program { name: "sh", path: "/bin/sh".into() };
        let with = vec![("GIVEN", "this".into())];
        program.run(Call {
            args: args(["-c", script]),
            input,
            without: &|name| name == "PATH",
            with,
            deadline,
        })
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn all_three_pipes_are_served_at_once() {
        let input = vec![b'x'; 3_000_000];
        let answer = shell("/usr/bin/tee /dev/stderr; exit 3", &input, LONG).unwrap();
        assert_eq!(
            (answer.status.code(), answer.out.len(), answer.err.len()),
            (Some(3), 3_000_000, 3_000_000)
        );
    }

    #[test]
    fn it_need_not_read_what_it_is_given() {
        let answer = shell("echo done", &vec![b'x'; 3_000_000], LONG).unwrap();
        assert_eq!(answer.out, b"done\n");
    }

    #[test]
    fn the_environment_is_what_was_asked_for() {
        let answer = shell("echo \"$GIVEN\"; /usr/bin/env | /usr/bin/grep -c ^PATH=", b"", LONG).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.out), "this\n0\n");
    }

    #[test]
    fn at_the_deadline_it_is_killed_with_its_children() {
        let named = env::temp_dir().join(format!("slurm-program-{}", std::process::id()));
        let script = format!("/bin/sleep 600 & echo $! >{}; /bin/sleep 600", named.display());
        let before = Instant::now();
        let error = shell(&script, b"", Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, ProgramError::Silent { program: "sh", .. }), "{error}");
        let child = std::fs::read_to_string(&named).unwrap();
        std::fs::remove_file(&named).unwrap();
        // Whoever inherits it may be slow to reap it.
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        while state().is_ok_and(|state| !state.contains(") Z ")) {
            assert!(before.elapsed() < Duration::from_secs(20), "the child is still there");
        }
    }

    #[test]
    fn one_that_closes_its_outputs_and_stays_is_killed_too() {
        let error = shell("exec >&- 2>&-; /bin/sleep 600", b"", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, ProgramError::Silent { .. }), "{error}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = Program::find("sbatch", Some(Path::new("/proc"))).unwrap_err();
        assert_eq!(error.to_string(), "cannot find the program sbatch: it is not in /proc");
    }

    #[test]
    fn words_are_without_the_programs_name() {
        let answer =
            shell("echo 'sbatch: error: no such: thing' >&2; echo >&2; echo '  more' >&2", b"", LONG)
                .unwrap();
        assert_eq!(answer.words(), "no such: thing\nmore");
    }
}
