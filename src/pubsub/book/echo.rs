//! Suppression of duplicates when a topic moves to another node. A node delivers a message to its
//! subscribers at once, but other nodes get it over the cluster bus a moment later; so the new node
//! may repeat messages that the old one has already delivered. Such an echo is dropped.
//!
//! Messages have no IDs, so echoes are recognized by a hash of their bytes. It is keyed: otherwise
//! a publisher could craft two messages with the same hash. If a publisher repeats a message right
//! after the move, it may be taken for an echo; the topic is then in a gap, which is counted.

use std::collections::VecDeque;

use crate::hash::fingerprint;

/// The longest delay of the cluster bus, in microseconds.
const BUS_LAG: u64 = 250_000;
/// How long after a move echoes are expected, in microseconds.
const ECHO_WINDOW: u64 = 1_000_000;
/// The largest number of messages remembered.
const MAX_REMEMBERED: usize = 4096;

/// Recent messages of a topic.
#[derive(Debug, Default)]
pub(super) struct Echo {
    node: Option<usize>,
    /// Hash and time of each recent message.
    heard: VecDeque<(u64, u64)>,
    /// Hashes of messages from the previous node; empty except after a move.
    before: Vec<u64>,
    until: u64,
    /// Hashes of messages that the previous node may repeat while it is still heard.
    after: Vec<u64>,
    /// The previous node is still heard.
    both: bool,
}

impl Echo {
    /// The topic's messages come from `node` from now on.
    pub fn moved(&mut self, node: usize, now: u64) {
        let from = self.node.replace(node);
        if from.is_none() || from == Some(node) {
            return;
        }
        let recent = self.heard.drain(..).filter(|(_, at)| at + BUS_LAG >= now);
        self.before.extend(recent.map(|(hash, _)| hash));
        self.until = now + ECHO_WINDOW;
    }

    /// Sets whether the previous node is heard as well.
    pub(in crate::pubsub) fn hear_both(&mut self, both: bool) {
        self.both = both;
        self.after = Vec::new();
    }

    /// Whether this message from `node` was already delivered by the other node.
    #[inline]
    pub(in crate::pubsub) fn is_echo(&mut self, node: usize, frame: &[u8], now: u64) -> bool {
        let hash = fingerprint(frame);
        if self.both && self.node.is_some_and(|n| n != node) {
            return self.is_echo_of_former(hash, now);
        }
        if !self.before.is_empty() && self.was_heard(hash, now) {
            return true;
        }
        if self.both && self.after.len() < MAX_REMEMBERED {
            self.after.push(hash);
        }
        while self.heard.front().is_some_and(|(_, at)| at + BUS_LAG < now)
            || self.heard.len() >= MAX_REMEMBERED
        {
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
        self.until = now + ECHO_WINDOW;
        if self.before.len() < MAX_REMEMBERED {
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
    fn while_both_nodes_are_heard_messages_are_delivered_once() {
        let mut echo = Echo::default();
        echo.moved(1, 0);
        assert!(!echo.is_echo(1, b"a", 10));
        echo.hear_both(true);
        assert!(!echo.is_echo(1, b"b", 20));
        echo.moved(2, 30);
        // c and d are published at node 1, e and f at node 2.
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
    fn old_messages_are_not_echoes() {
        let mut echo = Echo::default();
        echo.moved(1, 0);
        echo.is_echo(1, b"old", 10);
        echo.is_echo(1, b"new", BUS_LAG);
        echo.moved(2, BUS_LAG + 20);
        assert!(!echo.is_echo(2, b"old", BUS_LAG + 30));
        assert!(!echo.is_echo(2, b"new", BUS_LAG + 30 + ECHO_WINDOW));
        assert!(echo.before.is_empty());
        for n in 0..2 * MAX_REMEMBERED as u64 {
            echo.is_echo(2, &n.to_ne_bytes(), 2 * ECHO_WINDOW);
        }
        assert_eq!(echo.heard.len(), MAX_REMEMBERED);
    }
}
