//! Carrying out [`Effect`]s: actions that one part of the worker requests because they concern
//! other parts too. They are carried out in order, right after the command, reply or timer that
//! caused them.

use crate::base::{Base, base};
use crate::common::effect::Effect;
use crate::delivery::Delivery;

impl Delivery<'_> {
    /// Carries out all pending effects, including those that they cause.
    #[inline]
    pub(crate) fn follow_up(&mut self) {
        while let Some(effect) = self.engine.core.turn.effects.pop_front() {
            self.carry_out(effect);
        }
    }

    #[cold]
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Failed(failed) => {
                let (pending, node, failure) = *failed;
                self.engine.command_failed(&pending, &node, &failure);
            }
            Effect::Lost(conn, why) => self.connection_lost(conn, why),
            Effect::Closed(index) => self.client_closed(index),
            Effect::Lane(slot, lane) => base!(self.engine).lane_goes_on(slot, lane),
            Effect::Gate(slot, class) => {
                self.engine.ops.resends().gate_goes_on(slot, class, &mut base!(self.engine))
            }
        }
    }

    /// Frees everything that is kept for a closed client.
    fn client_closed(&mut self, index: usize) {
        self.engine.release_lent(index);
        self.engine.subscribers.leave_all(index, &mut self.engine.clients, &mut self.engine.core);
        base!(self.engine).leave_account(index);
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        client.multi = None;
        if let Some(mut replies) = client.replies.take() {
            replies.reset(&mut self.engine.core.spare.pool);
        }
        client.generation = 0;
        self.engine.core.turn.graveyard.push(index);
    }
}
