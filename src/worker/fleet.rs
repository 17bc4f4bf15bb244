//! Commands that go to several nodes over dedicated connections: WAIT, MONITOR, SCRIPT KILL.

use super::state::{Base, Clients, Core, Nodes, Operations};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Worker;
use super::clock::{Job, Timer};
use super::downstream::Flow;
use super::retries::NO_PRIMARY_PAUSE;
use crate::client::{Client, Paused, Question, monitor_line};
use crate::cluster::NO_SLOT;
use crate::command::{CommandId, Flags};
use crate::dest::{ClientId, Dest};
use crate::ops::{Errand, Kind};
use crate::resp::Args;
use crate::route::{Merge, wait_time};
use crate::upstream::ConnectionEnd;

const MONITOR: &[u8] = b"*1\r\n$7\r\nMONITOR\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

impl Clients {
    /// A command over several connections is answered with an error. If it is MONITOR, no line may
    /// come after that: the client would take it for a reply.
    pub(super) fn fleet_failed(
        &mut self,
        client: ClientId,
        seq: u32,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let Some(errand) = self.errand(client.at()).filter(|e| e.seq == seq) else { return };
        let command = errand.command;
        if &*core.router.table().get(command).name != "monitor" {
            return;
        }
        let (mut heard, mut monitored) = (Vec::new(), false);
        self.lent_of(client, |lent| {
            monitored = std::mem::take(&mut lent.monitor);
            heard = std::mem::take(&mut lent.heard);
        });
        if monitored {
            core.shared.monitors.fetch_sub(1, Relaxed);
        }
        heard.into_iter().for_each(|u| self.close_dedicated(u, nodes, core));
    }

    /// That moment has come.
    pub(super) fn listen_again(&mut self, client: ClientId, nodes: &mut Nodes, core: &mut Core) {
        self.lent_of(client, |lent| lent.listens_again = false);
        let current = |c: &crate::client::Client| c.generation == client.generation;
        if self.slab.get(client.at()).is_some_and(current) {
            self.monitor_others(client.at(), nodes, core);
        }
    }

    /// Looks a moment later for primaries that the client does not hear; one timer for all.
    pub(super) fn monitor_later(&mut self, client: ClientId, core: &mut Core) {
        let mut first = false;
        self.lent_of(client, |lent| first = !std::mem::replace(&mut lent.listens_again, true));
        if first {
            let job = Job::Listen(client);
            core.clock.timers.push(Timer { due: core.now + NO_PRIMARY_PAUSE, job });
        }
    }

    /// Tells those who MONITOR, at all workers, of a command that slotway answers itself: no node
    /// sees it.
    /// With `waits` the client's next command waits until all have the line, so that it stands
    /// before what nodes show of that one.
    pub(super) fn show_to_monitors(
        &mut self,
        index: usize,
        command: CommandId,
        args: &Args,
        waits: bool,
        core: &mut Core,
    ) {
        let spec = core.router.table().get(command);
        let Some(client) = self.slab.get(index) else { return };
        if spec.flags.contains(Flags::SKIP_MONITOR) {
            return;
        }
        // A clock before 1970 is no reason to say nothing.
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = monitor_line(at, &client.addresses().0, args);
        if waits && let Some(client) = self.slab.get_mut(index) {
            client.paused = Paused::Command;
        }
        let question = Question::Show { line: line.into(), waits };
        self.ask_for(index, command, question, Dest::Discard, core);
    }

    /// A line for this worker's clients that MONITOR.
    pub(super) fn monitored_elsewhere(&mut self, line: &[u8], core: &mut Core) {
        let watches = |c: &Client| c.lent.as_ref().is_some_and(|l| l.monitor);
        let watching: Vec<usize> =
            self.slab.iter().filter(|(_, c)| watches(c)).map(|(i, _)| i).collect();
        for index in watching {
            self.answer_plain(index, line, core);
        }
    }

    /// Connections for MONITOR to the primaries that this client does not hear.
    pub(super) fn monitor_others(&mut self, index: usize, nodes: &mut Nodes, core: &mut Core) {
        let Some(client) = self.slab.get(index) else { return };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        let Some(lent) = client.lent.as_ref().filter(|l| l.monitor) else { return };
        let heard: Vec<u16> =
            lent.heard.iter().filter_map(|&u| nodes.upstreams.get(u)).map(|up| up.node).collect();
        for node in nodes.placement.slots.primaries().to_vec() {
            if heard.contains(&node) {
                continue;
            }
            match self.lend(node, protocol, me, nodes, core) {
                Ok(u) => {
                    self.lent(index, |lent| lent.heard.push(u));
                    nodes.discard(u, MONITOR, core);
                }
                Err(_) => self.monitor_later(me, core),
            }
        }
    }

