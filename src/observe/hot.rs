//! Hot keys: a space-saving sketch with exponentially decaying counts.
//!
//! A key that is not in the sketch replaces the one with the smallest count and inherits that count
//! as its maximum error (Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k
//! elements in data streams"). A key with more than 1/[`CAPACITY`] of the total is therefore always
//! in the sketch, and its count is too high by its error at most.
//!
//! Counts decay with a half-life of [`HALF_LIFE`]. Instead of decrementing old counts, the sketch
//! gives later observations a greater weight (forward decay), which preserves the order of counts.

use super::KeyName;
use crate::hash::fingerprint;

/// Capacity of a worker's sketch, in keys.
const CAPACITY: usize = 256;
/// Time in microseconds after which a count has half its weight.
pub const HALF_LIFE: u64 = 15_000_000;
/// Binary logarithm of the weight at which all counts are scaled down, to avoid overflow.
const REBASE: f64 = 40.0;

/// The sketch of one worker. About 60 KiB when full; a full sketch does not allocate.
#[derive(Debug, Default)]
pub struct HotKeys {
    /// Hashes of the keys, by entry. Apart from `entries`, as each lookup scans all of them.
    hashes: Vec<u64>,
    /// Decayed counts, by entry; an observation at `landmark` has the weight 1.
    counts: Vec<f64>,
    entries: Vec<Entry>,
    /// Decayed count of all observations.
    total: f64,
    /// Time at which an observation has the weight 1.
    landmark: u64,
    /// Start of counting.
    since: u64,
}

#[derive(Debug, Default)]
struct Entry {
    name: KeyName,
    /// Maximum error: the part of the count that may belong to replaced keys.
    error: f64,
    /// Writes, as a part of the count.
    writes: f64,
    command: u16,
}

/// A hot key.
#[derive(Debug, Clone, PartialEq)]
pub struct HotKey {
    /// The key.
    pub name: KeyName,
    /// Commands per second: lower bound.
    pub rate: f64,
    /// Difference between the lower and the upper bound of the rate.
    pub error: f64,
    /// Writes per second, as a part of `rate`.
    pub writes: f64,
    /// The last command observed, an index of the command table.
    pub command: u16,
}

/// The hot keys of one worker, or of several, merged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HotKeyReport {
    /// Key accesses per second, of all keys.
    pub rate: f64,
    /// Hot keys, hottest first.
    pub keys: Vec<HotKey>,
}

impl HotKeys {
    /// An empty sketch that counts from `now` on, in microseconds.
    pub fn new(now: u64) -> Self {
        HotKeys { landmark: now, since: now, ..HotKeys::default() }
    }

    /// Counts a command with `key`; a sampled command stands for `weight` commands.
    pub fn count(&mut self, key: &[u8], weight: f64, write: bool, command: u16, now: u64) {
        let weight = weight * self.weight(now);
        self.total += weight;
        let hash = fingerprint(key);
        let at = self.find(hash).unwrap_or_else(|| self.enter(hash, key));
        if let (Some(count), Some(entry)) = (self.counts.get_mut(at), self.entries.get_mut(at)) {
            *count += weight;
            if write {
                entry.writes += weight;
            }
            entry.command = command;
        }
    }

    /// The weight of an observation at `now`; rebases the counts if it gets too great.
    fn weight(&mut self, now: u64) -> f64 {
        let age = |landmark: u64| now.saturating_sub(landmark) as f64 / HALF_LIFE as f64;
        if age(self.landmark) > REBASE {
            let scale = (-age(self.landmark)).exp2();
            self.total *= scale;
            self.counts.iter_mut().for_each(|count| *count *= scale);
            for entry in &mut self.entries {
                entry.error *= scale;
                entry.writes *= scale;
            }
            self.landmark = now;
        }
        age(self.landmark).exp2()
    }

    fn find(&self, hash: u64) -> Option<usize> {
        // Most keys are not in the sketch, so the scan to the end is what costs: compare eight
        // hashes at once, without a branch.
        let eights = self.hashes.chunks(8);
        let near = { eights }.position(|eight| {
            eight.iter().fold(0, |found, known| found | u8::from(*known == hash)) != 0
        })?;
        let eight = self.hashes.iter().skip(near * 8).take(8);
        { eight }.position(|known| *known == hash).map(|at| near * 8 + at)
    }

