//! Maintains the subscriptions of a topic. Every event is recorded in the book and ends here:
//! [`Book::place`] makes the subscriptions what they should be, [`Book::settle`] tells the
//! listeners if the topic has become live or lost messages.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::entries::Entries;
use super::nodes::{HubNode, Nodes};
use super::{Book, Class, Entry, Sub, SubState, count};
use crate::pubsub::{GapReason, HubEvent, Topic};

/// Whether a topic gets its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// A required subscription is not confirmed.
    Lost,
    /// All possible subscriptions are confirmed, but a shard has no primary: new listeners are told
    /// that the topic is live, earlier ones may lose the first messages of the next primary.
    Part,
    Whole,
}

/// Number of nodes that may count these subscriptions, unconfirmed ones included: the confirmation
/// and a reply to PUBLISH arrive on different connections.
pub(super) fn asked(subs: &[Sub]) -> usize {
    subs.iter().filter(|s| s.state != SubState::Wanted).count()
}

impl Book {
    /// Adds the subscriptions that the entry should have, and ends those that it should not.
    pub(super) fn place(&mut self, at: usize) {
        let Some(entry) = self.entries.get(at) else { return };
        if entry.refused.is_some() {
            return;
        }
        let home = entry.choose_home(&self.nodes);
        let everywhere = matches!(entry.class, Class::Narrow { .. });
        let of = entry.topic.of;
        let is_primary = |nodes: &Nodes, node: usize| {
            nodes.primaries.contains(&node) && nodes.get(node).is_some_and(|n| n.upstream == of)
        };
        let mut subs = {
            let spare = std::mem::take(&mut self.spare_subs);
            self.formers().home_changes(at, home);
            let Some(entry) = self.entries.get_mut(at) else { return };
            if entry.home != home {
                entry.home = home;
                let ident = home.and_then(|n| self.nodes.get(n)).map_or(0, |n| n.ident);
                entry.topic.set_home(ident);
            }
            std::mem::replace(&mut entry.subs, spare)
        };
        // A subscription that is no longer wanted is not sent at all.
        let mut i = 0;
        while let Some(&sub) = subs.get(i) {
            let wanted = home == Some(sub.node) || everywhere && is_primary(&self.nodes, sub.node);
            if wanted || sub.state != SubState::Wanted {
                i += 1;
            } else {
                subs.swap_remove(i);
                self.end(at, sub);
            }
        }
        if let Some(home) = home {
            self.nodes.want(&mut subs, home);
        }
        if everywhere {
            for i in 0..self.nodes.primaries.len() {
                let node = self.nodes.primaries.get(i).copied();
                if let Some(node) = node.filter(|&node| is_primary(&self.nodes, node)) {
                    self.nodes.want(&mut subs, node);
                }
            }
        }
        if let Some(entry) = self.entries.get(at).filter(|entry| entry.retry.is_none()) {
            self.nodes.send(at, &entry.topic, &mut subs);
        }
        self.end_others(at, home, everywhere, &mut subs);
        if let Some(entry) = self.entries.get_mut(at) {
            entry.topic.set_upstream(asked(&subs));
            self.spare_subs = std::mem::replace(&mut entry.subs, subs);
        }
    }

    /// Ends the subscriptions at nodes that are no longer wanted. A former primary, now a replica
    /// of its successor, sends the same notifications: they are accepted until the successor is
    /// sent its SUBSCRIBE, and no longer, or they would arrive twice.
    fn end_others(
        &mut self,
        at: usize,
        home: Option<usize>,
        everywhere: bool,
        subs: &mut Vec<Sub>,
    ) {
        let waits = |subs: &[Sub], node: usize| {
            subs.iter().any(|s| s.node == node && s.state == SubState::Wanted)
        };
        let mut i = 0;
        while let Some(&sub) = subs.get(i) {
            let is_primary = self.nodes.primaries.contains(&sub.node);
            let successor = self.nodes.get(sub.node).and_then(|n| n.primary);
            let stands_in =
                sub.notifies && !is_primary && successor.is_some_and(|node| waits(subs, node));
            let notifies = everywhere && (is_primary || stands_in);
            let is_former = || self.entries.get(at).is_some_and(|e| e.is_former(sub.node));
            if home == Some(sub.node) || notifies || is_former() {
                if let Some(sub) = subs.get_mut(i) {
                    sub.notifies = notifies;
                }
                i += 1;
            } else {
                subs.swap_remove(i);
                self.end(at, sub);
            }
        }
    }

