//! Another subscriber of a live topic. It must not get messages published before it subscribed, but
//! one of those may still be on its way although its PUBLISH is already answered. So the node is
//! sent SUBSCRIBE again; its reply comes after everything that it sent before. Subscribers that
//! arrive meanwhile wait for the next such round, and are all answered together.

use std::sync::Arc;

use super::nodes::LinkState;
use super::{Action, Book, Class, Sent, SubState};
use crate::pubsub::{HubEvent, Token, Topic};

/// Subscribers that wait for the node's reply.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// Those of the current round.
    now: Vec<(usize, Token)>,
    /// Those of the next round.
    next: Vec<(usize, Token)>,
    /// Outstanding replies.
    left: usize,
}

impl Joining {
    /// The topic was subscribed anew and all listeners are told: nobody waits any more.
    pub fn told(&mut self) {
        self.now.clear();
        self.next.clear();
    }
}

impl Book {
    /// Starts a round for another subscriber (`who`), or for those that wait.
    pub(super) fn start_join(&mut self, at: usize, who: Option<(usize, Token)>) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let who = who.filter(|who| !entry.joining.next.contains(who));
        entry.joining.next.extend(who);
        if entry.joining.left > 0 || entry.joining.next.is_empty() || !entry.live {
            return;
        }
        let everywhere = matches!(entry.class, Class::Narrow { .. });
        for sub in &entry.subs {
            let Some(node) = self.nodes.get_mut(sub.node) else { continue };
            let asked = everywhere || entry.home == Some(sub.node);
            if asked && sub.state == SubState::Confirmed && node.link == LinkState::Ready {
                let topic = Arc::clone(&entry.topic);
                node.fifo.push_back(Sent::Join { entry: at, topic: Arc::clone(&topic) });
                self.nodes.actions.push(Action::Subscribe(sub.node, topic));
                entry.joining.left += 1;
            }
        }
        if entry.joining.left > 0 {
            entry.joining.now = std::mem::take(&mut entry.joining.next);
        }
    }

    /// A node has replied, or (`lost`) never will.
    pub(super) fn join_answered(&mut self, at: usize, topic: &Arc<Topic>, lost: bool) {
        let entry = self.entries.get_mut(at).filter(|e| Arc::ptr_eq(&e.topic, topic));
        let Some(entry) = entry else { return };
        entry.joining.left = entry.joining.left.saturating_sub(1);
        if entry.joining.left > 0 {
            return;
        }
        if lost || !entry.live {
            // They are told when the topic is subscribed anew, or by the remaining nodes.
            let now = std::mem::take(&mut entry.joining.now);
            entry.joining.next.extend(now);
            return self.start_join(at, None);
        }
        for (worker, token) in std::mem::take(&mut entry.joining.now) {
            let same = |l: &&mut super::Listener| l.worker == worker && l.token == token;
            let Some(listener) = entry.listeners.iter_mut().find(same) else { continue };
            listener.told = true;
            listener.joins = false;
            self.workers.tell(worker, HubEvent::Live { token, topic: Arc::clone(topic) });
        }
        self.start_join(at, None);
    }
}
