//! What this worker's clients are subscribed to, and what the hub has told of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use slab::Slab;

use crate::channel::TopicKind;
use crate::clients::subscribers::Wait;
use crate::cluster::UpstreamId;
use crate::hash::{IntMap, KeyedMap};
use crate::pubsub::{HubRequest, Token, Topic};

/// What a topic takes besides its name, in the tables of the hub and of the workers: about.
const TOPIC: usize = 512;

/// How far a client's subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// The cluster has not confirmed it: no message is its.
    Asked {
        /// The number of the SUBSCRIBE's reply.
        seq: u32,
        /// The SUBSCRIBE in [`Topics::waits`].
        wait: u64,
    },
    /// Its confirmation, or a message behind it, is the client's reply of this number: what comes
    /// now stands behind that.
    Reply(u32),
    /// The client has its confirmation.
    Confirmed,
}

/// One client of a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subscriber {
    pub client: u32,
    pub generation: u32,
    pub since: Since,
}

impl Subscriber {
    /// It has been confirmed.
    pub(crate) fn is_heard(&self) -> bool {
        !matches!(self.since, Since::Asked { .. })
    }

    /// The SUBSCRIBE with this reply number asked for it, and it has not been confirmed.
    pub(crate) fn is_asked_by(&self, reply: u32) -> bool {
        matches!(self.since, Since::Asked { seq, .. } if seq == reply)
    }
}

/// A topic that this worker has subscribers of.
#[derive(Debug)]
pub(crate) struct Local {
    pub of: UpstreamId,
    pub kind: TopicKind,
    pub name: Arc<[u8]>,
    /// Tells it from others that had its index.
    pub generation: u32,
    /// What the hub knows of it, once it is confirmed.
    pub topic: Option<Arc<Topic>>,
    /// The cluster has confirmed it, and nothing was lost since.
    pub live: bool,
    pub subscribers: Vec<Subscriber>,
    /// Commands that wait for what the hub was asked: of [`Topics::waits`].
    pub waiting: BTreeSet<u64>,
    /// Commands that wait for what it is to be asked next.
    pub(crate) joining: BTreeSet<u64>,
    /// Stands in [`Topics::to_ask`].
    pub(crate) asks: bool,
}

/// By kind and name.
type ByName<T> = [KeyedMap<Arc<[u8]>, T>; TopicKind::COUNT];

#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// Bytes of all topics and of the confirmations that wait.
    pub held: usize,
    /// By upstream.
    names: Vec<ByName<u32>>,
    pub local: Slab<Local>,
    pub(crate) next_generation: u32,
    /// What any client of this process is subscribed to, by upstream.
    known: Vec<ByName<Arc<Topic>>>,
    pub waits: IntMap<u64, Wait>,
    pub(crate) next_wait: u64,
    /// For the hub, at the end of the turn.
    pub(crate) wishes: Vec<HubRequest>,
    /// Topics that have new subscribers.
    to_ask: Vec<Token>,
}

impl Topics {
    /// The index of a topic; if it is new, the hub is told.
    pub fn enter(&mut self, of: UpstreamId, kind: TopicKind, name: &[u8]) -> u32 {
        if let Some(index) = self.find(of, kind, name) {
            return index;
        }
        self.next_generation = self.next_generation.wrapping_add(1);
        self.held += TOPIC + name.len();
        let name: Arc<[u8]> = name.into();
        let index = self.local.insert(Local {
            of,
            kind,
            name: Arc::clone(&name),
            generation: self.next_generation,
            topic: None,
            live: false,
            subscribers: Vec::new(),
            waiting: BTreeSet::new(),
            joining: BTreeSet::new(),
            asks: false,
        }) as u32;
        if self.names.len() <= of.at() {
            self.names.resize_with(of.at() + 1, Default::default);
        }
        if let Some(names) = self.names.get_mut(of.at()) {
            names[kind as usize].insert(Arc::clone(&name), index);
        }
        let token = Token { index, generation: self.next_generation };
        self.wishes.push(HubRequest::Subscribe { token, of, kind, name });
        index
    }

    /// The hub is to be asked for this topic, at the end of the turn, for those who join.
    pub fn ask(&mut self, index: u32) {
        if let Some(local) = self.local.get_mut(index as usize)
            && !std::mem::replace(&mut local.asks, true)
        {
            self.to_ask.push(Token { index, generation: local.generation });
        }
    }

    /// The turn ends: what the hub is told.
    pub(crate) fn take_wishes(&mut self) -> Vec<HubRequest> {
        for token in std::mem::take(&mut self.to_ask) {
            let Some(local) = self.get(token) else { continue };
            local.asks = false;
            if !local.live {
                // Its answer is on the way, or comes when the topic is restored.
                let joining = std::mem::take(&mut local.joining);
                local.waiting.extend(joining);
            } else if local.waiting.is_empty() && !local.joining.is_empty() {
                local.waiting = std::mem::take(&mut local.joining);
                self.wishes.push(HubRequest::Confirm { token });
            }
        }
        std::mem::take(&mut self.wishes)
    }

