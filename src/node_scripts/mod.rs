//! Which scripts each node has.

pub(crate) mod scripts;
