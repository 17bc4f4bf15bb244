//! When a topic moves from one node to another, the other may still have to come to what the first
//! has handed on already: a message goes to subscribers at once and over the cluster's bus a moment
//! later. Such an echo is not handed on twice.
//!
//! Messages have no numbers, so an echo is known by its bytes, or rather by their keyed hash: without
//! a key a publisher could make two messages that are taken for each other. A publisher that sends
//! the same bytes again right after the move may have one message taken for an echo: the topic is in
//! a gap then, which is counted.

use std::collections::VecDeque;

use crate::hash::fingerprint;

/// The bus is not further behind than that, microseconds.
const LAG: u64 = 250_000;
/// How long after a move echoes are looked for, microseconds.
const AFTER: u64 = 1_000_000;
/// Messages that are remembered at most.
const MOST: usize = 4096;

/// What a topic was sent last.
#[derive(Debug, Default)]
pub(super) struct Echo {
    node: Option<usize>,
    /// By hash, with the time at which they came.
    heard: VecDeque<(u64, u64)>,
    /// What the node before had sent; empty but after a move.
    before: Vec<u64>,
    until: u64,
    /// What the node has sent while the one before is heard, too: its bus brings it there.
    after: Vec<u64>,
    /// The one before is heard.
    both: bool,
}

impl Echo {
    /// The topic's messages come from `node` from now on.
    pub fn moved(&mut self, node: usize, now: u64) {
        let from = self.node.replace(node);
        if from.is_none() || from == Some(node) {
            return;
        }
        let recent = self.heard.drain(..).filter(|(_, at)| at + LAG >= now);
        self.before.extend(recent.map(|(hash, _)| hash));
        self.until = now + AFTER;
    }

    /// From now on the node before is heard as well, or not any more.
    pub(in crate::pubsub) fn hear_both(&mut self, both: bool) {
        self.both = both;
        self.after = Vec::new();
    }

    /// `true`: this message of `node` was handed on already, when the other one sent it.
    #[inline]
    pub(in crate::pubsub) fn is_echo(&mut self, node: usize, frame: &[u8], now: u64) -> bool {
        let hash = fingerprint(frame);
        if self.both && self.node.is_some_and(|n| n != node) {
            return self.is_echo_of_former(hash, now);
        }
        if !self.before.is_empty() && self.was_heard(hash, now) {
            return true;
        }
        if self.both && self.after.len() < MOST {
            self.after.push(hash);
        }
        while self.heard.front().is_some_and(|(_, at)| at + LAG < now) || self.heard.len() >= MOST {
            self.heard.pop_front();
        }
        self.heard.push_back((hash, now));
        false
    }

    #[cold]
    fn is_echo_of_former(&mut self, hash: u64, now: u64) -> bool {
        if let Some(at) = self.after.iter().position(|&h| h == hash) {
            self.after.remove(at);
            return true;
        }
        self.until = now + AFTER;
        if self.before.len() < MOST {
            self.before.push(hash);
        }
        false
    }

    #[cold]
    fn was_heard(&mut self, hash: u64, now: u64) -> bool {
        if now > self.until {
            self.before = Vec::new();
            return false;
        }
        let found = self.before.iter().position(|&h| h == hash);
        found.map(|at| self.before.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_echo_is_dropped_once() {
        let mut echo = Echo::default();
        echo.moved(1, 0);
        for frame in [b"a", b"b", b"b"] {
            assert!(!echo.is_echo(1, frame, 10));
        }
        echo.moved(1, 20);
        assert!(!echo.is_echo(1, b"a", 30), "the same node, which sends nothing twice");
        echo.moved(2, 40);
        for (frame, is_echo) in
            [(b"b", true), (b"c", false), (b"b", true), (b"b", false), (b"a", true)]
        {
            assert_eq!(echo.is_echo(2, frame, 50), is_echo, "{}", frame[0] as char);
        }
    }

    #[test]
    fn while_both_are_heard_each_is_handed_on_once() {
        let mut echo = Echo::default();
        echo.moved(1, 0);
        assert!(!echo.is_echo(1, b"a", 10));
        echo.hear_both(true);
        assert!(!echo.is_echo(1, b"b", 20));
        echo.moved(2, 30);
        // c and d are published at the one, e and f at the other.
        for (node, frame, is_echo) in [
            (2, b"a", true),
            (1, b"c", false),
            (2, b"e", false),
            (2, b"b", true),
            (1, b"d", false),
            (2, b"c", true),
            (1, b"e", true),
            (2, b"f", false),
            (2, b"d", true),
            (1, b"f", true),
            (1, b"f", false),
        ] {
            assert_eq!(echo.is_echo(node, frame, 50), is_echo, "{node} {}", frame[0] as char);
        }
        echo.hear_both(false);
        assert!(echo.after.is_empty());
        assert!(!echo.is_echo(2, b"e", 60), "published again");
    }

    #[test]
    fn what_is_long_ago_is_no_echo() {
        let mut echo = Echo::default();
        echo.moved(1, 0);
        echo.is_echo(1, b"old", 10);
        echo.is_echo(1, b"new", LAG);
        echo.moved(2, LAG + 20);
        assert!(!echo.is_echo(2, b"old", LAG + 30));
        assert!(!echo.is_echo(2, b"new", LAG + 30 + AFTER));
        assert!(echo.before.is_empty());
        for n in 0..2 * MOST as u64 {
            echo.is_echo(2, &n.to_ne_bytes(), 2 * AFTER);
        }
        assert_eq!(echo.heard.len(), MOST);
    }
}
