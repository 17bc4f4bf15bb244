//! Commands whose keys lie in several slots, carried out with commands that each stay in one
//! (`commands.cross_slot = "emulate"`). No I/O: a recipe asks steps ([`Talk`]) and combines what
//! comes back; the worker sends them as it sends everything.
//!
//! - [`table`]: which command is made how, and what is given up
//! - `talk`: recipe and driver; `reply`: the reply to a step, and the outcome of a command
//! - `fetch`: what recipes have in common
//! - `sets`: sets and sorted sets, read or stored; `algebra`, `number`, `hll`: the arithmetic
//! - `stores`: what a node computes itself, given to a target elsewhere
//! - `sort`: SORT with patterns
//! - `moves`: RENAME, COPY, SMOVE, LMOVE, MSETNX
//! - `pops`: the first of several keys that has something, also waited for
//! - `streams`: XREAD, XREADGROUP
//!
//! **Errors are Redis's**: a command goes once, as it is, to a node with keys that do not exist
//! ([`fetch::trial`]). What is wrong with its arguments the node says in its own words, and what is
//! right does nothing.

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

pub use reply::Outcome;
pub use table::{TABLE, begin, entry};
#[cfg(test)]
pub use talk::Talk;
pub use talk::{Emulation, LastStep, Next, Request, Step};
