//! KEYS: the primaries' lists as one list, in bounded memory.
//!
//! A list begins with its length, so nothing can be sent before every primary has told its own.
//! Then one primary's list after the other is handed on as it comes. A primary whose turn has not
//! come is not read from, and the one whose turn it is only while the client takes what it gets:
//! what waits, waits at the nodes. On shared connections that would hold others up, so each
//! primary's list comes over a dedicated one.

use super::dedicated::LendError;
use super::downstream::Flow;
use super::state::base;
use super::state::{Base, Clients, Core, Operations};
use super::{Source, Worker};
use crate::cluster::NO_SLOT;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};
use crate::errors::{Failure, Unanswered};
use crate::metrics::{Histogram, RetryReason};
use crate::ops::{Effect, Errand, KeyLists, Kind, Piece};
use crate::placement::{
    AfterLoss, AfterRefusal, Class, Phase, Refusal, Work, after_loss, after_refusal,
};
use crate::resp::write;

/// A client that has not taken so much gets no more for now.
const ENOUGH: usize = 1 << 20;

/// One KEYS under way.
#[derive(Debug)]
pub(super) struct Join {
    client: ClientId,
    seq: u32,
    command: CommandId,
    started: u64,
    lists: KeyLists,
    /// Each list's connection, while it is needed.
    upstreams: Vec<Option<usize>>,
}

impl Operations {
    pub(super) fn join(
        &mut self,
        index: usize,
        command: CommandId,
        frame: &[u8],
        base: &mut Base<'_>,
    ) -> Flow {
        if base.clients.slab.get(index).is_some_and(|c| !c.is_drained()) {
            return base.clients.pause_until_replied(index, base.core);
        }
        let errand = Errand::new(Kind::Join, command, NO_SLOT, frame.to_vec(), base.core.now);
        base.clients.begin_errand(index, errand, Some(0), base.core);
        self.send_join(index, base);
        Flow::Next
    }

    /// Asks all primaries, the first time or anew.
    pub(super) fn send_join(&mut self, index: usize, base: &mut Base<'_>) {
        let targets = base.nodes.fan_targets(crate::route::Fan::Primaries, base.core);
        let Some(client) = base.clients.slab.get_mut(index) else { return };
        let (protocol, me) = (client.session.protocol, ClientId::new(index, client.generation));
        let Some(lent) = client.lent.as_mut() else { return };
        let Some(errand) = lent.errand.as_ref() else { return };
        let (seq, command, started) = (errand.seq, errand.command, errand.started);
        let (frame, tries) = (errand.frame.clone(), errand.tries);
        let mut nodes = Vec::new();
        for target in targets {
            match target {
                Ok(node) => nodes.push(node),
                // As any command for one of its slots would: until its deadline.
                Err(missing) => {
                    if let Some(errand) = base.clients.errand(index) {
                        let name = missing.name();
                        errand.last =
                            Some(Failure::ShardWithoutPrimary { shard: name.into() }.to_string());
                    }
                    if let Some(mut failure) =
                        base.nodes.without_primary(missing.slot(), Class::Read, base.core)
                    {
                        // Other primaries may have been asked before.
                        if let (true, Failure::PrimaryMissing { outcome, .. }) =
                            (tries > 0, &mut failure)
                        {
                            *outcome = Unanswered::Harmless;
                        }
                        base.core.stats.no_primary += 1;
                        return base.clients.fail_errand(me, seq, failure, base.nodes, base.core);
                    }
                    let pause = base.clients.no_primary_pause(index, base.core);
                    return base.core.errand_later(me, seq, pause);
                }
            }
        }
        if nodes.is_empty() {
            return base.clients.fail_errand(
                me,
                seq,
                base.nodes.no_cluster_failure(base.core),
                base.nodes,
                base.core,
            );
        }
        let join = Join {
            client: me,
            seq,
            command,
            started,
            lists: KeyLists::new(nodes.len()),
            upstreams: vec![None; nodes.len()],
        };
        let j = self.joins.insert(join);
        for (part, node) in nodes.into_iter().enumerate() {
            match base.clients.lend(node, protocol, me, base.nodes, base.core) {
                Ok(u) => {
                    self.set_list_upstream(j as u32, part, Some(u));
                    let dest = Dest::Join { join: j as u32, part: part as u32 };
                    let mut pending = self.pending(
                        dest,
                        command,
                        NO_SLOT,
                        protocol,
                        base.access,
                        base.clients,
                        base.core,
                    );
                    match base.nodes.keys_behind_check(u, &mut pending, &frame) {
                        Some(checked) => base.nodes.send_owned(u, pending, checked, base.core),
                        None => base.nodes.send(u, pending, &frame, base.core),
                    }
                }
                Err(refused) => {
                    self.end_join(j, base);
                    return match refused {
                        LendError::NotNow => {
                            let pause = base.clients.no_primary_pause(index, base.core);
                            base.core.errand_later(me, seq, pause);
                        }
                        LendError::Limit(failure) => {
                            base.clients.fail_errand(me, seq, failure, base.nodes, base.core)
                        }
                    };
                }
            }
        }
    }

