//! System calls, wrapped. The only place with unsafe code; it decides nothing.
#![allow(
    unsafe_code,
    reason = "the one floor where the kernel is spoken to directly; each block says why it is sound"
)]

pub mod clock;
pub mod container;
pub mod descriptor;
pub mod diag;
pub mod message;
pub mod namespace;
pub mod netlink;
pub mod process;
pub mod readiness;
pub mod rights;
pub mod spawn;
pub mod terminal;
pub mod usage;
