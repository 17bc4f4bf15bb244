//! Store of the Lua scripts that clients have sent, by SHA1, one per process: a node that lacks a
//! script can be sent it at any time. When that is done is decided in [`crate::worker`].

mod lua;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha1::{Digest, Sha1};

use crate::hash::{KeyedMap, KeyedSet};
use crate::resp::write;

/// Memory that a stored script takes beside its bytes.
const OVERHEAD: usize = 200;
/// Capacity of [`CheckedScripts`]. A full table is cleared, which costs a SCRIPT LOAD per script.
const MAX_CHECKED: usize = 10_000;
/// Capacity of the set of reported sources. A full set is cleared, which may repeat log lines.
const MAX_REPORTED: usize = 10_000;

/// A source that acts on the keys of one node only although it calls a command about all keys:
/// KEYS, SCAN, DBSIZE, RANDOMKEY, FLUSHALL or FLUSHDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialScript {
    /// Digest of the source.
    pub sha: Sha,
    /// The first such command in it.
    pub command: &'static str,
}

/// The result of [`ScriptStore::insert`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Insertion {
    /// Number of scripts evicted.
    pub evicted: usize,
    /// A report to log; made once per script.
    pub partial: Option<PartialScript>,
}

/// SHA1 digest of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha([u8; 20]);

impl Sha {
    /// The digest of a script.
    pub fn of(body: &[u8]) -> Sha {
        Sha(Sha1::digest(body).into())
    }

    /// Parses an argument of EVALSHA: 40 hexadecimal digits of either case.
    pub fn parse(hex: &[u8]) -> Option<Sha> {
        let mut sha = [0; 20];
        if hex.len() != 40 {
            return None;
        }
        for (byte, pair) in sha.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |at: usize| pair.get(at).and_then(|&d| char::from(d).to_digit(16));
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(Sha(sha))
    }
}

impl std::fmt::Display for Sha {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Stored scripts, bounded by `limits.scripts`: the least recently used ones are evicted.
#[derive(Debug)]
pub struct ScriptStore {
    inner: Mutex<Inner>,
    limit: AtomicUsize,
    /// Number of SCRIPT FLUSH commands.
    epoch: AtomicU64,
    /// Number of scripts evicted.
    evicted: AtomicU64,
    bytes: AtomicUsize,
    /// Digests of the sources reported as [`PartialScript`].
    reported: Mutex<KeyedSet<Sha>>,
}

#[derive(Debug, Default)]
struct Inner {
    scripts: KeyedMap<Sha, Script>,
    /// Scripts by their last use, least recently used first.
    order: BTreeMap<u64, Sha>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Script {
    /// The SCRIPT LOAD request.
    load: Arc<[u8]>,
    /// Last use, by the store's clock.
    used: u64,
}

impl Script {
    fn cost(&self) -> usize {
        self.load.len() + OVERHEAD
    }
}

impl ScriptStore {
    /// An empty store of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        ScriptStore {
            inner: Mutex::default(),
            limit: AtomicUsize::new(limit),
            epoch: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            reported: Mutex::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limit in bytes; enforced when the next script is inserted.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Stores a script, or marks it as used if it is stored already.
    pub fn insert(&self, body: &[u8]) -> Insertion {
        let sha = Sha::of(body);
        match self.keep(sha, body) {
            Some(evicted) => Insertion { evicted, partial: self.report(sha, body) },
            None => Insertion::default(),
        }
    }

    /// Checks a function library, which is not stored, for calls that make it partial.
    pub fn check_library(&self, source: &[u8]) -> Option<PartialScript> {
        self.report(Sha::of(source), source)
    }

    /// A report if the source is partial and was not reported before.
    fn report(&self, sha: Sha, source: &[u8]) -> Option<PartialScript> {
        let command = lua::whole_keyspace_call(source)?;
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() >= MAX_REPORTED {
            reported.clear();
        }
        reported.insert(sha).then_some(PartialScript { sha, command })
    }

