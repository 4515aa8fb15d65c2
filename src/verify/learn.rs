//! The owner's phase: what there is of a session, and what its owner can see to be wrong with it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use slurm::Slurm;
use zeroize::Zeroizing;

use super::{
    Finding, VerifyError, client,
    finding::Outcome,
    owner::{self, Pass},
    paths::{self, Root},
    processes,
    step::Far,
    tables,
    target::{AbstractSocket, Door, Identity, LinkDoor, LinkProof, Mark, Process, SandboxAt, Target},
};
use crate::{
    config::{node_name, paths::PrivateFolder},
    link::{Rendezvous, RendezvousError, kept_host_key},
    session::{JobRecord, Record, RecordsError, SessionSpec, State},
    sys::{
        process::{descendants_of, start_ticks},
        spawn::role,
    },
    words::Isolation,
};

/// What the owner's phase came to.
#[derive(Serialize, Deserialize)]
pub(super) struct Learned {
    pub(super) target: Target,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
    /// The half of it that is elsewhere.
    pub(super) far: Option<Far>,
}

/// Learns all of a live session of this process's user. `all` are the records of that user's sessions on this node; `slurm`
/// says what others see of its job.
///
/// # Errors
/// As [`VerifyError`].
pub(super) fn learn(
    record: &Record,
    all: Vec<Record>,
    slurm: &Result<Slurm, String>,
) -> Result<Learned, VerifyError> {
    let owner = Identity::of_this_process();
    let supervisor = supervisor(record)?;
    let mut notes = Vec::new();
    let live: Vec<Record> = all.into_iter().filter(|its| its.state != State::Ended).collect();
    let Entered { door, pass, other, mark, mut findings } =
        client::block_on(enter(record, &live, &mut notes))??;
    let folders = Folders::of(record);
    let far = record.job.as_ref().map(|job| far(job, &folders));
    let Inside { keepers, processes, ports, abstracts } = match &far {
        None => inside(supervisor, record.isolation)?,
        // Process numbers of another node mean nothing here.
        Some(_) => gate_alone(supervisor)?,
    };
    let roots = folders.roots();
    findings.extend(roots.iter().map(|root| root.modes(owner.uid)));
    let secrets = Secrets::of([Some(&pass), other.as_ref()], &folders.tls).with_keys_of(&folders.record);
    findings.push(processes::search(&processes, |bytes| secrets.are_in(bytes)));
    if let Some(far) = &far {
        findings.push(in_slurm(far, &secrets, slurm));
    }
    let files = files_in(&folders.record).into_iter().filter(|file| !is_key(file)).collect::<Vec<_>>();
    let told = paths::that_hold(&files, |bytes| secrets.are_in(bytes));
    let outcome = Outcome::of_opened(&told, "none in any");
    findings.push(Finding::new("log and record", "look for a token, a cookie, the key", outcome));
    let doors = live.iter().filter(|its| its.gateway.socket.is_none()).map(|its| its.gateway.port).collect();
    let made_up_cookie = format!("{}={}", pass.cookie_name(), "A".repeat(pass.cookie_value().len()));
    let target = Target {
        name: record.name.clone(),
        id: record.id,
        owner,
        isolation: record.isolation,
        sandbox: match &far {
            None => SandboxAt::Here,
            Some(far) => SandboxAt::Elsewhere { node: far.node.clone(), port: record.app_port },
        },
        link: far.as_ref().and_then(|_| link_door(&folders.record, &mut notes)),
        keepers,
        processes,
        ports,
        abstracts,
        roots,
        door,
        doors,
        used_token: pass.token.as_str().to_owned(),
        made_up_cookie,
        mark,
    };
    if let Some(far) = &far {
        notes.push(format!(
            "Its app is not on this machine ({}): its sandbox was not attacked from here.",
            far.stands
        ));
    }
    Ok(Learned { target, findings, notes, far })
}

/// What is elsewhere.
fn far(job: &JobRecord, folders: &Folders<'_>) -> Far {
    let spec = PrivateFolder::existing(&folders.record).ok().flatten();
    let spec = spec.and_then(|folder| SessionSpec::saved_in(&folder).ok());
    Far {
        job: job.id,
        node: job.node.clone().filter(|_| job.state.is_running()),
        stands: job.summary(Timestamp::now()),
        folder: folders.record.clone(),
        scratch: spec.and_then(|spec| spec.batch).map(|batch| batch.scratch),
    }
}

