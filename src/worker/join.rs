//! KEYS: the primaries' lists as one list, in bounded memory.
//!
//! A list begins with its length, so nothing can be sent before every primary has told its own.
//! Then one primary's list after the other is handed on as it comes. A primary whose turn has not
//! come is not read from, and the one whose turn it is only while the client takes what it gets:
//! what waits, waits at the nodes. On shared connections that would hold others up, so each
//! primary's list comes over a dedicated one.

use super::dedicated::LendError;
use super::downstream::Flow;
use super::{Source, Worker};
use crate::client::{Errand, Kind};
use crate::dest::Dest;
use crate::errors::Failure;
use crate::metrics::{Histogram, RetryReason};
use crate::placement::{
    AfterLoss, AfterRefusal, Class, Phase, Refusal, Work, after_loss, after_refusal,
};
use crate::resp::reply::element_count;
use crate::resp::write;
use crate::upstream::NO_SLOT;

/// A client that has not taken so much gets no more for now.
const ENOUGH: usize = 1 << 20;

/// One KEYS under way.
#[derive(Debug)]
pub(super) struct Join {
    client: (u32, u32),
    seq: u32,
    command: u16,
    started: u64,
    parts: Vec<Part>,
    /// Whose turn it is, once the whole list's length is told.
    current: usize,
    announced: bool,
}

#[derive(Debug)]
struct Part {
    /// Its connection, while it is needed.
    upstream: Option<usize>,
    /// Its list's length, once known.
    count: Option<u64>,
    /// Its whole list, where that came before its turn (a short one).
    whole: Option<Vec<u8>>,
}

/// What follows an aggregate's first line.
fn body(list: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\n', list).map_or(list.len(), |end| end + 1);
    list.get(end..).unwrap_or_default()
}

impl Worker {
    pub(super) fn join(&mut self, index: usize, command: u16, frame: &[u8]) -> Flow {
        if self.clients.get(index).is_some_and(|c| !c.is_drained()) {
            return self.pause_until_replied(index);
        }
        let errand = Errand::new(Kind::Join, command, NO_SLOT, frame.to_vec(), self.now);
        self.begin_errand(index, errand, Some(0));
        self.send_join(index);
        Flow::Next
    }

    /// Asks all primaries, the first time or anew.
    pub(super) fn send_join(&mut self, index: usize) {
        let targets = self.fan_targets(crate::route::Fan::Primaries);
        let Some(client) = self.clients.get_mut(index) else { return };
        let (protocol, me) = (client.session.protocol, (index as u32, client.generation));
        let Some(lent) = client.lent.as_mut() else { return };
        let Some(errand) = lent.errand.as_ref() else { return };
        let (seq, command, started) = (errand.seq, errand.command, errand.started);
        let frame = errand.frame.clone();
        let mut nodes = Vec::new();
        for target in targets {
            match target {
                Ok(node) => nodes.push(node),
                // As any command for one of its slots would: until its deadline.
                Err(missing) => {
                    if let Some(errand) = self.errand(index) {
                        let name = missing.name();
                        errand.last =
                            Some(Failure::ShardWithoutPrimary { shard: name.into() }.to_string());
                    }
                    if let Some(failure) = self.without_primary(missing.slot(), Class::Read) {
                        self.stats.no_primary += 1;
                        return self.fail_errand(me, seq, failure);
                    }
                    let pause = self.no_primary_pause(index);
                    return self.errand_later(me, seq, pause);
                }
            }
        }
        if nodes.is_empty() {
            return self.fail_errand(me, seq, self.no_cluster_failure());
        }
        let parts = nodes.iter().map(|_| Part { upstream: None, count: None, whole: None });
        let join = Join {
            client: me,
            seq,
            command,
            started,
            parts: parts.collect(),
            current: 0,
            announced: false,
        };
        let j = self.joins.insert(join);
        for (part, node) in nodes.into_iter().enumerate() {
            match self.lend(node, protocol, me) {
                Ok(u) => {
                    let place = self.joins.get_mut(j).and_then(|join| join.parts.get_mut(part));
                    if let Some(place) = place {
                        place.upstream = Some(u);
                    }
                    let dest = Dest::Join { join: j as u32, part: part as u32 };
                    let mut pending = self.pending(dest, command, NO_SLOT, protocol);
                    match self.keys_behind_check(u, &mut pending, &frame) {
                        Some(checked) => self.send_owned(u, pending, checked),
                        None => self.send(u, pending, &frame),
                    }
                }
                Err(refused) => {
                    self.end_join(j);
                    return match refused {
                        LendError::NotNow => {
                            let pause = self.no_primary_pause(index);
                            self.errand_later(me, seq, pause);
                        }
                        LendError::Limit(failure) => self.fail_errand(me, seq, failure),
                    };
                }
            }
        }
    }

