//! Freed pages: how long the allocator keeps them.

use crate::common::Core;

/// No freed pages are kept by a worker whose buffers take more than this. Giving back 128 MiB takes
/// some 10 ms.
const MAX_KEPT: usize = 128 << 20;

impl Core {
    /// Bytes of buffers up to which freed pages are kept for a while. Beyond half of the share, what
    /// is kept could add up with what is in use to more than the share; and giving back very much at
    /// once would hold everybody up.
    pub(crate) fn keeps_pages_up_to(&self) -> usize {
        (self.settings.memory / 2).min(MAX_KEPT)
    }

    /// The allocator's freed pages go back to the system, a second after the first of them was freed.
    pub(crate) fn purge(&mut self) {
        self.memory.arena.purge();
        self.memory.purged_at = Some(self.memory.meter.activity());
    }
}
