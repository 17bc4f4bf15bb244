//! Emulation of commands whose keys lie in several slots, with commands that each stay in one slot
//! (`commands.cross_slot = "emulate"`). No I/O: a recipe asks for steps ([`talk::Talk`]) and
//! combines their replies; the worker sends the steps.
//!
//! - [`table`]: the recipe of each command, and which guarantees are given up
//! - `talk`: interface of recipe and driver; `reply`: replies to steps, results of commands
//! - `fetch`: helpers shared by the recipes
//! - `sets`: sets and sorted sets, read or stored; `algebra`, `number`, `hll`: the arithmetic
//! - `stores`: results computed by a node and stored in another slot
//! - `sort`: SORT with patterns
//! - `moves`: RENAME, COPY, SMOVE, LMOVE, MSETNX
//! - `pops`: pops from the first non-empty key, blocking or not
//! - `streams`: XREAD, XREADGROUP
//!
//! **Argument errors are Redis's own.** A recipe sends the command once, unchanged but for keys
//! that do not exist ([`fetch::dry_run`]), to a node, which reports invalid arguments in its own
//! words, and valid ones have no effect.

mod algebra;
mod fetch;
pub mod hll;
mod moves;
pub mod number;
mod pops;
mod reply;
mod sets;
mod sort;
mod stores;
mod streams;
pub mod table;
mod talk;

pub use reply::CommandResult;
pub use table::{TABLE, begin, entry};
#[cfg(test)]
pub use talk::Talk;
pub use talk::{Emulation, LastStep, Next, Request, Step};
