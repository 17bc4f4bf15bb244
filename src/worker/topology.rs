//! A new snapshot becomes routes, and what was on its way to the wrong node goes to the right one.

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

impl Worker {
    pub(super) fn set_topology(&mut self, snapshot: Arc<Snapshot>) {
        for node in &mut self.nodes {
            node.known = snapshot.nodes.iter().any(|n| n.addr == node.addr);
        }
        let mut by_snapshot = Vec::with_capacity(snapshot.nodes.len());
        for node in &snapshot.nodes {
            let i = self.node_at(&node.addr);
            if let Some(mine) = self.nodes.get_mut(usize::from(i)) {
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
        let is_news = |slot| named(&self.topology.snapshot, slot) != named(&snapshot, slot);
        let unreached = |node| unreached_since(&self.nodes, node);
        self.placement.slots.set_owners(owners, primaries, self.now, is_news, unreached);
        self.topology.snapshot = snapshot;
        self.note_shards();
        self.set_readable();
        self.leave_failed_shared();
        self.follow_up();
        self.hold_overtaken();
        self.placement.slots.set_routes();
        self.redirect_unsent();
        for slot in self.placement.slots.holds.slots() {
            for lane in self.placement.slots.holds.lanes(slot) {
                self.run_lane(slot, lane);
            }
        }
        self.leave_failed();
        let all: Vec<usize> = self.upstreams.iter().map(|(u, _)| u).collect();
        for u in all {
            self.retire(u);
        }
        let monitoring = |c: &crate::client::Client| c.lent.as_ref().is_some_and(|l| l.monitor);
        let monitors: Vec<usize> =
            self.clients.iter().filter(|(_, c)| monitoring(c)).map(|(i, _)| i).collect();
        monitors.into_iter().for_each(|i| self.monitor_others(i));
        // Nodes whose names were not resolved, or that were down, are tried by their timers.
        self.arm_tick();
        self.say_to_hub(ToHub::Follows {
            worker: self.link.index,
            generation: self.topology.snapshot.generation,
        });
    }

    /// Slots that moved while commands for them are on the wire to the old node: later commands
    /// must not reach the new node before those are answered.
    fn hold_overtaken(&mut self) {
        let mut slots = Vec::new();
        for (_, up) in self.upstreams.iter().filter(|(_, up)| up.is_ordered()) {
            let mut written = up.queue.sent();
            for pending in up.pending.iter() {
                if written == 0 {
                    break;
                }
                written = written.saturating_sub(pending.len as usize);
                let owner = self.placement.slots.owner(pending.slot);
                let moved = owner.is_some_and(|owner| owner != up.node);
                if moved && !pending.has(flag::LANE) && pending.dest != Dest::Discard {
                    slots.push(pending.slot);
                }
            }
        }
        self.hold_slots(slots);
    }

    /// Commands that were not sent, for slots that another node owns now, or for any node while
    /// theirs is not reached.
    fn redirect_unsent(&mut self) {
        let all: Vec<usize> = self.upstreams.iter().map(|(u, _)| u).collect();
        for u in all {
            let node = self.upstreams.get(u).map(|up| up.node);
            let superseded = node.is_some_and(|node| self.is_superseded(node));
            let deposed = node.is_some_and(|node| self.is_deposed(node));
            let (slot_table, router) = (&self.placement.slots, &self.router);
            let Some(up) = self.upstreams.get_mut(u) else { continue };
            if up.dedicated.is_some() {
                continue;
            }
            let node = up.node;
            let known = self.nodes.get(usize::from(node)).is_some_and(|n| n.known);
            if up.read_only {
                if !known {
                    self.leave_replica(u);
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
            let taken = up.take_unsent(&mut self.spare.pool, |p| leaves_queue(target(p), standing));
            if !taken.is_empty() {
                self.mark_upstream(u);
            }
            for (mut pending, frame) in taken {
                let lane = self.lane_of(&pending);
                self.count_retry(RetryReason::Topology);
                if pending.has(flag::NODE_BOUND) {
                    self.bind_to_shard(node, &mut pending);
                }
                let slot = pending.slot;
                if pending.has(flag::NODE_BOUND) {
                    let name = self.nodes.get(usize::from(node)).map(|n| n.addr.to_string());
                    self.fail(&pending, &name.unwrap_or_default(), &Failure::NodeFailed);
                } else if slot == NO_SLOT {
                    let node = match super::publish::is_lone_publish(&pending) {
                        true => self.publish_node_of(&frame),
                        false => self.any_primary(lane.at()),
                    };
                    match node {
                        Some(other) => self.send_to(other, pending, frame, lane.index),
                        None => self.fail(&pending, "a node", &Failure::NoPrimary),
                    }
                } else if self.placement.slots.holds.contains(slot) {
                    let (from_lane, tracked) =
                        (pending.has(flag::LANE), pending.has(flag::TRACKED));
                    pending.flags &= !flag::SPECIAL;
                    let held = Held { meta: Waiting { pending, lane }, frame };
                    if from_lane {
                        self.placement.slots.holds.push_back_again(slot, lane, held, 0);
                    } else {
                        if tracked {
                            self.placement.slots.holds.untrack(slot, lane);
                        }
                        self.placement.slots.holds.push_unsent(slot, lane, held);
                    }
                } else if let Some(owner) = self.placement.slots.owner(slot) {
                    self.send_to(owner, pending, frame, lane.index);
                }
            }
        }
    }

    /// Shared connections to nodes that have failed are given up before anything is sent elsewhere:
    /// what was sent and not answered will not be any more, and need not wait for its deadline.
    fn leave_failed_shared(&mut self) {
        let owing = |up: &Upstream| {
            up.dedicated.is_none() && up.state == State::Ready && !up.pending.is_empty()
        };
        let owing =
            self.upstreams.iter().filter(|(_, up)| owing(up) && self.is_superseded(up.node));
        for u in owing.map(|(u, _)| u).collect::<Vec<_>>() {
            self.lose(u, ConnectionEnd::NodeFailed);
        }
    }

    /// The cluster says that the node has failed, and that it is no primary any more.
    pub(super) fn is_failed(&self, node: u16) -> bool {
        let place = self.nodes.get(usize::from(node));
        let mut in_place =
            self.topology.snapshot.nodes.iter().filter(|n| n.state != NodeState::Failed);
        !self.placement.slots.primaries().contains(&node)
            && place.is_none_or(|place| in_place.all(|n| n.addr != place.addr))
    }

    /// What is lent at a node that has failed and is no primary any more. A node that is frozen or
    /// cut off does not close its connections, and who is blocked there for ever would wait for as
    /// long, while the slot's new primary gets what he waits for.
    fn leave_failed(&mut self) {
        let lent = self
            .upstreams
            .iter()
            .filter(|(_, up)| up.dedicated.is_some_and(|d| d.client.is_some()))
            // What ends a script has to get through to just such a node.
            .filter(|(_, up)| !up.pending.front().is_some_and(|p| self.router.is_aside(p.command)))
            .filter(|(_, up)| self.is_failed(up.node));
        for u in lent.map(|(u, _)| u).collect::<Vec<_>>() {
            self.dedicated_lost(u, &ConnectionEnd::NodeFailed);
        }
    }

    /// Forgets a connection whose node has left the cluster, or that was set aside, once nothing
    /// waits for it. `true`: it is gone.
    pub(super) fn retire(&mut self, u: usize) -> bool {
        let Some(up) = self.upstreams.get_mut(u) else { return true };
        let node = usize::from(up.node);
        let known = self.nodes.get(node).is_none_or(|n| n.known);
        if let Some(dedicated) = up.dedicated {
            if !known && dedicated.client.is_none() {
                self.close_dedicated(u);
            }
            return false;
        }
        let wanted = known && !up.aside && (!up.bulk || self.shared.has_bulk_connections());
        if wanted || !up.pending.is_empty() {
            return false;
        }
        self.remove_upstream(u);
        true
    }

    /// The nodes that a command of client `index` goes to, and those that are missing.
    pub(super) fn fan_targets_for(
        &mut self,
        index: usize,
        to: Fan,
    ) -> Vec<Result<u16, MissingTarget>> {
        match (to, self.any_primary(index)) {
            (Fan::One, Some(node)) => vec![Ok(node)],
            _ => self.fan_targets(to),
        }
    }

    /// The nodes that a command for several goes to, and those that cannot be asked.
    pub(super) fn fan_targets(&mut self, to: Fan) -> Vec<Result<u16, MissingTarget>> {
        let snapshot = Arc::clone(&self.topology.snapshot);
        if matches!(to, Fan::Nodes | Fan::Answering | Fan::Reached) {
            let mut targets = Vec::with_capacity(snapshot.nodes.len());
            for node in &snapshot.nodes {
                let at = self.node_at(&node.addr);
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
                Some(node) => targets.push(Ok(self.node_at(&node.addr))),
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
