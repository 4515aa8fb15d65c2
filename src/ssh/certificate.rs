//! Whether an OpenSSH certificate is the owner's: one signed by a key that a `cert-authority` line of her
//! `authorized_keys` has (`PROTOCOL.certkeys` of OpenSSH, `sshd(8)`).
//!
//! What it permits is what both the line and the certificate permit. A certificate without any name in it is refused,
//! since it would be good for every user whose file has the same authority.

use std::{ffi::OsString, time::SystemTime};

use russh::keys::{
    Algorithm, Certificate,
    ssh_key::certificate::{CertType, OptionsMap},
};

use super::{
    authorized_keys::{Entry, Place, Refusal, Why, entries, first_that_permits, is_security_key, is_strong},
    owner::Owner,
    permits::Permits,
    source::{Addresses, BadAddresses, Source},
};

/// Why a certificate does not let its holder in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadCertificate {
    #[error("is signed wrongly, or in a way that is too weak")]
    Signature,
    #[error("is a host's")]
    NotAUsers,
    #[error("is not valid yet, or no longer")]
    Time,
    #[error("is for other names, or for none")]
    Principals,
    #[error("has the critical option {0:?}, which is not known here or has no such value")]
    Critical(String),
    #[error("has a source-address that is none: {0}")]
    Addresses(String),
    #[error("is not to be used from {0}")]
    From(Source),
    #[error("forces another command than the line")]
    Commands,
}

/// What `certificate` lets its holder do who comes from `source`. That they hold its key has been shown before; its
/// signature is checked here.
///
/// # Errors
/// Where it does not let them in.
pub(crate) fn judge(
    owner: &Owner,
    certificate: &Certificate,
    source: &Source,
    now: SystemTime,
) -> Result<Permits, Refusal> {
    judge_by(&entries(owner), &owner.name, certificate, source, now)
}

fn judge_by(
    entries: &[(Place, Entry)],
    name: &str,
    certificate: &Certificate,
    source: &Source,
    now: SystemTime,
) -> Result<Permits, Refusal> {
    let is_its_authority =
        |(_, entry): &&(Place, Entry)| entry.options.authority && entry.key == *certificate.signature_key();
    first_that_permits(entries.iter().filter(is_its_authority), |entry| {
        entry.options.allow_now(source, now)?;
        is_strong(&entry.key)?;
        is_strong(certificate.public_key())?;
        is_genuine(certificate, now)?;
        let demands = Demands::of(certificate, source)?;
        if is_security_key(certificate.public_key()) {
            if demands.verify {
                return Err(Why::Verify);
            }
            if demands.touch {
                return Err(Why::Touch);
            }
            entry.options.demand_nothing()?;
        }
        match &entry.options.principals {
            Some(names) => is_for(certificate, |principal| names.iter().any(|name| name == principal))?,
            None => is_for(certificate, |principal| principal == name)?,
        }
        Ok(both(&entry.options.permits, demands.permits)?)
    })
}

/// Whether the authority has signed it, for a user, and for now.
fn is_genuine(certificate: &Certificate, now: SystemTime) -> Result<(), BadCertificate> {
    // SHA-1, as in "ssh-rsa", is not among sshd's CASignatureAlgorithms either.
    let weak = matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa);
    if weak || certificate.verify_signature().is_err() {
        return Err(BadCertificate::Signature);
    }
    if certificate.cert_type() != CertType::User {
        return Err(BadCertificate::NotAUsers);
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| BadCertificate::Time)?.as_secs();
    if (certificate.valid_after()..certificate.valid_before()).contains(&now) {
        Ok(())
    } else {
        Err(BadCertificate::Time)
    }
}

fn is_for(certificate: &Certificate, fits: impl Fn(&str) -> bool) -> Result<(), BadCertificate> {
    let fits = certificate.valid_principals().iter().any(|principal| fits(principal));
    if fits { Ok(()) } else { Err(BadCertificate::Principals) }
}

/// What a certificate itself says.
struct Demands {
    permits: Permits,
    touch: bool,
    verify: bool,
}

