//! The app of a session, described: image or none, arguments, environment; and the command lines that follow from it.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{Runtime, image::Scripts};
use crate::{
    sftp::{SftpSpec, View},
    sys::spawn::Program,
    words::RuntimeKind,
};

/// The name of the one instance in a sandbox: each has records of its own, so it need not differ.
const INSTANCE: &str = "session";

/// The app of a session.
#[derive(Clone, Serialize, Deserialize)]
pub struct AppSpec {
    /// The image and what is to be done with it; without one, the node's own filesystem.
    pub container: Option<Container>,
    /// The person's words after `--`, unchanged.
    pub args: Vec<OsString>,
    /// All the environment that a program of hers would have, from where she typed `start`.
    pub env: Vec<(OsString, OsString)>,
    /// What she added by `--env`, which wins over the image's own.
    pub extra_env: Vec<(OsString, OsString)>,
    /// Where the app starts.
    pub cwd: PathBuf,
    /// The person's `umask(2)`.
    pub umask: u32,
}

/// An image in a runtime.
#[derive(Clone, Serialize, Deserialize)]
pub struct Container {
    /// What starts it.
    pub runtime: Runtime,
    /// The image.
    pub image: ImageSpec,
    /// The words after `--` are the command itself, not arguments to the image's script.
    pub exec: bool,
    /// The runtime's own options for its instance: binds, overlays, home, GPUs, `--runtime-arg`.
    pub options: Vec<OsString>,
    /// The runtime's option for the working folder, given with each command.
    pub pwd: Option<PathBuf>,
}

/// An image on this node.
#[derive(Clone, Serialize, Deserialize)]
pub struct ImageSpec {
    /// As the person named it.
    pub named: String,
    /// The SIF or sandbox folder, absolute.
    pub path: PathBuf,
    /// Where the person keeps what can be made again.
    pub cache: PathBuf,
}

/// A command that does not follow from what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// `--exec`, or no image, and no words after `--`.
    #[error("there is no command to run: give one after --")]
    NoCommand,
}

impl AppSpec {
    /// Which runtime it is.
    pub fn runtime(&self) -> RuntimeKind {
        self.container.as_ref().map_or(RuntimeKind::Bare, |container| container.runtime.kind)
    }

    /// How its files are served.
    pub(super) fn files(&self) -> SftpSpec {
        let home = self.env.iter().find(|(name, _)| name == "HOME").map(|(_, value)| PathBuf::from(value));
        SftpSpec {
            view: if self.container.is_some() { View::Container } else { View::Node },
            home: home.unwrap_or_else(|| self.cwd.clone()),
            umask: self.umask,
        }
    }

    /// The command that sets the room up, where there is one. `room` is the runtime's own folder, and
    /// [`Container::script_file`] in it is bound over the image's start script, so that the instance does not run that: an
    /// instance swallows its script's arguments, output and end.
    pub fn room(&self, room: &std::path::Path) -> Option<Program> {
        let container = self.container.as_ref()?;
        let mut argv = container.words(["-s", "instance", "start", "--userns"]);
        argv.extend(container.options.iter().cloned());
        let mut bind = Container::script_file(room).into_os_string();
        bind.push(":/.singularity.d/startscript");
        argv.extend([OsString::from("--bind"), bind]);
        argv.push(container.image.path.clone().into());
        argv.push(INSTANCE.into());
        // The runtime writes this environment to a file, so it is not the app's, only what the runtime reads itself.
        let own = |name: &OsStr| {
            let name = name.to_string_lossy();
            let runtimes = ["APPTAINER", "SINGULARITY"]
                .iter()
                .any(|runtime| name.strip_prefix(runtime).is_some_and(|rest| rest.starts_with('_')));
            runtimes
                || matches!(
                    &*name,
                    "PATH"
                        | "HOME"
                        | "USER"
                        | "LOGNAME"
                        | "LANG"
                        | "LD_LIBRARY_PATH"
                        | "CUDA_VISIBLE_DEVICES"
                )
        };
        let mut env: Vec<_> = self.env.iter().filter(|(name, _)| own(name)).cloned().collect();
        container.add_folders(&mut env, room);
        Some(Program { argv, env, cwd: self.cwd.clone(), umask: self.umask })
    }

