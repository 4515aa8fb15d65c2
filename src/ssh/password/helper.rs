//! The role `@password`: asks PAM about one password, says what came of it, and ends.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::AsFd,
    process::ExitCode,
    time::Duration,
};

use nix::{
    sys::prctl,
    unistd::{User, alarm, geteuid, getuid},
};
use nonstick::{
    AuthnFlags, Conversation, ErrorCode, PamShared, Transaction, TransactionBuilder,
    conv::Exchange,
    items::{Items, ItemsMut},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    sandbox::protocol,
    sys::{
        descriptor::{INHERITED, inherited},
        message,
    },
};

/// How long a helper waits to be told what to do.
const PATIENCE: u32 = 10;

/// What is asked. On its way it is its fields with NULs between them, so that no copy of the password is made that nobody
/// wipes.
pub(super) struct Question<'a> {
    /// After how long the helper gives up by itself.
    pub(super) limit: Duration,
    /// The file in `/etc/pam.d`.
    pub(super) service: &'a str,
    /// The user who runs the helper.
    pub(super) user: &'a str,
    /// Where the client is (`PAM_RHOST`); empty where it has no address.
    pub(super) host: &'a str,
    /// What is to be checked.
    pub(super) password: &'a str,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// It is the user's password, and her account is in order.
    Yes,
    /// Why not, for the log.
    No(String),
}

impl<'a> Question<'a> {
    /// As a message.
    ///
    /// # Errors
    /// Where a field has a NUL in it.
    pub(super) fn encoded(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let limit = self.limit.as_secs().to_string();
        let fields = [&limit, self.service, self.user, self.host, self.password];
        if fields.iter().any(|field| field.contains('\0')) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Never grown, which would leave a copy behind.
        let length = fields.iter().map(|field| field.len() + 1).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        for (number, field) in fields.iter().enumerate() {
            if number > 0 {
                bytes.push(0);
            }
            bytes.extend_from_slice(field.as_bytes());
        }
        Ok(bytes)
    }

    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(bytes).ok()?.split('\0');
        let limit = Duration::from_secs(fields.next()?.parse().ok()?);
        let (service, user, host, password) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        fields.next().is_none().then_some(Self { limit, service, user, host, password })
    }
}

/// The role [`crate::sys::spawn::role::PASSWORD`]. Descriptor 3: the socket to whoever asks. Call it before any thread exists.
pub fn run() -> ExitCode {
    let Ok(socket) = inherited(INHERITED) else { return ExitCode::FAILURE };
    // From here on nobody else of this user's looks into this memory, nor does it go into a core file.
    if prctl::set_dumpable(false).is_err() {
        return ExitCode::FAILURE;
    }
    alarm::set(PATIENCE);
    let mut buffer = Zeroizing::new(vec![0; message::MAX_LEN]);
    let length = match message::receive(socket.as_fd(), &mut buffer) {
        Ok(Some((length, _))) => length,
        _ => return ExitCode::FAILURE,
    };
    let Some(question) = Question::decode(&buffer[..length]) else { return ExitCode::FAILURE };
    // A module may use the alarm for itself; whoever asks has a limit as well.
    alarm::set(u32::try_from(question.limit.as_secs()).unwrap_or(PATIENCE).max(1));
    let verdict = match ask(&question) {
        Ok(()) => Verdict::Yes,
        Err(why) => Verdict::No(why.to_string()),
    };
    match protocol::send(socket.as_fd(), &verdict, &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it is about somebody else than the user who asks")]
    Foreign,
    #[error("PAM has made another user of her")]
    Changed,
    #[error("{what}: {code}")]
    Pam { what: &'static str, code: ErrorCode },
}

fn ask(question: &Question<'_>) -> Result<(), Refused> {
    // pam_unix would say no by itself; other modules ask a server, which knows everybody's passwords.
    let user = User::from_uid(getuid()).ok().flatten();
    if getuid() != geteuid() || user.is_none_or(|user| user.name != question.user) {
        return Err(Refused::Foreign);
    }
    let pam = |what| move |code| Refused::Pam { what, code };
    let answers = Answers { password: question.password };
    let mut transaction = TransactionBuilder::new_with_service(question.service)
        .username(question.user)
        .build(answers)
        .map_err(pam("beginning"))?;
    let host = Some(question.host).filter(|host| !host.is_empty()).map(OsStr::new);
    let mut items = transaction.items_mut();
    let told = items.set_remote_host(host).and_then(|()| items.set_tty_name(Some(OsStr::new("ssh"))));
    drop(items);
    told.map_err(pam("describing the client"))?;
    let flags = AuthnFlags::DISALLOW_NULL_AUTHTOK;
    transaction.authenticate(flags).map_err(pam("the password"))?;
    transaction.account_management(flags).map_err(pam("the account"))?;
    match transaction.items().user() {
        Ok(Some(user)) if user == question.user => Ok(()),
        _ => Err(Refused::Changed),
    }
}

/// Answers what asks for a password, reads over what only tells something, and has no answer to anything else.
struct Answers<'a> {
    password: &'a str,
}

impl Conversation for Answers<'_> {
    fn communicate(&self, messages: &[Exchange<'_>]) {
        for message in messages {
            match message {
                Exchange::MaskedPrompt(prompt) => prompt.set_answer(Ok(OsString::from(self.password))),
                Exchange::Info(told) => told.set_answer(Ok(())),
                Exchange::Error(told) => told.set_answer(Ok(())),
                other => other.set_error(ErrorCode::ConversationError),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nonstick::conv::{InfoMsg, MaskedQAndA, QAndA};

    fn question<'a>(user: &'a str, password: &'a str) -> Question<'a> {
        Question { limit: Duration::from_secs(7), service: "sshd", user, host: "", password }
    }

    #[test]
    fn a_question_arrives_as_it_was_asked() {
        let encoded = question("ada", "pass word\n\"é").encoded().unwrap();
        assert_eq!(encoded.capacity(), encoded.len() + 1, "it was never moved");
        let decoded = Question::decode(&encoded).unwrap();
        assert_eq!((decoded.limit.as_secs(), decoded.service, decoded.user), (7, "sshd", "ada"));
        assert_eq!((decoded.host, decoded.password), ("", "pass word\n\"é"));
        assert!(question("ada\0", "x").encoded().is_err() && question("ada", "x\0y").encoded().is_err());
        for bytes in [&b""[..], b"1\0a\0b\0c", b"1\0a\0b\0c\0d\0e", b"x\0a\0b\0c\0d", b"1\0a\0b\0c\0\xff"] {
            assert!(Question::decode(bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn only_a_prompt_that_hides_what_is_typed_is_answered() {
        let answers = Answers { password: "secret" };
        let (masked, open, told) = (
            MaskedQAndA::new(OsStr::new("Password: ")),
            QAndA::new(OsStr::new("Code: ")),
            InfoMsg::new(OsStr::new("Welcome")),
        );
        answers.communicate(&[masked.exchange(), open.exchange(), told.exchange()]);
        assert_eq!(masked.answer().unwrap(), "secret");
        assert_eq!(open.answer().unwrap_err(), ErrorCode::ConversationError);
        assert!(told.answer().is_ok());
    }

    #[test]
    fn nobody_asks_about_somebody_else() {
        assert!(matches!(ask(&question("surely-nobody", "x")), Err(Refused::Foreign)));
    }
}
