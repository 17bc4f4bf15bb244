//! Why slotway does not run.

use std::io::{self, ErrorKind};

use thiserror::Error;

/// Why slotway does not run, or did not end well.
#[derive(Debug, Error)]
pub enum RunError {
    /// Anybody could use it.
    #[error("protected_mode: {0}")]
    Unprotected(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// As configured.
        address: String,
        /// The reason and the way out.
        reason: String,
    },
    /// The files of `[tls.downstream]` or `[tls.upstream]` cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A thread, the runtime or the signals cannot be had.
    #[error("cannot start {0}: {1}")]
    Start(&'static str, io::Error),
    /// Told to stop a second time: clients were not waited for.
    #[error("stopped at once by a second signal")]
    Interrupted,
}

impl RunError {
    pub(super) fn bind(key: &'static str, address: &str, error: io::Error) -> Self {
        let variable = format!("SLOTWAY_{}", key.replace('.', "__").to_uppercase());
        let flag = if key.contains('.') { format!("--set {key}") } else { format!("--{key}") };
        let elsewhere =
            format!("choose another with `{key}` in the configuration, {flag} or {variable}");
        let reason = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "it is taken; stop the process that listens there (ss -lptn shows it), or {elsewhere}"
            ),
            ErrorKind::AddrNotAvailable => {
                format!("this machine does not have that address; {elsewhere}")
            }
            ErrorKind::PermissionDenied => {
                format!("not permitted (ports below 1024, folders of others); {elsewhere}")
            }
            _ => format!("{error}; {elsewhere}"),
        };
        RunError::Bind { address: address.to_owned(), reason }
    }
}
