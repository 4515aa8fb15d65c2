//! Whether a key is the owner's: the lines of her `~/.ssh/authorized_keys` and `~/.ssh/authorized_keys2`.
//!
//! The rules are sshd's. Lines are tried in their order; one that can't be used, or does not let in whoever is there, is
//! passed over, and the first that does says what may be done. Where this is stricter than sshd's defaults: RSA keys have
//! at least 2048 bits, DSA keys are none, and a security key comes in only by a line that says `no-touch-required` and
//! not `verify-required`, because the ssh library does not show whether it was touched.
//!
//! Reads files, which may be on a file server: call it where waiting is allowed.

use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};

use russh::keys::{PublicKey, ssh_key::public::KeyData};

use super::{
    files,
    options::{BadOptions, Options},
    owner::Owner,
    permits::Permits,
    source::Source,
};

/// The files, below the owner's home (`AuthorizedKeysFile` of `sshd_config(5)`).
const FILES: [&str; 2] = [".ssh/authorized_keys", ".ssh/authorized_keys2"];
/// Longer files are refused, and longer lines skipped: "up to a limit of 8 kilobytes" (`sshd(8)`).
const MAX_FILE: u64 = 1 << 20;
const MAX_LINE: usize = 8 << 10;
/// sshd takes 1024, which has been too few for long.
const MIN_RSA_BITS: u32 = 2048;

/// Why a key or a certificate does not let its holder in: for the log. The stranger is told nothing of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// No line has it.
    #[error("no line of the user's authorized_keys has it")]
    Unknown,
    /// A line has it, and refuses.
    #[error("{place}: {why}")]
    Line {
        /// The first such line.
        place: Place,
        /// Its reason.
        why: Why,
    },
}

/// Why a line refuses what it has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Why {
    /// Of its options `from`.
    #[error("not to be used from {0}")]
    From(Source),
    /// Of its option `expiry-time`.
    #[error("it has expired")]
    Expired,
    /// It is for names, and no authority.
    #[error("principals are for a cert-authority")]
    NoAuthority,
    /// A security key.
    #[error("it has to be touched, which can't be checked here: say no-touch-required")]
    Touch,
    /// A security key.
    #[error("it has to verify its user, which can't be checked here")]
    Verify,
    /// What it is itself.
    #[error("keys of this kind or size are too weak")]
    Weak,
    /// Of the certificate that it signed.
    #[error("its certificate {0}")]
    Certificate(#[from] super::certificate::BadCertificate),
}

/// A line of a file, counted from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    file: Arc<PathBuf>,
    line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What `key` lets its holder do who comes from `source`. That they hold it has been shown before.
///
/// # Errors
/// Where it does not let them in.
pub(crate) fn judge(
    owner: &Owner,
    key: &PublicKey,
    source: &Source,
    now: SystemTime,
) -> Result<Permits, Refusal> {
    judge_by(&entries(owner), key.key_data(), source, now)
}

/// Whether it is worth asking for a proof that somebody holds `key`: it comes in by itself, or it may come in by a
/// certificate. The library shows the key alone while it is merely offered, and not whether a certificate is around it.
pub(crate) fn may_come_in(owner: &Owner, key: &PublicKey, source: &Source, now: SystemTime) -> bool {
    let entries = entries(owner);
    let by_certificate =
        |(_, entry): &(Place, Entry)| entry.options.authority && entry.options.allow_now(source, now).is_ok();
    judge_by(&entries, key.key_data(), source, now).is_ok() || entries.iter().any(by_certificate)
}

fn judge_by(
    entries: &[(Place, Entry)],
    key: &KeyData,
    source: &Source,
    now: SystemTime,
) -> Result<Permits, Refusal> {
    first_that_permits(
        entries.iter().filter(|(_, entry)| !entry.options.authority && entry.key == *key),
        |entry| {
            entry.options.allow_now(source, now)?;
            is_strong(key)?;
            if is_security_key(key) {
                entry.options.demand_nothing()?;
            }
            Ok(entry.options.permits.clone())
        },
    )
}

/// What the first line says that permits; else why the first of them does not.
pub(super) fn first_that_permits<'a>(
    lines: impl Iterator<Item = &'a (Place, Entry)>,
    judge: impl Fn(&Entry) -> Result<Permits, Why>,
) -> Result<Permits, Refusal> {
    let mut refusal = None;
    for (place, entry) in lines {
        match judge(entry) {
            Ok(permits) => return Ok(permits),
            Err(why) => {
                refusal.get_or_insert_with(|| Refusal::Line { place: place.clone(), why });
            }
        }
    }
    Err(refusal.unwrap_or(Refusal::Unknown))
}