/// Where its host comes in, by what hosts read.
fn link_door(folder: &Path, notes: &mut Vec<String>) -> Option<LinkDoor> {
    let read = || {
        let opened = PrivateFolder::existing(folder)?;
        let folder = opened.ok_or_else(|| RendezvousError::Missing { path: folder.display().to_string() })?;
        let meet = Rendezvous::read(&folder)?;
        let proof = match kept_host_key(&folder)? {
            Some(_) => LinkProof::Key,
            None => LinkProof::Munge(meet.munge_socket),
        };
        Ok::<_, RendezvousError>(LinkDoor {
            hosts: meet.hosts,
            port: meet.port,
            gateway: meet.gateway,
            proof,
        })
    };
    read().map_err(|error| notes.push(format!("The link was not attacked: {error}."))).ok()
}

/// What Slurm keeps of the job and shows: to its owner, and much of it to everybody.
fn in_slurm(far: &Far, secrets: &Secrets, slurm: &Result<Slurm, String>) -> Finding {
    let shown = match slurm {
        Ok(slurm) => slurm.shown(far.job).map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    let outcome = match shown {
        Ok(text) if secrets.are_in(text.as_bytes()) => Outcome::Through("one is in it".to_owned()),
        Ok(_) => Outcome::Held("none in it".to_owned()),
        Err(why) => Outcome::Untried(why),
    };
    let what = format!("job {} as Slurm shows it, with its script", far.job);
    Finding::new(what, "look for a token, a cookie, a key", outcome)
}

/// The supervisor's number, if it is still the process of the record.
fn supervisor(record: &Record) -> Result<Pid, VerifyError> {
    if record.awaits_gateway() {
        let why = format!("it waits for its gateway: on a login node, type `shlogin attach {}`", record.name);
        return Err(VerifyError::NotHere { name: record.name.clone(), why });
    }
    let elsewhere = record.node.as_ref().filter(|node| node.as_str() != node_name().as_str());
    if let Some(node) = elsewhere {
        let why = format!("its gateway is on {node}: verify it there");
        return Err(VerifyError::NotHere { name: record.name.clone(), why });
    }
    if record.detached {
        let why = format!("its gateway is gone; `shlogin attach {}` makes another", record.name);
        return Err(VerifyError::NotHere { name: record.name.clone(), why });
    }
    let pid = i32::try_from(record.pid).map(Pid::from_raw).ok();
    pid.filter(|pid| start_ticks(*pid).ok() == record.pid_began)
        .ok_or_else(|| RecordsError::NotFound(record.name.to_string()).into())
}

struct Entered {
    door: Door,
    pass: Pass,
    other: Option<Pass>,
    mark: Option<Mark>,
    findings: Vec<Finding>,
}

async fn enter(record: &Record, live: &[Record], notes: &mut Vec<String>) -> Result<Entered, VerifyError> {
    let shut = |why| VerifyError::Shut { name: record.name.clone(), why };
    let addresses = tables::host_addresses();
    let door = owner::door(record, &addresses).await.map_err(shut)?;
    let pass = owner::sign_in(record, &door).await.map_err(shut)?;
    let mut other = None;
    for second in live.iter().filter(|its| its.id != record.id) {
        // It may be ending; then the next is asked.
        if let Ok(its_door) = owner::door(second, &addresses).await {
            other = owner::sign_in(second, &its_door).await.ok();
        }
        if other.is_some() {
            break;
        }
    }
    if other.is_none() {
        notes
            .push("No second session of its owner lives: another session's cookie was not tried.".to_owned());
    }
    let mark = owner::mark(record, &door, &pass).await;
    if mark.is_none() {
        let why = match record.state {
            State::Running => "The app has no page long enough to be known again",
            _ => "The app does not answer yet",
        };
        notes.push(format!("{why}: answers are judged by their status alone."));
    }
    let findings = owner::attack(&door, &pass, other.as_ref(), mark.as_ref()).await;
    Ok(Entered { door, pass, other, mark, findings })
}

/// What runs, and what listens in the sandbox.
pub(super) struct Inside {
    pub(super) keepers: Vec<Process>,
    pub(super) processes: Vec<Process>,
    pub(super) ports: Vec<u16>,
    pub(super) abstracts: Vec<AbstractSocket>,
}

/// The gateway of a session whose sandbox is elsewhere, and the programs of Slurm's that it runs at this moment.
fn gate_alone(gate: Pid) -> Result<Inside, VerifyError> {
    let below = descendants_of(gate).map_err(VerifyError::io("cannot read /proc"))?;
    let all = std::iter::once(gate).chain(below);
    Ok(Inside {
        keepers: processes::process(gate.as_raw()).into_iter().collect(),
        processes: all.filter_map(|pid| processes::process(pid.as_raw())).collect(),
        ports: Vec::new(),
        abstracts: Vec::new(),
    })
}

/// The processes, and what they listen on. A network of one's own is listed by its `/proc/PID/net`; without one, it is
/// the host's, and what the app's processes hold of it counts.
pub(super) fn inside(supervisor: Pid, isolation: Isolation) -> Result<Inside, VerifyError> {
    let failed = || VerifyError::io("cannot read /proc");
    let below = descendants_of(supervisor).map_err(failed())?;
    let is_init = |pid: &Pid| processes::words(pid.as_raw()).get(1).is_some_and(|word| word == role::INIT);
    let init = below.iter().copied().find(is_init);
    let init = init.ok_or(io::ErrorKind::NotFound).map_err(|kind| failed()(kind.into()))?;
    let mut of_the_app: Vec<i32> = vec![init.as_raw()];
    of_the_app.extend(descendants_of(init).map_err(failed())?.into_iter().map(Pid::as_raw));
    let (mut ports, mut abstracts) = (BTreeSet::new(), Vec::new());
    match isolation {
        Isolation::Namespace => {
            for net in of_the_app.iter().map(|pid| tables::of_process(*pid)) {
                // One that has ended meanwhile has nothing open.
                ports.extend(tables::listening(&net).into_iter().flatten().map(|its| its.address.port()));
                abstracts.extend(tables::abstract_sockets(&net).into_iter().flatten());
            }
        }
        Isolation::Socket => {
            let held = tables::held_by(of_the_app.iter().copied());
            let net = tables::ours();
            let listening = tables::listening(&net).map_err(failed())?.into_iter();
            ports.extend(listening.filter(|its| held.contains(&its.inode)).map(|its| its.address.port()));
            let named = tables::abstract_sockets(&net).map_err(failed())?.into_iter();
            abstracts.extend(named.filter(|its| held.contains(&its.inode)));
        }
    }
    let mut seen = BTreeSet::new();
    abstracts.retain(|socket| seen.insert(socket.name.clone()));
    let all = std::iter::once(supervisor).chain(below);
    Ok(Inside {
        keepers: [supervisor, init].iter().filter_map(|pid| processes::process(pid.as_raw())).collect(),
        processes: all.filter_map(|pid| processes::process(pid.as_raw())).collect(),
        ports: ports.into_iter().collect(),
        abstracts,
    })
}

/// Where a session keeps what.
struct Folders<'a> {
    record_of: &'a Record,
    record: PathBuf,
    state: PathBuf,
    tls: PathBuf,
}

