//! Why a job waits, or how it ended, in Slurm's words and in plain ones.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a job waits, or how it ended, as squeue says it: mostly one word, sometimes a sentence.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reason(String);

/// A word of Slurm's, or how some of them begin, and what it means.
const WORDS: &[(&str, &str)] = &[
    ("Resources", "no nodes are free for it yet; it is among the next"),
    ("Priority", "other jobs come first"),
    (
        "DependencyNeverSatisfied",
        "it waits for a job that did not end as it should have; it will never start",
    ),
    ("Dependency", "it waits for another job"),
    ("JobHeldUser", "its owner holds it back; it starts when it is released"),
    ("JobHeldAdmin", "an administrator holds it back; only an administrator can release it"),
    ("BeginTime", "its time to begin has not come"),
    ("Cleaning", "what its last run left is being cleared away"),
    ("PartitionTimeLimit", "it asks for more time than its partition allows"),
    ("PartitionNodeLimit", "it asks for more nodes than its partition has or allows"),
    ("PartitionConfig", "it asks for more than its partition has or allows"),
    ("PartitionDown", "its partition is down"),
    ("PartitionInactive", "its partition starts no jobs now"),
    ("ReqNodeNotAvail", "a node that it asks for is not available now"),
    ("NodeDown", "a node that it needs is down"),
    ("BadConstraints", "no node can ever give what it asks for"),
    ("Licenses", "a licence that it needs is in use"),
    ("ReservationDeleted", "the reservation that it asks for is no more"),
    ("Reservation", "its reservation has not begun"),
    ("FrontEndDown", "no front end node is available for it"),
    ("SystemFailure", "the cluster, the file system or the network has failed"),
    ("JobLaunchFailure", "it could not be launched on its node"),
    ("JobHoldMaxRequeue", "it was requeued too often, and is held back"),
    ("JobArrayTaskLimit", "as many tasks of its array run as may"),
    (
        "launch failed requeued held",
        "it could not be launched, was requeued and is held back until it is released",
    ),
    ("job requeued in held state", "it was requeued, and is held back until it is released"),
    (
        "user env retrieval failed requeued held",
        "its user's environment could not be read; it is held back until released",
    ),
    (
        "Nodes required for job are DOWN, DRAINED",
        "the nodes that it needs are down, drained or reserved for others",
    ),
    ("InvalidAccount", "its account is not valid"),
    ("InvalidQOS", "its quality of service (QOS) is not valid"),
    ("QOSNotAllowed", "its quality of service (QOS) is not allowed there"),
    ("QOSTimeLimit", "its quality of service (QOS) has used up its time"),
    ("QOSJobLimit", "its quality of service (QOS) has as many jobs as it may"),
    ("QOSResourceLimit", "its quality of service (QOS) has as much as it may"),
    ("QOSGrp", "all jobs of its quality of service (QOS) together have as much as they may"),
    ("QOSMaxWall", "it asks for more time than its quality of service (QOS) allows"),
    ("QOSMaxJobsPerUser", "as many of the user's jobs run as the quality of service (QOS) allows"),
    ("QOSMax", "it asks for more than its quality of service (QOS) allows one user, account or job"),
    ("QOSMin", "it asks for less than its quality of service (QOS) wants"),
    ("QOSUsageThreshold", "its quality of service (QOS) wants a better balance of what was used"),
    ("AssocGrpCPUMinutes", "its account has used up its processor time"),
    ("AssocGrpBilling", "its account has used up what it may be billed"),
    ("AssocGrp", "all jobs of its account together have as much as they may"),
    ("AssociationJobLimit", "its account has as many jobs as it may"),
    ("AssociationResourceLimit", "its account has as much as it may"),
    ("AssociationTimeLimit", "its account has used up its time"),
    ("AssocMaxJobs", "as many of the user's jobs run as the account allows"),
    ("AssocMaxWall", "it asks for more time than its account allows"),
    ("AssocMax", "it asks for more than its account allows one user or job"),
    ("MaxCpuPerAccount", "its account has as many processors as it may"),
    ("BurstBuffer", "it waits for the burst buffer"),
    ("Prolog", "its node is being made ready"),
    ("WaitingForScheduling", "the scheduler has not looked at it yet"),
    ("NonZeroExitCode", "it ended with an exit code other than 0"),
    ("TimeLimit", "it reached its time limit"),
    ("OutOfMemory", "it used more memory than it had"),
    ("RaisedSignal", "it was ended by a signal"),
    ("InactiveLimit", "it was inactive for too long"),
    ("DeadLine", "it could not end before its deadline"),
];

impl Reason {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// In Slurm's words. `None`, too, is one of them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Slurm gives none.
    pub fn is_none(&self) -> bool {
        matches!(self.0.as_str(), "" | "None" | "(null)")
    }

    /// Somebody has to release it first.
    pub fn is_held(&self) -> bool {
        self.0.starts_with("JobHeld")
            || self.0 == "JobHoldMaxRequeue"
            || self.0.ends_with("held state")
            || self.0.ends_with("requeued held")
    }

    /// It will not start unless somebody changes the job, or the site.
    pub fn is_hopeless(&self) -> bool {
        ["DependencyNeverSatisfied", "BadConstraints", "InvalidAccount", "InvalidQOS", "ReservationDeleted"]
            .iter()
            .any(|word| self.0.starts_with(word))
    }

    /// In plain words, for those that are known.
    pub fn explained(&self) -> Option<&'static str> {
        // Nearly all begin with the word, as in "ReqNodeNotAvail, UnavailableNodes:c1". Case differs between versions.
        let begins =
            |word: &str| self.0.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
        WORDS.iter().find(|(word, _)| begins(word)).map(|(_, meaning)| *meaning)
    }
}

/// The plain words with Slurm's own, where there are any.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.explained() {
            Some(meaning) => write!(f, "{meaning} ({})", self.0),
            None => f.write_str(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longer_word_comes_before_the_one_it_begins_with() {
        for (at, (word, _)) in WORDS.iter().enumerate() {
            let shadow = WORDS[..at].iter().find(|(earlier, _)| word.starts_with(earlier));
            assert_eq!(shadow, None, "{word}");
        }
    }

    #[test]
    fn the_common_ones_are_explained() {
        for text in [
            "Resources",
            "Priority",
            "QOSMaxGRESPerUser",
            "QOSMaxJobsPerUserLimit",
            "AssocGrpCpuLimit",
            "ReqNodeNotAvail, UnavailableNodes:c[1-2]",
            "launch failed requeued held",
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
        ] {
            assert!(Reason::new(text).explained().is_some(), "{text}");
        }
        assert_eq!(Reason::new("Priority").to_string(), "other jobs come first (Priority)");
        assert_eq!(Reason::new("SomethingNew").to_string(), "SomethingNew");
        assert!(Reason::new("JobHeldAdmin").is_held() && !Reason::new("Priority").is_held());
        assert!(Reason::new("None").is_none());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let reason = Reason::new(&text);
            let _ = (reason.to_string(), reason.is_held(), reason.is_hopeless());
        }
    }
}
