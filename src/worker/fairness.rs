//! Who may put a command on a connection to a node, and who waits.
//!
//! A connection is shared, and a node answers it in order: what one client has put there stands
//! before the next client's command. So when a queue is long enough to keep the node busy, a client
//! that has much of it under way waits, unread, until half of what it is owed is there. How much
//! is much depends on who else is there: while others use the connection, who fills most of it has
//! to leave them room; alone, or as one of many equals, a client may have a deep pipeline, which
//! costs less. At `limits.upstream_in_flight` everybody waits.
//!
//! Who waits for its own replies need not be woken by the connection: each reply that it gets, of
//! whatever node and whether it is an error or not, has it looked at, and all that are owed come
//! sooner or later. Nor can others keep it waiting by keeping the queue long.

use super::Worker;
use super::downstream::Flow;
use crate::client::Paused;
use crate::metrics::LimitHit;
use crate::resp::Protocol;
use crate::upstream::Upstream;
use crate::users::OWN;

/// So many bytes of commands are as much work for a node as one more command.
const BYTES: usize = 256;
/// A queue of more work than this, in commands, is long: the node is busy until the clients that
/// waited have sent more.
const LONG: usize = 200;
/// Who fills most of a long queue that others use may have so much work under way.
const MUCH: usize = 100;
/// Whoever it is, in a queue that is [`TOO_LONG`]: more than a usual pipeline.
const TOO_MUCH: usize = 1_000;
/// See [`TOO_MUCH`].
const TOO_LONG: usize = 2_000;
/// A connection is used by others for so long after one of them has met a long queue, microseconds.
const REMEMBERED: u64 = 200_000;

/// What a connection's node has to do, in commands.
#[inline]
fn work(up: &Upstream) -> usize {
    up.pending.len() + up.queue.len() / BYTES
}

impl Worker {
    /// Whether a client has to wait before it may send on connection `u`. HOT PATH.
    #[inline]
    pub(super) fn has_to_wait(&self, index: usize, u: usize) -> bool {
        self.upstreams.get(u).is_some_and(|up| {
            up.queue.len() > self.settings.upstream_in_flight
                || (work(up) > LONG && self.is_too_much(index, up))
        })
    }

    fn is_too_much(&self, index: usize, up: &Upstream) -> bool {
        let owed = self.clients.get(index).and_then(|c| c.replies.as_ref());
        let (owed, count, work) = (owed.map_or(0, |r| r.waiting()), up.pending.len(), work(up));
        // As if all that it is owed were commands such as the connection's, which spares everyone's
        // account.
        let is_owed = |much: usize| owed * work >= much * count;
        // It is owed something by other nodes as well: who fills this queue is owed more than it has.
        if owed + owed / 8 < count {
            up.shared_at.set(self.now);
            return work > TOO_LONG && is_owed(TOO_MUCH);
        }
        let shared = self.now < up.shared_at.get() + REMEMBERED;
        is_owed(MUCH) && (shared || (work > TOO_LONG && is_owed(TOO_MUCH)))
    }

    /// The connection to `node` for this client, if it has to wait for it.
    pub(super) fn full_upstream(
        &self,
        node: u16,
        protocol: Protocol,
        client: usize,
    ) -> Option<usize> {
        let u = match self.realm_of(client) {
            OWN => {
                let shared = &self.nodes.get(usize::from(node))?.shared[protocol as usize];
                (*shared.get(client % self.settings.connections)?)?
            }
            realm => self.realm_connection(realm, node, protocol)?,
        };
        self.has_to_wait(client, u).then_some(u)
    }

    /// The client is not read from until connection `u` has room again, or half of what it is owed
    /// is there.
    pub(super) fn pause(&mut self, index: usize, u: usize) -> Flow {
        if let (Some(client), Some(up)) = (self.clients.get_mut(index), self.upstreams.get_mut(u)) {
            if up.queue.len() > self.settings.upstream_in_flight {
                client.paused = Paused::Upstream;
                up.waiters.push((index as u32, client.generation));
                self.stats.limits_hit[LimitHit::UpstreamInFlight as usize] += 1;
            } else {
                client.paused = Paused::Yielding;
                if let Some(replies) = client.replies.as_mut() {
                    replies.wait_for_half();
                }
                self.mark_client(index);
            }
        }
        Flow::Pause
    }

    /// Clients that wait for a queue that was full go on when half of it is answered.
    pub(super) fn wake_waiters(&mut self, u: usize) {
        let Some(up) = self.upstreams.get_mut(u) else { return };
        if !up.waiters.is_empty() && up.queue.len() <= self.settings.upstream_in_flight / 2 {
            self.resume.append(&mut up.waiters);
        }
    }
}