impl Options {
    /// Whether a line counts for somebody from `source` now.
    pub(super) fn allow_now(&self, source: &Source, now: SystemTime) -> Result<(), Why> {
        if self.expires.is_some_and(|until| until < now) {
            return Err(Why::Expired);
        }
        // sshd(8) says that they are ignored; sshd refuses (auth_authorise_keyopts).
        if self.principals.is_some() && !self.authority {
            return Err(Why::NoAuthority);
        }
        match &self.from {
            Some(addresses) if !addresses.have(source) => Err(Why::From(*source)),
            _ => Ok(()),
        }
    }

    /// Whether it asks nothing of a security key that can't be checked.
    pub(super) fn demand_nothing(&self) -> Result<(), Why> {
        if self.verify {
            return Err(Why::Verify);
        }
        if self.touch { Err(Why::Touch) } else { Ok(()) }
    }
}

/// Whether a key is one whose signatures tell of a touch (`PROTOCOL.u2f` of OpenSSH).
pub(super) fn is_security_key(key: &KeyData) -> bool {
    key.is_sk_ed25519() || key.is_sk_ecdsa_p256()
}

pub(super) fn is_strong(key: &KeyData) -> Result<(), Why> {
    let strong = match key {
        KeyData::Rsa(key) => key.key_size() >= MIN_RSA_BITS,
        KeyData::Ecdsa(_) | KeyData::Ed25519(_) | KeyData::SkEcdsaSha2NistP256(_) | KeyData::SkEd25519(_) => {
            true
        }
        _ => false,
    };
    if strong { Ok(()) } else { Err(Why::Weak) }
}

/// A line that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) options: Options,
    pub(super) key: KeyData,
}

/// Why a line can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadLine {
    #[error("it is longer than 8 KiB")]
    Long,
    #[error("there is a NUL in it")]
    Nul,
    #[error("there is no key in it")]
    NoKey,
    #[error(transparent)]
    Options(#[from] BadOptions),
}

/// All lines of the owner's files that can be used, in their order. The others, and files that others could have written,
/// are told to the log.
pub(super) fn entries(owner: &Owner) -> Vec<(Place, Entry)> {
    let mut found = Vec::new();
    for name in FILES {
        let path = owner.home.join(name);
        match files::read(&path, owner, MAX_FILE) {
            Ok(Some(content)) => found.extend(usable(&content, path)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "keys are not believed"),
        }
    }
    found
}

fn usable(content: &[u8], path: PathBuf) -> Vec<(Place, Entry)> {
    let file = Arc::new(path);
    let mut found = Vec::new();
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let place = Place { file: Arc::clone(&file), line: number + 1 };
        match parse(line) {
            Ok(Some(entry)) => found.push((place, entry)),
            Ok(None) => {}
            Err(error) => tracing::debug!(%place, %error, "a line is skipped"),
        }
    }
    found
}

/// Reads one line; `None` for an empty one and a comment.
pub(super) fn parse(line: &[u8]) -> Result<Option<Entry>, BadLine> {
    if line.len() > MAX_LINE {
        return Err(BadLine::Long);
    }
    let line = line.trim_ascii();
    if matches!(line, [] | [b'#', ..]) {
        return Ok(None);
    }
    if line.contains(&0) {
        return Err(BadLine::Nul);
    }
    if let Some(key) = key(line) {
        return Ok(Some(Entry { options: Options::none(), key }));
    }
    let (options, rest) = line.split_at(end_of_options(line));
    let key = key(rest.trim_ascii_start()).ok_or(BadLine::NoKey)?;
    Ok(Some(Entry { options: Options::parse(options)?, key }))
}

/// The key that a text begins with: its type, its base64, and maybe a comment, which nobody looks at.
fn key(text: &[u8]) -> Option<KeyData> {
    let mut words = text.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let (kind, blob) = (words.next()?, words.next()?);
    // A certificate is no key, and what is no key type at all is not to be decoded.
    let is_type = kind.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'@' | b'.'));
    if !is_type || kind.windows(6).any(|part| part == b"-cert-") {
        return None;
    }
    let text = format!("{} {}", std::str::from_utf8(kind).ok()?, std::str::from_utf8(blob).ok()?);
    let key = PublicKey::from_openssh(&text).ok()?;
    let known = !key.key_data().is_other() && !key.key_data().is_certificate();
    known.then(|| key.key_data().clone())
}

