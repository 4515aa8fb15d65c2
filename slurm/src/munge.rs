//! MUNGE credentials: a text that says, to every node with the same key, who made it and when.
//!
//! The munge daemon vouches for the number of the user who asked it, so a process of a job proves to one on another node
//! whose it is, without a secret of its own. Payload and credential go by pipes, never by arguments. The payload is
//! encrypted on the way, and readable to every user of every node of the cluster, unless the credential is for one user.
//!
//! # What is refused
//! [`Munge::decode`] yields nothing of a credential that has expired, or was read before on this node, though unmunge
//! prints it all the same. That it was not read before holds for one node: each daemon remembers its own.

use std::{
    ffi::OsString,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use crate::program::{Answer, Call, Program, ProgramError};

/// Time that the programs have.
const DEADLINE: Duration = Duration::from_secs(10);

/// MUNGE's programs of this node.
#[derive(Clone, Debug)]
pub struct Munge {
    munge: Program,
    unmunge: Program,
    socket: Option<PathBuf>,
    deadline: Duration,
}

/// What a credential says.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credential {
    /// Who made it.
    pub uid: u32,
    /// In which group.
    pub gid: u32,
    /// What was put in.
    pub payload: Vec<u8>,
    /// When it was made, by the clock of the node where it was.
    pub encoded_at: Timestamp,
    /// For how long it is valid from then on.
    pub ttl: Duration,
    /// The node where it was made, as its daemon names it. That may be an address of its loopback.
    pub origin: Option<IpAddr>,
    /// The only user who can read it.
    pub only_for: Option<u32>,
}

/// The payload may be a secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Credential");
        shown.field("uid", &self.uid).field("gid", &self.gid).field("encoded_at", &self.encoded_at);
        shown.field("payload", &format_args!("*** ({} bytes)", self.payload.len())).finish_non_exhaustive()
    }
}

/// Why there is no credential, or it says nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MungeError {
    /// The program was not there, or did not end in time.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The daemon does not answer.
    #[error("the munge daemon cannot be reached: {0}")]
    Unreachable(String),
    /// It was read before, on this node.
    #[error("the credential was used before")]
    Replayed,
    /// It is too old; or the nodes' clocks differ.
    #[error("the credential has expired")]
    Expired,
    /// It is from the future: the nodes' clocks differ.
    #[error("the credential is from the future: the clocks of the nodes differ")]
    Rewound,
    /// It is for another user.
    #[error("the credential is for another user")]
    NotForUs,
    /// It is none, or was made with another key.
    #[error("the credential is not valid: {0}")]
    Invalid(String),
    /// The program refused for another reason.
    #[error("{program} failed: {words}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its own words.
        words: String,
    },
    /// The program's answer has another form than is understood here.
    #[error("the answer of {0} is not understood")]
    Misshapen(&'static str),
}

impl Munge {
    /// Finds the programs, in `folder` or else in PATH (of which relative folders are left out).
    ///
    /// # Errors
    /// [`ProgramError::Missing`] names the first that is not there.
    pub fn find(folder: Option<&Path>) -> Result<Self, ProgramError> {
        Ok(Self {
            munge: Program::find("munge", folder)?,
            unmunge: Program::find("unmunge", folder)?,
            socket: None,
            deadline: DEADLINE,
        })
    }

    /// Asks the daemon of another socket than MUNGE's own default
    /// ([`Config::munge_socket`](crate::Config::munge_socket)).
    #[must_use]
    pub fn with_socket(mut self, socket: impl Into<PathBuf>) -> Self {
        self.socket = Some(socket.into());
        self
    }

    /// Gives each program another time than 10 seconds.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Makes a credential of the user who runs this, valid for `ttl` (at least a second; the daemon may allow less), which
    /// only `only_for` can read, if that is given. (Whoever made it cannot, then, and nor can root.)
    ///
    /// # Errors
    /// As [`MungeError`] has them.
    pub fn encode(&self, payload: &[u8], only_for: Option<u32>, ttl: Duration) -> Result<String, MungeError> {
        // 0 would be the daemon's default, and -1 its maximum.
        let seconds = ttl.as_secs().clamp(1, u64::from(u32::MAX) / 2);
        let mut args = vec![format!("--ttl={seconds}").into()];
        args.extend(only_for.map(|uid| format!("--restrict-uid={uid}").into()));
        let answer = self.run(&self.munge, args, payload)?;
        let text = String::from_utf8(answer.out).map_err(|_| MungeError::Misshapen("munge"))?;
        let credential = text.trim_end();
        let whole = credential.starts_with("MUNGE:") && credential.ends_with(':');
        whole.then(|| credential.to_owned()).ok_or(MungeError::Misshapen("munge"))
    }

