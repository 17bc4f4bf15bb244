//! Where a reply goes.

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
