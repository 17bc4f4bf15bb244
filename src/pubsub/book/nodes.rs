//! The nodes, what the topology says of them, and the commands that they are sent.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Action, Fifo, Sent, Sub, SubState};
use crate::cluster::{NodeAddr, Role, Slot, SlotMap, SlotSpace, Snapshot, UpstreamId};
use crate::pubsub::{Topic, ident, rank};

/// Back off from a node whose connections are lost more than `MAX_CUTS` times in a row, each within
/// `CUTS_WITHIN` microseconds of its establishment.
const MAX_CUTS: u32 = 20;
const CUTS_WITHIN: u64 = 1_000_000;

/// State of a node's subscription connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Not connected, and not needed.
    Idle,
    /// Being established.
    Connecting,
    /// Established: accepts commands.
    Ready,
    /// Lost or failed: to be retried later.
    Backoff,
}

/// A node. Its index never changes.
#[derive(Debug)]
pub struct HubNode {
    /// The address in the topology.
    pub addr: NodeAddr,
    /// The name expected in its certificate.
    pub name: Box<str>,
    /// The node's ID; empty if it is not known.
    pub id: Box<str>,
    /// The resolved address.
    pub socket: Option<SocketAddr>,
    /// State of its connection.
    pub link: LinkState,
    /// Number of topics that are, or should be, subscribed there.
    pub load: usize,
    /// Consecutive failures, the loss of a connection included.
    pub failures: u32,
    pub(super) ident: u64,
    /// Where it belongs to.
    pub upstream: UpstreamId,
    /// In the topology, and online.
    pub(super) online: bool,
    /// The primary of its shard.
    pub(super) primary: Option<usize>,
    /// A primary with slots.
    pub(super) has_slots: bool,
    /// It had slots and has none now. If the topology calls it a primary, another node was most
    /// likely promoted in its place and it is, or will be, that one's replica. Nodes learn this one
    /// after the other, so it may be a replica in one topology and a primary in the next. Its
    /// notifications would be duplicates.
    stripped: bool,
    /// The primary that it followed and that still has slots, while it is called a primary without
    /// slots: most likely it is being promoted, and the slots follow. Both would send the same
    /// notifications; the old primary's are complete until the slots have moved.
    risen: Option<usize>,
    /// Established connections in a row that were soon lost.
    cuts: u32,
    /// When the last connection was established, microseconds.
    ready_at: u64,
    /// Number of topics of which it is the former home: see `former`.
    pub(super) leaving: usize,
    /// It has answered on this connection.
    heard: bool,
    /// It answered nothing on the previous connection: a single subscription is sent as a probe,
    /// the others wait for its reply.
    trial: bool,
    pub(super) fifo: Fifo,
}

impl HubNode {
    /// Online, and without a recent failure.
    pub(super) fn is_usable(&self) -> bool {
        self.online && self.failures == 0 && self.link != LinkState::Backoff
    }

    /// Records that the connection is established.
    pub(super) fn connected(&mut self, now: u64) {
        self.link = LinkState::Ready;
        self.ready_at = now;
        self.failures = 0;
        self.fifo.clear();
    }

    /// Records that the node has answered a command. Returns whether others waited for that.
    pub(super) fn answered(&mut self) -> bool {
        self.heard = true;
        std::mem::take(&mut self.trial)
    }

    /// Records that the connection was lost or failed. Returns the number of failures in a row that
    /// the next attempt has to back off for; 0: it may follow at once if the node has closed the
    /// connection, as a healthy one may.
    ///
    /// That a connection could be established ends no row: a node may accept each and close it.
    pub(super) fn has_failed(&mut self, now: u64) -> u32 {
        if self.link != LinkState::Ready {
            self.failures += 1;
        } else if now < self.ready_at + CUTS_WITHIN {
            self.cuts = self.cuts.saturating_add(1);
        } else {
            self.cuts = 1;
        }
        self.failures.max(self.cuts.saturating_sub(MAX_CUTS))
    }

