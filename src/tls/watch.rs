//! Polls the files of certificates.
//!
//! Contents are compared rather than modification times: the files are small, and a Kubernetes
//! secret is replaced by changing a symbolic link, whose new target may be older than the one
//! before.

use std::sync::Arc;
use std::time::Duration;

use super::Tls;

/// Interval between two polls.
const EVERY: Duration = Duration::from_secs(2);

impl Tls {
    /// Polls the files until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            // Without TLS there are no files, until another configuration is loaded.
            if self.is_any() {
                Arc::clone(&self).read_in_background(false).await;
            }
        }
    }

    /// Reads all files now, as on SIGHUP, and the CAs of the machine. Files with faults are logged,
    /// and those before them stay in use.
    pub async fn reload(self: Arc<Self>) {
        self.read_in_background(true).await;
    }

    /// Reads files on a thread of their own: a disk that hangs must not block the control thread.
    async fn read_in_background(self: Arc<Self>, all: bool) {
        let read = tokio::task::spawn_blocking(move || self.read_changed(all)).await;
        if let Err(error) = read {
            tracing::error!(%error, "looking at certificates failed");
        }
    }
}
