//! The options of a line in `authorized_keys`, as AUTHORIZED_KEYS FILE FORMAT in `sshd(8)` has them.
//!
//! Whatever is not known, or is written wrongly, makes the whole line unusable: what its owner meant to forbid with it is
//! not known. Options for what this server has for nobody (X11, tunnels, `~/.ssh/rc`) are read and change nothing.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    time::{Duration, SystemTime},
};

use jiff::{civil::DateTime, tz::TimeZone};

use super::{
    permits::{HostPort, Permits},
    source::{Addresses, BadAddresses},
};

/// What stands before a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Options {
    /// The key signs certificates, and is none to come in with itself.
    pub(super) authority: bool,
    /// Of the certificates it signs, those for one of these names; `None` for the owner's.
    pub(super) principals: Option<Vec<String>>,
    /// From where the key may be used; `None` for anywhere.
    pub(super) from: Option<Addresses>,
    /// Until when.
    pub(super) expires: Option<SystemTime>,
    /// Whether a security key has to be touched.
    pub(super) touch: bool,
    /// Whether a security key has to verify its user.
    pub(super) verify: bool,
    /// What its holder may do.
    pub(super) permits: Permits,
}

/// Why options can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadOptions {
    #[error("there is an option that sshd(8) does not know")]
    Unknown,
    #[error("an option's value is not in double quotes")]
    Quotes,
    #[error("the option {0} is there twice")]
    Twice(&'static str),
    #[error("the option {0} has a value that is none")]
    Value(&'static str),
    #[error("the option from has a value that is none: {0}")]
    From(#[from] BadAddresses),
}

/// More variables than this are a mistake.
const MAX_VARIABLES: usize = 1024;

impl Options {
    /// Those of a line that has none.
    pub(super) fn none() -> Self {
        Self {
            authority: false,
            principals: None,
            from: None,
            expires: None,
            touch: true,
            verify: false,
            permits: Permits::all(),
        }
    }

    /// Reads the first field of a line.
    pub(super) fn parse(text: &[u8]) -> Result<Self, BadOptions> {
        let mut options = Self::none();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| matches!(byte, b'=' | b',')).unwrap_or(rest.len());
            let name = rest[..end].to_ascii_lowercase();
            rest = &rest[end..];
            match rest.strip_prefix(b"=") {
                // sshd reads over commas with nothing between them.
                None if name.is_empty() => {}
                None => options.flag(&name)?,
                Some(value) => {
                    let value = unquoted(value)?;
                    options.value(&name, value.text)?;
                    rest = value.rest;
                }
            }
            rest = match rest {
                [] => rest,
                [b',', rest @ ..] => rest,
                _ => return Err(BadOptions::Unknown),
            };
        }
        Ok(options)
    }

    fn flag(&mut self, name: &[u8]) -> Result<(), BadOptions> {
        match name {
            b"restrict" => {
                (self.permits.pty, self.permits.agent, self.permits.forwarding) = (false, false, false);
                return Ok(());
            }
            b"cert-authority" => {
                self.authority = true;
                return Ok(());
            }
            _ => {}
        }
        let (on, name) = name.strip_prefix(b"no-").map_or((true, name), |name| (false, name));
        match name {
            b"pty" => self.permits.pty = on,
            b"port-forwarding" => self.permits.forwarding = on,
            b"agent-forwarding" => self.permits.agent = on,
            b"touch-required" => self.touch = on,
            b"verify-required" => self.verify = on,
            b"x11-forwarding" | b"user-rc" => {}
            _ => return Err(BadOptions::Unknown),
        }
        Ok(())
    }

    fn value(&mut self, name: &[u8], value: Vec<u8>) -> Result<(), BadOptions> {
        match name {
            b"command" => once(&mut self.permits.command, OsString::from_vec(value), "command"),
            b"from" => once(&mut self.from, Addresses::patterns(&text(value, "from")?)?, "from"),
            b"principals" => {
                let names = text(value, "principals")?;
                let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                once(&mut self.principals, names, "principals")
            }
            b"expiry-time" => {
                let until = time(&text(value, "expiry-time")?).ok_or(BadOptions::Value("expiry-time"))?;
                self.expires = Some(self.expires.map_or(until, |other| other.min(until)));
                Ok(())
            }
            b"permitopen" => {
                let place = HostPort::to_open(&text(value, "permitopen")?);
                let place = place.ok_or(BadOptions::Value("permitopen"))?;
                self.permits.open.get_or_insert_default().push(place);
                Ok(())
            }
            b"permitlisten" => {
                let place = HostPort::to_listen(&text(value, "permitlisten")?);
                let place = place.ok_or(BadOptions::Value("permitlisten"))?;
                self.permits.listen.get_or_insert_default().push(place);
                Ok(())
            }
            b"environment" => self.variable(&value),
            b"tunnel" if is_tunnel(&value) => Ok(()),
            b"tunnel" => Err(BadOptions::Value("tunnel")),
            _ => Err(BadOptions::Unknown),
        }
    }

    /// Of variables with one name the first counts, as with sshd. One that would choose what code a program runs is left
    /// out: so is every variable with sshd, unless its administrator says `PermitUserEnvironment`.
    fn variable(&mut self, value: &[u8]) -> Result<(), BadOptions> {
        let bad = BadOptions::Value("environment");
        let at = value.iter().position(|byte| *byte == b'=').ok_or(bad)?;
        let (name, value) = (&value[..at], &value[at + 1..]);
        let is_name = !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        if !is_name || self.permits.environment.len() >= MAX_VARIABLES {
            return Err(bad);
        }
        if chooses_code(&String::from_utf8_lossy(name)) {
            tracing::debug!(name = %String::from_utf8_lossy(name), "a key's variable is left out: it chooses code");
            return Ok(());
        }
        let name = OsString::from_vec(name.to_vec());
        if self.permits.environment.iter().all(|(other, _)| *other != name) {
            self.permits.environment.push((name, OsString::from_vec(value.to_vec())));
        }
        Ok(())
    }
}

