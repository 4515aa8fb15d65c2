//! Chooses the role of this process, before any thread exists, and returns its exit code.

use std::process::ExitCode;

use shlogin::{cli, sandbox, session, sys::spawn::role};

fn main() -> ExitCode {
    match std::env::args_os().nth(1).as_deref().and_then(|word| word.to_str()) {
        Some(role::SUPERVISE) => session::run_supervisor(),
        Some(role::KEEPER) => sandbox::run_keeper(),
        Some(role::INIT) => sandbox::run_init(),
        _ => cli::run(),
    }
}
