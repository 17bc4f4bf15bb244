//! Looks at the files of certificates from time to time.
//!
//! Their contents are compared, not their times: they are a few kilobytes, and a Kubernetes secret
//! changes by a symbolic link that points elsewhere, whose target may be older than what it
//! replaces.

use std::sync::Arc;
use std::time::Duration;

use super::Tls;

/// How often.
const EVERY: Duration = Duration::from_secs(2);

impl Tls {
    /// Watches until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            // Without TLS there is nothing to look at, until another configuration has some.
            if super::sides(&self.config()).next().is_some() {
                Arc::clone(&self).look_aside(false).await;
            }
        }
    }

    /// Reads all files now: what SIGHUP is for. The machine's CAs are read again, too. What cannot
    /// be used is logged, and what was in use stays in use.
    pub async fn reload(self: Arc<Self>) {
        self.look_aside(true).await;
    }

    /// Reading from a disk that hangs must not hold control up.
    async fn look_aside(self: Arc<Self>, all: bool) {
        let looked = tokio::task::spawn_blocking(move || self.look(all)).await;
        if let Err(error) = looked {
            tracing::error!(%error, "looking at certificates failed");
        }
    }
}
