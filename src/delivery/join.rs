//! KEYS: the lists of all primaries as one list, in bounded memory.
//!
//! A list begins with its length, so nothing can be sent before every primary has sent the length
//! of its own. Then the lists are passed on one after the other as they arrive. A primary is not
//! read from before its turn, and during its turn only while the client reads its output: unread
//! data stays at the nodes. On shared connections this would delay other clients, so each list
//! arrives on a dedicated connection.

use crate::base::{Base, base};
use crate::common::Source;
use crate::delivery::Delivery;
use crate::dest::{ClientId, ConnId, Dest};
use crate::metrics::Histogram;
use crate::ops::{Effect, Piece};
use crate::resp::write;

/// Unwritten output of the client, in bytes, above which the primary is not read from.
const MAX_OUTPUT: usize = 1 << 20;

impl Delivery<'_> {
    /// Handles a piece of an unfinished list. `true`: it is consumed.
    pub(super) fn join_piece(&mut self, conn: ConnId, j: u32, part: u32, piece: &[u8]) -> bool {
        let Some(join) = self.engine.ops.joins.get_mut(j as usize) else { return true };
        let Some(up) = self.engine.nodes.upstreams.get(conn) else { return true };
        let client = join.client;
        let (effects, piece) = join.lists.piece(part as usize, piece, up.streaming);
        self.run_join(j as usize, effects);
        match piece {
            Piece::Incomplete => false,
            Piece::Wait => {
                if let Some(up) = self.engine.nodes.upstreams.get_mut(conn) {
                    up.read_paused = true;
                }
                false
            }
            Piece::Pass(elements) => {
                let output = self.engine.clients.slab.get(client.at()).map_or(0, |c| c.output());
                if let Some(up) = self.engine.nodes.upstreams.get_mut(conn) {
                    up.streaming = true;
                    up.read_paused = output + elements.len() > MAX_OUTPUT;
                }
                self.engine.ops.joining().stream(
                    j as usize,
                    elements,
                    false,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                );
                true
            }
        }
    }

    /// Handles a complete list, or the error in its place.
    pub(super) fn join_whole(&mut self, conn: ConnId, j: u32, part: u32, frame: &[u8]) {
        self.engine.nodes.pop_pending(conn, &mut self.engine.core);
        let Some(join) = self.engine.ops.joins.get_mut(j as usize) else { return };
        let (client, seq, begun) = (join.client, join.seq, join.lists.has_begun());
        let Some(effects) = join.lists.whole(part as usize, frame) else {
            // An error. It is the reply, unless the client has already received the beginning of
            // the list: then its connection is closed.
            self.engine.ops.joining().end(j as usize, &mut base!(self.engine));
            if begun {
                return self.engine.clients.close(client.at(), &mut self.engine.core);
            }
            self.engine.clients.errands().end(client, seq, &mut self.engine.core);
            let dest = Dest::client(client, seq);
            return self.engine.clients.deliveries().own(dest, frame, &mut self.engine.core);
        };
        self.engine.ops.joining().set_upstream(j, part as usize, None);
        self.engine.clients.lending().give_back(
            conn,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
        self.run_join(j as usize, effects);
    }

    /// Handles the last piece of a list that was passed on in pieces.
    pub(super) fn join_last(&mut self, conn: ConnId, j: u32, part: u32, piece: &[u8]) {
        self.engine.ops.joining().set_upstream(j, part as usize, None);
        self.engine.clients.lending().give_back(
            conn,
            &mut self.engine.nodes,
            &mut self.engine.core,
        );
        let Some(join) = self.engine.ops.joins.get_mut(j as usize) else { return };
        let effects = join.lists.last_piece(piece);
        self.run_join(j as usize, effects);
    }

    /// Carries out the effects that the lists have returned.
    fn run_join(&mut self, j: usize, effects: Vec<Effect>) {
        for effect in effects {
            let Some(join) = self.engine.ops.joins.get(j) else { return };
            match effect {
                Effect::Header(count) => {
                    // The reply has begun, and the client's reading speed determines how long it
                    // takes.
                    let (client, seq) = (join.client, join.seq);
                    if let Some(errand) =
                        self.engine.clients.errands().of(client.at()).filter(|e| e.seq == seq)
                    {
                        errand.until = None;
                    }
                    let mut header = Vec::new();
                    write::array_header(&mut header, count as usize);
                    self.engine.ops.joining().stream(
                        j,
                        &header,
                        false,
                        &mut self.engine.clients,
                        &mut self.engine.core,
                    );
                }
                Effect::Elements(elements) => self.engine.ops.joining().stream(
                    j,
                    &elements,
                    false,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                ),
                Effect::Resume(list) => {
                    if let Some(&Some(conn)) = join.upstreams.get(list) {
                        self.unpark(conn);
                    }
                }
                Effect::End => self.finish_join(j),
            }
        }
    }

    /// Ends a KEYS whose lists are complete, and counts it.
    fn finish_join(&mut self, j: usize) {
        self.engine.ops.joining().stream(
            j,
            b"",
            true,
            &mut self.engine.clients,
            &mut self.engine.core,
        );
        let Some(join) = self.engine.ops.joining().end(j, &mut base!(self.engine)) else { return };
        let micros = self.engine.core.now.saturating_sub(join.started);
        if micros >= self.engine.core.shared.slow.slower_than() {
            self.engine.seeing.note_join(
                join.client,
                join.seq,
                join.command,
                micros,
                &mut self.engine.clients,
                &mut self.engine.core,
            );
        }
        if let Some(histogram) =
            self.engine.core.stats.latency.get_mut(self.engine.core.router.class(join.command))
        {
            histogram.record(Histogram::bucket(micros), micros);
        }
        if let Some(stats) = self.engine.core.stats.commands.get_mut(join.command.index()) {
            stats.ok += 1;
        }
        self.engine.clients.errands().end(join.client, join.seq, &mut self.engine.core);
    }

    /// Resumes reading from the connection, beginning with what has been read of its list.
    fn unpark(&mut self, conn: ConnId) {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        up.read_paused = false;
        if !up.again {
            up.again = true;
            self.engine.core.turn.again.push(Source::Upstream(conn));
        }
        let Some(Dest::Join { join, part }) = up.pending.front().map(|p| p.dest) else { return };
        let scanned = std::mem::take(&mut up.scanned);
        let mut tail = std::mem::take(&mut up.tail);
        let piece = tail.get(..scanned).unwrap_or_default();
        if scanned > 0 && self.join_piece(conn, join, part, piece) {
            tail.drain(..scanned);
        } else if let Some(up) = self.engine.nodes.upstreams.get_mut(conn) {
            up.scanned = scanned;
        }
        if let Some(up) = self.engine.nodes.upstreams.get_mut(conn) {
            up.tail = tail;
        }
    }

    /// Resumes the client's KEYS, if there is one, once enough of its output is written.
    pub(crate) fn join_goes_on(&mut self, index: usize) {
        let Some(client) = self.engine.clients.slab.get(index) else { return };
        let me = ClientId::new(index, client.generation);
        if client.output() > MAX_OUTPUT / 2 {
            return;
        }
        let Some((_, join)) = self.engine.ops.joins.iter().find(|(_, join)| join.client == me)
        else {
            return;
        };
        let current = join.lists.current().and_then(|at| *join.upstreams.get(at)?);
        if let Some(conn) = current
            .filter(|&conn| self.engine.nodes.upstreams.get(conn).is_some_and(|up| up.read_paused))
        {
            self.unpark(conn);
        }
    }
}
