//! `ssh`, `ssh-config`, `known-hosts`: into a session with the system's own ssh, over the control socket or through the node.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
};

use nix::unistd::{User, getuid};
use russh::keys::PublicKey;
use serde_json::json;

use super::{
    Failure,
    args::{OneArgs, SshArgs, SshConfigArgs},
    output::Output,
    sessions::{connect_to_run, records},
};
use crate::{
    config::{
        HostName, host_name,
        paths::{Durability, state_folder},
    },
    session::{
        Record, SshRecord, State, Which,
        control::{Answer, Request},
    },
    ssh::known_hosts_line,
    sys::message,
};

/// The file of known hosts for `shlogin ssh`, below the state folder.
const KNOWN_HOSTS: &str = "known_hosts";

pub(super) fn ssh(args: SshArgs) -> Result<ExitCode, Failure> {
    let record = records()?.find(&args.name, Which::Live)?;
    if args.stdio {
        return relay(&opened(&record)?).map_err(Failure::io("cannot relay ssh"));
    }
    if args.fdpass {
        let stream = opened(&record)?;
        // One byte comes with it, as ssh expects (`ProxyUseFdpass` of ssh_config(5)).
        message::send(io::stdout().as_fd(), &[0], &[stream.as_fd()])
            .map_err(Failure::io("cannot pass the connection to ssh"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let key = key_of(&record)?;
    let folder = state_folder()?.folder("ssh")?;
    let line = format!("{} {}\n", alias(), key.host_key);
    folder.write(KNOWN_HOSTS, line.as_bytes(), Durability::Passing)?;
    let mut ssh = Command::new("ssh");
    for (name, value) in options(&record, &folder.path().join(KNOWN_HOSTS).display().to_string())? {
        ssh.arg("-o").arg(format!("{name}={value}"));
    }
    if args.tmux {
        ssh.args(["-t", "-o", "SetEnv=SHLOGIN_TMUX=1"]);
    }
    // ssh reads its options on both sides of the destination.
    ssh.arg(record.name.to_string()).args(args.words);
    Err(Failure::io("cannot run ssh")(ssh.exec()))
}

pub(super) fn config(args: &SshConfigArgs, output: &Output) -> Result<ExitCode, Failure> {
    let records = records()?;
    let chosen = match &args.name {
        Some(name) => vec![records.find(name, Which::Live)?],
        None => {
            let mut all = records.all()?;
            // One that is only just starting has no server yet.
            all.retain(|record| record.state != State::Ended && record.ssh.is_some());
            all
        }
    };
    let blocks = chosen.iter().map(|record| block(record, args)).collect::<Result<Vec<_>, _>>()?;
    output.result(&json!({ "config": blocks }), || blocks.join("\n"));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn known_hosts(args: &OneArgs, output: &Output) -> Result<ExitCode, Failure> {
    let record = records()?.find(&args.name, Which::Any)?;
    let ssh = key_of(&record)?;
    let port = ssh.port.ok_or_else(|| Failure::Session(format!("{} has no ssh port", record.name)))?;
    let key = PublicKey::from_openssh(&ssh.host_key)
        .map_err(|error| Failure::Session(format!("the host key of {}: {error}", record.name)))?;
    let names: Vec<HostName> = vec![host_name()];
    let line = known_hosts_line(&key, &names, port);
    output.result(&json!({ "known_hosts": line }), || line.clone());
    Ok(ExitCode::SUCCESS)
}

/// A `Host` block (`ssh_config(5)`).
fn block(record: &Record, args: &SshConfigArgs) -> Result<String, Failure> {
    let key = key_of(record)?;
    let known = format!("/bin/echo {} {}", alias(), key.host_key);
    let mut options = vec![
        ("User", user()?),
        ("HostKeyAlias", alias()),
        ("KnownHostsCommand", known),
        ("UserKnownHostsFile", "none".to_owned()),
        ("StrictHostKeyChecking", "yes".to_owned()),
        ("ProxyCommand", proxy(record, args)?),
    ];
    if args.here {
        options.push(("ProxyUseFdpass", "yes".to_owned()));
    }
    let lines: String = options.iter().map(|(name, value)| format!("    {name} {value}\n")).collect();
    Ok(format!("Host {}.shlogin\n{lines}", record.name))
}

fn proxy(record: &Record, args: &SshConfigArgs) -> Result<String, Failure> {
    let program = myself()?;
    if args.here {
        return Ok(format!("{program} ssh --fdpass {}", record.name));
    }
    let node = args.via.clone().unwrap_or_else(|| host_name().to_string());
    if node.starts_with('-') || !node.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@:[]".contains(&b)) {
        return Err(Failure::Usage(format!("{node:?} is no host that ssh could be told")));
    }
    // The inner ssh is the node's own, with its own keys and configuration.
    Ok(format!("ssh {node} {program} ssh --stdio {}", record.name))
}

/// What the system's ssh is told so that it gets to a session by the control socket, whatever else is configured.
fn options(record: &Record, known_hosts: &str) -> Result<Vec<(&'static str, String)>, Failure> {
    Ok(vec![
        ("User", user()?),
        ("ProxyCommand", format!("{} ssh --fdpass {}", myself()?, record.name)),
        ("ProxyUseFdpass", "yes".to_owned()),
        ("HostKeyAlias", alias()),
        ("UserKnownHostsFile", format!("\"{known_hosts}\"")),
        ("GlobalKnownHostsFile", "none".to_owned()),
        ("StrictHostKeyChecking", "yes".to_owned()),
        ("UpdateHostKeys", "no".to_owned()),
        // There is nothing to prove, and nothing to ask for.
        ("BatchMode", "yes".to_owned()),
    ])
}

/// As which host the key is known: it is the same for all sessions of this user on this node.
fn alias() -> String {
    format!("shlogin.{}", host_name())
}

fn key_of(record: &Record) -> Result<&SshRecord, Failure> {
    let none =
        || Failure::Session(format!("{} has no ssh server: it was started by an older shlogin", record.name));
    record.ssh.as_ref().ok_or_else(none)
}

fn user() -> Result<String, Failure> {
    let user =
        User::from_uid(getuid()).map_err(|errno| Failure::io("cannot tell your name")(errno.into()))?;
    user.map(|user| user.name)
        .ok_or_else(|| Failure::Session("the system does not know your name".to_owned()))
}

/// This program, as a shell reads it in an option of ssh's: quoted, and without the `%` that ssh would take for its own.
fn myself() -> Result<String, Failure> {
    let path: PathBuf = std::env::current_exe().map_err(Failure::io("cannot find this program"))?;
    let path = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    let quoted = if path.bytes().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) };
    Ok(quoted.replace('%', "%%"))
}

/// One end of a connection whose other end speaks ssh for the session.
fn opened(record: &Record) -> Result<UnixStream, Failure> {
    let client = connect_to_run(record)?;
    let (ours, theirs) = UnixStream::pair().map_err(Failure::io("cannot make a socket"))?;
    let lost = || Failure::io(format!("cannot reach the ssh server of {}", record.name));
    client.ask(&Request::Ssh, &[theirs.as_fd()]).map_err(lost())?;
    match client.answer().map_err(lost())? {
        Some(Answer::Started) => Ok(ours),
        _ => Err(Failure::Session(format!("{} has ended", record.name))),
    }
}

/// Standard input to the stream, the stream to standard output, until the stream ends.
fn relay(stream: &UnixStream) -> io::Result<ExitCode> {
    let mut up = stream.try_clone()?;
    // Not waited for: it may sit in a read of standard input until the process goes.
    thread::spawn(move || {
        let _ = copy(&mut io::stdin().lock(), &mut up);
        let _ = up.shutdown(Shutdown::Write);
    });
    // Past the standard library's buffer, which would hold back what has no line's end.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    copy(&mut &*stream, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(buffer.get(..n).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
