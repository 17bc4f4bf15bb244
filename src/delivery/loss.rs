//! A shared connection to a node is lost: its commands are answered, or wait for the next one
//! (`Upstream::lost` decides which, by the retry policy), and when the next attempt is made.

use crate::base::{Base, base};
use crate::cluster::NodeAddr;
use crate::common::clock::{Job, Timer};
use crate::delivery::Delivery;
use crate::errors::Failure;
use crate::mailbox::ToControl;
use crate::sparsely;
use crate::subscribers::publish;
use crate::upstream::{ConnectionEnd, ConnectionState};

/// A connection that lived so long has proven that the node can be worked with, microseconds.
const PROVEN: u64 = 1_000_000;

/// And one that lived so long and was answered on, that it need not be left alone for longer and
/// longer: something closes connections, now and then.
const USEFUL: u64 = 100_000;

/// Where it was answered on at all, the pause grows no further than after so many failures.
const ANSWERED: u32 = 4;

impl Delivery<'_> {
    /// The connection is gone or could not be made: what may be sent again waits for the next
    /// one, the rest is answered now.
    pub(super) fn connection_lost(&mut self, u: usize, why: ConnectionEnd) {
        let Some(up) = self.engine.nodes.upstreams.get_mut(u) else { return };
        if up.dedicated.is_some() {
            return self.dedicated_lost(u, &why);
        }
        let was_ready = up.state == ConnectionState::Ready;
        let lived = self.engine.core.now.saturating_sub(up.ready_since);
        let proven = was_ready && lived >= PROVEN;
        let answered = was_ready && up.last_read > up.ready_since;
        if proven || (answered && lived >= USEFUL) {
            up.failures = 0;
        }
        if let Some(stream) = up.stream.as_mut() {
            stream.unwatch(self.engine.core.link.poll.registry());
        }
        self.engine.clients.deliveries().abandon_arriving(
            u,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
        let pending = self.engine.nodes.upstreams.get(u).map(|up| up.pending.iter());
        let clients = pending
            .into_iter()
            .flatten()
            .map(|pending| self.engine.ops.gatherings.lane_of(pending));
        let clients: Vec<_> = clients.collect();
        let Some(up) = self.engine.nodes.upstreams.get_mut(u) else { return };
        let given_up = up.lost(&mut self.engine.core.spare.pool, &clients);
        up.failures = up.failures.saturating_add(1);
        if answered {
            // Nor does it where the next attempt fails, so that it begins from here.
            up.failures = up.failures.min(ANSWERED);
        }
        up.state = ConnectionState::Backoff;
        self.engine.subscribers.stranded |= up.pending.iter().any(publish::is_lone_publish);
        let (node, failures) = (up.node, up.failures);
        let repeated = up.pending.iter().any(|p| p.tries > 1);
        if let Some(node) =
            self.engine.nodes.list.get_mut(node.at()).filter(|n| n.unreached_since == 0)
        {
            node.unreached_since = self.engine.core.now;
        }
        let addr = self.engine.nodes.list.get(node.at()).map(|n| n.addr.clone());
        if let Some(stats) = self.engine.core.stats.nodes.get_mut(node.at()) {
            stats.failures += 1;
        }
        if was_ready || failures == 1 {
            let node = addr.as_ref().map(NodeAddr::to_string);
            let in_flight = given_up.len();
            sparsely!(self.engine.core.lines.lost, warn, node, %why, in_flight, "a node's connection is lost");
        }
        let name = addr.map_or_else(|| "a node".to_owned(), |a| a.to_string());
        let failure =
            Failure::ConnectionLost { node: name.as_str().into(), why: why.to_string().into() };
        if let Some(up) = self.engine.nodes.upstreams.get_mut(u) {
            up.last_error = Some(why);
        }
        for pending in given_up {
            self.engine.core.stats.outcome_unknown += 1;
            self.engine.core.fail(&pending, &name, &failure);
        }
        self.engine.nodes.loads_without(u, &name, &mut self.engine.core);
        self.engine.ops.resends().leave_replica(u, &mut base!(self.engine));
        // Control may be gone at the very end: nothing to refresh then.
        let _ = self.engine.core.link.control.send(ToControl::RefreshTopology { hint: None });
        // A connection that has worked for a while is tried again at once.
        let mut delay =
            if proven { 0 } else { self.engine.core.settings.reconnect.pause(failures) };
        // Reads that would be sent for the third time, or more often, are retries. They keep their
        // places in the connection's queue, so that the connection waits for the budget; then one
        // command probes, and the others follow as the node answers.
        if let Some(up) = self.engine.nodes.upstreams.get_mut(u) {
            up.window = usize::from(repeated);
        }
        if repeated {
            self.engine.nodes.placement.retries.budget.take(1);
            if !self.engine.nodes.placement.retries.budget.has() {
                delay = delay.max(self.engine.nodes.placement.retries.budget.wait());
            }
        }
        self.engine
            .core
            .clock
            .timers
            .push(Timer { due: self.engine.core.now + delay, job: Job::Connect(u) });
        self.engine.core.arm_tick();
        self.engine.nodes.mark_upstream(u, &mut self.engine.core);
    }
}
