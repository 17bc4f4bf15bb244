//! `commands.cross_slot = "emulate"` when something goes wrong: nodes that are gone in the middle
//! of a command, others that move the same elements, clients that leave.
//!
//! What the commands answer is compared in `tests/differential` and `tests/emulate.rs`.

#[path = "../common/mod.rs"]
mod common;
mod relay;
mod steps;
