//! The command table: what Redis says of each command (arity, flags, key specs, policies).
//! Not here: where a command is sent ([`crate::route`]), and any socket.

/// What kind of work a command is (metrics label `class`), from its ACL categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Class {
    String,
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
    Geo,
    HyperLogLog,
    Bitmap,
    Scripting,
    Keyspace,
    PubSub,
    Connection,
    Transaction,
    Server,
    Other,
}

impl Class {
    /// How many classes there are.
    pub const COUNT: usize = 16;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = [
        "string",
        "hash",
        "list",
        "set",
        "sortedset",
        "stream",
        "geo",
        "hyperloglog",
        "bitmap",
        "scripting",
        "keyspace",
        "pubsub",
        "connection",
        "transaction",
        "server",
        "other",
    ];
}

/// All commands by name.
#[derive(Debug)]
pub struct CommandTable;
