//! What sbatch gets: the options of a session's job, from the configuration and the flags, and its script.
//!
//! sbatch takes the last of an option that stands there more than once (tried with 22.05; `--requeue` and `--no-requeue`,
//! `--exclusive` and `--oversubscribe` count as one option each). So the weaker come first: those of every job, of the
//! app, of the partition, then the flags, and at the end ours, which a session can't do without. No secret is in any of it:
//! whoever may look into Slurm's queue and spool sees all.

mod template;

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::Duration,
};

use template::TemplateError;

use super::args::SlurmArgs;
use crate::{
    config::{Config, JobOption, TemplateText},
    words::SessionName,
};

/// What is handed to sbatch.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its options, each in one word.
    pub(super) options: Vec<OsString>,
    /// What it reads on its standard input.
    pub(super) script: String,
}

/// The session that is to run in a job.
pub(super) struct Job<'a> {
    /// Its name, which the job has too.
    pub(super) name: &'a SessionName,
    /// What the app is called, as [`app_name`] has it.
    pub(super) app: &'a str,
    /// This program, by a path that leads to it on a compute node.
    pub(super) program: &'a Path,
    /// The session's folder, on a file system that compute nodes share. Mode 0700: the job's output goes there.
    pub(super) folder: &'a Path,
}

/// Why there is nothing to hand to sbatch.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The script.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The options of a partition would send the job to another.
    #[error("slurm.partitions.{0}.options cannot have a partition: the job would go to another one")]
    Partition(String),
    /// The folder's name would be something else to Slurm.
    #[error("{0:?} cannot be named to Slurm: it takes the backslashes away")]
    Backslash(PathBuf),
}

/// What the host role needs beyond the app's grace to say goodbye and to leave the node tidy.
const MARGIN: Duration = Duration::from_secs(30);

/// The longest time that sbatch takes in `--signal`, in seconds.
const LONGEST_NOTICE: u64 = 65535;

/// Of these sbatch takes one alone, and more are an error, wherever each is from.
const MEMORY: [&str; 3] = ["mem", "mem-per-cpu", "mem-per-gpu"];

impl Batch {
    /// The job of a session. Everything in `config` and `args` has been checked by itself. What the job gets of the
    /// environment is not among the options: whoever calls sbatch says so, and it is next to nothing.
    ///
    /// # Errors
    /// What is wrong with the template, with a path, or between the options.
    pub(super) fn new(
        args: &SlurmArgs,
        config: &Config,
        template: Option<&TemplateText>,
        job: &Job<'_>,
    ) -> Result<Self, BatchError> {
        let script = template::render(template, job.program, job.folder)?;
        let mut options: Vec<OsString> =
            asked(args, config, job.app)?.iter().map(|option| option.as_str().into()).collect();
        // The name comes first: a plugin's option that lacks its value takes the next word, and of these it does least harm.
        options.push(format!("--job-name={}", job.name).into());
        // Both named, for SBATCH_ERROR and SBATCH_INPUT would hold else.
        let output = output(job.folder)?;
        options.extend(["--output=", "--error="].map(|option| joined(option, &output)));
        options.extend(["--open-mode=append", "--input=/dev/null"].map(OsString::from));
        // The folder that it was submitted from need not be there on the node; this one is.
        options.push(joined("--chdir=", job.folder.as_os_str()));
        options.push(format!("--signal=B:USR1@{}", notice(config.stop_grace.duration())).into());
        Ok(Self { options, script })
    }
}

