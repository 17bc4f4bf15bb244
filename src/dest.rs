//! Identities of clients, nodes and connections, and destinations of replies.

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

/// A node, by its index among those that a worker knows. A worker keeps a node's index for as long
/// as the cluster has the node's address or a connection of the worker's is to it, and may give it
/// to another node afterwards. It is not the topology's index of the node, which is another in each
/// snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);

impl NodeId {
    /// Stands for no node.
    pub const NONE: NodeId = NodeId(u16::MAX);

    /// The node at `index` of the worker's nodes.
    #[inline]
    pub fn new(index: usize) -> NodeId {
        NodeId(index as u16)
    }

    /// The node's index among the worker's nodes. Outside of them for [`NodeId::NONE`].
    #[inline]
    pub fn at(self) -> usize {
        usize::from(self.0)
    }

    /// A bit that stands for the node in a set of 64. Nodes whose indexes are 64 apart share it.
    #[inline]
    pub fn bit(self) -> u64 {
        1 << (self.0 & 63)
    }

    /// The node; `None` for [`NodeId::NONE`].
    #[inline]
    pub fn known(self) -> Option<NodeId> {
        (self != NodeId::NONE).then_some(self)
    }
}

/// A worker's connection to a node, by its index among those connections. The index is reused once
/// the connection is closed and forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u32);

impl ConnId {
    /// Stands for no connection.
    pub const NONE: ConnId = ConnId(u32::MAX);

    /// The connection at `index` of the worker's connections to nodes.
    #[inline]
    pub fn new(index: usize) -> ConnId {
        ConnId(index as u32)
    }

    /// The connection's index among the worker's connections to nodes.
    #[inline]
    pub fn at(self) -> usize {
        self.0 as usize
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
