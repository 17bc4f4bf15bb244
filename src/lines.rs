//! Rate limit for log lines that outsiders can cause: some lines of each kind are written per
//! period, and the next line tells how many were left out.

use std::time::{Duration, Instant};

/// Default for the maximum number of lines of one kind per [`PERIOD`].
const DEFAULT_MAX: u32 = 10;
/// The period of the limit.
const PERIOD: Duration = Duration::from_secs(10);

/// The rate limit of one kind of line. See [`sparsely!`](crate::sparsely).
#[derive(Debug)]
pub struct LogLimit {
    /// Maximum number of lines per [`PERIOD`].
    max: u32,
    since: Option<Instant>,
    /// Lines written in the period.
    written: u32,
    /// Lines left out since the last one written.
    left_out: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        LogLimit::with(DEFAULT_MAX)
    }
}

impl LogLimit {
    /// A limit of `max` lines per ten seconds.
    pub fn with(max: u32) -> Self {
        LogLimit { max, since: None, written: 0, left_out: 0 }
    }

    /// Whether a line may be written now. `None`: it is left out. `Some`: it is written, with the
    /// number of lines left out since the last one, if any.
    pub fn allow(&mut self) -> Option<Option<u64>> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&mut self, now: Instant) -> Option<Option<u64>> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            self.since = Some(now);
            self.written = 0;
        }
        if self.written >= self.max {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        let left_out = std::mem::take(&mut self.left_out);
        Some((left_out > 0).then_some(left_out))
    }
}

/// `sparsely!(lines, warn, …)`: `tracing::warn!(…)` with the field `left_out`, unless the limit
/// [`LogLimit`] is reached.
#[macro_export]
macro_rules! sparsely {
    ($lines:expr, $level:ident, $($what:tt)+) => {
        if let Some(left_out) = $lines.allow() {
            tracing::$level!(left_out, $($what)+);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let (mut lines, now) = (LogLimit::default(), Instant::now());
        let written = (0..100).filter(|_| lines.allow_at(now) == Some(None)).count();
        assert_eq!(written, DEFAULT_MAX as usize);
        assert_eq!(lines.allow_at(now + PERIOD / 2), None);
        assert_eq!(lines.allow_at(now + PERIOD), Some(Some(91)));
        assert_eq!(lines.allow_at(now + PERIOD), Some(None));
    }
}
