//! Loss of a connection to a node: which commands are failed and which wait for the next connection
//! (decided in `Upstream::lost`, by the retry policy), and when to reconnect.

use crate::base::{Base, base};
use crate::cluster::NodeAddr;
use crate::common::clock::{Job, Timer};
use crate::delivery::Delivery;
use crate::dest::ConnId;
use crate::errors::Failure;
use crate::mailbox::ToControl;
use crate::sparsely;
use crate::subscribers::publish;
use crate::upstream::{ConnectionEnd, ConnectionState};

/// Lifetime in microseconds after which a connection is replaced without a pause.
const PROVEN_AFTER: u64 = 1_000_000;

/// Lifetime in microseconds after which a connection on which the node has answered resets the
/// back-off: something may close connections now and then.
const USEFUL_AFTER: u64 = 100_000;

/// Maximum number of failures that count for the back-off if the node has answered at all.
const MAX_FAILURES_IF_ANSWERED: u32 = 4;

impl Delivery<'_> {
    /// Handles a connection that is lost or could not be established: commands that may be sent
    /// again wait for the next connection, the others are failed.
    pub(super) fn connection_lost(&mut self, conn: ConnId, why: ConnectionEnd) {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        if up.dedicated.is_some() {
            return self.dedicated_lost(conn, &why);
        }
        let was_ready = up.state == ConnectionState::Ready;
        let lived = self.engine.core.now.saturating_sub(up.ready_since);
        let proven = was_ready && lived >= PROVEN_AFTER;
        let answered = was_ready && up.last_read > up.ready_since;
        if proven || (answered && lived >= USEFUL_AFTER) {
            up.failures = 0;
        }
        if let Some(stream) = up.stream.as_mut() {
            stream.unwatch(self.engine.core.link.poll.registry());
        }
        self.engine.clients.deliveries().abandon_arriving(
            conn,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
        let pending = self.engine.nodes.upstreams.get(conn).map(|up| up.pending.iter());
        let clients = pending
            .into_iter()
            .flatten()
            .map(|pending| self.engine.ops.gatherings.lane_of(pending));
        let clients: Vec<_> = clients.collect();
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        let given_up = up.lost(&mut self.engine.core.spare.pool, &clients);
        up.failures = up.failures.saturating_add(1);
        if answered {
            // Limited in the counter, so that the back-off grows from here if the next attempt
            // fails.
            up.failures = up.failures.min(MAX_FAILURES_IF_ANSWERED);
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
        if let Some(up) = self.engine.nodes.upstreams.get_mut(conn) {
            up.last_error = Some(why);
        }
        for pending in given_up {
            self.engine.core.stats.outcome_unknown += 1;
            self.engine.core.fail(&pending, &name, &failure);
        }
        self.engine.nodes.loads_without(conn, &name, &mut self.engine.core);
        self.engine.ops.resends().leave_replica(conn, &mut base!(self.engine));
        // Fails only after the end of the control thread, at shutdown.
        let upstream = Some(self.engine.nodes.upstream_of(node));
        let refresh = ToControl::RefreshTopology { hint: None, upstream };
        let _ = self.engine.core.link.control.send(refresh);
        // A connection that has worked for a while is replaced at once.
        let mut delay =
            if proven { 0 } else { self.engine.core.settings.reconnect.pause(failures) };
        // Reads that are about to be sent for the third time or more count as retries. They keep
        // their places in the queue, so the whole connection waits for the retry budget; then one
        // command probes the node, and the others follow as it answers.
        if let Some(up) = self.engine.nodes.upstreams.get_mut(conn) {
            up.window = usize::from(repeated);
        }
        if repeated {
            self.engine.nodes.placement.retries.budget.take(1);
            if !self.engine.nodes.placement.retries.budget.has() {
                delay = delay.max(self.engine.nodes.placement.retries.budget.wait().0);
            }
        }
        self.engine
            .core
            .clock
            .timers
            .push(Timer { due: self.engine.core.now + delay, job: Job::Connect(conn) });
        self.engine.core.arm_tick();
        self.engine.nodes.mark_upstream(conn, &mut self.engine.core);
    }
}
