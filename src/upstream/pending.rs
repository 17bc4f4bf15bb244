//! A command that a node owes an answer to.

use std::collections::{VecDeque, vec_deque};
use std::ops::Deref;

use crate::buf::with_copy;
use crate::metrics::Redirection;
use crate::route::retry::Class;
use crate::route::{HoldMeta, LaneKey};

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

/// One command in an upstream connection's queue. Its bytes are in the connection's send queue,
/// in the same order.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// Who waits for the reply.
    pub dest: Dest,
    /// Bytes of the command.
    pub len: u32,
    /// Its keys' slot, or [`NO_SLOT`].
    pub slot: u16,
    /// Index in the command table.
    pub command: u16,
    /// Of [`flag`].
    pub flags: u8,
    /// With whose rights it is sent: 0 for slotway's own user, otherwise the worker's number for a
    /// user of the cluster.
    pub realm: u16,
    /// How often it was sent again, up to 255.
    pub tries: u8,
    /// Kind of the last refusal by a node; `None`: no node has refused it.
    pub refused: Option<Redirection>,
    /// Replies that come before the one that is waited for: those of MULTI and of the commands
    /// queued behind it, in the batch that ends with EXEC.
    pub before: u32,
    /// It is in a transaction behind a read that its node refuses if it does not serve the shard
    /// (`worker::shard_check`).
    pub checks_shard: bool,
    /// When its client sent it: microseconds of the worker's clock.
    pub started: u64,
    /// Expected size of the larger of command and reply, bytes. Does not change while it is in a
    /// [`PendingQueue`].
    pub expected: u32,
}

/// [`Pending::slot`] of a command without keys.
pub const NO_SLOT: u16 = u16::MAX;

/// The flags of a [`Pending`].
pub mod flag {
    /// Sending it twice does no harm.
    pub const READ_ONLY: u8 = 1;
    /// It came out of a lane of [`crate::route::Holds`], which wants to know when it is answered.
    pub const LANE: u8 = 2;
    /// It was sent before its slot was held, and the hold counts on hearing of it.
    pub const TRACKED: u8 = 4;
    /// It is for this node and no other (a part of a command for several nodes).
    pub const NODE_BOUND: u8 = 8;
    /// ASKING goes before it, which is the entry in front.
    pub const ASKING: u8 = 16;
    /// Its client speaks RESP3.
    pub const RESP3: u8 = 32;
    /// The SCRIPT LOAD of its script went before it in the same turn. Of a batch: there is an
    /// EVALSHA in it.
    pub const SCRIPT: u8 = 64;
    /// It is PUBLISH or SPUBLISH, or a batch that has one in it: its reply counts subscribers.
    pub const PUBLISHES: u8 = 128;
    /// Any of what makes the worker look twice when the reply is here.
    pub const SPECIAL: u8 = LANE | TRACKED;
}

impl Pending {
    /// With which other commands a node refuses or serves it.
    pub fn class(&self) -> Class {
        match self.flags {
            flags if flags & flag::READ_ONLY != 0 => Class::Read,
            flags if flags & flag::PUBLISHES != 0 && self.before == 0 => Class::Publish,
            _ => Class::Write,
        }
    }

    /// Whether `flag` is set.
    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The commands that one connection's node owes answers to, in order, and the sum of
/// [`Pending::expected`].
#[derive(Debug, Default)]
pub struct PendingQueue {
    commands: VecDeque<Pending>,
    expected: usize,
}

impl PendingQueue {
    /// Expected bytes of all transfers.
    #[inline]
    pub fn expected(&self) -> usize {
        self.expected
    }

    /// Appends a command.
    #[inline]
    pub fn push_back(&mut self, pending: Pending) {
        self.expected += pending.expected as usize;
        self.commands.push_back(pending);
    }

    /// Takes out the first command.
    #[inline]
    pub fn pop_front(&mut self) -> Option<Pending> {
        let pending = self.commands.pop_front()?;
        self.expected -= pending.expected as usize;
        Some(pending)
    }

    /// The first command.
    pub fn front_mut(&mut self) -> Option<&mut Pending> {
        self.commands.front_mut()
    }

    /// All commands.
    pub fn iter_mut(&mut self) -> vec_deque::IterMut<'_, Pending> {
        self.commands.iter_mut()
    }

    /// Takes out all commands.
    pub fn drain(&mut self) -> vec_deque::Drain<'_, Pending> {
        self.expected = 0;
        self.commands.drain(..)
    }

    /// Bytes that it occupies, with what growing takes for a moment.
    #[inline]
    pub fn held(&self) -> usize {
        const EACH: usize = size_of::<Pending>();
        with_copy(self.commands.capacity() * EACH, self.commands.len() * EACH)
    }

    /// Gives back what capacity is not used.
    pub fn shrink_to_fit(&mut self) {
        self.commands.shrink_to_fit();
    }
}

impl Deref for PendingQueue {
    type Target = VecDeque<Pending>;

    fn deref(&self) -> &VecDeque<Pending> {
        &self.commands
    }
}

/// A command in a lane: what is pending, and whose lane it is.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// The command.
    pub pending: Pending,
    /// Its client.
    pub lane: LaneKey,
}

impl HoldMeta for Waiting {
    fn started(&self) -> u64 {
        self.pending.started
    }

    fn class(&self) -> Class {
        self.pending.class()
    }
}
