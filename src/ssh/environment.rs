//! What a client may say of the environment of its programs: names and values that a program takes for what they are, and
//! none that makes it run something.

use std::{ffi::OsString, net::SocketAddr};

/// The most variables of one channel.
const MOST: usize = 64;
/// The longest value, in bytes.
const LONGEST: usize = 1024;
/// What a terminal is called that has no proper name.
const PLAIN: &str = "xterm";

/// The variables that a client has set for one channel.
#[derive(Default)]
pub(super) struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// Takes a variable, if it is one of those that a client may set.
    pub(super) fn set(&mut self, name: &str, value: &str) -> bool {
        let may = is_allowed(name) && value.len() <= LONGEST && !value.contains('\0');
        if !may {
            return false;
        }
        self.0.retain(|(its, _)| its != name);
        if self.0.len() == MOST {
            return false;
        }
        self.0.push((name.into(), value.into()));
        true
    }

    pub(super) fn into_vec(self) -> Vec<(OsString, OsString)> {
        self.0
    }
}

fn is_allowed(name: &str) -> bool {
    let locale = name.strip_prefix("LC_").is_some_and(|rest| {
        (1..=32).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
    });
    locale || matches!(name, "LANG" | "LANGUAGE" | "COLORTERM" | "TERM_PROGRAM" | "SHLOGIN_TMUX")
}

/// `TERM`, from what a client calls its terminal: a name of a terminfo entry, and no path to one.
pub(super) fn term(name: &str) -> &str {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let goes_on = bytes.all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
    if begins && goes_on && name.len() <= 64 { name } else { PLAIN }
}

/// Where a connection comes from and where it arrived, as programs look for it; for one that has no addresses, what sshd
/// says then.
pub(super) fn of_connection(from: Option<SocketAddr>, to: Option<SocketAddr>) -> Vec<(OsString, OsString)> {
    let words = |address: Option<SocketAddr>| match address {
        Some(address) => (address.ip().to_canonical().to_string(), address.port()),
        None => ("UNKNOWN".to_owned(), 65535),
    };
    let ((client, client_port), (server, server_port)) = (words(from), words(to));
    vec![
        ("SSH_CLIENT".into(), format!("{client} {client_port} {server_port}").into()),
        ("SSH_CONNECTION".into(), format!("{client} {client_port} {server} {server_port}").into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threat 38.
    #[test]
    fn threat_38_nothing_that_runs_something_is_taken() {
        let mut environment = Environment::default();
        for name in [
            "LD_PRELOAD",
            "BASH_ENV",
            "ENV",
            "PATH",
            "SHELL",
            "TERM",
            "LC_",
            "LC_A=B",
            "LC_ALL\0",
            "lc_all",
            "IFS",
            "",
        ] {
            assert!(!environment.set(name, "x"), "{name}");
        }
        assert!(!environment.set("LANG", "a\0b") && !environment.set("LANG", &"x".repeat(LONGEST + 1)));
        assert!(
            environment.set("LANG", "C.UTF-8")
                && environment.set("LC_TIME", "de_DE")
                && environment.set("LANG", "C")
        );
        assert_eq!(environment.0.len(), 2);
        for n in 0..100 {
            let name = format!("LC_{}", "A".repeat(n % 32 + 1));
            environment.set(&name, "x");
        }
        assert!(environment.into_vec().len() <= MOST);
    }

    /// Threat 38.
    #[test]
    fn threat_38_a_terminal_has_a_name_and_no_path() {
        for odd in ["", "../../tmp/evil", "/tmp/x", "-x", "xterm;id", "a b", "\u{1b}[0m", &"x".repeat(65)] {
            assert_eq!(term(odd), PLAIN, "{odd:?}");
        }
        for good in ["xterm-256color", "screen.xterm-256color", "vt100", "rxvt-unicode+x"] {
            assert_eq!(term(good), good);
        }
    }

    #[test]
    fn a_connection_is_named_as_sshd_names_it() {
        let from = "[::ffff:10.1.2.3]:4000".parse().ok();
        let to = "[::ffff:10.1.2.4]:3030".parse().ok();
        let env = of_connection(from, to);
        assert_eq!(env[0].1, "10.1.2.3 4000 3030");
        assert_eq!(env[1].1, "10.1.2.3 4000 10.1.2.4 3030");
        assert_eq!(of_connection(None, None)[1].1, "UNKNOWN 65535 UNKNOWN 65535");
    }
}
