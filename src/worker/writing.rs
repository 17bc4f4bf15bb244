//! Clients are written to, and what they take is looked at.

use super::clock::{Job, Timer};
use super::no_room::buffers_full;
use super::state::{Clients, Core};
use super::{Source, Worker, drain, reaccount};
use crate::buf::WRITE_LIMIT;
use crate::client::{Client, Paused};
use crate::dest::ClientId;
use crate::metrics::LimitHit;
use crate::sparsely;

/// At `limits.memory` an unfinished request of this size is refused.
const MUCH_UNFINISHED: usize = 16 << 10;

impl Clients {
    /// The client has something to be written, or is to be looked at, at the end of the turn.
    #[inline]
    pub(super) fn mark_client(&mut self, index: usize, core: &mut Core) {
        if let Some(client) = self.slab.get_mut(index)
            && !client.dirty
        {
            client.dirty = true;
            core.turn.dirty_clients.push(index);
        }
    }

    /// What a client has not taken is bounded: it is closed at its limit.
    pub(super) fn check_output(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.slab.get(index) else { return };
        let output = client.output();
        let subscriber = client.subscriptions.is_some();
        let limit = if subscriber && let Some(limit) = self.subscriber_limit(index, core) {
            limit
        } else if !subscriber && output > core.settings.client_output {
            LimitHit::ClientOutput
        } else {
            return;
        };
        core.stats.limits_hit[limit as usize] += 1;
        let Some(client) = self.slab.get(index) else { return };
        sparsely!(
            core.lines.closed,
            warn,
            client = client.session.id,
            output,
            limit = LimitHit::NAMES[limit as usize],
            "a client is closed: it does not take its replies"
        );
        core.stats.messages_dropped += client.items() as u64;
        self.close(index, core);
    }

    pub(super) fn account_client(&mut self, index: usize, core: &mut Core) {
        // A closed one is on no account any more.
        if let Some(client) = self.slab.get_mut(index).filter(|client| !client.gone) {
            let at_hand = if core.turn.at_hand.0 == index { core.turn.at_hand.1 } else { 0 };
            let held = client.held() + at_hand;
            reaccount(&mut core.memory.accounted, &mut client.accounted, held);
        }
    }

    /// What a subscriber has not taken is bounded as Redis bounds it. `None`: it is within.
    pub(super) fn subscriber_limit(&mut self, index: usize, core: &mut Core) -> Option<LimitHit> {
        let client = self.slab.get_mut(index)?;
        let output = client.output();
        let me = ClientId::new(index, client.generation);
        let subscriptions = client.subscriptions.as_mut()?;
        if output > core.settings.subscriber_hard {
            return Some(LimitHit::PubSubHard);
        }
        if output <= core.settings.subscriber_soft {
            subscriptions.above_soft = None;
            return None;
        }
        match subscriptions.above_soft {
            Some(since) if core.now >= since + core.settings.subscriber_soft_time => {
                return Some(LimitHit::PubSubSoft);
            }
            Some(_) => {}
            None => {
                subscriptions.above_soft = Some(core.now);
                let due = core.now + core.settings.subscriber_soft_time;
                core.clock.timers.push(Timer { due, job: Job::SlowSubscriber(me) });
            }
        }
        None
    }

    /// A subscriber that was slow some time ago is looked at again.
    pub(super) fn slow_subscriber(&mut self, client: ClientId, core: &mut Core) {
        let current = |c: &crate::client::Client| c.generation == client.generation && !c.gone;
        if self.slab.get(client.at()).is_some_and(current) {
            self.check_output(client.at(), core);
        }
    }
}

impl Worker {
    pub(super) fn flush_client(&mut self, index: usize) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        client.dirty = false;
        if client.gone {
            return;
        }
        // Only TLS keeps bytes that the socket has not taken.
        if client.stream.unsent() {
            return self.flush_secured(index);
        }
        if std::mem::take(&mut client.session.corked)
            && client.paused == Paused::No
            && !client.is_drained()
        {
            return self.clients.account_client(index, &mut self.core);
        }
        let last = (client.leaves_for.is_some() && drain::may_leave(client))
            || self.clients.stop.drain.is_some_and(|drain| drain.is_last(client));
        if last {
            client.stream.hold_back(true);
        }
        if let Some(replies) = client.replies.as_mut() {
            let mut is_over = true;
            if !replies.out.is_empty() && !client.blocked {
                match replies.out.write_share_to(&mut client.stream) {
                    Ok(n) => {
                        is_over = n < WRITE_LIMIT;
                        self.core.stats.bytes_out += n as u64;
                        if let Some(traffic) = self.clients.arrivals.traffic.get_mut(index) {
                            traffic.bytes_out += n as u64;
                        }
                        replies.out.release_sent(&mut self.core.spare.pool);
                    }
                    Err(_) => return self.clients.close(index, &mut self.core),
                }
            }
            let left = !replies.out.is_empty() || client.stream.unsent();
            let full = left && (is_over || client.stream.unsent());
            if left && !full {
                client.dirty = true;
                self.core.turn.unwritten.push(index);
            }
            client.blocked = full;
            if full != client.watching {
                client.watching = full;
                let token = Source::Client(index).token();
                let registry = self.core.link.poll.registry();
                if client.stream.watch(registry, token, full, true).is_err() {
                    return self.clients.close(index, &mut self.core);
                }
            }
            let goes_on = match client.paused {
                Paused::Replies => replies.is_drained(),
                Paused::Yielding => replies.has_half(),
                _ => false,
            };
            if goes_on {
                self.core.turn.resume.push(ClientId::new(index, client.generation));
            }
            if replies.is_drained()
                && !left
                && let Some(mut replies) = client.replies.take()
            {
                replies.reset(&mut self.core.spare.pool);
                if self.core.spare.replies.len() < 256 {
                    self.core.spare.replies.push(replies);
                }
            }
        } else if matches!(client.paused, Paused::Replies | Paused::Yielding) {
            self.core.turn.resume.push(ClientId::new(index, client.generation));
        }
        if last {
            if !client.is_idle() {
                client.stream.hold_back(false);
            } else if client.paused == Paused::No {
                return self.clients.let_go_unless_it_speaks(index, &mut self.core);
            }
        }
        if client.is_over() {
            return self.end_client(index);
        }
        let closing =
            client.paused == Paused::Closing || (client.read_closed && client.paused == Paused::No);
        if closing && client.is_idle() && !client.stream.unsent() {
            return self.clients.close(index, &mut self.core);
        }
        if client.lent.is_some() {
            self.join_goes_on(index);
        }
        self.clients.account_client(index, &mut self.core);
        self.clients.check_output(index, &mut self.core);
    }

    /// An unfinished request counts, too: at the limit it is not waited for until the end of the
    /// turn, when thousands may have grown.
    pub(super) fn check_request_memory(&mut self, index: usize) {
        let much = |c: &Client| c.tail.len() >= MUCH_UNFINISHED && !c.gone;
        if !self.clients.is_over_memory(&mut self.nodes, &mut self.core) {
            return;
        }
        // At once: a turn may have a thousand clients whose commands are answered here, each with
        // more than it has sent. And others may hold more than this one.
        self.relieve();
        if !self.clients.is_over_memory(&mut self.nodes, &mut self.core)
            || !self.clients.slab.get(index).is_some_and(much)
        {
            return;
        }
        self.core.stats.limits_hit[LimitHit::Memory as usize] += 1;
        let failure = buffers_full(&self.core.settings);
        self.clients.answer_error(index, &failure, &mut self.core);
        self.clients.stop_reading(index, &mut self.core);
    }
}
