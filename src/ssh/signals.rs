//! Signals by their names in the protocol (RFC 4254, 6.9 and 6.10).

use nix::sys::signal::Signal;
use russh::Sig;

/// What a client may send.
pub(super) fn from_client(name: &Sig) -> Option<Signal> {
    Some(match name {
        Sig::ABRT => Signal::SIGABRT,
        Sig::ALRM => Signal::SIGALRM,
        Sig::FPE => Signal::SIGFPE,
        Sig::HUP => Signal::SIGHUP,
        Sig::ILL => Signal::SIGILL,
        Sig::INT => Signal::SIGINT,
        Sig::KILL => Signal::SIGKILL,
        Sig::PIPE => Signal::SIGPIPE,
        Sig::QUIT => Signal::SIGQUIT,
        Sig::SEGV => Signal::SIGSEGV,
        Sig::TERM => Signal::SIGTERM,
        Sig::USR1 => Signal::SIGUSR1,
        Sig::Custom(name) if name == "USR2" => Signal::SIGUSR2,
        Sig::Custom(_) => return None,
    })
}

/// What a program died of. The protocol has names for some; for the others it wants one that is somebody's own.
pub(super) fn to_client(number: u8) -> Sig {
    match Signal::try_from(i32::from(number)) {
        Ok(Signal::SIGABRT) => Sig::ABRT,
        Ok(Signal::SIGALRM) => Sig::ALRM,
        Ok(Signal::SIGFPE) => Sig::FPE,
        Ok(Signal::SIGHUP) => Sig::HUP,
        Ok(Signal::SIGILL) => Sig::ILL,
        Ok(Signal::SIGINT) => Sig::INT,
        Ok(Signal::SIGKILL) => Sig::KILL,
        Ok(Signal::SIGPIPE) => Sig::PIPE,
        Ok(Signal::SIGQUIT) => Sig::QUIT,
        Ok(Signal::SIGSEGV) => Sig::SEGV,
        Ok(Signal::SIGTERM) => Sig::TERM,
        Ok(Signal::SIGUSR1) => Sig::USR1,
        Ok(Signal::SIGUSR2) => Sig::Custom("USR2".to_owned()),
        Ok(other) => Sig::Custom(format!("{}@openssh.com", other.as_str().trim_start_matches("SIG"))),
        Err(_) => Sig::Custom(format!("{number}@openssh.com")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_may_send_is_called_the_same_on_the_way_back() {
        let usr2 = from_client(&Sig::Custom("USR2".to_owned())).unwrap();
        assert!(matches!(to_client(usr2 as u8), Sig::Custom(back) if back == "USR2"));
        for name in [Sig::HUP, Sig::KILL, Sig::TERM, Sig::INT, Sig::QUIT] {
            let signal = from_client(&name).unwrap();
            assert_eq!(format!("{:?}", to_client(signal as u8)), format!("{name:?}"));
        }
        assert!(from_client(&Sig::Custom("STOP".to_owned())).is_none());
        assert!(matches!(to_client(7), Sig::Custom(name) if name == "BUS@openssh.com"));
    }
}
