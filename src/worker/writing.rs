//! Writing to clients, and the memory of unfinished requests.

use crate::buf::WRITE_LIMIT;
use crate::client::{Client, Paused};
use crate::clients::answers::buffers_full;
use crate::clients::leave;
use crate::common::Source;
use crate::dest::ClientId;
use crate::metrics::LimitHit;
use crate::worker::Worker;

/// Size in bytes from which an unfinished request is refused at `limits.memory`.
const LARGE_UNFINISHED: usize = 16 << 10;

impl Worker {
    /// Writes replies to a client at the end of a turn, and resumes or closes the client if it
    /// waited for that.
    pub(super) fn flush_client(&mut self, index: usize) {
        let Some(client) = self.engine.clients.slab.get_mut(index) else { return };
        client.dirty = false;
        if client.gone {
            return;
        }
        // Only TLS keeps bytes that the socket has not accepted.
        if client.stream.unsent() {
            return self.flush_secured(index);
        }
        if client.session.uncork() && client.paused == Paused::No && !client.is_drained() {
            return self.engine.clients.memory().account(index, &mut self.engine.core);
        }
        let last = (client.leave_when_idle.is_some() && leave::may_leave(client))
            || self.engine.clients.stop.drain.is_some_and(|drain| drain.is_last(client));
        if last {
            client.stream.hold_back(true);
        }
        if let Some(replies) = client.replies.as_mut() {
            let mut is_over = true;
            if !replies.out.is_empty() && !client.blocked {
                match replies.out.write_share_to(&mut client.stream) {
                    Ok(n) => {
                        is_over = n < WRITE_LIMIT;
                        self.engine.core.stats.bytes_out += n as u64;
                        if let Some(traffic) = self.engine.clients.arrivals.traffic.get_mut(index) {
                            traffic.bytes_out += n as u64;
                        }
                        replies.out.release_sent(&mut self.engine.core.spare.pool);
                    }
                    Err(_) => return self.engine.clients.close(index, &mut self.engine.core),
                }
            }
            let left = !replies.out.is_empty() || client.stream.unsent();
            let full = left && (is_over || client.stream.unsent());
            if left && !full {
                client.dirty = true;
                self.engine.core.turn.unwritten.push(index);
            }
            client.blocked = full;
            if full != client.watching {
                client.watching = full;
                let token = Source::Client(index).token();
                let registry = self.engine.core.link.poll.registry();
                if client.stream.watch(registry, token, full, true).is_err() {
                    return self.engine.clients.close(index, &mut self.engine.core);
                }
            }
            let goes_on = match client.paused {
                Paused::Replies => replies.is_drained(),
                Paused::Yielding => replies.has_half(),
                _ => false,
            };
            if goes_on {
                self.engine.core.turn.resume.push(ClientId::new(index, client.generation));
            }
            if replies.is_drained()
                && !left
                && let Some(mut replies) = client.replies.take()
            {
                replies.reset(&mut self.engine.core.spare.pool);
                if self.engine.core.spare.replies.len() < 256 {
                    self.engine.core.spare.replies.push(replies);
                }
            }
        } else if matches!(client.paused, Paused::Replies | Paused::Yielding) {
            self.engine.core.turn.resume.push(ClientId::new(index, client.generation));
        }
        if last {
            if !client.is_idle() {
                client.stream.hold_back(false);
            } else if client.paused == Paused::No {
                return self
                    .engine
                    .clients
                    .departures()
                    .let_go_unless_it_speaks(index, &mut self.engine.core);
            }
        }
        if client.is_over() {
            return self.end_client(index);
        }
        let closing =
            client.paused == Paused::Closing || (client.read_closed && client.paused == Paused::No);
        if closing && client.is_idle() && !client.stream.unsent() {
            return self.engine.clients.close(index, &mut self.engine.core);
        }
        if client.lent.is_some() {
            self.delivery().join_goes_on(index);
        }
        self.engine.clients.memory().account(index, &mut self.engine.core);
        self.engine.clients.check_output(index, &mut self.engine.core);
    }

    /// Enforces `limits.memory` after reading from a client: at the end of the turn, thousands of
    /// unfinished requests may have grown.
    pub(super) fn check_request_memory(&mut self, index: usize) {
        let is_large = |c: &Client| c.tail.len() >= LARGE_UNFINISHED && !c.gone;
        if !self
            .engine
            .clients
            .memory()
            .is_over_limit(&mut self.engine.nodes, &mut self.engine.core)
        {
            return;
        }
        // At once: in one turn, slotway may answer a thousand clients' commands itself, with
        // replies larger than the commands. Other clients may occupy more memory than this one.
        self.relieve();
        if !self
            .engine
            .clients
            .memory()
            .is_over_limit(&mut self.engine.nodes, &mut self.engine.core)
            || !self.engine.clients.slab.get(index).is_some_and(is_large)
        {
            return;
        }
        self.engine.core.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let failure = buffers_full(&self.engine.core.settings);
        self.engine.clients.answer_error(index, &failure, &mut self.engine.core);
        self.engine.clients.stop_reading(index, &mut self.engine.core);
    }
}
