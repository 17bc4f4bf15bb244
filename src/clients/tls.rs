//! TLS handshakes of clients that are under way.

use std::collections::VecDeque;

use slab::Slab;

use crate::client::{Client, Paused};
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

impl Handshakes {
    /// When the oldest is looked at next.
    pub(crate) fn due(&self, core: &Core) -> Option<u64> {
        let (since, ..) = self.queue.front()?;
        Some(since + self.patience(core))
    }

    /// Takes those out that have finished, from time to time, if there are many.
    pub(crate) fn sweep(&mut self, clients: &Slab<Client>, now: u64) {
        if self.queue.len() > MANY && now >= self.swept + PRESSED / 10 {
            self.swept = now;
            self.queue.retain(|&(_, index, generation)| {
                let client = clients.get(index as usize);
                client.is_some_and(|c| c.generation == generation && c.paused == Paused::Handshake)
            });
        }
    }

    /// How long one may take.
    fn patience(&self, core: &Core) -> u64 {
        let patience = core.settings.handshake_timeout;
        if self.queue.len() > MANY { patience.min(PRESSED) } else { patience }
    }
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
        self.memory().account(index, core);
    }
}
