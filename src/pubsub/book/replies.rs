//! Nodes' replies to SUBSCRIBE, UNSUBSCRIBE and PING. A node replies in order; each command names
//! one topic, so an error is about one topic.

use super::{Book, Class, Sent, SubState, count};
use crate::channel::TopicKind;
use crate::cluster::NodeAddr;
use crate::pubsub::{GapReason, HubEvent};

/// Redirections followed at once per topic; more suggest two nodes that disagree.
const MAX_REDIRECTIONS: u32 = 3;
/// Codes of temporary errors.
const TEMPORARY: [&str; 7] =
    ["CLUSTERDOWN", "LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "ASK", "READONLY"];

/// Nodes' replies to commands.
pub(crate) struct Replies<'a> {
    book: &'a mut Book,
}

impl Book {
    /// For nodes' replies to commands.
    pub(crate) fn replies(&mut self) -> Replies<'_> {
        Replies { book: self }
    }
}

impl Replies<'_> {
    /// A node confirms that a subscription has begun or ended.
    ///
    /// # Errors
    /// It does not match the command sent: the connection is unusable.
    pub(crate) fn changed(
        &mut self,
        node: usize,
        kind: TopicKind,
        subscribed: bool,
        name: &[u8],
    ) -> Result<(), &'static str> {
        let place = self.book.nodes.get_mut(node).ok_or("a node that is not known")?;
        let answers = match place.fifo.front() {
            Some(Sent::Subscribe { topic, .. } | Sent::Join { topic, .. }) => {
                subscribed && topic.kind == kind && *topic.name == *name
            }
            Some(Sent::Unsubscribe { topic }) => {
                !subscribed && topic.kind == kind && *topic.name == *name
            }
            Some(Sent::FormerPing { .. } | Sent::Ping) | None => false,
        };
        if !answers {
            if kind == TopicKind::Shard && !subscribed {
                self.slot_left(node, name);
                return Ok(());
            }
            return Err("a confirmation of what was not asked for");
        }
        self.book.links().heard(node);
        let Some(place) = self.book.nodes.get_mut(node) else { return Ok(()) };
        let (at, serial) = match place.fifo.pop_front() {
            Some(Sent::Subscribe { entry, serial, .. }) => (entry, serial),
            Some(Sent::Unsubscribe { topic }) => {
                self.book.ended(&topic);
                return Ok(());
            }
            Some(Sent::Join { entry, topic }) => {
                self.book.join_answered(entry, &topic, false);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(entry) = self.book.entries.get_mut(at) else { return Ok(()) };
        let Some(sub) = entry.subs.iter_mut().find(|s| s.serial == serial) else { return Ok(()) };
        sub.state = SubState::Confirmed;
        let retried = entry.tries > 0;
        count(&self.book.stats.upstream, kind, 1);
        entry.pinned |= kind == TopicKind::Shard;
        entry.echo.moved(node, self.book.now);
        let at_home = entry.home == Some(node);
        if at_home {
            self.book.formers().home_confirmed(at);
        }
        self.book.settle(at, GapReason::NewPrimary);
        // Nodes accept retries again: each success lets two more go.
        for _ in 0..if retried { 2 } else { 0 } {
            self.book.retry_next();
        }
        Ok(())
    }

    /// A node has ended a shard channel by itself, since it no longer has the slot. If the topology
    /// does not know the new owner yet, the node does.
    fn slot_left(&mut self, node: usize, name: &[u8]) {
        self.book.nodes.refresh(node, None);
        let Some(of) = self.book.nodes.get(node).map(|node| node.upstream) else { return };
        let Some(at) = self.book.entries.named(of, TopicKind::Shard, name) else { return };
        let held = |s: &super::Sub| s.node == node && s.state == SubState::Confirmed;
        let Some(entry) = self.book.entries.get(at) else { return };
        if !entry.subs.iter().any(held) {
            return;
        }
        let former = entry.is_former(node);
        self.book.drop_sub(at, node);
        if former {
            // It has delivered everything; its successor is already subscribed.
            return;
        }
        if let Some(entry) = self.book.entries.get_mut(at) {
            entry.pinned = false;
        }
        self.book.place(at);
        self.book.settle(at, GapReason::SlotMoved);
    }

    /// A node replies with an error.
    ///
    /// # Errors
    /// No command awaits a reply.
    pub(crate) fn error(&mut self, node: usize, text: &[u8]) -> Result<(), &'static str> {
        let place = self.book.nodes.get_mut(node).ok_or("a node that is not known")?;
        let sent = place.fifo.pop_front().ok_or("an error that answers nothing")?;
        self.book.links().heard(node);
        let (at, serial) = match sent {
            Sent::Subscribe { entry, serial, .. } => (entry, serial),
            Sent::Unsubscribe { topic } => {
                self.book.ended(&topic);
                return Ok(());
            }
            // The slot has moved: the node has ended the subscription, or will.
            Sent::Join { entry, topic } => {
                self.book.join_answered(entry, &topic, false);
                return Ok(());
            }
            // An error is an answer as well.
            Sent::FormerPing { entry, topic } => {
                self.book.formers().answered(entry, node, topic);
                return Ok(());
            }
            Sent::Ping => return Ok(()),
        };
        let entry = self.book.entries.get_mut(at);
        let Some(entry) = entry.filter(|e| e.subs.iter().any(|s| s.serial == serial)) else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(text);
        let mut words = text.split(' ');
        let code = words.next().unwrap_or_default();
        let is_shard = matches!(entry.class, Class::Shard(_));
        if code == "MOVED" && is_shard {
            let target = words.nth(1).and_then(address);
            self.book.drop_sub(at, node);
            self.moved(at, node, target);
        } else if TEMPORARY.contains(&code) {
            self.book.drop_sub(at, node);
            if let Some(entry) = self.book.entries.get_mut(at) {
                entry.pinned = false;
            }
            self.book.nodes.refresh(node, None);
            self.later(at);
            self.book.place(at);
        } else {
            self.book.drop_sub(at, node);
            self.refuse(at, &text);
        }
        Ok(())
    }

    /// Any other reply: to a PING, or unexpected.
    ///
    /// # Errors
    /// It does not match the command sent.
    pub(crate) fn other(&mut self, node: usize) -> Result<(), &'static str> {
        let place = self.book.nodes.get_mut(node).ok_or("a node that is not known")?;
        match place.fifo.pop_front() {
            Some(Sent::Ping) => Ok(()),
            Some(Sent::FormerPing { entry, topic }) => {
                self.book.formers().answered(entry, node, topic);
                Ok(())
            }
            _ => Err("a reply where a push must be"),
        }
    }

    /// Follows MOVED to nodes of the topology only; others have to wait until it is refreshed.
    fn moved(&mut self, at: usize, from: usize, target: Option<(String, u16)>) {
        let host = |host: String| {
            // An empty host means the node that replied.
            if host.is_empty() {
                self.book.nodes.get(from).map(|n| n.addr.host.clone())
            } else {
                Some(host.into())
            }
        };
        let target = target.and_then(|(name, port)| Some(NodeAddr { host: host(name)?, port }));
        let node = target.as_ref().and_then(|addr| self.book.nodes.known(addr));
        let node = node.filter(|&n| self.book.nodes.get(n).is_some_and(|n| n.online));
        self.book.nodes.refresh(from, target);
        let Some(entry) = self.book.entries.get_mut(at) else { return };
        entry.pinned = node.is_some();
        if let Some(node) = node {
            entry.home = Some(node);
            let ident = self.book.nodes.get(node).map_or(0, |n| n.ident);
            entry.topic.set_home(ident);
        }
        if node.is_none() || entry.tries >= MAX_REDIRECTIONS {
            self.later(at);
        } else {
            entry.tries += 1;
        }
        self.book.place(at);
    }

    /// Schedules a retry.
    fn later(&mut self, at: usize) {
        let Some(entry) = self.book.entries.get_mut(at) else { return };
        entry.tries = entry.tries.saturating_add(1);
        let due = self.book.now + self.book.pace.backoff.pause(entry.tries);
        entry.retry = Some(due);
        self.book.timers.set(due, at);
    }

    /// The cluster refuses the topic for good: tells its listeners and drops it.
    fn refuse(&mut self, at: usize, text: &str) {
        self.book.withdraw(at);
        let own = self.book.entries.is_own(at);
        let Some(entry) = self.book.entries.get_mut(at) else { return };
        let topic = std::sync::Arc::clone(&entry.topic);
        let listeners = std::mem::take(&mut entry.listeners);
        entry.live = false;
        topic.set_live(false);
        if own {
            // Broad topics go on without notifications.
            let name = String::from_utf8_lossy(&topic.name).into_owned();
            // At most twice per process, because the two patterns are not requested again.
            tracing::warn!(pattern = name, error = text, "no keyspace notifications");
            entry.refused = Some(text.into());
        }
        if !listeners.is_empty() {
            count(&self.book.stats.topics, topic.kind, -1);
        }
        for listener in listeners {
            let (worker, token) = (listener.worker, listener.token);
            self.book.workers.unsubscribed(worker, token);
            self.book.workers.tell(worker, HubEvent::Refused { token, text: text.into() });
        }
        if own {
            self.book.settle(at, GapReason::ConnectionLost);
        } else {
            self.book.forget(at);
        }
    }
}

/// Parses the `host:port` of a MOVED error.
fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}
