//! Connections that are lent to one client at a time, and what they are lent for.
//!
//! A client's **errand** is a command that needs such a connection (a blocking one, WATCH, EXEC
//! behind WATCH). It begins when all earlier replies are there, and nothing more is read from the
//! client until it is answered: so it keeps its order with what goes over the shared connections.
//!
//! A connection that is returned clean goes back to a small pool; one whose state is not known is
//! closed. `limits.dedicated` counts both, over all workers.

use std::sync::atomic::Ordering;

use super::answer::{ASKING, refusal_delay};
use super::clock::{Job, Timer};
use super::downstream::Flow;
use super::{NOBODY, Worker, reaccount};
use crate::client::{Errand, Kind, Paused, Watch};
use crate::cluster::slot_of;
use crate::command::{CommandId, key_positions};
use crate::metrics::LimitHit;
use crate::resp::reply::{error_text, text};
use crate::resp::{ArgRange, Args, Protocol, RequestProgress, scan_request, write};
use crate::route::{Merge, Refusal, left_of, wait_time};
use crate::upstream::{Dedicated, Dest, NO_SLOT, Pending, State, Upstream, flag};

/// Idle connections that a worker keeps.
const MOST_IDLE: usize = 64;
/// How long an errand waits for its slot to get a primary before it looks again, microseconds.
pub(super) const NO_PRIMARY_PAUSE: u64 = 20_000;
const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";
/// In place of an errand's number: MONITOR looks for primaries that it does not hear.
const MONITOR_AGAIN: u32 = u32::MAX;
const MONITOR: &[u8] = b"*1\r\n$7\r\nMONITOR\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const CLIENT_INFO: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$4\r\nINFO\r\n";

