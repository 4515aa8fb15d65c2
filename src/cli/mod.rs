//! The command line: what a person types, what she sees, and the exit code. Everything below this floor knows neither.

mod args;
mod attach;
mod batch;
mod config;
mod exec;
mod exit;
mod extend;
mod in_allocation;
mod in_job;
mod launchable;
mod logs;
mod output;
mod restart;
mod sessions;
mod share;
mod ssh;
mod start;
mod start_here;
mod stop;
mod stop_lent;
mod table;
mod verify;

use std::process::ExitCode;

use clap::Parser;

pub use args::command;
use args::{Cli, Command};
pub use exit::{Failure, code};

/// Runs the program as a person's command.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let output = output::Output::new(cli.json);
    let done = match cli.command {
        Command::Start(args) => start::start(args, &output),
        Command::List(args) => sessions::list(&args, &output),
        Command::Show(args) => sessions::show(&args, &output),
        Command::Url(args) => sessions::url(&args, &output),
        Command::Forget(args) => sessions::forget(&args, &output),
        Command::Logs(args) => logs::logs(&args, &output),
        Command::Exec(args) => exec::exec(args, &output),
        Command::Shell(args) => exec::shell(&args, &output),
        Command::Share(args) => share::share(*args, &output),
        Command::Ssh(args) => ssh::ssh(args),
        Command::SshConfig(args) => ssh::config(&args, &output),
        Command::KnownHosts(args) => ssh::known_hosts(&args, &output),
        Command::SftpServer(args) => exec::sftp_server(&args, &output),
        Command::Attach(args) => attach::attach(&args, &output),
        Command::Restart(args) => restart::restart(&args, &output),
        Command::Extend(args) => extend::extend(&args, &output),
        Command::Stop(args) => stop::stop(&args, &output),
        Command::Doctor => config::doctor(&output),
        Command::Verify(args) => verify::verify(&args, &output),
        Command::Config(args) => config::config(&args, &output),
        Command::Completions(args) => config::completions(&args),
        Command::Man(args) => config::man(&args),
    };
    match done {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    }
}
