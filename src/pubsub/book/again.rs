//! A topic that is subscribed already gets another subscriber. He must not get what was published
//! before: a node has answered such a PUBLISH while its message is still on its way. So the node is
//! asked once more; it answers behind all that it sent before. Whoever comes while it is being
//! asked waits for the next time, and all of them are answered together.

use std::sync::Arc;

use super::nodes::Link;
use super::{Action, Book, Class, Sent, SubState};
use crate::pubsub::{News, Token, Topic};

/// Who waits for the node's answer.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// For the one that is on its way.
    now: Vec<(usize, Token)>,
    /// For the next one.
    next: Vec<(usize, Token)>,
    /// Answers that are awaited.
    left: usize,
}

impl Again {
    /// Nobody waits any more: the topic was subscribed anew, and everybody is told.
    pub fn told(&mut self) {
        self.now.clear();
        self.next.clear();
    }
}

impl Book {
    /// A worker has another subscriber of a topic, or another worker has its first.
    pub(super) fn ask_again(&mut self, at: usize, who: Option<(usize, Token)>) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        let who = who.filter(|who| !entry.again.next.contains(who));
        entry.again.next.extend(who);
        if entry.again.left > 0 || entry.again.next.is_empty() || !entry.live {
            return;
        }
        let everywhere = matches!(entry.class, Class::Narrow { .. });
        for sub in &entry.subs {
            let Some(node) = self.nodes.get_mut(sub.node) else { continue };
            let asked = everywhere || entry.home == Some(sub.node);
            if asked && sub.state == SubState::Confirmed && node.link == Link::Ready {
                let topic = Arc::clone(&entry.topic);
                node.fifo.push_back(Sent::Again { entry: at, topic: Arc::clone(&topic) });
                self.actions.push(Action::Subscribe(sub.node, topic));
                entry.again.left += 1;
            }
        }
        if entry.again.left > 0 {
            entry.again.now = std::mem::take(&mut entry.again.next);
        }
    }

    /// A node has answered, or (`lost`) never will.
    pub(super) fn asked_again(&mut self, at: usize, topic: &Arc<Topic>, lost: bool) {
        let entry = self.entries.get_mut(at).filter(|e| Arc::ptr_eq(&e.topic, topic));
        let Some(entry) = entry else { return };
        entry.again.left = entry.again.left.saturating_sub(1);
        if entry.again.left > 0 {
            return;
        }
        if lost || !entry.live {
            // Who waits is told when it is subscribed anew, or by the nodes that are left.
            let now = std::mem::take(&mut entry.again.now);
            entry.again.next.extend(now);
            return self.ask_again(at, None);
        }
        for (worker, token) in std::mem::take(&mut entry.again.now) {
            let same = |l: &&mut super::Listener| l.worker == worker && l.token == token;
            let Some(listener) = entry.listeners.iter_mut().find(same) else { continue };
            listener.told = true;
            listener.joins = false;
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.news.push(News::Live { token, topic: Arc::clone(topic) });
            }
        }
        self.ask_again(at, None);
    }
}
