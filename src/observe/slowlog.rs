//! The slow log of all workers. Workers lock it for slow commands only, so a mutex is good enough.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::resp::{Args, strict_i64};

/// Value of [`SlowLog::slower_than`] that switches the slow log off.
pub const SLOW_LOG_OFF: u64 = u64::MAX;

/// The parts of a command's duration, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeBreakdown {
    /// From reading the command to sending it (for the last time, if it was sent again).
    pub queue: u64,
    /// From sending it to the node's reply.
    pub node: u64,
    /// From the node's reply to writing the reply to the client.
    pub client: u64,
    /// The sum of the three.
    pub total: u64,
}

/// An entry of the slow log: one slow command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlowEntry {
    /// Serial number, assigned by [`SlowLog::add`].
    pub id: u64,
    /// Time of the reply, in seconds since 1970.
    pub time: u64,
    /// Duration, by its parts.
    pub took: TimeBreakdown,
    /// Address of the node that answered; empty if slotway answered.
    pub node: String,
    /// How often the command was sent again.
    pub tries: u8,
    /// Name of the command.
    pub command: String,
    /// Arguments as [`super::logged_args`] returns them.
    pub args: Vec<Vec<u8>>,
    /// Address of the client.
    pub client: String,
    /// Name of the client (CLIENT SETNAME).
    pub client_name: Vec<u8>,
}

/// The slow log.
#[derive(Debug)]
pub struct SlowLog {
    slower_than: AtomicU64,
    max_len: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Entries, newest first.
    entries: VecDeque<SlowEntry>,
    /// Number of entries ever added: the next entry's id.
    total: u64,
}

/// New values for the settings of the slow log; `None` leaves a setting as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlowLogSettings {
    slower_than: Option<u64>,
    max_len: Option<usize>,
}

impl SlowLogSettings {
    /// The settings of the configuration; `slower_than` `None` switches the log off.
    pub fn configured(slower_than: Option<Duration>, max_len: usize) -> SlowLogSettings {
        let micros = slower_than.map_or(SLOW_LOG_OFF, |d| d.as_micros() as u64);
        SlowLogSettings { slower_than: Some(micros), max_len: Some(max_len) }
    }

    /// The settings in the arguments of CONFIG SET; `None` if there are none. Values that are not
    /// valid are skipped: nodes answer them with an error.
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
    /// Upper limit of `max_len`.
    pub const MAX_LEN: usize = 10_000;

    /// An empty log of commands that take `slower_than` microseconds or more.
    pub fn new(slower_than: u64, max_len: usize) -> Self {
        SlowLog {
            slower_than: slower_than.into(),
            max_len: max_len.min(Self::MAX_LEN).into(),
            inner: Mutex::default(),
        }
    }

    /// Duration in microseconds from which a command is slow; [`SLOW_LOG_OFF`] if none is.
    #[inline]
    pub fn slower_than(&self) -> u64 {
        self.slower_than.load(Relaxed)
    }

    /// Capacity in entries.
    pub fn max_len(&self) -> usize {
        self.max_len.load(Relaxed)
    }

    /// Changes the settings; entries beyond a new capacity are removed.
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

    /// Adds an entry and assigns its id; removes the oldest one if the log is full.
    pub fn add(&self, mut entry: SlowEntry) {
        let mut inner = self.inner();
        entry.id = inner.total;
        inner.total += 1;
        inner.entries.push_front(entry);
        inner.entries.truncate(self.max_len());
    }

    /// Copies of the newest entries, newest first, `count` at most.
    pub fn newest(&self, count: usize) -> Vec<SlowEntry> {
        self.inner().entries.iter().take(count).cloned().collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.inner().entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of entries ever added.
    pub fn total(&self) -> u64 {
        self.inner().total
    }

    /// Removes all entries; ids continue.
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
