//! What the snapshot says of nodes, and their order for SCAN.

use std::sync::{Arc, LazyLock};

use crate::cluster::{NO_SHARD, NodeState, Slot, SlotMap, UpstreamSet, ViewId};
use crate::common::Core;
use crate::dest::NodeId;
use crate::errors::Failure;
use crate::nodes::shards::MissingTarget;
use crate::nodes::{Nodes, Topology};
use crate::observe::{KeyReport, ObservedKeys, Renderer};
use crate::resp::Protocol;
use crate::route::{Fan, Gather, Layout, SlotOwners, identity};

/// The owners of the slots of some upstreams.
pub(crate) struct OwnersOf<'a> {
    nodes: &'a Nodes,
    layout: &'a Layout,
}

impl SlotOwners for OwnersOf<'_> {
    fn layout(&self) -> &Layout {
        self.layout
    }

    fn owner(&self, slot: Slot) -> Option<u64> {
        let node = self.nodes.placement.slots.owner(slot)?;
        self.nodes.identity(node)
    }

    fn owner_in_layout(&self, slot: Slot) -> Option<u64> {
        let addr = &self.nodes.topology.snapshot.primary_of(slot)?.addr;
        self.nodes.identity(self.nodes.known_node(addr)?)
    }
}

impl Topology {
    /// Makes the layout of these upstreams' slots, unless it is known.
    fn refresh_layout(&mut self, upstreams: UpstreamSet, map: &SlotMap) {
        let generation = self.snapshot.generation;
        self.layouts.retain(|(_, layout)| layout.generation() == generation);
        if self.layouts.iter().all(|(of, _)| *of != upstreams) {
            let scanned = |slot| upstreams.contains(map.upstream_of(slot));
            let layout = Layout::of(&self.snapshot.slots, generation, scanned);
            self.layouts.push((upstreams, layout));
        }
    }

    /// Why no node is known.
    pub(crate) fn no_cluster_failure(&self, core: &Core) -> Failure {
        match self.snapshot.generation {
            0 => core.shared.no_cluster_yet(),
            _ => Failure::NoNodeOnline,
        }
    }

    /// All workers' answers as a reply.
    pub(crate) fn write_seen(
        &self,
        (kind, count): (KeyReport, usize),
        mut seen: ObservedKeys,
        protocol: Protocol,
        reply: &mut Vec<u8>,
        core: &Core,
    ) {
        let view = core.router.view(ViewId::ROUTED);
        let shown = Renderer { commands: core.router.table(), snapshot: &self.snapshot, view };
        seen.hot.keys.truncate(count);
        seen.big.truncate(count);
        match kind {
            KeyReport::Hot => shown.hot_reply(&seen.hot.keys, protocol, reply),
            KeyReport::Big => shown.big_reply(&seen.big, protocol, reply),
        }
    }
}

impl Nodes {
    /// What SCAN's cursors call a node: its ID, which all slotways know alike; where the cluster
    /// does not tell it, its address.
    pub(crate) fn identity(&self, node: NodeId) -> Option<u64> {
        let addr = &self.list.get(node.at())?.addr;
        let known = self.topology.snapshot.nodes.iter().find(|n| n.addr == *addr);
        Some(match known.filter(|n| !n.id.is_empty()) {
            Some(known) => identity(&known.id),
            None => identity(&addr.to_string()),
        })
    }

    /// The owners of the slots of these upstreams.
    pub(crate) fn owners_of(&mut self, upstreams: UpstreamSet, map: &SlotMap) -> OwnersOf<'_> {
        static NOTHING: LazyLock<Layout> = LazyLock::new(Layout::default);
        self.topology.refresh_layout(upstreams, map);
        let nodes = &*self;
        let known = nodes.topology.layouts.iter().find(|(of, _)| *of == upstreams);
        OwnersOf { nodes, layout: known.map_or(&NOTHING, |(_, layout)| layout) }
    }

    /// The cursor for the client in the place of the node's; for other gatherings nothing.
    pub(crate) fn next_cursor(&mut self, gather: &mut Gather, map: &SlotMap) -> String {
        let Some((scan, node, cursor)) = gather.scanned() else { return String::new() };
        let by = self.identity(node).unwrap_or_default();
        match scan.next(cursor, by, &self.owners_of(scan.upstreams, map)) {
            Some(next) => next.to_string(),
            None => {
                gather.refuse(Failure::CursorTooLarge);
                String::new()
            }
        }
    }

    /// The cluster says that the node has failed, and that it is no primary any more.
    pub(crate) fn is_failed(&self, node: NodeId) -> bool {
        let place = self.list.get(node.at());
        let mut in_place =
            self.topology.snapshot.nodes.iter().filter(|n| n.state != NodeState::Failed);
        !self.placement.slots.primaries().contains(&node)
            && place.is_none_or(|place| in_place.all(|n| n.addr != place.addr))
    }

    /// The nodes that a command of client `index` goes to, and those that are missing.
    pub(crate) fn fan_targets_for(
        &mut self,
        (index, view): (usize, ViewId),
        to: Fan,
        core: &mut Core,
    ) -> Vec<Result<NodeId, MissingTarget>> {
        let view = core.router.view(view);
        let (keyless, upstreams) = (view.keyless(), view.upstreams());
        match (to, self.any_primary(index, keyless)) {
            (Fan::One, Some(node)) => vec![Ok(node)],
            (Fan::One, None) => {
                let own = keyless.keyless_of().unwrap_or_default();
                self.fan_targets([own].into_iter().collect(), to, core)
            }
            _ => self.fan_targets(upstreams, to, core),
        }
    }

    /// The nodes of these upstreams that a command for several goes to, and those that cannot be
    /// asked.
    pub(crate) fn fan_targets(
        &mut self,
        upstreams: UpstreamSet,
        to: Fan,
        core: &mut Core,
    ) -> Vec<Result<NodeId, MissingTarget>> {
        let snapshot = Arc::clone(&self.topology.snapshot);
        if matches!(to, Fan::Nodes | Fan::Answering | Fan::Reached) {
            let mut targets = Vec::with_capacity(snapshot.nodes.len());
            for node in snapshot.nodes.iter().filter(|node| upstreams.contains(node.upstream)) {
                let at = self.node_at(&node.addr, core);
                match to {
                    Fan::Reached if !self.is_reached(at) => {}
                    _ if node.state != NodeState::Failed || self.is_connected(at) => {
                        targets.push(Ok(at));
                    }
                    Fan::Nodes => targets.push(Err(MissingTarget::Failed(node.addr.clone()))),
                    _ => {}
                }
            }
            return targets;
        }
        let mut targets = Vec::new();
        let views = Arc::clone(core.router.views());
        let is_asked = |slot: Slot| upstreams.contains(views.map().upstream_of(slot));
        for (shard, first) in snapshot.shards.iter().zip(snapshot.first_slots()) {
            let Some(slot) = first.filter(|&slot| is_asked(slot)) else { continue };
            match shard.primary.and_then(|n| snapshot.nodes.get(usize::from(n))) {
                Some(node) => targets.push(Ok(self.node_at(&node.addr, core))),
                None => targets.push(Err(MissingTarget::Primary(slot))),
            }
        }
        let without_shard = snapshot.slots.iter().zip(snapshot.each_slot());
        let orphans =
            without_shard.filter(|(shard, slot)| **shard == NO_SHARD && is_asked(*slot)).count();
        if orphans > 0 {
            targets.push(Err(MissingTarget::Owners(orphans)));
        }
        if to == Fan::One {
            targets.truncate(1);
        }
        targets
    }
}
