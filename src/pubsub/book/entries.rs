//! The entries of all topics, by index and by name; which of them are broad, and which are the
//! hub's own.

use std::sync::Arc;

use slab::Slab;

use super::nodes::Nodes;
use super::{Class, Entry};
use crate::channel::TopicKind;
use crate::channel::glob::{self, NOTIFICATION_PREFIXES};
use crate::cluster::{SlotSpace, UpstreamId};
use crate::hash::KeyedMap;
use crate::pubsub::{Topic, hash};

/// All entries.
#[derive(Debug, Default)]
pub(super) struct Entries {
    slab: Slab<Entry>,
    /// By upstream.
    names: Vec<[KeyedMap<Arc<[u8]>, usize>; TopicKind::COUNT]>,
    /// Entries of broad topics.
    pub(super) broad: Vec<usize>,
    /// Entries of the hub's own patterns, by upstream, while there are broad topics.
    own: Vec<OwnPatterns>,
}

/// Entries of the hub's own patterns at one upstream.
pub(super) type OwnPatterns = [Option<usize>; NOTIFICATION_PREFIXES.len()];

impl Entries {
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&Entry> {
        self.slab.get(at)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Entry> {
        self.slab.get_mut(at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.slab.iter()
    }

    /// An index above those of all entries.
    pub(super) fn end(&self) -> usize {
        self.slab.capacity()
    }

    /// The entry of a topic.
    #[inline]
    pub(super) fn named(&self, of: UpstreamId, kind: TopicKind, name: &[u8]) -> Option<usize> {
        self.names.get(of.at())?[kind as usize].get(name).copied()
    }

    /// The hub's own patterns at an upstream.
    pub(super) fn own(&self, of: UpstreamId) -> OwnPatterns {
        self.own.get(of.at()).copied().unwrap_or_default()
    }

    /// The same, to be changed.
    pub(super) fn own_mut(&mut self, of: UpstreamId) -> &mut OwnPatterns {
        of_upstream(&mut self.own, of)
    }

    /// Whether an upstream has broad topics.
    pub(super) fn has_broad(&self, of: UpstreamId) -> bool {
        self.broad.iter().any(|&at| self.get(at).is_some_and(|entry| entry.topic.of == of))
    }

    /// Whether the entry is that of one of the hub's own patterns.
    pub(super) fn is_own(&self, at: usize) -> bool {
        self.own.iter().any(|own| own.contains(&Some(at)))
    }

    /// Adds an entry for a topic that has none.
    pub(super) fn insert(
        &mut self,
        of: UpstreamId,
        kind: TopicKind,
        name: Arc<[u8]>,
        nodes: &Nodes,
    ) -> usize {
        let class = classify(kind, &name, nodes.slots_of(of));
        let owner = match class {
            Class::Shard(slot) => nodes.owner(slot),
            _ => None,
        };
        let everywhere = matches!(class, Class::Narrow { .. } | Class::Broad);
        let at = self.slab.insert(Entry {
            topic: Arc::new(Topic::new(of, kind, Arc::clone(&name), everywhere)),
            hash: hash(&name),
            class,
            broad_at: self.broad.len(),
            listeners: Vec::new(),
            home: None,
            pinned: false,
            owner,
            former: None,
            subs: Vec::new(),
            echo: Default::default(),
            joining: Default::default(),
            live: false,
            gapped: false,
            tries: 0,
            retry: None,
            refused: None,
            leaving: false,
            leave_at: None,
            made: Vec::new(),
            starts: Vec::new(),
        });
        of_upstream(&mut self.names, of)[kind as usize].insert(name, at);
        if class == Class::Broad {
            self.broad.push(at);
        }
        at
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, at: usize) -> Option<Entry> {
        let entry = self.slab.try_remove(at)?;
        let topic = &entry.topic;
        of_upstream(&mut self.names, topic.of)[topic.kind as usize].remove(&topic.name);
        if entry.class == Class::Broad {
            self.broad.swap_remove(entry.broad_at);
            if let Some(&moved) = self.broad.get(entry.broad_at)
                && let Some(moved) = self.slab.get_mut(moved)
            {
                moved.broad_at = entry.broad_at;
            }
        }
        Some(entry)
    }

    /// Calls `act` with the entry of each broad topic.
    pub(super) fn each_broad(&mut self, mut act: impl FnMut(&mut Entry)) {
        for &at in &self.broad {
            if let Some(entry) = self.slab.get_mut(at) {
                act(entry);
            }
        }
    }
}

/// The place of an upstream in a list by upstream, which grows as upstreams are named.
fn of_upstream<T: Default>(all: &mut Vec<T>, of: UpstreamId) -> &mut T {
    if all.len() <= of.at() {
        all.resize_with(of.at() + 1, T::default);
    }
    // It is there: the list has just been made long enough.
    let at = of.at().min(all.len().saturating_sub(1));
    &mut all[at]
}

fn classify(kind: TopicKind, name: &[u8], slots: SlotSpace) -> Class {
    match kind {
        TopicKind::Shard => Class::Shard(slots.slot_of(name)),
        _ if !glob::can_receive_notifications(kind, name) => Class::Plain,
        TopicKind::Channel => Class::Narrow { pure: true },
        TopicKind::Pattern => {
            let literal = glob::literal_prefix(name);
            if literal.starts_with(b"__key") {
                Class::Narrow { pure: glob::is_notification(&literal) }
            } else {
                Class::Broad
            }
        }
    }
}
