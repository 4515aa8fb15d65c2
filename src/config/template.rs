//! Which file is the script of a session's job. Reads one that nobody else can have written, and refuses all others; what
//! has to stand in it, the renderer knows.

use std::{
    io::{Error, ErrorKind},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use super::{
    error::ConfigError,
    file::{self, Trusted},
    layers::{Resolved, Sources},
};

/// What a template is called, beside each `config.toml`.
pub const TEMPLATE_NAME: &str = "session.sbatch";

/// A template that somebody wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemplateText {
    /// Where.
    pub file: PathBuf,
    /// All of it.
    pub text: String,
}

impl Sources {
    /// The template that `slurm.template` names, else the user's, else the administrator's; `None` where there is none of
    /// these, and the program's own holds. A user's own file is not looked for where `slurm.template` is locked.
    ///
    /// # Errors
    /// One that is named and is not there, and one that can't be read or that others could have written.
    pub fn template(&self, resolved: &Resolved) -> Result<Option<TemplateText>, ConfigError> {
        let user = Trusted::User(geteuid());
        if let Some(named) = resolved.config.slurm.template.path() {
            let found = read(named, user)?;
            let missing = || ConfigError::Unreadable {
                file: named.to_owned(),
                source: Error::from(ErrorKind::NotFound),
            };
            return found.ok_or_else(missing).map(Some);
        }
        let is_locked = resolved.entry("slurm.template").is_some_and(|entry| entry.locked);
        if let Some(config) = self.user.as_ref().filter(|_| !is_locked)
            && let Some(found) = read(&config.with_file_name(TEMPLATE_NAME), user)?
        {
            return Ok(Some(found));
        }
        read(&self.site.with_file_name(TEMPLATE_NAME), Trusted::Site(self.site_owner))
    }
}

fn read(file: &Path, trusted: Trusted) -> Result<Option<TemplateText>, ConfigError> {
    Ok(file::read(file, trusted)?.map(|text| TemplateText { file: file.to_owned(), text }))
}
