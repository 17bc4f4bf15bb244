//! What writes pages of `docs/`: the reference of commands. Those of the configuration, the metrics
//! and the errors are written where their tables are.

mod commands;

pub use commands::commands_markdown;
