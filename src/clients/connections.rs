//! Reading from clients goes on or stops, and their output has limits.

use std::sync::atomic::Ordering;

use crate::client::Paused;
use crate::clients::Clients;
use crate::common::clock::{Job, Timer};
use crate::common::effect::Effect;
use crate::common::{Core, Source};
use crate::dest::ClientId;
use crate::mailbox::{ProbeResult, Probed};
use crate::metrics::LimitHit;
use crate::nodes::{Nodes, reaccount};
use crate::sparsely;
use crate::upstream::{ConnectionState, Upstream};

impl Clients {
    pub(crate) fn read_again(&mut self, index: usize, core: &mut Core) {
        if let Some(client) = self.slab.get_mut(index)
            && !client.again
            && !client.gone
        {
            client.again = true;
            core.turn.again.push(Source::Client(index));
        }
    }

    /// No more commands are read; the client is closed when all its replies are written.
    pub(crate) fn stop_reading(&mut self, index: usize, core: &mut Core) {
        if let Some(client) = self.slab.get_mut(index)
            && client.paused != Paused::Leaving
        {
            client.paused = Paused::Closing;
            client.tail = Vec::new();
            self.mark_client(index, core);
        }
    }

    /// Closes the client now. Commands that it has sent still go their way.
    pub(crate) fn close(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.slab.get_mut(index) else { return };
        if client.gone {
            return;
        }
        client.gone = true;
        client.stream.unwatch(core.link.poll.registry());
        // The socket itself is closed at the end of the turn, with the client.
        client.stream.shut();
        client.tail = Vec::new();
        reaccount(&mut core.memory.accounted, &mut client.accounted, 0);
        core.stats.clients_closed += 1;
        core.shared.clients.fetch_sub(1, Ordering::Relaxed);
        core.turn.effects.push_back(Effect::Closed(index));
        core.link.uncount_client();
    }

    /// Control has looked at a silent node.
    pub(crate) fn probed(&mut self, probed: &Probed, nodes: &mut Nodes, core: &mut Core) {
        let begun = probed.begun.saturating_duration_since(core.clock.epoch).as_micros() as u64;
        let here = |up: &Upstream| {
            let node = nodes.list.get(usize::from(up.node));
            node.is_some_and(|n| n.socket == Some(probed.node))
        };
        let silent = |up: &Upstream| {
            up.state == ConnectionState::Ready
                && (1..=begun).contains(&up.quiet_since)
                && up.seen_read == up.last_read
        };
        let found = nodes.upstreams.iter().filter(|(_, up)| here(up));
        let (shared, dedicated): (Vec<_>, Vec<_>) =
            found.partition(|(_, up)| up.dedicated.is_none());
        let shared = shared.into_iter().filter(|(_, up)| silent(up));
        let shared: Vec<usize> = shared.map(|(u, _)| u).collect();
        let idle: Vec<usize> = dedicated.into_iter().map(|(u, _)| u).collect();
        for u in shared {
            nodes.silence().after_probe(u, probed.verdict, core);
        }
        if probed.verdict == ProbeResult::Unreachable {
            let idle: Vec<usize> =
                idle.into_iter().filter(|u| nodes.dedicated.idle.contains(u)).collect();
            idle.into_iter().for_each(|u| self.close_dedicated(u, nodes, core));
        }
    }

    /// The client has something to be written, or is to be looked at, at the end of the turn.
    #[inline]
    pub(crate) fn mark_client(&mut self, index: usize, core: &mut Core) {
        if let Some(client) = self.slab.get_mut(index)
            && !client.dirty
        {
            client.dirty = true;
            core.turn.dirty_clients.push(index);
        }
    }

    /// What a client has not taken is bounded: it is closed at its limit.
    pub(crate) fn check_output(&mut self, index: usize, core: &mut Core) {
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

    pub(crate) fn account_client(&mut self, index: usize, core: &mut Core) {
        // A closed one is on no account any more.
        if let Some(client) = self.slab.get_mut(index).filter(|client| !client.gone) {
            let at_hand = if core.turn.at_hand.0 == index { core.turn.at_hand.1 } else { 0 };
            let held = client.memory() + at_hand;
            reaccount(&mut core.memory.accounted, &mut client.accounted, held);
        }
    }

    /// What a subscriber has not taken is bounded as Redis bounds it. `None`: it is within.
    pub(crate) fn subscriber_limit(&mut self, index: usize, core: &mut Core) -> Option<LimitHit> {
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
    pub(crate) fn slow_subscriber(&mut self, client: ClientId, core: &mut Core) {
        let current = |c: &crate::client::Client| c.generation == client.generation && !c.gone;
        if self.slab.get(client.at()).is_some_and(current) {
            self.check_output(client.at(), core);
        }
    }
}
