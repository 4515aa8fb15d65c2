//! A gate whose job is lent: it was there before the session and stays after it. Its host is started by srun, or was by the
//! person herself; when it is gone, the job says nothing of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use jiff::Timestamp;
use slurm::{Job, Resident, Slurm};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};

use super::{Gate, ending::VERDICT};
use crate::{
    config::paths::PrivateFolder,
    session::{
        Lent, LentHost, State, read_record,
        supervise::{
            End,
            job::{look, manner::Manner},
        },
    },
    sys::spawn::role,
};

/// How long a host may be silent before it is looked for.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const BETWEEN: Duration = Duration::from_secs(60);
/// How long it may take to be seen that a job ends, and not one of its steps alone.
const STEP_VERDICT: Duration = Duration::from_secs(10);
/// What a host needs beyond its app's grace, to be gone before the job is.
const MARGIN: Duration = Duration::from_secs(30);

/// All that it takes to see to a host.
struct Care {
    slurm: Slurm,
    lent: Lent,
    name: String,
    folder: PathBuf,
    startup: Duration,
}

impl Gate {
    /// Whether its job is lent.
    pub(super) fn is_lent(&self) -> bool {
        self.batch.lent.is_some()
    }

    /// Starts its host, unless somebody has, and says when it is gone.
    pub(super) fn see_to_the_host(&mut self) {
        let Some(lent) = self.batch.lent.clone() else { return };
        let starts = matches!(lent.host, LentHost::ByStep) && !self.resumed;
        let care = Care {
            slurm: self.opened.slurm.clone(),
            lent,
            name: self.record.name.to_string(),
            folder: self.opened.papers.path().to_owned(),
            startup: self.batch.startup_timeout,
        };
        let (gone, heard) = mpsc::channel(1);
        let mut carried = self.opened.links.carried();
        tokio::spawn(async move {
            let end = match if starts { care.start(&mut carried).await } else { None } {
                Some(end) => end,
                None => care.until_gone(&mut carried).await,
            };
            // Nobody hears it where the session has ended.
            let _ = gone.send(end).await;
        });
        self.host_gone = Some(heard);
    }

    /// How long Slurm may take to say what became of the job whose host it has ended. One that is lent need not have ended.
    pub(super) fn verdict(&self) -> Duration {
        if self.is_lent() { STEP_VERDICT } else { VERDICT }
    }

    /// Its host has to end before the job's time is over: a job that is lent tells nobody beforehand.
    pub(super) fn look_at_its_time(&mut self) {
        let ends = self.record.job.as_ref().and_then(|job| job.ends_at).filter(|_| self.is_lent());
        let Some(left) = ends.map(|at| at.duration_since(Timestamp::now())) else { return };
        let needs = self.spec.work.stop_grace + MARGIN;
        if let Some(far) = &self.far
            && self.ending.is_none()
            && !self.time_is_told
            && Duration::try_from(left).unwrap_or_default() <= needs
        {
            far.time_is_over();
            self.time_is_told = true;
        }
    }

    /// Its host was looked for in vain. One that has said before how it ended has the last word.
    pub(super) fn host_is_gone(&mut self, gone: End) -> End {
        self.left.take().map_or(gone, |(end, _)| Self::ended_in_a_lent_job(&end))
    }

    /// Somebody has ended the host, and not the job.
    pub(super) fn ended_in_a_lent_job(end: &End) -> End {
        End::Job(format!("it was ended in its job, which goes on: {end}"))
    }

    /// A job that is lent and is to run again has lost what was in it.
    pub(super) fn ended_by_requeue(&self, job: &Job) -> Option<End> {
        let again = self.is_lent() && self.run.is_some() && job.state.is_waiting();
        again.then(|| End::Job(format!("its job {} was queued again", job.id)))
    }
}

