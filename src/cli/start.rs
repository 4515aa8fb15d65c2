//! `start`: launches a session and tells its person what to do with it.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{signal::Signal, signalfd::SignalFd},
    unistd::{User, getuid},
};

use super::{
    Failure,
    args::StartArgs,
    in_allocation::{self, Course},
    in_job,
    launchable::{self, Taken},
    output::Output,
    sessions::{WithUrl, live_names, new_url},
    start_here,
};
use crate::{
    config::{
        Sources,
        paths::{runtime_folder, state_folder},
    },
    sandbox::Footprint,
    session::{
        Allocated, HostAt, LaunchError, Launched, LentHost, Lock, Record, Records, Sockets, exact,
        launch::{self, End, FromLauncher, ToLauncher},
        surroundings,
    },
    sys::process::signals,
    words::SessionId,
};

pub(super) fn start(args: Box<StartArgs>, output: &Output) -> Result<ExitCode, Failure> {
    if getuid().is_root() {
        // pasta and the runtime refuse to work for root without more rights than a session has; and an app that strangers'
        // bytes come to has no business with root's files.
        return Err(Failure::Usage("sessions belong to ordinary users: root starts none".to_owned()));
    }
    let sources = Sources::of_this_process();
    let resolved = sources.resolve(&launchable::overrides(&args))?;
    for warning in &resolved.warnings {
        output.note(format_args!("shlogin: {warning}"));
    }
    let config = &resolved.config;
    // Checked, and made where there is none, before anything in it is named.
    runtime_folder()?;
    let records = Records::open(state_folder()?);
    records.expire(config.records.max_age.duration())?;
    let course = if args.slurm.slurm { Course::Ordinary } else { in_allocation::course(config)? };
    let in_a_job = args.slurm.slurm || matches!(course, Course::Lent(_));
    if args.slurm.no_wait && !in_a_job {
        return Err(Failure::Usage("--no-wait is for sessions in jobs: it goes with --slurm".to_owned()));
    }
    // In a job, what gives it a network is the node's.
    let helper = if in_a_job { None } else { launchable::helper(config)? };
    let mut app = launchable::app(&args, config)?;
    let (within, lent) = match course {
        Course::Ordinary => (None, None),
        Course::Within(job) => (Some(job), None),
        Course::Lent(lent) if lent.host == LentHost::ByStart => {
            return start_here::start(&args, output, config, app, &records, lent);
        }
        Course::Lent(lent) => (None, Some(lent)),
    };
    if let (Some(_), Some(container)) = (&within, &mut app.container) {
        surroundings::add_devices(container, &app.env);
    }
    let (name, lock) = launchable::name(&args, &live_names(&records)?)?;
    let id = SessionId::random();
    let footprint = launchable::footprint(config, &name, id);
    let host = if in_a_job { HostAt::Elsewhere } else { HostAt::Here };
    let taken = launch::make_folder(&footprint.session).map_err(Failure::from).and_then(|()| {
        Ok(Allocated::first_free(config.pods, &config.gateway.listen, &footprint.session, host)?)
    });
    let pod = match taken {
        Ok(pod) => pod,
        Err(failure) => {
            // Nothing else has been made yet.
            let _ = footprint.remove(lock.as_fd());
            return Err(failure);
        }
    };
    let socket = match pod.gateway {
        crate::session::Listener::Unix(_) => Some(footprint.session.join("gateway")),
        crate::session::Listener::Tcp(_) => None,
    };
    let taken = Taken { id, name, pod: Some(pod.pod), port: pod.port, footprint: footprint.clone(), socket };
    let state = records.folder().path().to_owned();
    let mut spec = launchable::spec(&args, config, app, helper, taken, state);
    spec.record.within = within;
    if let Some(lent) = lent {
        spec.batch = Some(in_allocation::batch_spec(config, lent));
    } else if in_a_job {
        let batch = sources
            .template(&resolved)
            .map_err(Failure::from)
            .and_then(|template| in_job::batch_spec(&args, config, template.as_ref(), &spec.record));
        match batch {
            Ok(batch) => spec.batch = Some(batch),
            Err(failure) => {
                let _ = footprint.remove(lock.as_fd());
                return Err(failure);
            }
        }
    }
    let interrupts = Follower::interrupts()?;
    let share = |lock: &Lock| lock.share().map_err(LaunchError::Spawn);
    let sockets = Sockets { ssh: pod.ssh, gateway: pod.gateway, link: pod.link };
    let launched = share(&lock).and_then(|lock| Launched::start(&spec, lock, sockets));
    let launched = match launched {
        Ok(launched) => launched,
        Err(error) => {
            let _ = footprint.remove(lock.as_fd());
            return Err(error.into());
        }
    };
    drop(lock);
    let follower = Follower {
        output,
        interrupts,
        launched,
        foreground: args.foreground,
        no_wait: args.slurm.no_wait,
        stands: String::new(),
        name: spec.record.name.to_string(),
        log: spec.record.log.clone(),
        answered: false,
    };
    follower.follow(&footprint)
}