    /// Something that nobody asked for: a line of MONITOR.
    pub(super) fn monitored(
        &mut self,
        u: usize,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Result<(), ConnectionEnd> {
        let client = nodes.upstreams.get(u).and_then(|up| up.dedicated).and_then(|d| d.client);
        let Some(client) = client.filter(|&c| self.is_monitoring(c, u)) else {
            return Err(ConnectionEnd::UnexpectedReply);
        };
        if let Some(c) = self.slab.get_mut(client.at()) {
            c.answer(frame, &mut core.spare.pool, &mut core.spare.replies);
        }
        self.mark_client(client.at(), core);
        Ok(())
    }

    pub(super) fn is_monitoring(&self, client: ClientId, u: usize) -> bool {
        let c = self.slab.get(client.at()).filter(|c| c.generation == client.generation);
        let lent = c.and_then(|c| c.lent.as_ref());
        lent.is_some_and(|l| l.monitor && l.heard.contains(&u))
    }
}

impl Operations {
    /// Begins a command over several dedicated connections; gives its gathering.
    pub(super) fn start_fleet(
        &mut self,
        index: usize,
        command: CommandId,
        slot: u16,
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
        let mut errand = Errand::new(Kind::Fleet, command, slot, Vec::new(), core.now);
        errand.time = time;
        let to = clients.begin_errand(index, errand, own, core)?;
        let g = self.gathering_for(index, command, merge, to, clients, core)?;
        Some(g)
    }

    /// WAIT: at every primary that this client has written to, and the least of what they say.
    ///
    /// A node counts the replicas that have all the connection has written, and a fresh connection
    /// has written nothing. It notes its place in the replication stream after every command, so
    /// PING and then WAIT covers all writes that were acknowledged before.
    pub(super) fn wait(
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
        let of = |n: &&u16| wrote >> (**n & 63) & 1 == 1;
        let mut nodes: Vec<u16> =
            base.nodes.placement.slots.primaries().iter().filter(of).copied().collect();
        let known: u64 = nodes.iter().fold(0, |bits, n| bits | 1 << (n & 63));
        if wrote == 0 || known != wrote {
            // It has written nothing yet, or to a node that is no primary any more.
            nodes = base.nodes.placement.slots.primaries().to_vec();
        }
        let batch = [PING, frame].concat();
        self.send_fleet(index, command, nodes, Merge::Min, Some(args), (&batch, 1), base)
    }

    /// SCRIPT KILL and FUNCTION KILL: a node that runs a script too long reads no more from the
    /// connection that it came on, so it is told on another.
    ///
    /// Every node is asked, in whatever state: one that was failed over while its script runs is no
    /// primary any more, and counts as failed because the script keeps it from answering.
    pub(super) fn aside(
        &mut self,
        index: usize,
        command: CommandId,
        merge: Merge,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        let snapshot = Arc::clone(&base.nodes.topology.snapshot);
        let mut nodes = base.nodes.placement.slots.primaries().to_vec();
        for node in &snapshot.nodes {
            let node = base.nodes.node_at(&node.addr, base.core);
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        self.send_fleet(index, command, nodes, merge, None, (frame, 0), base)
    }

    /// Sends a command (with so many replies before the one that counts) to each of `nodes` on a
    /// connection of its own.
    fn send_fleet(
        &mut self,
        index: usize,
        command: CommandId,
        nodes: Vec<u16>,
        merge: Merge,
        args: Option<&Args>,
        (frame, before): (&[u8], u32),
        base: &mut Base<'_>,
    ) -> Flow {
        let Some(client) = base.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        if nodes.is_empty() {
            return base.clients.no_cluster(index, command, base.nodes, base.core);
        }
        let Some(g) =
            self.start_fleet(index, command, NO_SLOT, merge, args, base.clients, base.core)
        else {
            return Flow::Stop;
        };
        if let Some(gather) = self.merged(g) {
            nodes.iter().for_each(|_| gather.expect());
        }
        for node in nodes {
            let dest = Dest::Part { gather: g as u32, first: 0 };
            let mut pending = self.pending(
                dest,
                command,
                NO_SLOT,
                protocol,
                base.access,
                base.clients,
                base.core,
            );
            pending.before = before;
            match base.clients.lend(node, protocol, me, base.nodes, base.core) {
                Ok(u) => {
                    base.clients.lent(index, |lent| lent.fleet.push(u));
                    base.nodes.send(u, pending, frame, base.core);
                }
                Err(refused) => {
                    let name = base.nodes.list.get(usize::from(node)).map(|n| n.addr.to_string());
                    base.core.fail(&pending, &name.unwrap_or_default(), &refused.into());
                }
            }
        }
        Flow::Next
    }

    /// MONITOR: every primary's lines, in one stream, until the client goes.
    pub(super) fn monitor(
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
        let nodes = base.nodes.placement.slots.primaries().to_vec();
        if !nodes.is_empty() {
            base.core.shared.monitors.fetch_add(1, Relaxed);
            base.clients.lent(index, |lent| lent.monitor = true);
        }
        let flow =
            self.send_fleet(index, command, nodes, Merge::AllSucceeded, None, (MONITOR, 0), base);
        if let Some(lent) = base.clients.slab.get_mut(index).and_then(|c| c.lent.as_mut()) {
            lent.heard = std::mem::take(&mut lent.fleet);
        }
        flow
    }
}
