//! A new snapshot becomes routes, and what was on its way to the wrong node goes to the right one.

use super::state::base;
use super::state::{Base, Core, Nodes, Operations};
use std::sync::Arc;

use super::Worker;
use super::retries::unreached_since;
use super::shards::MissingTarget;
use crate::cluster::{NO_SHARD, NO_SLOT, NodeState, Slot, Snapshot};
use crate::dest::Dest;
use crate::errors::Failure;
use crate::mailbox::ToHub;
use crate::metrics::RetryReason;
use crate::placement::{Held, Standing, Target, leaves_queue};
use crate::route::{Fan, flag};
use crate::upstream::{ConnectionEnd, Pending, State, Upstream, Waiting};

impl Nodes {
    /// Shared connections to nodes that have failed are given up before anything is sent elsewhere:
    /// what was sent and not answered will not be any more, and need not wait for its deadline.
    fn leave_failed_shared(&mut self, core: &mut Core) {
        let owing = |up: &Upstream| {
            up.dedicated.is_none() && up.state == State::Ready && !up.pending.is_empty()
        };
        let owing =
            self.upstreams.iter().filter(|(_, up)| owing(up) && self.is_superseded(up.node));
        for u in owing.map(|(u, _)| u).collect::<Vec<_>>() {
            core.lose(u, ConnectionEnd::NodeFailed);
        }
    }

    /// The cluster says that the node has failed, and that it is no primary any more.
    pub(super) fn is_failed(&self, node: u16) -> bool {
        let place = self.list.get(usize::from(node));
        let mut in_place =
            self.topology.snapshot.nodes.iter().filter(|n| n.state != NodeState::Failed);
        !self.placement.slots.primaries().contains(&node)
            && place.is_none_or(|place| in_place.all(|n| n.addr != place.addr))
    }

    /// The nodes that a command of client `index` goes to, and those that are missing.
    pub(super) fn fan_targets_for(
        &mut self,
        index: usize,
        to: Fan,
        core: &mut Core,
    ) -> Vec<Result<u16, MissingTarget>> {
        match (to, self.any_primary(index)) {
            (Fan::One, Some(node)) => vec![Ok(node)],
            _ => self.fan_targets(to, core),
        }
    }

    /// The nodes that a command for several goes to, and those that cannot be asked.
    pub(super) fn fan_targets(
        &mut self,
        to: Fan,
        core: &mut Core,
    ) -> Vec<Result<u16, MissingTarget>> {
        let snapshot = Arc::clone(&self.topology.snapshot);
        if matches!(to, Fan::Nodes | Fan::Answering | Fan::Reached) {
            let mut targets = Vec::with_capacity(snapshot.nodes.len());
            for node in &snapshot.nodes {
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
        let owning = snapshot.shards.iter().zip(snapshot.shards_with_slots()).enumerate();
        for (i, (shard, _)) in owning.filter(|(_, (_, owns))| *owns) {
            match shard.primary.and_then(|n| snapshot.nodes.get(usize::from(n))) {
                Some(node) => targets.push(Ok(self.node_at(&node.addr, core))),
                None => {
                    let owned = |&(_, s): &(usize, &u16)| usize::from(*s) == i;
                    let first = snapshot.slots.iter().enumerate().find(owned);
                    if let Some((slot, _)) = first {
                        targets.push(Err(MissingTarget::Primary(slot as u16)));
                    }
                }
            }
        }
        let orphans = snapshot.slots.iter().filter(|&&s| s == NO_SHARD).count();
        if orphans > 0 {
            targets.push(Err(MissingTarget::Owners(orphans)));
        }
        if to == Fan::One {
            targets.truncate(1);
        }
        targets
    }
}

impl Base<'_> {
    /// Forgets a connection whose node has left the cluster, or that was set aside, once nothing
    /// waits for it. `true`: it is gone.
    pub(super) fn retire(&mut self, u: usize) -> bool {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return true };
        let node = usize::from(up.node);
        let known = self.nodes.list.get(node).is_none_or(|n| n.known);
        if let Some(dedicated) = up.dedicated {
            if !known && dedicated.client.is_none() {
                self.clients.close_dedicated(u, self.nodes, self.core);
            }
            return false;
        }
        let wanted = known && !up.aside && (!up.bulk || self.core.shared.has_bulk_connections());
        if wanted || !up.pending.is_empty() {
            return false;
        }
        self.access.remove_upstream(u, self.nodes, self.core);
        true
    }
}

