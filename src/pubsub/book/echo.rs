//! When a topic moves from one node to another, the other may still have to come to what the first
//! has handed on already: a message goes to subscribers at once and over the cluster's bus a moment
//! later. Such an echo is not handed on twice.
//!
//! Messages have no numbers, so an echo is known by its bytes. A publisher that sends the same
//! bytes again right after the move may have one message taken for an echo: the topic is in a gap
//! then, which is counted.

use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault};

use rustc_hash::FxHasher;

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

    /// `true`: this message was handed on before the move.
    #[inline]
    pub fn is_echo(&mut self, frame: &[u8], now: u64) -> bool {
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(frame);
        if !self.before.is_empty() && self.was_heard(hash, now) {
            return true;
        }
        while self.heard.front().is_some_and(|(_, at)| at + LAG < now) || self.heard.len() >= MOST {
            self.heard.pop_front();
        }
        self.heard.push_back((hash, now));
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
            assert!(!echo.is_echo(frame, 10));
        }
        echo.moved(1, 20);
        assert!(!echo.is_echo(b"a", 30), "the same node, which sends nothing twice");
        echo.moved(2, 40);
        for (frame, is_echo) in
            [(b"b", true), (b"c", false), (b"b", true), (b"b", false), (b"a", true)]
        {
            assert_eq!(echo.is_echo(frame, 50), is_echo, "{}", frame[0] as char);
        }
    }

    #[test]
    fn what_is_long_ago_is_no_echo() {
        let mut echo = Echo::default();
        echo.moved(1, 0);
        echo.is_echo(b"old", 10);
        echo.is_echo(b"new", LAG);
        echo.moved(2, LAG + 20);
        assert!(!echo.is_echo(b"old", LAG + 30));
        assert!(!echo.is_echo(b"new", LAG + 30 + AFTER));
        assert!(echo.before.is_empty());
        for n in 0..2 * MOST as u64 {
            echo.is_echo(&n.to_ne_bytes(), 2 * AFTER);
        }
        assert_eq!(echo.heard.len(), MOST);
    }
}