    /// The smallest count, in eight lanes whose comparisons do not wait for one another.
    fn least(&self) -> f64 {
        let mut lanes = [f64::INFINITY; 8];
        for eight in self.counts.chunks(8) {
            for (lane, count) in lanes.iter_mut().zip(eight) {
                *lane = if *count < *lane { *count } else { *lane };
            }
        }
        lanes.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// Enters a key that the sketch does not have. Returns the index of its entry.
    fn enter(&mut self, hash: u64, key: &[u8]) -> usize {
        if self.entries.len() < CAPACITY {
            let mut entry = Entry::default();
            entry.name.set(hash, key);
            self.entries.push(entry);
            self.hashes.push(hash);
            self.counts.push(0.0);
            return self.entries.len() - 1;
        }
        let count = self.least();
        let at = self.counts.iter().position(|c| *c <= count).unwrap_or_default();
        if let (Some(entry), Some(known)) = (self.entries.get_mut(at), self.hashes.get_mut(at)) {
            *known = hash;
            entry.name.set(hash, key);
            entry.error = count;
            entry.writes = 0.0;
        }
        at
    }

    /// The hot keys at `now`, without those whose error exceeds their rate.
    pub fn hottest(&self, now: u64) -> HotKeyReport {
        let rate = self.rate_of_one(now);
        let keys = self.entries.iter().zip(&self.counts);
        let keys = keys.map(|(entry, count)| HotKey {
            name: entry.name.clone(),
            rate: (count - entry.error) * rate,
            error: entry.error * rate,
            writes: entry.writes * rate,
            command: entry.command,
        });
        let mut keys: Vec<HotKey> = keys.filter(|key| key.rate > key.error).collect();
        sort(&mut keys);
        HotKeyReport { rate: self.total * rate, keys }
    }

    /// Converts counts to rates: the rate per second at `now` that a count of 1 stands for.
    fn rate_of_one(&self, now: u64) -> f64 {
        let half_life = HALF_LIFE as f64;
        // The seconds for which a steady rate would have been counted, decay included. Within the
        // first second the rate is not known yet.
        let age = now.saturating_sub(self.since).max(1_000_000) as f64;
        let seconds = (1.0 - (-age / half_life).exp2()) * half_life / 1e6 / std::f64::consts::LN_2;
        (-(now.saturating_sub(self.landmark) as f64) / half_life).exp2() / seconds
    }
}

impl HotKeyReport {
    /// Adds the report of another worker.
    pub fn merge(&mut self, other: HotKeyReport) {
        self.rate += other.rate;
        for key in other.keys {
            match self.keys.iter_mut().find(|known| known.name.hash == key.name.hash) {
                Some(known) => {
                    known.rate += key.rate;
                    known.error += key.error;
                    known.writes += key.writes;
                }
                None => self.keys.push(key),
            }
        }
        sort(&mut self.keys);
    }
}

fn sort(keys: &mut [HotKey]) {
    keys.sort_by(|a, b| b.rate.total_cmp(&a.rate));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Reproducible keys with frequencies by Zipf's law.
    struct Zipf {
        random: fastrand::Rng,
        /// Cumulative frequencies, by rank.
        below: Vec<f64>,
    }

    impl Zipf {
        fn new(keys: usize) -> Self {
            let mut sum = 0.0;
            let below: Vec<f64> = (1..=keys)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect();
            Zipf { random: fastrand::Rng::with_seed(7), below }
        }

        fn share(&self, rank: usize) -> f64 {
            1.0 / (rank + 1) as f64 / self.below.last().expect("keys")
        }

        fn next(&mut self) -> usize {
            let at = self.random.f64() * self.below.last().expect("keys");
            self.below.partition_point(|b| *b < at)
        }
    }

    fn name(rank: usize) -> String {
        format!("key:{rank}")
    }

    /// With a sample of one in ten, the rates of the hottest keys are right to a few percent, and
    /// the bounds of the others hold.
    #[test]
    fn zipf_s_hottest_are_found_with_their_rates() {
        let mut zipf = Zipf::new(100_000);
        let mut sketch = HotKeys::new(0);
        let (mut counted, sample, rate) = (vec![0u32; 100_000], 10, 20_000u64);
        let end = 60 * SECOND;
        for i in 0..rate * 60 {
            let rank = zipf.next();
            counted[rank] += 1;
            if zipf.random.u64(..sample) == 0 {
                let now = i * SECOND / rate;
                sketch.count(name(rank).as_bytes(), sample as f64, rank.is_multiple_of(2), 3, now);
            }
        }
        let hottest = sketch.hottest(end);
        assert!((hottest.rate / rate as f64 - 1.0).abs() < 0.02, "{}", hottest.rate);
        for rank in 0..10 {
            let (key, right) = (&hottest.keys[rank], zipf.share(rank) * rate as f64);
            assert_eq!(String::from_utf8_lossy(&key.name.bytes), name(rank), "in their order");
            assert!((key.rate / right - 1.0).abs() < 0.15, "{rank}: {} is {right}", key.rate);
            let writes = if rank % 2 == 0 { key.rate } else { 0.0 };
            assert!((key.writes - writes).abs() <= 1e-6 * key.rate, "{key:?}");
        }
        // No key exceeds its true rate by more than its error and the noise of sampling.
        for key in &hottest.keys {
            let rank: usize =
                String::from_utf8_lossy(&key.name.bytes)[4..].parse().expect("a rank");
            let right = f64::from(counted[rank]) / 60.0;
            assert!(key.rate < right * 1.5 + 10.0, "{rank}: {} is {right}", key.rate);
        }
        assert!(hottest.keys.len() < CAPACITY, "keys with too great an error are left out");
    }

    #[test]
    fn what_was_hot_is_forgotten() {
        let mut sketch = HotKeys::new(0);
        for i in 0..60 * 100 {
            sketch.count(b"before", 1.0, false, 0, i * SECOND / 100);
        }
        let rate = |sketch: &HotKeys, now| sketch.hottest(now).keys[0].rate;
        assert!((rate(&sketch, 60 * SECOND) - 100.0).abs() < 5.0);
        assert!((rate(&sketch, 75 * SECOND) - 50.0).abs() < 3.0);
        for i in 0..60 * 50 {
            sketch.count(b"now", 1.0, false, 0, 60 * SECOND + i * SECOND / 50);
        }
        let hottest = sketch.hottest(120 * SECOND);
        let names: Vec<_> = hottest.keys.iter().map(|key| key.name.bytes.clone()).collect();
        assert_eq!(names, [b"now".to_vec(), b"before".to_vec()]);
        assert!((hottest.keys[0].rate - 50.0).abs() < 5.0 && hottest.keys[1].rate < 10.0);
        // A day later nothing overflows, and nothing is left.
        sketch.count(b"next day", 1.0, true, 0, 86_400 * SECOND);
        let hottest = sketch.hottest(86_400 * SECOND);
        assert_eq!(hottest.keys[0].name.bytes, b"next day");
        assert!(hottest.keys[1..].iter().all(|key| key.rate < 1e-6), "{hottest:?}");
    }

    #[test]
    fn long_keys_are_told_apart_and_cut() {
        let mut sketch = HotKeys::new(0);
        for last in [b'a', b'b', b'b'] {
            let mut key = vec![b'x'; 1000];
            key.push(last);
            sketch.count(&key, 1.0, false, 0, SECOND);
        }
        let keys = sketch.hottest(SECOND).keys;
        assert_eq!(keys.len(), 2);
        assert!(keys.iter().all(|key| key.name.truncated && key.name.bytes.len() == 128));
        assert!((keys[0].rate / keys[1].rate - 2.0).abs() < 1e-6);
    }

    #[test]
    fn workers_sketches_are_added_up() {
        let sketch = |keys: &[(&[u8], usize)]| {
            let mut sketch = HotKeys::new(0);
            for (key, times) in keys {
                (0..*times).for_each(|_| sketch.count(key, 1.0, true, 0, SECOND));
            }
            sketch.hottest(SECOND)
        };
        let mut all = sketch(&[(b"a", 5), (b"b", 4)]);
        all.merge(sketch(&[(b"b", 4), (b"c", 1)]));
        let names: Vec<_> = all.keys.iter().map(|key| key.name.bytes.clone()).collect();
        assert_eq!(names, [b"b".to_vec(), b"a".to_vec(), b"c".to_vec()]);
        assert!((all.keys[0].writes / all.keys[1].writes - 8.0 / 5.0).abs() < 1e-9);
    }
}