/// `any`, or the number of a device.
fn is_tunnel(value: &[u8]) -> bool {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i32>().ok());
    value.eq_ignore_ascii_case(b"any") || number.is_some_and(|number| number >= 0)
}

/// Whether a variable makes programs load or run what they would not otherwise, or is how this program and the runtimes
/// it starts are told what to do, or tells a forced command who is there. A forced command is to stay the only one.
pub(super) fn chooses_code(name: &str) -> bool {
    const BEGINNINGS: [&str; 8] =
        ["LD_", "DYLD_", "GLIBC_", "BASH_", "SSH_", "SHLOGIN_", "APPTAINER", "SINGULARITY"];
    const NAMES: [&str; 37] = [
        "BASHOPTS",
        "CDPATH",
        "ENV",
        "FPATH",
        "GCONV_PATH",
        "GETCONF_DIR",
        "GIT_EXEC_PATH",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "HOSTALIASES",
        "IFS",
        "JAVA_TOOL_OPTIONS",
        "LESSOPEN",
        "LOCALDOMAIN",
        "LOCPATH",
        "LUA_INIT",
        "LUA_PATH",
        "NIS_PATH",
        "NLSPATH",
        "NODE_OPTIONS",
        "NODE_PATH",
        "OPENSSL_CONF",
        "PERL5DB",
        "PERL5LIB",
        "PERL5OPT",
        "PERLLIB",
        "PROMPT_COMMAND",
        "PS4",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "RESOLV_HOST_CONF",
        "RES_OPTIONS",
        "RUBYLIB",
        "RUBYOPT",
        "SHELLOPTS",
        "ZDOTDIR",
    ];
    BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) || NAMES.contains(&name)
}

fn once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), BadOptions> {
    if place.replace(value).is_some() { Err(BadOptions::Twice(name)) } else { Ok(()) }
}

fn text(value: Vec<u8>, name: &'static str) -> Result<String, BadOptions> {
    String::from_utf8(value).map_err(|_| BadOptions::Value(name))
}

struct Unquoted<'a> {
    text: Vec<u8>,
    rest: &'a [u8],
}

