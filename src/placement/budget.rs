//! How many retries a worker may send: a share of the recent commands and a minimum. A retry beyond
//! it waits; it does not fail.

/// A second in microseconds.
const SECOND: u64 = 1_000_000;

/// The retries that one worker may send: a share of the commands that were answered, and a
/// minimum per second. What is not used within a second expires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    ratio: f64,
    min_per_second: f64,
    tokens: f64,
    /// Tokens earned per second, as of the last look.
    rate: f64,
    seen: u64,
    at: u64,
}

impl Budget {
    /// `percent` retries for a hundred commands, and `min_per_second` in any case.
    pub fn new(percent: usize, min_per_second: usize) -> Budget {
        let min = min_per_second as f64;
        let ratio = percent as f64 / 100.0;
        Budget { ratio, min_per_second: min, tokens: min, rate: min, seen: 0, at: 0 }
    }

    /// Takes over another configuration; what was earned stays.
    pub fn configure(&mut self, percent: usize, min_per_second: usize) {
        self.ratio = percent as f64 / 100.0;
        self.min_per_second = min_per_second as f64;
    }

    /// Adds what was earned until `now`; `answered` is the worker's number of commands so far.
    pub fn earn(&mut self, now: u64, answered: u64) {
        let passed = now.saturating_sub(self.at);
        if passed < 1_000 {
            return;
        }
        let seconds = passed as f64 / SECOND as f64;
        let commands = answered.saturating_sub(self.seen) as f64;
        self.rate = self.min_per_second + self.ratio * commands / seconds;
        self.tokens = if seconds < 1.0 {
            (self.tokens + self.rate * seconds).min(self.rate.max(self.tokens))
        } else {
            self.rate
        };
        // What was saved in busier times does not last.
        let surplus = (self.tokens - self.rate).max(0.0);
        self.tokens -= surplus * seconds.min(1.0);
        (self.seen, self.at) = (answered, now);
    }

    /// Whether one more retry may go now.
    pub fn has(&self) -> bool {
        self.tokens >= 1.0
    }

    /// Takes `count` retries, if need be on credit: those that cannot wait make others wait, a
    /// second's worth at most.
    pub fn take(&mut self, count: usize) {
        self.tokens = (self.tokens - count as f64).max(-self.min_per_second);
    }

    /// Microseconds until there is one more.
    pub fn wait(&self) -> u64 {
        let missing = (1.0 - self.tokens).max(0.0);
        ((missing / self.rate.max(1.0) * SECOND as f64) as u64).clamp(1_000, SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_minimum_and_a_share() {
        let mut budget = Budget::new(20, 10);
        budget.earn(SECOND, 0);
        for _ in 0..10 {
            assert!(budget.has());
            budget.take(1);
        }
        assert!(!budget.has());
        assert_eq!(budget.wait(), 100_000);
        // Half a second with 100 commands: 5 and 20.
        budget.earn(SECOND + SECOND / 2, 100);
        let mut more = 0;
        while budget.has() {
            budget.take(1);
            more += 1;
        }
        assert_eq!(more, 25);
        // A long time later there is a second's worth.
        budget.earn(100 * SECOND, 100);
        assert!((budget.tokens - 10.0).abs() < 0.01, "{}", budget.tokens);
        // Credit is a second's worth, too.
        budget.take(1000);
        assert!((budget.tokens + 10.0).abs() < 0.01, "{}", budget.tokens);
    }

    #[test]
    fn another_configuration_keeps_what_was_earned() {
        let mut budget = Budget::new(0, 10);
        budget.configure(50, 20);
        assert_eq!(budget.tokens, 10.0);
        // A second with 100 commands: 20 and 50.
        budget.earn(SECOND, 100);
        assert_eq!(budget.tokens, 70.0);
    }

    #[test]
    fn a_look_within_a_millisecond_earns_nothing() {
        let mut budget = Budget::new(0, 1_000);
        budget.take(1_000);
        budget.earn(999, 0);
        assert_eq!(budget.tokens, 0.0);
        budget.earn(1_000, 0);
        assert_eq!(budget.tokens, 1.0);
    }

    #[test]
    fn what_was_saved_in_busier_times_does_not_last() {
        let mut budget = Budget::new(0, 100);
        budget.configure(0, 50);
        // In half a second half of what is above a second's worth is lost.
        budget.earn(SECOND / 2, 0);
        assert_eq!(budget.tokens, 75.0);
    }

    #[test]
    fn the_wait_is_for_what_is_missing() {
        let mut budget = Budget::new(0, 4);
        budget.take(4);
        assert_eq!(budget.wait(), SECOND / 4);
        budget.take(1);
        assert_eq!(budget.wait(), SECOND / 2, "on credit");
        budget.take(100);
        assert_eq!(budget.wait(), SECOND, "at most");
        assert_eq!(Budget::new(0, 4).wait(), 1_000, "at least");
    }
}
