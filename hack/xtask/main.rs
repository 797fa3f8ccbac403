//! Repository chores: `crds`, `components`, `arch`. Run as `cargo xtask <task>`.

fn main() {}
