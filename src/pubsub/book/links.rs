//! What befalls nodes and the connections to them, and what then becomes of the topics there.

use std::sync::Arc;

use super::nodes::LinkState;
use super::{Action, Book, Class, Sent, SubState};
use crate::cluster::Snapshot;
use crate::pubsub::GapReason;

impl Book {
    /// Applies a new topology.
    pub fn topology(&mut self, snapshot: Arc<Snapshot>) {
        self.nodes.apply(snapshot);
        for at in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(at) else { continue };
            if !node.online && node.link != LinkState::Idle {
                self.links().left(at);
            }
        }
        self.every_entry(|book, at| {
            book.check_owner(at);
            book.place(at);
            book.settle(at, GapReason::NewPrimary);
        });
    }

    /// Moves a shard channel with its slot: if the topology has a new owner, or while no node has
    /// confirmed the subscription.
    fn check_owner(&mut self, at: usize) {
        let Some(entry) = self.entries.get(at) else { return };
        let Class::Shard(slot) = entry.class else { return };
        let owner = self.nodes.owner(slot);
        let Some(entry) = self.entries.get_mut(at) else { return };
        let moved = owner.is_some() && owner != entry.owner;
        let waits = entry.subs.iter().all(|s| s.state == SubState::Wanted);
        if moved || waits {
            entry.pinned = false;
        }
        if moved {
            entry.retry = None;
        }
        entry.owner = owner.or(entry.owner);
        if moved && entry.live && owner != entry.home {
            self.place(at);
            self.settle(at, GapReason::SlotMoved);
        }
    }

    /// The connections to the nodes.
    pub(crate) fn links(&mut self) -> Links<'_> {
        Links { book: self }
    }

    fn every_entry(&mut self, mut step: impl FnMut(&mut Self, usize)) {
        for at in 0..self.entries.end() {
            if self.entries.get(at).is_some() {
                step(self, at);
            }
        }
    }
}

/// What befalls the connections to the nodes.
pub(crate) struct Links<'a> {
    book: &'a mut Book,
}

impl Links<'_> {
    /// The connection to `node` is established.
    pub(crate) fn ready(&mut self, node: usize) {
        let Some(place) = self.book.nodes.get_mut(node) else { return };
        place.connected(self.book.now);
        // Topics wanted here, and those whose home does not answer.
        self.book.every_entry(|book, at| {
            let Some(entry) = book.entries.get(at) else { return };
            let waits = |s: &super::Sub| s.node == node && s.state == SubState::Wanted;
            let stuck = |home: usize| book.nodes.get(home).is_none_or(|n| !n.is_usable());
            if entry.subs.iter().any(waits) || entry.home.is_some_and(stuck) {
                book.place(at);
            }
        });
    }

    /// The node has answered a command.
    pub(super) fn heard(&mut self, node: usize) {
        let Some(place) = self.book.nodes.get_mut(node) else { return };
        if place.answered() {
            self.book.every_entry(|book, at| {
                let waits = |s: &super::Sub| s.node == node && s.state == SubState::Wanted;
                if book.entries.get(at).is_some_and(|entry| entry.subs.iter().any(waits)) {
                    book.place(at);
                }
            });
        }
    }

    /// The connection to `node` was lost or failed; `closed`: it was established, and the node has
    /// closed it. Returns when to retry, in microseconds.
    ///
    /// A node that has closed a connection may be healthy, so its topics stay and it is reconnected
    /// at once (`None`); if that fails, they are moved. Moving them first would not be faster, and
    /// messages already delivered might come again from other nodes.
    pub(crate) fn lost(&mut self, node: usize, closed: bool) -> Option<u64> {
        let now = self.book.now;
        let failures = self.book.nodes.get_mut(node)?.has_failed(now);
        let due = if closed && failures == 0 {
            self.cut(node, LinkState::Idle);
            None
        } else {
            self.cut(node, LinkState::Backoff);
            let failures = failures.max(1);
            if let Some(place) = self.book.nodes.get_mut(node) {
                place.failures = failures;
            }
            Some(now + self.book.pace.backoff.pause(failures))
        };
        self.replace_all(node, GapReason::ConnectionLost);
        self.book.nodes.refresh(node, None);
        due
    }

    /// The connection was closed because it is not needed.
    pub(crate) fn closed(&mut self, node: usize) {
        self.cut(node, LinkState::Idle);
    }

    /// The node has left the cluster or failed.
    fn left(&mut self, node: usize) {
        self.book.nodes.actions.push(Action::Close(node));
        self.cut(node, LinkState::Idle);
        self.replace_all(node, GapReason::NodeLeft);
    }

    fn cut(&mut self, node: usize, link: LinkState) {
        let Some(node) = self.book.nodes.get_mut(node) else { return };
        // A node forgets the subscriptions of a closed connection.
        for sent in node.cut(link) {
            match sent {
                Sent::Unsubscribe { topic } => self.book.ended(&topic),
                Sent::Join { entry, topic } => self.book.join_answered(entry, &topic, true),
                // The former home is left when its subscription is dropped.
                Sent::Subscribe { .. } | Sent::FormerPing { .. } | Sent::Ping => {}
            }
        }
    }

    /// Drops all subscriptions at `node`, and finds other homes for them at once.
    fn replace_all(&mut self, node: usize, reason: GapReason) {
        self.book.every_entry(|book, at| {
            let former = book.entries.get(at).is_some_and(|e| e.is_former(node));
            if book.drop_sub(at, node).is_none() || former {
                return;
            }
            if let Some(entry) = book.entries.get_mut(at) {
                entry.pinned = false;
            }
            book.place(at);
            book.settle(at, reason);
        });
    }
}
