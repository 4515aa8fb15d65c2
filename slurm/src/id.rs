//! The number of a job.
//!
//! A task of an array (`12_3`), a part of a heterogeneous job (`12+1`) and a step (`12.0`) are refused: what we submit is
//! none of them, and to take one for its job would cancel more than was asked.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

/// A job's number, as `sbatch` gives it and `SLURM_JOB_ID` holds it. It is one in JSON, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(NonZeroU32);

impl JobId {
    /// The job of that number; there is none with 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.into()
    }
}

/// Why a text is no [`JobId`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobIdError {
    /// It is one task of a job array, or all of them.
    #[error("job {0:?} is a task of a job array: only whole jobs are understood here")]
    ArrayTask(String),
    /// It is a part of a heterogeneous job.
    #[error("job {0:?} is a part of a heterogeneous job: only whole jobs are understood here")]
    Part(String),
    /// It is a step in a job.
    #[error("job {0:?} is a step of a job: only whole jobs are understood here")]
    Step(String),
    /// It is no such number at all.
    #[error("job {0:?} is not a number from 1 on")]
    NotANumber(String),
}

impl FromStr for JobId {
    type Err = JobIdError;

    fn from_str(text: &str) -> Result<Self, JobIdError> {
        // `u32` would take a sign.
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            match text.bytes().find(|byte| !byte.is_ascii_digit()) {
                Some(b'_') => return Err(JobIdError::ArrayTask(text.to_owned())),
                Some(b'+') => return Err(JobIdError::Part(text.to_owned())),
                Some(b'.') => return Err(JobIdError::Step(text.to_owned())),
                Some(_) => {}
                None => {
                    if let Some(id) = text.parse().ok().and_then(Self::new) {
                        return Ok(id);
                    }
                }
            }
        }
        Err(JobIdError::NotANumber(text.to_owned()))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_whole_job_is_one() {
        assert_eq!("4711".parse::<JobId>().map(JobId::number), Ok(4711));
        assert!(matches!("12_3".parse::<JobId>(), Err(JobIdError::ArrayTask(_))));
        assert!(matches!("12_[1-3%2]".parse::<JobId>(), Err(JobIdError::ArrayTask(_))));
        assert!(matches!("12+1".parse::<JobId>(), Err(JobIdError::Part(_))));
        assert!(matches!("12.batch".parse::<JobId>(), Err(JobIdError::Step(_))));
        for bad in ["", "0", "-1", "+1", " 1", "1 ", "4294967296", "1é", "x", "1;c"] {
            assert!(matches!(bad.parse::<JobId>(), Err(JobIdError::NotANumber(_))), "{bad:?}");
        }
    }

    #[test]
    fn it_is_a_number_in_json() {
        let id = JobId::new(7).unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "7");
        assert_eq!(serde_json::from_str::<JobId>("7").unwrap(), id);
        assert!(serde_json::from_str::<JobId>("0").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), digits in "[0-9]{1,12}.*") {
            let _ = text.parse::<JobId>();
            let _ = digits.parse::<JobId>();
        }
    }
}