/// Where the first space is that stands in no quotes.
fn end_of_options(line: &[u8]) -> usize {
    let (mut at, mut quoted) = (0, false);
    while let Some(byte) = line.get(at) {
        match byte {
            b' ' | b'\t' if !quoted => break,
            b'\\' if line.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => quoted = !quoted,
            _ => {}
        }
        at += 1;
    }
    at.min(line.len())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ssh::files::tests::Home;
    use russh::keys::{PrivateKey, ssh_key::private::Ed25519Keypair};
    use std::time::Duration;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    /// A key of its own for each number.
    pub(in crate::ssh) fn private(number: u8) -> PrivateKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32]))
    }

    pub(in crate::ssh) fn public(number: u8) -> PublicKey {
        private(number).public_key().clone()
    }

    /// As it stands in a file.
    pub(in crate::ssh) fn text(number: u8) -> String {
        public(number).to_openssh().unwrap()
    }

    fn from(address: &str) -> Source {
        Source::new(Some(address.parse().unwrap()))
    }

    fn judge_text(file: &str, key: &PublicKey) -> Result<Permits, Refusal> {
        judge_by(&usable(file.as_bytes(), "keys".into()), key.key_data(), &from("10.0.0.1"), NOW)
    }

    fn why(file: &str, key: &PublicKey) -> String {
        judge_text(file, key).unwrap_err().to_string()
    }

    const SECURITY_KEY: &str = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo=";

    #[test]
    fn a_key_in_the_file_comes_in_and_no_other() {
        let file = format!("# a comment\n\n  \t\n{} ada@laptop\n{}\n", text(1), text(2));
        assert_eq!(judge_text(&file, &public(1)), Ok(Permits::all()));
        assert_eq!(judge_text(&file, &public(2)), Ok(Permits::all()));
        assert_eq!(judge_text(&file, &public(3)), Err(Refusal::Unknown));
        assert_eq!(judge_text(&format!("#{}", text(1)), &public(1)), Err(Refusal::Unknown));
        assert_eq!(judge_text("", &public(1)), Err(Refusal::Unknown));
    }

    #[test]
    fn fields_may_stand_apart_and_lines_may_end_like_in_dos() {
        let key = text(1).replace(' ', " \t ");
        for line in [format!("\t {key}\r\n"), format!("restrict,pty \t {key} a comment \"with quotes\r")] {
            assert!(judge_text(&line, &public(1)).unwrap().pty, "{line:?}");
        }
    }

    #[test]
    fn options_end_at_the_first_space_outside_quotes() {
        let line = format!(r#"command="echo \" a  b",no-pty {} comment"#, text(1));
        let permits = judge_text(&line, &public(1)).unwrap();
        assert_eq!(permits.command.unwrap(), r#"echo " a  b"#);
        assert!(!permits.pty);
        for options in ["command=\"a", "command=\"a\\\"", "no-pty, no-pty", "no-pty no-pty", "unknown"] {
            let line = format!("{options} {}", text(1));
            assert_eq!(judge_text(&line, &public(1)), Err(Refusal::Unknown), "{line}");
        }
    }

    #[test]
    fn a_line_that_can_t_be_used_hides_no_other() {
        let long = format!("command=\"{}\" {}", "x".repeat(MAX_LINE), text(1));
        assert_eq!(parse(long.as_bytes()), Err(BadLine::Long));
        let file = format!(
            "garbage\nunknown {0}\n{long}\nno-pty\nssh-ed25519 AAAA\n\0 {0}\nno-pty {0}\n{0}",
            text(1)
        );
        let permits = judge_text(&file, &public(1)).unwrap();
        assert!(!permits.pty, "the first that can be used counts");
    }

    #[test]
    fn bytes_that_are_no_text_matter_in_a_comment_as_little_as_any() {
        let mut line = format!("{} ", text(1)).into_bytes();
        line.extend([0xff, 0xfe, b'"']);
        assert_eq!(parse(&line).unwrap().unwrap().key, *public(1).key_data());
    }

    #[test]
    fn a_line_counts_only_from_where_and_until_when_it_says() {
        let line = |options: &str| format!("{options} {}", text(1));
        assert!(judge_text(&line(r#"from="10.0.0.0/8""#), &public(1)).is_ok());
        assert_eq!(why(&line(r#"from="11.0.0.0/8""#), &public(1)), "keys:1: not to be used from 10.0.0.1");
        let entries = usable(line(r#"expiry-time="20200101Z""#).as_bytes(), "keys".into());
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
        let at = |now| judge_by(&entries, public(1).key_data(), &from("10.0.0.1"), now);
        assert!(at(end).is_ok(), "a time after which the key will not be accepted");
        assert!(at(end + Duration::from_secs(1)).unwrap_err().to_string().contains("expired"));
        let two = format!("{}\n{}", line(r#"from="11.0.0.0/8""#), line("no-pty"));
        assert!(!judge_text(&two, &public(1)).unwrap().pty, "another line may let in");
    }

    #[test]
    fn an_authority_is_no_key_to_come_in_with() {
        assert_eq!(judge_text(&format!("cert-authority {}", text(1)), &public(1)), Err(Refusal::Unknown));
        let line = format!(r#"principals="ada" {}"#, text(1));
        assert!(why(&line, &public(1)).contains("cert-authority"));
    }

    /// Whether it was touched can't be seen, and a touch is what is asked for by default.
    #[test]
    fn a_security_key_comes_in_only_where_nothing_is_asked_of_it() {
        let key = PublicKey::from_openssh(SECURITY_KEY).unwrap();
        assert!(why(SECURITY_KEY, &key).contains("touched"));
        assert!(judge_text(&format!("no-touch-required {SECURITY_KEY}"), &key).is_ok());
        assert!(why(&format!("no-touch-required,verify-required {SECURITY_KEY}"), &key).contains("verify"));
        assert!(
            judge_text(&format!("verify-required {}", text(1)), &public(1)).is_ok(),
            "means nothing there"
        );
    }

    #[test]
    fn weak_keys_do_not_come_in() {
        use russh::keys::ssh_key::{Mpint, public::RsaPublicKey};
        let rsa = |bytes: usize| {
            let n = Mpint::from_positive_bytes(&vec![0xc1; bytes]);
            let e = Mpint::from_positive_bytes(&[1, 0, 1]);
            PublicKey::from(KeyData::Rsa(RsaPublicKey::new(e, n).unwrap()))
        };
        let judged = |key: &PublicKey| judge_text(&key.to_openssh().unwrap(), key);
        assert!(judged(&rsa(256)).is_ok());
        assert!(judged(&rsa(128)).unwrap_err().to_string().contains("weak"));
    }

    #[test]
    fn certificates_in_the_file_are_no_keys() {
        let kind = "ssh-ed25519-cert-v01@openssh.com";
        assert_eq!(parse(text(1).replace("ssh-ed25519", kind).as_bytes()), Err(BadLine::NoKey));
    }

    #[test]
    fn both_files_count_and_only_those_that_others_can_t_write() {
        let home = Home::new();
        let judged = |number| judge(&home.0, &public(number), &from("10.0.0.1"), NOW);
        assert_eq!(judged(1), Err(Refusal::Unknown), "there is no file at all");
        home.write(".ssh/authorized_keys", text(1));
        home.write(".ssh/authorized_keys2", format!("no-pty {}\nno-pty {}", text(1), text(2)));
        assert!(judged(1).unwrap().pty && !judged(2).unwrap().pty);
        std::fs::set_permissions(
            home.at(".ssh/authorized_keys"),
            std::os::unix::fs::PermissionsExt::from_mode(0o660),
        )
        .unwrap();
        assert!(!judged(1).unwrap().pty, "the first file is not believed any more");
    }

    #[test]
    fn a_proof_is_asked_for_where_a_key_or_a_certificate_may_let_in() {
        let home = Home::new();
        let asked = |number| may_come_in(&home.0, &public(number), &from("10.0.0.1"), NOW);
        home.write(".ssh/authorized_keys", format!("{}\n", text(1)));
        assert!(asked(1) && !asked(2));
        home.write(".ssh/authorized_keys", format!("cert-authority {}\n", text(1)));
        assert!(asked(2));
        home.write(".ssh/authorized_keys", format!("cert-authority,from=\"11.*\" {}\n", text(1)));
        assert!(!asked(2));
    }
}