    /// Records that there is no connection any more. Returns the commands that were not answered.
    pub(super) fn cut(&mut self, link: LinkState) -> Fifo {
        self.trial |= self.link == LinkState::Ready && !self.heard;
        self.heard = false;
        self.link = link;
        std::mem::take(&mut self.fifo)
    }
}

/// The nodes that the cluster ever had, its topology, and what is to be done at the nodes.
#[derive(Debug)]
pub(crate) struct Nodes {
    all: Vec<HubNode>,
    /// Online primaries.
    pub(super) primaries: Vec<usize>,
    /// Upstreams that have a shard with slots and without an online primary.
    uncovered: Vec<UpstreamId>,
    /// Where the slots of the upstreams lie.
    pub(super) map: SlotMap,
    pub(super) snapshot: Arc<Snapshot>,
    /// Index in `all` of each node of the snapshot.
    by_index: Vec<usize>,
    /// The number of the last subscription.
    serial: u64,
    /// Actions for the connections, not yet taken by the caller.
    pub(super) actions: Vec<Action>,
}

impl Nodes {
    /// No nodes.
    pub(super) fn new() -> Self {
        Nodes {
            all: Vec::new(),
            primaries: Vec::new(),
            uncovered: Vec::new(),
            map: SlotMap::default(),
            snapshot: Arc::new(Snapshot::empty()),
            by_index: Vec::new(),
            serial: 0,
            actions: Vec::new(),
        }
    }

    /// The node with this index.
    pub(crate) fn get(&self, node: usize) -> Option<&HubNode> {
        self.all.get(node)
    }

    pub(super) fn get_mut(&mut self, node: usize) -> Option<&mut HubNode> {
        self.all.get_mut(node)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nothing is subscribed there and no reply is outstanding.
    pub(crate) fn is_unused(&self, node: usize) -> bool {
        self.all.get(node).is_none_or(|n| n.load == 0 && n.fifo.is_empty())
    }

    /// Former homes that are still heard; their messages are older than the new homes'.
    pub(crate) fn formers(&self) -> impl Iterator<Item = usize> + '_ {
        self.all.iter().enumerate().filter(|(_, n)| n.leaving > 0).map(|(i, _)| i)
    }

    /// Requests a refresh of the topology that `node` is in, preferably from `hint`.
    pub(super) fn refresh(&mut self, node: usize, hint: Option<NodeAddr>) {
        let of = self.get(node).map_or(UpstreamId::FIRST, |node| node.upstream);
        self.actions.push(Action::Refresh(of, hint));
    }

