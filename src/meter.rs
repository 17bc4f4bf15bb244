//! Bytes that a thread has allocated and not freed, as counted by the global allocator.
//!
//! The accounted size of the buffers (`Worker::accounted`) is updated once per turn or event.
//! Between updates this meter tells how much memory was added by whatever code, for the price of
//! two loads.

use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};

/// The allocator's counters of the thread that created the meter.
pub struct Meter {
    /// `None` if the allocator does not count.
    counters: Option<(ThreadLocal<u64>, ThreadLocal<u64>)>,
    base: u64,
}

impl Meter {
    /// A meter of the calling thread, starting at zero.
    pub fn new() -> Meter {
        let counters = allocatedp::read().ok().zip(deallocatedp::read().ok());
        let mut meter = Meter { counters, base: 0 };
        meter.reset();
        meter
    }

    #[inline]
    fn net(&self) -> u64 {
        self.counters.map_or(0, |(allocated, freed)| allocated.get().wrapping_sub(freed.get()))
    }

    /// A number that changes with every allocation and deallocation on this thread.
    #[inline]
    pub fn activity(&self) -> u64 {
        self.counters.map_or(0, |(allocated, freed)| allocated.get().wrapping_add(freed.get()))
    }

    /// Restarts at zero.
    #[inline]
    pub fn reset(&mut self) {
        self.base = self.net();
    }

    /// Bytes allocated and not freed since the last reset; 0 if more was freed.
    #[inline]
    pub fn grown(&self) -> usize {
        // A thread may free what another one allocated, so the difference is signed.
        usize::try_from(self.net().wrapping_sub(self.base).cast_signed()).unwrap_or(0)
    }
}

impl Default for Meter {
    fn default() -> Self {
        Meter::new()
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("grown", &self.grown()).finish()
    }
}