    /// Ends one subscription. Returns whether UNSUBSCRIBE is sent; the node counts it until then.
    fn end(&mut self, at: usize, sub: Sub) -> bool {
        let Some(entry) = self.entries.get(at) else { return false };
        if sub.state == SubState::Confirmed {
            count(&self.stats.upstream, entry.topic.kind, -1);
        }
        self.nodes.unsubscribe(sub, &entry.topic)
    }

    /// Removes a subscription that its node does not hold.
    pub(super) fn drop_sub(&mut self, at: usize, node: usize) -> Option<Sub> {
        if self.entries.get(at).is_some_and(|e| e.is_former(node)) {
            self.formers().leave(at);
        }
        let entry = self.entries.get_mut(at)?;
        let sub =
            entry.subs.iter().position(|s| s.node == node).map(|i| entry.subs.swap_remove(i))?;
        if sub.state == SubState::Confirmed {
            count(&self.stats.upstream, entry.topic.kind, -1);
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.load = node.load.saturating_sub(1);
        }
        Some(sub)
    }

    /// Ends all subscriptions of an entry. The nodes count them until they execute UNSUBSCRIBE.
    pub(super) fn withdraw(&mut self, at: usize) {
        self.formers().leave(at);
        let Some(entry) = self.entries.get_mut(at) else { return };
        let topic = Arc::clone(&entry.topic);
        let subs = std::mem::take(&mut entry.subs);
        let told = subs.into_iter().filter(|&sub| self.end(at, sub)).count();
        topic.set_upstream(told);
    }

    /// A node has executed UNSUBSCRIBE. Replies to PUBLISH that still counted the subscription may
    /// be on their way, so it is corrected for a while longer.
    pub(super) fn ended(&mut self, topic: &Arc<Topic>) {
        if self.pace.linger == 0 {
            self.uncount(topic);
        } else {
            self.timers.count_until(self.now + self.pace.linger, topic);
        }
    }

    /// Stops correcting for a subscription that no node counts any more. After the last one of a
    /// dropped topic the workers forget the topic.
    pub(super) fn uncount(&mut self, topic: &Arc<Topic>) {
        let current = self.entries.named(topic.of, topic.kind, &topic.name);
        let current = current.and_then(|at| self.entries.get(at));
        if current.is_some_and(|entry| Arc::ptr_eq(&entry.topic, topic)) {
            return;
        }
        topic.set_upstream(topic.upstream().saturating_sub(1));
        if topic.upstream() == 0 {
            self.workers.tell_all(|| HubEvent::Forgotten(Arc::clone(topic)));
        }
    }