    /// Takes the pending actions.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Applies a new topology.
    pub(super) fn apply(&mut self, snapshot: Arc<Snapshot>) {
        let mut by_index = Vec::with_capacity(snapshot.nodes.len());
        for node in &snapshot.nodes {
            by_index.push(self.node_at(&node.addr));
        }
        let has_slots = snapshot.shards_with_slots();
        let mut owns = vec![false; snapshot.nodes.len()];
        for (shard, _) in snapshot.shards.iter().zip(&has_slots).filter(|(_, has)| **has) {
            if let Some(owns) = shard.primary.and_then(|i| owns.get_mut(usize::from(i))) {
                *owns = true;
            }
        }
        let owning: Vec<usize> =
            by_index.iter().zip(&owns).filter(|(_, owns)| **owns).map(|(&at, _)| at).collect();
        let mut stripped = Vec::new();
        let mut before = Vec::with_capacity(self.all.len());
        for (at, node) in self.all.iter_mut().enumerate() {
            let is_replica = node.primary.is_some_and(|primary| primary != at);
            before.push(node.primary.filter(|_| is_replica));
            node.stripped |= node.has_slots;
            (node.online, node.primary, node.has_slots) = (false, None, false);
        }
        self.primaries.clear();
        for ((node, &at), owns) in snapshot.nodes.iter().zip(&by_index).zip(owns) {
            let Some(place) = self.all.get_mut(at) else { continue };
            place.online = node.is_online();
            place.upstream = node.upstream;
            place.socket = node.socket.or(place.socket);
            if place.id != node.id {
                place.id = node.id.clone();
            }
            if *place.name != *node.server_name() {
                place.name = node.server_name().into();
            }
            // Kept while it is dead or a replica, for when it comes back.
            place.stripped &= !owns;
            let followed = before.get(at).copied().flatten();
            let leads = node.role == Role::Primary && !owns;
            place.risen =
                followed.or(place.risen).filter(|followed| leads && owning.contains(followed));
            if node.role != Role::Primary || !node.is_online() {
                continue;
            }
            if place.stripped {
                stripped.push((at, self.slot_of(at)));
            } else if place.risen.is_some() {
                // Still counts as a replica.
            } else if !self.primaries.contains(&at) {
                self.primaries.push(at);
            }
        }
        self.uncovered.clear();
        let firsts = snapshot.first_slots();
        for ((shard, &has_slots), first) in snapshot.shards.iter().zip(&has_slots).zip(firsts) {
            let place = |i: u16| by_index.get(usize::from(i)).copied();
            let primary = shard.primary.and_then(place).filter(|p| self.primaries.contains(p));
            if let (None, true, Some(slot)) = (primary, has_slots, first) {
                self.uncovered.push(self.map.upstream_of(slot));
            }
            for at in shard.replicas.iter().filter_map(|&i| place(i)).chain(primary) {
                if let Some(node) = self.all.get_mut(at) {
                    node.primary = primary;
                    node.has_slots = has_slots && primary == Some(at);
                }
            }
        }
        self.snapshot = snapshot;
        self.by_index = by_index;
        for (at, slot) in stripped {
            let successor = slot.and_then(|slot| self.owner(slot));
            let successor = successor.or_else(|| before.get(at).copied().flatten());
            if let Some(node) = self.all.get_mut(at) {
                node.primary = successor;
            }
        }
        for node in self.all.iter_mut().filter(|node| node.risen.is_some()) {
            node.primary = node.risen;
        }
    }

    fn node_at(&mut self, addr: &NodeAddr) -> usize {
        self.known(addr).unwrap_or_else(|| {
            self.all.push(HubNode {
                addr: addr.clone(),
                name: addr.host.clone(),
                id: "".into(),
                socket: None,
                link: LinkState::Idle,
                load: 0,
                failures: 0,
                ident: ident(addr),
                upstream: UpstreamId::FIRST,
                online: false,
                primary: None,
                has_slots: false,
                stripped: false,
                risen: None,
                cuts: 0,
                ready_at: 0,
                leaving: 0,
                heard: false,
                trial: false,
                fifo: Fifo::new(),
            });
            self.all.len() - 1
        })
    }

    /// The node with address `addr`, if the cluster ever had it.
    pub(super) fn known(&self, addr: &NodeAddr) -> Option<usize> {
        self.all.iter().position(|n| n.addr == *addr)
    }

    /// A slot that the node had in the previous topology.
    fn slot_of(&self, at: usize) -> Option<Slot> {
        let owner = |&shard: &u16| {
            let primary = self.snapshot.shards.get(usize::from(shard))?.primary?;
            self.by_index.get(usize::from(primary)).copied()
        };
        let slot = self.snapshot.slots.iter().position(|shard| owner(shard) == Some(at))?;
        u16::try_from(slot).ok().map(Slot)
    }

    /// The primary of the slot, if it is online.
    pub(super) fn owner(&self, slot: Slot) -> Option<usize> {
        let shard = *self.snapshot.slots.get(slot.at())?;
        let primary = self.snapshot.shards.get(usize::from(shard))?.primary?;
        let at = *self.by_index.get(usize::from(primary))?;
        self.all.get(at).filter(|n| n.online).map(|_| at)
    }

    /// The online primaries of an upstream.
    pub(super) fn primaries_of(&self, of: UpstreamId) -> impl Iterator<Item = usize> + Clone {
        let ours = move |node: &usize| self.get(*node).is_some_and(|node| node.upstream == of);
        self.primaries.iter().copied().filter(ours)
    }

