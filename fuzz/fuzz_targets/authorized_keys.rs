//! A line of `authorized_keys` never lets in more than it says, and nothing in it makes the reader fail.
//!
//! The input is a line. In it, `~` stands for a key, so that what stands before and after is what is searched for. What is
//! not a line by itself is tried as the options of one, and as the list of a `from=`.
#![no_main]

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use libfuzzer_sys::fuzz_target;
use shlogin::ssh::fuzzing::{self, Line};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

fuzz_target!(|data: &[u8]| {
    let mut line = Vec::new();
    for byte in data {
        match byte {
            b'~' => line.extend(KEY.as_bytes()),
            byte => line.push(*byte),
        }
    }
    if let Some(line) = fuzzing::line(&line) {
        always(&line);
        let again = fuzzing::line(line.key().as_bytes()).expect("a key is written so that it can be read");
        assert!(again.is_bare() && again.key() == line.key());
    }
    as_options(data);
    if let Ok(list) = std::str::from_utf8(data) {
        as_list(list);
    }
});

fn addresses() -> [IpAddr; 3] {
    [[10, 0, 0, 1].into(), [192, 168, 0, 7].into(), "2001:db8::1".parse().unwrap()]
}

/// What holds for every line that can be used.
fn always(line: &Line) {
    for name in line.variables() {
        assert!(!fuzzing::chooses_code(&name), "{name:?}");
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name:?}");
        assert!(!name.starts_with("LD_") && name != "BASH_ENV" && name != "ENV");
    }
    let [_, _, forwarding] = line.permits();
    for host in ["localhost", "10.0.0.1", "::1", ""] {
        for port in [0, 22, 65535] {
            assert!(forwarding || line.may(host, port) == [false, false], "{host:?} {port}");
        }
    }
    // Where no address counts, a stranger without one does not either.
    let epoch = SystemTime::UNIX_EPOCH;
    if line.counts(None, epoch) {
        for address in addresses() {
            assert!(
                line.counts(Some(address), epoch),
                "a from= keeps addresses out, never lets only unknown ones in"
            );
        }
    }
    let later = epoch + Duration::from_secs(1 << 40);
    assert!(line.counts(None, epoch) || !line.counts(None, later), "what has expired stays so");
}

fn as_options(options: &[u8]) {
    let with = |before: &[u8], after: &[u8]| {
        let key = [b" ", KEY.as_bytes(), b" comment"].concat();
        fuzzing::line(&[before, options, after, &key].concat())
    };
    // The option cannot be hidden from the reader, whatever stands around it: it is read, or the line is none.
    let is_quoted = options.contains(&b'"');
    if !is_quoted && !options.iter().any(|b| b.is_ascii_whitespace() || matches!(b, 0 | b'#')) {
        assert!(with(b"surely-unknown,", b"").is_none(), "an unknown option leaves the line usable");
        assert!(with(b"", b",surely-unknown").is_none(), "an unknown option leaves the line usable");
        if let Some(line) = with(b"", b",restrict") {
            assert_eq!(line.permits(), [false; 3], "restrict at the end takes everything away");
            assert_eq!(line.may("localhost", 80), [false; 2]);
        }
    }
    if let Some(line) = with(b"command=\"only this\",", b"") {
        assert!(line.forces(), "a forced command is forgotten");
    }
    if let Some(line) = with(b"from=\"!*\",", b"") {
        for address in addresses() {
            assert!(!line.counts(Some(address), SystemTime::UNIX_EPOCH), "{address}");
        }
    }
}

fn as_list(list: &str) {
    for address in addresses() {
        let alone = fuzzing::have(list, address);
        assert_ne!(fuzzing::have(&format!("{list},!{address}"), address), Some(true));
        assert_ne!(fuzzing::have(&format!("!*,{list}"), address), Some(true));
        let negated: Vec<String> =
            list.split(',').map(|entry| format!("!{}", entry.trim_start_matches('!'))).collect();
        assert_ne!(fuzzing::have(&negated.join(","), address), Some(true), "negations alone let in");
        if alone.is_some() {
            let with_it = fuzzing::have(&format!("{address},{list}"), address);
            let mut kept_out = list.split(',').filter_map(|entry| entry.strip_prefix('!'));
            let kept_out = kept_out.any(|entry| fuzzing::have(entry, address) == Some(true));
            assert_eq!(with_it, Some(!kept_out), "{list:?}");
        }
    }
}
