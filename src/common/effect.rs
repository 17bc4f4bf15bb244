//! What a part of the worker leaves for the worker to do, because it concerns other parts, too. It
//! is done as soon as the command, reply or timer at hand has been dealt with, in its order.

use crate::cluster::Slot;
use crate::common::Core;
use crate::dest::{ClientId, ConnId};
use crate::errors::Failure;
use crate::placement::GateClass;
use crate::upstream::{ConnectionEnd, Pending};

/// Something that concerns several parts of the worker.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A command gets an error of slotway's own in place of the reply of a node.
    Failed(Box<(Pending, String, Failure)>),
    /// A connection to a node is gone, or could not be made.
    Lost(ConnId, ConnectionEnd),
    /// A client is closed.
    Closed(usize),
    /// The next command of a lane may be sent.
    Lane(Slot, ClientId),
    /// What waits at the gate of a slot may be sent.
    Gate(Slot, GateClass),
}

impl Core {
    /// An error of slotway's own in place of a node's reply.
    #[cold]
    pub(crate) fn fail(&mut self, pending: &Pending, node: &str, failure: &Failure) {
        let failed = Box::new((*pending, node.to_owned(), failure.clone()));
        self.turn.effects.push_back(Effect::Failed(failed));
    }

    /// The connection is gone or could not be made.
    #[cold]
    pub(crate) fn lose(&mut self, conn: ConnId, why: ConnectionEnd) {
        self.turn.effects.push_back(Effect::Lost(conn, why));
    }

    /// Sends the lane's next command if it may go and there is a node for it.
    pub(crate) fn run_lane(&mut self, slot: Slot, lane: ClientId) {
        self.turn.effects.push_back(Effect::Lane(slot, lane));
    }

    /// Sends what the slot's closed gate lets through.
    pub(crate) fn run_gate(&mut self, slot: Slot, class: GateClass) {
        self.turn.effects.push_back(Effect::Gate(slot, class));
    }
}
