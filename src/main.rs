//! Chooses the role of this process, before any thread exists, and returns its exit code.

use std::process::ExitCode;

use shlogin::{cli, doctor, sandbox, session, sftp, ssh, sys::spawn::role, verify};

fn main() -> ExitCode {
    // A role is run through /proc/self/exe and would be called `exe` in `ps`.
    let _ = nix::sys::prctl::set_name(c"shlogin");
    match std::env::args_os().nth(1).as_deref().and_then(|word| word.to_str()) {
        Some(role::SUPERVISE) => session::run_supervisor(),
        Some(role::KEEPER) => sandbox::run_keeper(),
        Some(role::INIT) => sandbox::run_init(),
        Some(role::PROBE) => doctor::probe_namespaces(),
        Some(role::PASSWORD) => ssh::run_password_helper(),
        Some(role::SFTP) => sftp::run(),
        Some(role::GATE) => session::run_gate(),
        Some(role::HOST) => session::run_host(),
        Some(role::HOST_IN_JOB) => session::run_host_in_job(),
        Some(role::ATTACK) => verify::run_attack(),
        Some(role::ATTACK_IN_JOB) => verify::run_attack_in_job(),
        _ => cli::run(),
    }
}
