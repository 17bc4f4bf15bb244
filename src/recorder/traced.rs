//! Commands that are traced: chosen, followed on their way, and told when they are answered.
//!
//! Hardly any command is, and none where `tracing.endpoint` is empty: then the list of those under
//! way is empty, which is all that is looked at.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::SessionModes;
use crate::clients::Clients;
use crate::command::{Class, CommandId};
use crate::common::Core;
use crate::dest::{ConnId, Dest};
use crate::nodes::Nodes;
use crate::observe::{Attempt, TracedCommand};
use crate::operations::Operations;
use crate::recorder::seen::Seeing;
use crate::resp::reply::error_text;
use crate::upstream::Pending;

/// Traced commands under way in one worker; with so many no more are chosen.
const MOST: usize = 256;
/// What is not answered by then is not told, microseconds.
const LONGEST: u64 = 60_000_000;

impl Seeing {
    /// The client's next command, which was just read, is traced.
    #[cold]
    pub(crate) fn trace(
        &mut self,
        index: usize,
        command: CommandId,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(client) = clients.slab.get(index) else { return };
        let spec = core.router.table().get(command);
        // What is not answered, or answered when somebody else wants it, would be under way for ever.
        let waits = core.router.may_block(command) || matches!(&*spec.name, "wait" | "monitor");
        let odd = waits || spec.class == Class::PubSub;
        let silent = client.session.modes.intersects(SessionModes::SILENT | SessionModes::SKIP);
        if odd || silent || self.traced.len() >= MOST {
            return;
        }
        let waiting = client.replies.as_ref().map_or(0, |replies| replies.waiting());
        let to = Dest::Client {
            index: index as u32,
            generation: client.generation,
            seq: client.base.wrapping_add(waiting as u32),
        };
        let operation = spec.name.to_ascii_uppercase().replace('|', " ");
        let address = client.addresses().0;
        // It may have been paused, and be read once more.
        if self.traced.iter().all(|traced| traced.to != to) {
            let now = core.clock.epoch.elapsed().as_micros() as u64;
            self.traced.push(TracedCommand::new(to, operation, address, now));
        }
        self.look_from = 0;
    }

    /// A node has answered, maybe to a traced command.
    #[cold]
    #[allow(clippy::too_many_arguments)] // the parts that it works with, each borrowed
    pub(crate) fn trace_attempt(
        &mut self,
        conn: ConnId,
        pending: &Pending,
        reply: &[u8],
        again: bool,
        ops: &mut Operations,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let mut to = pending.dest;
        // A part of a part belongs to a command whose slot is half moved.
        while let Dest::Part { gather, .. } = to {
            let Some(gathering) = ops.gatherings.get(gather as usize) else { return };
            to = gathering.to;
        }
        let Some(traced) = self.traced.iter_mut().find(|traced| traced.to == to) else {
            return;
        };
        let Some(up) = nodes.upstreams.get(conn) else { return };
        let Some(node) = nodes.list.get(up.node.at()) else { return };
        let sent = up.stamps.sent_at(up.queue.sent(), pending.len as usize);
        let error = error_text(reply).map(|text| {
            let word = text.split(|b| *b == b' ').next().unwrap_or_default();
            String::from_utf8_lossy(word.get(..64).unwrap_or(word)).into_owned()
        });
        traced.attempt(Attempt {
            host: node.addr.host.to_string(),
            port: node.addr.port,
            begun: 0,
            sent: sent.unwrap_or(traced.started),
            replied: core.clock.epoch.elapsed().as_micros() as u64,
            error,
            followed: again,
        });
    }

    /// The end of a turn: what was answered is told.
    #[cold]
    pub(crate) fn finish_traced(&mut self, clients: &mut Clients, core: &mut Core) {
        let end = core.clock.epoch.elapsed().as_micros() as u64;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = wall.map_or(0, |wall| wall.as_nanos() as u64);
        let mut under_way = Vec::new();
        for traced in std::mem::take(&mut self.traced) {
            let Dest::Client { index, generation, seq } = traced.to else { continue };
            let client = clients.slab.get(index as usize).filter(|c| c.generation == generation);
            // Its client is gone: nobody is answered any more.
            let Some(client) = client else { continue };
            if !client.answered_up_to(seq) || client.blocked {
                // While any is under way all replies are looked at.
                if end.saturating_sub(traced.started) < LONGEST {
                    under_way.push(traced);
                } else {
                    core.shared.span_counts.dropped.fetch_add(1, Relaxed);
                }
                continue;
            }
            let spans = traced.finish(end, wall);
            let count = spans.spans.len() as u64;
            let sent = core.shared.spans.as_ref().map(|queue| queue.try_send(spans));
            if !matches!(sent, Some(Ok(()))) {
                core.shared.span_counts.dropped.fetch_add(count, Relaxed);
            }
        }
        self.traced = under_way;
    }
}