    /// Forgets a join and closes its connections, which may be in the middle of a list.
    fn end_join(&mut self, j: usize, base: &mut Base<'_>) -> Option<Join> {
        let join = self.joins.try_remove(j)?;
        for u in join.upstreams.iter().flatten() {
            base.clients.close_dedicated(*u, base.nodes, base.core);
        }
        Some(join)
    }

    /// The client is gone.
    pub(super) fn end_joins_of(&mut self, client: ClientId, base: &mut Base<'_>) {
        let its = |(j, join): (usize, &Join)| (join.client == client).then_some(j);
        for j in self.joins.iter().filter_map(its).collect::<Vec<_>>() {
            self.end_join(j, base);
        }
    }

    fn set_list_upstream(&mut self, j: u32, part: usize, u: Option<usize>) {
        let join = self.joins.get_mut(j as usize);
        if let Some(place) = join.and_then(|join| join.upstreams.get_mut(part)) {
            *place = u;
        }
    }

    fn stream_joined(
        &mut self,
        j: usize,
        piece: &[u8],
        last: bool,
        clients: &mut Clients,
        core: &mut Core,
    ) {
        let Some(join) = self.joins.get(j) else { return };
        let (id, seq) = (join.client, join.seq);
        if let Some(client) = clients.slab.get_mut(id.at())
            && client.generation == id.generation
        {
            client.stream(seq, piece, last, &mut core.spare.pool);
            clients.mark_client(id.at(), core);
        }
    }

    /// A node has refused the read in front of its list. One that does not serve its shard: all are
    /// asked again.
    pub(super) fn join_refused(
        &mut self,
        j: u32,
        refusal: &Refusal,
        text: &str,
        base: &mut Base<'_>,
    ) {
        let Some(join) = self.joins.get(j as usize) else { return };
        let after =
            after_refusal(Work::KeyList { begun: join.lists.has_begun() }, refusal, false, 1);
        if after == AfterRefusal::Told {
            return;
        }
        let Some(join) = self.end_join(j as usize, base) else { return };
        if after == AfterRefusal::Closed {
            return base.clients.close(join.client.at(), base.core);
        }
        base.core.stats.redirections[refusal.kind() as usize] += 1;
        base.core.want_topology(None);
        let index = join.client.at();
        if let Some(errand) = base.clients.errand(index).filter(|e| e.seq == join.seq) {
            errand.last = Some(text.to_owned());
        }
        let pause = base.clients.no_primary_pause(index, base.core);
        base.core.count_retry(RetryReason::of(refusal.kind()));
        base.core.errand_later(join.client, join.seq, pause);
    }

    /// A node's connection is lost in the middle: all are asked again, unless the client has seen
    /// the beginning.
    pub(super) fn join_lost(&mut self, j: u32, base: &mut Base<'_>) {
        let Some(join) = self.end_join(j as usize, base) else { return };
        let work = Work::KeyList { begun: join.lists.has_begun() };
        if after_loss(work, Phase::Sent) == AfterLoss::Closed {
            return base.clients.close(join.client.at(), base.core);
        }
        let pause = base.clients.no_primary_pause(join.client.at(), base.core);
        base.core.count_retry(RetryReason::Lost);
        base.core.errand_later(join.client, join.seq, pause);
    }
}

impl Worker {
    /// The beginning of a list, or more of it. `true`: it is handed on.
    pub(super) fn join_piece(&mut self, u: usize, j: u32, part: u32, piece: &[u8]) -> bool {
        let Some(join) = self.ops.joins.get_mut(j as usize) else { return true };
        let Some(up) = self.nodes.upstreams.get(u) else { return true };
        let client = join.client;
        let (effects, piece) = join.lists.piece(part as usize, piece, up.streaming);
        self.run_join(j as usize, effects);
        match piece {
            Piece::Incomplete => false,
            Piece::Wait => {
                if let Some(up) = self.nodes.upstreams.get_mut(u) {
                    up.parked = true;
                }
                false
            }
            Piece::Pass(elements) => {
                let output = self.clients.slab.get(client.at()).map_or(0, |c| c.output());
                if let Some(up) = self.nodes.upstreams.get_mut(u) {
                    up.streaming = true;
                    up.parked = output + elements.len() > ENOUGH;
                }
                self.ops.stream_joined(
                    j as usize,
                    elements,
                    false,
                    &mut self.clients,
                    &mut self.core,
                );
                true
            }
        }
    }

