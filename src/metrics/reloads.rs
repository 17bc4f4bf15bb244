//! What became of reloads of the configuration.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// What became of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Something has changed.
    Changed,
    /// Nothing is different.
    Unchanged,
    /// It cannot be used.
    Invalid,
}

/// For the metrics.
#[derive(Debug)]
pub struct ReloadStats {
    /// By [`ReloadOutcome`].
    pub outcomes: [AtomicU64; 3],
    /// What the file says is what is in use.
    pub(super) in_use: AtomicBool,
    /// Since when, in milliseconds since 1970.
    pub taken: AtomicU64,
    /// Keys that wait for a restart.
    pub restart_keys: AtomicU64,
}

impl Default for ReloadStats {
    fn default() -> Self {
        ReloadStats {
            outcomes: Default::default(),
            in_use: AtomicBool::new(true),
            taken: AtomicU64::new(now()),
            restart_keys: AtomicU64::new(0),
        }
    }
}

impl ReloadStats {
    /// It came to this; so many keys wait for a restart.
    pub fn count(&self, outcome: ReloadOutcome, restart: usize) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
        if outcome == ReloadOutcome::Invalid {
            return self.in_use.store(false, Relaxed);
        }
        self.restart_keys.store(restart as u64, Relaxed);
        self.in_use.store(restart == 0, Relaxed);
        self.taken.store(now(), Relaxed);
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_says_whether_the_file_is_in_use() {
        let stats = ReloadStats::default();
        let in_use = || stats.in_use.load(Relaxed);
        assert!(in_use());
        stats.count(ReloadOutcome::Invalid, 0);
        assert!(!in_use());
        stats.count(ReloadOutcome::Changed, 1);
        assert!(!in_use(), "a key waits for a restart");
        stats.count(ReloadOutcome::Unchanged, 1);
        assert!(!in_use());
        stats.count(ReloadOutcome::Changed, 0);
        assert!(in_use());
        assert_eq!(stats.outcomes.each_ref().map(|n| n.load(Relaxed)), [2, 1, 1]);
    }
}
