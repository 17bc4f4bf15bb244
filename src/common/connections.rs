//! What a client's wishes and transfers mean for the choice of a connection.

use crate::client::{Client, SessionModes};
use crate::cluster::{Slot, UpstreamId};
use crate::common::Core;
use crate::config::ReadFrom;
use crate::upstream::Upstream;

/// A connection is used by others for so long after one of them has met a long queue, microseconds.
pub(crate) const REMEMBERED: u64 = 200_000;
/// Limit of expected bytes under way on a connection that others use, too. A single larger transfer
/// goes alone.
pub(crate) const BYTES_WHEN_SHARED: usize = 1 << 20;
/// The same for a connection that only clients with large transfers use.
const BYTES_WHEN_ALONE: usize = 8 << 20;

/// A client with little to ask for uses the connection, too. On those for large transfers it is
/// one whose estimate has fallen.
pub(crate) fn note_shared(up: &Upstream, now: u64) {
    if !up.bulk {
        up.shared_at.set(now);
    }
}

/// Whether the client's next transfer is within the connection's budget.
pub(crate) fn has_room_for_transfer(up: &Upstream, client: &Client, now: u64) -> bool {
    // The replies of a client that has had none may be larger than any that were seen here.
    let small = now < up.shared_at.get() + REMEMBERED || client.transfer_sizes.is_unknown();
    let budget = if small { BYTES_WHEN_SHARED } else { BYTES_WHEN_ALONE };
    let under_way = up.pending.expected();
    under_way == 0 || under_way + client.transfer_sizes.expected() as usize <= budget
}

impl Core {
    /// The upstream of a slot, also of what stands for the slot of a command without keys.
    pub(crate) fn upstream_of(&self, slot: Slot) -> UpstreamId {
        self.router.views().map().owner_of(slot)
    }

    /// From where the client wants to read keys of the slot; `None`: from primaries, whatever else
    /// is said.
    pub(crate) fn wish_of(&self, client: &Client, slot: Slot) -> Option<ReadFrom> {
        let upstream = self.router.views().map().upstream_of(slot);
        let reads = &self.settings.upstream(upstream)?.reads;
        // What WATCH watches is the primary's: EXEC finds nothing changed, and what was read from
        // a replica after WATCH would be older all the same.
        let watches = client.lent.as_ref().is_some_and(|lent| !lent.watches.is_empty());
        match client.session.modes {
            _ if watches => None,
            modes if modes.contains(SessionModes::READONLY) => Some(reads.for_readonly()),
            modes if modes.contains(SessionModes::READ_FROM) => Some(reads.from),
            _ => None,
        }
    }
}
