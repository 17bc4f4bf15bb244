//! The calling thread's arena of the global allocator (jemalloc), and when its freed pages return
//! to the system.
//!
//! Returning every page as soon as it is free (what `.cargo/config.toml` sets for all threads)
//! bounds resident memory best, but then each large value pays page faults and zeroing for its
//! pages. So a worker keeps freed pages for up to a second while its buffers use little of its
//! share of `limits.memory`, and none otherwise.

use tikv_jemalloc_ctl::{Access, AsName, Mib};

/// The arena of the thread that created it.
#[derive(Debug)]
pub struct Arena {
    /// The setting `dirty_decay_ms` of the arena; `None` if the allocator has none.
    decay: Option<Mib<[usize; 3]>>,
    keeps: bool,
}

impl Arena {
    /// How long freed pages are kept, in milliseconds. The allocator itself checks this only once
    /// per thousand large allocations; [`Arena::purge`] is called in between.
    const KEEP: isize = 1000;

    /// The calling thread's arena, set to keep freed pages.
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

    /// Keeps freed pages for up to a second.
    #[cold]
    pub fn keep(&mut self) {
        self.keeps = true;
        self.set(Self::KEEP);
    }

    /// Returns the kept pages to the system, and from now on every page once it is free.
    #[cold]
    pub fn give_back(&mut self) {
        self.keeps = false;
        self.set(0);
    }

    /// Returns the kept pages to the system.
    #[cold]
    pub fn purge(&mut self) {
        // Setting the decay to 0 purges. The bindings cannot express the control that only purges.
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
