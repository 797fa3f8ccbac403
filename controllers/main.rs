//! The `capi-kamaji` binary.

fn main() {}