    /// Stores a new script. Returns the number of evicted ones, the script itself included if it is
    /// larger than the limit; `None` if it was stored already.
    fn keep(&self, sha: Sha, body: &[u8]) -> Option<usize> {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut inner = self.inner();
        if inner.touch(&sha) {
            return None;
        }
        let mut load = Vec::with_capacity(body.len() + 48);
        write::request(&mut load, &[b"SCRIPT", b"LOAD", body]);
        let script = Script { load: load.into(), used: inner.clock };
        if script.cost() > limit {
            return Some(1);
        }
        inner.bytes += script.cost();
        inner.order.insert(script.used, sha);
        inner.scripts.insert(sha, script);
        inner.clock += 1;
        let mut evicted = 0;
        while inner.bytes > limit
            && let Some((_, oldest)) = inner.order.first_key_value()
        {
            let oldest = *oldest;
            inner.remove(&oldest);
            evicted += 1;
        }
        self.bytes.store(inner.bytes, Ordering::Relaxed);
        self.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
        Some(evicted)
    }

    /// Marks a script as used.
    pub fn touch(&self, sha: &Sha) {
        self.inner().touch(sha);
    }

    /// Whether the script is stored.
    pub fn has(&self, sha: &Sha) -> bool {
        self.inner().scripts.contains_key(sha)
    }

    /// The SCRIPT LOAD request for a stored script; marks it as used.
    pub fn load_of(&self, sha: &Sha) -> Option<Arc<[u8]>> {
        let mut inner = self.inner();
        inner.touch(sha);
        inner.scripts.get(sha).map(|script| Arc::clone(&script.load))
    }

    /// Removes what turned out to be no script.
    pub fn forget(&self, sha: &Sha) {
        let mut inner = self.inner();
        inner.remove(sha);
        self.bytes.store(inner.bytes, Ordering::Relaxed);
    }

    /// Removes all scripts (SCRIPT FLUSH).
    pub fn flush(&self) {
        let mut inner = self.inner();
        *inner = Inner::default();
        self.bytes.store(0, Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of flushes. [`CheckedScripts`] of an earlier epoch are no longer valid.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Number of scripts evicted so far.
    #[inline]
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Size of the stored scripts in bytes, overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn touch(&mut self, sha: &Sha) -> bool {
        let Some(script) = self.scripts.get_mut(sha) else { return false };
        self.order.remove(&script.used);
        self.order.insert(self.clock, *sha);
        script.used = self.clock;
        self.clock += 1;
        true
    }

    fn remove(&mut self, sha: &Sha) {
        if let Some(script) = self.scripts.remove(sha) {
            self.order.remove(&script.used);
            self.bytes -= script.cost();
        }
    }
}

/// Scripts that need no SCRIPT LOAD before an EVALSHA on one connection: it was sent there before,
/// or the store does not have the script.
#[derive(Debug, Default)]
pub struct CheckedScripts {
    epoch: u64,
    checks: KeyedMap<Sha, ScriptCheck>,
}

/// The last check of a script for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptCheck {
    /// Turn of the worker in which the store was asked.
    pub turn: u64,
    /// Time at which the store was last told that the script is in use, in microseconds.
    pub used: u64,
    /// Whether the store had it, and it was sent to the node.
    pub loaded: bool,
}

impl CheckedScripts {
    /// The last check of `sha` in the store's `epoch`.
    pub fn get(&mut self, sha: &Sha, epoch: u64) -> Option<&mut ScriptCheck> {
        if self.epoch != epoch {
            self.checks.clear();
            self.epoch = epoch;
        }
        self.checks.get_mut(sha)
    }

    /// Records a check.
    pub fn put(&mut self, sha: &Sha, check: ScriptCheck) {
        if self.checks.len() >= MAX_CHECKED {
            self.checks.clear();
        }
        self.checks.insert(*sha, check);
    }

