//! Delays failed logins: the more logins from one address have failed recently, the longer the next
//! error reply is delayed. A correct login is not delayed. A client might disconnect instead of
//! waiting for the reply, so logins from an address with many recent failures are also checked one
//! at a time, at fixed intervals. Other addresses are not affected.

use std::net::IpAddr;

use crate::hash::KeyedMap;

/// The origin of a login for counting failures. IPv6 addresses count by their upper 64 bits,
/// because customers choose the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An IP address.
    Network(u64),
    /// A Unix socket.
    Local,
}

impl Source {
    /// The source of a client. A client on a Unix socket has no `address`.
    pub fn of(address: Option<IpAddr>) -> Source {
        match address.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => Source::Network(u64::from(u32::from(ip))),
            Some(IpAddr::V6(ip)) => Source::Network((u128::from(ip) >> 64) as u64 | 1 << 63),
            None => Source::Local,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    /// Time of the last failure, in microseconds.
    last: u64,
    /// Earliest time of the next check, in microseconds.
    next: u64,
}

/// The largest number of addresses remembered.
const MAX_SOURCES: usize = 4096;
/// An address without failures for this long is forgotten, in microseconds.
const FORGET_AFTER: u64 = 60_000_000;
/// The delay of the second failure, in microseconds; it doubles with each further one.
const FIRST_DELAY: u64 = 50_000;
/// The longest delay, in microseconds.
const MAX_DELAY: u64 = 5_000_000;
/// Number of failures from which on logins are queued.
const QUEUE_FROM: u32 = 10;
/// Interval between queued logins, in microseconds: 50 per second.
const QUEUE_INTERVAL: u64 = 20_000;
/// The longest wait in the queue, in microseconds.
const MAX_QUEUE_WAIT: u64 = 2_000_000;

/// Recent login failures by source.
#[derive(Debug, Default)]
pub struct Throttle {
    sources: KeyedMap<Source, Failures>,
}

impl Throttle {
    /// How long a login must wait before it is checked, in microseconds. `None`: the queue is full.
    pub fn admit(&mut self, source: Source, now: u64) -> Option<u64> {
        let Some(known) = self.sources.get_mut(&source) else { return Some(0) };
        if known.count < QUEUE_FROM || now.saturating_sub(known.last) >= FORGET_AFTER {
            return Some(0);
        }
        let wait = known.next.saturating_sub(now);
        if wait > MAX_QUEUE_WAIT {
            return None;
        }
        known.next = now + wait + QUEUE_INTERVAL;
        Some(wait)
    }

    /// Counts a failure. Returns the delay of its reply, in microseconds.
    pub fn failed(&mut self, source: Source, now: u64) -> u64 {
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.make_room(now);
        }
        let known =
            self.sources.entry(source).or_insert(Failures { count: 0, last: now, next: now });
        if now.saturating_sub(known.last) >= FORGET_AFTER {
            known.count = 0;
        }
        known.count = known.count.saturating_add(1);
        known.last = known.last.max(now);
        // The first failure is not delayed: a typing error.
        match known.count {
            0 | 1 => 0,
            n => (FIRST_DELAY << (n - 2).min(16)).min(MAX_DELAY),
        }
    }

    /// Number of addresses remembered.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether no address is remembered.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Evicts expired addresses, or else the quarter with the fewest failures.
    fn make_room(&mut self, now: u64) {
        self.sources.retain(|_, f| now.saturating_sub(f.last) < FORGET_AFTER);
        if self.sources.len() < MAX_SOURCES {
            return;
        }
        let mut counts: Vec<(u32, u64)> =
            self.sources.values().map(|f| (f.count, f.last)).collect();
        let at = counts.len() / 4;
        let (_, &mut limit, _) = counts.select_nth_unstable(at);
        self.sources.retain(|_, f| (f.count, f.last) > limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_with_each_failure() {
        let (mut throttle, me) = (Throttle::default(), Source::Local);
        let waits: Vec<u64> = (0..5).map(|n| throttle.failed(me, n)).collect();
        assert_eq!(waits, [0, 50_000, 100_000, 200_000, 400_000]);
        (0..100).for_each(|n| assert!(throttle.failed(me, n) <= MAX_DELAY));
        assert_eq!(throttle.failed(me, 200), MAX_DELAY);
        assert_eq!(throttle.failed(Source::of("10.0.0.1".parse().ok()), 200), 0, "another one");
        assert_eq!(throttle.failed(me, 200 + FORGET_AFTER), 0, "long ago");
    }

    #[test]
    fn logins_are_queued_after_many_failures() {
        let (mut throttle, me) = (Throttle::default(), Source::of("10.0.0.1".parse().ok()));
        let other = Source::of("10.0.0.2".parse().ok());
        for _ in 1..QUEUE_FROM {
            throttle.failed(me, 0);
            assert_eq!(throttle.admit(me, 0), Some(0), "some have failed");
        }
        throttle.failed(me, 0);
        // A thousand connections at once.
        let line: Vec<u64> = (0..1000).map_while(|_| throttle.admit(me, 0)).collect();
        assert_eq!(line.len() as u64, MAX_QUEUE_WAIT / QUEUE_INTERVAL + 1, "the rest is refused");
        assert!(
            line.iter()
                .zip(0..)
                .all(|(wait, n)| *wait == n * QUEUE_INTERVAL && *wait <= MAX_QUEUE_WAIT)
        );
        assert_eq!(throttle.admit(other, 0), Some(0), "others do not notice");
        assert!(throttle.admit(me, MAX_QUEUE_WAIT).is_some_and(|wait| wait <= MAX_QUEUE_WAIT));
        assert_eq!(throttle.admit(me, FORGET_AFTER), Some(0), "long ago");
    }

    #[test]
    fn ipv6_prefixes_count_as_one_and_the_table_is_bounded() {
        let of = |ip: &str| Source::of(ip.parse().ok());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db9::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        let mut throttle = Throttle::default();
        (0..10).for_each(|_| _ = throttle.failed(Source::Local, 0));
        for n in 0..20_000 {
            throttle.failed(Source::Network(n), n);
            assert!(throttle.len() <= MAX_SOURCES);
        }
        assert!(throttle.failed(Source::Local, 20_000) > 0, "who failed often is remembered");
    }
}