impl Demands {
    /// Reads its critical options and extensions. Of extensions those that are not known are ignored, of critical options
    /// none is.
    fn of(certificate: &Certificate, source: &Source) -> Result<Self, BadCertificate> {
        let has = |name: &str| is_flag(certificate.extensions(), name);
        let mut permits = Permits {
            pty: has("permit-pty"),
            agent: has("permit-agent-forwarding"),
            forwarding: has("permit-port-forwarding"),
            ..Permits::all()
        };
        let mut verify = false;
        for (name, value) in certificate.critical_options().iter() {
            match name.as_str() {
                "force-command" if !value.contains('\0') => {
                    permits.command = Some(OsString::from(value));
                }
                "source-address" => {
                    let bad = |error: BadAddresses| BadCertificate::Addresses(error.to_string());
                    if !Addresses::networks(value).map_err(bad)?.have(source) {
                        return Err(BadCertificate::From(*source));
                    }
                }
                "verify-required" if value.is_empty() => verify = true,
                _ => return Err(BadCertificate::Critical(name.chars().take(64).collect())),
            }
        }
        Ok(Self { permits, touch: !has("no-touch-required"), verify })
    }
}

/// An extension that is there, and has no value: one with a value is not the one that is known.
fn is_flag(extensions: &OptionsMap, name: &str) -> bool {
    extensions.get(name).is_some_and(String::is_empty)
}

