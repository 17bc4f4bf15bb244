//! Pauses between attempts, with jitter: connections, workers and slotways that fail together do
//! not try again together. No I/O.

use std::time::Duration;

/// Exponential back-off: the pause doubles with each consecutive failure, up to a limit.
///
/// It keeps no count. Whoever makes the attempts counts failures and resets the count on success,
/// because a reload may replace the limits in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure, microseconds.
    pub min: u64,
    /// The longest pause, microseconds.
    pub max: u64,
}

impl Backoff {
    /// Back-off between `min` and `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Backoff { min: min.as_micros() as u64, max: max.as_micros() as u64 }
    }

    /// The pause after this many consecutive failures, microseconds: shortened by up to half at
    /// random.
    pub fn pause(self, failures: u32) -> u64 {
        let doubled = self.min.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let doubled = doubled.min(self.max);
        doubled - fastrand::u64(..=doubled / 2)
    }
}

/// `period`, lengthened or shortened by up to `percent` percent at random.
pub fn jittered(period: Duration, percent: u32) -> Duration {
    let span = f64::from(percent) / 100.0;
    period.mul_f64(1.0 - span + 2.0 * span * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_vary_by_half() {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
        for (failures, longest) in [(0, 10), (1, 10), (2, 20), (4, 80), (5, 100), (u32::MAX, 100)] {
            for _ in 0..100 {
                let pause = backoff.pause(failures);
                assert!((longest * 500..=longest * 1000).contains(&pause), "{failures}: {pause}");
            }
        }
        let none = Backoff { min: 0, max: 0 };
        assert_eq!(none.pause(7), 0);
        let endless = Backoff { min: u64::MAX, max: u64::MAX };
        assert!(endless.pause(30) >= u64::MAX / 2);
    }

    #[test]
    fn jitter_goes_both_ways() {
        let all: Vec<u128> =
            (0..200).map(|_| jittered(Duration::from_secs(1), 10).as_millis()).collect();
        assert!(all.iter().all(|ms| (899..=1101).contains(ms)), "{all:?}");
        assert!(all.iter().any(|ms| *ms < 1000) && all.iter().any(|ms| *ms > 1000), "{all:?}");
    }
}
