//! What a worker sees of the commands that pass: keys by sample, big values, slow commands.
//!
//! The path of ordinary commands has three comparisons of it: a countdown and the size of each
//! request, the time and the size of each reply. All else is done for one command in
//! `observe.sample`, for values larger than those known, and for what was slow.

use std::time::Instant;

use crate::base::Base;
use crate::clients::Clients;
use crate::command::{Class, CommandId, key_positions};
use crate::common::Core;
use crate::common::requests::scan;
use crate::common::slow::{Unfinished, is_wait};
use crate::config::Config;
use crate::dest::{ClientId, ConnId, Dest, NodeId};
use crate::nodes::Nodes;
use crate::observe::{
    BigKeys, HotKeys, KeyReport, ObservedKeys, SLOW_LOG_OFF, SlowEntry, TimeBreakdown,
    TracedCommand, logged_args,
};
use crate::operations::Operations;
use crate::resp::reply::{elements, text};
use crate::resp::{ArgRange, Args};
use crate::upstream::Pending;

/// Of one command so many keys are looked at.
const MOST_KEYS: usize = 64;
/// Slow commands whose replies wait for their clients; what comes then is not waited for.
const MOST_UNFINISHED: usize = 1024;
/// Commands that are logged when many are given up at once.
const MOST_EXPIRED: usize = 1024;

impl Seeing {
    /// This worker's answer to PROXY HOTKEYS or BIGKEYS.
    pub(crate) fn seen_for(
        &mut self,
        kind: KeyReport,
        reset: bool,
        core: &mut Core,
    ) -> ObservedKeys {
        let seen = self.copy(core.now);
        if reset {
            self.reset(kind, core.now);
        }
        seen
    }

    pub fn new(config: &Config) -> Self {
        let mut seeing = Seeing {
            countdown: 0,
            big_from: usize::MAX,
            look_from: SLOW_LOG_OFF,
            counted_from: 0,
            to_sample: 0,
            to_trace: 0,
            trace: if config.tracing.endpoint.is_empty() {
                0
            } else {
                config.tracing.sample as u32
            },
            traced: Vec::new(),
            sample: if config.observe.hot_keys { config.observe.sample as u32 } else { 0 },
            hot: HotKeys::new(0),
            big: BigKeys::default(),
            random: fastrand::Rng::new(),
            keys: Vec::new(),
            ranges: Vec::new(),
            unfinished: Vec::new(),
        };
        seeing.next_sample();
        seeing.set_floor();
        seeing
    }

    /// Another configuration.
    pub fn configure(&mut self, config: &Config, now: u64) {
        let sample = if config.observe.hot_keys { config.observe.sample as u32 } else { 0 };
        let trace = if self.trace == 0 { 0 } else { config.tracing.sample as u32 };
        if sample == 0 && self.sample != 0 {
            self.reset(KeyReport::Hot, now);
            self.reset(KeyReport::Big, now);
        }
        if (sample, trace) != (self.sample, self.trace) {
            (self.sample, self.trace) = (sample, trace);
            (self.to_sample, self.to_trace) = (0, 0);
            self.next_sample();
        }
        self.set_floor();
    }

    /// Draws anew what was counted down to.
    fn next_sample(&mut self) {
        // At random, or what clients do in turns would be seen in one of its turns only.
        let mut draw = |one_in: u32| match one_in {
            0 => u32::MAX,
            n => self.random.u32(1..=n.saturating_mul(2) - 1),
        };
        if self.to_sample == 0 {
            self.to_sample = draw(self.sample);
        }
        if self.to_trace == 0 {
            self.to_trace = draw(self.trace);
        }
        self.counted_from = self.to_sample.min(self.to_trace);
        self.countdown = self.counted_from;
    }

    /// The countdown is over: whether the command is a sample, and whether it is traced.
    fn is_sample(&mut self) -> (bool, bool) {
        if self.countdown > 0 {
            return (false, false);
        }
        self.to_sample -= self.counted_from;
        self.to_trace -= self.counted_from;
        let due = (self.to_sample == 0 && self.sample > 0, self.to_trace == 0 && self.trace > 0);
        self.next_sample();
        due
    }

    fn set_floor(&mut self) {
        self.big_from = if self.sample == 0 { usize::MAX } else { self.big.floor() };
    }

    /// What is known, and nothing any more if `reset`.
    pub fn copy(&mut self, now: u64) -> ObservedKeys {
        self.big.forget(now);
        self.set_floor();
        ObservedKeys { hot: self.hot.hottest(now), big: self.big.biggest(now) }
    }

