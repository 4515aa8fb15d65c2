//! `logs`: what the app has printed, and what it goes on to print.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    process::ExitCode,
};

use serde_json::json;

use super::{
    Failure,
    args::LogsArgs,
    output::Output,
    sessions::{connect, records},
};
use crate::session::{
    Record, State, Which,
    control::{Answer, Client, Request},
};

pub(super) fn logs(args: &LogsArgs, output: &Output) -> Result<ExitCode, Failure> {
    let record = records()?.find(&args.name, Which::Any)?;
    let unreadable = |source| Failure::Io { what: format!("cannot read {}", record.log.display()), source };
    let mut log = File::open(&record.log).map_err(unreadable)?;
    if let Some(lines) = args.tail {
        skip_to_last(&mut log, lines).map_err(unreadable)?;
    }
    if output.is_json() {
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).map_err(unreadable)?;
        let lines: Vec<_> = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
        output.result(&json!({ "name": record.name, "log": record.log, "lines": lines }), String::new);
        return Ok(ExitCode::SUCCESS);
    }
    let mut at = copy(&mut log).map_err(unreadable)?;
    if args.follow && record.state != State::Ended {
        let client = connect(&record)?;
        while let Some(len) = beyond(&client, at).map_err(unreadable)? {
            if len < at {
                // It was rotated: what follows stands in a new file.
                log = File::open(&record.log).map_err(unreadable)?;
            }
            at = copy(&mut log).map_err(unreadable)?;
        }
        drain(&record, at).map_err(unreadable)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until the log is no longer `at` bytes long. `None` where the session has ended.
fn beyond(client: &Client, at: u64) -> io::Result<Option<u64>> {
    match client.call(&Request::LogBeyond { len: at }) {
        Ok(Answer::Log { len }) => Ok(Some(len)),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What came between the last look and the session's end.
fn drain(record: &Record, at: u64) -> io::Result<()> {
    let mut log = File::open(&record.log)?;
    if log.metadata()?.len() >= at {
        log.seek(SeekFrom::Start(at))?;
    }
    copy(&mut log).map(drop)
}

/// Copies from here to the end, and says where that is. A reader that has gone wants no more.
fn copy(log: &mut File) -> io::Result<u64> {
    let mut out = io::stdout().lock();
    match io::copy(log, &mut out).and_then(|_| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => other?,
    }
    log.stream_position()
}

fn skip_to_last(log: &mut File, lines: usize) -> io::Result<()> {
    let mut text = Vec::new();
    BufReader::new(&mut *log).read_to_end(&mut text)?;
    let body = text.strip_suffix(b"\n").unwrap_or(&text);
    let starts = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = match lines {
        0 => text.len(),
        n => starts.map(|(at, _)| at + 1).nth(n - 1).unwrap_or_default(),
    };
    log.seek(SeekFrom::Start(u64::try_from(start).map_err(io::Error::other)?)).map(drop)
}
