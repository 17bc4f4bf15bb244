//! Outcomes of reloads of the configuration.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Outcome of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Values have changed.
    Changed,
    /// No value has changed.
    Unchanged,
    /// The new configuration is invalid, and was not adopted.
    Invalid,
}

/// Figures about reloads, for the metrics.
#[derive(Debug)]
pub struct ReloadStats {
    /// Number of reloads, by [`ReloadOutcome`].
    pub outcomes: [AtomicU64; 3],
    /// Whether the configuration in use is that of the file.
    pub(super) in_use: AtomicBool,
    /// Time at which the configuration in use was read, in milliseconds since 1970.
    pub taken: AtomicU64,
    /// Number of keys whose new values need a restart.
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
    /// Counts a reload after which the new values of `restart` keys need a restart.
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
