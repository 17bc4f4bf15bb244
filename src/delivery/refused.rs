//! Refused commands on shared connections: sent again, elsewhere or later, in their client's order.

use crate::base::{Base, base};
use crate::delivery::Delivery;
use crate::dest::{ConnId, Dest};
use crate::metrics::RetryReason;
use crate::placement::{AfterRefusal, Redirection, Refusal, Work, after_refusal, concerns};
use crate::route::PendingFlags;

impl Delivery<'_> {
    /// Handles an error reply to the first command of connection `u` if it is a refusal: the
    /// command was not executed, and is sent again as the retry policy decides. `false`: the error
    /// is the client's reply.
    pub(super) fn refused(&mut self, conn: ConnId, frame: &[u8]) -> bool {
        let text = crate::resp::reply::error_text(frame).unwrap_or_default();
        self.engine.scripts.forget_script(
            conn,
            text,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return false };
        let Some(front) = up.pending.front() else { return false };
        if front.dest == Dest::Discard {
            // The error may be the reply to SCRIPT LOAD.
            if text.starts_with(b"BUSY ") {
                up.scripts.clear();
            }
            if !front.slot.is_keyless() {
                self.engine.nodes.note_probe(conn, frame);
            }
            return false;
        }
        let bound = front.flags.contains(PendingFlags::NODE_BOUND);
        let Some(node) = self.engine.nodes.list.get(up.node.at()) else { return false };
        let Some(refusal) = Refusal::parse(frame, &node.addr, node.slots) else { return false };
        if bound
            && !self.engine.nodes.shards().rebind_refused(conn, &refusal, &mut self.engine.core)
        {
            // This command fails; with a new topology the next ones need not.
            let of = self.engine.nodes.upstream_behind(conn);
            self.engine.core.link.want_topology(None, of);
            return false;
        }
        let Some(front) = self.engine.nodes.upstreams.get(conn).and_then(|up| up.pending.front())
        else {
            return false;
        };
        let unrelated = !concerns(&refusal, front.slot_of_keys(), front.tries);
        let no_script = refusal.kind() == Redirection::NoScript;
        if unrelated
            || (no_script
                && !self.engine.scripts.heals(
                    conn,
                    text,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                ))
        {
            return false;
        }
        if !self.engine.seeing.traced.is_empty()
            && let Some(front) =
                self.engine.nodes.upstreams.get(conn).and_then(|up| up.pending.front()).copied()
        {
            self.engine.seeing.trace_attempt(
                conn,
                &front,
                frame,
                true,
                &mut self.engine.ops,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
        }
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return false };
        let Some(mut pending) = up.pending.pop_front() else { return false };
        let len = pending.len as usize;
        let bytes = up.queue.take_front(len, &mut self.engine.core.spare.pool);
        self.engine.core.stats.redirections[refusal.kind() as usize] += 1;
        let (node, read_only) = (up.node, up.read_only);
        self.engine.core.stats.count_retry(RetryReason::Refused(refusal.kind()));
        pending.tries = pending.tries.saturating_add(1);
        pending.refused = Some(refusal.kind());
        let work = if read_only { Work::ReplicaRead } else { pending.work() };
        let known = self.engine.nodes.named_by(&refusal, node).is_some();
        match after_refusal(work, &refusal, known, pending.tries) {
            AfterRefusal::Again(when, scope) => {
                let text = String::from_utf8_lossy(text);
                self.engine.ops.resends().refused(
                    node,
                    (pending, bytes),
                    refusal,
                    (when, scope),
                    &text,
                    &mut base!(self.engine),
                );
            }
            _ => {
                let of = Some(self.engine.nodes.upstream_of(node));
                self.engine.core.link.want_topology(None, of);
                self.engine.ops.resends().send_to_primary(pending, bytes, &mut base!(self.engine));
            }
        }
        true
    }
}