    /// Tells the listeners when the topic becomes live or loses messages, for `reason`.
    pub(super) fn settle(&mut self, at: usize, reason: GapReason) {
        let health = self.entries.health(at, &self.nodes);
        let Some(entry) = self.entries.get_mut(at) else { return };
        let was = entry.live;
        let mut all = false;
        if was && health == Health::Lost {
            entry.live = false;
            entry.gapped = true;
            entry.topic.set_live(false);
            if !entry.listeners.is_empty() {
                self.stats.gaps[reason as usize].fetch_add(1, Relaxed);
            }
            for listener in entry.listeners.iter().filter(|l| l.told) {
                self.workers.tell(listener.worker, HubEvent::Gap { token: listener.token });
            }
        } else if !was && health == Health::Whole {
            entry.live = true;
            entry.tries = 0;
            all = entry.gapped;
            if std::mem::take(&mut entry.gapped) && !entry.listeners.is_empty() {
                self.stats.resubscriptions.fetch_add(1, Relaxed);
            }
            entry.topic.set_live(true);
        }
        if health >= Health::Part {
            // A subscriber of a live topic waits for the node's reply (see `join`).
            let anew = !was;
            if anew && entry.live {
                entry.joining.told();
            }
            let tell = |l: &&mut super::Listener| all || (!l.told && (anew || !l.joins));
            for listener in entry.listeners.iter_mut().filter(tell) {
                listener.told = true;
                listener.joins = false;
                let (token, topic) = (listener.token, Arc::clone(&entry.topic));
                self.workers.tell(listener.worker, HubEvent::Live { token, topic });
            }
        }
        if self.entries.is_own(at) {
            let of = self.entries.get(at).map(|entry| entry.topic.of);
            for i in 0..self.entries.broad.len() {
                let broad = self.entries.broad.get(i).copied();
                let ours = |&at: &usize| self.entries.get(at).map(|e| e.topic.of) == of;
                if let Some(broad) = broad.filter(ours) {
                    self.settle(broad, reason);
                }
            }
        }
    }
}

impl Entry {
    /// The current home as long as it works, otherwise a new one.
    fn choose_home(&self, nodes: &Nodes) -> Option<usize> {
        match self.class {
            Class::Narrow { pure: true } => None,
            Class::Shard(slot) => {
                let stays = |n: &usize| self.pinned && nodes.get(*n).is_some_and(|n| n.online);
                self.home.filter(stays).or_else(|| nodes.owner(slot))
            }
            _ => {
                let of = self.topic.of;
                let is_usable = |n: &HubNode| n.is_usable() && n.upstream == of;
                let usable = |n: &usize| nodes.get(*n).is_some_and(is_usable);
                self.home.filter(usable).or_else(|| {
                    // A topic that had a home prefers a connected node to the one of highest rank.
                    nodes.pick(self.topic.of, self.hash, self.home.is_some())
                })
            }
        }
    }

    /// Whether `node` has confirmed its subscription.
    fn is_confirmed(&self, node: usize) -> bool {
        self.subs.iter().any(|s| s.node == node && s.state == SubState::Confirmed)
    }
}

impl Entries {
    /// Whether the entry's topic gets its messages.
    fn health(&self, at: usize, nodes: &Nodes) -> Health {
        let Some(entry) = self.get(at) else { return Health::Lost };
        let at_home = || entry.home.is_some_and(|home| entry.is_confirmed(home));
        match entry.class {
            Class::Shard(_) if entry.former.as_ref().is_some_and(|f| f.is_asked()) => Health::Lost,
            Class::Plain | Class::Shard(_) if at_home() => Health::Whole,
            Class::Plain | Class::Shard(_) => Health::Lost,
            Class::Narrow { pure } => {
                let mut primaries = nodes.primaries_of(entry.topic.of);
                if primaries.clone().next().is_none() || !(pure || at_home()) {
                    return Health::Lost;
                }
                // A primary without slots does not send notifications yet.
                let says =
                    |node: &usize| !entry.live || nodes.get(*node).is_some_and(|n| n.has_slots);
                let missing = |node: &usize| says(node) && !entry.is_confirmed(*node);
                if primaries.any(|node| missing(&node)) {
                    Health::Lost
                } else if entry.gapped && !nodes.is_covered(entry.topic.of) {
                    Health::Part
                } else {
                    Health::Whole
                }
            }
            Class::Broad if !at_home() => Health::Lost,
            Class::Broad => {
                let own = |at: usize| match self.get(at) {
                    Some(own) if own.refused.is_some() || own.live => Health::Whole,
                    _ => self.health(at, nodes).min(Health::Part),
                };
                let all = self.own(entry.topic.of);
                all.iter().map(|at| at.map_or(Health::Lost, own)).min().unwrap_or(Health::Lost)
            }
        }
    }
}