    /// The app itself. `session_env` is what shlogin tells it.
    ///
    /// # Errors
    /// Where there is no command.
    pub fn command(
        &self,
        scripts: &Scripts,
        room: &std::path::Path,
        session_env: &[(OsString, OsString)],
    ) -> Result<Program, CommandError> {
        let words = match &self.container {
            Some(container) if !container.exec => {
                let script = scripts.start.as_ref();
                let mut words = match script {
                    Some(script) => {
                        let mut words = script.interpreter();
                        words.push("/.singularity.d/startscript".into());
                        words
                    }
                    None => vec!["/.singularity.d/runscript".into()],
                };
                words.extend(self.args.iter().cloned());
                words
            }
            _ => self.args.clone(),
        };
        self.enter(words, room, session_env)
    }

    /// Any command, in the room and with the environment of the app.
    ///
    /// # Errors
    /// Where `words` is empty.
    pub fn enter(
        &self,
        words: Vec<OsString>,
        room: &std::path::Path,
        session_env: &[(OsString, OsString)],
    ) -> Result<Program, CommandError> {
        if words.is_empty() {
            return Err(CommandError::NoCommand);
        }
        let argv = match &self.container {
            None => words,
            Some(container) => {
                let mut argv = container.enter_words("exec");
                argv.extend(words);
                argv
            }
        };
        Ok(self.with_env(argv, room, session_env))
    }

    /// The runtime's own interactive shell; without a runtime, there is no such thing.
    pub(super) fn shell(&self, room: &std::path::Path, session_env: &[(OsString, OsString)]) -> Program {
        let argv = self.container.as_ref().map(|container| container.enter_words("shell"));
        self.with_env(argv.unwrap_or_default(), room, session_env)
    }

    fn with_env(
        &self,
        argv: Vec<OsString>,
        room: &std::path::Path,
        session_env: &[(OsString, OsString)],
    ) -> Program {
        let ours = || self.extra_env.iter().chain(session_env);
        let replaced = |name: &OsString| ours().any(|(its, _)| its == name);
        let mut env: Vec<_> = self.env.iter().filter(|(name, _)| !replaced(name)).cloned().collect();
        env.extend(ours().cloned());
        if let Some(container) = &self.container {
            // Under this name it wins over what the image sets, and over --cleanenv; and no argv shows it.
            let prefix = container.runtime.env_prefix();
            env.extend(ours().map(|(name, value)| {
                let mut prefixed = OsString::from(format!("{prefix}ENV_"));
                prefixed.push(name);
                (prefixed, value.clone())
            }));
            container.add_folders(&mut env, room);
        }
        Program { argv, env, cwd: self.cwd.clone(), umask: self.umask }
    }
}

impl Container {
    /// The file that stands over the image's start script.
    pub fn script_file(room: &std::path::Path) -> PathBuf {
        room.join("startscript")
    }

    fn words<const N: usize>(&self, words: [&str; N]) -> Vec<OsString> {
        let mut argv = vec![self.runtime.program.clone().into_os_string()];
        argv.extend(words.map(OsString::from));
        argv
    }

    fn enter_words(&self, verb: &str) -> Vec<OsString> {
        let mut argv = self.words(["-s", verb, "--userns"]);
        if let Some(pwd) = &self.pwd {
            argv.extend([OsString::from("--pwd"), pwd.clone().into()]);
        }
        argv.push(format!("instance://{INSTANCE}").into());
        argv
    }

    /// The runtime's records, which hold the environment, belong to the session and go with it.
    fn add_folders(&self, env: &mut Vec<(OsString, OsString)>, room: &std::path::Path) {
        let name = format!("{}_CONFIGDIR", self.runtime.env_prefix());
        env.retain(|(its, _)| *its != *name);
        env.push((name.into(), room.join("runtime").into()));
        // Values reach the app as they are, not as a shell would read them.
        env.push((format!("{}_NO_EVAL", self.runtime.env_prefix()).into(), "1".into()));
    }
}
