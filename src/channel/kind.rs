//! The three kinds of channels.

/// What is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicKind {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

impl TopicKind {
    /// How many kinds there are.
    pub const COUNT: usize = 3;
    /// All, by discriminant.
    pub const ALL: [TopicKind; Self::COUNT] =
        [TopicKind::Channel, TopicKind::Pattern, TopicKind::Shard];
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = ["channel", "pattern", "shard"];

    /// The command that begins to listen; its lower case is what the confirmation says.
    pub fn subscribe(self) -> &'static str {
        ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"][self as usize]
    }

    /// The command that ends it.
    pub fn unsubscribe(self) -> &'static str {
        ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"][self as usize]
    }
}
