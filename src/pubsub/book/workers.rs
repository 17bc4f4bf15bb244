//! The workers: what they are to be told, what they subscribe to, which topology they follow.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::Listener;
use crate::hash::{IntMap, KeyedMap};
use crate::pubsub::{Frames, HubEvent, Token};

#[derive(Debug, Default)]
struct Worker {
    /// Generation of the topology that the worker uses; `None` before it has reported one.
    follows: Option<u64>,
    news: Vec<HubEvent>,
    /// The entry of each subscription.
    tokens: KeyedMap<Token, usize>,
}

/// All workers, by index.
#[derive(Debug, Default)]
pub(crate) struct Workers(IntMap<usize, Worker>);

impl Workers {
    /// Adds a worker, with its first news.
    pub(super) fn add(&mut self, index: usize, news: Vec<HubEvent>) {
        self.0.insert(index, Worker { news, ..Worker::default() });
    }

    /// Removes a worker and returns its subscriptions with their entries.
    pub(super) fn remove(&mut self, index: usize) -> Option<KeyedMap<Token, usize>> {
        self.0.remove(&index).map(|worker| worker.tokens)
    }

    pub(super) fn contains(&self, index: usize) -> bool {
        self.0.contains_key(&index)
    }

    /// The entry of a worker's subscription.
    pub(super) fn entry_of(&self, worker: usize, token: Token) -> Option<usize> {
        self.0.get(&worker)?.tokens.get(&token).copied()
    }

    /// Notes the entry of a worker's subscription.
    pub(super) fn subscribed(&mut self, worker: usize, token: Token, entry: usize) {
        if let Some(worker) = self.0.get_mut(&worker) {
            worker.tokens.insert(token, entry);
        }
    }

    /// Forgets a worker's subscription and returns its entry.
    pub(super) fn unsubscribed(&mut self, worker: usize, token: Token) -> Option<usize> {
        self.0.get_mut(&worker)?.tokens.remove(&token)
    }

    pub(super) fn tell(&mut self, worker: usize, news: HubEvent) {
        if let Some(worker) = self.0.get_mut(&worker) {
            worker.news.push(news);
        }
    }

    pub(super) fn tell_all(&mut self, news: impl Fn() -> HubEvent) {
        for worker in self.0.values_mut() {
            worker.news.push(news());
        }
    }

    /// Passes messages to the listeners. Returns whether there are any.
    pub(super) fn deliver(
        &mut self,
        listeners: &[Listener],
        bytes: &[u8],
        starts: &[u32],
        held: &Arc<AtomicUsize>,
    ) -> bool {
        if !listeners.iter().any(|l| l.told) {
            return false;
        }
        let frames = Arc::new(Frames::new(bytes, starts, held));
        for listener in listeners.iter().filter(|l| l.told) {
            let (token, frames) = (listener.token, Arc::clone(&frames));
            self.tell(listener.worker, HubEvent::Messages { token, frames });
        }
        true
    }

    /// Takes the news, by worker.
    pub(crate) fn take_news(&mut self) -> impl Iterator<Item = (usize, Vec<HubEvent>)> + '_ {
        let told = self.0.iter_mut().filter(|(_, worker)| !worker.news.is_empty());
        told.map(|(&index, worker)| (index, std::mem::take(&mut worker.news)))
    }

    /// Worker `index` follows the topology of this generation.
    pub(super) fn follows(&mut self, index: usize, generation: u64) {
        if let Some(worker) = self.0.get_mut(&index) {
            worker.follows = Some(generation);
        }
    }

    /// Whether no worker follows an older topology than that of this generation. A worker without
    /// a topology does not publish.
    pub(super) fn all_follow(&self, generation: u64) -> bool {
        let behind = |w: &Worker| w.follows.is_some_and(|known| known < generation);
        !self.0.values().any(behind)
    }
}
