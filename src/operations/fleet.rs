//! Commands that need connections of their own to several nodes: WAIT, MONITOR.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::Base;
use crate::clients::monitors::MONITOR;
use crate::clients::{Clients, Flow};
use crate::cluster::Slot;
use crate::command::CommandId;
use crate::common::Core;
use crate::dest::{ClientId, Dest, NodeId};
use crate::nodes::silence::PING;
use crate::operations::Operations;
use crate::ops::{Errand, ErrandKind};
use crate::resp::Args;
use crate::route::{Merge, wait_time};

/// Commands that need connections of their own to several nodes.
pub(crate) struct Fleets<'a> {
    ops: &'a mut Operations,
}

impl Operations {
    /// The methods about commands with connections of their own to several nodes.
    #[inline]
    pub(crate) fn fleets(&mut self) -> Fleets<'_> {
        Fleets { ops: self }
    }
}

impl Fleets<'_> {
    /// Begins a command over several dedicated connections; gives its gathering.
    #[allow(clippy::too_many_arguments)] // the parts that it works with, each borrowed
    pub(crate) fn start(
        &mut self,
        index: usize,
        command: CommandId,
        slot: Slot,
        merge: Merge,
        args: Option<&Args>,
        clients: &mut Clients,
        core: &mut Core,
    ) -> Option<usize> {
        let time = args.and_then(wait_time);
        let own = match (args, time) {
            (Some(_), Some(time)) => time.micros,
            _ => Some(0),
        };
        let mut errand = Errand::new(ErrandKind::Fleet, command, slot, Vec::new(), core.now);
        errand.time = time;
        let to = clients.errands().begin(index, errand, own, core)?;
        let g = self.ops.gatherings.begin_for(index, command, merge, to, clients, core)?;
        Some(g)
    }

    /// WAIT: at every primary that this client has written to, and the least of what they say.
    ///
    /// A node counts the replicas that have all the connection has written, and a fresh connection
    /// has written nothing. It notes its place in the replication stream after every command, so
    /// PING and then WAIT covers all writes that were acknowledged before.
    pub(crate) fn wait(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        args: &Args,
        base: &mut Base<'_>,
    ) -> Flow {
        let Some(client) = base.clients.slab.get(index) else { return Flow::Stop };
        if !client.is_drained() {
            return base.clients.pause_until_replied(index, base.core);
        }
        let wrote = client.wrote;
        let of = |n: &NodeId| wrote & n.bit() != 0;
        let upstreams = base.core.router.view(base.clients.view_of(index)).upstreams();
        let mut nodes: Vec<NodeId> = base.nodes.primaries_of(upstreams).filter(of).collect();
        let known: u64 = nodes.iter().fold(0, |bits, n| bits | n.bit());
        if wrote == 0 || known != wrote {
            // It has written nothing yet, or to a node that is no primary any more.
            nodes = base.nodes.primaries_of(upstreams).collect();
        }
        let batch = [PING, frame].concat();
        self.send(index, command, nodes, Merge::Min, Some(args), (&batch, 1), base)
    }

    /// SCRIPT KILL and FUNCTION KILL: a node that runs a script too long reads no more from the
    /// connection that it came on, so it is told on another.
    ///
    /// Every node is asked, in whatever state: one that was failed over while its script runs is no
    /// primary any more, and counts as failed because the script keeps it from answering.
    pub(crate) fn aside(
        &mut self,
        index: usize,
        command: CommandId,
        merge: Merge,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        let snapshot = Arc::clone(&base.nodes.topology.snapshot);
        let upstreams = base.core.router.view(base.clients.view_of(index)).upstreams();
        let mut nodes: Vec<NodeId> = base.nodes.primaries_of(upstreams).collect();
        for node in snapshot.nodes.iter().filter(|node| upstreams.contains(node.upstream)) {
            let node = base.nodes.node_at(&node.addr, base.core);
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        self.send(index, command, nodes, merge, None, (frame, 0), base)
    }

    /// Sends a command (with so many replies before the one that counts) to each of `nodes` on a
    /// connection of its own.
    #[allow(clippy::too_many_arguments)] // the parts that it works with, each borrowed
    fn send(
        &mut self,
        index: usize,
        command: CommandId,
        nodes: Vec<NodeId>,
        merge: Merge,
        args: Option<&Args>,
        (frame, before): (&[u8], u32),
        base: &mut Base<'_>,
    ) -> Flow {
        let Some(client) = base.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        if nodes.is_empty() {
            return base.clients.refusals().no_cluster(index, command, base.nodes, base.core);
        }
        let Some(g) = self.start(index, command, Slot::NONE, merge, args, base.clients, base.core)
        else {
            return Flow::Stop;
        };
        if let Some(gather) = self.ops.gatherings.merged(g) {
            nodes.iter().for_each(|_| gather.expect());
        }
        for node in nodes {
            let dest = Dest::Part { gather: g as u32, first: 0 };
            let mut pending = self.ops.pending(
                dest,
                command,
                Slot::NONE,
                protocol,
                base.access,
                base.clients,
                base.core,
            );
            pending.before = before;
            match base.clients.lending().lend(node, protocol, me, base.nodes, base.core) {
                Ok(conn) => {
                    base.clients.lending().lent(index, |lent| lent.fleet.push(conn));
                    base.nodes.send(conn, pending, frame, base.core);
                }
                Err(refused) => {
                    let name = base.nodes.list.get(node.at()).map(|n| n.addr.to_string());
                    base.core.fail(&pending, &name.unwrap_or_default(), &refused.into());
                }
            }
        }
        Flow::Next
    }

    /// MONITOR: every primary's lines, in one stream, until the client goes.
    pub(crate) fn monitor(
        &mut self,
        index: usize,
        command: CommandId,
        base: &mut Base<'_>,
    ) -> Flow {
        let Some(client) = base.clients.slab.get(index) else { return Flow::Stop };
        if !client.is_drained() {
            return base.clients.pause_until_replied(index, base.core);
        }
        if client.lent.as_ref().is_some_and(|l| l.monitor) {
            base.clients.answer_own(index, command, b"+OK\r\n", base.core);
            return Flow::Next;
        }
        let upstreams = base.core.router.view(base.clients.view_of(index)).upstreams();
        let nodes: Vec<NodeId> = base.nodes.primaries_of(upstreams).collect();
        if !nodes.is_empty() {
            base.core.shared.monitors.fetch_add(1, Relaxed);
            base.clients.lending().lent(index, |lent| lent.monitor = true);
        }
        let flow = self.send(index, command, nodes, Merge::AllSucceeded, None, (MONITOR, 0), base);
        if let Some(lent) = base.clients.slab.get_mut(index).and_then(|c| c.lent.as_mut()) {
            lent.heard = std::mem::take(&mut lent.fleet);
        }
        flow
    }
}
