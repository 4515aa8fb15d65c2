//! Against a real cluster, with two ordinary users. `tests/cluster/crate` brings both, as root, and runs
//! `cargo test -p slurm --test cluster -- --ignored` where `SLURM_CONF` names the cluster, `SLURM_TEST_USERS`
//! the users, and `SLURM_TEST_FOLDER` a folder that the nodes see too.
//!
//! Each user's Slurm is a folder of programs that become the user, so one process can be all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The lints' own exception is for functions marked `#[test]` only.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use slurm::{
    ChangeError, Exit, Export, Job, JobId, ProgramError, QueryError, Refusal, SignalTarget, Slurm, State,
    Submission, SubmitError, TimeLimit,
    munge::{Munge, MungeError},
};

/// One test at a time: there is one controller to stop, and there are two nodes.
static CLUSTER: Mutex<()> = Mutex::new(());

/// A cluster with two users, cleared of their jobs before and after.
struct Cluster {
    alice: Slurm,
    bob: Slurm,
    folder: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    fn take() -> Self {
        let alone = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(env::var_os("SLURM_CONF").is_some(), "SLURM_CONF does not name a cluster");
        let shared = env::var_os("SLURM_TEST_FOLDER").expect("SLURM_TEST_FOLDER is one that the nodes see");
        let folder = PathBuf::from(shared).join(format!("slurm-test-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // The jobs of both write here.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
        let as_user = |user| Slurm::find(Some(&programs(&folder, user))).unwrap();
        let cluster = Self { alice: as_user(&user(0)), bob: as_user(&user(1)), folder, _alone: alone };
        cluster.clear();
        cluster
    }

    fn clear(&self) {
        for number in [0, 1] {
            run("scancel", &[&format!("--user={}", user(number))]);
        }
        until("the nodes are free", || run("squeue", &["--noheader"]).is_empty().then_some(()));
    }

    fn submit(&self, script: &str, options: &[&str]) -> JobId {
        self.alice.submit(&self.submission(script, Export::Minimal).options(options)).unwrap().job
    }

    fn submission(&self, script: &str, export: Export) -> Submission {
        let output = format!("--output={}/%j.out", self.folder.display());
        let script = format!("#!/bin/bash\n{script}\n");
        Submission::new(script, export).options(["--chdir=/", "--job-name=a | name", &output])
    }

    fn wait(&self, id: JobId, what: &str, is: impl Fn(&Job) -> bool) -> Job {
        until(&format!("job {id} is {what}"), || self.alice.job(id).ok().filter(|job| is(job)))
    }

    fn output(&self, id: JobId) -> String {
        fs::read_to_string(self.folder.join(format!("{id}.out"))).unwrap_or_default()
    }

    fn wait_for_output(&self, id: JobId, what: &str) {
        until(&format!("job {id} has said {what}"), || self.output(id).contains(what).then_some(()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Not where it would hide why a test has failed.
        if !thread::panicking() {
            self.clear();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The name of the first user, or of the second.
fn user(number: usize) -> String {
    let users = env::var("SLURM_TEST_USERS").expect("SLURM_TEST_USERS names two users");
    users.split(' ').nth(number).expect("SLURM_TEST_USERS names two users").to_owned()
}

fn uid(number: usize) -> u32 {
    run("id", &["-u", &user(number)]).trim().parse().unwrap()
}

/// A folder of programs that become `user`.
fn programs(folder: &Path, user: &str) -> PathBuf {
    let folder = folder.join(user);
    fs::create_dir_all(&folder).unwrap();
    for name in ["sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct", "munge", "unmunge"] {
        let program = folder.join(name);
        let as_user = format!("setpriv --reuid={user} --regid={user} --init-groups");
        let with = format!("env HOME=/home/{user} USER={user} LOGNAME={user}");
        fs::write(&program, format!("#!/bin/sh\nexec {as_user} {with} {name} \"$@\"\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(150) {
        if let Some(done) = done() {
            return done;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("not within 150 seconds: {what}");
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn a_job_runs_and_is_cancelled() {
    let cluster = Cluster::take();
    let id = cluster.submit("exec sleep 300", &["--time=20", "--comment=two\nlines"]);
    let job = cluster.wait(id, "running", |job| job.state.is_running());
    assert_eq!((job.name.as_str(), job.comment.as_deref()), ("a | name", Some("two\nlines")));
    assert_eq!((job.user.as_deref(), job.partition.as_deref()), (Some(&*user(0)), Some("debug")));
    assert_eq!((job.time_limit, job.restarts, job.exit), (Some(TimeLimit::Minutes(20)), 0, None));
    assert_eq!(job.nodes, job.batch_host);
    let since = Timestamp::now().duration_since(job.started().unwrap());
    assert!(since.as_secs().abs() < 60, "started {since:#} ago");
    assert_eq!(job.end.unwrap().duration_since(job.start.unwrap()).as_secs(), 20 * 60);
    assert_eq!(job.stdout.unwrap(), cluster.folder.join("%j.out"));

    let nobody = JobId::new(4_000_000).unwrap();
    let both = cluster.alice.jobs(&[nobody, id]).unwrap();
    assert_eq!(both.iter().map(|job| job.state).collect::<Vec<_>>(), [State::Gone, State::Running]);
    assert_eq!(cluster.alice.state(nobody), State::Gone);

    cluster.alice.cancel(id).unwrap();
    let job = cluster.wait(id, "over", |job| job.state.is_ended());
    assert_eq!((job.state, job.exit), (State::Cancelled, Some(Exit { code: 0, signal: 15 })));
    cluster.alice.cancel(id).unwrap();
    cluster.alice.cancel(nobody).unwrap();
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn a_refusal_says_why() {
    let cluster = Cluster::take();
    for (option, expected) in [
        ("--partition=nope", Refusal::Partition),
        ("--gres=nope:1", Refusal::Gres),
        ("--mem=999G", Refusal::Nodes),
        ("--nodelist=c9", Refusal::Nodes),
        ("--time=abc", Refusal::Usage),
        ("--nonsense", Refusal::Usage),
    ] {
        let error =
            cluster.alice.submit(&cluster.submission("true", Export::Minimal).option(option)).unwrap_err();
        assert!(matches!(error, SubmitError::Refused { why, .. } if why == expected), "{option}: {error:?}");
    }
    let error = cluster.alice.submit(&Submission::new("true\n", Export::Minimal)).unwrap_err();
    assert!(matches!(error, SubmitError::Refused { why: Refusal::Usage, .. }), "{error:?}");
    assert!(cluster.alice.jobs_of_user(uid(0)).unwrap().iter().all(|job| job.state.is_ended()));
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn a_job_that_waits_says_why_and_until_when() {
    let cluster = Cluster::take();
    let later = cluster.submit("true", &["--begin=now+1hour"]);
    let job = cluster.wait(later, "waiting for its time", |job| job.expected_start().is_some());
    assert_eq!((job.state, job.started()), (State::Pending, None));
    assert_eq!(job.reason.as_ref().unwrap().as_str(), "BeginTime");
    let ahead = job.expected_start().unwrap().duration_since(Timestamp::now()).as_secs();
    assert!((3400..3700).contains(&ahead), "expected to start in {ahead} s");

    let held = cluster.submit("exec sleep 300", &["--hold"]);
    let reason = cluster.alice.job(held).unwrap().reason.unwrap();
    assert!(reason.is_held(), "{reason}");
    let error = cluster.alice.signal(held, "USR1", SignalTarget::Script).unwrap_err();
    assert!(matches!(error, ChangeError::Waiting(_)), "{error}");
    cluster.alice.release(held).unwrap();
    cluster.wait(held, "running", |job| job.state.is_running());

    let fitting = cluster.submit("true", &["--ntasks=400"]);
    cluster
        .wait(fitting, "too big", |job| job.reason.as_ref().is_some_and(|r| r.as_str() == "PartitionConfig"));
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn each_end_has_its_state() {
    let cluster = Cluster::take();
    let out_of_time = cluster.submit("exec sleep 300", &["--time=1"]);
    let lost = cluster.submit("exec sleep 300", &["--nodelist=c2", "--no-requeue"]);
    for (script, state, exit) in [
        ("true", State::Completed, Exit { code: 0, signal: 0 }),
        ("exit 3", State::Failed, Exit { code: 3, signal: 0 }),
        ("kill -9 $$", State::Failed, Exit { code: 0, signal: 9 }),
    ] {
        let id = cluster.submit(script, &[]);
        let job = cluster.wait(id, "over", |job| job.state.is_ended());
        assert_eq!((job.state, job.exit), (state, Some(exit)), "{script}");
    }
    cluster.wait(lost, "running", |job| job.state.is_running());
    run("scontrol", &["update", "nodename=c2", "state=down", "reason=test"]);
    let job = cluster.wait(lost, "over", |job| job.state.is_ended());
    until("node c2 is back", || {
        // Refused where it has come back by itself.
        let _ = Command::new("scontrol").args(["update", "nodename=c2", "state=resume"]).output();
        let state = run("sinfo", &["--noheader", "--nodes=c2", "--format=%t"]);
        ["idle", "mix"].contains(&state.trim()).then_some(())
    });
    assert_eq!(job.state, State::NodeFail);
    let job = cluster.wait(out_of_time, "over", |job| job.state.is_ended());
    assert_eq!(job.state, State::Timeout);
    // The accounting is off here.
    assert!(cluster.alice.past(lost).unwrap().is_none());
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn a_job_gets_the_variables_that_it_may_have() {
    let cluster = Cluster::take();
    // cargo has set both.
    let (one, other) = ("CARGO_MANIFEST_DIR", "CARGO_PKG_NAME");
    for (export, has) in [
        (Export::Minimal, [false, false]),
        (Export::Only(vec![one.to_owned()]), [true, false]),
        (Export::Login, [false, false]),
        (Export::Everything, [true, true]),
    ] {
        let begun = Instant::now();
        let id =
            cluster.alice.submit(&cluster.submission("env; echo that was all", export.clone())).unwrap().job;
        cluster.wait_for_output(id, "that was all");
        println!("{export:?}: {:?} until it has run", begun.elapsed());
        let output = cluster.output(id);
        assert_eq!(
            [one, other].map(|name| output.contains(&format!("{name}="))),
            has,
            "{export:?}: {output}"
        );
        assert!(
            output.contains(&*format!("HOME=/home/{}\n", user(0))) && output.contains("SLURM_JOB_ID="),
            "{output}"
        );
        assert!(!output.contains("LC_ALL=C\n") && !output.contains("TZ=UTC0"), "{output}");
    }
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn a_signal_reaches_whom_it_is_for() {
    let cluster = Cluster::take();
    let script = "trap 'echo script' USR1\n\
                  bash -c 'trap \"echo child\" USR1; echo ready; for i in {1..3000}; do sleep 0.1; done' &\n\
                  while :; do wait; done";
    let id = cluster.submit(script, &[]);
    cluster.wait_for_output(id, "ready");
    cluster.alice.signal(id, "USR1", SignalTarget::Script).unwrap();
    cluster.wait_for_output(id, "script");
    assert!(!cluster.output(id).contains("child"));
    cluster.alice.signal(id, "USR1", SignalTarget::All).unwrap();
    cluster.wait_for_output(id, "child");
    let error = cluster.alice.signal(id, "NONSENSE", SignalTarget::All).unwrap_err();
    assert!(matches!(error, ChangeError::Refused { .. }), "{error}");
    cluster.alice.cancel(id).unwrap();
    cluster.wait(id, "over", |job| job.state.is_ended());
    let error = cluster.alice.signal(id, "USR1", SignalTarget::Script).unwrap_err();
    assert!(matches!(error, ChangeError::Ended(_)), "{error}");
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn only_the_owner_changes_a_job_and_not_in_every_way() {
    let cluster = Cluster::take();
    let id = cluster.submit("exec sleep 300", &["--time=20"]);
    cluster.wait(id, "running", |job| job.state.is_running());
    let limit = TimeLimit::Minutes;
    for error in [
        cluster.bob.cancel(id).unwrap_err(),
        cluster.bob.set_time_limit(id, limit(5)).unwrap_err(),
        cluster.alice.set_time_limit(id, limit(30)).unwrap_err(),
    ] {
        assert!(matches!(error, ChangeError::Denied { .. }), "{error:?}");
    }
    cluster.alice.set_time_limit(id, limit(10)).unwrap();
    assert_eq!(cluster.alice.job(id).unwrap().time_limit, Some(limit(10)));
    let error = cluster.alice.hold(JobId::new(4_000_000).unwrap()).unwrap_err();
    assert!(matches!(error, ChangeError::Unknown(_)), "{error:?}");

    cluster.alice.requeue(id).unwrap();
    let job = cluster.wait(id, "waiting again", |job| job.state.is_waiting());
    assert_eq!((job.restarts, job.exit), (1, None));
    cluster.alice.cancel(id).unwrap();
    cluster.wait(id, "over", |job| job.state.is_ended());
    let error = cluster.alice.set_time_limit(id, limit(5)).unwrap_err();
    assert!(matches!(error, ChangeError::Ended(_)), "{error:?}");
}

/// Lets it go on, whatever becomes of the test.
struct Stopped(Pid);

impl Stopped {
    fn controller() -> Self {
        let config = run("scontrol", &["show", "config"]);
        let line = config.lines().find_map(|line| line.strip_prefix("SlurmctldPidFile")).unwrap();
        let file = line.trim_start_matches([' ', '=']).trim();
        let controller = Pid::from_raw(fs::read_to_string(file).unwrap().trim().parse().unwrap());
        kill(controller, Signal::SIGSTOP).unwrap();
        Self(controller)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn silence_is_no_end() {
    let cluster = Cluster::take();
    let id = cluster.submit("exec sleep 300", &[]);
    cluster.wait(id, "running", |job| job.state.is_running());
    let impatient = cluster.alice.clone().with_deadline(Duration::from_secs(2));
    {
        let _stopped = Stopped::controller();
        let begun = Instant::now();
        assert_eq!(impatient.state(id), State::Undetermined);
        let error = impatient.submit(&cluster.submission("true", Export::Minimal)).unwrap_err();
        assert!(matches!(error, SubmitError::Program(ProgramError::Silent { .. })), "{error:?}");
        let error = impatient.cancel(JobId::new(4_000_000).unwrap()).unwrap_err();
        assert!(matches!(error, ChangeError::Program(ProgramError::Silent { .. })), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    cluster.wait(id, "still running", |job| job.state.is_running());
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn a_controller_that_is_not_there_knows_nothing() {
    let cluster = Cluster::take();
    let conf = fs::read_to_string(env::var_os("SLURM_CONF").unwrap()).unwrap();
    let elsewhere = cluster.folder.join("slurm.conf");
    // Slurm's programs try again for nearly as long as they would wait for an answer: 10 seconds each, by default.
    let ours = ["SlurmctldPort=1", "MessageTimeout=2"];
    let key = |line: &str| line.split_once('=').map(|(key, _)| key.to_owned());
    let rest = conf.lines().filter(|line| ours.iter().all(|our| key(our) != key(line)));
    fs::write(&elsewhere, rest.chain(ours).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let lost = cluster.alice.clone().with_conf(&elsewhere).with_deadline(Duration::from_secs(60));
    let id = JobId::new(4_000_000).unwrap();
    let begun = Instant::now();
    let error = lost.jobs(&[id]).unwrap_err();
    assert!(matches!(error, QueryError::Unreachable { .. }), "{error:?}");
    println!("squeue: {:?}", begun.elapsed());
    let error = lost.submit(&cluster.submission("true", Export::Minimal)).unwrap_err();
    assert!(matches!(error, SubmitError::Unreachable(_)), "{error:?}");
    println!("and sbatch: {:?}", begun.elapsed());
    for error in [lost.cancel(id).unwrap_err(), lost.hold(id).unwrap_err()] {
        assert!(matches!(error, ChangeError::Unreachable { .. }), "{error:?}");
    }
    println!("and scancel and scontrol: {:?}", begun.elapsed());
    assert!(matches!(lost.partitions(), Err(QueryError::Unreachable { .. })));
    assert!(matches!(lost.config(), Err(QueryError::Unreachable { .. })));
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn a_hundred_jobs_are_listed_at_once() {
    let cluster = Cluster::take();
    let hold = cluster.submission("true", Export::Minimal).option("--hold");
    let ids = (0..100).map(|_| cluster.alice.submit(&hold).unwrap().job).collect::<Vec<_>>();
    let begun = Instant::now();
    let all = cluster.alice.jobs_of_user(uid(0)).unwrap();
    println!("jobs_of_user: {:?} for {}", begun.elapsed(), all.len());
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let asked = cluster.alice.jobs(&ids).unwrap();
    println!("jobs: {:?} for {}", begun.elapsed(), asked.len());
    assert!(asked.iter().all(|job| job.state == State::Pending));
    assert_eq!(asked.iter().map(|job| job.id).collect::<Vec<_>>(), ids);
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn tasks_of_an_array_are_shown_as_such() {
    let cluster = Cluster::take();
    let error = cluster.alice.submit(&cluster.submission("true", Export::Minimal).option("--array=1-3"));
    assert!(matches!(error, Err(SubmitError::Option { .. })), "{error:?}");
    let sbatch = cluster.folder.join(user(0)).join("sbatch");
    let out =
        run(sbatch.to_str().unwrap(), &["--parsable", "--chdir=/", "--hold", "--array=1-3", "--wrap=true"]);
    let id = out.trim().parse::<JobId>().unwrap();
    assert_eq!(cluster.alice.job(id).unwrap().array, Some(format!("{id}_[1-3]")));
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn the_site_shows_what_it_has() {
    let cluster = Cluster::take();
    let partitions = cluster.alice.partitions().unwrap();
    let [debug, short] = partitions.as_slice() else { panic!("{partitions:?}") };
    assert_eq!((debug.name.as_str(), debug.is_default, debug.state.as_str()), ("debug", true, "up"));
    assert_eq!((debug.time_limit, debug.nodes.total), (Some(TimeLimit::Unlimited), 2));
    assert_eq!((short.name.as_str(), short.is_default, short.state.as_str()), ("short", false, "up"));
    assert_eq!((short.time_limit, short.nodes.total), (Some(TimeLimit::Minutes(2)), 2));
    for partition in [debug, short] {
        assert_eq!(partition.gres, ["gpu:2"]);
    }
    let config = cluster.alice.config().unwrap();
    assert_eq!(config.cluster.as_deref(), Some("shlogin"));
    assert!(config.munge_socket.is_some() && config.min_job_age.is_some(), "{config:?}");
}

#[test]
#[ignore = "needs a Slurm cluster"]
fn a_credential_says_who_made_it_and_once() {
    let cluster = Cluster::take();
    let socket = cluster.alice.config().unwrap().munge_socket.unwrap();
    let of = |number| Munge::find(Some(&cluster.folder.join(user(number)))).unwrap().with_socket(&socket);
    let (alice, bob) = (of(0), of(1));
    let minute = Duration::from_secs(60);

    let mut payload = (0..=255).collect::<Vec<u8>>();
    payload.extend(b"\n\nUID: 0\n");
    let made = alice.encode(&payload, None, minute).unwrap();
    let read = bob.decode(&made).unwrap();
    assert_eq!(
        (read.uid, read.gid, read.payload, read.ttl, read.only_for),
        (uid(0), uid(0), payload, minute, None)
    );
    assert!(Timestamp::now().duration_since(read.encoded_at).as_secs() < 60);
    assert!(matches!(bob.decode(&made), Err(MungeError::Replayed)));
    assert!(matches!(alice.decode(&made), Err(MungeError::Replayed)));

    let for_bob = alice.encode(b"", Some(uid(1)), minute).unwrap();
    assert!(matches!(alice.decode(&for_bob), Err(MungeError::NotForUs)));
    let root = Munge::find(None).unwrap().with_socket(&socket);
    assert!(matches!(root.decode(&for_bob), Err(MungeError::NotForUs)));
    let read = bob.decode(&for_bob).unwrap();
    assert_eq!((read.only_for, read.payload.len()), (Some(uid(1)), 0));

    let changed = made.replace("MUNGE:A", "MUNGE:B");
    for none in ["", "MUNGE:", "MUNGE:AwQFAAA:", "garbage", &changed] {
        assert!(matches!(bob.decode(none), Err(MungeError::Invalid(_))), "{none:?}: {:?}", bob.decode(none));
    }
    let nowhere = alice.clone().with_socket("/nonexistent");
    assert!(matches!(nowhere.encode(b"", None, minute), Err(MungeError::Unreachable(_))));

    let short = alice.encode(b"", None, Duration::from_secs(1)).unwrap();
    // It counts whole seconds.
    thread::sleep(Duration::from_millis(2500));
    assert!(matches!(bob.decode(&short), Err(MungeError::Expired)));
}