    /// Whether every shard with slots of an upstream has an online primary.
    pub(super) fn is_covered(&self, of: UpstreamId) -> bool {
        !self.uncovered.contains(&of)
    }

    /// The slots of an upstream.
    pub(super) fn slots_of(&self, of: UpstreamId) -> SlotSpace {
        self.map.space(of)
    }

    /// The usable node of the upstream with the highest rank.
    pub(super) fn pick(&self, of: UpstreamId, hash: u64, now: bool) -> Option<usize> {
        let online = self.all.iter().enumerate().filter(|(_, n)| n.online && n.upstream == of);
        let best = online.max_by_key(|(i, node)| {
            // Workers publish by the same rule: a node without slots is no home.
            let is_primary = node.has_slots && self.primaries.contains(i);
            let ready = now && node.link == LinkState::Ready;
            (
                is_primary && ready,
                is_primary && node.is_usable(),
                ready,
                node.is_usable(),
                is_primary,
                rank(hash, node.ident),
            )
        });
        best.map(|(i, _)| i)
    }

    /// Adds a subscription at `node`, unless there is one.
    pub(super) fn want(&mut self, subs: &mut Vec<Sub>, node: usize) {
        if subs.iter().any(|s| s.node == node) {
            return;
        }
        self.serial += 1;
        subs.push(Sub { node, serial: self.serial, state: SubState::Wanted, notifies: false });
        if let Some(node) = self.get_mut(node) {
            node.load += 1;
        }
    }

    /// Sends the pending subscriptions to connected nodes, and connects to the others.
    pub(super) fn send(&mut self, entry: usize, topic: &Arc<Topic>, subs: &mut [Sub]) {
        for sub in subs.iter_mut().filter(|s| s.state == SubState::Wanted) {
            let Some(node) = self.all.get_mut(sub.node) else { continue };
            match node.link {
                LinkState::Ready if node.trial && !node.fifo.is_empty() => {}
                LinkState::Ready => {
                    sub.state = SubState::Sent;
                    let (serial, sent) = (sub.serial, Arc::clone(topic));
                    node.fifo.push_back(Sent::Subscribe { entry, serial, topic: sent });
                    self.actions.push(Action::Subscribe(sub.node, Arc::clone(topic)));
                }
                LinkState::Idle => {
                    node.link = LinkState::Connecting;
                    self.actions.push(Action::Connect(sub.node));
                }
                LinkState::Connecting | LinkState::Backoff => {}
            }
        }
    }

    /// Sends UNSUBSCRIBE for a subscription that the node holds, or will. Returns whether it is
    /// sent; the node counts the subscription until then.
    pub(super) fn unsubscribe(&mut self, sub: Sub, topic: &Arc<Topic>) -> bool {
        let Some(node) = self.all.get_mut(sub.node) else { return false };
        node.load = node.load.saturating_sub(1);
        let told = sub.state != SubState::Wanted && node.link == LinkState::Ready;
        if told {
            node.fifo.push_back(Sent::Unsubscribe { topic: Arc::clone(topic) });
            self.actions.push(Action::Unsubscribe(sub.node, Arc::clone(topic)));
        }
        told
    }

    /// Reconnects to the node if it is needed, at the time that [`super::links::Links::lost`] returned.
    pub(crate) fn retry(&mut self, node: usize) {
        let Some(place) = self.get_mut(node) else { return };
        if place.link != LinkState::Backoff {
            return;
        }
        if place.load > 0 {
            place.link = LinkState::Connecting;
            self.actions.push(Action::Connect(node));
        } else {
            // It may be healthy by now; the next topic that needs it finds out.
            place.link = LinkState::Idle;
            place.failures = 0;
        }
    }

    /// Sends a PING behind the commands that await a reply; the node answers in order.
    pub(crate) fn ping(&mut self, node: usize) {
        if let Some(place) = self.get_mut(node) {
            place.fifo.push_back(Sent::Ping);
            self.actions.push(Action::Ping(node));
        }
    }
}