/// What the line and the certificate permit alike: "the most restrictive union of the two", and "if a command is specified
/// and a forced-command is embedded … accepted only if the two commands are identical" (`sshd(8)`).
fn both(line: &Permits, certificate: Permits) -> Result<Permits, BadCertificate> {
    if let (Some(one), Some(other)) = (&line.command, &certificate.command)
        && one != other
    {
        return Err(BadCertificate::Commands);
    }
    Ok(Permits {
        pty: line.pty && certificate.pty,
        agent: line.agent && certificate.agent,
        forwarding: line.forwarding && certificate.forwarding,
        command: certificate.command.or_else(|| line.command.clone()),
        ..line.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::{
        authorized_keys::tests::{private, public, text},
        files::tests::Home,
    };
    use russh::keys::ssh_key::certificate::Builder;
    use std::{fs, process::Command, time::Duration};

    const FROM: u64 = 1_000_000;
    const UNTIL: u64 = 2_000_000;

    /// A certificate for key 2, signed by key 1, for ada, with all extensions, after `change`.
    fn certificate(change: impl FnOnce(&mut Builder)) -> Certificate {
        let mut builder = Builder::new([7; 16].to_vec(), public(2).key_data().clone(), FROM, UNTIL).unwrap();
        builder.key_id("ada's").unwrap();
        change(&mut builder);
        builder.sign(&private(1)).unwrap()
    }

    fn usual(builder: &mut Builder) {
        builder.valid_principal("ada").unwrap();
        for name in ["permit-pty", "permit-port-forwarding", "permit-agent-forwarding", "permit-user-rc"] {
            builder.extension(name, "").unwrap();
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn judged_at(options: &str, certificate: &Certificate, now: SystemTime) -> Result<Permits, Refusal> {
        let home = Home::new();
        home.write(".ssh/authorized_keys", format!("{options} {}\n", text(1)));
        judge(&home.0, certificate, &Source::new(Some([10, 0, 0, 1].into())), now)
    }

    fn judged(options: &str, change: impl FnOnce(&mut Builder)) -> Result<Permits, Refusal> {
        judged_at(options, &certificate(change), at(FROM))
    }

    fn bad(options: &str, change: impl FnOnce(&mut Builder)) -> BadCertificate {
        match judged(options, change).unwrap_err() {
            Refusal::Line { why: Why::Certificate(bad), .. } => bad,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_certificate_of_an_authority_comes_in() {
        assert_eq!(judged("cert-authority", usual), Ok(Permits::all()));
        assert_eq!(judged("no-pty", usual), Err(Refusal::Unknown), "the line is no authority");
        let home = Home::new();
        home.write(".ssh/authorized_keys", format!("cert-authority {}\n", text(3)));
        let judged = judge(&home.0, &certificate(usual), &Source::new(None), at(FROM));
        assert_eq!(judged, Err(Refusal::Unknown), "somebody else signed it");
    }

    #[test]
    fn what_has_been_changed_since_it_was_signed_is_refused() {
        let bytes = certificate(usual).to_bytes().unwrap();
        let at_id = bytes.windows(5).position(|part| part == b"ada's").unwrap();
        let mut other = bytes;
        other[at_id] = b'b';
        let forged = Certificate::from_bytes(&other).unwrap();
        let refusal = judged_at("cert-authority", &forged, at(FROM)).unwrap_err();
        assert!(refusal.to_string().contains("signed wrongly"), "{refusal}");
    }

    #[test]
    fn it_counts_from_its_first_to_before_its_last_second() {
        let one = certificate(usual);
        for (now, good) in [(FROM - 1, false), (FROM, true), (UNTIL - 1, true), (UNTIL, false)] {
            assert_eq!(judged_at("cert-authority", &one, at(now)).is_ok(), good, "{now}");
        }
    }

    #[test]
    fn a_host_s_certificate_is_no_user_s() {
        let host = |builder: &mut Builder| {
            builder.cert_type(CertType::Host).unwrap();
            usual(builder);
        };
        assert_eq!(bad("cert-authority", host), BadCertificate::NotAUsers);
    }

    #[test]
    fn it_is_for_its_names_or_for_those_of_the_line() {
        let named = |name: &'static str| {
            move |builder: &mut Builder| {
                builder.valid_principal(name).unwrap();
            }
        };
        assert!(judged("cert-authority", named("ada")).is_ok());
        assert_eq!(bad("cert-authority", named("bob")), BadCertificate::Principals);
        assert_eq!(bad("cert-authority", named("Ada")), BadCertificate::Principals);
        assert!(judged(r#"cert-authority,principals="x,ops""#, named("ops")).is_ok());
        assert_eq!(bad(r#"cert-authority,principals="x,ops""#, named("ada")), BadCertificate::Principals);
        assert_eq!(bad(r#"cert-authority,principals="x,ops""#, named("x,ops")), BadCertificate::Principals);
        assert_eq!(bad(r#"cert-authority,principals="""#, named("ada")), BadCertificate::Principals);
    }

    #[test]
    fn a_certificate_without_names_is_nobody_s() {
        let nameless = |builder: &mut Builder| {
            builder.all_principals_valid().unwrap();
        };
        assert_eq!(bad("cert-authority", nameless), BadCertificate::Principals);
        assert_eq!(bad(r#"cert-authority,principals="ada""#, nameless), BadCertificate::Principals);
    }

    #[test]
    fn what_it_does_not_permit_is_forbidden() {
        let only = |name: &'static str| {
            move |builder: &mut Builder| {
                builder.valid_principal("ada").unwrap();
                if !name.is_empty() {
                    builder.extension(name, "").unwrap();
                }
            }
        };
        let three = |permits: &Permits| (permits.pty, permits.agent, permits.forwarding);
        for (name, expected) in [
            ("", (false, false, false)),
            ("permit-pty", (true, false, false)),
            ("permit-agent-forwarding", (false, true, false)),
            ("permit-port-forwarding", (false, false, true)),
            ("unknown@example.com", (false, false, false)),
        ] {
            assert_eq!(three(&judged("cert-authority", only(name)).unwrap()), expected, "{name}");
        }
    }

    #[test]
    fn the_line_s_own_options_count_as_well() {
        assert!(!judged("cert-authority,no-pty", usual).unwrap().pty);
        assert!(!judged("restrict,cert-authority,pty", usual).unwrap().forwarding);
        let permits = judged(r#"cert-authority,permitopen="a:1",environment="A=1""#, usual).unwrap();
        assert!(permits.may_open("a", 1) && !permits.may_open("b", 1));
        assert_eq!(permits.environment.len(), 1);
        let refusal = judged(r#"cert-authority,from="11.*""#, usual).unwrap_err();
        assert!(refusal.to_string().contains("not to be used from 10.0.0.1"), "{refusal}");
        assert!(judged(r#"cert-authority,expiry-time="19700102Z""#, usual).is_err());
    }

    #[test]
    fn two_forced_commands_must_be_one() {
        let forced = |builder: &mut Builder| {
            usual(builder);
            builder.critical_option("force-command", "date").unwrap();
        };
        assert_eq!(judged("cert-authority", forced).unwrap().command.unwrap(), "date");
        assert_eq!(judged(r#"cert-authority,command="id""#, usual).unwrap().command.unwrap(), "id");
        assert!(judged(r#"cert-authority,command="date""#, forced).is_ok());
        assert_eq!(bad(r#"cert-authority,command="id""#, forced), BadCertificate::Commands);
    }

    #[test]
    fn critical_options_are_known_or_refused() {
        let critical = |name: &'static str, value: &'static str| {
            move |builder: &mut Builder| {
                usual(builder);
                builder.critical_option(name, value).unwrap();
            }
        };
        assert!(judged("cert-authority", critical("source-address", "10.0.0.0/8,::1")).is_ok());
        let from = Source::new(Some([10, 0, 0, 1].into()));
        assert_eq!(
            bad("cert-authority", critical("source-address", "11.0.0.0/8")),
            BadCertificate::From(from)
        );
        for value in ["10.*", "!11.0.0.0/8", "10.0.0.1/8", ""] {
            let bad = bad("cert-authority", critical("source-address", value));
            assert!(matches!(bad, BadCertificate::Addresses(_)), "{value:?}: {bad}");
        }
        for name in ["unknown", "Force-Command", "permit-pty"] {
            assert_eq!(bad("cert-authority", critical(name, "x")), BadCertificate::Critical(name.to_owned()));
        }
        assert!(
            judged("cert-authority", critical("verify-required", "")).is_ok(),
            "means nothing for this key"
        );
    }

    /// Keys and certificates as they are made by OpenSSH itself.
    struct Keygen(Home);

    impl Keygen {
        fn run(&self, words: &[&str]) {
            let output = Command::new("ssh-keygen").args(words).current_dir(self.0.at("")).output().unwrap();
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }

        fn key(&self, name: &str, kind: &[&str]) -> String {
            self.run(&[&["-q", "-N", "", "-f", name, "-t"], kind].concat());
            fs::read_to_string(self.0.at(&format!("{name}.pub"))).unwrap()
        }

        /// What a certificate for `key` gets its holder that `authority` has signed with these options.
        fn judged(&self, authority: &str, key: &str, options: &[&str]) -> Result<Permits, Refusal> {
            let name = format!("{key}.pub");
            self.run(&[&["-q", "-s", authority, "-I", "an id"], options, &[&name]].concat());
            let text = fs::read_to_string(self.0.at(&format!("{key}-cert.pub"))).unwrap();
            let certificate = Certificate::from_openssh(&text).unwrap();
            judge(&self.0.0, &certificate, &Source::new(Some([10, 0, 0, 1].into())), SystemTime::now())
        }
    }

    #[test]
    fn openssh_s_own_certificates_are_understood() {
        let keygen = Keygen(Home::new());
        let mut lines = String::new();
        let authorities: [(&str, &[&str]); 4] = [
            ("ed25519", &["ed25519"]),
            ("ecdsa", &["ecdsa", "-b", "384"]),
            ("rsa", &["rsa", "-b", "2048"]),
            ("small", &["rsa", "-b", "1024"]),
        ];
        for (name, kind) in authorities {
            lines += &format!("cert-authority {}", keygen.key(name, kind));
        }
        keygen.0.write(".ssh/authorized_keys", lines);
        keygen.key("user", &["ed25519"]);
        keygen.key("user-rsa", &["rsa", "-b", "2048"]);
        for authority in ["ed25519", "ecdsa", "rsa"] {
            for user in ["user", "user-rsa"] {
                let judged = keygen.judged(authority, user, &["-n", "bob,ada", "-V", "+1h"]);
                assert_eq!(judged, Ok(Permits::all()), "{authority} {user}");
            }
        }
        let refused = |options: &[&str], why: &str| {
            let said = keygen.judged("ed25519", "user", options).unwrap_err().to_string();
            assert!(said.contains(why), "{options:?}: {said}");
        };
        refused(&[], "none");
        refused(&["-n", "bob"], "other names");
        refused(&["-n", "ada", "-V", "-2h:-1h"], "not valid");
        refused(&["-n", "ada", "-h"], "host");
        refused(&["-n", "ada", "-O", "source-address=11.0.0.0/8"], "10.0.0.1");
        refused(&["-n", "ada", "-O", "critical:other@example.com=x"], "other@example.com");
        let said = keygen.judged("small", "user", &["-n", "ada"]).unwrap_err().to_string();
        assert!(said.contains("weak"), "{said}");
        let forced = ["-n", "ada", "-O", "force-command=date -u", "-O", "source-address=10.0.0.0/8,::1"];
        let permits = keygen.judged("ecdsa", "user", &forced).unwrap();
        assert_eq!(permits, Permits { command: Some("date -u".into()), ..Permits::all() });
        let cleared = ["-n", "ada", "-O", "clear", "-O", "permit-pty"];
        let permits = keygen.judged("rsa", "user", &cleared).unwrap();
        assert_eq!(permits, Permits { agent: false, forwarding: false, ..Permits::all() });
    }
}
