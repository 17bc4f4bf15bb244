//! What a part of the worker leaves for the worker to do, because it concerns other parts, too. It
//! is done as soon as the command, reply or timer at hand has been dealt with, in its order.

use crate::base::{Base, base};
use crate::common::effect::Effect;
use crate::worker::Worker;

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
            Effect::Gate(slot, class) => {
                self.ops.resends().gate_goes_on(slot, class, &mut base!(self))
            }
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
