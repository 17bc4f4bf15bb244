//! Who may put a command on a connection to a node, and who waits.
//!
//! A connection is shared, and a node answers it in order: what one client has put there stands
//! before the next client's command. So when a queue is long enough to keep the node busy, clients
//! that have much under way wait, unread, until it is shorter; those that have little go on. At
//! `limits.upstream_in_flight` everybody waits.

use super::Worker;
use super::downstream::Flow;
use crate::client::Paused;
use crate::metrics::LimitHit;
use crate::resp::Protocol;

/// A queue of more bytes than this is long: a node reads as much of a connection in a turn, so that
/// it is busy until the clients that waited have sent more.
const LONG: usize = 16 << 10;
/// A client has much under way when that is more bytes of commands than this: more than a usual
/// pipeline.
const MUCH: usize = 8 << 10;

impl Worker {
    /// Whether a client has to wait before it may send on connection `u`. HOT PATH: the queue is
    /// mostly short.
    #[inline]
    pub(super) fn has_to_wait(&self, index: usize, u: usize) -> bool {
        self.upstreams.get(u).is_some_and(|up| up.queue.len() > LONG) && self.is_too_much(index, u)
    }

    #[cold]
    fn is_too_much(&self, index: usize, u: usize) -> bool {
        let Some(up) = self.upstreams.get(u) else { return false };
        let owed = self.clients.get(index).and_then(|c| c.replies.as_ref());
        let owed = owed.map_or(0, |r| r.waiting());
        // As if all commands were of one size, which spares everyone's account.
        let bytes = owed * (up.queue.len() / up.pending.len().max(1));
        up.queue.len() > self.settings.upstream_in_flight || bytes >= MUCH
    }

    /// The connection to `node` for this client, if it has to wait for it.
    pub(super) fn full_upstream(
        &self,
        node: u16,
        protocol: Protocol,
        client: usize,
    ) -> Option<usize> {
        let shared = &self.nodes.get(usize::from(node))?.shared[protocol as usize];
        let u = (*shared.get(client % self.settings.connections)?)?;
        self.has_to_wait(client, u).then_some(u)
    }

    /// The client is not read from until connection `u` has room again.
    pub(super) fn pause(&mut self, index: usize, u: usize) -> Flow {
        if let (Some(client), Some(up)) = (self.clients.get_mut(index), self.upstreams.get_mut(u)) {
            client.paused = Paused::Upstream;
            let me = (index as u32, client.generation);
            if up.queue.len() > self.settings.upstream_in_flight {
                up.waiters.push(me);
                self.stats.limits_hit[LimitHit::UpstreamInFlight as usize] += 1;
            } else {
                up.yielding.push(me);
            }
        }
        Flow::Pause
    }

    /// Clients that wait for a shorter queue go on when half of it is answered.
    pub(super) fn wake_waiters(&mut self, u: usize) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        if !up.yielding.is_empty() && up.queue.len() <= LONG / 2 {
            self.resume.append(&mut up.yielding);
        }
        if !up.waiters.is_empty() && up.queue.len() <= self.settings.upstream_in_flight / 2 {
            self.resume.append(&mut up.waiters);
        }
    }
}
