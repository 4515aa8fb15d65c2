//! Chooses the role of this process and returns its exit code.

fn main() {}