    /// The index of a topic that somebody is subscribed to.
    pub fn find(&self, of: UpstreamId, kind: TopicKind, name: &[u8]) -> Option<u32> {
        self.names.get(of.at())?[kind as usize].get(name).copied()
    }

    /// The indexes of the topics of this name, whatever their upstream.
    pub fn of_any_upstream(&self, kind: TopicKind, name: &[u8]) -> impl Iterator<Item = u32> {
        self.names.iter().filter_map(move |names| names[kind as usize].get(name).copied())
    }

    /// The topic that `token` names, if it is still that one.
    pub fn get(&mut self, token: Token) -> Option<&mut Local> {
        self.local.get_mut(token.index as usize).filter(|l| l.generation == token.generation)
    }

    /// Nobody is subscribed to it any more. With `tell` the hub is told.
    pub fn remove(&mut self, index: u32, tell: bool) {
        let Some(local) = self.local.try_remove(index as usize) else { return };
        if let Some(names) = self.names.get_mut(local.of.at()) {
            names[local.kind as usize].remove(&local.name);
        }
        self.held = self.held.saturating_sub(TOPIC + local.name.len());
        if tell {
            let token = Token { index, generation: local.generation };
            self.wishes.push(HubRequest::Unsubscribe { token });
        }
    }

    /// A number for a command that waits.
    pub fn wait(&mut self, wait: Wait) -> u64 {
        self.next_wait += 1;
        self.held += wait.memory();
        self.waits.insert(self.next_wait, wait);
        self.next_wait
    }

    /// It waits no more.
    pub(crate) fn end_wait(&mut self, id: u64) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        self.held = self.held.saturating_sub(wait.memory());
        Some(wait)
    }

    /// The number that [`Topics::wait`] gives next.
    pub(crate) fn next_wait(&self) -> u64 {
        self.next_wait + 1
    }

    /// The hub failed: it is to be told of everything again.
    pub(crate) fn wish_again(&mut self) {
        // What was not told yet is part of everything. Not so what ends: the hub's next book may
        // have its beginning already.
        self.wishes.retain(|wish| matches!(wish, HubRequest::Unsubscribe { .. }));
        for (index, local) in &mut self.local {
            local.live = false;
            local.waiting.append(&mut local.joining);
            let token = Token { index: index as u32, generation: local.generation };
            let (of, kind, name) = (local.of, local.kind, Arc::clone(&local.name));
            self.wishes.push(HubRequest::Subscribe { token, of, kind, name });
        }
        self.known.clear();
    }

    /// A client of this process is subscribed to a topic, or soon will be.
    pub fn know(&mut self, topic: Arc<Topic>) {
        if self.known.len() <= topic.of.at() {
            self.known.resize_with(topic.of.at() + 1, Default::default);
        }
        if let Some(known) = self.known.get_mut(topic.of.at()) {
            known[topic.kind as usize].insert(Arc::clone(&topic.name), topic);
        }
    }

    /// No client is any more.
    pub fn forget(&mut self, topic: &Arc<Topic>) {
        let Some(known) = self.known.get_mut(topic.of.at()) else { return };
        let known = &mut known[topic.kind as usize];
        if known.get(&topic.name).is_some_and(|t| Arc::ptr_eq(t, topic)) {
            known.remove(&topic.name);
        }
    }

    /// What the hub knows of a topic that any client of this process is subscribed to.
    pub fn known(&self, of: UpstreamId, kind: TopicKind, name: &[u8]) -> Option<&Topic> {
        self.known.get(of.at())?[kind as usize].get(name).map(|topic| &**topic)
    }

    /// All of a kind at an upstream.
    pub(crate) fn all_known(
        &self,
        of: UpstreamId,
        kind: TopicKind,
    ) -> impl Iterator<Item = &Topic> {
        let known = self.known.get(of.at());
        known.into_iter().flat_map(move |known| known[kind as usize].values()).map(|topic| &**topic)
    }

    /// No client of this process is subscribed to anything.
    pub(crate) fn none_known(&self) -> bool {
        self.known.iter().flatten().all(KeyedMap::is_empty)
    }

    /// The worker ends, its clients with it.
    pub(crate) fn leave_all(&mut self) {
        for (_, local) in &self.local {
            let counted = local.subscribers.iter().filter(|s| s.is_heard());
            counted.for_each(|_| local.topic.iter().for_each(|topic| topic.leave()));
        }
    }

    /// Subscriptions of this worker's clients, by kind.
    pub fn subscriptions(&self) -> [u64; TopicKind::COUNT] {
        let mut counts = [0; TopicKind::COUNT];
        for (_, local) in &self.local {
            counts[local.kind as usize] += local.subscribers.len() as u64;
        }
        counts
    }
}
