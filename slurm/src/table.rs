//! Tables that Slurm's programs print to a format of ours.
//!
//! A job's name and comment are its owner's free text, newlines included. So the fields end in a mark that is drawn anew
//! for each call: nobody who named a job before can have put it there, and no record can be forged. Every field has its
//! full length.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

/// What stands after each field.
pub(crate) struct Mark(String);

/// The output does not have the form that was asked for.
#[derive(Debug)]
pub(crate) struct Misshapen;

impl Mark {
    pub(crate) fn new() -> Self {
        // Keyed by the system's randomness.
        Self(format!("|{:016x}|", RandomState::new().build_hasher().finish()))
    }

    /// For `squeue --Format`, `sinfo --Format`: names of fields. A width of 0 is as long as the field is.
    pub(crate) fn format(&self, names: &[&str]) -> String {
        names.iter().map(|name| format!("{name}:0{}", self.0)).collect::<Vec<_>>().join(",")
    }

    /// The records of an output, each of so many fields.
    pub(crate) fn records<'a, const N: usize>(&self, text: &'a str) -> Result<Vec<[&'a str; N]>, Misshapen> {
        let mut fields = text.split(self.0.as_str()).collect::<Vec<_>>();
        // What stands after the last mark is the end of the last line.
        if fields.pop().is_some_and(|rest| !rest.trim().is_empty()) || fields.len() % N != 0 {
            return Err(Misshapen);
        }
        let record = |record: &[&'a str]| {
            let mut record = <[&str; N]>::try_from(record).map_err(|_| Misshapen)?;
            if let Some(first) = record.first_mut() {
                *first = first.strip_prefix('\n').unwrap_or(first);
            }
            Ok(record)
        };
        fields.chunks_exact(N).map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark() -> Mark {
        Mark("|ab".to_owned())
    }

    #[test]
    fn a_field_may_hold_newlines_and_bars() {
        let records = mark().records::<2>("3|abwe|ird\nname|ab\n2|absbatch|ab\n").unwrap();
        assert_eq!(records, [["3", "we|ird\nname"], ["2", "sbatch"]]);
        assert!(mark().records::<2>("").unwrap().is_empty());
    }

    #[test]
    fn what_has_another_form_is_refused() {
        for bad in ["3|ab", "1|ab2|ab\n3|ab", "1|ab2|ab and more", "a warning"] {
            assert!(mark().records::<2>(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_two_marks_are_the_same() {
        assert_ne!(Mark::new().0, Mark::new().0);
        assert_eq!(mark().format(&["JobID", "Name"]), "JobID:0|ab,Name:0|ab");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), near in "([0-9a-z\n]|\\|ab){0,40}") {
            let _ = (mark().records::<3>(&text), mark().records::<3>(&near));
        }
    }
}
