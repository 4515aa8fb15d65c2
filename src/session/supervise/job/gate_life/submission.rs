//! The submission of a session's job, so that none is left of which nobody knows.

use std::path::Path;

use slurm::{Export, JobId, Slurm, Submission, SubmitError};

use crate::session::BatchSpec;

/// Submits it. `folder` is the session's, in which the job runs. Blocks.
pub(super) fn submit(slurm: &Slurm, batch: BatchSpec, folder: &Path) -> Result<JobId, String> {
    let submission = Submission::new(batch.script, Export::Minimal).options(batch.options);
    let submitted = slurm.submit(&submission).map(|submitted| submitted.job);
    if let Err(SubmitError::Program(_) | SubmitError::Unreachable(_)) = submitted {
        cancel_unheard_of(slurm, folder);
    }
    submitted.map_err(|error| error.to_string())
}

/// Where sbatch did not end, or not well, the controller may have taken the job all the same. It is known by its folder, which
/// is no other session's.
fn cancel_unheard_of(slurm: &Slurm, folder: &Path) {
    let uid = nix::unistd::getuid().as_raw();
    let jobs = slurm.jobs_of_user(uid).unwrap_or_default();
    for job in jobs.iter().filter(|job| job.workdir.as_deref() == Some(folder) && !job.state.is_ended()) {
        if let Err(error) = slurm.cancel(job.id) {
            tracing::warn!(%error, job = %job.id, "a job of which sbatch said nothing could not be cancelled");
        }
    }
}
