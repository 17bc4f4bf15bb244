//! The class of a command, for the metrics.

use super::flags::Flags;

/// The class of a command (metrics label `class`), derived from its ACL categories.
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
    /// Number of classes.
    pub const COUNT: usize = 16;
    /// Label values, indexed by discriminant.
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

    /// The label value.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The class of a container: the most frequent one of its subcommands. Redis gives containers
    /// no category but their speed.
    pub(super) fn of_container(self, subcommands: impl Iterator<Item = Class>) -> Class {
        let mut counts = [0u32; Self::COUNT];
        let mut most = (0, self);
        for class in subcommands {
            let count = &mut counts[class as usize];
            *count += 1;
            // Ties are decided by the order of the classes, not the server's.
            if (*count, class as u8) > (most.0, most.1 as u8) {
                most = (*count, class);
            }
        }
        most.1
    }

    /// The class of a command with these ACL categories (without their `@`).
    pub(super) fn of(categories: &[Box<str>], flags: Flags, has_keys: bool) -> Class {
        // Specific categories first: some types are stored as strings or sorted sets, and some
        // servers list both categories.
        const NARROW: [(&str, Class); 8] = [
            ("geo", Class::Geo),
            ("bitmap", Class::Bitmap),
            ("hyperloglog", Class::HyperLogLog),
            ("stream", Class::Stream),
            ("scripting", Class::Scripting),
            ("pubsub", Class::PubSub),
            ("transaction", Class::Transaction),
            ("keyspace", Class::Keyspace),
        ];
        const TYPES: [(&str, Class); 5] = [
            ("string", Class::String),
            ("hash", Class::Hash),
            ("list", Class::List),
            ("set", Class::Set),
            ("sortedset", Class::SortedSet),
        ];
        let has = |name: &str| categories.iter().any(|c| &**c == name);

        if let Some((_, class)) = NARROW.iter().find(|(name, _)| has(name)) {
            return *class;
        }
        let mut types = TYPES.iter().filter(|(name, _)| has(name));
        match (types.next(), types.next()) {
            (Some((_, class)), None) => return *class,
            // A command for several types, such as SORT.
            (Some(_), Some(_)) => return Class::Keyspace,
            _ => {}
        }
        if has("connection") {
            Class::Connection
        } else if flags.contains(Flags::MODULE) {
            Class::Other
        } else if has_keys {
            Class::Keyspace
        } else {
            Class::Server
        }
    }
}
