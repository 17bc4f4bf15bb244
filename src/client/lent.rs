//! A client's dedicated connections: for a blocking command, WATCH, MONITOR.

use crate::cluster::Slot;
use crate::dest::ConnId;
use crate::hash::IntSet;
use crate::ops::Errand;

/// The use of dedicated connections by one client. Commands are written to them only when no reply
/// is outstanding, and the client is not read from until the errand is answered, so that their
/// order with its other commands is kept.
#[derive(Debug, Default)]
pub struct Lent {
    /// Watched keys, by slot.
    pub watches: Vec<Watch>,
    /// The errand that the client waits for.
    pub errand: Option<Errand>,
    /// Connections of a command for several nodes (WAIT).
    pub fleet: Vec<ConnId>,
    /// MONITOR: lines from the connections in [`Lent::heard`] are passed on to the client.
    pub monitor: bool,
    /// Connections in MONITOR mode.
    pub heard: Vec<ConnId>,
    /// A timer is set to find primaries that are not monitored yet.
    pub monitor_timer_set: bool,
}

/// Watched keys of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The slot.
    pub slot: Slot,
    /// One of the keys, for error texts.
    pub key: Box<[u8]>,
    /// Hashes of all keys, for CLIENT LIST.
    pub keys: IntSet<u64>,
    /// The connection's node is importing the slot, so commands need ASKING.
    pub asking: bool,
    /// The connection that watches; `None` if it was lost, so that a change may have been missed.
    pub upstream: Option<ConnId>,
}

impl Lent {
    /// Removes the closed connection `conn`. Keys watched there may have changed.
    pub fn forget(&mut self, conn: ConnId) {
        self.fleet.retain(|&f| f != conn);
        self.heard.retain(|&f| f != conn);
        for watch in self.watches.iter_mut().filter(|w| w.upstream == Some(conn)) {
            watch.upstream = None;
        }
    }

    /// Memory in bytes.
    pub fn memory(&self) -> usize {
        let keys = |watch: &Watch| watch.key.len() + watch.keys.capacity() * 2 * size_of::<u64>();
        let keys: usize = self.watches.iter().map(keys).sum();
        self.errand.as_ref().map_or(0, |e| e.frame.capacity()) + keys
    }

    /// Number of watched keys.
    pub fn watched(&self) -> usize {
        self.watches.iter().map(|watch| watch.keys.len()).sum()
    }

    /// Whether no dedicated connection is in use.
    pub fn is_over(&self) -> bool {
        self.watches.is_empty() && self.errand.is_none() && self.fleet.is_empty() && !self.monitor
    }
}
