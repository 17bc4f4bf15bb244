//! Log lines: structured, text or JSON, on standard error.

use std::io::IsTerminal;

use slotway::config::{Config, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging as the configuration says. Once per process; a second call changes nothing.
pub fn init(config: &Config) {
    // The level was checked with the rest of the configuration; should the filter disagree about
    // a corner of it, a proxy that logs at "info" is better than one that does not start.
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match config.log.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            lines.with_ansi(colours).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