/// Where the session's supervisor cannot be heard, or told.
fn lost(error: std::io::Error) -> Failure {
    Failure::io("cannot hear from the session's supervisor")(error)
}

/// The person's end of a session that has been launched.
pub(super) struct Follower<'a> {
    output: &'a Output,
    interrupts: SignalFd,
    launched: Launched,
    foreground: bool,
    /// She does not wait for a node.
    no_wait: bool,
    /// Where its job stands, as she was told last.
    stands: String,
    name: String,
    log: PathBuf,
    /// Its app has answered.
    answered: bool,
}

impl<'a> Follower<'a> {
    /// From here on Ctrl-C is a message to the session, not our end.
    pub(super) fn interrupts() -> Result<SignalFd, Failure> {
        signals(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
            .map_err(Failure::io("cannot handle signals"))
    }

    /// Of a session that goes on, under a new gateway or with a new job.
    pub(super) fn joined(
        output: &'a Output,
        interrupts: SignalFd,
        launched: Launched,
        record: &Record,
        no_wait: bool,
    ) -> Self {
        Self {
            output,
            interrupts,
            launched,
            foreground: false,
            no_wait,
            stands: String::new(),
            name: record.name.to_string(),
            log: record.log.clone(),
            answered: false,
        }
    }

    pub(super) fn follow(mut self, footprint: &Footprint) -> Result<ExitCode, Failure> {
        let mut shown = Shown::default();
        let mut interrupted = false;
        loop {
            let news = match self.next()? {
                News::Interrupt => {
                    self.launched.tell(if interrupted { &FromLauncher::Kill } else { &FromLauncher::Stop });
                    interrupted = true;
                    continue;
                }
                News::Said(said) => said,
            };
            match news {
                Some(ToLauncher::Detached) => {
                    // To whoever joined it, it says that it goes on without her.
                    self.output.note(format_args!(
                        "{0} goes on: `shlogin show {0}` says how far it is, `shlogin stop {0}` ends it",
                        self.name
                    ));
                    return Ok(ExitCode::from(128 + Signal::SIGINT as u8));
                }
                Some(ToLauncher::Log(len)) => {
                    if self.foreground {
                        shown.up_to(&self.log, len);
                    }
                }
                Some(ToLauncher::Waits(record)) => {
                    self.say_where_it_stands(&record);
                    if self.no_wait {
                        return self.leave(&record);
                    }
                }
                Some(ToLauncher::Ready { record, url }) => {
                    self.greet(&record, &url);
                    if !self.foreground {
                        self.launched.detach().map_err(lost)?;
                        return Ok(ExitCode::SUCCESS);
                    }
                    self.answered = true;
                }
                Some(ToLauncher::Ended { end, record, tail }) => {
                    self.launched.wait();
                    let tail = if self.foreground {
                        shown.up_to(&self.log, u64::MAX);
                        Vec::new()
                    } else {
                        tail
                    };
                    let log = record.map(|record| record.log.display().to_string());
                    return self.ended(end, tail, log);
                }
                None => {
                    // It was killed. Its keeper tidies up; should that have been killed too, it is left to us.
                    // Its process is gone, or about to be: there is no need to wait for it by number.
                    if Lock::wait_released(&footprint.lock, std::time::Duration::from_secs(10)) {
                        self.remove_leftovers(footprint);
                    }
                    return Err(Failure::Session(format!("the supervisor of {} was killed", self.name)));
                }
            }
        }
    }

    /// In the foreground the app's status is ours, whenever it ended; in the background an end is a failed start.
    fn ended(&self, end: End, tail: Vec<String>, log: Option<String>) -> Result<ExitCode, Failure> {
        match code_of(&end) {
            Some(code) if self.foreground => {
                self.output.note(format_args!("{} has ended: {end}", self.name));
                Ok(code.into())
            }
            _ if self.answered && matches!(end, End::Job(_)) => {
                Err(Failure::JobEnded(format!("{} has ended: {end}", self.name)))
            }
            _ if self.answered => Err(Failure::Session(format!("{} has ended: {end}", self.name))),
            _ => Err(Failure::NotStarted { name: self.name.clone(), end, tail, log }),
        }
    }

    /// Tells her how her job is, where that has changed.
    fn say_where_it_stands(&mut self, record: &Record) {
        let Some(job) = &record.job else { return };
        let now = job.summary(jiff::Timestamp::now());
        if now != self.stands {
            self.output.note(format_args!("{}: {now}", record.name));
            self.stands = now;
        }
    }

    /// Lets it go on by itself before its app answers. Its URL is good already.
    fn leave(self, record: &Record) -> Result<ExitCode, Failure> {
        let url = new_url(record)?;
        let output = self.output;
        self.launched.detach().map_err(lost)?;
        output.result(&WithUrl { record, url: &url }, || url.clone());
        Ok(ExitCode::SUCCESS)
    }

    fn remove_leftovers(&self, footprint: &Footprint) {
        let name = self.name.parse();
        let lock = footprint
            .lock
            .parent()
            .zip(name.ok())
            .and_then(|(runtime, name)| Lock::take(runtime, &name).ok());
        // Whoever has the name by now, or cannot be outrun, removes its own.
        let _ = match lock {
            Some(lock) => footprint.remove(lock.as_fd()),
            None => footprint.remove_scratch(),
        };
    }

    fn next(&self) -> Result<News, Failure> {
        loop {
            let mut set = [
                PollFd::new(self.launched.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.interrupts.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut set, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Failure::io("cannot wait for the session")(errno.into())),
            }
            let [said, interrupted] = set.map(|fd| fd.any().unwrap_or_default());
            if interrupted && self.interrupts.read_signal().is_ok_and(|signal| signal.is_some()) {
                return Ok(News::Interrupt);
            }
            if said {
                return Ok(News::Said(self.launched.hear().map_err(lost)?));
            }
        }
    }

    fn greet(&self, record: &Record, url: &str) {
        self.output.result(&WithUrl { record, url }, || url.to_owned());
        if self.output.is_json() {
            return;
        }
        let name = &record.name;
        self.output.note(format_args!(
            "{name} runs as pod {}; its certificate's SHA-256 fingerprint is\n  {}",
            super::sessions::pod(record),
            record.gateway.fingerprint
        ));
        if let Some(job) = record.within.as_ref().or(record.job.as_ref().filter(|job| job.lent)) {
            self.output.note(format_args!("It ends with its job: {}.", job.summary(jiff::Timestamp::now())));
        }
        if let Some(after) = record.idle_after() {
            self.output.note(format_args!("It ends when nobody has used it for {}.", exact(after)));
        }
        self.output.note(from_a_laptop(record));
        self.output.note(to_a_shell(record));
        self.output.note(format_args!("The URL's token works once: `shlogin url {name}` makes another. `shlogin stop {name}` ends the session."));
    }
}

/// The app's status, as a shell reports it; none where the app did not come so far.
pub(super) fn code_of(end: &End) -> Option<u8> {
    match end {
        End::App(exit) | End::Stopped(Some(exit)) | End::Idle { exit: Some(exit), .. } => Some(exit.code()),
        // Killed with its sandbox: by SIGKILL, as a shell reports it.
        End::Stopped(None) | End::Idle { exit: None, .. } => Some(137),
        _ => None,
    }
}

enum News {
    Said(Option<ToLauncher>),
    Interrupt,
}

/// What the person is called on this node.
fn user() -> String {
    User::from_uid(getuid()).ok().flatten().map_or_else(|| "USER".to_owned(), |user| user.name)
}

/// How to get a shell in it.
fn to_a_shell(record: &Record) -> String {
    let (name, host, user) = (&record.name, &record.gateway.host, user());
    let page = format!("https://{host}:{}/-/terminal", record.gateway.port);
    let port = record
        .ssh
        .as_ref()
        .and_then(|ssh| ssh.port)
        .map(|port| format!(", from elsewhere ssh -p {port} {user}@{host}"));
    format!("A shell in it: shlogin ssh {name}{}; in the browser, {page}", port.unwrap_or_default())
}

/// What to type on a laptop, where this node's ports may not be reachable.
fn from_a_laptop(record: &Record) -> String {
    let port = record.gateway.port;
    let user = user();
    let node = crate::config::host_name();
    match &record.gateway.socket {
        Some(socket) => format!(
            "From a laptop: ssh -L {port}:{} {user}@{node}, and open the URL there while that runs.",
            socket.display()
        ),
        None => {
            // The address itself, where there is one: another user may listen at this node's other ones.
            let at = record.gateway.address.map_or_else(
                || "localhost".to_owned(),
                |ip| match ip {
                    std::net::IpAddr::V4(ip) => ip.to_string(),
                    std::net::IpAddr::V6(ip) => format!("[{ip}]"),
                },
            );
            format!(
                "From a laptop: open the URL; where a firewall is in between, ssh -L {port}:{at}:{port} {user}@{node}, and \
                 open it with localhost instead of {}.",
                record.gateway.host
            )
        }
    }
}

/// How far the app's output has been shown.
#[derive(Default)]
pub(super) struct Shown {
    at: u64,
}

impl Shown {
    /// Shows what is new, on stderr: stdout has the URL.
    pub(super) fn up_to(&mut self, log: &Path, len: u64) {
        use std::io::{Read, Seek, SeekFrom};
        if len < self.at {
            self.at = 0;
        }
        let shown = std::fs::File::open(log).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.at))?;
            let limit = if len == u64::MAX { u64::MAX } else { len - self.at };
            std::io::copy(&mut log.take(limit), &mut std::io::stderr())
        });
        self.at += shown.unwrap_or_default();
    }
}
