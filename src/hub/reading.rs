//! Reading from nodes: frames go into the book.

use std::sync::atomic::Ordering::Relaxed;

use super::conn::{Conn, ConnState};
use super::{HubSession, MAX_IN_TRANSIT, MAX_READS, READ_SIZE, WorkerLink};
use crate::pubsub::book::{Message, Run};
use crate::pubsub::push::{self, NodeFrame};
use crate::upstream::{ConnectionEnd, HandshakeError};

impl HubSession<'_> {
    /// Reads once from each node that may have sent something. While a worker exceeds
    /// [`MAX_IN_TRANSIT`], only handshakes are read.
    pub(super) fn read_nodes(&mut self) {
        let overloaded = |w: &WorkerLink| w.transit.load(Relaxed) > MAX_IN_TRANSIT;
        self.held_back = self.hub.workers.values().any(overloaded);
        for node in 0..self.conns.len() {
            let Some(Some(conn)) = self.conns.get_mut(node) else { continue };
            if self.held_back && conn.state == ConnState::Ready {
                conn.held_back(self.now);
            } else if conn.readable {
                self.read_node(node);
            }
        }
    }

    fn read_node(&mut self, node: usize) {
        let Some(mut conn) = self.conns.get_mut(node).and_then(Option::take) else { return };
        let (mut scratch, now) = (std::mem::take(&mut self.scratch), self.now);
        let limit = self.hub.config.limits.memory.bytes();
        let take = |conn: &mut Conn, buf: &[u8]| {
            self.read_formers(node);
            self.frames(node, conn, buf)
        };
        let outcome = conn.read(&mut scratch, now, limit, take);
        self.scratch = scratch;
        if let Some(place) = self.conns.get_mut(node) {
            *place = Some(conn);
        }
        match outcome {
            Ok(n) => self.count_bytes(n),
            Err(why) => self.read_failed(node, &why),
        }
    }

    /// Reads from nodes that topics have moved away from, before frames of `node` are processed:
    /// what they sent earlier is in their sockets by now and comes first.
    fn read_formers(&mut self, node: usize) {
        let formers: Vec<usize> =
            self.book.nodes.formers().filter(|&former| former != node).collect();
        if formers.is_empty() {
            return;
        }
        let (mut scratch, now) = (vec![0; READ_SIZE], self.now);
        let limit = self.hub.config.limits.memory.bytes();
        for former in formers {
            let Some(mut conn) = self.conns.get_mut(former).and_then(Option::take) else {
                continue;
            };
            let mut reads = 0;
            let outcome = loop {
                let frames = |conn: &mut Conn, buf: &[u8]| self.frames(former, conn, buf);
                reads += 1;
                match conn.read(&mut scratch, now, limit, frames) {
                    Ok(n) if n == scratch.len() && reads < MAX_READS => self.count_bytes(n),
                    other => break other,
                }
            };
            if let Some(place) = self.conns.get_mut(former) {
                *place = Some(conn);
            }
            match outcome {
                Ok(n) => self.count_bytes(n),
                Err(why) => self.read_failed(former, &why),
            }
        }
    }

    fn count_bytes(&self, n: usize) {
        self.hub.stats.bytes.fetch_add(n as u64, Relaxed);
    }

    /// Processes all complete frames in `buf` and returns their length.
    fn frames(&mut self, node: usize, conn: &mut Conn, buf: &[u8]) -> Result<usize, ConnectionEnd> {
        let mut run = std::mem::take(&mut self.run);
        let mut start = 0;
        let outcome = loop {
            let end = match conn.frame_end(buf, start) {
                Ok(Some(end)) => end,
                Ok(None) => break Ok(start),
                Err(why) => break Err(why),
            };
            if let Err(why) = self.frame(node, conn, buf, (start, end), &mut run) {
                break Err(why);
            }
            start = end;
        };
        self.book.end_read(buf, &mut run);
        self.run = run;
        outcome
    }

    #[inline]
    fn frame(
        &mut self,
        node: usize,
        conn: &mut Conn,
        buf: &[u8],
        (start, end): (usize, usize),
        run: &mut Run,
    ) -> Result<(), ConnectionEnd> {
        let frame = buf.get(start..end).unwrap_or_default();
        if conn.state != ConnState::Ready {
            if frame.first() == Some(&b'>') {
                return Ok(());
            }
            return self.handshake_reply(node, conn, frame);
        }
        let said = push::read(frame).ok_or(ConnectionEnd::MalformedPush)?;
        if let NodeFrame::Message { kind, name, channel, at, .. } = said {
            self.book.message(node, buf, (start, end), Message { kind, name, channel, at }, run);
            return Ok(());
        }
        self.book.flush(buf, run);
        match said {
            NodeFrame::Changed { kind, subscribed, name } => {
                let changed = self.book.replies().changed(node, kind, subscribed, name);
                changed.map_err(ConnectionEnd::Unrelated)?;
            }
            NodeFrame::Error(text) => {
                self.book.replies().error(node, text).map_err(ConnectionEnd::Unrelated)?
            }
            NodeFrame::Reply => {
                self.book.replies().other(node).map_err(ConnectionEnd::Unrelated)?
            }
            NodeFrame::Message { .. } | NodeFrame::Other => {}
        }
        Ok(())
    }

    fn handshake_reply(
        &mut self,
        node: usize,
        conn: &mut Conn,
        frame: &[u8],
    ) -> Result<(), ConnectionEnd> {
        let done = conn.handshake.reply(frame).map_err(|error| {
            if let HandshakeError::WrongNode { .. } = error {
                self.hub.stats.strangers.fetch_add(1, Relaxed);
            }
            error
        })?;
        if done {
            conn.ready(self.now);
            self.hub.stats.connections.fetch_add(1, Relaxed);
            self.book.links().ready(node);
            tracing::debug!(node = self.name(node), "subscription connection made");
        }
        Ok(())
    }
}
