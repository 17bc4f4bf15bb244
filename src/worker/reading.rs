//! Reading from nodes.

use crate::buf::CHUNK;
use crate::common::Source;
use crate::dest::ConnId;
use crate::upstream::{ConnectionEnd, ConnectionState};
use crate::worker::Worker;
use std::io::Read;

impl Worker {
    /// Reads again from a node that had sent more than one read takes.
    pub(super) fn upstream_again(&mut self, conn: ConnId) {
        if let Some(up) = self.engine.nodes.upstreams.get_mut(conn) {
            up.again = false;
            self.upstream_readable(conn);
        }
    }

    /// Reads from a node, once per turn. HOT PATH: every reply passes through here.
    pub(super) fn upstream_readable(&mut self, conn: ConnId) {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        if up.read_paused {
            return;
        }
        let Some(stream) = up.stream.as_mut() else { return };
        let mut scratch = std::mem::take(&mut self.engine.core.spare.scratch);
        // As with clients: a short unfinished reply is copied in front of the new bytes; to a long
        // one, which cannot be passed on in pieces, the new bytes are appended.
        let append = up.tail.len() > scratch.len() / 2;
        let front = if append { 0 } else { up.tail.len() };
        if let Some(place) = scratch.get_mut(..front) {
            place.copy_from_slice(up.tail.get(..front).unwrap_or_default());
        }
        let room = scratch.len() - front;
        match stream.read(scratch.get_mut(front..).unwrap_or_default()) {
            Ok(0) => self.engine.core.lose(conn, ConnectionEnd::Closed),
            Ok(n) => {
                up.last_read = self.engine.core.now;
                if up.window > 0 && up.state == ConnectionState::Ready {
                    up.widen();
                }
                if (n == room || up.peer_closed) && !up.again {
                    up.again = true;
                    self.engine.core.turn.again.push(Source::Upstream(conn));
                }
                if let Some(stats) = self.engine.core.stats.nodes.get_mut(up.node.at()) {
                    stats.bytes_received += n as u64;
                }
                let got = scratch.get(..front + n).unwrap_or_default();
                // A buffer that grows exists twice for a moment.
                let grows = up.tail.len() + n > up.tail.capacity();
                let grown = up.tail.len() + n;
                if append
                    && grows
                    && !self.engine.clients.memory().has_room_for(
                        grown,
                        &mut self.engine.nodes,
                        &mut self.engine.core,
                    )
                {
                    self.engine.core.spare.scratch = scratch;
                    return self.engine.clients.deliveries().refuse_reply(
                        conn,
                        &mut self.engine.nodes,
                        &mut self.engine.core,
                    );
                }
                let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
                let outcome = if append {
                    let mut tail = std::mem::take(&mut up.tail);
                    tail.extend_from_slice(got);
                    self.engine.core.turn.reading = conn;
                    let outcome = self.delivery().replies(conn, &tail);
                    self.engine.core.turn.reading = ConnId::NONE;
                    // The unconsumed bytes are the end of the tail, usually all of it.
                    match (&outcome, self.engine.nodes.upstreams.get_mut(conn)) {
                        (Ok(0), Some(up)) => up.tail = tail,
                        (Ok(used), Some(up)) => {
                            up.tail = tail.get(*used..).unwrap_or_default().to_vec();
                        }
                        _ => {}
                    }
                    outcome
                } else {
                    let outcome = self.delivery().replies(conn, got);
                    if let (Ok(used), Some(up)) =
                        (&outcome, self.engine.nodes.upstreams.get_mut(conn))
                    {
                        let rest = got.get(*used..).unwrap_or_default();
                        up.tail.clear();
                        if rest.is_empty() && up.tail.capacity() > CHUNK {
                            up.tail = Vec::new();
                        }
                        up.tail.extend_from_slice(rest);
                    }
                    outcome
                };
                if let Err(why) = outcome {
                    self.engine.core.lose(conn, why);
                }
                self.engine.nodes.mark_upstream(conn, &mut self.engine.core);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                if !up.again {
                    up.again = true;
                    self.engine.core.turn.again.push(Source::Upstream(conn));
                }
            }
            Err(error) => {
                let why = self.engine.nodes.connections().tls_why(conn, &error, &self.engine.core);
                self.engine.core.lose(conn, why);
            }
        }
        self.engine.core.spare.scratch = scratch;
    }
}
