//! Clients, and where a reply goes.

/// A client of a worker. Indexes are used again, generations are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    /// Index among the worker's clients.
    pub index: u32,
    /// Which client it was that had the index.
    pub generation: u32,
}

impl ClientId {
    /// In place of a client: it is not known, and may be any.
    pub const UNKNOWN: ClientId = ClientId { index: 0, generation: 0 };

    /// The client of this generation at `index` of the worker's clients.
    #[inline]
    pub fn new(index: usize, generation: u32) -> ClientId {
        ClientId { index: index as u32, generation }
    }

    /// Its index among the worker's clients.
    #[inline]
    pub fn at(self) -> usize {
        self.index as usize
    }
}

/// Who waits for the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dest {
    /// A client: its index, its generation, and the reply's number in its queue.
    Client {
        /// Index among the worker's clients.
        index: u32,
        /// Which client it was that had the index.
        generation: u32,
        /// Number of the reply.
        seq: u32,
    },
    /// A part of a command that went to several slots or nodes.
    Part {
        /// Index among the worker's gatherings.
        gather: u32,
        /// Index of the part's first key.
        first: u32,
    },
    /// A list that becomes one with those of other nodes (KEYS).
    Join {
        /// Index among the worker's joins.
        join: u32,
        /// Which part of it.
        part: u32,
    },
    /// Nobody: ASKING's +OK.
    Discard,
}

impl Dest {
    /// The reply of this number in the client's queue.
    #[inline]
    pub fn client(client: ClientId, seq: u32) -> Dest {
        Dest::Client { index: client.index, generation: client.generation, seq }
    }
}