    pub fn reset(&mut self, which: KeyReport, now: u64) {
        match which {
            KeyReport::Hot => self.hot = HotKeys::new(now),
            KeyReport::Big => self.big = BigKeys::default(),
        }
        self.set_floor();
    }

    /// A request that is a sample, or large.
    #[cold]
    pub(crate) fn look_at(
        &mut self,
        index: usize,
        args: &Args,
        len: usize,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let command = core.router.command(args);
        let (sampled, traced) = self.is_sample();
        if traced {
            self.trace(index, command, clients, core);
        }
        let spec = core.router.table().get(command);
        let mut keys = std::mem::take(&mut self.keys);
        if spec.class != Class::PubSub && key_positions(spec, args, &mut keys).is_ok() {
            let write = spec.is_write();
            if sampled {
                core.stats.sampled += 1;
                for key in keys.iter().take(MOST_KEYS).filter_map(|&at| args.get(at as usize)) {
                    self.hot.count(key, f64::from(self.sample), write, command.0, core.now);
                }
                if self.big.forget(core.now) {
                    self.set_floor();
                }
            }
            if len >= self.big_from && write {
                // What stands between one key and the next is what is written to it.
                let ends = keys.iter().skip(1).map(|&at| at as usize).chain([args.len()]);
                for (&at, end) in keys.iter().zip(ends).take(MOST_KEYS) {
                    let value = (at as usize + 1..end).filter_map(|i| args.get(i));
                    let bytes = value.map(<[u8]>::len).sum();
                    let key = args.get(at as usize).unwrap_or_default();
                    self.big.see(key, bytes, command.0, false, core.now);
                }
                self.set_floor();
            }
        }
        self.keys = keys;
    }

    /// A reply that was slow, or is large: `bytes` in all, of which `reply` may be only the end. The
    /// command is still the first one of its connection.
    #[cold]
    pub(crate) fn look_back(
        &mut self,
        conn: ConnId,
        pending: &Pending,
        reply: &[u8],
        bytes: usize,
        ops: &mut Operations,
        base: &mut Base<'_>,
    ) {
        if bytes >= self.big_from {
            self.look_at_value(conn, pending, reply, bytes, base.nodes, base.core);
        }
        if base.core.now.saturating_sub(pending.started) >= base.core.shared.slow.slower_than() {
            self.note_slow(conn, pending, ops, base);
        }
        if !self.traced.is_empty() {
            self.trace_attempt(conn, pending, reply, false, ops, base.nodes, base.core);
        }
    }

    fn look_at_value(
        &mut self,
        conn: ConnId,
        pending: &Pending,
        reply: &[u8],
        bytes: usize,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let Some(up) = nodes.upstreams.get(conn) else { return };
        // A transaction's replies are several commands' in one.
        let Some(request) = up.queue.front(pending.len as usize).filter(|_| pending.before == 0)
        else {
            return;
        };
        let mut ranges = std::mem::take(&mut self.ranges);
        let args = scan(request, &core.settings.request, &mut ranges);
        let spec = core.router.table().get(pending.command);
        let error = reply.first() == Some(&b'-');
        let mut keys = std::mem::take(&mut self.keys);
        if !error && spec.class != Class::PubSub && key_positions(spec, &args, &mut keys).is_ok() {
            let mut see = |at: u32, bytes| {
                let key = args.get(at as usize).unwrap_or_default();
                self.big.see(key, bytes, pending.command.0, true, core.now);
            };
            match keys.as_slice() {
                // A bulk is its text; of a list all that stands in it counts.
                [at] => see(*at, if reply.len() == bytes { value_len(reply) } else { bytes }),
                several if several.len() <= MOST_KEYS && reply.len() == bytes => {
                    let values: Vec<&[u8]> = elements(reply).collect();
                    if values.len() == several.len() {
                        several.iter().zip(values).for_each(|(at, v)| see(*at, value_len(v)));
                    }
                }
                _ => {}
            }
            self.set_floor();
        }
        self.keys = keys;
        self.ranges = ranges;
    }

