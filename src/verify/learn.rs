//! The owner's phase: what there is of a session, and what its owner can see to be wrong with it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Finding, VerifyError, client,
    finding::Outcome,
    owner::{self, Pass},
    paths::{self, Root},
    processes, tables,
    target::{AbstractSocket, Door, Identity, Mark, Process, Target},
};
use crate::{
    session::{Record, RecordsError, State},
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
}

/// Learns all of a live session of this process's user. `all` are the records of that user's sessions.
///
/// # Errors
/// As [`VerifyError`].
pub(super) fn learn(record: &Record, all: Vec<Record>) -> Result<Learned, VerifyError> {
    let owner = Identity::of_this_process();
    let supervisor = supervisor(record)?;
    let mut notes = Vec::new();
    let live: Vec<Record> = all.into_iter().filter(|its| its.state != State::Ended).collect();
    let Entered { door, pass, other, mark, mut findings } =
        client::block_on(enter(record, &live, &mut notes))??;
    let Inside { keepers, processes, ports, abstracts } = inside(supervisor, record.isolation)?;
    let folders = Folders::of(record);
    let roots = folders.roots();
    findings.extend(roots.iter().map(|root| root.modes(owner.uid)));
    let secrets = Secrets::of([Some(&pass), other.as_ref()], &folders.tls);
    findings.push(processes::search(&processes, |bytes| secrets.are_in(bytes)));
    let told = paths::that_hold(&files_in(&folders.record), |bytes| secrets.are_in(bytes));
    let outcome = Outcome::of_opened(&told, "none in any");
    findings.push(Finding::new("log and record", "look for a token, a cookie, the key", outcome));
    let doors = live.iter().filter(|its| its.gateway.socket.is_none()).map(|its| its.gateway.port).collect();
    let made_up_cookie = format!("{}={}", pass.cookie_name(), "A".repeat(pass.cookie_value().len()));
    let target = Target {
        name: record.name.clone(),
        id: record.id,
        owner,
        isolation: record.isolation,
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
    Ok(Learned { target, findings, notes })
}

/// The supervisor's number, if it is still the process of the record.
fn supervisor(record: &Record) -> Result<Pid, VerifyError> {
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

struct Inside {
    keepers: Vec<Process>,
    processes: Vec<Process>,
    ports: Vec<u16>,
    abstracts: Vec<AbstractSocket>,
}

/// The processes, and what they listen on. A network of one's own is listed by its `/proc/PID/net`; without one, it is
/// the host's, and what the app's processes hold of it counts.
fn inside(supervisor: Pid, isolation: Isolation) -> Result<Inside, VerifyError> {
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
        all.into_iter().flatten().collect()
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// What must stand nowhere: the token and cookies in hand, the key of the certificate, and whatever looks like one.
struct Secrets(Vec<Zeroizing<Vec<u8>>>);

impl Secrets {
    fn of(passes: [Option<&Pass>; 2], tls: &Path) -> Self {
        let mut all = Vec::new();
        for pass in passes.into_iter().flatten() {
            all.push(Zeroizing::new(pass.token.as_bytes().to_vec()));
            all.push(Zeroizing::new(pass.cookie_value().as_bytes().to_vec()));
        }
        for file in files_in(tls) {
            let text = Zeroizing::new(fs::read_to_string(file).unwrap_or_default());
            // The key's first line after its heading is enough to know it by, and too long to stand anywhere by chance.
            let key = text.lines().skip_while(|line| !line.ends_with("PRIVATE KEY-----")).nth(1);
            all.extend(
                key.filter(|line| line.len() > 32).map(|line| Zeroizing::new(line.as_bytes().to_vec())),
            );
        }
        Self(all)
    }

    fn are_in(&self, bytes: &[u8]) -> bool {
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
