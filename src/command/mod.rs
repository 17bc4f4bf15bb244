//! The command table: what Redis says of each command (arity, flags, key specs, policies), and
//! where the keys of a request are.
//!
//! Everything here comes from a `COMMAND` reply: one is built in, a live server's is laid over
//! it. Code of its own have only the few commands whose key specs say that they do not tell
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
pub use keys::{KeyError, key_accesses, key_positions, no_number_of_keys};
pub use parse::TableError;
pub use rules::{Rule, Rules, Verdict};
pub use secrets::{REDACTED, is_announced_address, is_secret_argument, is_secret_setting};
pub use spec::{
    Access, Begin, CommandSpec, Find, KeyAccess, KeyPart, KeySpec, Native, RequestPolicy,
    ResponsePolicy,
};
pub use table::{CommandId, CommandTable};