impl<'a> Folders<'a> {
    fn of(record: &'a Record) -> Self {
        let above = |path: &Path| path.parent().unwrap_or(path).to_owned();
        let folder = above(&record.log);
        let state = above(&folder);
        Self { record_of: record, tls: state.join("tls"), record: folder, state }
    }

    /// Every path that the session made, or relies on to be closed.
    fn roots(&self) -> Vec<Root> {
        let made = &self.record_of.footprint;
        let runtime = made.session.parent().unwrap_or(&made.session);
        let all = [
            Root::alone("runtime folder", runtime),
            Root::of("session folder", &made.session),
            Root::of("lock", &made.lock),
            Root::of("scratch folder", &made.scratch),
            Root::alone("state folder", &self.state),
            Root::strict("record folder", &self.record),
            // None, where the certificate is the site's.
            Root::strict("certificate folder", &self.tls),
        ];
        // What a session in a job has besides: each is to be closed on whichever node it is looked at.
        let of_a_job = [
            ("link's address", "link.json"),
            ("link's key, the gateway's", "gateway.pem"),
            ("link's key, the host's", "host.pem"),
            ("what another gateway needs", "session.json"),
        ];
        let of_a_job = of_a_job.iter().filter(|_| self.record_of.job.is_some());
        let of_a_job = of_a_job.map(|(what, name)| Root::strict(what, &self.record.join(name)));
        all.into_iter().chain(of_a_job).flatten().collect()
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// What must stand nowhere: the token and cookies in hand, the key of the certificate, and whatever looks like one.
pub(super) struct Secrets(Vec<Zeroizing<Vec<u8>>>);

/// The keys of a session's link, in its folder of records.
fn is_key(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "pem")
}

impl Secrets {
    pub(super) fn of(passes: [Option<&Pass>; 2], tls: &Path) -> Self {
        let mut all = Vec::new();
        for pass in passes.into_iter().flatten() {
            all.push(Zeroizing::new(pass.token.as_bytes().to_vec()));
            all.push(Zeroizing::new(pass.cookie_value().as_bytes().to_vec()));
        }
        Self(all).with_keys(files_in(tls))
    }

