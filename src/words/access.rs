//! What somebody may do with a terminal.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What somebody may do with a terminal, from least to most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ValueEnum)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// See what it shows.
    View,
    /// Type as well, which is to be its owner: a shell does what is typed.
    Type,
    /// Everything, for it is hers.
    Owner,
}
