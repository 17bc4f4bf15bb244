//! Identities of clients, and destinations of replies.

/// A client of a worker. Indexes are reused, the pair of index and generation is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    /// Index among the worker's clients.
    pub index: u32,
    /// Distinguishes the clients that have had the index.
    pub generation: u32,
}

impl ClientId {
    /// Placeholder for a client that is not known and may be any.
    pub const UNKNOWN: ClientId = ClientId { index: 0, generation: 0 };

    /// The client with this generation at `index` of the worker's clients.
    #[inline]
    pub fn new(index: usize, generation: u32) -> ClientId {
        ClientId { index: index as u32, generation }
    }

    /// The client's index among the worker's clients.
    #[inline]
    pub fn at(self) -> usize {
        self.index as usize
    }
}

/// The destination of a node's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dest {
    /// A reply in a client's queue.
    Client {
        /// Index among the worker's clients.
        index: u32,
        /// Distinguishes the clients that have had the index.
        generation: u32,
        /// Number of the reply in the client's queue.
        seq: u32,
    },
    /// A part of a command that went to several slots or nodes.
    Part {
        /// Index among the worker's gatherings.
        gather: u32,
        /// Index of the part's first key.
        first: u32,
    },
    /// A list that is joined with those of other nodes (KEYS).
    Join {
        /// Index among the worker's joins.
        join: u32,
        /// Index of the list.
        part: u32,
    },
    /// The reply is discarded, such as ASKING's +OK.
    Discard,
}

impl Dest {
    /// The reply with this number in the client's queue.
    #[inline]
    pub fn client(client: ClientId, seq: u32) -> Dest {
        Dest::Client { index: client.index, generation: client.generation, seq }
    }
}
