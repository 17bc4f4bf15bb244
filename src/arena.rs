//! The calling thread's arena of the global allocator: when freed pages go back to the system.
//!
//! Giving every page back as soon as it is free (what `.cargo/config.toml` sets for all threads)
//! bounds resident memory best, but makes each large value pay for its pages anew: the kernel clears
//! them and takes a page fault for each. So a worker keeps freed pages for up to a second while its
//! buffers take little of its share of `limits.memory`, and none otherwise.

use tikv_jemalloc_ctl::{Access, AsName, Mib};

/// The arena of the thread that it was made on.
#[derive(Debug)]
pub struct Arena {
    /// The setting of how long the arena keeps freed pages; None where the allocator has none.
    decay: Option<Mib<[usize; 3]>>,
    keeps: bool,
}

impl Arena {
    /// How long freed pages are kept, milliseconds. The allocator itself looks at this only once in a
    /// thousand large allocations; [`Arena::purge`] is for all others.
    const KEEP: isize = 1000;

    /// The calling thread's arena, which keeps freed pages from now on.
    pub fn of_thread() -> Arena {
        let mut arena = Arena { decay: Self::setting(), keeps: false };
        arena.keep();
        arena
    }

    fn setting() -> Option<Mib<[usize; 3]>> {
        let index: u32 = b"thread.arena\0".name().read().ok()?;
        let mut setting: Mib<[usize; 3]> = b"arena.0.dirty_decay_ms\0".name().mib().ok()?;
        setting[1] = index as usize;
        Some(setting)
    }

    fn set(&mut self, milliseconds: isize) {
        let set = |setting: &Mib<[usize; 3]>| Access::<isize>::write(setting, milliseconds).is_ok();
        self.decay = self.decay.take().filter(set);
    }

    /// Whether freed pages are kept for a while.
    #[inline]
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// Freed pages are kept for up to a second.
    #[cold]
    pub fn keep(&mut self) {
        self.keeps = true;
        self.set(Self::KEEP);
    }

    /// Freed pages go back to the system at once: those that were kept, and those to come.
    #[cold]
    pub fn give_back(&mut self) {
        self.keeps = false;
        self.set(0);
    }

    /// The pages that were kept go back to the system.
    #[cold]
    pub fn purge(&mut self) {
        // Setting it to 0 has this effect; the control that has only this effect takes no value,
        // which the bindings cannot express.
        self.set(0);
        if self.keeps {
            self.set(Self::KEEP);
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the arena is set to.
    fn milliseconds(arena: &Arena) -> isize {
        arena.decay.as_ref().expect("the allocator has arenas").read().expect("a number")
    }

    #[test]
    fn the_arena_is_set_as_the_worker_wants_it() {
        let mut arena = Arena::of_thread();
        assert!(arena.keeps());
        assert_eq!(milliseconds(&arena), Arena::KEEP);
        arena.purge();
        assert_eq!((arena.keeps(), milliseconds(&arena)), (true, Arena::KEEP));
        arena.give_back();
        assert_eq!((arena.keeps(), milliseconds(&arena)), (false, 0));
        arena.purge();
        assert_eq!((arena.keeps(), milliseconds(&arena)), (false, 0), "purging keeps nothing");
        arena.keep();
        let setting = arena.decay;
        drop(arena);
        let after: isize = setting.expect("the allocator has arenas").read().expect("a number");
        assert_eq!(after, 0, "the next thread in this arena begins with pages that are given back");
    }
}
