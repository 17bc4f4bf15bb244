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
//!
//! Commands and replies count by their bytes, too. A connection carries them one after the other, so
//! a quiet client's command waits for the bytes of all commands before it, and its reply for those of
//! all replies. How large a reply will be is not known before it comes; it is estimated from the
//! client's last ones ([`TransferSizes`]). While more than a budget of expected bytes is under way on
//! a connection, clients that ask for much wait for their turn, in an order that is fair by bytes
//! ([`Turns`]); a client that asks for little never does. The budget is small while others use the
//! connection, and larger while only clients with large transfers do: a connection needs no more
//! under way than the network delivers in one round trip, so a small budget costs no throughput where
//! nodes are near.
//!
//! Even one large transfer holds up what is behind it. So clients with large transfers have
//! connections of their own, one more to each node ([`Client::bulk`]), and a small command is never
//! behind a large one in a stream of bytes. Commands of one client must not overtake each other, so
//! it changes connections only while nothing of it is under way.
//!
//! [`Turns`]: crate::upstream::Turns

use crate::client::{Client, Paused, TransferSizes};
use crate::clients::{Clients, Flow};
use crate::common::Core;
use crate::common::connections::{
    BYTES_WHEN_SHARED, REMEMBERED, has_room_for_transfer, note_shared,
};
use crate::dest::{ClientId, ConnId};
use crate::metrics::LimitHit;
use crate::nodes::Nodes;
use crate::upstream::Upstream;

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
/// Expected bytes under way on a connection, from which on clients are looked at.
const MANY_BYTES: usize = 512 << 10;
/// A client that expects no more than this of one connection does not wait for a turn. It is what
/// a server writes to one client before it serves the next.
const FEW_BYTES: usize = 64 << 10;
/// A client that uses the connections for large transfers returns to the others when its next one is
/// expected to have fewer bytes than this.
const BULK_UNTIL: u32 = 32 << 10;

/// Why a client has to wait before it may send on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The connection is at `limits.upstream_in_flight`.
    Full,
    /// Too many bytes are under way.
    Turn,
    /// The client has too many commands under way.
    OwnReplies,
}

/// What a connection's node has to do, in commands.
#[inline]
pub(crate) fn work(up: &Upstream) -> usize {
    up.pending.len() + up.queue.len() / BYTES
}

/// Who has to wait so that others get their share of a connection, and goes on again.
pub(crate) struct Fairness<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// Who waits for a connection to a node.
    pub(crate) fn fairness(&mut self) -> Fairness<'_> {
        Fairness { clients: self }
    }

    /// Which of a node's shared connections the client uses. HOT PATH.
    #[inline]
    pub(crate) fn connection_of(&self, client: usize, core: &Core) -> usize {
        let connections = core.settings.connections;
        if self.slab.get(client).is_some_and(|c| c.bulk) {
            return connections;
        }
        match connections {
            1 => 0,
            n => client % n,
        }
    }

    /// Whether a client has to wait before it may send on connection `conn`. HOT PATH.
    #[inline]
    pub(crate) fn has_to_wait(
        &self,
        index: usize,
        conn: ConnId,
        nodes: &Nodes,
        core: &Core,
    ) -> bool {
        nodes.upstreams.get(conn).is_some_and(|up| {
            up.queue.len() > core.settings.upstream_in_flight
                || (up.pending.expected() > MANY_BYTES
                    && has_to_take_turns(self.slab.get(index), up, core))
                || (work(up) > LONG && is_too_much(self.slab.get(index), up, core))
        })
    }
}