    /// Forgets a join and closes its connections, which may be in the middle of a list.
    fn end_join(&mut self, j: usize) -> Option<Join> {
        let join = self.joins.try_remove(j)?;
        for u in join.parts.iter().filter_map(|p| p.upstream) {
            self.close_dedicated(u);
        }
        Some(join)
    }

    /// The client is gone.
    pub(super) fn end_joins_of(&mut self, client: (u32, u32)) {
        let its = |(j, join): (usize, &Join)| (join.client == client).then_some(j);
        for j in self.joins.iter().filter_map(its).collect::<Vec<_>>() {
            self.end_join(j);
        }
    }

    fn part_of_join(&mut self, j: u32, part: u32) -> Option<&mut Part> {
        self.joins.get_mut(j as usize)?.parts.get_mut(part as usize)
    }

    fn stream_joined(&mut self, j: usize, piece: &[u8], last: bool) {
        let Some(join) = self.joins.get(j) else { return };
        let ((index, generation), seq) = (join.client, join.seq);
        if let Some(client) = self.clients.get_mut(index as usize)
            && client.generation == generation
        {
            client.stream(seq, piece, last, &mut self.pool);
            self.mark_client(index as usize);
        }
    }

    /// The beginning of a list, or more of it. `true`: it is handed on.
    pub(super) fn join_piece(&mut self, u: usize, j: u32, part: u32, piece: &[u8]) -> bool {
        let Some(place) = self.part_of_join(j, part) else { return true };
        if place.count.is_none() {
            let Some(count) = element_count(piece) else { return false };
            place.count = Some(count);
            self.announce(j as usize, Some(u));
        }
        let Some(join) = self.joins.get(j as usize) else { return true };
        let (its_turn, client) = (join.announced && join.current == part as usize, join.client);
        let Some(up) = self.upstreams.get_mut(u) else { return true };
        if !its_turn {
            up.parked = true;
            return false;
        }
        let piece = if up.streaming { piece } else { body(piece) };
        up.streaming = true;
        let output = self.clients.get(client.0 as usize).map_or(0, |c| c.output());
        up.parked = output + piece.len() > ENOUGH;
        self.stream_joined(j as usize, piece, false);
        true
    }

    /// A list that came in one piece.
    pub(super) fn join_whole(&mut self, u: usize, j: u32, part: u32, frame: &[u8]) {
        self.pop_pending(u);
        let Some(join) = self.joins.get(j as usize) else { return };
        let (client, seq, announced) = (join.client, join.seq, join.announced);
        let Some(count) = element_count(frame) else {
            // An error. Nothing was told yet, unless another list's length came first by chance
            // and this node changed its mind, which ends the connection.
            self.end_join(j as usize);
            if announced {
                return self.close_client(client.0 as usize);
            }
            self.end_errand(client, seq);
            let dest = Dest::Client { index: client.0, generation: client.1, seq };
            return self.deliver_own(dest, frame);
        };
        if let Some(place) = self.part_of_join(j, part) {
            place.count = Some(count);
            place.whole = Some(body(frame).to_vec());
            place.upstream = None;
        }
        self.give_back(u);
        if announced {
            self.advance(j as usize, None);
        } else {
            self.announce(j as usize, None);
        }
    }

    /// The last piece of a list that was handed on.
    pub(super) fn join_last(&mut self, u: usize, j: u32, part: u32, piece: &[u8]) {
        self.stream_joined(j as usize, piece, false);
        if let Some(place) = self.part_of_join(j, part) {
            place.upstream = None;
        }
        self.give_back(u);
        if let Some(join) = self.joins.get_mut(j as usize) {
            join.current += 1;
        }
        self.advance(j as usize, None);
    }

    /// Tells the client the length of the whole list, once all parts of it are known. `busy` is
    /// the connection that is being read.
    fn announce(&mut self, j: usize, busy: Option<usize>) {
        let Some(join) = self.joins.get_mut(j) else { return };
        let counts: Option<Vec<u64>> = join.parts.iter().map(|p| p.count).collect();
        let Some(counts) = counts else { return };
        join.announced = true;
        let (client, seq) = (join.client, join.seq);
        // It is arriving: from here on the client's own speed sets the time.
        if let Some(errand) = self.errand(client.0 as usize).filter(|e| e.seq == seq) {
            errand.until = None;
        }
        let mut header = Vec::new();
        write::array_header(&mut header, counts.iter().sum::<u64>() as usize);
        self.stream_joined(j, &header, false);
        self.advance(j, busy);
    }

