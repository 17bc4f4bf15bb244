//! The retry budget of a worker: a minimum per second, plus a share of the commands that were
//! answered. A retry that exceeds it waits; it does not fail.

use super::{Micros, Moment};

/// One second.
const SECOND: Micros = Micros(1_000_000);
/// Shortest interval at which tokens are earned, and shortest wait for one.
const MILLISECOND: Micros = Micros(1_000);

/// A token bucket of retries. Tokens that are not used within a second expire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    ratio: f64,
    min_per_second: f64,
    tokens: f64,
    /// Tokens earned per second, as of the last [`Budget::earn`].
    rate: f64,
    seen: u64,
    at: Moment,
}

impl Budget {
    /// A budget of `percent` retries per 100 commands, and at least `min_per_second`.
    pub fn new(percent: usize, min_per_second: usize) -> Budget {
        let min = min_per_second as f64;
        let ratio = percent as f64 / 100.0;
        Budget { ratio, min_per_second: min, tokens: min, rate: min, seen: 0, at: Moment(0) }
    }

    /// Replaces the configuration and keeps the tokens.
    pub fn configure(&mut self, percent: usize, min_per_second: usize) {
        self.ratio = percent as f64 / 100.0;
        self.min_per_second = min_per_second as f64;
    }

    /// Adds the tokens earned until `now`. `answered`: total commands answered by the worker. At
    /// most once a millisecond.
    pub fn earn(&mut self, now: Moment, answered: u64) {
        let passed = now - self.at;
        if passed < MILLISECOND {
            return;
        }
        let seconds = passed.0 as f64 / SECOND.0 as f64;
        let commands = answered.saturating_sub(self.seen) as f64;
        self.rate = self.min_per_second + self.ratio * commands / seconds;
        self.tokens = if seconds < 1.0 {
            (self.tokens + self.rate * seconds).min(self.rate.max(self.tokens))
        } else {
            self.rate
        };
        // Tokens saved at a higher rate expire over the next second.
        let surplus = (self.tokens - self.rate).max(0.0);
        self.tokens -= surplus * seconds.min(1.0);
        (self.seen, self.at) = (answered, now);
    }

    /// Whether a retry may be sent now.
    pub fn has(&self) -> bool {
        self.tokens >= 1.0
    }

    /// Takes `count` tokens, on credit if need be: retries that cannot wait delay others. The debt
    /// is at most one second's minimum.
    pub fn take(&mut self, count: usize) {
        self.tokens = (self.tokens - count as f64).max(-self.min_per_second);
    }

    /// Time until there is a token: 1 ms to 1 s.
    pub fn wait(&self) -> Micros {
        let missing = (1.0 - self.tokens).max(0.0);
        Micros((missing / self.rate.max(1.0) * SECOND.0 as f64) as u64).clamp(MILLISECOND, SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_minimum_and_a_share() {
        let mut budget = Budget::new(20, 10);
        budget.earn(Moment(SECOND.0), 0);
        for _ in 0..10 {
            assert!(budget.has());
            budget.take(1);
        }
        assert!(!budget.has());
        assert_eq!(budget.wait(), Micros(100_000));
        // Half a second with 100 commands earns 5 and 20.
        budget.earn(Moment(SECOND.0 + SECOND.0 / 2), 100);
        let mut more = 0;
        while budget.has() {
            budget.take(1);
            more += 1;
        }
        assert_eq!(more, 25);
        // After a long time there is one second's worth.
        budget.earn(Moment(100 * SECOND.0), 100);
        assert!((budget.tokens - 10.0).abs() < 0.01, "{}", budget.tokens);
        // The debt is limited to one second's worth.
        budget.take(1000);
        assert!((budget.tokens + 10.0).abs() < 0.01, "{}", budget.tokens);
    }

    #[test]
    fn another_configuration_keeps_what_was_earned() {
        let mut budget = Budget::new(0, 10);
        budget.configure(50, 20);
        assert_eq!(budget.tokens, 10.0);
        // A second with 100 commands earns 20 and 50.
        budget.earn(Moment(SECOND.0), 100);
        assert_eq!(budget.tokens, 70.0);
    }

    #[test]
    fn a_look_within_a_millisecond_earns_nothing() {
        let mut budget = Budget::new(0, 1_000);
        budget.take(1_000);
        budget.earn(Moment(999), 0);
        assert_eq!(budget.tokens, 0.0);
        budget.earn(Moment(1_000), 0);
        assert_eq!(budget.tokens, 1.0);
    }

    #[test]
    fn what_was_saved_in_busier_times_does_not_last() {
        let mut budget = Budget::new(0, 100);
        budget.configure(0, 50);
        // Half of the surplus over one second's worth expires in half a second.
        budget.earn(Moment(SECOND.0 / 2), 0);
        assert_eq!(budget.tokens, 75.0);
    }

    #[test]
    fn the_wait_is_for_what_is_missing() {
        let mut budget = Budget::new(0, 4);
        budget.take(4);
        assert_eq!(budget.wait(), Micros(SECOND.0 / 4));
        budget.take(1);
        assert_eq!(budget.wait(), Micros(SECOND.0 / 2), "on credit");
        budget.take(100);
        assert_eq!(budget.wait(), SECOND, "at most");
        assert_eq!(Budget::new(0, 4).wait(), MILLISECOND, "at least");
    }
}
