//! Failed logins are slowed: the more of them came from one address lately, the longer its next
//! failure takes to be told. Who logs in rightly waits for nothing; but who closes instead of waiting
//! is not to try another password at once, so that where many have failed lately each login is looked
//! at some time behind the one before. Other addresses do not notice.

use std::net::IpAddr;

use crate::hash::KeyedMap;

/// Where somebody comes from, for the count of failures. Of IPv6 the first half counts: the rest is
/// a customer's own to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Over the network.
    Network(u64),
    /// Over a Unix socket.
    Local,
}

impl Source {
    /// Of a client's address; `None` over a Unix socket.
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
    /// Of the last one, microseconds.
    last: u64,
    /// When the next login may be looked at.
    next: u64,
}

/// Addresses that are remembered.
const MOST: usize = 4096;
/// After so long without a failure an address is forgotten, microseconds.
const FORGET: u64 = 60_000_000;
/// The wait after the second failure; each more doubles it, microseconds.
const FIRST: u64 = 50_000;
/// The longest wait, microseconds.
const LONGEST: u64 = 5_000_000;
/// From so many failures on logins stand in a line.
const MANY: u32 = 10;
/// Between two of the line, microseconds: 50 in a second.
const APART: u64 = 20_000;
/// The line is no longer, microseconds.
const LINE: u64 = 2_000_000;

/// Who has failed lately. The clock is the caller's.
#[derive(Debug, Default)]
pub struct Throttle {
    sources: KeyedMap<Source, Failures>,
}

impl Throttle {
    /// How long a login is to wait before it is looked at, microseconds. `None`: too many wait.
    pub fn admit(&mut self, source: Source, now: u64) -> Option<u64> {
        let Some(known) = self.sources.get_mut(&source) else { return Some(0) };
        if known.count < MANY || now.saturating_sub(known.last) >= FORGET {
            return Some(0);
        }
        let wait = known.next.saturating_sub(now);
        if wait > LINE {
            return None;
        }
        known.next = now + wait + APART;
        Some(wait)
    }

    /// One more failure; gives how long its answer is to wait, microseconds.
    pub fn failed(&mut self, source: Source, now: u64) -> u64 {
        if self.sources.len() >= MOST && !self.sources.contains_key(&source) {
            self.make_room(now);
        }
        let known =
            self.sources.entry(source).or_insert(Failures { count: 0, last: now, next: now });
        if now.saturating_sub(known.last) >= FORGET {
            known.count = 0;
        }
        known.count = known.count.saturating_add(1);
        known.last = known.last.max(now);
        // The first one is a slip.
        match known.count {
            0 | 1 => 0,
            n => (FIRST << (n - 2).min(16)).min(LONGEST),
        }
    }

    /// Addresses that are remembered.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Nobody has failed.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The old ones go; if there are none, the quarter that failed least.
    fn make_room(&mut self, now: u64) {
        self.sources.retain(|_, f| now.saturating_sub(f.last) < FORGET);
        if self.sources.len() < MOST {
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
    fn each_failure_takes_longer_than_the_one_before() {
        let (mut throttle, me) = (Throttle::default(), Source::Local);
        let waits: Vec<u64> = (0..5).map(|n| throttle.failed(me, n)).collect();
        assert_eq!(waits, [0, 50_000, 100_000, 200_000, 400_000]);
        (0..100).for_each(|n| assert!(throttle.failed(me, n) <= LONGEST));
        assert_eq!(throttle.failed(me, 200), LONGEST);
        assert_eq!(throttle.failed(Source::of("10.0.0.1".parse().ok()), 200), 0, "another one");
        assert_eq!(throttle.failed(me, 200 + FORGET), 0, "long ago");
    }

    #[test]
    fn who_does_not_wait_for_the_answer_waits_for_the_next_login() {
        let (mut throttle, me) = (Throttle::default(), Source::of("10.0.0.1".parse().ok()));
        let other = Source::of("10.0.0.2".parse().ok());
        for _ in 1..MANY {
            throttle.failed(me, 0);
            assert_eq!(throttle.admit(me, 0), Some(0), "some have failed");
        }
        throttle.failed(me, 0);
        // A thousand connections in one moment.
        let line: Vec<u64> = (0..1000).map_while(|_| throttle.admit(me, 0)).collect();
        assert_eq!(line.len() as u64, LINE / APART + 1, "the rest is refused");
        assert!(line.iter().zip(0..).all(|(wait, n)| *wait == n * APART && *wait <= LINE));
        assert_eq!(throttle.admit(other, 0), Some(0), "others do not notice");
        assert!(throttle.admit(me, LINE).is_some_and(|wait| wait <= LINE));
        assert_eq!(throttle.admit(me, FORGET), Some(0), "long ago");
    }

    #[test]
    fn addresses_of_one_customer_are_one_and_the_table_is_bounded() {
        let of = |ip: &str| Source::of(ip.parse().ok());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db9::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        let mut throttle = Throttle::default();
        (0..10).for_each(|_| _ = throttle.failed(Source::Local, 0));
        for n in 0..20_000 {
            throttle.failed(Source::Network(n), n);
            assert!(throttle.len() <= MOST);
        }
        assert!(throttle.failed(Source::Local, 20_000) > 0, "who failed often is remembered");
    }
}
