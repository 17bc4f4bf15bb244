mod errand;
mod key_lists;
pub use errand::{AfterRefusedErrand, Errand, ErrandKind};
pub use key_lists::{Effect, KeyLists, Piece};
