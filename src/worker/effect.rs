//! What a part of the worker leaves for the worker to do, because it concerns other parts, too. It
//! is done as soon as the command, reply or timer at hand has been dealt with, in its order.

use super::Worker;
use super::state::Base;
use super::state::Core;
use super::state::base;
use crate::dest::ClientId;
use crate::errors::Failure;
use crate::placement::Class;
use crate::upstream::{ConnectionEnd, Pending};

/// Something that concerns several parts of the worker.
#[derive(Debug)]
pub(super) enum Effect {
    /// A command gets an error of slotway's own in place of the reply of a node.
    Failed(Box<(Pending, String, Failure)>),
    /// A connection to a node is gone, or could not be made.
    Lost(usize, ConnectionEnd),
    /// A client is closed.
    Closed(usize),
    /// The next command of a lane may be sent.
    Lane(u16, ClientId),
    /// What waits at the gate of a slot may be sent.
    Gate(u16, Class),
}

impl Core {
    /// An error of slotway's own in place of a node's reply.
    #[cold]
    pub(super) fn fail(&mut self, pending: &Pending, node: &str, failure: &Failure) {
        let failed = Box::new((*pending, node.to_owned(), failure.clone()));
        self.turn.effects.push_back(Effect::Failed(failed));
    }

    /// The connection is gone or could not be made.
    #[cold]
    pub(super) fn lose(&mut self, u: usize, why: ConnectionEnd) {
        self.turn.effects.push_back(Effect::Lost(u, why));
    }

    /// Sends the lane's next command if it may go and there is a node for it.
    pub(super) fn run_lane(&mut self, slot: u16, lane: ClientId) {
        self.turn.effects.push_back(Effect::Lane(slot, lane));
    }

    /// Sends what the slot's closed gate lets through.
    pub(super) fn run_gate(&mut self, slot: u16, class: Class) {
        self.turn.effects.push_back(Effect::Gate(slot, class));
    }
}

impl Worker {
    /// Carries out what the parts have left to do, and what that leaves.
    #[inline]
    pub(super) fn follow_up(&mut self) {
        while let Some(effect) = self.core.turn.effects.pop_front() {
            self.carry_out(effect);
        }
    }

    #[cold]
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Failed(failed) => {
                let (pending, node, failure) = *failed;
                self.command_failed(&pending, &node, &failure);
            }
            Effect::Lost(u, why) => self.connection_lost(u, why),
            Effect::Closed(index) => self.client_closed(index),
            Effect::Lane(slot, lane) => base!(self).lane_goes_on(slot, lane),
            Effect::Gate(slot, class) => self.ops.gate_goes_on(slot, class, &mut base!(self)),
        }
    }

    /// Nothing is kept any more for a client that is closed.
    fn client_closed(&mut self, index: usize) {
        self.release_lent(index);
        self.subscribers.leave_all(index, &mut self.clients, &mut self.core);
        base!(self).leave_account(index);
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        client.multi = None;
        if let Some(mut replies) = client.replies.take() {
            replies.reset(&mut self.core.spare.pool);
        }
        client.generation = 0;
        self.core.turn.graveyard.push(index);
    }
}
