//! `start` on a node of a job that is there already, with a gateway on a login node: begins the host right here, has a gateway
//! come, or says how, and stays until the app answers.

use std::{
    collections::HashSet,
    os::fd::{AsFd, BorrowedFd},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{signal::Signal, signalfd::SignalFd},
    unistd::Pid,
};

use super::{
    Failure,
    args::StartArgs,
    in_allocation, launchable,
    output::Output,
    start::{Shown, code_of},
};
use crate::{
    config::{AttachWord, Config, paths::PrivateFolder},
    host::AppSpec,
    session::{
        FromHostHere, GatewayRecord, HostHere, Lent, Record, Records, SessionSpec, State,
        launch::{End, FromLauncher},
        read_record, wait_for_a_gateway,
    },
    sys::process::{PidFd, ends_within, signals},
    words::{SessionId, SessionName},
};

/// How often to show what the app has printed, in milliseconds: it comes through a file on another machine.
const SHOW: u16 = 500;
/// How long the command that has brought a gateway may take to say its last: the app answers here sooner than over the link.
const LAST_WORDS: Duration = Duration::from_secs(30);

pub(super) fn start(
    args: &StartArgs,
    output: &Output,
    config: &Config,
    app: AppSpec,
    records: &Records,
    lent: Lent,
) -> Result<ExitCode, Failure> {
    // A login node takes the session over by its name, and there the lock of this node holds nobody back.
    let elsewhere: HashSet<SessionName> = records
        .everywhere()?
        .into_iter()
        .filter(|record| record.state != State::Ended)
        .map(|record| record.name)
        .collect();
    let (name, lock) = launchable::name(args, &elsewhere)?;
    let id = SessionId::random();
    let footprint = launchable::footprint(config, &name, id);
    let job = lent.job.clone();
    let taken =
        launchable::Taken { id, name, pod: None, port: 0, footprint: footprint.clone(), socket: None };
    let state = records.folder().path().to_owned();
    let mut spec = launchable::spec(args, config, app, None, taken, state);
    spec.record = Record {
        state: State::Waiting,
        detached: true,
        job: Some(job.clone()),
        gateway: GatewayRecord::none(),
        // Until the host has begun.
        pid: std::process::id(),
        pid_began: crate::sys::process::start_ticks(Pid::this()).ok(),
        ..spec.record
    };
    spec.batch = Some(in_allocation::batch_spec(config, lent));
    let interrupts = signals(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
        .map_err(Failure::io("cannot handle signals"))?;
    let begun = wait_for_a_gateway(&spec).map_err(Failure::Session).and_then(|()| {
        HostHere::start(&in_allocation::folder_of(&spec.record), job.id)
            .map_err(Failure::io("cannot start the session's host"))
    });
    // The record has the name from here on.
    let removed = footprint.remove(lock.as_fd());
    drop(lock);
    let host = match begun.and_then(|host| removed.map(|()| host).map_err(Failure::io("cannot tidy up"))) {
        Ok(host) => host,
        Err(failure) => {
            // There has been nothing but its folder.
            let _ = records.forget(&spec.record);
            return Err(failure);
        }
    };
    let there = Here { args, output, spec: &spec, host, interrupts, attaching: None, answered: false };
    there.follow(&config.slurm.attach_command)
}

/// The person's end of it.
struct Here<'a> {
    args: &'a StartArgs,
    output: &'a Output,
    spec: &'a SessionSpec,
    host: HostHere,
    interrupts: SignalFd,
    attaching: Option<Attaching>,
    answered: bool,
}

/// The command that is to bring a gateway.
struct Attaching {
    /// Until it is left to itself.
    child: Option<Child>,
    held: PidFd,
}

enum News {
    Interrupt(Signal),
    Host(Option<FromHostHere>),
    Attached,
    Time,
}

