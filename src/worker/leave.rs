//! Disconnecting clients that have not logged in within `timeouts.login`, that are older than
//! `timeouts.max_age`, or whose descriptors are needed for nodes.
//!
//! The latter two are disconnected as in a drain (see `drain`): after a reply with nothing else
//! outstanding, or when they have been silent for a while.

use crate::client::{Client, Paused};
use crate::clients::leave::is_engaged;
use crate::clients::login::LoginDeadline;
use crate::metrics::DisconnectReason;
use crate::worker::Worker;

/// Time without input after which a client is closed without waiting for a reply, in microseconds.
const SILENT_AFTER: u64 = 500_000;

/// Longest interval between checks while there are clients to disconnect, in microseconds.
const CHECK_INTERVAL: u64 = 250_000;

/// Longest interval between checks of the age of all clients, in microseconds.
const MAX_AGE_INTERVAL: u64 = 1_000_000;

/// The age in microseconds at which a client is disconnected: from nine tenths of `max_age` on,
/// different for each client.
fn age_limit(client: &Client, max_age: u64) -> u64 {
    // Fibonacci hashing: consecutive numbers are far apart in this sequence.
    let spread = client.session.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    max_age - ((u128::from(max_age / 10) * u128::from(spread)) >> 32) as u64
}

impl Worker {
    /// Closes clients that should have logged in by now.
    pub(super) fn end_late_logins(&mut self) {
        while self
            .engine
            .clients
            .arrivals
            .logins
            .due(&self.engine.core)
            .is_some_and(|due| due <= self.engine.core.now)
        {
            let Some(login) = self.engine.clients.arrivals.logins.queue.pop_front() else { return };
            if self.may_take_longer(login) {
                let login =
                    LoginDeadline { since: self.engine.core.now, is_extended: true, ..login };
                self.engine.clients.arrivals.logins.queue.push_back(login);
            }
        }
    }

    /// Closes the client if it has not logged in. `true`: its deadline is extended.
    fn may_take_longer(&mut self, login: LoginDeadline) -> bool {
        let (index, generation) = (login.client.at(), login.client.generation);
        let client =
            self.engine.clients.slab.get(index).filter(|c| c.generation == generation && !c.gone);
        let Some(client) = client.filter(|c| c.session.must_log_in()) else { return false };
        match client.paused {
            // Its deadline is set at the end of the handshake.
            Paused::Handshake => return false,
            // CLIENT PAUSE may be delaying its AUTH.
            Paused::Suspended => return true,
            Paused::Closing | Paused::Leaving => return false,
            // A node may be about to confirm its login.
            Paused::Command if !login.is_extended && self.engine.access.users.passes_through() => {
                return true;
            }
            _ => {}
        }
        // The client may be the cluster's default user, which has not been checked yet.
        let may_ask = client.paused == Paused::No && self.engine.access.users.passes_through();
        if may_ask && let Ok(asked) = self.dispatcher().stranger_in_cluster(index) {
            return asked.is_some() && !login.is_extended;
        }
        self.engine.clients.logins().end_stranger(index, &mut self.engine.core);
        false
    }

    /// Looks for clients to disconnect, and closes those that are silent. The others are
    /// disconnected after a reply (`flush_client`).
    pub(super) fn let_leave(&mut self) {
        if self
            .engine
            .clients
            .arrivals
            .leaving
            .due(&self.engine.core)
            .is_none_or(|due| due > self.engine.core.now)
        {
            return;
        }
        if let Some(max_age) = self.engine.core.settings.max_age {
            for (_, client) in &mut self.engine.clients.slab {
                let age = self.engine.core.now.saturating_sub(client.created);
                if client.leave_when_idle.is_none() && age >= age_limit(client, max_age) {
                    client.leave_when_idle = Some(DisconnectReason::MaxAge);
                }
            }
        } else {
            // `timeouts.max_age` has been turned off.
            let aged = Some(DisconnectReason::MaxAge);
            let all = self.engine.clients.slab.iter_mut().map(|(_, c)| c);
            all.filter(|c| c.leave_when_idle == aged).for_each(|c| c.leave_when_idle = None);
        }
        let silent_since = self.engine.core.now.saturating_sub(SILENT_AFTER);
        let leaves = |c: &Client| c.leave_when_idle.is_some() && !c.gone && !c.paused.is_final();
        let all: Vec<(usize, bool)> = (self.engine.clients.slab.iter())
            .filter(|(_, c)| leaves(c))
            .map(|(i, c)| (i, c.active <= silent_since && is_at_rest(c)))
            .collect();
        for &(index, is_silent) in &all {
            if !is_silent || self.has_spoken(index) {
                continue;
            }
            let Some(client) =
                self.engine.clients.slab.get(index).filter(|c| !c.gone && is_at_rest(c))
            else {
                continue;
            };
            let generation = client.generation;
            if let Some(reason) = client.leave_when_idle {
                self.engine.core.stats.disconnected[reason as usize] += 1;
            }
            self.engine.clients.stop_reading(index, &mut self.engine.core);
            self.engine.core.close_later(index, generation);
        }
        self.engine.clients.arrivals.leaving.any = !all.is_empty();
        let pause = self
            .engine
            .core
            .settings
            .max_age
            .map_or(CHECK_INTERVAL, |age| (age / 20).clamp(10_000, MAX_AGE_INTERVAL));
        self.engine.clients.arrivals.leaving.next_look = self.engine.core.now
            + if self.engine.clients.arrivals.leaving.any {
                pause.min(CHECK_INTERVAL)
            } else {
                pause
            };
    }
}

/// Whether the client has no command in progress or in its buffer, and all replies are written.
fn is_at_rest(client: &Client) -> bool {
    client.paused == Paused::No && client.is_idle() && client.tail.is_empty() && !is_engaged(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    #[test]
    fn each_connection_has_an_age_of_its_own() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = Stream::Unix(mio::net::UnixStream::from_std(socket));
        let mut client = Client::new(stream, 1, 1, 0);
        for max_age in [1000, 3_600_000_000, u64::MAX] {
            let mut ages: Vec<u64> = (1..=1000)
                .map(|id| {
                    client.session.id = id;
                    age_limit(&client, max_age)
                })
                .collect();
            ages.sort_unstable();
            assert!(ages[0] >= max_age - max_age / 10 && ages[999] <= max_age, "{max_age}");
            // Evenly spread: no tenth of them in the same fiftieth.
            let fiftieth = (max_age / 500).max(1);
            for window in ages.windows(100) {
                assert!(window[99] - window[0] >= fiftieth, "{max_age}: {window:?}");
            }
        }
    }
}
