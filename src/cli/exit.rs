//! Exit codes, and which failure has which.

use std::process::ExitCode;

use super::batch::BatchError;
use crate::{
    config::{ConfigError, paths::FolderError},
    host::{ImageError, RuntimeError},
    session::{LaunchError, LockError, PodError, RecordsError, launch::End},
};

/// The exit codes, as `docs/architecture.md` and the man pages list them.
pub mod code {
    /// The answer is no.
    pub const NO: u8 = 1;
    /// Wrong usage (clap's own).
    pub const USAGE: u8 = 2;
    /// No such session, or a prefix that fits several.
    pub const NO_SESSION: u8 = 116;
    /// A configuration that cannot be used.
    pub const CONFIG: u8 = 117;
    /// No pod is free.
    pub const NO_POD: u8 = 118;
    /// This machine forbids the isolation that was asked for.
    pub const FORBIDDEN: u8 = 119;
    /// The name is in use.
    pub const NAME_IN_USE: u8 = 120;
    /// The image is missing or cannot be used.
    pub const IMAGE: u8 = 121;
    /// The app ended before it answered.
    pub const APP_ENDED: u8 = 122;
    /// The app did not answer in time.
    pub const TIMEOUT: u8 = 123;
    /// Slurm refused the job.
    pub const NOT_SUBMITTED: u8 = 114;
    /// Slurm ended the job.
    pub const JOB_ENDED: u8 = 115;
    /// shlogin itself failed.
    pub const FAILED: u8 = 125;
}

/// Everything that makes a command fail, as its person is told.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each is the failure of the module it names")]
pub enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("{0}")]
    NoHelper(String),
    /// The session ended before its app answered.
    #[error("{name} did not start: {end}")]
    NotStarted { name: String, end: End, tail: Vec<String>, log: Option<String> },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Session(String),
    /// Slurm ended the job of a session whose app had answered.
    #[error("{0}")]
    JobEnded(String),
}

impl Failure {
    /// A failed system call, with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Its exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => code::USAGE,
            Self::Config(_) | Self::Batch(_) => code::CONFIG,
            Self::Records(
                RecordsError::NotFound(_) | RecordsError::Ended { .. } | RecordsError::Ambiguous { .. },
            ) => code::NO_SESSION,
            Self::Lock(LockError::InUse(_)) => code::NAME_IN_USE,
            Self::Pod(PodError::NoneFree { .. }) => code::NO_POD,
            Self::NoHelper(_) => code::FORBIDDEN,
            Self::JobEnded(_) => code::JOB_ENDED,
            Self::Image(_) | Self::Runtime(_) => code::IMAGE,
            Self::NotStarted { end, .. } => match end {
                End::App(_) | End::NotRun(_) => code::APP_ENDED,
                End::Timeout { .. } => code::TIMEOUT,
                End::Forbidden(_) | End::OpenPort(_) => code::FORBIDDEN,
                End::Image(_) => code::IMAGE,
                End::NotSubmitted(_) => code::NOT_SUBMITTED,
                End::Job(_) => code::JOB_ENDED,
                End::Stopped(_) | End::Idle { .. } | End::TakenOver | End::Broken(_) => code::FAILED,
            },
            _ => code::FAILED,
        }
    }

    /// One word for programs.
    pub fn kind(&self) -> &'static str {
        match self.code() {
            code::USAGE => "usage",
            code::CONFIG => "config",
            code::NO_SESSION => "no-session",
            code::NAME_IN_USE => "name-in-use",
            code::NO_POD => "no-pod",
            code::FORBIDDEN => "isolation-forbidden",
            code::IMAGE => "image",
            code::APP_ENDED => "app-ended",
            code::TIMEOUT => "timeout",
            code::NOT_SUBMITTED => "not-submitted",
            code::JOB_ENDED => "job-ended",
            _ => "failed",
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}