impl Here<'_> {
    fn follow(mut self, attach_command: &[AttachWord]) -> Result<ExitCode, Failure> {
        let (mut shown, mut interrupted) = (Shown::default(), false);
        let log = self.spec.record.log.clone();
        loop {
            match self.next()? {
                // What Slurm sends to the steps of a job that it ends. The host says so; Slurm says why.
                News::Interrupt(Signal::SIGTERM) => self.host.terminate(),
                News::Interrupt(_) => {
                    self.host.tell(if interrupted { &FromLauncher::Kill } else { &FromLauncher::Stop });
                    interrupted = true;
                }
                News::Host(Some(FromHostHere::Waits)) => {
                    self.have_a_gateway_come(attach_command);
                    if self.args.slurm.no_wait {
                        return self.leave();
                    }
                }
                News::Host(Some(FromHostHere::Answers)) if self.args.foreground => self.answered = true,
                News::Host(Some(FromHostHere::Answers)) => {
                    let (name, job) = (&self.spec.record.name, self.job());
                    self.output.note(format_args!(
                        "{name} answers; its URL was printed where its gateway is. It ends with its job: {job}."
                    ));
                    return self.leave();
                }
                News::Host(Some(FromHostHere::Detached)) => {}
                News::Host(Some(FromHostHere::Ended { end })) => {
                    self.host.wait();
                    if self.args.foreground {
                        shown.up_to(&log, u64::MAX);
                    }
                    return self.ended(end);
                }
                News::Host(None) => {
                    return Err(Failure::Session(format!(
                        "the host of {} was killed",
                        self.spec.record.name
                    )));
                }
                News::Attached => self.hear_how_attaching_ended(),
                News::Time => shown.up_to(&log, u64::MAX),
            }
        }
    }

    fn job(&self) -> String {
        self.spec.record.job.as_ref().map(|job| job.summary(jiff::Timestamp::now())).unwrap_or_default()
    }

    /// Runs the site's command for it, or says what to type.
    fn have_a_gateway_come(&mut self, command: &[AttachWord]) {
        let record = &self.spec.record;
        let host = in_allocation::submit_host();
        let words: Option<Vec<_>> = host.as_deref().and_then(|host| {
            let (name, id) = (record.name.to_string(), record.id.to_string());
            let words: Vec<_> = command.iter().map(|word| word.filled_in(host, &name, &id)).collect();
            (!words.is_empty()).then_some(words)
        });
        if !command.is_empty() && words.is_none() {
            self.output.note("shlogin: slurm.attach_command is not run: SLURM_SUBMIT_HOST names no host");
        }
        match words.map(|words| Attaching::begin(&words, self.output.is_json())) {
            Some(Ok(attaching)) => self.attaching = Some(attaching),
            Some(Err(error)) => {
                self.output.note(format_args!("shlogin: slurm.attach_command cannot be run: {error}"));
                self.say_what_to_type();
            }
            None => self.say_what_to_type(),
        }
    }

    fn say_what_to_type(&self) {
        let name = &self.spec.record.name;
        self.output.note(format_args!(
            "{name} waits for its gateway: on a login node, type `shlogin attach {name}`"
        ));
    }

    fn hear_how_attaching_ended(&mut self) {
        let Some(mut child) = self.attaching.take().and_then(|mut attaching| attaching.child.take()) else {
            return;
        };
        match child.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                self.output.note(format_args!("shlogin: slurm.attach_command ended with {status}"));
                self.say_what_to_type();
            }
            Err(error) => self.output.note(format_args!("shlogin: slurm.attach_command is lost: {error}")),
        }
    }

    /// Lets it go on by itself.
    fn leave(mut self) -> Result<ExitCode, Failure> {
        self.host.detach().map_err(Failure::io("cannot let the session's host go"))?;
        if let Some(attaching) = self.attaching.take() {
            attaching.finish(if self.args.slurm.no_wait { Duration::ZERO } else { LAST_WORDS });
        }
        let record = &self.spec.record;
        let folder = PrivateFolder::existing(&in_allocation::folder_of(record)).ok().flatten();
        let now = folder.and_then(|folder| read_record(&folder).ok().flatten());
        let command_prints = !self.args.slurm.no_wait;
        self.output.result(now.as_ref().unwrap_or(record), || {
            // The URL was printed elsewhere.
            if command_prints { String::new() } else { record.name.to_string() }
        });
        Ok(ExitCode::SUCCESS)
    }

    fn ended(&self, end: End) -> Result<ExitCode, Failure> {
        let record = &self.spec.record;
        match code_of(&end) {
            Some(code) if self.args.foreground => {
                self.output.note(format_args!("{} has ended: {end}", record.name));
                Ok(code.into())
            }
            _ if self.answered => Err(Failure::Session(format!("{} has ended: {end}", record.name))),
            _ => {
                let log = Some(record.log.display().to_string());
                Err(Failure::NotStarted { name: record.name.to_string(), end, tail: Vec::new(), log })
            }
        }
    }

    fn next(&self) -> Result<News, Failure> {
        let follows = self.args.foreground;
        loop {
            let mut watched: Vec<BorrowedFd<'_>> = vec![self.host.as_fd(), self.interrupts.as_fd()];
            watched.extend(self.attaching.as_ref().map(|attaching| attaching.held.as_fd()));
            let mut set: Vec<_> = watched.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
            let time = if follows { PollTimeout::from(SHOW) } else { PollTimeout::NONE };
            match poll(&mut set, time) {
                Ok(0) => return Ok(News::Time),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Failure::io("cannot wait for the session")(errno.into())),
            }
            let ready: Vec<_> = set.iter().map(|fd| fd.any().unwrap_or_default()).collect();
            let is_ready = |which: usize| ready.get(which).copied().unwrap_or_default();
            if is_ready(1)
                && let Ok(Some(signal)) = self.interrupts.read_signal()
            {
                let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
                return Ok(News::Interrupt(Signal::try_from(number).unwrap_or(Signal::SIGINT)));
            }
            if is_ready(0) {
                let said = self.host.hear().map_err(Failure::io("cannot hear from the session's host"))?;
                return Ok(News::Host(said));
            }
            if is_ready(2) {
                return Ok(News::Attached);
            }
        }
    }
}

impl Attaching {
    /// What it prints is for whoever typed `start`: the URL, for one. Programs get one value, and that is ours.
    fn begin(words: &[String], is_json: bool) -> std::io::Result<Self> {
        let (first, rest) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(first);
        command.args(rest).stdin(Stdio::null());
        if is_json {
            command.stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
        }
        let child = command.spawn()?;
        let number = i32::try_from(child.id()).map_err(std::io::Error::other)?;
        let held = PidFd::open(Pid::from_raw(number))?;
        Ok(Self { child: Some(child), held })
    }

    /// Lets it come to its end: for so long it is waited for, and then it is left to itself.
    fn finish(mut self, limit: Duration) {
        if let Some(mut child) = self.child.take() {
            ends_within(&mut child, limit);
        }
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        // It has nobody left to bring a gateway to.
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
