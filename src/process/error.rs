//! Errors that end the process.

use std::io::{self, ErrorKind};

use thiserror::Error;

/// An error that prevents the start of slotway, or ends it early.
#[derive(Debug, Error)]
pub enum RunError {
    /// Clients on other machines could use it without a login.
    #[error("protected_mode: {0}")]
    Unprotected(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// The address as configured.
        address: String,
        /// The reason, and what to do about it.
        reason: String,
    },
    /// The files of `[tls.downstream]` or `[tls.upstream]` cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A thread, the runtime or a signal handler cannot be created.
    #[error("cannot start {0}: {1}")]
    Start(&'static str, io::Error),
    /// A second signal ended the drain.
    #[error("stopped at once by a second signal")]
    Interrupted,
}

impl RunError {
    /// A failed bind of `address`, which the configuration key `key` names.
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
