//! Connections that are lent to one client at a time.
//!
//! A connection that is returned clean goes back to a small pool; one whose state is not known is
//! closed. `limits.dedicated` counts both, over all workers. What they are lent for: `errand`,
//! `watch`, `fleet`, `join`.

use crate::resp::Protocol;
use crate::route::PendingFlags;
use crate::upstream::Pending;

pub(crate) fn protocol_of(pending: &Pending) -> Protocol {
    if pending.flags.contains(PendingFlags::RESP3) { Protocol::Resp3 } else { Protocol::Resp2 }
}
