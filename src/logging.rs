//! Log lines: structured, as text or JSON, on standard error.

use std::io::IsTerminal;

use slotway::config::{Config, LogFormat};
use tracing_subscriber::{EnvFilter, reload};

/// Starts logging as the configuration says, and returns a function that changes the level. Once
/// per process; a second call changes nothing.
pub fn init(config: &Config) -> Box<dyn Fn(&str)> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&config.log.level))
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let lines = lines.with_ansi(colours).with_filter_reloading();
            let handle = lines.reload_handle();
            let _ = lines.try_init();
            Box::new(move |level| warn_if_failed(handle.reload(filter(level))))
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            let _ = lines.try_init();
            Box::new(move |level| warn_if_failed(handle.reload(filter(level))))
        }
    }
}

/// The filter of a level. The level was validated with the rest of the configuration; should the
/// filter still reject it, a proxy that logs at "info" is better than one that does not start.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn warn_if_failed(reloaded: Result<(), reload::Error>) {
    if let Err(error) = reloaded {
        tracing::warn!(%error, "log.level cannot be changed");
    }
}
