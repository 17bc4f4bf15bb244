//! WATCH, and transactions of clients that watch keys.
//!
//! Each slot's watched keys have a dedicated connection until EXEC, DISCARD or UNWATCH. If it is
//! lost, a change may have been missed: EXEC is then answered with null, as if there had been one.

use crate::delivery::Delivery;
use crate::dest::{ClientId, Dest};
use crate::ops::ErrandKind;
use crate::resp::Protocol;

impl Delivery<'_> {
    /// Records an answer to the check, before a transaction over several slots, whether a watched
    /// key has changed. `left` is the number of connections that have not answered; with the last
    /// answer the transaction is sent, or answered with null if `changed`.
    pub(super) fn checked(&mut self, client: ClientId, seq: u32, left: usize, changed: bool) {
        let index = client.at();
        let Some(errand) = self.engine.clients.errands().of(index).filter(|e| e.seq == seq) else {
            return;
        };
        let command = errand.command;
        errand.kind = ErrandKind::Check { left, changed };
        if left > 0 {
            return;
        }
        if changed {
            self.engine.clients.transactions().forget(
                index,
                &mut self.engine.nodes,
                &mut self.engine.core,
            );
            let resp3 = self
                .engine
                .clients
                .slab
                .get(index)
                .is_some_and(|c| c.session.protocol == Protocol::Resp3);
            let null: &[u8] = if resp3 { b"_\r\n" } else { b"*-1\r\n" };
            self.engine.clients.errands().end(client, seq, &mut self.engine.core);
            let dest = Dest::client(client, seq);
            return self.engine.clients.deliveries().own(dest, null, &mut self.engine.core);
        }
        // The reply has its number already: the pieces are gathered under it.
        if let Some(errand) = self.engine.clients.errands().of(index) {
            errand.kind = ErrandKind::Fleet;
        }
        self.dispatcher().exec_scattered(index, command, Some(seq));
    }
}
