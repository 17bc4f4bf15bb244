//! The `slotway` command.
#![forbid(unsafe_code)]
fn main() {}
