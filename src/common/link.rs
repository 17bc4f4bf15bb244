//! What the worker tells control.

use std::sync::atomic::Ordering;

use crate::cluster::NodeAddr;
use crate::common::Link;
use crate::mailbox::ToControl;

impl Link {
    /// Asks control for a new topology; `hint` is who is likely to know it.
    pub(crate) fn want_topology(&self, hint: Option<NodeAddr>) {
        // Control may be gone at the very end: nothing to refresh then.
        let _ = self.control.send(ToControl::RefreshTopology { hint, upstream: None });
    }

    /// A client that control has counted is gone.
    pub(crate) fn uncount_client(&self) {
        // Control and this thread both count; the last to leave must not make it less than none.
        let _ = self
            .client_count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
}