    /// The command at the head of its connection was slow.
    fn note_slow(
        &mut self,
        conn: ConnId,
        pending: &Pending,
        ops: &mut Operations,
        base: &mut Base<'_>,
    ) {
        let Some(up) = base.nodes.upstreams.get(conn) else { return };
        // Blocking commands wait because they were told to; KEYS is looked at when it is whole.
        if up.dedicated.is_some()
            && (pending.before == 0 || is_wait(pending.command, &base.core.router))
        {
            return;
        }
        let frame = up.queue.front(pending.len as usize).unwrap_or_default();
        let args = base.core.settings.slow_args(pending, frame);
        let sent = up.stamps.sent_at(up.queue.sent(), pending.len as usize);
        self.slow_part(up.node, pending, args, sent.unwrap_or(pending.started), ops, base);
    }

    /// KEYS has its whole reply.
    #[cold]
    pub(crate) fn note_join(
        &mut self,
        client: ClientId,
        seq: u32,
        command: CommandId,
        took: u64,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(errand) = clients.errands().of(client.at()).filter(|e| e.seq == seq) else {
            return;
        };
        let frame = std::mem::take(&mut errand.frame);
        let mut ranges = Vec::new();
        let args = logged_args(&scan(&frame, &core.settings.accepted, &mut ranges));
        let took = TimeBreakdown { node: took, ..TimeBreakdown::default() };
        let entry = SlowEntry { took, args, tries: 1, ..SlowEntry::default() };
        let to = Dest::client(client, seq);
        self.slow_command(entry, command, to, clients, core);
    }

    /// What has waited in this connection since `before` or longer is given up.
    #[cold]
    pub(crate) fn note_expired(
        &mut self,
        conn: ConnId,
        before: u64,
        ops: &mut Operations,
        base: &mut Base<'_>,
    ) {
        let Some(up) = base.nodes.upstreams.get(conn) else { return };
        let (mut found, mut offset) = (Vec::new(), 0);
        for (i, pending) in up.pending.iter().enumerate() {
            let (start, len) = (offset, pending.len as usize);
            offset += len;
            let arriving = up.streaming && i == 0;
            if arriving || pending.started > before || pending.dest == Dest::Discard {
                continue;
            }
            let args =
                base.core.settings.slow_args(pending, up.queue.at(start, len).unwrap_or_default());
            found.push((*pending, args, up.stamps.sent_at(up.queue.sent(), offset)));
            if found.len() >= MOST_EXPIRED {
                break;
            }
        }
        let node = up.node;
        for (pending, args, sent) in found {
            self.slow_part(node, &pending, args, sent.unwrap_or(base.core.now), ops, base);
        }
    }

    /// The same for one that has waited for its slot's node, and was not sent.
    #[cold]
    pub(crate) fn note_held(
        &mut self,
        pending: &Pending,
        frame: &[u8],
        ops: &mut Operations,
        base: &mut Base<'_>,
    ) {
        let args = base.core.settings.slow_args(pending, frame);
        self.slow_part(NodeId::NONE, pending, args, base.core.now, ops, base);
    }

    /// A slow command of one node, or a part of one.
    fn slow_part(
        &mut self,
        node: NodeId,
        pending: &Pending,
        args: Vec<Vec<u8>>,
        sent: u64,
        ops: &mut Operations,
        base: &mut Base<'_>,
    ) {
        let waited = base.core.now.saturating_sub(pending.started);
        if waited < base.core.shared.slow.slower_than() {
            return;
        }
        let queue = sent.saturating_sub(pending.started).min(waited);
        let node = base.nodes.list.get(node.at()).map(|node| node.addr.to_string());
        let entry = SlowEntry {
            took: TimeBreakdown { queue, node: waited - queue, ..TimeBreakdown::default() },
            node: node.unwrap_or_default(),
            tries: pending.tries,
            args,
            ..SlowEntry::default()
        };
        match pending.dest {
            Dest::Client { .. } => {
                self.slow_command(entry, pending.command, pending.dest, base.clients, base.core)
            }
            // The last one that was slow is what the whole has waited for.
            Dest::Part { gather, .. } => {
                if let Some(gathering) = ops.gatherings.get_mut(gather as usize) {
                    let args = gathering.kept.as_ref().map(|kept| kept.logged());
                    let args = args.unwrap_or(entry.args);
                    gathering.slow = Some(Box::new(SlowEntry { args, ..entry }));
                }
            }
            Dest::Join { .. } | Dest::Discard => {}
        }
    }