/// A value in double quotes, in which `\"` is a quote and every other backslash is itself; and what follows it.
fn unquoted(value: &[u8]) -> Result<Unquoted<'_>, BadOptions> {
    let mut rest = value.strip_prefix(b"\"").ok_or(BadOptions::Quotes)?;
    let mut text = Vec::new();
    loop {
        rest = match rest {
            [b'\\', b'"', rest @ ..] => {
                text.push(b'"');
                rest
            }
            [b'"', rest @ ..] => return Ok(Unquoted { text, rest }),
            [byte, rest @ ..] => {
                text.push(*byte);
                rest
            }
            [] => return Err(BadOptions::Quotes),
        };
    }
}

/// "The time may be specified as a YYYYMMDD[Z] date or a YYYYMMDDHHMM[SS][Z] time … interpreted in the system time zone
/// unless suffixed by a Z character" (`sshd(8)`); `UTC` is as good as `Z` (`parse_absolute_time` of OpenSSH).
fn time(text: &str) -> Option<SystemTime> {
    let upper = text.to_ascii_uppercase();
    let utc = upper.strip_suffix("UTC").or_else(|| upper.strip_suffix('Z'));
    let zone = if utc.is_some() { TimeZone::UTC } else { TimeZone::system() };
    let digits = utc.unwrap_or(&upper);
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return None;
    }
    let two = |at: usize| digits.get(at..at + 2).map_or(Some(0), |part| part.parse::<i8>().ok());
    let year = digits[..4].parse::<i16>().ok()?;
    let civil = DateTime::new(year, two(4)?, two(6)?, two(8)?, two(10)?, two(12)?, 0).ok()?;
    let seconds = u64::try_from(civil.to_zoned(zone).ok()?.timestamp().as_second()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, BadOptions> {
        Options::parse(text.as_bytes())
    }

    fn permits(text: &str) -> Permits {
        parse(text).unwrap().permits
    }

    #[test]
    fn a_line_without_restrictions_permits_everything() {
        assert_eq!(Options::none().permits, Permits::all());
        assert_eq!(parse("user-rc,x11-forwarding,tunnel=\"0\"").unwrap(), Options::none());
    }

    #[test]
    fn each_no_takes_one_thing_away() {
        let all = Permits::all();
        assert_eq!(permits("no-pty"), Permits { pty: false, ..all.clone() });
        assert_eq!(permits("no-port-forwarding"), Permits { forwarding: false, ..all.clone() });
        assert_eq!(permits("no-agent-forwarding"), Permits { agent: false, ..all.clone() });
        assert_eq!(permits("no-X11-forwarding,no-user-rc"), all);
    }

    /// "Enable all restrictions", and each positive form "previously disabled by the restrict option".
    #[test]
    fn restrict_takes_everything_away_and_what_follows_gives_back() {
        let none = Permits { pty: false, agent: false, forwarding: false, ..Permits::all() };
        assert_eq!(permits("restrict"), none);
        assert_eq!(permits("restrict,pty"), Permits { pty: true, ..none.clone() });
        assert_eq!(permits("restrict,port-forwarding"), Permits { forwarding: true, ..none.clone() });
        assert_eq!(permits("restrict,agent-forwarding"), Permits { agent: true, ..none.clone() });
        assert_eq!(permits("pty,restrict"), none, "the last one counts");
    }

    /// "Option keywords are case-insensitive."
    #[test]
    fn keywords_have_no_case() {
        assert_eq!(permits("ReStRiCt,PTY,Command=\"a\""), permits("restrict,pty,command=\"a\""));
    }

    /// "A quote may be included in the command by quoting it with a backslash."
    #[test]
    fn a_command_is_taken_out_of_its_quotes() {
        let command = |text: &str| permits(text).command.unwrap().into_string().unwrap();
        assert_eq!(command(r#"command="dump /home""#), "dump /home");
        assert_eq!(command(r#"command="echo \"a, b\" \\ \$x",no-pty"#), r#"echo "a, b" \\ \$x"#);
        assert_eq!(command(r#"command="""#), "");
        assert_eq!(permits(r#"command="a",no-pty"#), Permits { pty: false, ..permits(r#"command="a""#) });
    }

    #[test]
    fn what_sshd_does_not_know_makes_the_line_unusable() {
        for text in [
            "x",
            "pty,x",
            "tunnel=\"x\"",
            "tunnel=\"-1\"",
            "permitopen=\"a:0\"",
            "no-restrict",
            "no-cert-authority",
            "no-no-pty",
            "pty=\"\"",
            "ptyx",
            "x=\"y\"",
            "command",
            "command=",
            "command=a",
            "command=\"a",
            "command=\"a\"b",
            "command=\"a\"pty",
            "command=\"a\",command=\"a\"",
            "from=\"1.2.3.4\",from=\"1.2.3.4\"",
            "from=\"\"",
            "from=\"10.0.0.1/8\"",
            "principals=\"a\",principals=\"b\"",
            "permitopen=\"a\"",
            "permitlisten=\"a\"",
            "environment=\"A\"",
            "environment=\"=b\"",
            "environment=\"A B=c\"",
            "expiry-time=\"tomorrow\"",
            "no-touch-required=\"\"",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for text in ["pty,", ",pty", "pty,,pty"] {
            assert_eq!(parse(text), Ok(Options::none()), "sshd reads over such commas: {text}");
        }
    }

    #[test]
    fn lists_of_places_add_up() {
        let permits = permits(r#"permitopen="a:1",permitopen="b:2",permitlisten="3",permitlisten="[::1]:4""#);
        assert!(permits.may_open("a", 1) && permits.may_open("b", 2) && !permits.may_open("a", 2));
        assert!(permits.may_listen("x", 3) && permits.may_listen("::1", 4) && !permits.may_listen("x", 4));
    }

    #[test]
    fn variables_are_kept_but_not_those_that_choose_code() {
        let text = r#"environment="A=1",environment="A=2",environment="LD_PRELOAD=x",environment="B=a=b""#;
        let expected = [("A", "1"), ("B", "a=b")].map(|(name, value)| (name.into(), value.into()));
        assert_eq!(permits(text).environment, expected);
        for name in ["LD_LIBRARY_PATH", "BASH_ENV", "ENV", "PYTHONPATH", "SSH_CONNECTION", "SHLOGIN_URL"] {
            assert!(chooses_code(name), "{name}");
        }
        for name in ["PATH", "LANG", "EDITOR", "OMP_NUM_THREADS"] {
            assert!(!chooses_code(name), "{name}");
        }
    }

    #[test]
    fn times_are_dates_or_times_here_or_in_utc() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(time("20200102Z"), at(1_577_923_200));
        assert_eq!(time("202001020304Z"), at(1_577_934_240));
        assert_eq!(time("20200102030405z"), at(1_577_934_245));
        assert_eq!(time("20200102030405UTC"), at(1_577_934_245));
        let here = DateTime::new(2020, 1, 2, 3, 4, 5, 0).unwrap().to_zoned(TimeZone::system()).unwrap();
        assert_eq!(time("20200102030405"), at(here.timestamp().as_second().try_into().unwrap()));
        for text in [
            "",
            "Z",
            "2020",
            "20201301Z",
            "20200230Z",
            "202001022500Z",
            "2020010203Z",
            "+2020102Z",
            "19700101Z",
        ] {
            assert_eq!(time(text), None, "{text:?}");
        }
    }

    #[test]
    fn of_two_ends_the_earlier_counts() {
        let options =
            parse(r#"expiry-time="20300101Z",expiry-time="20200102Z",expiry-time="20400101Z""#).unwrap();
        assert_eq!(options.expires, time("20200102Z"));
    }

    #[test]
    fn an_authority_has_names_and_a_security_key_its_demands() {
        let options = parse(r#"cert-authority,principals="a,b,,c d""#).unwrap();
        assert!(options.authority);
        assert_eq!(options.principals.unwrap(), ["a", "b", "c d"]);
        let options = parse("no-touch-required,verify-required").unwrap();
        assert!(!options.touch && options.verify && Options::none().touch);
    }
}
