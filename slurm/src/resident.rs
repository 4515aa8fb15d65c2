//! Starts a program in a job that is there already, and leaves it there: a step of its own, beside what runs in the job, with
//! all that the job has on its node.
//!
//! srun stays for as long as the step does, and tells by its end that the step has ended. The step does not need it: killed
//! (SIGKILL), as when its machine goes down, srun takes nothing with it, for the node itself writes what the program says.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    io,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use crate::{Slurm, id::JobId, program::ProgramError, step::StepError, submit::Export};

/// A program that is to stay in a job.
#[derive(Clone, Copy, Debug)]
pub struct Resident<'a> {
    /// The job.
    pub job: JobId,
    /// How often it has been started anew, which the program finds in `SLURM_RESTART_COUNT`.
    pub restarts: u32,
    /// What the step is called, where steps are listed.
    pub name: &'a str,
    /// Which of the job's nodes.
    pub node: &'a str,
    /// The program, as that node has it.
    pub program: &'a Path,
    /// Its arguments. They are to be seen by everybody on either node.
    pub args: &'a [&'a OsStr],
    /// The folder for what program and srun say, as [`Resident::output`] has it. Both nodes see it; it is where the program
    /// starts.
    pub folder: &'a Path,
    /// How long Slurm may take to begin.
    pub begin: Duration,
}

impl Resident<'_> {
    /// The file that gets what program and srun say.
    pub fn output(&self) -> PathBuf {
        self.folder.join(format!("slurm-{}.0.out", self.job))
    }

    /// The same as a pattern of srun's. `%t` has the node write it, not srun.
    fn pattern(&self) -> Result<OsString, StepError> {
        let mut word = Vec::new();
        for byte in self.folder.as_os_str().as_bytes() {
            match byte {
                b'\\' => return Err(StepError::Folder(self.folder.to_owned())),
                b'%' => word.extend(b"%%"),
                byte => word.push(*byte),
            }
        }
        word.extend(b"/slurm-%j.%t.out");
        Ok(OsStr::from_bytes(&word).to_owned())
    }

    fn args(&self) -> Result<Vec<OsString>, StepError> {
        let pattern = self.pattern()?;
        let joined = |option: &str, value: &OsStr| {
            let mut word = OsString::from(option);
            word.push(value);
            word
        };
        let mut args = vec![
            format!("--jobid={}", self.job).into(),
            format!("--nodelist={}", self.node).into(),
            format!("--job-name={}", self.name).into(),
            format!("--immediate={}", self.begin.as_secs().max(1)).into(),
            joined("--output=", &pattern),
            joined("--error=", &pattern),
            joined("--chdir=", self.folder.as_os_str()),
        ];
        // All that the job has on the node: its memory, and its processors without a choice among them. Generic resources are
        // the step's without a word.
        let fixed = ["--overlap", "--nodes=1", "--ntasks=1", "--mem=0", "--cpu-bind=none", "--mpi=none"];
        let more = ["--export=ALL", "--input=none", "--open-mode=append", "--quiet"];
        args.extend(fixed.into_iter().chain(more).map(OsString::from));
        args.push(self.program.into());
        args.extend(self.args.iter().map(OsString::from));
        Ok(args)
    }
}

impl Slurm {
    /// Starts it, and gives srun, which is to be waited for. srun and the program get the few variables that a job of
    /// [`Export::Minimal`] has.
    ///
    /// # Errors
    /// As [`StepError`] has them. What Slurm refuses is told by srun's end, and in the file of [`Resident::output`].
    pub fn start_in_job(&self, step: Resident<'_>) -> Result<Child, StepError> {
        let srun = self.srun.as_ref().ok_or(StepError::NoSrun)?;
        let mut command = srun.command();
        command.args(step.args()?).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(appended(&step.output()).map_err(StepError::Output)?);
        // What is sent to whoever asked for it is not meant for the step.
        command.process_group(0);
        for (name, _) in std::env::vars_os() {
            if Export::Minimal.omits(&name) {
                command.env_remove(name);
            }
        }
        if step.restarts > 0 {
            command.env("SLURM_RESTART_COUNT", step.restarts.to_string());
        }
        command.envs(self.conf());
        command.spawn().map_err(|source| srun.not_started(source)).map_err(ProgramError::into)
    }
}

fn appended(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident<'a>(folder: &'a Path, args: &'a [&'a OsStr]) -> Resident<'a> {
        Resident {
            job: "7".parse().unwrap(),
            restarts: 0,
            name: "lab",
            node: "c1",
            program: Path::new("/p/shlogin"),
            args,
            folder,
            begin: Duration::from_secs(300),
        }
    }

    #[test]
    fn its_words_are_the_program_s_and_its_output_is_the_node_s_to_write() {
        let args = [OsStr::new("@host"), OsStr::new("/home/ada/50%j off")];
        let folder = Path::new("/home/ada/50%j off");
        let words = resident(folder, &args).args().unwrap();
        let text: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(text[text.len() - 3..], ["/p/shlogin", "@host", "/home/ada/50%j off"]);
        for word in [
            "--jobid=7",
            "--nodelist=c1",
            "--overlap",
            "--immediate=300",
            "--output=/home/ada/50%%j off/slurm-%j.%t.out",
        ] {
            assert!(text.contains(&word), "{word}: {text:?}");
        }
        assert_eq!(resident(folder, &args).output(), folder.join("slurm-7.0.out"));
        let error = resident(Path::new("/a\\b"), &args).args().unwrap_err();
        assert!(error.to_string().contains("backslashes"), "{error}");
    }
}
