//! The programs that run images: Apptainer and SingularityCE, which have the same verbs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{config::find_program, words::RuntimeKind};

/// A runtime on this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Runtime {
    /// Which.
    pub kind: RuntimeKind,
    /// Its program, absolute.
    pub program: PathBuf,
}

/// No runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// None of these is in `PATH`.
    #[error(
        "{0} is not to be found in PATH: load its module, install the package apptainer, or start without an image"
    )]
    NotFound(String),
}

impl Runtime {
    /// Finds a runtime, at the places configured for the two or in `PATH`: the one asked for, else Apptainer, else
    /// SingularityCE.
    ///
    /// # Errors
    /// Where there is none.
    pub fn find(
        asked: Option<RuntimeKind>,
        apptainer: Option<&Path>,
        singularity: Option<&Path>,
    ) -> Result<Self, RuntimeError> {
        let program = |kind: RuntimeKind, name: &str| {
            let configured = if kind == RuntimeKind::Apptainer { apptainer } else { singularity };
            configured.map(Path::to_owned).or_else(|| find_program(name))
        };
        let candidates: &[(RuntimeKind, &str)] = match asked {
            Some(RuntimeKind::Singularity) => &[(RuntimeKind::Singularity, "singularity")],
            Some(RuntimeKind::Apptainer) => &[(RuntimeKind::Apptainer, "apptainer")],
            _ => &[(RuntimeKind::Apptainer, "apptainer"), (RuntimeKind::Singularity, "singularity")],
        };
        let found = candidates
            .iter()
            .find_map(|(kind, name)| Some(Self { kind: *kind, program: program(*kind, name)? }));
        found.ok_or_else(|| {
            let names: Vec<_> = candidates.iter().map(|(_, name)| *name).collect();
            RuntimeError::NotFound(names.join(" or "))
        })
    }

    /// What its environment variables begin with. Apptainer installs itself as `singularity` too; it reads its own name
    /// first, so the program's file decides.
    pub fn env_prefix(&self) -> &'static str {
        match self.kind {
            RuntimeKind::Singularity if !leads_to(&self.program, "apptainer") => "SINGULARITY",
            _ => "APPTAINER",
        }
    }
}

fn leads_to(program: &Path, name: &str) -> bool {
    program.canonicalize().is_ok_and(|path| path.file_name().is_some_and(|file| file == name))
}
