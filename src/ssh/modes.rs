//! The modes of a client's terminal, as the protocol encodes them (RFC 4254, 8), put into those of ours.

use std::io;

use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SpecialCharacterIndices as Key, Termios,
};
use russh::Pty;

use crate::sys::terminal;

/// A character that the client's terminal does not have.
const NONE: u32 = 255;

/// The modes of a new terminal, changed as the client says. What is not known here has no meaning on Linux.
///
/// # Errors
/// Where the kernel gives no terminal to look at.
pub(super) fn termios(said: &[(Pty, u32)]) -> io::Result<Termios> {
    let mut modes = terminal::usual_modes()?;
    for (name, value) in said {
        apply(&mut modes, *name, *value);
    }
    Ok(modes)
}

fn apply(modes: &mut Termios, name: Pty, value: u32) {
    let on = value != 0;
    if let Some(key) = key(name) {
        // `_POSIX_VDISABLE` is 0 here.
        let character = if value == NONE { Some(0) } else { u8::try_from(value).ok() };
        if let (Some(slot), Some(character)) = (modes.control_chars.get_mut(key as usize), character) {
            *slot = character;
        }
    } else if let Some(flag) = input(name) {
        modes.input_flags.set(flag, on);
    } else if let Some(flag) = local(name) {
        modes.local_flags.set(flag, on);
    } else if let Some(flag) = output(name) {
        modes.output_flags.set(flag, on);
    } else if let Some(flag) = control(name) {
        if matches!(name, Pty::CS7 | Pty::CS8) {
            // One of several values, not a flag of its own.
            if on {
                modes.control_flags.remove(ControlFlags::CSIZE);
                modes.control_flags.insert(flag);
            }
        } else {
            modes.control_flags.set(flag, on);
        }
    }
}

fn key(name: Pty) -> Option<Key> {
    Some(match name {
        Pty::VINTR => Key::VINTR,
        Pty::VQUIT => Key::VQUIT,
        Pty::VERASE => Key::VERASE,
        Pty::VKILL => Key::VKILL,
        Pty::VEOF => Key::VEOF,
        Pty::VEOL => Key::VEOL,
        Pty::VEOL2 => Key::VEOL2,
        Pty::VSTART => Key::VSTART,
        Pty::VSTOP => Key::VSTOP,
        Pty::VSUSP => Key::VSUSP,
        Pty::VREPRINT => Key::VREPRINT,
        Pty::VWERASE => Key::VWERASE,
        Pty::VLNEXT => Key::VLNEXT,
        Pty::VDISCARD => Key::VDISCARD,
        _ => return None,
    })
}

fn input(name: Pty) -> Option<InputFlags> {
    Some(match name {
        Pty::IGNPAR => InputFlags::IGNPAR,
        Pty::PARMRK => InputFlags::PARMRK,
        Pty::INPCK => InputFlags::INPCK,
        Pty::ISTRIP => InputFlags::ISTRIP,
        Pty::INLCR => InputFlags::INLCR,
        Pty::IGNCR => InputFlags::IGNCR,
        Pty::ICRNL => InputFlags::ICRNL,
        Pty::IXON => InputFlags::IXON,
        Pty::IXANY => InputFlags::IXANY,
        Pty::IXOFF => InputFlags::IXOFF,
        Pty::IMAXBEL => InputFlags::IMAXBEL,
        Pty::IUTF8 => InputFlags::IUTF8,
        _ => return None,
    })
}

fn local(name: Pty) -> Option<LocalFlags> {
    Some(match name {
        Pty::ISIG => LocalFlags::ISIG,
        Pty::ICANON => LocalFlags::ICANON,
        Pty::ECHO => LocalFlags::ECHO,
        Pty::ECHOE => LocalFlags::ECHOE,
        Pty::ECHOK => LocalFlags::ECHOK,
        Pty::ECHONL => LocalFlags::ECHONL,
        Pty::NOFLSH => LocalFlags::NOFLSH,
        Pty::TOSTOP => LocalFlags::TOSTOP,
        Pty::IEXTEN => LocalFlags::IEXTEN,
        Pty::ECHOCTL => LocalFlags::ECHOCTL,
        Pty::ECHOKE => LocalFlags::ECHOKE,
        Pty::PENDIN => LocalFlags::PENDIN,
        _ => return None,
    })
}

fn output(name: Pty) -> Option<OutputFlags> {
    Some(match name {
        Pty::OPOST => OutputFlags::OPOST,
        Pty::OLCUC => OutputFlags::OLCUC,
        Pty::ONLCR => OutputFlags::ONLCR,
        Pty::OCRNL => OutputFlags::OCRNL,
        Pty::ONOCR => OutputFlags::ONOCR,
        Pty::ONLRET => OutputFlags::ONLRET,
        _ => return None,
    })
}

fn control(name: Pty) -> Option<ControlFlags> {
    Some(match name {
        Pty::CS7 => ControlFlags::CS7,
        Pty::CS8 => ControlFlags::CS8,
        Pty::PARENB => ControlFlags::PARENB,
        Pty::PARODD => ControlFlags::PARODD,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_modes_are_taken_over() {
        let usual = terminal::usual_modes().unwrap();
        assert!(usual.local_flags.contains(LocalFlags::ECHO));
        let said = [
            (Pty::ECHO, 0),
            (Pty::ICRNL, 0),
            (Pty::IUTF8, 1),
            (Pty::VERASE, 8),
            (Pty::VINTR, NONE),
            (Pty::VQUIT, 70_000),
            (Pty::CS7, 1),
            (Pty::TTY_OP_ISPEED, 9600),
        ];
        let modes = termios(&said).unwrap();
        assert!(!modes.local_flags.contains(LocalFlags::ECHO));
        assert!(
            !modes.input_flags.contains(InputFlags::ICRNL) && modes.input_flags.contains(InputFlags::IUTF8)
        );
        assert_eq!(modes.control_chars[Key::VERASE as usize], 8);
        assert_eq!(modes.control_chars[Key::VINTR as usize], 0);
        assert_eq!(modes.control_chars[Key::VQUIT as usize], usual.control_chars[Key::VQUIT as usize]);
        assert_eq!(modes.control_flags & ControlFlags::CSIZE, ControlFlags::CS7);
    }
}