    /// A list that came in one piece.
    pub(super) fn join_whole(&mut self, u: usize, j: u32, part: u32, frame: &[u8]) {
        self.nodes.pop_pending(u, &mut self.core);
        let Some(join) = self.ops.joins.get_mut(j as usize) else { return };
        let (client, seq, begun) = (join.client, join.seq, join.lists.has_begun());
        let Some(effects) = join.lists.whole(part as usize, frame) else {
            // An error. Nothing was told yet, unless another list's length came first by chance
            // and this node changed its mind, which ends the connection.
            self.ops.end_join(j as usize, &mut base!(self));
            if begun {
                return self.clients.close(client.at(), &mut self.core);
            }
            self.clients.end_errand(client, seq, &mut self.core);
            let dest = Dest::client(client, seq);
            return self.clients.deliver_own(dest, frame, &mut self.core);
        };
        self.ops.set_list_upstream(j, part as usize, None);
        self.clients.give_back(u, &mut self.nodes, &mut self.core);
        self.run_join(j as usize, effects);
    }

    /// The last piece of a list that was handed on.
    pub(super) fn join_last(&mut self, u: usize, j: u32, part: u32, piece: &[u8]) {
        self.ops.set_list_upstream(j, part as usize, None);
        self.clients.give_back(u, &mut self.nodes, &mut self.core);
        let Some(join) = self.ops.joins.get_mut(j as usize) else { return };
        let effects = join.lists.last_piece(piece);
        self.run_join(j as usize, effects);
    }

    /// Does what the lists say.
    fn run_join(&mut self, j: usize, effects: Vec<Effect>) {
        for effect in effects {
            let Some(join) = self.ops.joins.get(j) else { return };
            match effect {
                Effect::Header(count) => {
                    // It is arriving: from here on the client's own speed sets the time.
                    let (client, seq) = (join.client, join.seq);
                    if let Some(errand) = self.clients.errand(client.at()).filter(|e| e.seq == seq)
                    {
                        errand.until = None;
                    }
                    let mut header = Vec::new();
                    write::array_header(&mut header, count as usize);
                    self.ops.stream_joined(j, &header, false, &mut self.clients, &mut self.core);
                }
                Effect::Elements(elements) => {
                    self.ops.stream_joined(j, &elements, false, &mut self.clients, &mut self.core)
                }
                Effect::Resume(list) => {
                    if let Some(&Some(u)) = join.upstreams.get(list) {
                        self.unpark(u);
                    }
                }
                Effect::End => self.finish_join(j),
            }
        }
    }

    fn finish_join(&mut self, j: usize) {
        self.ops.stream_joined(j, b"", true, &mut self.clients, &mut self.core);
        let Some(join) = self.ops.end_join(j, &mut base!(self)) else { return };
        let micros = self.core.now.saturating_sub(join.started);
        if micros >= self.core.shared.slow.slower_than() {
            self.seeing.note_join(
                join.client,
                join.seq,
                join.command,
                micros,
                &mut self.clients,
                &mut self.core,
            );
        }
        if let Some(histogram) =
            self.core.stats.latency.get_mut(self.core.router.class(join.command))
        {
            histogram.record(Histogram::bucket(micros), micros);
        }
        if let Some(stats) = self.core.stats.commands.get_mut(join.command.index()) {
            stats.ok += 1;
        }
        self.clients.end_errand(join.client, join.seq, &mut self.core);
    }

    /// Reads from the connection again; what it has said of its list goes on at once.
    fn unpark(&mut self, u: usize) {
        let Some(up) = self.nodes.upstreams.get_mut(u) else { return };
        up.parked = false;
        if !up.again {
            up.again = true;
            self.core.turn.again.push(Source::Upstream(u));
        }
        let Some(Dest::Join { join, part }) = up.pending.front().map(|p| p.dest) else { return };
        let scanned = std::mem::take(&mut up.scanned);
        let mut tail = std::mem::take(&mut up.tail);
        let piece = tail.get(..scanned).unwrap_or_default();
        if scanned > 0 && self.join_piece(u, join, part, piece) {
            tail.drain(..scanned);
        } else if let Some(up) = self.nodes.upstreams.get_mut(u) {
            up.scanned = scanned;
        }
        if let Some(up) = self.nodes.upstreams.get_mut(u) {
            up.tail = tail;
        }
    }

    /// The client has taken what it had.
    pub(super) fn join_goes_on(&mut self, index: usize) {
        let Some(client) = self.clients.slab.get(index) else { return };
        let me = ClientId::new(index, client.generation);
        if client.output() > ENOUGH / 2 {
            return;
        }
        let Some((_, join)) = self.ops.joins.iter().find(|(_, join)| join.client == me) else {
            return;
        };
        let current = join.lists.current().and_then(|at| *join.upstreams.get(at)?);
        if let Some(u) =
            current.filter(|&u| self.nodes.upstreams.get(u).is_some_and(|up| up.parked))
        {
            self.unpark(u);
        }
    }
}
