//! Points in time and durations, as types of their own, so that one is not taken for the other.

use std::ops::{Add, Sub};

/// A point in time, in microseconds of the worker's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// A duration in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

impl Add<Micros> for Moment {
    type Output = Moment;

    #[inline]
    fn add(self, pause: Micros) -> Moment {
        Moment(self.0 + pause.0)
    }
}

impl Sub for Moment {
    type Output = Micros;

    /// The time since `earlier`; zero if that is later.
    #[inline]
    fn sub(self, earlier: Moment) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_leads_to_a_later_moment() {
        assert_eq!(Moment(5) + Micros(10), Moment(15));
    }

    #[test]
    fn no_time_has_passed_since_a_later_moment() {
        assert_eq!(Moment(15) - Moment(5), Micros(10));
        assert_eq!(Moment(5) - Moment(15), Micros(0));
    }
}
