//! What the controller knows of a job, read from squeue's table.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    id::JobId,
    reason::Reason,
    state::State,
    table::{Mark, Misshapen},
    time::{TimeLimit, limit, point},
};

/// A job, as far as the controller knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// How far it is. Where this is [`State::Gone`] or [`State::Undetermined`], the rest may be empty.
    pub state: State,
    /// Why it waits, or how it ended.
    pub reason: Option<Reason>,
    /// Its name: the owner's free text.
    pub name: String,
    /// Its owner's number.
    pub uid: Option<u32>,
    /// Its owner's name, or number where there is no name.
    pub user: Option<String>,
    /// Its partition, or those where it may run, with commas, while it waits.
    pub partition: Option<String>,
    /// Its nodes, in Slurm's short form (`c[1-2]`).
    pub nodes: Option<String>,
    /// The node on which its script runs.
    pub batch_host: Option<String>,
    /// When it was submitted.
    pub submitted: Option<Timestamp>,
    /// When it started. While it waits: when it is expected to, if the scheduler has looked so far ahead.
    pub start: Option<Timestamp>,
    /// When it ended, or is to end at the latest.
    pub end: Option<Timestamp>,
    /// How long it may run.
    pub time_limit: Option<TimeLimit>,
    /// How often it has been started anew.
    pub restarts: u32,
    /// How its script ended, once it has.
    pub exit: Option<Exit>,
    /// Processors, memory and the like that it has or asks for (`cpu=1,mem=500M,node=1,gres/gpu=1`).
    pub resources: Option<String>,
    /// Its comment: the owner's free text.
    pub comment: Option<String>,
    /// Where it runs.
    pub workdir: Option<PathBuf>,
    /// The file that takes its output, as it was asked for: `%j` and the like are not filled in.
    pub stdout: Option<PathBuf>,
    /// It stands for tasks of an array (`12_[1-3]`).
    pub array: Option<String>,
}

/// How a job's script ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code.
    pub code: u8,
    /// The signal that ended it; 0 where none did.
    pub signal: u8,
}

/// squeue(1) `--Format`. Free text stands last, for those who read a failure by eye.
pub(crate) const FIELDS: [&str; 20] = [
    "JobID",
    "JobArrayID",
    "State",
    "Reason",
    "UserID",
    "UserName",
    "Partition",
    "NodeList",
    "BatchHost",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "TimeLimit",
    "RestartCnt",
    "exit_code",
    "tres-alloc",
    "WorkDir",
    "STDOUT",
    "Name",
    "Comment",
];

impl Job {
    /// One of which nothing is known but this: [`State::Gone`], or [`State::Undetermined`].
    pub fn only(id: JobId, state: State) -> Self {
        Self {
            id,
            state,
            reason: None,
            name: String::new(),
            uid: None,
            user: None,
            partition: None,
            nodes: None,
            batch_host: None,
            submitted: None,
            start: None,
            end: None,
            time_limit: None,
            restarts: 0,
            exit: None,
            resources: None,
            comment: None,
            workdir: None,
            stdout: None,
            array: None,
        }
    }

    /// When it is expected to start, if it waits and the scheduler has looked so far ahead.
    pub fn expected_start(&self) -> Option<Timestamp> {
        self.start.filter(|_| self.state.is_waiting())
    }

    /// When it was started, if it was.
    pub fn started(&self) -> Option<Timestamp> {
        self.start.filter(|_| !self.state.is_waiting())
    }
}

/// The jobs of squeue's output.
pub(crate) fn read(mark: &Mark, text: &str) -> Result<Vec<Job>, Misshapen> {
    mark.records(text)?.into_iter().map(job).collect()
}

fn job(record: [&str; FIELDS.len()]) -> Result<Job, Misshapen> {
    let [
        id,
        array,
        state,
        reason,
        uid,
        user,
        partition,
        nodes,
        batch_host,
        submitted,
        start,
        end,
        time_limit,
        restarts,
        exit_code,
        resources,
        workdir,
        stdout,
        name,
        comment,
    ] = record;
    let state = state.parse::<State>().map_err(|never| match never {})?;
    Ok(Job {
        id: id.trim().parse().map_err(|_| Misshapen)?,
        state,
        reason: Some(Reason::new(reason)).filter(|reason| !reason.is_none()),
        name: name.to_owned(),
        uid: uid.parse().ok(),
        user: given(user),
        partition: given(partition),
        nodes: given(nodes),
        batch_host: given(batch_host),
        submitted: point(submitted),
        start: point(start),
        end: point(end),
        time_limit: limit(time_limit),
        restarts: restarts.parse().unwrap_or(0),
        // While it is waiting it may hold that of its last run.
        exit: exit(exit_code).filter(|_| state.is_ended() || state == State::Completing),
        resources: given(resources),
        comment: given(comment),
        workdir: given(workdir).map(PathBuf::from),
        stdout: given(stdout).map(PathBuf::from),
        array: given(array).filter(|array| array.contains('_')),
    })
}