impl Operations {
    /// Slots that moved while commands for them are on the wire to the old node: later commands
    /// must not reach the new node before those are answered.
    fn hold_overtaken(&mut self, nodes: &mut Nodes, core: &mut Core) {
        let mut slots = Vec::new();
        for (_, up) in nodes.upstreams.iter().filter(|(_, up)| up.is_ordered()) {
            let mut written = up.queue.sent();
            for pending in up.pending.iter() {
                if written == 0 {
                    break;
                }
                written = written.saturating_sub(pending.len as usize);
                let owner = nodes.placement.slots.owner(pending.slot);
                let moved = owner.is_some_and(|owner| owner != up.node);
                if moved && !pending.has(flag::LANE) && pending.dest != Dest::Discard {
                    slots.push(pending.slot);
                }
            }
        }
        self.hold_slots(slots, nodes, core);
    }

    /// Commands that were not sent, for slots that another node owns now, or for any node while
    /// theirs is not reached.
    fn redirect_unsent(&mut self, base: &mut Base<'_>) {
        let all: Vec<usize> = base.nodes.upstreams.iter().map(|(u, _)| u).collect();
        for u in all {
            let node = base.nodes.upstreams.get(u).map(|up| up.node);
            let superseded = node.is_some_and(|node| base.nodes.is_superseded(node));
            let deposed = node.is_some_and(|node| base.nodes.is_deposed(node));
            let (slot_table, router) = (&base.nodes.placement.slots, &base.core.router);
            let Some(up) = base.nodes.upstreams.get_mut(u) else { continue };
            if up.dedicated.is_some() {
                continue;
            }
            let node = up.node;
            let known = base.nodes.list.get(usize::from(node)).is_some_and(|n| n.known);
            if up.read_only {
                if !known {
                    self.leave_replica(u, base);
                }
                continue;
            }
            let reachable = known && up.state != State::Backoff && !up.suspect;
            let standing = Standing { known, reachable, superseded, deposed };
            let target = |p: &Pending| match p.slot {
                _ if p.dest == Dest::Discard => Target::Nobody,
                NO_SLOT if !p.has(flag::NODE_BOUND) => Target::Any,
                NO_SLOT if router.is_for_shards(p.command) => Target::Shard,
                NO_SLOT => Target::Node,
                slot => {
                    let elsewhere = slot_table.owner(slot).is_some_and(|owner| owner != node);
                    Target::Owner { elsewhere, asking: p.has(flag::ASKING) }
                }
            };
            let taken =
                up.take_unsent(&mut base.core.spare.pool, |p| leaves_queue(target(p), standing));
            if !taken.is_empty() {
                base.nodes.mark_upstream(u, base.core);
            }
            for (mut pending, frame) in taken {
                let lane = self.lane_of(&pending);
                base.core.count_retry(RetryReason::Topology);
                if pending.has(flag::NODE_BOUND) {
                    base.nodes.bind_to_shard(node, &mut pending, base.core);
                }
                let slot = pending.slot;
                if pending.has(flag::NODE_BOUND) {
                    let name = base.nodes.list.get(usize::from(node)).map(|n| n.addr.to_string());
                    base.core.fail(&pending, &name.unwrap_or_default(), &Failure::NodeFailed);
                } else if slot == NO_SLOT {
                    let node = match super::publish::is_lone_publish(&pending) {
                        true => base.subscribers.publish_node_of(&frame, base.nodes, base.core),
                        false => base.nodes.any_primary(lane.at()),
                    };
                    match node {
                        Some(other) => base.send_to(other, pending, frame, lane.index),
                        None => base.core.fail(&pending, "a node", &Failure::NoPrimary),
                    }
                } else if base.nodes.placement.slots.holds.contains(slot) {
                    let (from_lane, tracked) =
                        (pending.has(flag::LANE), pending.has(flag::TRACKED));
                    pending.flags &= !flag::SPECIAL;
                    let held = Held { meta: Waiting { pending, lane }, frame };
                    if from_lane {
                        base.nodes.placement.slots.holds.push_back_again(slot, lane, held, 0);
                    } else {
                        if tracked {
                            base.nodes.placement.slots.holds.untrack(slot, lane);
                        }
                        base.nodes.placement.slots.holds.push_unsent(slot, lane, held);
                    }
                } else if let Some(owner) = base.nodes.placement.slots.owner(slot) {
                    base.send_to(owner, pending, frame, lane.index);
                }
            }
        }
    }
}

