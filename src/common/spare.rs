//! Buffers that are kept for their capacity.

use crate::buf::CHUNK;
use crate::client::Multi;
use crate::common::Spare;

/// Transactions that are kept.
const MOST_MULTIS: usize = 64;

impl Spare {
    /// The transaction is over: its buffers are kept, if there are few and they are small.
    pub(crate) fn keep_multi(&mut self, mut multi: Box<Multi>) {
        if self.multis.len() < MOST_MULTIS && multi.memory() <= CHUNK {
            let frames = std::mem::take(&mut multi.frames);
            *multi = Multi::reusing(frames, std::mem::take(&mut multi.queue));
            self.multis.push(multi);
        }
    }

    /// Gives back what is only kept for reuse.
    pub(crate) fn trim(&mut self) {
        self.pool.clear();
        self.replies = Vec::new();
        self.gathers = Vec::new();
        self.multis = Vec::new();
    }
}
