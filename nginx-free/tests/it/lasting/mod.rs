//! Streams that outlive their connections.

mod cuts;
mod ends;
mod limits;

use nginx_free::lasting::{Carrier, Lasting, LastingLimits, lasting};

/// Both ends of a stream, each with what gives it connections.
fn both(limits: &LastingLimits) -> ((Lasting, Carrier), (Lasting, Carrier)) {
    (lasting(limits.clone()), lasting(limits.clone()))
}
