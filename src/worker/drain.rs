//! A worker's end: its clients are let go where they lose nothing.
//!
//! A connection that is closed while its client's next command is on the way leaves that client
//! with a command that it knows nothing of. So a client that speaks is let go right behind a reply,
//! at a moment when nothing of it is unanswered: reply and end of the connection go out in the same
//! packet, and who looks at a connection before it uses it, as clients' pools do, sees the end in
//! time. It may take its time to close its side. Over a Unix socket, which has no packets, the
//! client may say more between the two: its way here is closed first, what came before is answered,
//! and what it writes after that fails at once.
//!
//! This goes on for the drain's first twentieth, half a second at most. Who has said nothing for so
//! long is closed there and then, and when it is over so is everybody else, as soon as their replies
//! are written.

use crate::client::{Client, Paused};
use crate::clients::leave::Drain;
use crate::worker::Worker;
use std::time::Instant;

/// The longest time in which clients are let go behind a reply, in microseconds.
const POLITE: u64 = 500_000;

impl Worker {
    pub(super) fn start_drain(&mut self, by: Instant) {
        let by = by.saturating_duration_since(self.engine.core.clock.epoch).as_micros() as u64;
        let patience = (by.saturating_sub(self.engine.core.now) / 20).min(POLITE);
        self.engine.clients.stop.drain =
            Some(Drain { polite: Some(self.engine.core.now + patience), by });
        let silent_since = self.engine.core.now.saturating_sub(patience);
        let all: Vec<(usize, bool)> =
            self.engine.clients.slab.iter().map(|(i, c)| (i, c.active <= silent_since)).collect();
        for (index, silent) in all {
            // Who waits for an element is told that there was none: nothing can be lost so.
            let waited = self.engine.unblock(index, false);
            if silent && !waited && !self.has_spoken(index) {
                self.engine.clients.stop_reading(index, &mut self.engine.core);
            }
        }
    }

    /// The polite time is over: the clients that are left are closed when they are answered.
    pub(super) fn drain_goes_on(&mut self) {
        let Some(drain) = self.engine.clients.stop.drain.as_mut() else { return };
        if drain.polite.is_none_or(|until| self.engine.core.now < until) {
            return;
        }
        drain.polite = None;
        let all: Vec<usize> = self.engine.clients.slab.iter().map(|(i, _)| i).collect();
        for index in all {
            self.engine.unblock(index, false);
            if self.engine.clients.slab.get(index).is_some_and(|c| c.paused == Paused::Leaving) {
                self.engine.clients.close(index, &mut self.engine.core);
            } else {
                self.has_spoken(index);
                self.engine.clients.stop_reading(index, &mut self.engine.core);
            }
        }
    }

    /// Takes in what is in the socket of a client that is about to be closed: whether there is
    /// anything.
    pub(super) fn has_spoken(&mut self, index: usize) -> bool {
        if let Some(client) = self.engine.clients.slab.get(index) {
            client.stream.close_input();
        }
        let now = self.engine.core.now;
        let read = |client: Option<&Client>| client.is_some_and(|c| c.active == now);
        let before = read(self.engine.clients.slab.get(index));
        self.client_readable(index);
        !before && read(self.engine.clients.slab.get(index))
    }
}
