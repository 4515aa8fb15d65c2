//! `share`: lets one person at a time watch or type in a terminal, says who is let in, and ends it.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use jiff::Zoned;
use nix::unistd::{Uid, User};
use serde_json::json;

use super::{
    Failure,
    args::{Changes, ShareArgs},
    code,
    output::Output,
    sessions::{connect, has_a_place, records},
};
use crate::{
    config::host_name,
    session::{
        Record, Which,
        control::{Answer, Client, Request, ShareSpec},
    },
    share::Guest,
    words::Access,
};

/// How long somebody may stay where nothing else is said.
const USUAL: Duration = Duration::from_secs(30 * 60);
/// How long the session may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn share(args: ShareArgs, output: &Output) -> Result<ExitCode, Failure> {
    let record = records()?.find(&args.name, Which::Live)?;
    let client = connect(&record)?;
    client.be_patient_for(PATIENCE).map_err(Failure::io("cannot ask"))?;
    let lasts = args.lasts.map_or(USUAL, |lasts| lasts.duration());
    if lasts.is_zero() {
        return Err(Failure::Usage("--for 0s: nobody can come in no time".to_owned()));
    }
    let Changes { list, revoke, all, extend } = args.changes;
    if list {
        return show(&ask(&client, &record, &Request::Guests)?, output);
    }
    if let Some(who) = revoke {
        if who.is_some() == all {
            return Err(Failure::Usage("end whose visit? --revoke WHO, or --revoke --all".to_owned()));
        }
        return changed(&ask(&client, &record, &Request::Revoke { who })?, "ended", output);
    }
    if let Some(who) = extend {
        return changed(&ask(&client, &record, &Request::Extend { who, lasts })?, "extended", output);
    }
    has_a_place(&record)?;
    let access = if args.types { Access::Type } else { Access::View };
    if access == Access::Type && !args.yes && !is_granted(&record)? {
        output.note("Nobody was let in.");
        return Ok(code::NO.into());
    }
    let record_to = args.record.map(|file| file.map_or_else(|| usual_file(&record), Ok)).transpose()?;
    let (label, terminal) = (args.label, args.terminal);
    let spec = ShareSpec { access, lasts, label, terminal, record: record_to.clone() };
    let answer = ask(&client, &record, &Request::Share(spec))?;
    let Answer::Shared { guest, terminal, code, url } = answer else { return Err(strange(&record)) };
    let port = record.ssh.as_ref().and_then(|ssh| ssh.port);
    let ssh = port.map(|port| format!("ssh -p {port} pair@{}", record.gateway.host));
    let value = json!({
        "guest": guest, "access": access, "terminal": terminal, "code": code, "url": url, "ssh": ssh,
        "seconds": lasts.as_secs(), "recording": record_to,
    });
    output.result(&value, || url.clone());
    if !output.is_json() {
        let verb = if access == Access::Type { "type in" } else { "watch" };
        output.note(format_args!(
            "One person may {verb} terminal {terminal} for {} minutes, as {guest}: by this URL, or by ssh:",
            lasts.as_secs().div_ceil(60)
        ));
        if let Some(ssh) = ssh {
            output.note(format_args!("  {ssh}      the password is  {code}"));
        }
        if let Some(file) = record_to {
            output.note(format_args!("It is recorded in {}.", file.display()));
        }
        output.note(format_args!("`shlogin share {} --revoke {guest}` ends it.", record.name));
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(client: &Client, record: &Record, request: &Request) -> Result<Answer, Failure> {
    match client.call(request).map_err(Failure::io(format!("cannot ask {}", record.name)))? {
        Answer::Failed { why } => Err(Failure::Session(why)),
        answer => Ok(answer),
    }
}

fn strange(record: &Record) -> Failure {
    Failure::Session(format!("{} gave no answer to that", record.name))
}

fn changed(answer: &Answer, done: &str, output: &Output) -> Result<ExitCode, Failure> {
    let Answer::Changed { visits } = answer else {
        return Err(Failure::Session("the session gave no answer to that".to_owned()));
    };
    output.result(&json!({ done: visits }), String::new);
    if !output.is_json() {
        output.note(match visits {
            0 => "Nobody of that name is let in.".to_owned(),
            1 => format!("1 visit {done}."),
            visits => format!("{visits} visits {done}."),
        });
    }
    Ok(if *visits == 0 { code::NO.into() } else { ExitCode::SUCCESS })
}

/// Asks the owner whether she means it.
fn is_granted(record: &Record) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "whoever may type does so as you, with all your files and rights: say --yes if that is meant"
                .to_owned(),
        ));
    }
    let mut err = io::stderr();
    let asked = write!(
        err,
        "Whoever may type in {} does so as you: they can read, change and delete all your files, here and wherever your\n\
         home folder is, use your keys, and leave something behind that outlasts their visit. Let them? [y/N] ",
        record.name
    );
    let mut answer = String::new();
    asked.and_then(|()| io::stdin().read_line(&mut answer)).map_err(Failure::io("cannot ask"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn usual_file(record: &Record) -> Result<PathBuf, Failure> {
    let folder = std::env::current_dir().map_err(Failure::io("cannot tell the current folder"))?;
    let now = Zoned::now().strftime("%Y-%m-%dT%H%M%S").to_string();
    Ok(folder.join(format!("shlogin-{}-{now}.cast", record.name)))
}

fn show(answer: &Answer, output: &Output) -> Result<ExitCode, Failure> {
    let Answer::Guests { guests } = answer else {
        return Err(Failure::Session("the session gave no answer to that".to_owned()));
    };
    output.result(guests, || table(guests));
    if guests.is_empty() {
        output.note("Nobody is let in.");
    }
    Ok(ExitCode::SUCCESS)
}

fn table(guests: &[Guest]) -> String {
    if guests.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "{:<5} {:<16} {:<5} {:>8} {:>6}  {:<4}  {}\n",
        "GUEST", "WHO", "MAY", "TERMINAL", "LEFT", "HERE", "FROM"
    );
    for guest in guests {
        let from = guest.from.map_or_else(
            || "-".to_owned(),
            |place| match place.uid() {
                Some(uid) => format!("{place} ({})", user(uid)),
                None => place.to_string(),
            },
        );
        text += &format!(
            "{:<5} {:<16} {:<5} {:>8} {:>6}  {:<4}  {from}\n",
            guest.id,
            guest.label.as_deref().unwrap_or("-"),
            if guest.access == Access::Type { "type" } else { "view" },
            guest.terminal,
            format!("{}m", guest.seconds_left.div_ceil(60)),
            if guest.connections > 0 { "yes" } else { "no" },
        );
    }
    text
}

fn user(uid: u32) -> String {
    let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    known.map_or_else(|| format!("user {uid} of {}", host_name()), |user| user.name)
}

/// A file as the person named it, from where she is.
pub(super) fn absolute(file: &str) -> Result<PathBuf, String> {
    std::path::absolute(Path::new(file)).map_err(|error| error.to_string())
}
