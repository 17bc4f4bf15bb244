//! Which keys are used most at the moment: a space-saving sketch whose counts decay.
//!
//! A key that is not in the sketch takes the place of the one with the smallest count, and inherits
//! that count as its possible error (Metwally, Agrawal, El Abbadi: "Efficient computation of
//! frequent and top-k elements in data streams"). So a key that has more than one part in
//! [`PLACES`] of all counts is always there, and what is told of it is too much by its error at
//! most.
//!
//! Counts decay by [`HALF_LIFE`]. Nothing is counted down: what is counted later counts for more
//! (forward decay), which keeps the order of all that is there.

use super::Name;
use crate::hash::fingerprint;

/// Keys in one worker's sketch.
const PLACES: usize = 256;
/// After so many microseconds a count is worth half.
pub const HALF_LIFE: u64 = 15_000_000;
/// When later counts would count for 2 to the power of this, all are scaled down.
const REBASE: f64 = 40.0;

/// One worker's sketch. About 60 KiB when it is full; nothing is allocated then any more.
#[derive(Debug, Default)]
pub struct HotKeys {
    /// By place. Apart from the rest because every look goes through all of them.
    hashes: Vec<u64>,
    /// By place: what was counted, in the units of `landmark`.
    counts: Vec<f64>,
    places: Vec<Place>,
    /// All that was counted, in the same units.
    total: f64,
    /// When a count counts for 1.
    landmark: u64,
    /// Since when is counted.
    since: u64,
}

#[derive(Debug, Default)]
struct Place {
    name: Name,
    /// Of its count this may be another key's.
    error: f64,
    /// Of its count this was writes.
    writes: f64,
    command: u16,
}

/// One key.
#[derive(Debug, Clone, PartialEq)]
pub struct HotKey {
    /// The key.
    pub name: Name,
    /// Commands per second, at least.
    pub rate: f64,
    /// Up to so many more.
    pub error: f64,
    /// Of `rate`: those that may change it.
    pub writes: f64,
    /// The last command seen, an index of the command table.
    pub command: u16,
}

/// The keys that are used most.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HotKeyReport {
    /// Keys used per second, all of them.
    pub rate: f64,
    /// The hottest first.
    pub keys: Vec<HotKey>,
}

impl HotKeys {
    /// Empty at `now`, in microseconds.
    pub fn new(now: u64) -> Self {
        HotKeys { landmark: now, since: now, ..HotKeys::default() }
    }

    /// A command with `key`, which stands for `weight` commands.
    pub fn count(&mut self, key: &[u8], weight: f64, write: bool, command: u16, now: u64) {
        let weight = weight * self.worth(now);
        self.total += weight;
        let hash = fingerprint(key);
        let at = self.find(hash).unwrap_or_else(|| self.enter(hash, key));
        if let (Some(count), Some(place)) = (self.counts.get_mut(at), self.places.get_mut(at)) {
            *count += weight;
            if write {
                place.writes += weight;
            }
            place.command = command;
        }
    }

    /// What is counted at `now` counts for so much.
    fn worth(&mut self, now: u64) -> f64 {
        let age = |landmark: u64| now.saturating_sub(landmark) as f64 / HALF_LIFE as f64;
        if age(self.landmark) > REBASE {
            let scale = (-age(self.landmark)).exp2();
            self.total *= scale;
            self.counts.iter_mut().for_each(|count| *count *= scale);
            for place in &mut self.places {
                place.error *= scale;
                place.writes *= scale;
            }
            self.landmark = now;
        }
        age(self.landmark).exp2()
    }

    fn find(&self, hash: u64) -> Option<usize> {
        // Most keys have no place, and to see that is what costs: eight at once, without a branch.
        let eights = self.hashes.chunks(8);
        let near = { eights }.position(|eight| {
            eight.iter().fold(0, |found, known| found | u8::from(*known == hash)) != 0
        })?;
        let eight = self.hashes.iter().skip(near * 8).take(8);
        { eight }.position(|known| *known == hash).map(|at| near * 8 + at)
    }

    /// The smallest count, in eight lanes: one comparison need not wait for the one before.
    fn least(&self) -> f64 {
        let mut lanes = [f64::INFINITY; 8];
        for eight in self.counts.chunks(8) {
            for (lane, count) in lanes.iter_mut().zip(eight) {
                *lane = if *count < *lane { *count } else { *lane };
            }
        }
        lanes.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// A place for a key that has none.
    fn enter(&mut self, hash: u64, key: &[u8]) -> usize {
        if self.places.len() < PLACES {
            let mut place = Place::default();
            place.name.set(hash, key);
            self.places.push(place);
            self.hashes.push(hash);
            self.counts.push(0.0);
            return self.places.len() - 1;
        }
        let count = self.least();
        let at = self.counts.iter().position(|c| *c <= count).unwrap_or_default();
        if let (Some(place), Some(known)) = (self.places.get_mut(at), self.hashes.get_mut(at)) {
            *known = hash;
            place.name.set(hash, key);
            place.error = count;
            place.writes = 0.0;
        }
        at
    }

    /// What is hot at `now`. Keys of which more is guessed than known are left out.
    pub fn hottest(&self, now: u64) -> HotKeyReport {
        let rate = self.rate_of_one(now);
        let keys = self.places.iter().zip(&self.counts);
        let keys = keys.map(|(place, count)| HotKey {
            name: place.name.clone(),
            rate: (count - place.error) * rate,
            error: place.error * rate,
            writes: place.writes * rate,
            command: place.command,
        });
        let mut keys: Vec<HotKey> = keys.filter(|key| key.rate > key.error).collect();
        sort(&mut keys);
        HotKeyReport { rate: self.total * rate, keys }
    }

    /// How many per second a count of 1 is.
    fn rate_of_one(&self, now: u64) -> f64 {
        let half_life = HALF_LIFE as f64;
        // A steady rate would by now have been counted for so long, all in all. Before the first
        // second is over nobody knows a rate.
        let age = now.saturating_sub(self.since).max(1_000_000) as f64;
        let worth = (1.0 - (-age / half_life).exp2()) * half_life / 1e6 / std::f64::consts::LN_2;
        (-(now.saturating_sub(self.landmark) as f64) / half_life).exp2() / worth
    }
}

impl HotKeyReport {
    /// Adds another worker's.
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

    /// Keys by Zipf's law, a hundred thousand of them; the same every time.
    struct Zipf {
        random: fastrand::Rng,
        /// Sums of the first keys' shares.
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

    /// Sampled one in ten, as a worker does; the rates of the hottest are right to a few percent, and
    /// what is promised of the others holds.
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
        // Nobody is given more than the sketch says it may be wrong by; sampling adds its noise.
        for key in &hottest.keys {
            let rank: usize =
                String::from_utf8_lossy(&key.name.bytes)[4..].parse().expect("a rank");
            let right = f64::from(counted[rank]) / 60.0;
            assert!(key.rate < right * 1.5 + 10.0, "{rank}: {} is {right}", key.rate);
        }
        assert!(hottest.keys.len() < PLACES, "what is only guessed is left out");
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