    /// Reads a credential, and uses it up for this node.
    ///
    /// # Errors
    /// As [`MungeError`] has them.
    pub fn decode(&self, credential: &str) -> Result<Credential, MungeError> {
        let answer = self.run(&self.unmunge, vec!["--numeric".into()], credential.as_bytes())?;
        read(&answer.out).ok_or(MungeError::Misshapen("unmunge"))
    }

    fn run(&self, program: &Program, mut args: Vec<OsString>, input: &[u8]) -> Result<Answer, MungeError> {
        if let Some(socket) = &self.socket {
            let mut option = OsString::from("--socket=");
            option.push(socket);
            args.push(option);
        }
        let with = vec![("LC_ALL", "C".into())];
        let answer = program.run(Call { args, input, without: &|_| false, with, deadline: self.deadline })?;
        match answer.status.success() {
            true => Ok(answer),
            false => Err(failure(program.name, &answer)),
        }
    }
}

/// The exit status is the number of MUNGE's error (munge(3), enum `munge_err`).
fn failure(program: &'static str, answer: &Answer) -> MungeError {
    let words = answer.words();
    match answer.status.code() {
        Some(6 | 7) => MungeError::Unreachable(words),
        Some(8..=14) => MungeError::Invalid(words),
        Some(15) => MungeError::Expired,
        Some(16) => MungeError::Rewound,
        Some(17) => MungeError::Replayed,
        Some(18) => MungeError::NotForUs,
        // EMUNGE_BAD_ARG: an empty one.
        Some(2) if program == "unmunge" => MungeError::Invalid(words),
        _ => MungeError::Failed { program, words },
    }
}

/// Lines of `KEY: value`, an empty one, and the payload to the end.
fn read(out: &[u8]) -> Option<Credential> {
    let end = out.windows(2).position(|two| two == b"\n\n")?;
    let payload = out.get(end + 2..)?.to_vec();
    let head = std::str::from_utf8(out.get(..end)?).ok()?;
    let value = |key: &str| {
        let line = head.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| *name == key);
        line.map(|(_, value)| value.trim())
    };
    let number = |key| value(key)?.parse::<u32>().ok();
    // Each key has its meaning only in a credential that is good and whole.
    if number("STATUS")? != 0 || usize::try_from(number("LENGTH")?).ok()? != payload.len() {
        return None;
    }
    // One that is there and not understood is not "for everybody".
    let only_for = match value("UID_RESTRICTION") {
        Some(uid) => Some(uid.parse().ok()?),
        None => None,
    };
    Some(Credential {
        uid: number("UID")?,
        gid: number("GID")?,
        payload,
        encoded_at: Timestamp::from_second(value("ENCODE_TIME")?.parse().ok()?).ok()?,
        ttl: Duration::from_secs(number("TTL")?.into()),
        origin: value("ENCODE_HOST").and_then(|host| host.parse().ok()),
        only_for,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `unmunge --numeric` of MUNGE 0.5.15.
    const HEAD: &str = "\
STATUS:          0
ENCODE_HOST:     10.78.0.1
ENCODE_TIME:     1795903632
DECODE_TIME:     1795903632
TTL:             1
CIPHER:          4
MAC:             5
ZIP:             0
UID:             2001
GID:             2001
UID_RESTRICTION: 2002
";

    fn of(length: usize, payload: &str) -> Option<Credential> {
        read(format!("{HEAD}LENGTH:          {length}\n\n{payload}").as_bytes())
    }

    #[test]
    fn a_credential_is_read_to_the_byte() {
        for payload in ["", "hi", "\n\nUID:             0\n", "é\0"] {
            let credential = of(payload.len(), payload).unwrap();
            assert_eq!((credential.uid, credential.gid, credential.only_for), (2001, 2001, Some(2002)));
            assert_eq!(credential.payload, payload.as_bytes());
            assert_eq!(credential.encoded_at.as_second(), 1_795_903_632);
            assert_eq!(credential.origin, Some([10, 78, 0, 1].into()));
        }
    }

    #[test]
    fn what_is_not_whole_says_nothing() {
        assert!(of(3, "hi").is_none() && of(1, "hi").is_none());
        let good = format!("{HEAD}LENGTH:          0\n\n");
        for (from, to) in [
            ("STATUS:          0", "STATUS:          17"),
            ("UID_RESTRICTION: 2002", "UID_RESTRICTION: bob"),
            ("UID:             2001", "UID:             alice (2001)"),
            ("\n\n", "\n"),
        ] {
            assert!(read(good.replace(from, to).as_bytes()).is_none(), "{to}");
        }
        assert!(read(good.as_bytes()).is_some());
    }

    #[test]
    fn a_payload_is_not_shown() {
        let shown = format!("{:?}", of(6, "secret"));
        assert!(!shown.contains("secret") && shown.contains("***"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>(), near in "(STATUS|UID|LENGTH|: |0|\n){0,30}") {
            let _ = (read(&bytes), read(near.as_bytes()));
        }
    }
}
