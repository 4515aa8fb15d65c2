//! The grammar: words and options as they are typed, nothing about what they mean.

mod slurm;

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, ArgGroup, Args, CommandFactory, Parser, Subcommand};

pub(super) use slurm::SlurmArgs;

use crate::{
    config::{IdleTimeout, Listen, RuntimeChoice, TimeSpan, Variable},
    share::GuestId,
    words::{Isolation, Network, SessionName, TmpMode},
};

const AFTER: &str = "\
Exit codes: 0 done; 1 the answer is no; 2 wrong usage; 114 Slurm refused the job; 115 Slurm ended the job; 116 no such session; 117 configuration; 118 no pod free; 119 isolation not to be had; 120 name in use; \
121 image; 122 the app ended before it answered; 123 the app did not answer in time; 125 shlogin failed. exec, shell \
and start --foreground end with the status of what they ran.";

/// Starts a Singularity/Apptainer app in a network of its own, behind a token URL.
#[derive(Parser)]
#[command(name = "shlogin", version, after_help = AFTER, disable_help_subcommand = true, infer_subcommands = false)]
pub(super) struct Cli {
    /// Print one JSON value on stdout; errors as {"error": …}
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Start an app and print its URL
    Start(Box<StartArgs>),
    /// List sessions
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one session
    Show(OneArgs),
    /// Print a URL with a new token
    Url(OneArgs),
    /// Print a session's output
    Logs(LogsArgs),
    /// Run a command in a session
    Exec(ExecArgs),
    /// Open a shell in a session
    Shell(OneArgs),
    /// Let a colleague watch or type in a terminal of a session
    Share(Box<ShareArgs>),
    /// Get into a session by ssh, from this node: no port, no key, no password
    Ssh(SshArgs),
    /// Print what ssh has to know to get into sessions, for ~/.ssh/config
    SshConfig(SshConfigArgs),
    /// Print a session's host key, for ~/.ssh/known_hosts
    KnownHosts(OneArgs),
    /// Serve a session's files over SFTP on stdin and stdout
    ///
    /// For programs that speak the protocol, not for people: `sftp -D "shlogin sftp-server NAME"`. What is served is
    /// what the session's programs see.
    #[command(hide = true)]
    SftpServer(OneArgs),
    /// Give a session a gateway here: its first, where it was started in an allocation, or another, where its own is gone and
    /// its job is not
    Attach(OneArgs),
    /// Give a session another job, where Slurm has ended its own
    Restart(RestartArgs),
    /// Give a session's job more time, where the site lets you
    Extend(ExtendArgs),
    /// Stop sessions
    Stop(StopArgs),
    /// Remove the records of ended sessions
    Forget(ForgetArgs),
    /// Say what this machine can do, and what stands in the way
    Doctor,
    /// Attack a running session from outside, and say what held and what did not
    Verify(VerifyArgs),
    /// Show the configuration in force
    Config(ConfigArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print or write the man pages
    Man(ManArgs),
}

#[derive(Args)]
pub(super) struct StartArgs {
    /// A SIF, a sandbox folder, or a URI that the runtime can pull; without one, the node's own filesystem
    pub(super) image: Option<String>,
    /// Arguments for the image's start script (or its run script); with --exec or without an image, the command itself
    #[arg(last = true)]
    pub(super) args: Vec<OsString>,
    /// The session's name [default: from the image or command]
    #[arg(short, long)]
    pub(super) name: Option<SessionName>,
    /// Take the words after -- as the command, not as arguments to the image's script
    #[arg(long, requires = "image")]
    pub(super) exec: bool,
    /// Stay, show the app's output, and end with its status
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// The app's port [default: the first that answers]
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// What the app may reach
    #[arg(long, value_enum)]
    pub(super) network: Option<Network>,
    /// How the app is kept from others on this node
    #[arg(long, value_enum)]
    pub(super) isolation: Option<Isolation>,
    /// Whose /tmp the app sees
    #[arg(long, value_enum)]
    pub(super) tmp: Option<TmpMode>,
    /// What starts the image
    #[arg(long, value_enum)]
    pub(super) runtime: Option<RuntimeChoice>,
    /// Where the gateway listens: all, an address of this host, or unix
    #[arg(long)]
    pub(super) listen: Option<Listen>,
    /// How long the app has until it answers, as in 90s or 2m
    #[arg(long)]
    pub(super) ready_timeout: Option<TimeSpan>,
    /// End it when nobody has used it and it has computed nothing for so long, as in 30m or 2h
    #[arg(long, value_name = "TIME")]
    pub(super) idle_timeout: Option<IdleTimeout>,
    /// Set a variable for the app (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub(super) env: Vec<Variable>,
    /// Let the image see a folder or file of the node (repeatable)
    #[arg(short = 'B', long, value_name = "SRC[:DST[:OPTS]]", action = ArgAction::Append)]
    pub(super) bind: Vec<String>,
    /// Lay a writable or read-only layer over the image (repeatable)
    #[arg(long, value_name = "PATH[:ro]", action = ArgAction::Append)]
    pub(super) overlay: Vec<String>,
    /// Another home folder for the image
    #[arg(short = 'H', long, value_name = "SRC[:DST]", conflicts_with = "no_home")]
    pub(super) home: Option<String>,
    /// Keep the home folder out of the image
    #[arg(long)]
    pub(super) no_home: bool,
    /// Where the app starts
    #[arg(long)]
    pub(super) pwd: Option<PathBuf>,
    /// Give the image NVIDIA's GPUs
    #[arg(long)]
    pub(super) nv: bool,
    /// Give the image AMD's GPUs
    #[arg(long)]
    pub(super) rocm: bool,
    /// Let terminals, by ssh and in the browser, begin in the tmux session `main`, where tmux is there
    #[arg(long)]
    pub(super) tmux: bool,
    /// One more option for the runtime's `instance start` (repeatable)
    #[arg(long, value_name = "OPTION", action = ArgAction::Append, allow_hyphen_values = true)]
    pub(super) runtime_arg: Vec<OsString>,
    #[command(flatten, next_help_heading = "Slurm")]
    pub(super) slurm: SlurmArgs,
}

#[derive(Args)]
pub(super) struct ListArgs {
    /// Ended sessions too
    #[arg(short, long)]
    pub(super) all: bool,
}

#[derive(Args)]
pub(super) struct OneArgs {
    /// The session's name, or as much of it as is unique
    pub(super) name: String,
}

#[derive(Args)]
pub(super) struct LogsArgs {
    /// The session's name, or as much of it as is unique
    pub(super) name: String,
    /// Go on until the session ends
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(super) tail: Option<usize>,
}

#[derive(Args)]
pub(super) struct ExecArgs {
    /// The session's name, or as much of it as is unique
    pub(super) name: String,
    /// The command
    #[arg(last = true, required = true)]
    pub(super) command: Vec<OsString>,
}

#[derive(Args)]
pub(super) struct ShareArgs {
    /// The session's name, or as much of it as is unique
    pub(super) name: String,
    /// They see what is shown (the default)
    #[arg(long, conflicts_with = "types")]
    pub(super) view: bool,
    /// They type as well: with your rights, on all your files
    #[arg(long = "type")]
    pub(super) types: bool,
    /// For how long, as in 30m or 2h [default: 30m]
    #[arg(long = "for", value_name = "TIME")]
    pub(super) lasts: Option<TimeSpan>,
    /// What you call them
    #[arg(long = "as", value_name = "WHO", value_parser = label)]
    pub(super) label: Option<String>,
    /// Which terminal [default: the one last used]
    #[arg(long, value_name = "N")]
    pub(super) terminal: Option<u32>,
    /// Record what is shown, and who types what, as an asciicast [default: a new file here]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, value_parser = super::share::absolute)]
    pub(super) record: Option<Option<PathBuf>>,
    /// With --type: do not ask whether that is meant
    #[arg(short, long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) changes: Changes,
}

/// What is to be done about those who are let in already.
#[derive(Args)]
pub(super) struct Changes {
    /// Say who is let in
    #[arg(short, long, conflicts_with_all = ["revoke", "extend", "types", "record", "label", "terminal"])]
    pub(super) list: bool,
    /// End a visit; with --all, all of them
    #[arg(long, value_name = "WHO", num_args = 0..=1)]
    #[arg(conflicts_with_all = ["extend", "types", "record", "label", "terminal", "lasts"])]
    pub(super) revoke: Option<Option<String>>,
    /// With --revoke: everybody's
    #[arg(long, requires = "revoke")]
    pub(super) all: bool,
    /// Let somebody stay for the time of --for, from now on
    #[arg(long, value_name = "WHO", conflicts_with_all = ["types", "record", "label", "terminal"])]
    pub(super) extend: Option<String>,
}

/// A short name that can be shown anywhere.
fn label(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if text.parse::<GuestId>().is_ok() {
        return Err("g1, g2 and so on are given by the session".to_owned());
    }
    if (1..=32).contains(&text.chars().count()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("up to 32 letters, digits, and . _ - @".to_owned())
    }
}

#[derive(Args)]
pub(super) struct SshArgs {
    /// The session's name, or as much of it as is unique
    pub(super) name: String,
    /// In the tmux session `main`, made where there is none
    #[arg(long, conflicts_with_all = ["stdio", "fdpass"])]
    pub(super) tmux: bool,
    /// Be a ProxyCommand: ssh is spoken on standard input and output
    #[arg(long, conflicts_with = "fdpass")]
    pub(super) stdio: bool,
    /// Be a ProxyCommand with ProxyUseFdpass
    #[arg(long)]
    pub(super) fdpass: bool,
    /// Options of ssh, then a command; without one, a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, conflicts_with_all = ["stdio", "fdpass"])]
    pub(super) words: Vec<OsString>,
}

#[derive(Args)]
pub(super) struct SshConfigArgs {
    /// The session's name, or as much of it as is unique [default: all live sessions]
    pub(super) name: Option<String>,
    /// For use on this node, and not from elsewhere through it
    #[arg(long, conflicts_with = "via")]
    pub(super) here: bool,
    /// How this node is called from there, as ssh is to be told
    #[arg(long, value_name = "HOST")]
    pub(super) via: Option<String>,
}

#[derive(Args)]
#[command(group = ArgGroup::new("which").required(true).args(["names", "all"]))]
pub(super) struct StopArgs {
    /// The sessions' names, or as much of each as is unique
    pub(super) names: Vec<String>,
    /// All live sessions
    #[arg(short, long)]
    pub(super) all: bool,
    /// How long the app has between SIGTERM and SIGKILL, as in 10s
    #[arg(short, long)]
    pub(super) grace: Option<TimeSpan>,
}

#[derive(Args)]
pub(super) struct RestartArgs {
    /// The session's name, or as much of it as is unique
    pub(super) name: String,
    /// Print the URL as soon as the job is submitted, and leave it to itself
    #[arg(long)]
    pub(super) no_wait: bool,
}

#[derive(Args)]
pub(super) struct ExtendArgs {
    /// The session's name, or as much of it as is unique
    pub(super) name: String,
    /// By how much, as in 2h
    #[arg(long, value_name = "TIME")]
    pub(super) by: TimeSpan,
}

#[derive(Args)]
pub(super) struct ForgetArgs {
    /// The sessions' names, or as much of each as is unique
    #[arg(required_unless_present = "all")]
    pub(super) names: Vec<String>,
    /// All ended sessions
    #[arg(short, long, conflicts_with = "names")]
    pub(super) all: bool,
}

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// The session's name, or as much of it as is unique
    pub(super) name: String,
    /// Attack as this user (root only)
    #[arg(long = "as", value_name = "USER")]
    pub(super) attacker: Option<String>,
    /// The session is this user's (root only)
    #[arg(long, value_name = "USER", requires = "attacker")]
    pub(super) owner: Option<String>,
}

#[derive(Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    pub(super) what: ConfigCommand,
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print where the configuration files are
    Path,
    /// Print every setting and where it comes from
    Show,
}

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

#[derive(Args)]
pub(super) struct ManArgs {
    /// Write all pages into this folder instead of printing the first
    pub(super) folder: Option<PathBuf>,
}

/// The grammar, for completions and man pages.
pub fn command() -> clap::Command {
    Cli::command()
}
