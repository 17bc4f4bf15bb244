//! Bytes that a thread has allocated and not freed, as the program's global allocator counts them.
//!
//! The buffers' own account (`Worker::accounted`) is brought up to date once per turn or event.
//! Between two such moments this count says how much has been added, whatever added it, for the
//! price of two loads.

use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};

/// Reads the counters of the thread that it was made on.
pub struct Meter {
    /// None where the allocator does not count.
    counters: Option<(ThreadLocal<u64>, ThreadLocal<u64>)>,
    base: u64,
}

impl Meter {
    /// A meter of the calling thread, at zero.
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

    /// A number that stays the same while nothing is allocated or freed on this thread.
    #[inline]
    pub fn activity(&self) -> u64 {
        self.counters.map_or(0, |(allocated, freed)| allocated.get().wrapping_add(freed.get()))
    }

    /// Counts from zero again.
    #[inline]
    pub fn reset(&mut self) {
        self.base = self.net();
    }

    /// Bytes allocated and not freed since the last reset; 0 where more was freed.
    #[inline]
    pub fn grown(&self) -> usize {
        // A thread may free what another one allocated: the difference is a signed number.
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