impl Fairness<'_> {
    /// Moves the client to the connections for large transfers, or back from them, before it sends
    /// its next command. `true`: it has to wait until all its replies are there, and is paused.
    #[cold]
    pub(crate) fn has_to_change_connection(&mut self, index: usize, core: &mut Core) -> bool {
        let Some(client) = self.clients.slab.get_mut(index) else { return false };
        let wants = match client.bulk {
            true => client.transfer_sizes.expected() >= BULK_UNTIL,
            false => client.transfer_sizes.expected() >= TransferSizes::LARGE,
        };
        let wants = wants && core.shared.has_bulk_connections();
        if wants == client.bulk {
            return false;
        }
        if client.is_drained() {
            client.bulk = wants;
        } else if wants {
            // What it has under way must not be overtaken.
            self.clients.pause_until_replied(index, core);
            return true;
        }
        false
    }

    /// The client is not read from until connection `conn` has room again, its turn has come, or half
    /// of what it is owed is there.
    pub(crate) fn pause(
        &mut self,
        index: usize,
        conn: ConnId,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> Flow {
        let Some(up) = nodes.upstreams.get(conn) else { return Flow::Pause };
        let wait = reason_to_wait(self.clients.slab.get(index), up, core);
        let (Some(client), Some(up)) =
            (self.clients.slab.get_mut(index), nodes.upstreams.get_mut(conn))
        else {
            return Flow::Pause;
        };
        let me = ClientId::new(index, client.generation);
        match wait {
            Wait::Full => {
                client.paused = Paused::Upstream;
                up.waiters.push(me);
                core.stats.limits_hit[LimitHit::UpstreamInFlight as usize] += 1;
            }
            Wait::Turn => {
                client.paused = Paused::Turn;
                // What it asked for while it had no need to wait is not held against it for long.
                let most = (client.transfer_sizes.expected() as usize).max(BYTES_WHEN_SHARED);
                let asked = client.transfer_sizes.wait_for_turn().min(most as u64);
                let clients = &self.clients.slab;
                up.turns.push(me, asked, |id| {
                    let client = clients.get(id.at());
                    client
                        .is_some_and(|c| c.generation == id.generation && c.paused == Paused::Turn)
                });
                core.stats.large_reply_waits += 1;
            }
            Wait::OwnReplies => {
                client.paused = Paused::Yielding;
                if let Some(replies) = client.replies.as_mut() {
                    replies.wait_for_half();
                }
                self.clients.mark_client(index, core);
            }
        }
        Flow::Pause
    }

    /// Clients that wait for connection `conn` go on: all when half of a full queue is answered, one
    /// after the other as there is room for their transfers.
    #[inline]
    pub(crate) fn wake(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        if !up.waiters.is_empty() && up.queue.len() <= core.settings.upstream_in_flight / 2 {
            core.turn.resume.append(&mut up.waiters);
        }
        if !up.turns.is_empty() {
            self.next_turn(conn, nodes, core);
        }
    }

    /// Gives the client whose turn it is its turn, if there is room for what it asks for.
    fn next_turn(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        if !up.delivers() {
            // What it sends now waits for another connection, or for its deadline.
            core.turn.resume.extend(up.turns.drain());
            return;
        }
        while let Some(next) = nodes.upstreams.get(conn).and_then(|up| up.turns.peek()) {
            let client = self.clients.slab.get(next.at());
            let waits =
                client.filter(|c| c.generation == next.generation && c.paused == Paused::Turn);
            let Some(up) = nodes.upstreams.get(conn) else { return };
            if waits.is_some_and(|client| !has_room_for_transfer(up, client, core.now)) {
                return;
            }
            let waits = waits.is_some();
            if let Some(up) = nodes.upstreams.get_mut(conn) {
                up.turns.pop();
            }
            if waits && let Some(client) = self.clients.slab.get_mut(next.at()) {
                client.transfer_sizes.begin_turn();
                core.turn.resume.push(next);
                // There may be room for the next one when this one has sent what it may.
                nodes.mark_upstream(conn, core);
                return;
            }
        }
    }
}

/// Why a client has to wait before it may send on a connection.
#[cold]
fn reason_to_wait(client: Option<&Client>, up: &Upstream, core: &Core) -> Wait {
    if up.queue.len() > core.settings.upstream_in_flight {
        Wait::Full
    } else if up.pending.expected() > MANY_BYTES && has_to_take_turns(client, up, core) {
        Wait::Turn
    } else {
        Wait::OwnReplies
    }
}

/// Whether a client asks for so many bytes that it has to wait for its turn.
fn has_to_take_turns(client: Option<&Client>, up: &Upstream, core: &Core) -> bool {
    let Some(client) = client else { return false };
    let expected = client.transfer_sizes.expected() as usize;
    let owed = client.replies.as_ref().map_or(0, |r| r.waiting());
    if (owed + 1).saturating_mul(expected) <= FEW_BYTES {
        note_shared(up, core.now);
        return false;
    }
    !client.transfer_sizes.has_turn()
        && up.delivers()
        && (!up.turns.is_empty() || !has_room_for_transfer(up, client, core.now))
}

/// Whether a client fills more of a long queue than the others leave it.
fn is_too_much(client: Option<&Client>, up: &Upstream, core: &Core) -> bool {
    let owed = client.and_then(|c| c.replies.as_ref());
    let (owed, count, work) = (owed.map_or(0, |r| r.waiting()), up.pending.len(), work(up));
    // As if all that it is owed were commands such as the connection's, which spares everyone's
    // account.
    let is_owed = |much: usize| owed * work >= much * count;
    // It is owed something by other nodes as well: who fills this queue is owed more than it has.
    if owed + owed / 8 < count {
        note_shared(up, core.now);
        return work > TOO_LONG && is_owed(TOO_MUCH);
    }
    let shared = core.now < up.shared_at.get() + REMEMBERED;
    is_owed(MUCH) && (shared || (work > TOO_LONG && is_owed(TOO_MUCH)))
}
