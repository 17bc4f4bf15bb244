//! A command that a node owes an answer to.

use std::collections::{VecDeque, vec_deque};
use std::ops::Deref;

use crate::buf::with_copy;
use crate::cluster::NO_SLOT;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::placement::{Class, HoldMeta, Redirection, Work};
use crate::route::flag;

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
    pub command: CommandId,
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

impl Pending {
    /// With which other commands a node refuses or serves it.
    pub fn class(&self) -> Class {
        match self.flags {
            flags if flags & flag::READ_ONLY != 0 => Class::Read,
            flags if flags & flag::PUBLISHES != 0 && self.before == 0 => Class::Publish,
            _ => Class::Write,
        }
    }

    /// The slot of its keys; `None`: it has no keys.
    pub fn slot_of_keys(&self) -> Option<u16> {
        Some(self.slot).filter(|&slot| slot != NO_SLOT)
    }

    /// Whether it was sent before, and lost with its connection: it may have been executed then.
    pub fn was_lost(&self) -> bool {
        self.tries > 0 && self.refused.is_none()
    }

    /// The command as the retry policy sees it, on a connection that clients share.
    pub fn work(&self) -> Work {
        match self.dest {
            Dest::Discard => Work::Unwaited,
            _ => Work::Shared { reads: self.has(flag::READ_ONLY) },
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
    pub lane: ClientId,
}

impl HoldMeta for Waiting {
    fn started(&self) -> u64 {
        self.pending.started
    }

    fn class(&self) -> Class {
        self.pending.class()
    }
}
