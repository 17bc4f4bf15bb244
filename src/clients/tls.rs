//! TLS handshakes of clients that are under way.

use std::collections::VecDeque;

use crate::client::Paused;
use crate::clients::Clients;
use crate::common::Core;

/// Unfinished handshakes of clients above which a worker has less patience.
const MANY: usize = 1024;
/// How much, microseconds.
const PRESSED: u64 = 1_000_000;

/// Clients in their handshakes, the oldest first, with those that have finished since.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// Since when, microseconds; index and generation.
    pub(crate) queue: VecDeque<(u64, u32, u32)>,
    /// When those that have finished were last taken out.
    swept: u64,
}

impl Clients {
    /// The client is new, and its handshake begins.
    pub(crate) fn begin_handshake(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.slab.get_mut(index) else { return };
        if client.stream.tls().is_none() || client.gone {
            return;
        }
        client.paused = Paused::Handshake;
        self.arrivals.handshakes.queue.push_back((core.now, index as u32, client.generation));
        self.account_client(index, core);
    }

    /// When the oldest handshake is looked at next.
    pub(crate) fn handshake_due(&self, core: &Core) -> Option<u64> {
        let (since, ..) = self.arrivals.handshakes.queue.front()?;
        Some(since + self.handshake_patience(core))
    }

    fn handshake_patience(&self, core: &Core) -> u64 {
        let patience = core.settings.handshake_timeout;
        if self.arrivals.handshakes.queue.len() > MANY { patience.min(PRESSED) } else { patience }
    }

    /// Closes clients whose handshakes take too long.
    pub(crate) fn end_slow_handshakes(&mut self, core: &mut Core) {
        if self.arrivals.handshakes.queue.len() > MANY
            && core.now >= self.arrivals.handshakes.swept + PRESSED / 10
        {
            self.arrivals.handshakes.swept = core.now;
            let clients = &self.slab;
            self.arrivals.handshakes.queue.retain(|&(_, index, generation)| {
                let client = clients.get(index as usize);
                client.is_some_and(|c| c.generation == generation && c.paused == Paused::Handshake)
            });
        }
        while self.handshake_due(core).is_some_and(|due| due <= core.now) {
            let Some((_, index, generation)) = self.arrivals.handshakes.queue.pop_front() else {
                return;
            };
            let Some(client) = self.slab.get_mut(index as usize) else { continue };
            if client.generation != generation || client.paused != Paused::Handshake {
                continue;
            }
            if let Some(tls) = client.stream.tls() {
                tls.timed_out();
            }
            self.close(index as usize, core);
        }
    }
}
