//! The slow commands of all workers. Written when a command was slow, so a lock is fine.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::resp::{Args, strict_i64};

/// [`SlowLog::slower_than`] where nothing is logged.
pub const SLOW_LOG_OFF: u64 = u64::MAX;

/// Where the time of a command went, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeBreakdown {
    /// From its being read to its being sent (the last time, if it was sent again).
    pub queue: u64,
    /// From there to its reply.
    pub node: u64,
    /// From there to its reply's being written to the client.
    pub client: u64,
    /// All of it.
    pub total: u64,
}

/// One slow command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlowEntry {
    /// Its number; given by the log.
    pub id: u64,
    /// When it was answered, in seconds since 1970.
    pub time: u64,
    /// Where the time went.
    pub took: TimeBreakdown,
    /// The node that answered; empty where slotway did.
    pub node: String,
    /// How often it was sent again.
    pub tries: u8,
    /// The command's name.
    pub command: String,
    /// As [`super::logged_args`] gives them.
    pub args: Vec<Vec<u8>>,
    /// The client's address.
    pub client: String,
    /// CLIENT SETNAME.
    pub client_name: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct SlowLog {
    slower_than: AtomicU64,
    max_len: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The newest in front.
    entries: VecDeque<SlowEntry>,
    /// How many there ever were; the next one's number.
    total: u64,
}

/// What CONFIG SET says about the slow log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlowLogSettings {
    slower_than: Option<u64>,
    max_len: Option<usize>,
}

impl SlowLogSettings {
    /// What the configuration says.
    pub fn configured(slower_than: Option<Duration>, max_len: usize) -> SlowLogSettings {
        let micros = slower_than.map_or(SLOW_LOG_OFF, |d| d.as_micros() as u64);
        SlowLogSettings { slower_than: Some(micros), max_len: Some(max_len) }
    }

    /// `None`: nothing that concerns it. What nodes refuse does not matter.
    pub fn of(args: &Args) -> Option<SlowLogSettings> {
        let mut setting = SlowLogSettings::default();
        for i in (2..args.len()).step_by(2) {
            let number = || args.get(i + 1).and_then(strict_i64);
            if args.is(i, "slowlog-log-slower-than") {
                setting.slower_than = number().map(|n| u64::try_from(n).unwrap_or(SLOW_LOG_OFF));
            } else if args.is(i, "slowlog-max-len") {
                setting.max_len = number().and_then(|n| usize::try_from(n).ok());
            }
        }
        (setting != SlowLogSettings::default()).then_some(setting)
    }
}

impl SlowLog {
    /// The most entries that are kept, whatever is asked for.
    pub const MAX_LEN: usize = 10_000;

    /// Empty; what takes `slower_than` microseconds or more is slow.
    pub fn new(slower_than: u64, max_len: usize) -> Self {
        SlowLog {
            slower_than: slower_than.into(),
            max_len: max_len.min(Self::MAX_LEN).into(),
            inner: Mutex::default(),
        }
    }

    /// From how many microseconds on a command is slow; [`SLOW_LOG_OFF`] for never.
    #[inline]
    pub fn slower_than(&self) -> u64 {
        self.slower_than.load(Relaxed)
    }

    /// How many entries are kept.
    pub fn max_len(&self) -> usize {
        self.max_len.load(Relaxed)
    }

    /// Does as it is told.
    pub fn set(&self, setting: SlowLogSettings) {
        if let Some(micros) = setting.slower_than {
            self.slower_than.store(micros, Relaxed);
        }
        if let Some(len) = setting.max_len {
            self.max_len.store(len.min(Self::MAX_LEN), Relaxed);
            self.inner().entries.truncate(self.max_len());
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub fn add(&self, mut entry: SlowEntry) {
        let mut inner = self.inner();
        entry.id = inner.total;
        inner.total += 1;
        inner.entries.push_front(entry);
        inner.entries.truncate(self.max_len());
    }

    /// The newest first, so many at most.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.inner().entries.iter().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner().entries.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there ever were.
    pub fn total(&self) -> u64 {
        self.inner().total
    }

    /// Forgets all; numbers go on.
    pub fn reset(&self) {
        self.inner().entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(line: &str) -> Option<SlowLogSettings> {
        let ranges = crate::resp::words(line);
        SlowLogSettings::of(&Args::new(line.as_bytes(), &ranges))
    }

    #[test]
    fn config_set_is_obeyed() {
        let log = SlowLog::new(10_000, 2);
        let set = |line: &str| log.set(setting(line).expect(line));
        assert_eq!(setting("CONFIG SET maxmemory 5"), None);
        assert_eq!(setting("CONFIG SET slowlog-max-len abc"), None);
        set("CONFIG SET maxmemory 5 SlowLog-log-slower-than 0");
        assert_eq!((log.slower_than(), log.max_len()), (0, 2));
        set("CONFIG SET slowlog-log-slower-than -1 slowlog-max-len 1");
        assert_eq!((log.slower_than(), log.max_len()), (SLOW_LOG_OFF, 1));
    }

    #[test]
    fn the_newest_are_kept() {
        let log = SlowLog::new(0, 3);
        (0..5).for_each(|time| log.add(SlowEntry { time, ..SlowEntry::default() }));
        let ids = |count| log.newest(count).iter().map(|e| (e.id, e.time)).collect::<Vec<_>>();
        assert_eq!(ids(9), [(4, 4), (3, 3), (2, 2)]);
        assert_eq!(ids(1), [(4, 4)]);
        log.set(setting("CONFIG SET slowlog-max-len 1").expect("it"));
        assert_eq!((log.len(), log.total()), (1, 5));
        log.reset();
        log.add(SlowEntry::default());
        assert_eq!(ids(9), [(5, 0)]);
    }
}
