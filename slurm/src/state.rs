//! How far a job is, in Slurm's words and in ours.
//!
//! Whoever cleans up after a job asks [`State::is_ended`]. That is never true for want of an answer, nor for a word that
//! is not known here: a newer Slurm may have new ones.

use std::{convert::Infallible, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How far a job is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// It waits for nodes, or for its time.
    Pending,
    /// It has nodes, which boot or are made ready.
    Configuring,
    /// It runs.
    Running,
    /// Its processes stand still, and its processors are given to others.
    Suspended,
    /// Its processes stand still, and its processors are kept.
    Stopped,
    /// It ends: some of its processes may still be there.
    Completing,
    /// It is to run again, and waits or is held.
    Requeued,
    /// It has ended with exit code 0.
    Completed,
    /// Somebody has cancelled it.
    Cancelled,
    /// It has ended with another exit code, or could not be started.
    Failed,
    /// It has reached its time limit.
    Timeout,
    /// One of its nodes has failed.
    NodeFail,
    /// One of its nodes did not boot.
    BootFail,
    /// It has used more memory than it had.
    OutOfMemory,
    /// It had to make room for another job.
    Preempted,
    /// It could not end before its deadline.
    Deadline,
    /// The controller says that it does not know it (any more): it forgets a job `MinJobAge` after its end.
    Gone,
    /// The controller did not answer, or said a word that is not known here. It may well run.
    Undetermined,
}

impl State {
    /// It is over, beyond doubt. (Who may, can still requeue one that the controller knows.)
    pub fn is_ended(self) -> bool {
        use State::*;
        match self {
            Completed | Cancelled | Failed | Timeout | NodeFail | BootFail | OutOfMemory | Preempted
            | Deadline | Gone => true,
            Pending | Configuring | Running | Suspended | Stopped | Completing | Requeued | Undetermined => {
                false
            }
        }
    }

    /// It has not begun, or begins anew.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Pending | Self::Configuring | Self::Requeued)
    }

    /// Its processes run. Not so while they are [suspended](Self::Suspended) or [stopped](Self::Stopped).
    pub fn is_running(self) -> bool {
        self == Self::Running
    }

    /// Whether the scheduler has said how far it is.
    pub fn is_determined(self) -> bool {
        self != Self::Undetermined
    }

    fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Configuring => "configuring",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
            Self::Completing => "completing",
            Self::Requeued => "requeued",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::NodeFail => "node fail",
            Self::BootFail => "boot fail",
            Self::OutOfMemory => "out of memory",
            Self::Preempted => "preempted",
            Self::Deadline => "deadline",
            Self::Gone => "gone",
            Self::Undetermined => "undetermined",
        }
    }
}

/// In words for a person.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// From Slurm's words (squeue(1), "JOB STATE CODES"), as squeue and sacct print them. A word that is not known is
/// [`State::Undetermined`].
impl FromStr for State {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        // sacct: "CANCELLED by 2001".
        Ok(match text.split_ascii_whitespace().next().unwrap_or_default() {
            "PENDING" | "RESV_DEL_HOLD" | "EXPEDITING" => Self::Pending,
            "CONFIGURING" | "POWER_UP_NODE" => Self::Configuring,
            "RUNNING" | "RESIZING" | "SIGNALING" => Self::Running,
            "SUSPENDED" => Self::Suspended,
            "STOPPED" => Self::Stopped,
            "COMPLETING" | "STAGE_OUT" => Self::Completing,
            "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" => Self::Requeued,
            "COMPLETED" => Self::Completed,
            "CANCELLED" => Self::Cancelled,
            "FAILED" => Self::Failed,
            "TIMEOUT" => Self::Timeout,
            "NODE_FAIL" => Self::NodeFail,
            "BOOT_FAIL" => Self::BootFail,
            "OUT_OF_MEMORY" => Self::OutOfMemory,
            "PREEMPTED" => Self::Preempted,
            "DEADLINE" => Self::Deadline,
            // REVOKED among them: in a federation, the job goes on in another cluster.
            _ => Self::Undetermined,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(word: &str) -> State {
        word.parse().unwrap_or_else(|never: Infallible| match never {})
    }

    #[test]
    fn nothing_unknown_has_ended() {
        for word in ["", "REVOKED", "completed", "COMPLETED+", "ENDED", "\u{0}", "UPDATE_DB"] {
            assert_eq!(state(word), State::Undetermined, "{word:?}");
        }
        assert!(!State::Undetermined.is_ended());
        assert!(!State::Completing.is_ended());
    }

    #[test]
    fn each_is_at_most_one_of_waiting_running_and_ended() {
        for word in [
            "PENDING",
            "CONFIGURING",
            "RUNNING",
            "SUSPENDED",
            "STOPPED",
            "COMPLETING",
            "REQUEUED",
            "COMPLETED",
            "CANCELLED by 2001",
            "FAILED",
            "TIMEOUT",
            "NODE_FAIL",
            "BOOT_FAIL",
            "OUT_OF_MEMORY",
            "PREEMPTED",
            "DEADLINE",
        ] {
            let state = state(word);
            assert!(state.is_determined(), "{word}");
            let all = [state.is_waiting(), state.is_running(), state.is_ended()];
            assert!(all.into_iter().filter(|is| *is).count() <= 1, "{word}");
        }
    }
}