    /// Goes on with the part whose turn it is.
    fn advance(&mut self, j: usize, busy: Option<usize>) {
        loop {
            let Some(join) = self.joins.get_mut(j) else { return };
            let Some(part) = join.parts.get_mut(join.current) else { break };
            if let Some(whole) = part.whole.take() {
                join.current += 1;
                self.stream_joined(j, &whole, false);
                continue;
            }
            if let Some(u) = part.upstream.filter(|&u| Some(u) != busy) {
                self.unpark(u);
            }
            return;
        }
        self.stream_joined(j, b"", true);
        let Some(join) = self.end_join(j) else { return };
        let micros = self.now.saturating_sub(join.started);
        if micros >= self.shared.slow.slower_than() {
            self.note_join(join.client, join.seq, join.command, micros);
        }
        if let Some(histogram) = self.stats.latency.get_mut(self.router.class(join.command)) {
            histogram.record(Histogram::bucket(micros), micros);
        }
        if let Some(stats) = self.stats.commands.get_mut(usize::from(join.command)) {
            stats.ok += 1;
        }
        self.end_errand(join.client, join.seq);
    }

    /// Reads from the connection again; what it has said of its list goes on at once.
    fn unpark(&mut self, u: usize) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        up.parked = false;
        if !up.again {
            up.again = true;
            self.again.push(Source::Upstream(u));
        }
        let Some(Dest::Join { join, part }) = up.pending.front().map(|p| p.dest) else { return };
        let scanned = std::mem::take(&mut up.scanned);
        let mut tail = std::mem::take(&mut up.tail);
        let piece = tail.get(..scanned).unwrap_or_default();
        if scanned > 0 && self.join_piece(u, join, part, piece) {
            tail.drain(..scanned);
        } else if let Some(up) = self.upstreams.get_mut(u) {
            up.scanned = scanned;
        }
        if let Some(up) = self.upstreams.get_mut(u) {
            up.tail = tail;
        }
    }

    /// The client has taken what it had.
    pub(super) fn join_goes_on(&mut self, index: usize) {
        let Some(client) = self.clients.get(index) else { return };
        let me = (index as u32, client.generation);
        if client.output() > ENOUGH / 2 {
            return;
        }
        let its = |(_, join): &(usize, &Join)| join.client == me && join.announced;
        let Some((_, join)) = self.joins.iter().find(its) else { return };
        let current = join.parts.get(join.current).and_then(|p| p.upstream);
        if let Some(u) = current.filter(|&u| self.upstreams.get(u).is_some_and(|up| up.parked)) {
            self.unpark(u);
        }
    }

    /// A node has refused the read in front of its list. One that does not serve its shard: all are
    /// asked again.
    pub(super) fn join_refused(&mut self, j: u32, refusal: &Refusal, text: &str) {
        let Some(join) = self.joins.get(j as usize) else { return };
        let after = after_refusal(Work::KeyList { begun: join.announced }, refusal, false, 1);
        if after == AfterRefusal::Told {
            return;
        }
        let Some(join) = self.end_join(j as usize) else { return };
        if after == AfterRefusal::Closed {
            return self.close_client(join.client.0 as usize);
        }
        self.stats.redirections[refusal.kind() as usize] += 1;
        self.want_topology(None);
        let index = join.client.0 as usize;
        if let Some(errand) = self.errand(index).filter(|e| e.seq == join.seq) {
            errand.last = Some(text.to_owned());
        }
        let pause = self.no_primary_pause(index);
        self.count_retry(RetryReason::of(refusal.kind()));
        self.errand_later(join.client, join.seq, pause);
    }

    /// A node's connection is lost in the middle: all are asked again, unless the client has seen
    /// the beginning.
    pub(super) fn join_lost(&mut self, j: u32) {
        let Some(join) = self.end_join(j as usize) else { return };
        let work = Work::KeyList { begun: join.announced };
        if after_loss(work, Phase::Sent) == AfterLoss::Closed {
            return self.close_client(join.client.0 as usize);
        }
        let pause = self.no_primary_pause(join.client.0 as usize);
        self.count_retry(RetryReason::Lost);
        self.errand_later(join.client, join.seq, pause);
    }
}
