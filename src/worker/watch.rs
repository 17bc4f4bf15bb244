//! WATCH, and the transactions of those who watch.
//!
//! Each slot's watched keys have a dedicated connection until EXEC, DISCARD or UNWATCH. If it is
//! lost a change may have been missed: EXEC then answers null, as if there had been one.

use crate::dest::{ClientId, Dest};
use crate::ops::ErrandKind;
use crate::resp::Protocol;
use crate::worker::Worker;

impl Worker {
    pub(super) fn checked(&mut self, client: ClientId, seq: u32, left: usize, changed: bool) {
        let index = client.at();
        let Some(errand) = self.clients.errands().of(index).filter(|e| e.seq == seq) else {
            return;
        };
        let command = errand.command;
        errand.kind = ErrandKind::Check { left, changed };
        if left > 0 {
            return;
        }
        if changed {
            self.clients.transactions().forget(index, &mut self.nodes, &mut self.core);
            let resp3 =
                self.clients.slab.get(index).is_some_and(|c| c.session.protocol == Protocol::Resp3);
            let null: &[u8] = if resp3 { b"_\r\n" } else { b"*-1\r\n" };
            self.clients.errands().end(client, seq, &mut self.core);
            let dest = Dest::client(client, seq);
            return self.clients.deliveries().own(dest, null, &mut self.core);
        }
        // Its reply has a number already: the pieces are gathered for that one.
        if let Some(errand) = self.clients.errands().of(index) {
            errand.kind = ErrandKind::Fleet;
        }
        self.exec_scattered(index, command, Some(seq));
    }
}