impl Worker {
    pub(super) fn set_topology(&mut self, snapshot: Arc<Snapshot>) {
        for node in &mut self.nodes.list {
            node.known = snapshot.nodes.iter().any(|n| n.addr == node.addr);
        }
        let mut by_snapshot = Vec::with_capacity(snapshot.nodes.len());
        for node in &snapshot.nodes {
            let i = self.nodes.node_at(&node.addr, &mut self.core);
            if let Some(mine) = self.nodes.list.get_mut(usize::from(i)) {
                mine.known = true;
                mine.socket = node.socket.or(mine.socket);
                if mine.id != node.id {
                    mine.id = node.id.clone();
                }
                if *mine.name != *node.server_name() {
                    mine.name = node.server_name().into();
                }
            }
            by_snapshot.push(i);
        }
        let primary = |shard: &crate::cluster::Shard| {
            shard.primary.and_then(|n| by_snapshot.get(usize::from(n)).copied())
        };
        let owning = snapshot.shards.iter().zip(snapshot.shards_with_slots());
        let owning = owning.filter(|(_, owns)| *owns).map(|(shard, _)| shard);
        let primaries = owning.filter_map(primary).collect();
        let shard_of = |&shard: &u16| snapshot.shards.get(usize::from(shard));
        let owners = snapshot.slots.iter().map(|shard| shard_of(shard).and_then(primary));
        // A probe is free where another topology names another primary; not where only a redirection
        // had, or nodes that redirect in circles would be asked anew each time.
        let named = |snapshot: &Snapshot, slot| {
            snapshot.primary_of(Slot(slot)).map(|node| node.addr.clone())
        };
        let is_news = |slot| named(&self.nodes.topology.snapshot, slot) != named(&snapshot, slot);
        let unreached = |node| unreached_since(&self.nodes.list, node);
        self.nodes.placement.slots.set_owners(owners, primaries, self.core.now, is_news, unreached);
        self.nodes.topology.snapshot = snapshot;
        self.nodes.note_shards(&mut self.core);
        self.nodes.set_readable(&mut self.core);
        self.nodes.leave_failed_shared(&mut self.core);
        self.follow_up();
        self.ops.hold_overtaken(&mut self.nodes, &mut self.core);
        self.nodes.placement.slots.set_routes();
        self.ops.redirect_unsent(&mut base!(self));
        for slot in self.nodes.placement.slots.holds.slots() {
            for lane in self.nodes.placement.slots.holds.lanes(slot) {
                self.core.run_lane(slot, lane);
            }
        }
        self.leave_failed();
        let all: Vec<usize> = self.nodes.upstreams.iter().map(|(u, _)| u).collect();
        for u in all {
            base!(self).retire(u);
        }
        let monitoring = |c: &crate::client::Client| c.lent.as_ref().is_some_and(|l| l.monitor);
        let monitors: Vec<usize> =
            self.clients.slab.iter().filter(|(_, c)| monitoring(c)).map(|(i, _)| i).collect();
        monitors
            .into_iter()
            .for_each(|i| self.clients.monitor_others(i, &mut self.nodes, &mut self.core));
        // Nodes whose names were not resolved, or that were down, are tried by their timers.
        self.core.arm_tick();
        self.core.say_to_hub(ToHub::Follows {
            worker: self.core.link.index,
            generation: self.nodes.topology.snapshot.generation,
        });
    }

    /// What is lent at a node that has failed and is no primary any more. A node that is frozen or
    /// cut off does not close its connections, and who is blocked there for ever would wait for as
    /// long, while the slot's new primary gets what he waits for.
    fn leave_failed(&mut self) {
        let lent = self
            .nodes
            .upstreams
            .iter()
            .filter(|(_, up)| up.dedicated.is_some_and(|d| d.client.is_some()))
            // What ends a script has to get through to just such a node.
            .filter(|(_, up)| {
                !up.pending.front().is_some_and(|p| self.core.router.is_aside(p.command))
            })
            .filter(|(_, up)| self.nodes.is_failed(up.node));
        for u in lent.map(|(u, _)| u).collect::<Vec<_>>() {
            self.dedicated_lost(u, &ConnectionEnd::NodeFailed);
        }
    }
}
