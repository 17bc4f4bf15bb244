//! The commands that a client has queued between MULTI and EXEC.

use crate::command::CommandId;
use crate::route::{Fan, Local, Merge, flag};

/// Where a queued command goes when EXEC comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To this slot's node.
    Slot(u16),
    /// To whatever node the transaction goes to.
    Any,
    /// Nowhere: slotway answers it.
    Local(Local),
    /// To several slots.
    Split(Merge),
    /// To many nodes.
    Fan(Fan, Merge),
}

/// One queued command.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    /// Where its bytes begin in [`Multi::frames`]; they end where the next one's begin.
    pub start: usize,
    /// Index in the command table.
    pub command: CommandId,
    /// Where it goes.
    pub place: Place,
}

/// A transaction that is being queued. Its bytes are kept as one batch, beginning with MULTI, so
/// that the usual transaction (all in one slot) leaves as it is.
#[derive(Debug)]
pub struct Multi {
    /// MULTI and the commands.
    pub frames: Vec<u8>,
    /// The commands.
    pub queue: Vec<Queued>,
    /// A command was refused: EXEC will be, too.
    pub broken: bool,
    /// The first slot that was named, and the key.
    pub first: Option<(u16, Box<[u8]>)>,
    /// It does not fit into one batch: several slots, or commands that are not one node's.
    pub scattered: bool,
    /// All its commands only read.
    pub read_only: bool,
    /// It has an EVALSHA, whose script has to be there before.
    pub by_sha: bool,
    /// It has a PUBLISH, whose count of subscribers is put right.
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
    /// A new one in buffers that are there already.
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

    /// One more command.
    pub fn push(&mut self, frame: &[u8], command: CommandId, place: Place) {
        self.queue.push(Queued { start: self.frames.len(), command, place });
        if self.grows_by(frame) > 0 {
            let twice = 2 * self.frames.capacity();
            let grown = (self.frames.len() + frame.len() + EXEC.len()).max(twice);
            self.frames.reserve_exact(grown - self.frames.len());
        }
        self.frames.extend_from_slice(frame);
    }

    /// Bytes that are taken for a moment when this command is queued; 0: it has its place.
    pub fn grows_by(&self, frame: &[u8]) -> usize {
        let grown = self.frames.len() + frame.len() + EXEC.len();
        if grown <= self.frames.capacity() { 0 } else { grown }
    }

    /// The bytes of the `i`th command.
    pub fn frame(&self, i: usize) -> &[u8] {
        let start = self.queue.get(i).map_or(self.frames.len(), |q| q.start);
        let end = self.queue.get(i + 1).map_or(self.frames.len(), |q| q.start);
        self.frames.get(start..end).unwrap_or_default()
    }

    /// The queue is given up: what it holds is free, and only EXEC's refusal is left of it.
    pub fn break_off(&mut self) {
        self.broken = true;
        self.frames = Vec::new();
        self.queue = Vec::new();
    }

    /// What its batch is marked with, of [`flag`].
    pub fn flags(&self) -> u8 {
        let read_only = if self.read_only { flag::READ_ONLY } else { 0 };
        read_only | if self.publishes { flag::PUBLISHES } else { 0 }
    }

    /// Bytes that it occupies.
    pub fn held(&self) -> usize {
        crate::buf::resident(&self.frames)
            + crate::buf::with_copy(
                self.queue.capacity() * size_of::<Queued>(),
                self.queue.len() * size_of::<Queued>(),
            )
            + self.first.as_ref().map_or(0, |(_, key)| key.len())
    }
}
