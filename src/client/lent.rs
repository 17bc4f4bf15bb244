//! What a client is lent dedicated connections for: the command that occupies it, the keys that
//! it watches.

use crate::hash::IntSet;
use crate::ops::Errand;

/// The dedicated connections of one client. Commands are written to them only when all earlier
/// replies are there, and nothing is read from the client until the errand is answered, so that
/// their order with its other commands holds.
#[derive(Debug, Default)]
pub struct Lent {
    /// Slots whose keys are watched.
    pub watches: Vec<Watch>,
    /// What the client waits for.
    pub errand: Option<Errand>,
    /// Connections of a command that went to several nodes (WAIT).
    pub fleet: Vec<usize>,
    /// MONITOR: the lines of [`Lent::heard`] are its replies from now on.
    pub monitor: bool,
    /// Connections that monitor.
    pub heard: Vec<usize>,
    /// A timer will look for primaries that it does not hear.
    pub listens_again: bool,
}

/// Watched keys of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The slot.
    pub slot: u16,
    /// One of the keys, for errors.
    pub key: Box<[u8]>,
    /// Hashes of all of the keys, for CLIENT LIST.
    pub keys: IntSet<u64>,
    /// Its node is importing the slot: what is sent there needs ASKING.
    pub asking: bool,
    /// The connection that watches; `None`: it was lost, so that a change may have been missed.
    pub upstream: Option<usize>,
}

impl Lent {
    /// Connection `u` is closed. What was watched there may have changed.
    pub fn forget(&mut self, u: usize) {
        self.fleet.retain(|&f| f != u);
        self.heard.retain(|&f| f != u);
        for watch in self.watches.iter_mut().filter(|w| w.upstream == Some(u)) {
            watch.upstream = None;
        }
    }

    /// Bytes that it occupies.
    pub fn held(&self) -> usize {
        let keys = |watch: &Watch| watch.key.len() + watch.keys.capacity() * 2 * size_of::<u64>();
        let keys: usize = self.watches.iter().map(keys).sum();
        self.errand.as_ref().map_or(0, |e| e.frame.capacity()) + keys
    }

    /// How many keys are watched.
    pub fn watched(&self) -> usize {
        self.watches.iter().map(|watch| watch.keys.len()).sum()
    }

    /// Nothing is left of it.
    pub fn is_over(&self) -> bool {
        self.watches.is_empty() && self.errand.is_none() && self.fleet.is_empty() && !self.monitor
    }
}
