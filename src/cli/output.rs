//! What is printed: identities and URLs on stdout, all else on stderr; with `--json`, one value on stdout.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;
use serde_json::json;

use super::Failure;

/// Where and how to print.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// The result: `value` for programs, or `text` for people.
    pub(super) fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        let printed =
            if self.json { serde_json::to_string_pretty(value).unwrap_or_default() } else { text() };
        if !printed.is_empty() {
            // A reader that has gone (`| head`) wants no more.
            let _ = writeln!(io::stdout(), "{}", printed.trim_end_matches('\n'));
        }
    }

    /// Something for people only.
    pub(super) fn note(&self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// A failed command. Returns its exit code.
    pub(super) fn failure(&self, failure: &Failure) -> ExitCode {
        if self.json {
            let (status, tail, log) = match failure {
                Failure::NotStarted { end, tail, log, .. } => (app_status(end), tail.clone(), log.clone()),
                _ => (None, Vec::new(), None),
            };
            let error = json!({ "error": {
                "kind": failure.kind(), "message": failure.to_string(), "code": failure.code(),
                "status": status, "last_lines": tail, "log": log,
            } });
            let _ = writeln!(io::stdout(), "{error:#}");
        } else {
            if let Failure::NotStarted { tail, .. } = failure {
                for line in tail {
                    self.note(format_args!("  | {line}"));
                }
            }
            self.note(format_args!("shlogin: {failure}"));
            if let Failure::NotStarted { log: Some(log), .. } = failure {
                self.note(format_args!("shlogin: its whole log is {log}"));
            }
        }
        failure.into()
    }
}

fn app_status(end: &crate::session::launch::End) -> Option<u8> {
    match end {
        crate::session::launch::End::App(exit) => Some(exit.code()),
        _ => None,
    }
}
