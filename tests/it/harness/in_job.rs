//! Sessions whose app runs in a job of a cluster's, and what they leave where it ran.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;

use super::{
    Session, User,
    cluster::{Cluster, Job, Node},
    place::place,
    program::{Output, Running, bare},
    seconds, until,
};

impl Cluster {
    /// A command that will run the program under test on the login node, where Slurm is this cluster's.
    pub(crate) fn shlogin_command(&self, user: &User, args: &[&str]) -> Command {
        let mut command = self.command_as(user, place().program());
        command.args(args);
        command
    }

    /// Runs it to its end.
    pub(crate) fn shlogin(&self, user: &User, args: &[&str]) -> Output {
        Running::spawn(self.shlogin_command(user, args)).finish(seconds(120))
    }

    /// `start --slurm` with the small app, without an image.
    pub(crate) fn try_bare(&self, user: &User, name: &str, options: &[&str], words: &[&str]) -> Output {
        let words = [words_of_start(), bare(name, options, words)].concat();
        self.shlogin(user, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same, for a session that answers.
    pub(crate) fn start_bare<'u>(
        &self,
        user: &'u User,
        name: &str,
        options: &[&str],
        words: &[&str],
    ) -> Session<'u> {
        Session { user, json: self.try_bare(user, name, options, words).ok().json() }
    }

    /// The same in an image, of `singularity/`.
    pub(crate) fn start_image<'u>(
        &self,
        user: &'u User,
        image: &str,
        options: &[&str],
        words: &[&str],
    ) -> Session<'u> {
        let image = place().image(image).display().to_string();
        let args = [&["start", "--json", "--slurm"], options, &[&image, "--"], words].concat();
        Session { user, json: self.shlogin(user, &args).ok().json() }
    }

    /// Waits until a user has nothing of a live session on the login node, nothing on the nodes, and no job.
    ///
    /// # Panics
    /// With what there still is.
    pub(crate) fn wait_until_nothing_is_left(&self, within: Duration, user: &User) {
        user.wait_until_nothing_is_left(within);
        let start = std::time::Instant::now();
        loop {
            let left = self.left_of(user);
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < within, "after {within:?}, {} still has:\n{left:#?}", user.name);
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn left_of(&self, user: &User) -> Vec<String> {
        let mut left: Vec<String> = self.live_jobs(user).iter().map(|job| format!("{job:?}")).collect();
        for node in Node::ALL {
            let processes = self.processes_of(node, user).into_iter().filter(|process| !process.is_zombie());
            left.extend(processes.map(|process| format!("{}: {process}", node.name())));
            left.extend(self.session_files(node, user).iter().map(|path| path.display().to_string()));
        }
        left
    }

    /// What a user's live sessions have in the folders that a node's users share. The runtime folder itself may stay.
    fn session_files(&self, node: Node, user: &User) -> Vec<PathBuf> {
        let runtime = format!("shlogin-{}", user.uid);
        let inside = |path: PathBuf| {
            if !path.ends_with(&runtime) {
                return vec![path];
            }
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        self.files_of(node, user).into_iter().flat_map(inside).collect()
    }

    /// Her jobs that have not ended.
    pub(crate) fn live_jobs(&self, user: &User) -> Vec<Job> {
        let mut jobs = self.jobs(user);
        jobs.retain(|job| matches!(job.state.as_str(), "PENDING" | "RUNNING" | "COMPLETING" | "CONFIGURING"));
        jobs
    }
}

fn words_of_start() -> Vec<String> {
    ["start", "--json", "--slurm"].map(str::to_owned).to_vec()
}

impl Session<'_> {
    /// The number of its job.
    pub(crate) fn job(&self) -> u32 {
        job_of(&self.show())
    }

    /// Its folder of records.
    pub(crate) fn folder(&self) -> PathBuf {
        PathBuf::from(self.json["log"].as_str().unwrap()).parent().unwrap().to_owned()
    }

    /// What shlogin itself has said of it.
    pub(crate) fn diagnostics(&self) -> String {
        fs::read_to_string(self.folder().join("shlogin.log")).unwrap_or_default()
    }

    /// Waits until its diagnostics say this.
    pub(crate) fn wait_for_diagnostics(&self, within: Duration, words: &str) {
        until(within, &format!("{words:?} in {}", self.diagnostics()), || {
            self.diagnostics().contains(words).then_some(())
        });
    }

    /// All that came out of its job and is no app's.
    pub(crate) fn job_output(&self) -> (PathBuf, String) {
        let path = self.folder().join(format!("slurm-{}.out", self.job()));
        let text = fs::read_to_string(&path).unwrap_or_default();
        (path, text)
    }

    /// Waits until its record says this of its state.
    pub(crate) fn wait_until(&self, within: Duration, state: &str) -> Value {
        until(within, &format!("{} is {state}: {:#}", self.name(), self.show()), || {
            Some(self.show()).filter(|record| record["state"] == state)
        })
    }
}

/// The number of a record's job.
pub(crate) fn job_of(record: &Value) -> u32 {
    let id = &record["job"]["id"];
    let number = id.as_u64().or_else(|| id.as_str().and_then(|text| text.parse().ok()));
    u32::try_from(number.unwrap_or_else(|| panic!("no job in {record:#}"))).unwrap()
}
