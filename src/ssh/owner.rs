//! The one user of a session.

use std::{io, path::PathBuf};

use nix::unistd::{User, geteuid};

/// Whose session it is, as the user database has her.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// Her login name.
    pub(crate) name: String,
    /// Her user id.
    pub(crate) uid: u32,
    /// Her home folder: where sshd looks for `.ssh`, whatever `$HOME` says.
    pub(crate) home: PathBuf,
}

impl Owner {
    /// The user of this process.
    ///
    /// # Errors
    /// Where the user database can't be asked, or does not know her.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let user = User::from_uid(geteuid())?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { name: user.name, uid: user.uid.as_raw(), home: user.dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_an_owner_with_a_home() {
        let owner = Owner::of_this_process().unwrap();
        assert_eq!(owner.uid, geteuid().as_raw());
        assert!(!owner.name.is_empty() && owner.home.is_absolute());
    }
}
