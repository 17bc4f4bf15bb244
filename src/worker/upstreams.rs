//! Connections to nodes: socket events, and writing.

use crate::base::{Base, base};
use crate::buf::WRITE_LIMIT;
use crate::common::Source;
use crate::dest::ConnId;
use crate::upstream::ConnectionState;
use crate::worker::Worker;

/// Size in bytes below which a write is deferred by a turn while the node has commands to answer.
const DEFER_BELOW: usize = 4 << 10;

impl Worker {
    /// Handles an event of a node's socket.
    pub(super) fn upstream_event(&mut self, conn: ConnId, event: &mio::event::Event) {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        match up.state {
            ConnectionState::Connecting { .. } => return base!(self.engine).connecting(conn),
            ConnectionState::Securing { .. } => return base!(self.engine).securing(conn),
            _ => {}
        }
        up.peer_closed |= event.is_read_closed();
        up.blocked &= !event.is_writable();
        if event.is_writable() {
            self.engine.nodes.mark_upstream(conn, &mut self.engine.core);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.upstream_readable(conn);
        }
    }

    /// Writes queued commands to a node at the end of a turn.
    pub(super) fn flush_upstream(&mut self, conn: ConnId) {
        let Some(up) = self.engine.nodes.upstreams.get_mut(conn) else { return };
        // While the node is busy with earlier commands, a small write can wait for another turn: it
        // then also carries what other clients send meanwhile, and saves both sides system calls.
        if !up.deferred
            && up.state == ConnectionState::Ready
            && up.queue.sent() > 0
            && (1..DEFER_BELOW).contains(&up.queue.unsent())
        {
            up.deferred = true;
            self.engine.core.turn.deferred.push(conn);
            return;
        }
        up.deferred = false;
        up.dirty = false;
        if up.blocked && up.suspect {
            return base!(self.engine).account_upstream(conn);
        }
        let written = if up.blocked { Ok((0, true)) } else { up.flush() };
        match written {
            Ok((n, full)) => {
                if let Some(stats) = self.engine.core.stats.nodes.get_mut(up.node.at()) {
                    stats.bytes_sent += n as u64;
                }
                if n > 0 && up.state == ConnectionState::Ready {
                    let at = match self.engine.seeing.traced.is_empty() {
                        true => self.engine.core.now,
                        false => self.engine.core.clock.epoch.elapsed().as_micros() as u64,
                    };
                    up.stamps.wrote(n, up.queue.sent(), at);
                }
                let connecting = matches!(
                    up.state,
                    ConnectionState::Connecting { .. } | ConnectionState::Securing { .. }
                );
                up.blocked = full;
                if n >= WRITE_LIMIT && up.queue.unsent() > 0 && !full {
                    // The remaining bytes are written in the next turn.
                    up.dirty = true;
                    up.deferred = true;
                    self.engine.core.turn.deferred.push(conn);
                }
                if full != up.watching
                    && !connecting
                    && let Some(stream) = up.stream.as_mut()
                {
                    up.watching = full;
                    let token = Source::Upstream(conn).token();
                    if let Err(e) =
                        stream.watch(self.engine.core.link.poll.registry(), token, full, true)
                    {
                        return self.engine.core.lose(conn, e.into());
                    }
                }
            }
            Err(error) => {
                let why = self.engine.nodes.connections().tls_why(conn, &error, &self.engine.core);
                return self.engine.core.lose(conn, why);
            }
        }
        base!(self.engine).account_upstream(conn);
    }
}
