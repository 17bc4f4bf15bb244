//! Reads from replicas: `read_from`, and clients that said READONLY.
//!
//! They go over connections of their own, on which slotway has said READONLY, too: an ordinary
//! connection to a node that became a replica must answer MOVED, not with old data. What a replica
//! does not answer goes to the primary. Which node it is, is chosen in [`crate::placement`].

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::mailbox::ToControl;
use crate::placement::{Choice, ReadTo};
use crate::resp::Args;
use crate::route::Plan;
use crate::worker::Worker;

impl Worker {
    /// One command of a client whose reads may go elsewhere than to primaries.
    pub(super) fn dispatch_read(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let command = self.core.router.command(args);
        if !self.core.router.is_read_only(command)
            || self.clients.memory().is_over_limit(&mut self.nodes, &mut self.core)
        {
            return self.dispatch_known(index, command, frame, args);
        }
        let plan = self.core.router.plan(command, args, &mut self.core.spare.keys);
        let Plan::Slot(slot) = plan else {
            return self.dispatch_rare(index, command, plan, frame, args);
        };
        // The node is chosen by connection, and the cursor may come from another connection's.
        if self.core.router.has_node_cursor(command) {
            self.core.stats.reads[ReadTo::Primary as usize] += 1;
            return self.ops.forward(index, command, slot.0, frame, &mut base!(self));
        }
        if !std::mem::replace(&mut self.nodes.reads.watches_replicas, true) {
            // Control may be gone at the very end: nobody to look at replicas then.
            let _ = self.core.link.control.send(ToControl::WatchReplicas);
        }
        let Some(client) = self.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let choice = match self.core.settings.wish_of(client) {
            Some(from) => self.clients.reads().choose_node(
                from,
                index,
                slot.0,
                protocol,
                &mut self.nodes,
                &mut self.core,
            ),
            None => return self.ops.forward(index, command, slot.0, frame, &mut base!(self)),
        };
        match choice {
            Choice::Primary(to) => {
                self.core.stats.reads[to as usize] += 1;
                self.ops.forward(index, command, slot.0, frame, &mut base!(self))
            }
            Choice::Replica(node, to) => {
                let u = self.clients.reads().replica_upstream(
                    node,
                    protocol,
                    index,
                    &mut self.nodes,
                    &mut self.core,
                );
                let client = (protocol, generation);
                let Some((pending, u)) =
                    self.ops.admit_on(index, command, slot.0, u, client, &mut base!(self))
                else {
                    return Flow::Pause;
                };
                self.core.stats.reads[to as usize] += 1;
                self.nodes.send(u, pending, frame, &mut self.core);
                Flow::Next
            }
        }
    }
}
