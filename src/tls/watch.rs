//! Looks at the files of certificates from time to time, and at SIGHUP.
//!
//! Their contents are compared, not their times: they are a few kilobytes, and a Kubernetes secret
//! changes by a symbolic link that points elsewhere, whose target may be older than what it
//! replaces.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::Tls;

/// How often.
const EVERY: Duration = Duration::from_secs(2);

impl Tls {
    /// Watches until it is dropped. Without TLS there is nothing to do.
    pub async fn watch(self: Arc<Self>) {
        if self.sides().next().is_none() {
            return std::future::pending().await;
        }
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(signals) => Some(signals),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP cannot be listened to");
                None
            }
        };
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(signals) => signals.recv().await,
                    None => std::future::pending().await,
                }
            };
            let all = tokio::select! {
                _ = hangup => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            // Reading from a disk that hangs must not hold control up.
            let tls = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || tls.look(all)).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking at certificates failed");
            }
        }
    }
}
