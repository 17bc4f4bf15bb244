//! Draining a worker: disconnecting its clients without losing commands.
//!
//! If a connection is closed while the client's next command is on its way, the client cannot know
//! whether the command was executed. So an active client is disconnected right after a reply, at a
//! moment when all its commands are answered: the reply and the end of the connection are sent in
//! the same packet, and a client that checks a connection before using it, as connection pools do,
//! notices the end in time. The client may take its time to close its side. On a Unix socket, which
//! has no packets, the client may send more between the two: the receiving side is closed first,
//! commands that arrived before are answered, and later writes fail at once.
//!
//! This phase lasts for a twentieth of the drain, at most half a second. Clients that have been
//! silent for as long are closed at its start. At its end all others are closed, as soon as their
//! replies are written.

use crate::client::{Client, Paused};
use crate::clients::leave::Drain;
use crate::worker::Worker;
use std::time::Instant;

/// Longest duration of the phase in which clients are disconnected after a reply, in microseconds.
const MAX_POLITE: u64 = 500_000;

impl Worker {
    /// Starts a drain that is over at `by` at the latest.
    pub(super) fn start_drain(&mut self, by: Instant) {
        let by = by.saturating_duration_since(self.engine.core.clock.epoch).as_micros() as u64;
        let patience = (by.saturating_sub(self.engine.core.now) / 20).min(MAX_POLITE);
        self.engine.clients.stop.drain =
            Some(Drain { polite: Some(self.engine.core.now + patience), by });
        let silent_since = self.engine.core.now.saturating_sub(patience);
        let all: Vec<(usize, bool)> =
            self.engine.clients.slab.iter().map(|(i, c)| (i, c.active <= silent_since)).collect();
        for (index, silent) in all {
            // A blocked client is answered as at a timeout, so that no element is lost.
            let waited = self.engine.unblock(index, false);
            if silent && !waited && !self.has_spoken(index) {
                self.engine.clients.stop_reading(index, &mut self.engine.core);
            }
        }
    }

    /// After the polite phase, stops reading from the remaining clients, which are closed when they
    /// are answered.
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

    /// Processes what is in the socket of a client that is about to be closed. Returns whether
    /// there was anything.
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
