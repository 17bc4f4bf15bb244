//! What the table holds of one command.

use super::class::Class;
use super::flags::Flags;

/// One command or subcommand, as its server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// In lower case; a subcommand's as `config|set`.
    pub name: Box<str>,
    /// Number of arguments with the name (and the subcommand's); negative: at least so many.
    pub arity: i32,
    /// What it does to data, connection and server.
    pub flags: Flags,
    /// For the metrics.
    pub class: Class,
    /// ACL categories without their `@`, sorted.
    pub categories: Box<[Box<str>]>,
    /// Where its keys are (for sharded pub/sub: its channels, which have slots as keys have).
    pub keys: KeySpec,
    /// `keys` finds all keys. Not so where the server says that its key specs are incomplete and
    /// slotway has no code of its own for the command (a module's, say).
    pub keys_complete: bool,
    /// The key specs one by one, with what is done to their keys: for the rights of users. Without
    /// what are no keys (channels).
    pub access: Box<[KeyAccess]>,
    /// Which nodes it is for.
    pub request_policy: RequestPolicy,
    /// How the nodes' replies become one.
    pub response_policy: ResponsePolicy,
    /// It has subcommands.
    pub container: bool,
    /// It was seen to keep its connection waiting, though its server does not say so.
    pub seen_blocking: bool,
}

impl CommandSpec {
    /// Whether `n` arguments, the name included, are neither too few nor too many.
    #[inline]
    pub fn arity_fits(&self, n: usize) -> bool {
        match usize::try_from(self.arity) {
            Ok(exact) => n == exact,
            Err(_) => n >= self.arity.unsigned_abs() as usize,
        }
    }

    /// It may change data (EVAL and FCALL, whose flags cannot tell, count as writes).
    #[inline]
    pub fn is_write(&self) -> bool {
        self.flags.contains(Flags::WRITE)
            || (self.class == Class::Scripting
                && !self.keys.is_none()
                && !self.flags.contains(Flags::READONLY))
    }

    /// It only reads data, so that it is safe to send it again when its reply was lost.
    #[inline]
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(Flags::READONLY) && !self.flags.contains(Flags::WRITE)
    }

    /// It may keep its connection waiting (BLPOP, XREAD BLOCK …).
    #[inline]
    pub fn may_block(&self) -> bool {
        self.flags.contains(Flags::BLOCKING)
    }
}

/// Where the keys of a command are among its arguments (argument 0 is its name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySpec {
    /// It has none.
    None,
    /// Exactly one, this argument: by far the most common, and the fast path.
    One(u8),
    /// Every `step`th from `first` to `last`; a negative `last` counts from the end, `-1` is the
    /// last argument.
    Range {
        /// Argument of the first key.
        first: u32,
        /// Last argument that may be a key.
        last: i32,
        /// From one key to the next; at least 1.
        step: u32,
    },
    /// What the arguments say: keywords, numbers of keys.
    Specs(Box<[KeyPart]>),
    /// What the key specs cannot say.
    Native(Native),
}

impl KeySpec {
    /// The command has no keys.
    #[inline]
    pub fn is_none(&self) -> bool {
        matches!(self, KeySpec::None)
    }
}

/// Some of a command's keys, and what it does to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAccess {
    /// Which keys.
    pub part: KeyPart,
    /// What is done to them.
    pub access: Access,
}

/// What a command does to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Tells what is in it.
    pub read: bool,
    /// Changes or deletes it.
    pub write: bool,
}

impl Access {
    /// Both.
    pub const ALL: Access = Access { read: true, write: true };
}

/// One of a command's key specs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPart {
    /// Where to begin.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
}

/// Where a key spec begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(u32),
    /// Behind this word (in any letter case); without the word the spec has no keys.
    Keyword {
        /// The word.
        word: Box<str>,
        /// The search's first argument; negative: counted from the end, and searched backwards.
        from: i32,
    },
}

/// Which arguments are keys, counted from where the key spec begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    /// Up to a last one.
    Range {
        /// From the beginning; negative: from the end of all arguments.
        last: i32,
        /// From one key to the next; at least 1.
        step: u32,
        /// With a negative `last`: the keys are the first 1/limit of the arguments that are left
        /// (XREAD: 2); 0 and 1 mean no limit.
        limit: u32,
    },
    /// As many as an argument says.
    Keynum {
        /// Where the number is.
        index: u32,
        /// Where the first key is.
        first: u32,
        /// From one key to the next; at least 1.
        step: u32,
    },
}

/// The commands whose keys the key specs do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// `SORT key … [STORE destination]`: STORE may be anywhere, and a pattern may be called so.
    Sort,
    /// `MIGRATE host port key|"" db timeout … [KEYS key …]`: passwords may be called KEYS.
    Migrate,
    /// `GEORADIUS key … [STORE destination] [STOREDIST destination]`: they may be said again, and
    /// the server takes the last, where the key specs see the first.
    Georadius {
        /// The first argument that may be one of them.
        options: u8,
    },
    /// `XREADGROUP GROUP group consumer … STREAMS key … id …`: a consumer may be called STREAMS.
    Streams {
        /// STREAMS is at this argument or a later one.
        from: u8,
    },
}

/// The command tip `request_policy`: which nodes a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPolicy {
    /// No tip: the node of its keys, or any node if it has none.
    None,
    /// Every node, replicas included.
    AllNodes,
    /// Every primary.
    AllShards,
    /// The primaries of its keys, each with its own keys.
    MultiShard,
    /// Neither of these.
    Special,
}

/// The command tip `response_policy`: how the nodes' replies become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponsePolicy {
    /// No tip: with keys the replies in the keys' order, without keys all together.
    None,
    /// The first that is not an error.
    OneSucceeded,
    /// The first, if none is an error.
    AllSucceeded,
    /// Logical and.
    AggLogicalAnd,
    /// Logical or.
    AggLogicalOr,
    /// The smallest.
    AggMin,
    /// The largest.
    AggMax,
    /// The sum.
    AggSum,
    /// None of these.
    Special,
}
