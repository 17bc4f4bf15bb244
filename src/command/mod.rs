//! The command table: the properties of each command (arity, flags, key specs, policies), and the
//! positions of a request's keys.
//!
//! The table is built from a `COMMAND` reply: the built-in one, overlaid with that of a live
//! server. Only the few commands whose keys the key specs do not tell have code of their own
//! (`keys.rs`, `Native`).
//!
//! Not here: where a command is sent ([`crate::route`]), and any socket.
//!
//! <https://redis.io/docs/latest/develop/reference/key-specs/>,
//! <https://redis.io/docs/latest/develop/reference/command-tips/>

mod class;
mod flags;
mod keys;
mod parse;
mod rules;
mod secrets;
mod spec;
mod table;
#[cfg(test)]
mod tests;

pub use class::Class;
pub use flags::Flags;
pub use keys::{KeyError, invalid_key_count, key_accesses, key_positions};
pub use parse::TableError;
pub use rules::{Rule, RuleVerdict, Rules};
pub use secrets::{REDACTED, is_announced_address, is_secret_argument, is_secret_setting};
pub use spec::{
    Access, Begin, CommandSpec, Find, KeyAccess, KeyPart, KeySpec, Native, RequestPolicy,
    ResponsePolicy,
};
pub use table::{CommandId, CommandTable};
