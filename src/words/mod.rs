//! The words of the program as types, parsed once at its borders. Owns no I/O and no policy.

mod access;
mod id;
mod isolation;
mod name;
mod pod;
mod secret;
mod size;

pub use access::Access;
pub use id::SessionId;
pub use isolation::{Isolation, Network, RuntimeKind, TmpMode};
pub use name::{InvalidName, SessionName};
pub use pod::{PodNumber, PodRange};
pub use secret::{Secret, SecretHash};
pub use size::Size;
