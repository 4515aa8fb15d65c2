//! `exec`, `shell` and `sftp-server`: a command in a session, with its streams or a terminal, and its exit status.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::ExitCode,
    thread,
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
    unistd::pipe2,
};

use super::{
    Failure,
    args::{ExecArgs, OneArgs},
    output::Output,
    sessions::{connect_to_run, records},
};
use crate::{
    sandbox::protocol::to_file,
    session::{
        Record, Which,
        control::{Answer, Client, ExecSpec, Request},
    },
    sys::{
        process::signals,
        terminal::{self, RawMode},
    },
    words::Size,
};

/// Variables that describe the terminal in front of the person, not the app's surroundings.
const OF_THE_TERMINAL: [&str; 3] = ["TERM", "COLORTERM", "TERM_PROGRAM"];

pub(super) fn exec(args: ExecArgs, output: &Output) -> Result<ExitCode, Failure> {
    run(&args.name, args.command, output)
}

pub(super) fn shell(args: &OneArgs, output: &Output) -> Result<ExitCode, Failure> {
    run(&args.name, Vec::new(), output)
}

fn run(name: &str, words: Vec<OsString>, output: &Output) -> Result<ExitCode, Failure> {
    let record = records()?.find(name, Which::Live)?;
    let client = connect_to_run(&record)?;
    let env =
        OF_THE_TERMINAL.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect();
    let spec = to_file(&ExecSpec { words, env }).map_err(Failure::io("cannot describe the command"))?;
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let done = if on_terminal {
        with_terminal(&client, &spec)
    } else {
        with_streams(&client, &Request::Exec { terminal: false }, Some(&spec), Ends::of(&record))
    };
    conclude(done, &record.name, output)
}

pub(super) fn sftp_server(args: &OneArgs, output: &Output) -> Result<ExitCode, Failure> {
    let record = records()?.find(&args.name, Which::Live)?;
    let client = connect_to_run(&record)?;
    conclude(with_streams(&client, &Request::Sftp, None, Ends::of(&record)), &record.name, output)
}

fn conclude(
    done: io::Result<Option<Answer>>,
    session: impl std::fmt::Display,
    output: &Output,
) -> Result<ExitCode, Failure> {
    match done.map_err(Failure::io(format!("lost the command in {session}")))? {
        Some(Answer::Exited { exit }) => Ok(exit.code().into()),
        Some(Answer::NotRun { why, status }) => {
            output.note(format_args!("shlogin: {why}"));
            Ok(status.into())
        }
        Some(Answer::Failed { why }) => Err(Failure::Session(why)),
        _ => {
            output.note(format_args!("shlogin: session {session} has ended"));
            Ok(super::code::FAILED.into())
        }
    }
}

/// What a command's streams are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Ours, as they are; a terminal is relayed, for the app must not hold it.
    Ours,
    /// Pipes: the command is on another machine, and whoever brings its bytes here must not change what ours are.
    Pipes,
}

impl Ends {
    fn of(record: &Record) -> Self {
        if record.job.is_some() { Self::Pipes } else { Self::Ours }
    }
}

fn with_streams(
    client: &Client,
    request: &Request,
    spec: Option<&OwnedFd>,
    ends: Ends,
) -> io::Result<Option<Answer>> {
    let mut relays = Vec::new();
    let input = input_stream(ends)?;
    let out = output_stream(io::stdout(), ends, &mut relays)?;
    let error = output_stream(io::stderr(), ends, &mut relays)?;
    let fds: Vec<_> = spec.into_iter().chain([&input, &out, &error]).map(AsFd::as_fd).collect();
    client.ask(request, &fds)?;
    drop((input, out, error));
    let answer = last_answer(client);
    // What the command wrote last is on its way through these; they end when the pipes do.
    for relay in relays {
        let _ = relay.join();
    }
    answer
}

fn last_answer(client: &Client) -> io::Result<Option<Answer>> {
    loop {
        match client.answer()? {
            Some(Answer::Started) => {}
            other => return Ok(other),
        }
    }
}

fn input_stream(ends: Ends) -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    if ends == Ends::Ours && !stdin.is_terminal() {
        return stdin.as_fd().try_clone_to_owned();
    }
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    // Not waited for: it sits in a read of the terminal until the process goes.
    thread::spawn(move || io::copy(&mut io::stdin(), &mut File::from(write_end)));
    Ok(read_end)
}

fn output_stream<S: AsFd + IsTerminal + Write + Send + 'static>(
    mut stream: S,
    ends: Ends,
    relays: &mut Vec<thread::JoinHandle<()>>,
) -> io::Result<OwnedFd> {
    if ends == Ends::Ours && !stream.is_terminal() {
        return stream.as_fd().try_clone_to_owned();
    }
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
    relays.push(thread::spawn(move || drop(io::copy(&mut File::from(read_end), &mut stream))));
    Ok(write_end)
}

/// A terminal of its own, relayed to the person's.
fn with_terminal(client: &Client, spec: &OwnedFd) -> io::Result<Option<Answer>> {
    let stdin = io::stdin();
    let stdout = io::stdout();
    let size = terminal::size(stdout.as_fd())?;
    let raw = RawMode::enter(stdin.as_fd())?;
    let (ours, theirs) = terminal::pair(&size, Some(raw.before()))?;
    client.ask(&Request::Exec { terminal: true }, &[spec.as_fd(), theirs.as_fd()])?;
    drop(theirs);
    let resized = signals(&[Signal::SIGWINCH])?;
    let mut ours = File::from(ours);
    let mut typing = true;
    loop {
        let mut set = vec![
            PollFd::new(client.as_fd(), PollFlags::POLLIN),
            PollFd::new(ours.as_fd(), PollFlags::POLLIN),
            PollFd::new(resized.as_fd(), PollFlags::POLLIN),
        ];
        if typing {
            set.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut set, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let fired: Vec<bool> = set.iter().map(|fd| fd.any().unwrap_or_default()).collect();
        drop(set);
        if fired[1] {
            relay(&mut ours, stdout.as_fd())?;
        }
        if fired[2] {
            while resized.read_signal()?.is_some() {}
            let size = terminal::size(stdout.as_fd())?;
            terminal::resize(ours.as_fd(), &size)?;
            // A session that has ended meanwhile says so itself.
            let _ = client.ask(&Request::Resized(Size::near(size.ws_col.into(), size.ws_row.into())), &[]);
        }
        if fired.get(3).copied().unwrap_or_default() {
            typing = type_in(stdin.as_fd(), &mut ours)?;
        }
        if fired[0] {
            match client.answer()? {
                Some(Answer::Started) => {}
                answer => {
                    while relay(&mut ours, stdout.as_fd())? {}
                    return Ok(answer);
                }
            }
        }
    }
}

/// Copies what is there from the command's terminal. `false` where its other end is closed (`EIO`, as `pty(7)` has it).
fn relay(from: &mut File, to: BorrowedFd<'_>) -> io::Result<bool> {
    let mut buffer = [0; 16 * 1024];
    match from.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(n) => {
            let mut rest = &buffer[..n];
            while !rest.is_empty() {
                let written = nix::unistd::write(to, rest)?;
                rest = &rest[written..];
            }
            Ok(true)
        }
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(false),
        Err(error) => Err(error),
    }
}

fn type_in(from: BorrowedFd<'_>, to: &mut File) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    match nix::unistd::read(from, &mut buffer)? {
        0 => Ok(false),
        n => to.write_all(&buffer[..n]).map(|()| true),
    }
}
