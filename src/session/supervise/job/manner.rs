//! How a host came to be where it is: the word behind its folder.

use std::ffi::OsStr;

/// How it came to be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::session) enum Manner {
    /// The script of the session's own job has exec'ed it.
    Job,
    /// A gate has started it in a job that is lent, as a step of its own.
    Step,
    /// The person's `start` has, where she typed it in her job; that has the other end of its descriptor 3.
    Start,
}

impl Manner {
    const ALL: [Self; 3] = [Self::Job, Self::Step, Self::Start];

    /// Its word; none of its own where a job's script says nothing.
    pub(in crate::session) fn word(self) -> &'static str {
        match self {
            Self::Job => "",
            Self::Step => "step",
            Self::Start => "start",
        }
    }

    /// What the word means.
    pub(super) fn of(word: Option<&OsStr>) -> Option<Self> {
        let word = word.unwrap_or_default();
        Self::ALL.into_iter().find(|manner| word == manner.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_word_is_refused() {
        assert_eq!(Manner::of(None), Some(Manner::Job));
        assert_eq!(Manner::of(Some("step".as_ref())), Some(Manner::Step));
        assert_eq!(Manner::of(Some("start".as_ref())), Some(Manner::Start));
        assert_eq!(Manner::of(Some("x".as_ref())), None);
    }
}
