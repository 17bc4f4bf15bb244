//! Differences and quantiles of histograms.

use super::stats::{BUCKETS_MICROS, Histogram};

impl Histogram {
    /// The observations made since `earlier`, a copy of the same histogram.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut new = self.clone();
        for (now, was) in new.buckets.iter_mut().zip(&earlier.buckets) {
            *now = now.saturating_sub(*was);
        }
        new.sum_micros = self.sum_micros.saturating_sub(earlier.sum_micros);
        new
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The `q`-quantile in microseconds, estimated as by Prometheus's `histogram_quantile`: linear
    /// within a bucket, and at most the bound of the last one. `None` if there are no observations.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = q * count as f64;
        let (mut below, mut from) = (0.0, 0);
        for (&in_bucket, &to) in self.buckets.iter().zip(&BUCKETS_MICROS) {
            let here = in_bucket as f64;
            if here > 0.0 && below + here >= rank {
                let part = ((rank - below) / here).clamp(0.0, 1.0);
                return Some(from + ((to - from) as f64 * part) as u64);
            }
            below += here;
            from = to;
        }
        Some(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_what_is_new() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for micros in [60, 60, 150, 99_000_000] {
            histogram.record(Histogram::bucket(micros), micros);
        }
        assert_eq!(histogram.quantile(0.5), Some(100), "both of the bucket up to 100");
        assert_eq!(histogram.quantile(0.25), Some(75), "half of them");
        assert_eq!(histogram.quantile(0.99), Some(10_000_000), "slower than the last bound");
        let before = histogram.clone();
        assert_eq!(histogram.since(&before).quantile(0.5), None);
        histogram.record(Histogram::bucket(40), 40);
        let new = histogram.since(&before);
        assert_eq!((new.count(), new.sum_micros, new.quantile(1.0)), (1, 40, Some(50)));
    }
}
