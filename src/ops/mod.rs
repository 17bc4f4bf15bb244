//! Commands of more than one step, as state machines without I/O: they are told of replies,
//! refusals, losses and deadlines, and return what is to be done.

mod errand;
mod key_lists;
mod parts;

pub use errand::{AfterRefusedErrand, Errand, ErrandKind};
pub use key_lists::{Effect, KeyLists, Piece};
pub use parts::{Answerer, Parts};
