//! Big keys: the keys with the largest values observed in commands and replies.

use super::KeyName;
use crate::hash::fingerprint;

/// Capacity: keys per worker.
const CAPACITY: usize = 128;
/// Size from which a value counts as big, in bytes.
const MIN_BYTES: usize = 1024;
/// Age in microseconds after which a smaller observation replaces the size of a key: the value may
/// have shrunk.
const STALE_AFTER: u64 = 60_000_000;
/// Age in microseconds after which a key that was not observed again is removed: it may not exist
/// any more.
const EXPIRE_AFTER: u64 = 3_600_000_000;

/// The big keys of one worker. About 30 KiB when full.
#[derive(Debug, Default)]
pub struct BigKeys {
    keys: Vec<BigKey>,
    next_look: u64,
}

/// A big key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BigKey {
    /// The key.
    pub name: KeyName,
    /// Observed size of its value: the bytes of it that the command or reply contained.
    pub bytes: usize,
    /// The command, an index of the command table.
    pub command: u16,
    /// Whether the size was observed in the reply; otherwise in the command.
    pub reply: bool,
    /// Time of the observation in [`BigKeys`], its age in a copy; microseconds.
    pub seen: u64,
}

impl BigKeys {
    /// The size in bytes below which [`BigKeys::see`] ignores keys that it does not have.
    pub fn floor(&self) -> usize {
        let full = self.keys.len() >= CAPACITY;
        let least = self.keys.iter().map(|key| key.bytes).min().filter(|_| full);
        least.map_or(MIN_BYTES, |least| least + 1)
    }

    /// Records a value of `bytes` bytes, observed at `now`.
    pub fn see(&mut self, key: &[u8], bytes: usize, command: u16, reply: bool, now: u64) {
        if bytes < MIN_BYTES {
            return;
        }
        let hash = fingerprint(key);
        let place = match self.keys.iter_mut().position(|known| known.name.hash == hash) {
            Some(at) => self.keys.get_mut(at).filter(|known| {
                bytes >= known.bytes || now.saturating_sub(known.seen) > STALE_AFTER
            }),
            None if self.keys.len() < CAPACITY => {
                let name = KeyName::default();
                let new = BigKey { name, bytes: 0, command, reply, seen: now };
                self.keys.push(new);
                self.keys.last_mut()
            }
            None => {
                let least = self.keys.iter_mut().min_by_key(|known| known.bytes);
                least.filter(|least| least.bytes < bytes)
            }
        };
        if let Some(place) = place {
            if place.name.hash != hash || place.bytes == 0 {
                place.name.set(hash, key);
            }
            (place.bytes, place.command, place.reply, place.seen) = (bytes, command, reply, now);
        }
    }

    /// Removes expired keys, at most once per [`STALE_AFTER`]. Returns whether it looked for any.
    pub fn forget(&mut self, now: u64) -> bool {
        if now < self.next_look {
            return false;
        }
        self.next_look = now + STALE_AFTER;
        self.keys.retain(|key| now.saturating_sub(key.seen) < EXPIRE_AFTER);
        true
    }

    /// A copy of all keys, biggest first, with their ages at `now`.
    pub fn biggest(&self, now: u64) -> Vec<BigKey> {
        let ago = |key: &BigKey| BigKey { seen: now.saturating_sub(key.seen), ..key.clone() };
        let mut keys: Vec<BigKey> = self.keys.iter().map(ago).collect();
        sort(&mut keys);
        keys
    }
}

/// Merges the keys of two workers; of a key that both have, the larger observation counts.
pub(super) fn merged(mut keys: Vec<BigKey>, others: Vec<BigKey>) -> Vec<BigKey> {
    for other in others {
        match keys.iter_mut().find(|known| known.name.hash == other.name.hash) {
            Some(known) if known.bytes < other.bytes => *known = other,
            Some(_) => {}
            None => keys.push(other),
        }
    }
    sort(&mut keys);
    keys
}

fn sort(keys: &mut [BigKey]) {
    keys.sort_by_key(|key| std::cmp::Reverse(key.bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept() {
        let mut big = BigKeys::default();
        for i in 0..1000usize {
            big.see(format!("key:{i}").as_bytes(), 1000 + i, 1, true, i as u64);
        }
        let all = big.biggest(2000);
        assert_eq!((all.len(), all[0].bytes, all[127].bytes), (128, 1999, 1872));
        assert_eq!((all[0].seen, big.floor()), (2000 - 999, 1873));
        big.see(b"key:5", 1500, 1, true, 0);
        assert_eq!(big.biggest(2000), all, "smaller than all");
    }

    #[test]
    fn a_value_may_shrink_and_keys_may_go() {
        let mut big = BigKeys::default();
        big.see(b"k", 5000, 1, true, 0);
        big.see(b"k", 2000, 2, false, STALE_AFTER);
        assert_eq!(big.biggest(0)[0].bytes, 5000);
        big.see(b"k", 2000, 2, false, STALE_AFTER + 1);
        let k = &big.biggest(0)[0];
        assert_eq!((k.bytes, k.command, k.reply), (2000, 2, false));
        big.see(b"small", 100, 1, true, 0);
        assert_eq!(big.biggest(0).len(), 1);
        assert!(big.forget(EXPIRE_AFTER));
        assert_eq!(big.biggest(0).len(), 1);
        assert!(!big.forget(EXPIRE_AFTER + 5) && big.forget(2 * EXPIRE_AFTER));
        assert!(big.biggest(0).is_empty());
    }

    #[test]
    fn of_two_workers_the_larger_counts() {
        let see = |keys: &[(&str, usize)]| {
            let mut big = BigKeys::default();
            keys.iter().for_each(|(key, bytes)| big.see(key.as_bytes(), *bytes, 1, true, 0));
            big.biggest(0)
        };
        let both = merged(see(&[("a", 2000), ("b", 3000)]), see(&[("a", 4000), ("b", 1500)]));
        let both: Vec<_> = both.iter().map(|k| (k.name.bytes.as_slice(), k.bytes)).collect();
        assert_eq!(both, [(b"a".as_slice(), 4000), (b"b".as_slice(), 3000)]);
    }
}