impl Care {
    /// Starts the host, and waits until its step has ended. What went wrong, where it never called.
    async fn start(&self, carried: &mut watch::Receiver<bool>) -> Option<End> {
        let (slurm, lent, name) = (self.slurm.clone(), self.lent.clone(), self.name.clone());
        let (folder, begin) = (self.folder.clone(), self.startup);
        let mut step = spawn_blocking(move || run_step(&slurm, &lent, &name, &folder, begin));
        let mut ever = *carried.borrow_and_update();
        let ended = loop {
            tokio::select! {
                ended = &mut step => break ended,
                changed = carried.changed() => match changed {
                    Ok(()) => ever |= *carried.borrow_and_update(),
                    // The session has ended.
                    Err(_) => return std::future::pending().await,
                },
            }
        };
        if ever {
            return None;
        }
        let job = self.lent.job.id;
        Some(match ended {
            Ok(Ok((status, said))) => End::NotSubmitted(format!(
                "its host did not begin in job {job}: {}; what it said is in {}",
                last_words(&said).unwrap_or_else(|| status.to_string()),
                said.display()
            )),
            Ok(Err(why)) => End::NotSubmitted(format!("its host cannot be started in job {job}: {why}")),
            Err(error) => End::Broken(error.to_string()),
        })
    }

    /// Waits until the host is gone. What cannot be seen is no end.
    async fn until_gone(&self, carried: &mut watch::Receiver<bool>) -> End {
        let mut patience = SILENCE;
        loop {
            until(carried, false).await;
            // While there is a connection, there is a host.
            if timeout(patience, until(carried, true)).await.is_ok() {
                patience = SILENCE;
                continue;
            }
            patience = BETWEEN;
            let (slurm, lent, folder) = (self.slurm.clone(), self.lent.clone(), self.folder.clone());
            let there = spawn_blocking(move || {
                let node = lent.job.node.as_deref().unwrap_or_default();
                look::is_there(&slurm, lent.job.id, node, &lent.program, &folder)
            });
            match there.await {
                Ok(Ok(false)) => return self.gone(),
                Ok(Ok(true)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the session's host is silent, and cannot be looked for")
                }
                Err(_) => {}
            }
        }
    }

    /// What is said of a host that is gone: its own last word, where it found no gateway to say it to.
    fn gone(&self) -> End {
        let folder = PrivateFolder::existing(&self.folder).ok().flatten();
        let record = folder.and_then(|folder| read_record(&folder).ok().flatten());
        let its_own = record.filter(|record| record.state == State::Ended).and_then(|record| record.reason);
        let job = &self.lent.job;
        let node = job.node.as_deref().unwrap_or("its node");
        End::Job(its_own.unwrap_or_else(|| {
            format!("its host on {node} is gone: it was killed, or what it was started in has ended; job {} goes on", job.id)
        }))
    }
}

/// Waits until there is a connection, or none; for ever where the session has ended.
async fn until(carried: &mut watch::Receiver<bool>, wanted: bool) {
    if carried.wait_for(|carried| *carried == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Runs the step to its end. Gives srun's status, and where what was said is. Blocks.
fn run_step(
    slurm: &Slurm,
    lent: &Lent,
    name: &str,
    folder: &Path,
    begin: Duration,
) -> Result<(ExitStatus, PathBuf), String> {
    let args = [role::HOST.as_ref(), folder.as_os_str(), Manner::Step.word().as_ref()];
    let node = lent.job.node.as_deref().ok_or("it has no node")?;
    let (job, restarts, program) = (lent.job.id, lent.job.restarts, lent.program.as_path());
    let step = Resident { job, restarts, name, node, program, args: &args, folder, begin };
    let mut srun = slurm.start_in_job(step).map_err(|error| error.to_string())?;
    let status = srun.wait().map_err(|error| error.to_string())?;
    Ok((status, step.output()))
}

/// The last that srun said, or the node.
fn last_words(said: &Path) -> Option<String> {
    let text = fs::read_to_string(said).ok()?;
    let last = text.lines().rev().map(str::trim).find(|line| {
        // That something has failed is known.
        !line.is_empty() && !line.contains("Exited with exit code") && !line.contains("lacks support for")
    })?;
    let said = last.split_once("error: ").map_or(last, |(_, said)| said);
    Some(said.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_ones_that_say_why() {
        let path = std::env::temp_dir().join(format!("shlogin-words-{}", std::process::id()));
        for (text, words) in [
            (
                "srun: error: cluster configuration lacks support for cpu binding\n\
                 slurmstepd-c1: error: execve(): /x: No such file or directory\n\
                 srun: error: c1: task 0: Exited with exit code 2\n",
                Some("execve(): /x: No such file or directory"),
            ),
            (
                "srun: error: Unable to create step for job 3: Job/step already completing or completed\n",
                Some("Unable to create step for job 3: Job/step already completing or completed"),
            ),
            ("\n", None),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(last_words(&path).as_deref(), words);
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(last_words(&path), None);
    }
}
