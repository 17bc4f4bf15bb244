//! The rooms that mutants are made of, and what they use (see ../run.sh).
#![allow(dead_code, unused_imports, missing_docs)]

pub mod cluster;
pub mod command;
pub mod config;
pub mod dest;
pub mod errors;
pub mod hash;
pub mod ops;
pub mod placement;
pub mod resp;
pub mod route;
