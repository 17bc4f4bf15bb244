//! What the worker tells control.

use std::sync::atomic::Ordering;

use crate::cluster::{NodeAddr, UpstreamId};
use crate::common::Link;
use crate::mailbox::ToControl;

impl Link {
    /// Asks control for a new topology of an upstream; `None`: it is not known which one is
    /// concerned. `hint` is who is likely to know it.
    pub(crate) fn want_topology(&self, hint: Option<NodeAddr>, upstream: Option<UpstreamId>) {
        // Control may be gone at the very end: nothing to refresh then.
        let _ = self.control.send(ToControl::RefreshTopology { hint, upstream });
    }

    /// A client that control has counted is gone.
    pub(crate) fn uncount_client(&self) {
        // Control and this thread both count; the last to leave must not make it less than none.
        let _ = self
            .client_count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
}