    /// The keys of the link, too.
    pub(super) fn with_keys_of(self, record: &Path) -> Self {
        self.with_keys(files_in(record).into_iter().filter(|file| is_key(file)))
    }

    fn with_keys(mut self, files: impl IntoIterator<Item = PathBuf>) -> Self {
        for file in files {
            let text = Zeroizing::new(fs::read_to_string(file).unwrap_or_default());
            // The key's first line after its heading is enough to know it by, and too long to stand anywhere by chance.
            let key = text.lines().skip_while(|line| !line.ends_with("PRIVATE KEY-----")).nth(1);
            let key = key.filter(|line| line.len() > 32);
            self.0.extend(key.map(|line| Zeroizing::new(line.as_bytes().to_vec())));
        }
        self
    }

    pub(super) fn are_in(&self, bytes: &[u8]) -> bool {
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        self.0.iter().any(|secret| holds(secret)) || holds(b"__Host-shlogin-") || has_token(bytes)
    }
}

/// Whether there is a query with what looks like one of our tokens: [`crate::words::Secret`] says how long they are. An
/// app's own are of another length.
fn has_token(bytes: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    bytes.windows(7).enumerate().any(|(at, window)| {
        let is_query = matches!(window[0], b'?' | b'&') && &window[1..] == b"token=";
        is_query && bytes[at + 7..].iter().take_while(|byte| is_part(byte)).count() == 43
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::scratch::Scratch;

    #[test]
    fn secrets_are_found_wherever_they_stand_and_an_apps_own_tokens_are_not_taken_for_ours() {
        let folder = Scratch::new();
        let line = "M".repeat(64);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{line}\nrest\n-----END PRIVATE KEY-----\n");
        fs::write(folder.path().join("gateway.pem"), pem).unwrap();
        let pass = Pass {
            token: Zeroizing::new("T".repeat(43)),
            cookie: Zeroizing::new(format!("__Host-shlogin-0={}", "C".repeat(43))),
        };
        let secrets = Secrets::of([Some(&pass), None], folder.path());
        assert!(secrets.are_in(format!("x{}y", "T".repeat(43)).as_bytes()));
        assert!(secrets.are_in(format!("A={}\0B", "C".repeat(43)).as_bytes()));
        assert!(secrets.are_in(line.as_bytes()));
        assert!(secrets.are_in(format!("https://h/?token={}", "z".repeat(43)).as_bytes()));
        assert!(secrets.are_in(format!("?a&token={} HTTP/1.1", "z".repeat(43)).as_bytes()));
        assert!(!secrets.are_in(format!("?token={}", "0".repeat(48)).as_bytes()));
        assert!(!secrets.are_in(b"--token=abc ?token=") && !secrets.are_in(b""));
    }
}
