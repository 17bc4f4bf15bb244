//! Clients that MONITOR, and what they are shown.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::{Client, Paused, Question, monitor_line};
use crate::clients::Clients;
use crate::clients::errands::NO_PRIMARY_PAUSE;
use crate::command::{CommandId, Flags};
use crate::common::Core;
use crate::common::clock::{Job, Timer};
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::nodes::Nodes;
use crate::resp::Args;
use crate::upstream::ConnectionEnd;

pub(crate) const MONITOR: &[u8] = b"*1\r\n$7\r\nMONITOR\r\n";

/// The clients that MONITOR.
pub(crate) struct Monitors<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The clients that MONITOR.
    pub(crate) fn monitors(&mut self) -> Monitors<'_> {
        Monitors { clients: self }
    }
}

impl Monitors<'_> {
    /// A command over several connections is answered with an error. If it is MONITOR, no line may
    /// come after that: the client would take it for a reply.
    pub(crate) fn fleet_failed(
        &mut self,
        client: ClientId,
        seq: u32,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let Some(errand) = self.clients.errands().of(client.at()).filter(|e| e.seq == seq) else {
            return;
        };
        let command = errand.command;
        if &*core.router.table().get(command).name != "monitor" {
            return;
        }
        let (mut heard, mut monitored) = (Vec::new(), false);
        self.clients.lending().lent_of(client, |lent| {
            monitored = std::mem::take(&mut lent.monitor);
            heard = std::mem::take(&mut lent.heard);
        });
        if monitored {
            core.shared.monitors.fetch_sub(1, Relaxed);
        }
        heard.into_iter().for_each(|conn| self.clients.lending().close(conn, nodes, core));
    }

    /// That moment has come.
    pub(crate) fn listen_again(&mut self, client: ClientId, nodes: &mut Nodes, core: &mut Core) {
        self.clients.lending().lent_of(client, |lent| lent.monitor_timer_set = false);
        let current = |c: &crate::client::Client| c.generation == client.generation;
        if self.clients.slab.get(client.at()).is_some_and(current) {
            self.listen_to_others(client.at(), nodes, core);
        }
    }

    /// Looks a moment later for primaries that the client does not hear; one timer for all.
    pub(crate) fn listen_later(&mut self, client: ClientId, core: &mut Core) {
        let mut first = false;
        self.clients
            .lending()
            .lent_of(client, |lent| first = !std::mem::replace(&mut lent.monitor_timer_set, true));
        if first {
            let job = Job::Listen(client);
            core.clock.timers.push(Timer { due: core.now + NO_PRIMARY_PAUSE, job });
        }
    }

    /// Tells those who MONITOR, at all workers, of a command that slotway answers itself: no node
    /// sees it.
    /// With `waits` the client's next command waits until all have the line, so that it stands
    /// before what nodes show of that one.
    pub(crate) fn show(
        &mut self,
        index: usize,
        command: CommandId,
        args: &Args,
        waits: bool,
        core: &mut Core,
    ) {
        let spec = core.router.table().get(command);
        let Some(client) = self.clients.slab.get(index) else { return };
        if spec.flags.contains(Flags::SKIP_MONITOR) {
            return;
        }
        // A clock before 1970 is no reason to say nothing.
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = monitor_line(at, &client.addresses().0, args);
        if waits && let Some(client) = self.clients.slab.get_mut(index) {
            client.paused = Paused::Command;
        }
        let question = Question::Show { line: line.into(), waits };
        self.clients.ask_for(index, command, question, Dest::Discard, core);
    }

    /// A line for this worker's clients that MONITOR.
    pub(crate) fn show_line(&mut self, line: &[u8], core: &mut Core) {
        let watches = |c: &Client| c.lent.as_ref().is_some_and(|l| l.monitor);
        let watching: Vec<usize> =
            self.clients.slab.iter().filter(|(_, c)| watches(c)).map(|(i, _)| i).collect();
        for index in watching {
            self.clients.answer_plain(index, line, core);
        }
    }

    /// Connections for MONITOR to the primaries that this client does not hear.
    pub(crate) fn listen_to_others(&mut self, index: usize, nodes: &mut Nodes, core: &mut Core) {
        let Some(client) = self.clients.slab.get(index) else { return };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        let Some(lent) = client.lent.as_ref().filter(|l| l.monitor) else { return };
        let heard: Vec<NodeId> = lent
            .heard
            .iter()
            .filter_map(|&conn| nodes.upstreams.get(conn))
            .map(|up| up.node)
            .collect();
        let upstreams = core.router.view(client.session.view).upstreams();
        for node in nodes.primaries_of(upstreams).collect::<Vec<_>>() {
            if heard.contains(&node) {
                continue;
            }
            match self.clients.lending().lend(node, protocol, me, nodes, core) {
                Ok(conn) => {
                    self.clients.lending().lent(index, |lent| lent.heard.push(conn));
                    nodes.discard(conn, MONITOR, core);
                }
                Err(_) => self.listen_later(me, core),
            }
        }
    }

    /// Something that nobody asked for: a line of MONITOR.
    pub(crate) fn hear(
        &mut self,
        conn: ConnId,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Result<(), ConnectionEnd> {
        let client = nodes.upstreams.get(conn).and_then(|up| up.dedicated).and_then(|d| d.client);
        let Some(client) = client.filter(|&c| self.has(c, conn)) else {
            return Err(ConnectionEnd::UnexpectedReply);
        };
        if let Some(c) = self.clients.slab.get_mut(client.at()) {
            c.answer(frame, &mut core.spare.pool, &mut core.spare.replies);
        }
        self.clients.mark_client(client.at(), core);
        Ok(())
    }

    /// Whether the client is shown what comes on connection `conn`.
    pub(crate) fn has(&self, client: ClientId, conn: ConnId) -> bool {
        let c = self.clients.slab.get(client.at()).filter(|c| c.generation == client.generation);
        let lent = c.and_then(|c| c.lent.as_ref());
        lent.is_some_and(|l| l.monitor && l.heard.contains(&conn))
    }
}
