//! Commands that await their reply.

use std::collections::{VecDeque, vec_deque};
use std::ops::Deref;

use crate::buf::with_copy;
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::placement::{GateClass, HoldMeta, Moment, Redirection, Work};
use crate::route::PendingFlags;

/// One command in an upstream connection's queue. Its bytes are in the connection's
/// [`crate::buf::SendQueue`], in the same order.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// Destination of the reply.
    pub dest: Dest,
    /// Length of the command in bytes.
    pub len: u32,
    /// Slot of its keys, or [`Slot::NONE`].
    pub slot: Slot,
    /// Index in the command table.
    pub command: CommandId,
    /// What else is known of it.
    pub flags: PendingFlags,
    /// The user that it is sent as: 0 for slotway's own, otherwise the worker's number of a cluster
    /// user.
    pub realm: u16,
    /// Number of resends, up to 255.
    pub tries: u8,
    /// The last refusal by a node; `None`: no node has refused it.
    pub refused: Option<Redirection>,
    /// Number of replies that precede the awaited one: to MULTI and to the commands queued behind
    /// it, in a batch that ends with EXEC.
    pub before: u32,
    /// It is sent in a transaction behind a read that its node refuses if it does not serve the
    /// shard (`nodes::shard_check`).
    pub checks_shard: bool,
    /// When the client sent it, in microseconds of the worker's clock.
    pub started: u64,
    /// Expected size in bytes of the larger of command and reply. Constant while it is in a
    /// [`PendingQueue`].
    pub expected: u32,
}

impl Pending {
    /// The class of commands that a node refuses or serves together with it.
    pub fn class(&self) -> GateClass {
        match self.flags {
            flags if flags.contains(PendingFlags::READ_ONLY) => GateClass::Read,
            flags if flags.contains(PendingFlags::PUBLISHES) && self.before == 0 => {
                GateClass::Publish
            }
            _ => GateClass::Write,
        }
    }

    /// The slot of its keys; `None` if it has none.
    pub fn slot_of_keys(&self) -> Option<Slot> {
        self.slot.known()
    }

    /// Whether it was sent before and lost with its connection, so that it may have been executed.
    pub fn was_lost(&self) -> bool {
        self.tries > 0 && self.refused.is_none()
    }

    /// The command as the retry policy sees it, for a shared connection.
    pub fn work(&self) -> Work {
        match self.dest {
            Dest::Discard => Work::ReplyDiscarded,
            _ => Work::Shared { reads: self.flags.contains(PendingFlags::READ_ONLY) },
        }
    }
}

/// The unanswered commands of one connection, in order, and the sum of [`Pending::expected`].
#[derive(Debug, Default)]
pub struct PendingQueue {
    commands: VecDeque<Pending>,
    expected: usize,
}

impl PendingQueue {
    /// Sum of the expected sizes, in bytes.
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

    /// Memory in bytes, including the copy while it grows.
    #[inline]
    pub fn memory(&self) -> usize {
        const EACH: usize = size_of::<Pending>();
        with_copy(self.commands.capacity() * EACH, self.commands.len() * EACH)
    }

    /// Frees unused capacity.
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

/// A command in a lane of a hold.
#[derive(Debug, Clone, Copy)]
pub struct LaneCommand {
    /// The command.
    pub pending: Pending,
    /// The client, whose lane it is in.
    pub lane: ClientId,
}

impl HoldMeta for LaneCommand {
    fn started(&self) -> Moment {
        Moment(self.pending.started)
    }

    fn class(&self) -> GateClass {
        self.pending.class()
    }
}
