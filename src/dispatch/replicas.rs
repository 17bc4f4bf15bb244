//! Reads from replicas: by `read_from`, and of clients that have sent READONLY.
//!
//! These reads use separate connections, on which slotway has sent READONLY too: on an ordinary
//! connection, a node that has become a replica has to answer MOVED rather than old data. A read
//! that the replica does not answer goes to the primary. [`crate::placement`] chooses the node.

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::dispatch::Dispatcher;
use crate::mailbox::ToControl;
use crate::placement::{Choice, ReadTo};
use crate::resp::Args;
use crate::route::Plan;

impl Dispatcher<'_> {
    /// Dispatches a command of a client whose reads may go to replicas.
    pub(super) fn dispatch_read(&mut self, index: usize, frame: &[u8], args: &Args) -> Flow {
        let command = self.engine.core.router.command(args);
        if !self.engine.core.router.is_read_only(command)
            || self
                .engine
                .clients
                .memory()
                .is_over_limit(&mut self.engine.nodes, &mut self.engine.core)
        {
            return self.dispatch_known(index, command, frame, args);
        }
        let view = self.engine.clients.view_of(index);
        let core = &mut self.engine.core;
        let plan = core.router.plan(view, command, args, &mut core.spare.keys);
        let Plan::Slot(slot) = plan else {
            return self.dispatch_rare(index, command, plan, frame, args);
        };
        // The cursor is valid at one node only. The node is chosen by the client's connection, and
        // the cursor may come from another one.
        if self.engine.core.router.has_node_cursor(command) {
            self.engine.core.stats.reads[ReadTo::Primary as usize] += 1;
            return self.engine.ops.forward(index, command, slot, frame, &mut base!(self.engine));
        }
        if !std::mem::replace(&mut self.engine.nodes.reads.watches_replicas, true) {
            // Fails only after the end of the control thread, at shutdown.
            let _ = self.engine.core.link.control.send(ToControl::WatchReplicas);
        }
        let Some(client) = self.engine.clients.slab.get(index) else { return Flow::Stop };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let choice = match self.engine.core.wish_of(client, slot) {
            Some(from) => self.engine.clients.reads().choose_node(
                from,
                index,
                slot,
                protocol,
                &mut self.engine.nodes,
                &mut self.engine.core,
            ),
            None => {
                return self.engine.ops.forward(
                    index,
                    command,
                    slot,
                    frame,
                    &mut base!(self.engine),
                );
            }
        };
        match choice {
            Choice::Primary(to) => {
                self.engine.core.stats.reads[to as usize] += 1;
                self.engine.ops.forward(index, command, slot, frame, &mut base!(self.engine))
            }
            Choice::Replica(node, to) => {
                let conn = self.engine.clients.reads().replica_upstream(
                    node,
                    protocol,
                    index,
                    &mut self.engine.nodes,
                    &mut self.engine.core,
                );
                let client = (protocol, generation);
                let Some((pending, conn)) = self.engine.ops.admit_on(
                    index,
                    command,
                    slot,
                    conn,
                    client,
                    &mut base!(self.engine),
                ) else {
                    return Flow::Pause;
                };
                self.engine.core.stats.reads[to as usize] += 1;
                self.engine.nodes.send(conn, pending, frame, &mut self.engine.core);
                Flow::Next
            }
        }
    }
}