impl Worker {
    /// A connection to `node` for this client alone. `Err`: the text for it; empty where no
    /// connection can be made at the moment.
    pub(super) fn lend(
        &mut self,
        node: u16,
        protocol: Protocol,
        client: (u32, u32),
    ) -> Result<usize, String> {
        let lent = Dedicated { client: Some(client), id: 0 };
        let fits = |&u: &usize| {
            self.upstreams.get(u).is_some_and(|up| up.node == node && up.protocol == protocol)
        };
        if let Some(at) = self.idle.iter().position(fits) {
            let u = self.idle.swap_remove(at);
            if let Some(dedicated) = self.upstreams.get_mut(u).and_then(|up| up.dedicated.as_mut())
            {
                dedicated.client = lent.client;
                return Ok(u);
            }
        }
        let most = self.settings.dedicated;
        if self.shared.dedicated.load(Ordering::Relaxed) >= most
            && let Some(u) = self.idle.pop()
        {
            self.close_dedicated(u);
        }
        let counted = &self.shared.dedicated;
        let more = |n: usize| (n < most).then_some(n + 1);
        if counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.stats.limits_hit[LimitHit::Dedicated as usize] += 1;
            return Err(format!(
                "ERR slotway has lent all connections that it may for blocking commands, WATCH and \
                 MONITOR: limits.dedicated = {most}; try again, or raise it"
            ));
        }
        let mut up = Upstream::new(node, protocol);
        up.dedicated = Some(lent);
        let u = self.upstreams.insert(up);
        self.connect(u);
        if self.dead.contains(&u) { Err(String::new()) } else { Ok(u) }
    }

    /// The client is done with the connection.
    pub(super) fn give_back(&mut self, u: usize) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        let Some(dedicated) = up.dedicated.as_mut() else { return };
        dedicated.client = None;
        let clean = up.state == State::Ready
            && up.pending.iter().all(|p| p.dest == Dest::Discard)
            && self.nodes.get(usize::from(up.node)).is_some_and(|n| n.known);
        if clean && self.idle.len() < MOST_IDLE && !self.idle.contains(&u) {
            self.idle.push(u);
        } else {
            self.close_dedicated(u);
        }
    }

    /// Closes the connection; its place is free at the end of the turn.
    pub(super) fn close_dedicated(&mut self, u: usize) {
        self.idle.retain(|&i| i != u);
        let Some(up) = self.upstreams.get_mut(u) else { return };
        if up.dedicated.is_none() || self.dead.contains(&u) {
            return;
        }
        if let Some(mut stream) = up.stream.take() {
            stream.unwatch(self.poll.registry());
        }
        up.dedicated = Some(Dedicated::default());
        up.state = State::Backoff;
        up.pending.clear();
        up.queue.clear(&mut self.pool);
        up.tail = Vec::new();
        reaccount(&mut self.accounted, &mut up.accounted, 0);
        self.dead.push(u);
        // Every one was counted when it was made.
        let one_less = |n: usize| n.checked_sub(1);
        let _ = self.shared.dedicated.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    /// A blocking command.
    pub(super) fn block(&mut self, index: usize, command: u16, slot: u16, frame: &[u8]) -> Flow {
        if self.clients.get(index).is_some_and(|c| !c.is_drained()) {
            return self.pause_until_replied(index);
        }
        self.start_errand(index, Kind::Block, command, slot, frame.to_vec());
        Flow::Next
    }

    pub(super) fn watch(&mut self, index: usize, command: u16, frame: &[u8], args: &Args) -> Flow {
        if self.clients.get(index).is_some_and(|c| !c.is_drained()) {
            return self.pause_until_replied(index);
        }
        let mut keys = Vec::new();
        let spec = self.router.table().get(CommandId(command));
        // Its arity was looked at: it has keys.
        let _ = key_positions(spec, args, &mut keys);
        let mut slots: Vec<(u16, &[u8])> = keys
            .iter()
            .filter_map(|&at| args.get(at as usize))
            .map(|key| (slot_of(key).0, key))
            .collect();
        slots.sort_by_key(|s| s.0);
        let watched = self.clients.get(index).and_then(|c| c.lent.as_ref());
        let watched = watched.and_then(|l| l.watches.first());
        let before = watched.map(|w| (w.slot, &*w.key));
        if !self.settings.split_transactions
            && let Some(&first) = before.as_ref().or(slots.first())
            && let Some(&other) = slots.iter().find(|s| s.0 != first.0)
        {
            let text = super::transaction::cross_slot(first.1, first.0, other.1, other.0);
            self.answer_own_error(index, command, &text);
            return Flow::Next;
        }
        match slots.as_slice() {
            [first, .., last] if first.0 != last.0 => {
                self.watch_slots(index, command, &slots);
            }
            [first, ..] => {
                self.start_errand(index, Kind::Watch, command, first.0, frame.to_vec());
            }
            [] => {}
        }
        Flow::Next
    }

    /// WATCH over several slots: one connection each; one reply for all.
    fn watch_slots(&mut self, index: usize, command: u16, keys: &[(u16, &[u8])]) {
        let Some(g) = self.start_fleet(index, command, NO_SLOT, Merge::AllSucceeded, None) else {
            return;
        };
        let groups: Vec<_> = keys.chunk_by(|a, b| a.0 == b.0).collect();
        if let Some(gathering) = self.gatherings.get_mut(g) {
            groups.iter().for_each(|_| gathering.gather.expect());
        }
        for group in groups {
            let Some(&(slot, key)) = group.first() else { continue };
            let mut args: Vec<&[u8]> = vec![b"WATCH"];
            args.extend(group.iter().map(|g| g.1));
            let mut frame = Vec::new();
            write::request(&mut frame, &args);
            let Some(client) = self.clients.get(index) else { return };
            let of_slot = |l: &crate::client::Lent| {
                l.watches.iter().find(|w| w.slot == slot).and_then(|w| w.upstream)
            };
            let present = client.lent.as_ref().and_then(|l| of_slot(l));
            let owner = self.owners.get(usize::from(slot)).copied().filter(|&n| n != NOBODY);
            let (protocol, me) = (client.session.protocol, (index as u32, client.generation));
            let lent = match (present, owner) {
                (Some(u), _) => Ok(u),
                (None, Some(node)) => self.lend(node, protocol, me),
                (None, None) => Err(format!("CLUSTERDOWN slot {slot} has no primary")),
            };
            let dest = Dest::Part { gather: g as u32, first: 0 };
            let pending = self.pending(dest, command, slot, protocol);
            match lent {
                Ok(u) => {
                    if present.is_none() {
                        let watch = Watch { slot, key: key.into(), upstream: Some(u) };
                        self.lent(index, |lent| lent.watches.push(watch));
                    }
                    self.send_owned(u, pending, frame);
                }
                Err(text) => self.fail(&pending, "slotway", &text),
            }
        }
    }

    /// The client watches nothing any more.
    pub(super) fn unwatch(&mut self, index: usize) {
        let Some(lent) = self.clients.get_mut(index).and_then(|c| c.lent.as_mut()) else { return };
        let watches = std::mem::take(&mut lent.watches);
        for u in watches.into_iter().filter_map(|w| w.upstream) {
            self.discard(u, UNWATCH);
            self.give_back(u);
        }
        self.forget_lent(index);
    }

    /// Sends something whose reply is nobody's.
    fn discard(&mut self, u: usize, frame: &[u8]) {
        let pending = Pending {
            dest: Dest::Discard,
            len: 0,
            slot: NO_SLOT,
            command: 0,
            flags: 0,
            tries: 0,
            before: 0,
            started: self.now,
        };
        self.send(u, pending, frame);
    }

    fn lent(&mut self, index: usize, change: impl FnOnce(&mut crate::client::Lent)) {
        if let Some(client) = self.clients.get_mut(index) {
            change(client.lent.get_or_insert_with(Box::default));
        }
    }

    fn forget_lent(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index)
            && client.lent.as_ref().is_some_and(|l| l.is_over())
        {
            client.lent = None;
        }
    }

    pub(super) fn errand(&mut self, index: usize) -> Option<&mut Errand> {
        self.clients.get_mut(index)?.lent.as_mut()?.errand.as_mut()
    }

    /// Begins an errand and sends its command.
    fn start_errand(&mut self, index: usize, kind: Kind, command: u16, slot: u16, frame: Vec<u8>) {
        let mut ranges: Vec<ArgRange> = Vec::new();
        let args = super::transaction::scan(&frame, &self.settings.request, &mut ranges);
        let time = if kind == Kind::Block { wait_time(&args) } else { None };
        // Its own time and the deadline of every command; for ever is for ever.
        let own = match time {
            Some(time) => time.micros,
            None => Some(0),
        };
        let mut errand = Errand::new(kind, command, slot, frame, self.now);
        errand.time = time;
        self.begin_errand(index, errand, own);
        self.send_errand(index, None);
    }

    /// From now on the client waits for `errand`; `own` is the time that it may take beside the
    /// deadline of every command, `None` for ever.
    pub(super) fn begin_errand(
        &mut self,
        index: usize,
        mut errand: Errand,
        own: Option<u64>,
    ) -> Option<Dest> {
        let client = self.clients.get_mut(index)?;
        let generation = client.generation;
        let seq = client.expect(&mut self.spare_replies);
        client.paused = Paused::Command;
        errand.seq = seq;
        errand.until = own.zip(self.settings.command_timeout).map(|(a, b)| self.now + a + b);
        if let Some(due) = errand.until {
            self.timers.push(Timer { due, job: Job::ErrandEnd(index as u32, generation, seq) });
        }
        self.lent(index, |lent| lent.errand = Some(errand));
        Some(Dest::Client { index: index as u32, generation, seq })
    }

    /// EXEC on the connection that watches.
    pub(super) fn run_errand(
        &mut self,
        index: usize,
        kind: Kind,
        command: u16,
        frame: Vec<u8>,
        before: u32,
    ) {
        let lent = self.clients.get_mut(index).and_then(|c| c.lent.as_mut());
        let watch = lent.and_then(|l| l.watches.pop());
        let Some((slot, Some(u))) = watch.map(|w| (w.slot, w.upstream)) else { return };
        let mut errand = Errand::new(kind, command, slot, Vec::new(), self.now);
        errand.upstream = Some(u);
        let Some(dest) = self.begin_errand(index, errand, Some(0)) else { return };
        let protocol = self.clients.get(index).map_or(Protocol::Resp2, |c| c.session.protocol);
        let mut pending = self.pending(dest, command, slot, protocol);
        pending.before = before;
        self.note_write(index, self.upstreams.get(u).map(|up| up.node));
        self.scripts_before_batch(u, &mut pending, &frame);
        self.send_owned(u, pending, frame);
    }

    /// The client has sent this node something that may change data.
    pub(super) fn note_write(&mut self, index: usize, node: Option<u16>) {
        if let (Some(client), Some(node)) = (self.clients.get_mut(index), node) {
            client.wrote |= 1 << (node & 63);
        }
    }

    /// Sends the errand's command to its slot's primary, or to `ask` with ASKING.
    fn send_errand(&mut self, index: usize, ask: Option<u16>) {
        let owners = &self.owners;
        let Some(client) = self.clients.get_mut(index) else { return };
        let (protocol, generation) = (client.session.protocol, client.generation);
        let Some(lent) = client.lent.as_mut() else { return };
        let Some(errand) = lent.errand.as_mut() else { return };
        let watching = lent.watches.iter().find(|w| w.slot == errand.slot).map(|w| w.upstream);
        let me = (index as u32, generation);
        let (seq, slot, command) = (errand.seq, errand.slot, errand.command);
        let owner = owners.get(usize::from(slot)).copied().filter(|&n| n != NOBODY);
        let Some(node) = ask.or(owner) else {
            errand.last = Some(format!("CLUSTERDOWN slot {slot} has no primary"));
            self.want_topology(None);
            return self.errand_later(me, seq, NO_PRIMARY_PAUSE);
        };
        // WATCH of more keys of a slot that is watched already, on a connection that was lost:
        // what was watched there may have changed, and EXEC will say so.
        if errand.kind == Kind::Watch && watching == Some(None) {
            let dest = Dest::Client { index: me.0, generation, seq };
            self.end_errand(me, seq);
            return self.deliver_own(dest, b"+OK\r\n");
        }
        let mut frame = std::mem::take(&mut self.line);
        frame.clear();
        match errand.time {
            Some(time) if errand.tries > 0 && time.micros.is_some() => {
                let spent = self.now.saturating_sub(errand.started);
                let left = time.micros.unwrap_or(0).saturating_sub(spent);
                let mut ranges = Vec::new();
                let args =
                    super::transaction::scan(&errand.frame, &self.settings.request, &mut ranges);
                frame.extend_from_slice(&left_of(&args, time, left));
            }
            _ => frame.extend_from_slice(&errand.frame),
        }
        let (started, tries) = (errand.started, errand.tries);
        let lent = match watching.flatten() {
            Some(u) => Ok(u),
            None => self.lend(node, protocol, me),
        };
        self.note_write(index, Some(node));
        match lent {
            Ok(u) => {
                if let Some(errand) = self.errand(index) {
                    errand.upstream = Some(u);
                }
                if ask.is_some() {
                    self.discard(u, ASKING);
                }
                let dest = Dest::Client { index: me.0, generation, seq };
                let mut pending = self.pending(dest, command, slot, protocol);
                (pending.started, pending.tries) = (started, tries);
                self.send(u, pending, &frame);
            }
            Err(text) if text.is_empty() => {
                if let Some(errand) = self.errand(index) {
                    errand.tries = errand.tries.saturating_add(1);
                }
                self.errand_later(me, seq, NO_PRIMARY_PAUSE);
            }
            Err(text) => self.fail_errand(me, seq, &text),
        }
        if frame.capacity() <= crate::buf::CHUNK {
            self.line = frame;
        }
    }

    pub(super) fn errand_later(&mut self, client: (u32, u32), seq: u32, delay: u64) {
        let job = Job::Errand(client.0, client.1, seq);
        self.timers.push(Timer { due: self.now + delay, job });
    }

    /// Its pause is over.
    pub(super) fn errand_again(&mut self, index: u32, generation: u32, seq: u32) {
        let current = |c: &&mut crate::client::Client| c.generation == generation && !c.gone;
        let Some(client) = self.clients.get_mut(index as usize).filter(current) else { return };
        let errand = client.lent.as_ref().and_then(|l| l.errand.as_ref());
        if seq == MONITOR_AGAIN {
            self.monitor_others(index as usize);
        } else if errand.is_some_and(|e| e.seq == seq && e.kind == Kind::Join) {
            self.send_join(index as usize);
        } else if errand.is_some_and(|e| e.seq == seq && e.upstream.is_none()) {
            self.send_errand(index as usize, None);
        }
    }

    /// The errand's deadline has come.
    pub(super) fn errand_ends(&mut self, index: u32, generation: u32, seq: u32) {
        let Some(client) = self.clients.get(index as usize) else { return };
        let Some(lent) = client.lent.as_ref() else { return };
        let Some(errand) = lent.errand.as_ref() else { return };
        if client.generation != generation || errand.seq != seq || errand.until.is_none() {
            return;
        }
        self.stats.deadline_exceeded += 1;
        let sent = errand.upstream.and_then(|u| self.upstreams.get(u));
        let node = sent.map(|up| up.node).or(self.owners.get(usize::from(errand.slot)).copied());
        let node = node.and_then(|n| self.nodes.get(usize::from(n)));
        let node = node.map_or_else(|| "none".to_owned(), |n| n.addr.to_string());
        let waited = self.now.saturating_sub(errand.started) as f64 / 1e6;
        let outcome = match (sent, errand.kind) {
            (None, _) => "not executed",
            (_, Kind::Watch | Kind::Check { .. } | Kind::Join) => "not answered",
            _ => "sent and not answered, so it may or may not have been executed",
        };
        let why = errand.last.as_ref().map(|w| format!("; last: {w}")).unwrap_or_default();
        let slot = match errand.slot {
            NO_SLOT => String::new(),
            slot => format!(" for slot {slot}"),
        };
        let text = format!(
            "ERR slotway waited {waited:.1} s (its own time and timeouts.command){slot}, node \
             {node}, {} tries: the command was {outcome}{why}",
            u32::from(errand.tries) + 1
        );
        let mut fleet = lent.fleet.clone();
        fleet.extend(errand.upstream);
        let is_fleet = errand.kind == Kind::Fleet;
        for u in fleet {
            if is_fleet {
                self.dedicated_lost(u, "no reply within its time and timeouts.command");
            } else {
                self.close_dedicated(u);
            }
        }
        self.end_joins_of((index, generation));
        self.fail_errand((index, generation), seq, &text);
    }

    /// An error of slotway's own in place of the errand's reply.
    pub(super) fn fail_errand(&mut self, client: (u32, u32), seq: u32, text: &str) {
        let index = client.0 as usize;
        let Some(errand) = self.errand(index).filter(|e| e.seq == seq) else { return };
        let (command, kind) = (errand.command, errand.kind);
        if let Some(stats) = self.stats.commands.get_mut(usize::from(command)) {
            stats.refused += 1;
        }
        let mut frame = Vec::new();
        write::error(&mut frame, text);
        self.end_errand(client, seq);
        if let Kind::Check { .. } = kind {
            self.drop_transaction(index);
        }
        self.deliver_own(Dest::Client { index: client.0, generation: client.1, seq }, &frame);
    }

    /// The client's errand is answered: it is read from again.
    pub(super) fn end_errand(&mut self, client: (u32, u32), seq: u32) {
        let index = client.0 as usize;
        let Some(c) = self.clients.get_mut(index).filter(|c| c.generation == client.1) else {
            return;
        };
        let Some(lent) = c.lent.as_mut() else { return };
        if lent.errand.as_ref().is_none_or(|e| e.seq != seq) {
            return;
        }
        lent.errand = None;
        if c.paused == Paused::Command {
            self.resume.push(client);
        }
        self.forget_lent(index);
    }

    /// A complete reply on a dedicated connection. `said` is what the node refused of a batch, or
    /// `frame` itself.
    pub(super) fn dedicated_reply(
        &mut self,
        u: usize,
        said: &[u8],
        frame: &[u8],
    ) -> Result<(), String> {
        let Some(up) = self.upstreams.get(u) else { return Ok(()) };
        let Some(&pending) = up.pending.front() else {
            return self.monitored(u, frame);
        };
        let Some(Dedicated { client, .. }) = up.dedicated else { return Ok(()) };
        let node = up.node;
        let Dest::Client { index, generation, seq } = pending.dest else {
            return self.part_of_dedicated(u, &pending, said, frame);
        };
        let me = (index, generation);
        let refusal = self.nodes.get(usize::from(node)).and_then(|n| {
            let refusal = Refusal::parse(said, &n.addr)?;
            let of_its_slot = match &refusal {
                Refusal::Moved(at, _) | Refusal::Ask(at, _) => at.0 == pending.slot,
                Refusal::Later(_) => true,
            };
            of_its_slot.then_some(refusal)
        });
        let owner = self.clients.get(index as usize).filter(|c| c.generation == generation);
        let errand = owner.and_then(|c| c.lent.as_ref()).and_then(|l| l.errand.as_ref());
        let Some(kind) = errand.filter(|e| e.seq == seq).map(|e| e.kind) else {
            // Its client is gone.
            self.answer_first(u, frame)?;
            self.give_back(u);
            return Ok(());
        };
        debug_assert_eq!(client, Some(me));
        match kind {
            Kind::Block | Kind::Watch => {
                // The node stopped being a primary while the command waited.
                let forced = error_text(said).is_some_and(|t| t.starts_with(FORCED));
                if let Some(refusal) = refusal {
                    return self.errand_refused(u, me, refusal, said);
                }
                if forced {
                    let later = Refusal::Later(crate::metrics::Redirection::ReadOnly);
                    return self.errand_refused(u, me, later, said);
                }
                self.answer_first(u, frame)?;
                if kind == Kind::Watch && frame.first() == Some(&b'+') {
                    self.watching(me, u, pending.slot);
                } else if !self.is_watching(me, u) {
                    self.give_back(u);
                }
                self.end_errand(me, seq);
            }
            Kind::Exec => {
                // Nothing was executed, and what was watched is another node's now.
                let null: &[u8] = match up_protocol(&pending) {
                    Protocol::Resp2 => b"*-1\r\n",
                    Protocol::Resp3 => b"_\r\n",
                };
                if refusal.is_some() {
                    self.want_topology(None);
                }
                self.answer_first(u, if refusal.is_some() { null } else { frame })?;
                self.give_back(u);
                self.end_errand(me, seq);
            }
            Kind::Check { left, changed } => {
                self.pop_pending(u);
                let flags = text(frame).map(String::from_utf8_lossy).and_then(|line| {
                    let flags = line.split(' ').find_map(|f| f.strip_prefix("flags="));
                    flags.map(str::to_owned)
                });
                // A watched key that was changed is the flag "d"; an error tells nothing good.
                let changed = changed || flags.is_none_or(|f| f.contains('d'));
                self.checked(me, seq, left.saturating_sub(1), changed);
            }
            Kind::Fleet | Kind::Join => self.answer_first(u, frame)?,
        }
        Ok(())
    }

    pub(super) fn pop_pending(&mut self, u: usize) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        if let Some(pending) = up.pending.pop_front() {
            up.queue.release(pending.len as usize, &mut self.pool);
        }
    }

    /// A part of a command that went over several dedicated connections, or nobody's reply.
    fn part_of_dedicated(
        &mut self,
        u: usize,
        pending: &Pending,
        said: &[u8],
        frame: &[u8],
    ) -> Result<(), String> {
        if let Dest::Join { join, part } = pending.dest {
            self.join_whole(u, join, part, frame);
            return Ok(());
        }
        let Dest::Part { gather, .. } = pending.dest else { return self.answer_first(u, frame) };
        let exec = self.gatherings.get(gather as usize).is_some_and(|g| g.exec.is_some());
        let client = self.upstreams.get(u).and_then(|up| up.dedicated).and_then(|d| d.client);
        let node = self.upstreams.get(u).and_then(|up| self.nodes.get(usize::from(up.node)));
        let refused = node.is_some_and(|n| Refusal::parse(said, &n.addr).is_some());
        if exec && refused {
            self.want_topology(None);
            self.answer_first(u, b"*-1\r\n")?;
        } else if refused
            && let Some(client) = client
            && self.is_watching(client, u)
        {
            // Watched in vain: EXEC will answer as if the key had changed.
            self.want_topology(None);
            self.lent_of(client, |lent| {
                let watches = lent.watches.iter_mut();
                watches.filter(|w| w.upstream == Some(u)).for_each(|w| w.upstream = None);
            });
            self.answer_first(u, b"+OK\r\n")?;
        } else {
            self.answer_first(u, frame)?;
        }
        let keep = client.is_some_and(|c| self.is_watching(c, u) || self.is_monitoring(c, u));
        if !keep {
            if let Some(client) = client {
                self.lent_of(client, |lent| lent.fleet.retain(|&f| f != u));
            }
            self.give_back(u);
        }
        Ok(())
    }

    fn lent_of(&mut self, client: (u32, u32), change: impl FnOnce(&mut crate::client::Lent)) {
        if let Some(c) = self.clients.get_mut(client.0 as usize)
            && c.generation == client.1
            && let Some(lent) = c.lent.as_mut()
        {
            change(lent);
        }
    }

    fn is_watching(&self, client: (u32, u32), u: usize) -> bool {
        let c = self.clients.get(client.0 as usize).filter(|c| c.generation == client.1);
        let lent = c.and_then(|c| c.lent.as_ref());
        lent.is_some_and(|l| l.watches.iter().any(|w| w.upstream == Some(u)))
    }

    fn watching(&mut self, client: (u32, u32), u: usize, slot: u16) {
        if self.is_watching(client, u) {
            return;
        }
        let mut ranges = Vec::new();
        let limits = self.settings.request;
        self.lent_of(client, |lent| {
            let key = lent.errand.as_ref().and_then(|errand| {
                // WATCH's first argument; it was scanned before.
                let progress = &mut RequestProgress::default();
                let _ = scan_request(&errand.frame, &limits, progress, &mut ranges);
                Args::new(&errand.frame, &ranges).get(1).map(Box::from)
            });
            lent.watches.push(Watch { slot, key: key.unwrap_or_default(), upstream: Some(u) });
        });
    }

    /// The errand's command was refused, so it was not executed: again, there or elsewhere.
    fn errand_refused(
        &mut self,
        u: usize,
        client: (u32, u32),
        refusal: Refusal,
        said: &[u8],
    ) -> Result<(), String> {
        let Some(&pending) = self.upstreams.get(u).and_then(|up| up.pending.front()) else {
            return Ok(());
        };
        self.pop_pending(u);
        self.stats.redirections[refusal.kind() as usize] += 1;
        self.stats.retries += 1;
        if !self.is_watching(client, u) {
            self.give_back(u);
        }
        let mut ask = None;
        let mut redirected = false;
        match refusal {
            Refusal::Moved(slot, addr) => {
                if let Some(node) = self.known_node(&addr) {
                    redirected = true;
                    if let Some(owner) = self.owners.get_mut(usize::from(slot.0)) {
                        *owner = node;
                    }
                }
                self.want_topology(Some(addr));
            }
            Refusal::Ask(_, addr) => ask = self.known_node(&addr),
            Refusal::Later(_) => self.want_topology(None),
        }
        let index = client.0 as usize;
        let slot = pending.slot;
        // What was watched at a node that refuses the slot now may have changed elsewhere.
        let mut lost_watch = None;
        self.lent_of(client, |lent| {
            let watch = lent.watches.iter_mut().find(|w| w.slot == slot);
            lost_watch = watch.and_then(|w| w.upstream.take());
        });
        if let Some(watching) = lost_watch {
            self.close_dedicated(watching);
        }
        let Some(errand) = self.errand(index) else { return Ok(()) };
        errand.upstream = None;
        errand.tries = errand.tries.saturating_add(1);
        errand.last =
            Some(String::from_utf8_lossy(error_text(said).unwrap_or_default()).into_owned());
        let seq = errand.seq;
        let tried = Pending { tries: errand.tries, ..pending };
        match refusal_delay(&tried, redirected || ask.is_some()) {
            0 => self.send_errand(index, ask),
            delay => self.errand_later(client, seq, delay),
        }
        Ok(())
    }

    /// A dedicated connection is gone or could not be made.
    #[cold]
    pub(super) fn dedicated_lost(&mut self, u: usize, why: &str) {
        self.abandon_arriving(u);
        let Some(up) = self.upstreams.get_mut(u) else { return };
        if let Some(stream) = up.stream.as_mut() {
            stream.unwatch(self.poll.registry());
        }
        let given_up = up.lost(&mut self.pool);
        let kept: Vec<Pending> = up.pending.drain(..).collect();
        let client = up.dedicated.and_then(|d| d.client);
        let node = self.nodes.get(usize::from(up.node)).map(|n| n.addr.to_string());
        let node = node.unwrap_or_default();
        tracing::debug!(node, why, "a dedicated connection is lost");
        if let Some(stats) = self.stats.nodes.get_mut(usize::from(up.node)) {
            stats.failures += 1;
        }
        self.close_dedicated(u);
        self.want_topology(None);
        let Some(client) = client else { return };
        let monitored = self.is_monitoring(client, u);
        self.lent_of(client, |lent| {
            lent.fleet.retain(|&f| f != u);
            for watch in lent.watches.iter_mut().filter(|w| w.upstream == Some(u)) {
                watch.upstream = None;
            }
        });
        let text = format!(
            "ERR slotway lost its connection to {node} ({why}) after the command was sent: it may \
             or may not have been executed"
        );
        for (pending, sent) in
            given_up.iter().map(|p| (p, true)).chain(kept.iter().map(|p| (p, false)))
        {
            match pending.dest {
                Dest::Client { seq, .. } => self.errand_lost(client, seq, pending, sent, &text),
                Dest::Part { gather, first } => {
                    let g = self.gatherings.get(gather as usize);
                    if !sent && g.is_some_and(|g| g.exec.is_some()) {
                        self.part(gather, first, 0, b"*-1\r\n");
                    } else {
                        self.stats.outcome_unknown += u64::from(sent);
                        self.fail(pending, &node, &text);
                    }
                }
                Dest::Join { join, .. } => self.join_lost(join),
                Dest::Discard => {}
            }
        }
        if monitored {
            self.errand_later(client, MONITOR_AGAIN, NO_PRIMARY_PAUSE);
        }
    }

    fn errand_lost(
        &mut self,
        client: (u32, u32),
        seq: u32,
        pending: &Pending,
        sent: bool,
        text: &str,
    ) {
        let index = client.0 as usize;
        let current = self.clients.get(index).is_some_and(|c| c.generation == client.1);
        let Some(errand) = self.errand(index).filter(|e| current && e.seq == seq) else { return };
        errand.upstream = None;
        match errand.kind {
            // A blocking command waits on at the slot's next primary with the time that is left.
            Kind::Block | Kind::Watch => {
                errand.tries = errand.tries.saturating_add(1);
                errand.last = Some(text.to_owned());
                let delay = refusal_delay(&Pending { tries: errand.tries, ..*pending }, false);
                self.stats.retries += 1;
                self.errand_later(client, seq, delay);
            }
            Kind::Exec if sent => {
                self.stats.outcome_unknown += 1;
                self.fail_errand(client, seq, text);
            }
            Kind::Exec => {
                let null: &[u8] = match up_protocol(pending) {
                    Protocol::Resp2 => b"*-1\r\n",
                    Protocol::Resp3 => b"_\r\n",
                };
                self.end_errand(client, seq);
                let dest = Dest::Client { index: client.0, generation: client.1, seq };
                self.deliver_own(dest, null);
            }
            Kind::Check { left, .. } => self.checked(client, seq, left.saturating_sub(1), true),
            Kind::Fleet | Kind::Join => {}
        }
    }

    /// Before a transaction over several slots: every connection that watches is asked whether a
    /// key was changed. What changes after that is seen by its own slot's EXEC alone.
    pub(super) fn check_watches(&mut self, index: usize, command: u16) -> Flow {
        let Some(client) = self.clients.get_mut(index) else { return Flow::Stop };
        let Some(lent) = client.lent.as_mut() else { return Flow::Next };
        let all: Vec<usize> = lent.watches.iter().filter_map(|w| w.upstream).collect();
        let protocol = client.session.protocol;
        let kind = Kind::Check { left: all.len(), changed: false };
        let errand = Errand::new(kind, command, NO_SLOT, Vec::new(), self.now);
        let Some(dest) = self.begin_errand(index, errand, Some(0)) else { return Flow::Stop };
        for u in all {
            let pending = self.pending(dest, command, NO_SLOT, protocol);
            self.send(u, pending, CLIENT_INFO);
        }
        Flow::Next
    }

    fn checked(&mut self, client: (u32, u32), seq: u32, left: usize, changed: bool) {
        let index = client.0 as usize;
        let Some(errand) = self.errand(index).filter(|e| e.seq == seq) else { return };
        let command = errand.command;
        errand.kind = Kind::Check { left, changed };
        if left > 0 {
            return;
        }
        if changed {
            self.drop_transaction(index);
            let resp3 =
                self.clients.get(index).is_some_and(|c| c.session.protocol == Protocol::Resp3);
            let null: &[u8] = if resp3 { b"_\r\n" } else { b"*-1\r\n" };
            self.end_errand(client, seq);
            let dest = Dest::Client { index: client.0, generation: client.1, seq };
            return self.deliver_own(dest, null);
        }
        // Its reply has a number already: the pieces are gathered for that one.
        if let Some(errand) = self.errand(index) {
            errand.kind = Kind::Fleet;
        }
        self.exec_scattered(index, command, Some(seq));
    }

    /// The connections that watched have their EXEC, or need none: the client watches no more.
    pub(super) fn end_watches_of_exec(&mut self, index: usize) {
        let Some(lent) = self.clients.get_mut(index).and_then(|c| c.lent.as_mut()) else { return };
        let watches = std::mem::take(&mut lent.watches);
        for u in watches.into_iter().filter_map(|w| w.upstream) {
            let busy = self.upstreams.get(u).is_some_and(|up| !up.pending.is_empty());
            if !busy {
                self.discard(u, UNWATCH);
                self.give_back(u);
            }
        }
        self.forget_lent(index);
    }

    /// Begins a command over several dedicated connections; gives its gathering.
    fn start_fleet(
        &mut self,
        index: usize,
        command: u16,
        slot: u16,
        merge: Merge,
        args: Option<&Args>,
    ) -> Option<usize> {
        let time = args.and_then(wait_time);
        let own = match (args, time) {
            (Some(_), Some(time)) => time.micros,
            _ => Some(0),
        };
        let mut errand = Errand::new(Kind::Fleet, command, slot, Vec::new(), self.now);
        errand.time = time;
        let to = self.begin_errand(index, errand, own)?;
        let g = self.gathering_for(index, command, merge, to)?;
        Some(g)
    }

    /// WAIT: at every primary that this client has written to, and the least of what they say.
    ///
    /// A node counts the replicas that have all the connection has written, and a fresh connection
    /// has written nothing. It notes its place in the replication stream after every command, so
    /// PING and then WAIT covers all writes that were acknowledged before.
    pub(super) fn wait(&mut self, index: usize, command: u16, frame: &[u8], args: &Args) -> Flow {
        let Some(client) = self.clients.get(index) else { return Flow::Stop };
        if !client.is_drained() {
            return self.pause_until_replied(index);
        }
        let (protocol, me) = (client.session.protocol, (index as u32, client.generation));
        let wrote = client.wrote;
        let of = |n: &&u16| wrote >> (**n & 63) & 1 == 1;
        let mut nodes: Vec<u16> = self.primaries.iter().filter(of).copied().collect();
        let known: u64 = nodes.iter().fold(0, |bits, n| bits | 1 << (n & 63));
        if wrote == 0 || known != wrote {
            // It has written nothing yet, or to a node that is no primary any more.
            nodes = self.primaries.clone();
        }
        if nodes.is_empty() {
            self.answer_own_error(index, command, super::NO_CLUSTER_YET);
            return Flow::Next;
        }
        let Some(g) = self.start_fleet(index, command, NO_SLOT, Merge::Min, Some(args)) else {
            return Flow::Stop;
        };
        if let Some(gathering) = self.gatherings.get_mut(g) {
            nodes.iter().for_each(|_| gathering.gather.expect());
        }
        let batch = [PING, frame].concat();
        for node in nodes {
            let dest = Dest::Part { gather: g as u32, first: 0 };
            let mut pending = self.pending(dest, command, NO_SLOT, protocol);
            pending.before = 1;
            match self.lend(node, protocol, me) {
                Ok(u) => {
                    self.lent(index, |lent| lent.fleet.push(u));
                    self.send(u, pending, &batch);
                }
                Err(text) => self.fail(&pending, "slotway", &text),
            }
        }
        Flow::Next
    }

    /// CLIENT UNBLOCK: the node that the client waits at is told, and answers it. `false`: the
    /// client is not blocked.
    pub(super) fn unblock(&mut self, index: usize, error: bool) -> bool {
        let Some(client) = self.clients.get(index) else { return false };
        let (protocol, me) = (client.session.protocol, (index as u32, client.generation));
        let Some(lent) = client.lent.as_ref() else { return false };
        let Some(errand) = lent.errand.as_ref() else { return false };
        let waits =
            errand.kind == Kind::Block || (errand.kind == Kind::Fleet && !lent.fleet.is_empty());
        if !waits {
            return false;
        }
        let (seq, mut at) = (errand.seq, lent.fleet.clone());
        at.extend(errand.upstream);
        let reachable = |u: &usize| {
            let up = self.upstreams.get(*u)?;
            let id = up.dedicated.filter(|d| d.id != 0 && up.state == State::Ready)?.id;
            Some((up.node, id))
        };
        let told: Vec<(u16, i64)> = at.iter().filter_map(reachable).collect();
        if told.is_empty() {
            // It waits for its node to come back.
            at.into_iter().for_each(|u| self.close_dedicated(u));
            let dest = Dest::Client { index: me.0, generation: me.1, seq };
            if error {
                self.fail_errand(me, seq, "UNBLOCKED client unblocked via CLIENT UNBLOCK");
            } else {
                self.end_errand(me, seq);
                let null: &[u8] = if protocol == Protocol::Resp3 { b"_\r\n" } else { b"*-1\r\n" };
                self.deliver_own(dest, null);
            }
            return true;
        }
        for (node, id) in told {
            let how: &[u8] = if error { b"ERROR" } else { b"TIMEOUT" };
            let mut frame = Vec::new();
            write::request(&mut frame, &[b"CLIENT", b"UNBLOCK", id.to_string().as_bytes(), how]);
            let u = self.upstream_for(node, protocol, index);
            self.discard(u, &frame);
        }
        true
    }

    /// The client is closing: nothing of what it was lent waits for it any longer.
    pub(super) fn release_lent(&mut self, index: usize) {
        self.unwatch(index);
        if let Some(client) = self.clients.get(index).filter(|c| c.lent.is_some()) {
            self.end_joins_of((index as u32, client.generation));
        }
        let Some(lent) = self.clients.get_mut(index).and_then(|c| c.lent.take()) else { return };
        // A command under way ends with its connection, at the node as well.
        for u in lent.errand.and_then(|e| e.upstream).into_iter().chain(lent.fleet) {
            self.close_dedicated(u);
        }
    }

    /// The client waits for an answer that it will not read: it has closed its connection.
    pub(super) fn waits_in_vain(&self, index: usize) -> bool {
        self.clients.get(index).is_some_and(|c| {
            let errand = c.lent.as_ref().and_then(|l| l.errand.as_ref());
            c.peer_closed
                && c.paused == Paused::Command
                && errand
                    .is_some_and(|e| matches!(e.kind, Kind::Block | Kind::Join) || e.time.is_some())
        })
    }

    /// Something that nobody asked for: a line of MONITOR.
    fn monitored(&mut self, u: usize, frame: &[u8]) -> Result<(), String> {
        let client = self.upstreams.get(u).and_then(|up| up.dedicated).and_then(|d| d.client);
        let Some(client) = client.filter(|&c| self.is_monitoring(c, u)) else {
            return Err("a reply that nobody asked for".into());
        };
        if let Some(c) = self.clients.get_mut(client.0 as usize) {
            c.answer(frame, &mut self.pool, &mut self.spare_replies);
        }
        self.mark_client(client.0 as usize);
        Ok(())
    }

    /// MONITOR: every primary's lines, in one stream, until the client goes.
    pub(super) fn monitor(&mut self, index: usize, command: u16) -> Flow {
        let Some(client) = self.clients.get(index) else { return Flow::Stop };
        if !client.is_drained() {
            return self.pause_until_replied(index);
        }
        if client.lent.as_ref().is_some_and(|l| l.monitor) {
            self.answer_own(index, command, b"+OK\r\n");
            return Flow::Next;
        }
        let (protocol, me) = (client.session.protocol, (index as u32, client.generation));
        let nodes = self.primaries.clone();
        if nodes.is_empty() {
            self.answer_own_error(index, command, super::NO_CLUSTER_YET);
            return Flow::Next;
        }
        let merge = Merge::AllSucceeded;
        let Some(g) = self.start_fleet(index, command, NO_SLOT, merge, None) else {
            return Flow::Stop;
        };
        if let Some(gathering) = self.gatherings.get_mut(g) {
            nodes.iter().for_each(|_| gathering.gather.expect());
        }
        self.lent(index, |lent| lent.monitor = true);
        for node in nodes {
            let dest = Dest::Part { gather: g as u32, first: 0 };
            let pending = self.pending(dest, command, NO_SLOT, protocol);
            match self.lend(node, protocol, me) {
                Ok(u) => {
                    self.lent(index, |lent| lent.fleet.push(u));
                    self.send(u, pending, MONITOR);
                }
                Err(text) => self.fail(&pending, "slotway", &text),
            }
        }
        Flow::Next
    }

    /// Connections for MONITOR to the primaries that this client does not hear.
    pub(super) fn monitor_others(&mut self, index: usize) {
        let Some(client) = self.clients.get(index) else { return };
        let (protocol, me) = (client.session.protocol, (index as u32, client.generation));
        let Some(lent) = client.lent.as_ref().filter(|l| l.monitor && l.errand.is_none()) else {
            return;
        };
        let heard: Vec<u16> =
            lent.fleet.iter().filter_map(|&u| self.upstreams.get(u)).map(|up| up.node).collect();
        for node in self.primaries.clone() {
            if heard.contains(&node) {
                continue;
            }
            match self.lend(node, protocol, me) {
                Ok(u) => {
                    self.lent(index, |lent| lent.fleet.push(u));
                    self.discard(u, MONITOR);
                }
                Err(_) => self.errand_later(me, MONITOR_AGAIN, NO_PRIMARY_PAUSE),
            }
        }
    }

    fn is_monitoring(&self, client: (u32, u32), u: usize) -> bool {
        let c = self.clients.get(client.0 as usize).filter(|c| c.generation == client.1);
        let lent = c.and_then(|c| c.lent.as_ref());
        lent.is_some_and(|l| l.monitor && l.fleet.contains(&u))
    }
}

/// How a node ends what waits at it when it stops being a primary; CLIENT UNBLOCK has other words.
const FORCED: &[u8] = b"UNBLOCKED force unblock from blocking operation, instance state changed";

fn up_protocol(pending: &Pending) -> Protocol {
    if pending.has(flag::RESP3) { Protocol::Resp3 } else { Protocol::Resp2 }
}
