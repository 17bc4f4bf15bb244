//! A command and a snapshot give a plan.

mod info;

pub use info::merge_info;