    /// A command of many parts is answered, one of which was slow.
    #[cold]
    pub(crate) fn slow_gathering(
        &mut self,
        entry: SlowEntry,
        command: CommandId,
        to: Dest,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let took = entry.took.queue + entry.took.node;
        if took >= core.shared.slow.slower_than() {
            self.slow_command(entry, command, to, clients, core);
        }
    }

    /// The reply is there; the entry is complete when it is written.
    fn slow_command(
        &mut self,
        mut entry: SlowEntry,
        command: CommandId,
        to: Dest,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Dest::Client { index, generation, .. } = to else { return };
        entry.command = core.router.table().get(command).name.to_string();
        let client = clients.slab.get(index as usize);
        if let Some(client) = client.filter(|client| client.generation == generation) {
            entry.client = client.addresses().0;
            entry.client_name = client.session.name.as_deref().cloned().unwrap_or_default();
        }
        let unfinished = Unfinished { entry, to, replied: core.now };
        if self.unfinished.len() < MOST_UNFINISHED {
            self.unfinished.push(unfinished);
        } else {
            core.shared.finish_slow(unfinished, core.now);
        }
    }

    /// The end of a turn: replies have been written.
    #[inline]
    pub(crate) fn finish_seen(&mut self, clients: &mut Clients, core: &mut Core) {
        if !self.unfinished.is_empty() {
            self.finish_all_slow(clients, core);
        }
        if !self.traced.is_empty() {
            self.finish_traced(clients, core);
        }
    }

    #[cold]
    fn finish_all_slow(&mut self, clients: &mut Clients, core: &mut Core) {
        let now = core.clock.epoch.elapsed().as_micros() as u64;
        let mut waiting = Vec::new();
        for slow in std::mem::take(&mut self.unfinished) {
            let Dest::Client { index, generation, seq } = slow.to else { continue };
            let client = clients.slab.get(index as usize);
            let written = client.is_none_or(|client| {
                client.generation != generation || (client.answered_up_to(seq) && !client.blocked)
            });
            if written {
                core.shared.finish_slow(slow, now);
            } else {
                waiting.push(slow);
            }
        }
        self.unfinished = waiting;
    }

    /// The beginning of a turn: what counts as slow may have been set anew.
    #[inline]
    pub(crate) fn look_around(&mut self, core: &mut Core) {
        self.look_from = match self.traced.is_empty() {
            true => core.shared.slow.slower_than(),
            false => 0,
        };
    }

    /// A command that slotway answered itself, where everything is logged.
    #[cold]
    pub(crate) fn note_own(
        &mut self,
        index: usize,
        command: CommandId,
        args: &Args,
        begun: Instant,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(client) = clients.slab.get(index) else { return };
        let took = begun.elapsed().as_micros() as u64;
        if took < core.shared.slow.slower_than() {
            return;
        }
        let entry = SlowEntry {
            took: TimeBreakdown { queue: took, ..TimeBreakdown::default() },
            args: logged_args(args),
            ..SlowEntry::default()
        };
        let (generation, seq) = (client.generation, client.base.wrapping_sub(1));
        self.slow_command(
            entry,
            command,
            Dest::Client { index: index as u32, generation, seq },
            clients,
            core,
        );
    }
}

/// One worker's view.
#[derive(Debug)]
pub(crate) struct Seeing {
    /// Commands until the next sample.
    pub(crate) countdown: u32,
    /// A request or reply of so many bytes may hold a value larger than those known.
    pub(crate) big_from: usize,
    /// A reply that took so many microseconds is looked at.
    pub(crate) look_from: u64,
    /// What [`Seeing::countdown`] began with.
    counted_from: u32,
    /// Commands from there to the next sample, and to the next one that is traced.
    to_sample: u32,
    to_trace: u32,
    /// One command in so many; 0 is none.
    sample: u32,
    /// The same for what is traced.
    pub(crate) trace: u32,
    /// Traced commands under way.
    pub(crate) traced: Vec<TracedCommand>,
    pub(crate) hot: HotKeys,
    pub(crate) big: BigKeys,
    random: fastrand::Rng,
    pub(crate) keys: Vec<u32>,
    pub(crate) ranges: Vec<ArgRange>,
    pub(crate) unfinished: Vec<Unfinished>,
}

/// Bytes of a value in a reply: a text's own, or all texts' that stand in a list.
fn value_len(reply: &[u8]) -> usize {
    let own = |reply: &[u8]| text(reply).map(<[u8]>::len);
    own(reply).unwrap_or_else(|| elements(reply).map(|e| own(e).unwrap_or(e.len())).sum())
}
