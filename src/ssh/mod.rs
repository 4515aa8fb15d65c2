//! The session's ssh server. Owns who may come in and what they may do, by OpenSSH's rules; there is one user, the
//! session's owner, and nobody comes in under another name.

#![forbid(unsafe_code)]

macro_rules! unwired {
    ($($module:ident),* $(,)?) => {$(
        #[allow(dead_code, reason = "used once the server is there")]
        mod $module;
    )*};
}
unwired!(
    authorized_keys,
    certificate,
    files,
    host_key,
    options,
    owner,
    password,
    patterns,
    penalties,
    permits,
    source,
    startups,
);
#[cfg(fuzzing)]
pub mod fuzzing;

pub use password::run_helper as run_password_helper;
