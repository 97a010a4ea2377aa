//! The `octet` binary.
fn main() {}