fn given(field: &str) -> Option<String> {
    (!matches!(field, "" | "(null)" | "N/A" | "n/a")).then(|| field.to_owned())
}

/// squeue prints what wait(2) gave (768 is exit code 3), sacct and scontrol `code:signal`.
pub(crate) fn exit(field: &str) -> Option<Exit> {
    if let Some((code, signal)) = field.split_once(':') {
        return Some(Exit { code: code.parse().ok()?, signal: signal.parse().ok()? });
    }
    let [_, _, code, signal] = field.parse::<u32>().ok()?.to_be_bytes();
    Some(Exit { code, signal: signal & 0x7f })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record of squeue 22.05, with this for a name.
    fn record<'a>(state: &'a str, code: &'a str, name: &'a str) -> [&'a str; FIELDS.len()] {
        [
            "6",
            "6",
            state,
            "BeginTime",
            "2001",
            "alice",
            "debug",
            "",
            "n/a",
            "2026-11-28T22:07:08",
            "2026-11-28T23:07:08",
            "2026-11-29T00:07:08",
            "1:00:00",
            "1",
            code,
            "cpu=1,mem=500M,node=1,billing=1",
            "/home/alice",
            "/home/alice/slurm-6.out",
            name,
            "(null)",
        ]
    }

    #[test]
    fn a_waiting_job_has_no_node_and_an_expected_start() {
        let job = job(record("PENDING", "15", "we|ird\nname")).unwrap();
        assert_eq!((job.id.number(), job.state, job.restarts), (6, State::Pending, 1));
        assert_eq!(job.expected_start().unwrap().to_string(), "2026-11-28T23:07:08Z");
        assert_eq!((job.started(), &job.nodes, &job.batch_host), (None, &None, &None));
        assert_eq!((job.uid, job.time_limit), (Some(2001), Some(TimeLimit::Minutes(60))));
        assert_eq!(job.name, "we|ird\nname");
        assert_eq!((job.exit, job.comment, job.array), (None, None, None));
        assert_eq!(job.reason.unwrap().as_str(), "BeginTime");
    }

    #[test]
    fn an_exit_is_that_of_a_job_that_has_ended() {
        for (code, expected) in [
            ("0", Exit { code: 0, signal: 0 }),
            ("768", Exit { code: 3, signal: 0 }),
            ("9", Exit { code: 0, signal: 9 }),
            ("3:0", Exit { code: 3, signal: 0 }),
            ("0:15", Exit { code: 0, signal: 15 }),
        ] {
            assert_eq!(job(record("FAILED", code, "x")).unwrap().exit, Some(expected), "{code}");
            assert_eq!(job(record("RUNNING", code, "x")).unwrap().exit, None, "{code}");
        }
        assert_eq!((exit(""), exit("-1"), exit("300:0"), exit("N/A")), (None, None, None, None));
    }

    #[test]
    fn a_state_that_is_not_known_is_no_end() {
        let job = job(record("TELEPORTED", "0", "x")).unwrap();
        assert_eq!((job.state, job.state.is_ended()), (State::Undetermined, false));
    }

    #[test]
    fn a_job_is_the_same_in_json() {
        let job = job(record("RUNNING", "0", "x")).unwrap();
        let text = serde_json::to_string(&job).unwrap();
        assert!(text.contains(r#""id":6,"state":"running""#), "{text}");
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    }

    proptest! {
        #[test]
        fn no_fields_make_it_panic(text in any::<String>(), number in "[0-9:-]{0,12}") {
            for field in 0..FIELDS.len() {
                for value in [&text, &number] {
                    let mut fields = record("PENDING", "0", "x");
                    fields[field] = value;
                    let _ = job(fields);
                }
            }
        }
    }
}
