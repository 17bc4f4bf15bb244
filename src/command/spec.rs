//! The specification of one command.

use super::class::Class;
use super::flags::Flags;

/// The specification of a command or subcommand, as reported by a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// Name in lower case; of a subcommand with its container: `config|set`.
    pub name: Box<str>,
    /// Number of arguments, including the name (and the subcommand's); negative: the minimum.
    pub arity: i32,
    /// What the command does to data, connection and server.
    pub flags: Flags,
    /// Class for the metrics.
    pub class: Class,
    /// ACL categories without their `@`, sorted.
    pub categories: Box<[Box<str>]>,
    /// Positions of the keys (for sharded pub/sub of the channels, which have slots as keys do).
    pub keys: KeySpec,
    /// `keys` finds all keys. False if the server calls its key specs incomplete and slotway has no
    /// code of its own for the command (a module's, for example).
    pub keys_complete: bool,
    /// The key specs with the access to their keys, for checking users' permissions. Without specs
    /// of channels.
    pub access: Box<[KeyAccess]>,
    /// Which nodes the command is sent to.
    pub request_policy: RequestPolicy,
    /// How the nodes' replies are combined.
    pub response_policy: ResponsePolicy,
    /// The command has subcommands.
    pub container: bool,
    /// The command was observed to block its connection, although the server does not say so.
    pub seen_blocking: bool,
}

impl CommandSpec {
    /// Whether the arity permits `n` arguments, including the name.
    #[inline]
    pub fn arity_fits(&self, n: usize) -> bool {
        match usize::try_from(self.arity) {
            Ok(exact) => n == exact,
            Err(_) => n >= self.arity.unsigned_abs() as usize,
        }
    }

    /// Whether the command may change data. EVAL and FCALL, without such flags, count as writes.
    #[inline]
    pub fn is_write(&self) -> bool {
        self.flags.contains(Flags::WRITE)
            || (self.class == Class::Scripting
                && !self.keys.is_none()
                && !self.flags.contains(Flags::READONLY))
    }

    /// Whether the command only reads, so that it is safe to resend.
    #[inline]
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(Flags::READONLY) && !self.flags.contains(Flags::WRITE)
    }

    /// Whether the command may block its connection (BLPOP, XREAD BLOCK …).
    #[inline]
    pub fn may_block(&self) -> bool {
        self.flags.contains(Flags::BLOCKING)
    }
}

/// Positions of a command's keys among its arguments (argument 0 is the name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySpec {
    /// No keys.
    None,
    /// Exactly one key, this argument: the most common case and the fast path.
    One(u8),
    /// Every `step`th argument from `first` to `last`. A negative `last` counts from the end: `-1`
    /// is the last argument.
    Range {
        /// Argument of the first key.
        first: u32,
        /// Last argument that may be a key.
        last: i32,
        /// Distance between two keys; at least 1.
        step: u32,
    },
    /// Depends on the arguments: keywords, numbers of keys.
    Specs(Box<[KeyPart]>),
    /// Found by code, as the key specs cannot express it.
    Native(Native),
}

impl KeySpec {
    /// Whether the command has no keys.
    #[inline]
    pub fn is_none(&self) -> bool {
        matches!(self, KeySpec::None)
    }
}

/// A key spec with the access to its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAccess {
    /// The key spec.
    pub part: KeyPart,
    /// The access.
    pub access: Access,
}

/// The access of a command to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// The command returns or uses the key's value.
    pub read: bool,
    /// The command changes or deletes the key.
    pub write: bool,
}

impl Access {
    /// Read and write.
    pub const ALL: Access = Access { read: true, write: true };
}

/// A key spec of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPart {
    /// Where the search begins.
    pub begin: Begin,
    /// Which arguments from there on are keys.
    pub find: Find,
}

/// Where a key spec begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(u32),
    /// Behind this word, in any case. Without the word the spec has no keys.
    Keyword {
        /// The word.
        word: Box<str>,
        /// First argument of the search; negative: counted from the end, and searched backwards.
        from: i32,
    },
}

/// Which arguments are keys, relative to where the key spec begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    /// All up to a last one.
    Range {
        /// Last key, relative to the beginning; negative: to the end of all arguments.
        last: i32,
        /// Distance between two keys; at least 1.
        step: u32,
        /// With a negative `last`: the keys are the first 1/limit of the remaining arguments
        /// (XREAD: 2); 0 and 1 mean no limit.
        limit: u32,
    },
    /// As many as an argument says.
    Keynum {
        /// Position of the number of keys.
        index: u32,
        /// Position of the first key.
        first: u32,
        /// Distance between two keys; at least 1.
        step: u32,
    },
}

/// Commands whose keys the key specs do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// `SORT key … [STORE destination]`: STORE may be anywhere, and a pattern may have this name.
    Sort,
    /// `MIGRATE host port key|"" db timeout … [KEYS key …]`: a password may be `KEYS`.
    Migrate,
    /// `GEORADIUS key … [STORE destination] [STOREDIST destination]`: of repeated options the
    /// server takes the last, but the key specs find the first.
    Georadius {
        /// First argument that may be one of the options.
        options: u8,
    },
    /// `XREADGROUP GROUP group consumer … STREAMS key … id …`: a consumer may be called STREAMS.
    Streams {
        /// First argument that may be STREAMS.
        from: u8,
    },
}

/// The command tip `request_policy`: which nodes a command is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPolicy {
    /// No tip: to the node of its keys, or any node if it has none.
    None,
    /// Every node, replicas included.
    AllNodes,
    /// Every primary.
    AllShards,
    /// The primaries of its keys, each with its part of the keys.
    MultiShard,
    /// None of these.
    Special,
}

/// The command tip `response_policy`: how the nodes' replies are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponsePolicy {
    /// No tip: the replies in the order of the keys, or all together if there are none.
    None,
    /// The first reply that is not an error.
    OneSucceeded,
    /// The first reply, if none is an error.
    AllSucceeded,
    /// The logical AND of the replies.
    AggLogicalAnd,
    /// The logical OR of the replies.
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