    /// Forgets all checks: the connection is a new one, or its node has lost its scripts.
    pub fn clear(&mut self) {
        self.checks = KeyedMap::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(store: &ScriptStore, sha: &Sha) -> Option<String> {
        store.load_of(sha).map(|load| String::from_utf8_lossy(&load).into_owned())
    }

    #[test]
    fn what_it_is_asked_for_by() {
        let sha = Sha::of(b"return 1");
        assert_eq!(sha.to_string(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(Sha::parse(b"E0e1f9fabfc9d4800c877a703b823ac0578ff8db"), Some(sha));
        assert_eq!(Sha::parse(b"e0e1"), None);
        assert_eq!(Sha::parse(b"x0e1f9fabfc9d4800c877a703b823ac0578ff8db"), None);
    }

    #[test]
    fn remembered_forgotten_flushed() {
        let store = ScriptStore::new(1000);
        let sha = Sha::of(b"return 1");
        assert_eq!(text(&store, &sha), None);
        assert_eq!(store.insert(b"return 1"), Insertion::default());
        assert_eq!(store.insert(b"return 1"), Insertion::default());
        let load = "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$8\r\nreturn 1\r\n";
        assert_eq!(text(&store, &sha).as_deref(), Some(load));
        assert_eq!(store.bytes(), load.len() + OVERHEAD);
        store.forget(&sha);
        assert!(!store.has(&sha) && store.bytes() == 0);
        let before = store.epoch();
        store.insert(b"return 2");
        store.flush();
        assert!(!store.has(&Sha::of(b"return 2")) && store.bytes() == 0);
        assert_ne!(store.epoch(), before);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let body = |n: u8| [b'-', b'-', n];
        let cost = {
            let store = ScriptStore::new(1000);
            store.insert(&body(0));
            store.bytes()
        };
        let store = ScriptStore::new(3 * cost);
        for n in 0..3 {
            assert_eq!(store.insert(&body(n)).evicted, 0);
        }
        store.touch(&Sha::of(&body(0)));
        assert_eq!(store.insert(&body(3)).evicted, 1);
        let left: Vec<bool> = (0..4).map(|n| store.has(&Sha::of(&body(n)))).collect();
        assert_eq!(left, [true, false, true, true]);
        assert_eq!(store.insert(&[b' '; 2000]).evicted, 1, "larger than all");
        assert_eq!(store.bytes(), 3 * cost);
        for n in 0..200 {
            store.insert(&body(n));
            assert!(store.bytes() <= 3 * cost && store.inner().order.len() <= 3);
        }
        assert_eq!(ScriptStore::new(0).insert(b"").evicted, 1);
    }

    #[test]
    fn a_partial_script_is_reported_once() {
        for limit in [1000, 0] {
            let store = ScriptStore::new(limit);
            let body = b"return redis.call('keys', '*')";
            let partial = Some(PartialScript { sha: Sha::of(body), command: "KEYS" });
            assert_eq!(store.insert(body).partial, partial);
            assert_eq!(store.insert(body).partial, None);
            store.flush();
            assert_eq!(store.insert(body).partial, None, "flushed, and reported before");
            assert_eq!(store.check_library(body), None);
            assert_eq!(store.insert(b"return 1").partial, None);
            assert!(store.check_library(b"#!lua name=x\nredis.call('dbsize')").is_some());
            for n in 0..MAX_REPORTED + 10 {
                assert!(
                    store.check_library(format!("redis.call('scan', {n})").as_bytes()).is_some()
                );
            }
            assert!(store.reported.lock().unwrap().len() <= MAX_REPORTED);
        }
    }

    #[test]
    fn checks_of_a_connection() {
        let mut checked = CheckedScripts::default();
        let (a, b) = (Sha::of(b"a"), Sha::of(b"b"));
        let check = ScriptCheck { turn: 7, used: 1, loaded: true };
        assert_eq!(checked.get(&a, 0), None);
        checked.put(&a, check);
        assert_eq!(checked.get(&a, 0).copied(), Some(check));
        assert_eq!(checked.get(&b, 0), None);
        assert_eq!(checked.get(&a, 1), None, "flushed");
        checked.put(&a, check);
        checked.clear();
        assert_eq!(checked.get(&a, 1), None);
        for n in 0..=MAX_CHECKED {
            checked.put(&Sha::of(n.to_string().as_bytes()), check);
        }
        assert!(checked.checks.len() <= MAX_CHECKED);
    }
}
