//! What a client is lent dedicated connections for: the command that occupies it, the keys that
//! it watches.

use crate::hash::IntSet;
use crate::placement::{Redirection, Work};
use crate::route::WaitTime;

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

/// What an errand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command that may block.
    Block,
    /// WATCH.
    Watch,
    /// A transaction on the connection that watches.
    Exec,
    /// Before a transaction over several slots: is any watched key known to have changed? So many
    /// connections have not answered.
    Check {
        /// Answers awaited.
        left: usize,
        /// One was changed.
        changed: bool,
    },
    /// A command that went to several nodes: its gathering.
    Fleet,
    /// KEYS: the lists of all primaries.
    Join,
    /// A command over several slots that is carried out in steps: its gathering.
    Emulated,
}

/// A command under way on dedicated connections.
#[derive(Debug)]
pub struct Errand {
    /// What it is.
    pub kind: Kind,
    /// Its reply's number.
    pub seq: u32,
    /// Index in the command table.
    pub command: u16,
    /// Its slot.
    pub slot: u16,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// The connection that has it.
    pub upstream: Option<usize>,
    /// The gathering that carries out an emulated command.
    pub gathering: Option<usize>,
    /// How long it wants to wait.
    pub time: Option<WaitTime>,
    /// When it came, microseconds.
    pub started: u64,
    /// When it is given up, microseconds; `None` is never.
    pub until: Option<u64>,
    /// Its command may be sent again though a node may have executed it.
    pub repeatable: bool,
    /// It went to a node that is importing its slot.
    pub asking: bool,
    /// A connection was lost after it was sent there.
    pub lost: bool,
    /// How often it was sent again.
    pub tries: u8,
    /// Kind of the last refusal by a node; `None`: no node has refused it.
    pub refused: Option<Redirection>,
    /// Why it was, the last time.
    pub last: Option<String>,
}

impl Errand {
    /// One that begins now; its reply has no number yet.
    pub fn new(kind: Kind, command: u16, slot: u16, frame: Vec<u8>, now: u64) -> Self {
        Errand {
            kind,
            seq: 0,
            command,
            slot,
            frame,
            upstream: None,
            gathering: None,
            time: None,
            started: now,
            until: None,
            repeatable: true,
            asking: false,
            lost: false,
            tries: 0,
            refused: None,
            last: None,
        }
    }

    /// The errand as the retry policy sees it; `reads`: its command changes nothing.
    pub fn work(&self, reads: bool) -> Work {
        match self.kind {
            Kind::Block => Work::Blocking { reads, repeatable: self.repeatable },
            Kind::Watch => Work::Watch,
            Kind::Exec => Work::Exec,
            Kind::Check { .. } => Work::WatchCheck,
            Kind::Join => Work::KeyList { begun: false },
            Kind::Fleet | Kind::Emulated => Work::LentPart,
        }
    }

    /// It waits as long as its client has told it to.
    pub fn is_blocking(&self) -> bool {
        self.kind == Kind::Block || self.time.is_some()
    }
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
