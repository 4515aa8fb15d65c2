//! Giving rights up.

use std::io;

use caps::{CapSet, Capability};
use nix::sys::prctl;

/// Gives up every capability, and, where that is allowed, the means to get one back by running a program
/// (`capabilities(7)`). For an ordinary user's process outside its own namespaces there is nothing to give up.
///
/// # Errors
/// As `capset(2)` and `prctl(2)`.
pub fn drop_capabilities() -> io::Result<()> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in caps::read(None, CapSet::Bounding).map_err(io::Error::other)? {
            caps::drop(None, CapSet::Bounding, capability).map_err(io::Error::other)?;
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Makes sure that no program this process runs, nor its children's, gains rights (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// As `prctl(2)`.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}
