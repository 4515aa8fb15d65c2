//! The words of the program as types, parsed once at its borders. Owns no I/O and no policy.

mod id;
mod isolation;
mod name;
mod pod;
mod secret;

pub use id::SessionId;
pub use isolation::{Isolation, Network, RuntimeKind, TmpMode};
pub use name::{InvalidName, SessionName};
pub use pod::{PodNumber, PodRange};
pub use secret::{Secret, SecretHash};
