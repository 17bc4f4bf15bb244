//! The node that a shard channel has moved away from. It is heard until it ends the subscription by
//! itself, as nodes do when they learn that a slot is not theirs any more: what was published there
//! last would otherwise come over the cluster's bus alone, behind what its successor was sent
//! directly since.

use std::cmp::Reverse;

use super::nodes::Link;
use super::{Book, Class, SubState};

/// A node that has not noticed by then is not heard any longer, microseconds.
const LONGEST: u64 = 1_000_000;

impl Book {
    /// The entry is about to move to `home`.
    pub(super) fn home_changes(&mut self, at: usize, home: Option<usize>) {
        let Some(entry) = self.entries.get(at) else { return };
        let (Class::Shard(_), Some(from), Some(to)) = (entry.class, entry.home, home) else {
            return;
        };
        let heard = |s: &super::Sub| s.node == from && s.state == SubState::Confirmed;
        if from == to || !entry.subs.iter().any(heard) {
            return;
        }
        self.leave_former(at);
        let until = self.now + LONGEST;
        let Some(entry) = self.entries.get_mut(at) else { return };
        let Some(node) = self.nodes.get_mut(from).filter(|n| n.link == Link::Ready) else { return };
        node.leaving += 1;
        entry.former = Some((from, until));
        entry.echo.hear_both(true);
        self.retries.push(Reverse((until, at)));
    }

    /// Whether the entry has moved away from `node` and hears it still.
    pub(super) fn is_former(&self, at: usize, node: usize) -> bool {
        let entry = self.entries.get(at);
        entry.and_then(|e| e.former).is_some_and(|(former, _)| former == node)
    }

    /// The node before is not heard any more.
    pub(super) fn leave_former(&mut self, at: usize) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let Some((node, _)) = entry.former.take() else { return };
        entry.echo.hear_both(false);
        if let Some(node) = self.nodes.get_mut(node) {
            node.leaving = node.leaving.saturating_sub(1);
        }
    }

    /// Nodes that topics have moved away from and hear still. What they have sent is older than
    /// what the topics' new nodes have.
    pub fn formers(&self) -> impl Iterator<Item = usize> + '_ {
        self.nodes.iter().enumerate().filter(|(_, n)| n.leaving > 0).map(|(i, _)| i)
    }
}
