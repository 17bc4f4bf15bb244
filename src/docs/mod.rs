//! The generator of `docs/commands.md`. The references of the configuration, the metrics and the
//! errors are generated in the rooms of their tables.

mod commands;

pub use commands::commands_markdown;
