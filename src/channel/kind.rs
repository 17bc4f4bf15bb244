//! The kinds of pub/sub topics.

/// Kind of a topic, which is what a client can subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicKind {
    /// A channel (SUBSCRIBE).
    Channel,
    /// A glob pattern of channels (PSUBSCRIBE).
    Pattern,
    /// A shard channel (SSUBSCRIBE).
    Shard,
}

impl TopicKind {
    /// Number of kinds.
    pub const COUNT: usize = 3;
    /// All kinds, by discriminant.
    pub const ALL: [TopicKind; Self::COUNT] =
        [TopicKind::Channel, TopicKind::Pattern, TopicKind::Shard];
    /// Metric label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["channel", "pattern", "shard"];

    /// The command that subscribes; in lower case, the type of its confirmation.
    pub fn subscribe(self) -> &'static str {
        ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"][self as usize]
    }

    /// The command that unsubscribes; in lower case, the type of its confirmation.
    pub fn unsubscribe(self) -> &'static str {
        ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"][self as usize]
    }
}
