//! What the programs of the benchmark share: arguments, TLS, and the little HTTP/1.1 they speak.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod http1;
pub mod tls;

/// A result whose error ends the program, with its text on standard error.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many bytes `/1k` answers with.
pub const SMALL: usize = 1024;
/// How many bytes `/10m` answers with, and `/up` is sent.
pub const LARGE: usize = 10 * 1024 * 1024;
/// The cookie that opens the proxies.
pub const COOKIE: &str = "bench_session";
