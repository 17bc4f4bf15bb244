//! A shared connection to a node is lost: its commands are answered, or wait for the next one
//! (`Upstream::lost` decides which, by the retry policy), and when the next attempt is made.

use crate::base::{Base, base};
use crate::cluster::NodeAddr;
use crate::common::clock::{Job, Timer};
use crate::errors::Failure;
use crate::mailbox::ToControl;
use crate::sparsely;
use crate::subscribers::publish;
use crate::upstream::{ConnectionEnd, ConnectionState};
use crate::worker::Worker;

/// A connection that lived so long has proven that the node can be worked with, microseconds.
const PROVEN: u64 = 1_000_000;
/// And one that lived so long and was answered on, that it need not be left alone for longer and
/// longer: something closes connections, now and then.
const USEFUL: u64 = 100_000;
/// Where it was answered on at all, the pause grows no further than after so many failures.
const ANSWERED: u32 = 4;

impl Worker {
    /// The connection is gone or could not be made: what may be sent again waits for the next
    /// one, the rest is answered now.
    pub(super) fn connection_lost(&mut self, u: usize, why: ConnectionEnd) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        if up.dedicated.is_some() {
            return self.dedicated_lost(u, &why);
        }
        let was_ready = up.state == ConnectionState::Ready;
        let lived = self.core.now.saturating_sub(up.ready_since);
        let proven = was_ready && lived >= PROVEN;
        let answered = was_ready && up.last_read > up.ready_since;
        if proven || (answered && lived >= USEFUL) {
            up.failures = 0;
        }
        if let Some(stream) = up.stream.as_mut() {
            stream.unwatch(self.core.link.poll.registry());
        }
        self.clients.deliveries().abandon_arriving(u, &mut self.nodes, &mut self.core);
        let pending = self.nodes.upstreams.get(u).map(|up| up.pending.iter());
        let clients =
            pending.into_iter().flatten().map(|pending| self.ops.gatherings.lane_of(pending));
        let clients: Vec<_> = clients.collect();
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        let given_up = up.lost(&mut self.core.spare.pool, &clients);
        up.failures = up.failures.saturating_add(1);
        if answered {
            // Nor does it where the next attempt fails, so that it begins from here.
            up.failures = up.failures.min(ANSWERED);
        }
        up.state = ConnectionState::Backoff;
        self.subscribers.stranded |= up.pending.iter().any(publish::is_lone_publish);
        let (node, failures) = (up.node, up.failures);
        let repeated = up.pending.iter().any(|p| p.tries > 1);
        if let Some(node) =
            self.nodes.list.get_mut(usize::from(node)).filter(|n| n.unreached_since == 0)
        {
            node.unreached_since = self.core.now;
        }
        let addr = self.nodes.list.get(usize::from(node)).map(|n| n.addr.clone());
        if let Some(stats) = self.core.stats.nodes.get_mut(usize::from(node)) {
            stats.failures += 1;
        }
        if was_ready || failures == 1 {
            let node = addr.as_ref().map(NodeAddr::to_string);
            let in_flight = given_up.len();
            sparsely!(self.core.lines.lost, warn, node, %why, in_flight, "a node's connection is lost");
        }
        let name = addr.map_or_else(|| "a node".to_owned(), |a| a.to_string());
        let failure =
            Failure::ConnectionLost { node: name.as_str().into(), why: why.to_string().into() };
        if let Some(up) = self.nodes.upstreams.get_mut(u) {
            up.last_error = Some(why);
        }
        for pending in given_up {
            self.core.stats.outcome_unknown += 1;
            self.core.fail(&pending, &name, &failure);
        }
        self.nodes.loads_without(u, &name, &mut self.core);
        self.ops.resends().leave_replica(u, &mut base!(self));
        // Control may be gone at the very end: nothing to refresh then.
        let _ = self.core.link.control.send(ToControl::RefreshTopology { hint: None });
        // A connection that has worked for a while is tried again at once.
        let mut delay = if proven { 0 } else { self.core.settings.reconnect.pause(failures) };
        // Reads that would be sent for the third time, or more often, are retries. They keep their
        // places in the connection's queue, so that the connection waits for the budget; then one
        // command probes, and the others follow as the node answers.
        if let Some(up) = self.nodes.upstreams.get_mut(u) {
            up.window = usize::from(repeated);
        }
        if repeated {
            self.nodes.placement.retries.budget.take(1);
            if !self.nodes.placement.retries.budget.has() {
                delay = delay.max(self.nodes.placement.retries.budget.wait());
            }
        }
        self.core.clock.timers.push(Timer { due: self.core.now + delay, job: Job::Connect(u) });
        self.core.arm_tick();
        self.nodes.mark_upstream(u, &mut self.core);
    }
}