/// What an app is called where options are kept for it: an image by its file's name without folder, extension and tag,
/// else the command by its own.
pub(super) fn app_name(image: Option<&str>, command: &[OsString]) -> String {
    let named = match image {
        Some(uri) if uri.contains("://") => {
            let last = uri.rsplit('/').next().unwrap_or_default();
            return last.split([':', '@']).next().unwrap_or_default().to_owned();
        }
        Some(image) => Path::new(image),
        None => Path::new(command.first().map_or(OsStr::new(""), |word| word)),
    };
    named.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the configuration and the flags ask for, the stronger last.
fn asked(args: &SlurmArgs, config: &Config, app: &str) -> Result<Vec<JobOption>, BatchError> {
    let flags = args.options();
    let mut options = config.slurm.options.clone();
    options.extend(config.slurm.for_app(app).cloned());
    let partition = |option: &JobOption| option.value_of("partition").map(str::to_owned);
    // Several partitions, `a,b`, are no partition of which something could be said.
    if let Some(name) = options.iter().chain(&flags).filter_map(partition).next_back() {
        let of_partition = config.slurm.for_partition(&name);
        if of_partition.iter().any(|option| option.value_of("partition").is_some()) {
            return Err(BatchError::Partition(name));
        }
        options.extend(of_partition.iter().cloned());
    }
    options.extend(flags);
    let is_memory = |option: &JobOption| MEMORY.into_iter().find(|name| option.value_of(name).is_some());
    if let Some(last) = options.iter().rev().find_map(is_memory) {
        options.retain(|option| is_memory(option).is_none_or(|name| name == last));
    }
    Ok(options)
}

/// The job's output, in the session's folder. `%` is sbatch's sign for what it fills in ("filename pattern" in
/// `sbatch(1)`), and `%%` is the character.
fn output(folder: &Path) -> Result<OsString, BatchError> {
    let mut word = Vec::new();
    for byte in folder.as_os_str().as_bytes() {
        match byte {
            b'\\' => return Err(BatchError::Backslash(folder.to_owned())),
            b'%' => word.extend(b"%%"),
            byte => word.push(*byte),
        }
    }
    word.extend(b"/slurm-%j.out");
    Ok(OsString::from_vec(word))
}

fn joined(option: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(option);
    word.push(value);
    word
}

/// How many seconds before the time limit the job is told. Slurm may be early by a minute, and is not late.
fn notice(grace: Duration) -> u64 {
    let whole = grace + MARGIN;
    (whole.as_secs() + u64::from(whole.subsec_nanos() > 0)).min(LONGEST_NOTICE)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::args::{Cli, Command},
        config::{DEFAULT, Partial, Sources},
    };

    /// What the program's own defaults and a user's `slurm` make of these words behind `start --slurm`.
    fn batch_of(slurm: &str, words: &[&str], folder: &str) -> Result<Batch, BatchError> {
        let sources = Sources {
            site: "/dev/null/config.toml".into(),
            site_owner: nix::unistd::geteuid(),
            user: None,
            variables: vec![],
        };
        let user: Partial = toml::from_str(slurm).unwrap();
        let config = sources.resolve(&user).unwrap().config;
        let words = ["shlogin", "start", "--slurm", "/images/jupyter-lab.sif"].iter().chain(words);
        let Command::Start(args) = Cli::try_parse_from(words).unwrap().command else { unreachable!() };
        let name = "lab-2".parse().unwrap();
        let app = app_name(args.image.as_deref(), &args.args);
        let job = Job { name: &name, app: &app, program: Path::new("/p"), folder: Path::new(folder) };
        Batch::new(&args.slurm, &config, None, &job)
    }

    /// How many options are ours.
    const OURS: usize = 7;

    /// The options without ours.
    fn asked_of(slurm: &str, words: &[&str]) -> Vec<String> {
        let batch = batch_of(slurm, words, "/f").unwrap();
        let asked = &batch.options[..batch.options.len() - OURS];
        asked.iter().map(|option| option.to_str().unwrap().to_owned()).collect()
    }

    const SLURM: &str = "
        [slurm]
        options = ['--time=1', '--account=site']
        [slurm.apps.'*']
        options = ['--time=2']
        [slurm.apps.'jupyter*']
        options = ['--time=3', '--mem=3G']
        [slurm.apps.'r*']
        options = ['--time=4']
        [slurm.partitions.gpu]
        options = ['--time=5', '--gres=gpu:1']
        [slurm.partitions.cpu]
        options = ['--time=6']
    ";

    #[test]
    fn ours_come_last_and_are_all_there_is_where_nobody_asks_for_anything() {
        let batch = batch_of("", &["--sbatch=--reboot"], "/home/ada/50%j off").unwrap();
        assert_eq!(
            batch.options,
            [
                "--reboot",
                "--job-name=lab-2",
                "--output=/home/ada/50%%j off/slurm-%j.out",
                "--error=/home/ada/50%%j off/slurm-%j.out",
                "--open-mode=append",
                "--input=/dev/null",
                "--chdir=/home/ada/50%j off",
                "--signal=B:USR1@40",
            ]
        );
        assert_eq!(batch.options.len(), OURS + 1);
        assert!(batch.script.ends_with("exec '/p' @host '/home/ada/50%j off'\n"));
        assert!(batch_of("", &[], "/a\\b").unwrap_err().to_string().contains("backslashes"));
        assert!(DEFAULT.contains("stop_grace = \"10s\""), "40 = 10 + 30");
    }

    #[test]
    fn the_weaker_come_first() {
        let site = ["--time=1", "--account=site", "--time=2", "--time=3", "--mem=3G"];
        assert_eq!(asked_of(SLURM, &[]), site);
        let with = |more: &[&'static str]| [&site[..], more].concat();
        assert_eq!(asked_of(SLURM, &["-t7"]), with(&["--time=7"]));
        assert_eq!(
            asked_of(SLURM, &["-pgpu", "-t7"]),
            with(&["--time=5", "--gres=gpu:1", "--partition=gpu", "--time=7"])
        );
        // The last partition that is named counts, in whichever form, and several are none.
        assert_eq!(
            asked_of(SLURM, &["-pgpu", "--sbatch=-pcpu"]),
            with(&["--time=6", "--partition=gpu", "-pcpu"])
        );
        assert_eq!(asked_of(SLURM, &["-p", "gpu,cpu"]), with(&["--partition=gpu,cpu"]));
    }

    #[test]
    fn a_partition_that_the_configuration_names_has_its_options_too() {
        let slurm =
            "[slurm]\noptions = ['--partition=cpu']\n[slurm.partitions.cpu]\noptions = ['--time=6']\n";
        assert_eq!(asked_of(slurm, &[]), ["--partition=cpu", "--time=6"]);
        assert_eq!(asked_of(slurm, &["-pgpu"]), ["--partition=cpu", "--partition=gpu"]);
        let slurm = "[slurm.partitions.cpu]\noptions = ['-pgpu']\n";
        let error = batch_of(slurm, &["-pcpu"], "/f").unwrap_err().to_string();
        assert!(error.starts_with("slurm.partitions.cpu.options cannot have a partition"), "{error}");
    }

    #[test]
    fn of_the_kinds_of_memory_the_last_stays() {
        assert_eq!(
            asked_of(SLURM, &["--mem-per-cpu=1G"]),
            ["--time=1", "--account=site", "--time=2", "--time=3", "--mem-per-cpu=1G"]
        );
    }

    #[test]
    fn an_app_is_called_by_its_file_or_its_command() {
        for (image, name) in [
            ("/images/jupyter-lab.sif", "jupyter-lab"),
            ("rstudio_4.2.sif", "rstudio_4.2"),
            ("sandbox/", "sandbox"),
            ("docker://quay.io/jupyter/base-notebook:2024.1", "base-notebook"),
            ("docker://r-base@sha256:00", "r-base"),
            ("oras://host:5000/apps/x", "x"),
        ] {
            assert_eq!(app_name(Some(image), &["no".into()]), name);
        }
        assert_eq!(app_name(None, &["/usr/bin/jupyter".into(), "lab".into()]), "jupyter");
        assert_eq!(app_name(None, &[]), "");
    }

    #[test]
    fn the_notice_has_room_for_the_grace_and_fits_sbatch() {
        assert_eq!(notice(Duration::from_millis(1)), 31);
        assert_eq!(notice(Duration::from_secs(86_400)), 65535);
    }
}
