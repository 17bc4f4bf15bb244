//! The transaction that a client queues between MULTI and EXEC.
//!
//! <https://redis.io/docs/latest/commands/multi/>

use crate::cluster::Slot;
use crate::command::CommandId;
use crate::route::{Fan, Local, Merge, PendingFlags};

/// Where a queued command is sent at EXEC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To this slot's node.
    Slot(Slot),
    /// To any node that the transaction is sent to.
    Any,
    /// Nowhere: answered by slotway.
    Local(Local),
    /// To several slots.
    Split(Merge),
    /// To many nodes.
    Fan(Fan, Merge),
}

/// One queued command.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    /// Start of its bytes in [`Multi::frames`]; they end where the next command's start.
    pub start: usize,
    /// Index in the command table.
    pub command: CommandId,
    /// Where it is sent.
    pub place: Place,
}

/// A transaction being queued. Its bytes form one batch that starts with MULTI, so that the usual
/// transaction (all keys in one slot) is sent as it is.
#[derive(Debug)]
pub struct Multi {
    /// MULTI followed by the commands.
    pub frames: Vec<u8>,
    /// The queued commands.
    pub queue: Vec<Queued>,
    /// A command was refused, so EXEC will be refused too.
    pub broken: bool,
    /// The first slot of a key, and that key.
    pub first: Option<(Slot, Box<[u8]>)>,
    /// It cannot be sent as one batch: several slots, or commands for several nodes.
    pub scattered: bool,
    /// All commands only read.
    pub read_only: bool,
    /// It contains EVALSHA, whose script must be loaded first.
    pub by_sha: bool,
    /// It contains PUBLISH, whose count of subscribers is corrected.
    pub publishes: bool,
}

/// MULTI as it is sent to nodes.
pub const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
/// EXEC as it is sent to nodes.
pub const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

impl Default for Multi {
    fn default() -> Self {
        Multi::reusing(Vec::new(), Vec::new())
    }
}

impl Multi {
    /// A new transaction that reuses buffers.
    pub fn reusing(mut frames: Vec<u8>, mut queue: Vec<Queued>) -> Self {
        frames.clear();
        frames.extend_from_slice(MULTI);
        queue.clear();
        Multi {
            frames,
            queue,
            broken: false,
            first: None,
            scattered: false,
            read_only: true,
            by_sha: false,
            publishes: false,
        }
    }

    /// Queues a command.
    pub fn push(&mut self, frame: &[u8], command: CommandId, place: Place) {
        self.queue.push(Queued { start: self.frames.len(), command, place });
        if self.grows_by(frame) > 0 {
            let twice = 2 * self.frames.capacity();
            let grown = (self.frames.len() + frame.len() + EXEC.len()).max(twice);
            self.frames.reserve_exact(grown - self.frames.len());
        }
        self.frames.extend_from_slice(frame);
    }

    /// Temporary memory for queueing this command, in bytes; 0 if it fits the capacity.
    pub fn grows_by(&self, frame: &[u8]) -> usize {
        let grown = self.frames.len() + frame.len() + EXEC.len();
        if grown <= self.frames.capacity() { 0 } else { grown }
    }

    /// The bytes of command `i`.
    pub fn frame(&self, i: usize) -> &[u8] {
        let start = self.queue.get(i).map_or(self.frames.len(), |q| q.start);
        let end = self.queue.get(i + 1).map_or(self.frames.len(), |q| q.start);
        self.frames.get(start..end).unwrap_or_default()
    }

    /// Drops the queued commands; EXEC will be refused.
    pub fn discard(&mut self) {
        self.broken = true;
        self.frames = Vec::new();
        self.queue = Vec::new();
    }

    /// The flags of its batch.
    pub fn flags(&self) -> PendingFlags {
        let mut flags = PendingFlags::empty();
        flags.set(PendingFlags::READ_ONLY, self.read_only);
        flags.set(PendingFlags::PUBLISHES, self.publishes);
        flags
    }

    /// Memory in bytes.
    pub fn memory(&self) -> usize {
        crate::buf::resident(&self.frames)
            + crate::buf::with_copy(
                self.queue.capacity() * size_of::<Queued>(),
                self.queue.len() * size_of::<Queued>(),
            )
            + self.first.as_ref().map_or(0, |(_, key)| key.len())
    }
}
