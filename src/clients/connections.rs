//! Reading from clients goes on or stops, and their output has limits.

use std::sync::atomic::Ordering;

use crate::client::Paused;
use crate::clients::{Clients, Flow};
use crate::common::effect::Effect;
use crate::common::{Core, Source};
use crate::dest::NodeId;
use crate::metrics::LimitHit;
use crate::nodes::reaccount;
use crate::sparsely;

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
        let limit = if subscriber && let Some(limit) = self.subscribed().limit(index, core) {
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

    /// The client has sent this node something that may change data.
    pub(crate) fn note_write(&mut self, index: usize, node: Option<NodeId>) {
        if let (Some(client), Some(node)) = (self.slab.get_mut(index), node) {
            client.wrote |= node.bit();
        }
    }

    /// The client's next command waits until all its replies are there.
    pub(crate) fn pause_until_replied(&mut self, index: usize, core: &mut Core) -> Flow {
        if let Some(client) = self.slab.get_mut(index) {
            client.paused = Paused::Replies;
            self.mark_client(index, core);
        }
        Flow::Pause
    }
}
