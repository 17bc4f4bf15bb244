//! Freed pages: how long the allocator keeps them.

use crate::common::settings::Settings;
use crate::common::{Core, Memory};

/// No freed pages are kept by a worker whose buffers take more than this. Giving back 128 MiB takes
/// some 10 ms.
const MAX_KEPT: usize = 128 << 20;

impl Settings {
    /// Bytes of buffers up to which freed pages are kept for a while. Beyond half of the share, what
    /// is kept could add up with what is in use to more than the share; and giving back very much at
    /// once would hold everybody up.
    fn keeps_pages_up_to(&self) -> usize {
        (self.memory / 2).min(MAX_KEPT)
    }
}

impl Memory {
    /// The allocator's freed pages go back to the system, a second after the first of them was freed.
    pub(crate) fn purge(&mut self) {
        self.arena.purge();
        self.purged_at = Some(self.meter.activity());
    }
}

impl Core {
    /// So many bytes more than are accounted for are about to be taken.
    pub(crate) fn keep_or_give_back(&mut self, bytes: usize) {
        let taken = self.memory.accounted + bytes;
        let enough = self.settings.keeps_pages_up_to();
        if self.memory.arena.keeps() {
            if taken > enough {
                self.memory.arena.give_back();
            }
        } else if taken < enough / 2 {
            self.memory.arena.keep();
        }
    }
}
