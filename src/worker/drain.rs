//! A worker's end: its clients are let go where they lose nothing.
//!
//! A connection that is closed while its client's next command is on the way leaves that client
//! with a command that it knows nothing of. So a client that speaks is let go right behind a reply,
//! at a moment when nothing of it is unanswered: reply and end of the connection go out in the same
//! packet, and who looks at a connection before it uses it, as clients' pools do, sees the end in
//! time. It may take its time to close its side. Over a Unix socket, which has no packets, the
//! client may say more between the two: its way here is closed first, what came before is answered,
//! and what it writes after that fails at once.
//!
//! This goes on for the drain's first twentieth, half a second at most. Who has said nothing for so
//! long is closed there and then, and when it is over so is everybody else, as soon as their replies
//! are written.

use super::state::{Clients, Core};
use std::time::Instant;

use super::Worker;
use crate::client::{Client, Paused, mode};

/// The longest time in which clients are let go behind a reply, in microseconds.
const POLITE: u64 = 500_000;

/// Until when, in microseconds of the worker's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// Clients are let go behind a reply; `None` when that time is over.
    polite: Option<u64>,
    by: u64,
}

impl Drain {
    /// When something is to be done next.
    pub(super) fn next(&self) -> u64 {
        self.polite.unwrap_or(self.by)
    }

    /// Whether clients are let go behind a reply.
    pub(super) fn is_polite(&self) -> bool {
        self.polite.is_some()
    }

    /// What there is to write to this client is its last: nothing else is under way for it.
    pub(super) fn is_last(&self, client: &Client) -> bool {
        if client.replies.is_none() || !client.is_drained() {
            return false;
        }
        (self.is_polite() && may_leave(client)) || client.paused == Paused::Closing
    }
}

/// Behind the replies that there are to write now, the client can be let go and loses nothing.
pub(super) fn may_leave(client: &Client) -> bool {
    client.replies.is_some()
        && client.is_drained()
        && client.paused == Paused::No
        && !client.read_closed
        && client.tail.is_empty()
        && client.lent.is_none()
        && client.subscriptions.is_none()
        && client.session.modes & mode::MULTI == 0
}

impl Clients {
    pub(super) fn is_drained(&self, core: &Core) -> bool {
        self.stop.drain.is_some_and(|drain| self.slab.is_empty() || core.now >= drain.by)
    }

    /// The client's last reply is in the socket, and nothing else is under way for it: it is let go,
    /// or answered once more if it has said something meanwhile that would be lost.
    pub(super) fn let_go_unless_it_speaks(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.slab.get_mut(index) else { return };
        client.stream.close_input();
        if client.stream.has_input() {
            self.read_again(index, core);
            self.account_client(index, core);
        } else {
            self.let_go(index, core);
        }
    }

    /// Its last reply is in the socket: says that this is the end, and waits for the client to see
    /// it. Closing at once would take the reply back if the client has sent anything meanwhile.
    pub(super) fn let_go(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.slab.get_mut(index) else { return };
        if client.stream.finish().is_err() {
            return self.close(index, core);
        }
        client.paused = Paused::Leaving;
        let (reason, generation) = (client.leaves_for, client.generation);
        if let Some(reason) = reason {
            core.stats.disconnected[reason as usize] += 1;
        }
        core.close_later(index, generation);
        // What it sent before it saw the end is not looked at, but must not stay in the socket.
        self.read_again(index, core);
        self.account_client(index, core);
    }

    /// A client that was let go: what it still says is dropped until it closes.
    pub(super) fn client_leaves(&mut self, index: usize, core: &mut Core) {
        let mut scratch = std::mem::take(&mut core.spare.scratch);
        let Some(client) = self.slab.get_mut(index) else { return };
        match std::io::Read::read(&mut client.stream, &mut scratch) {
            Ok(0) => self.close(index, core),
            Ok(_) => self.read_again(index, core),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => self.read_again(index, core),
            Err(_) => self.close(index, core),
        }
        core.spare.scratch = scratch;
    }
}

impl Worker {
    pub(super) fn start_drain(&mut self, by: Instant) {
        let by = by.saturating_duration_since(self.core.clock.epoch).as_micros() as u64;
        let patience = (by.saturating_sub(self.core.now) / 20).min(POLITE);
        self.clients.stop.drain = Some(Drain { polite: Some(self.core.now + patience), by });
        let silent_since = self.core.now.saturating_sub(patience);
        let all: Vec<(usize, bool)> =
            self.clients.slab.iter().map(|(i, c)| (i, c.active <= silent_since)).collect();
        for (index, silent) in all {
            // Who waits for an element is told that there was none: nothing can be lost so.
            let waited = self.unblock(index, false);
            if silent && !waited && !self.has_spoken(index) {
                self.clients.stop_reading(index, &mut self.core);
            }
        }
    }

    /// The polite time is over: the clients that are left are closed when they are answered.
    pub(super) fn drain_goes_on(&mut self) {
        let Some(drain) = self.clients.stop.drain.as_mut() else { return };
        if drain.polite.is_none_or(|until| self.core.now < until) {
            return;
        }
        drain.polite = None;
        let all: Vec<usize> = self.clients.slab.iter().map(|(i, _)| i).collect();
        for index in all {
            self.unblock(index, false);
            if self.clients.slab.get(index).is_some_and(|c| c.paused == Paused::Leaving) {
                self.clients.close(index, &mut self.core);
            } else {
                self.has_spoken(index);
                self.clients.stop_reading(index, &mut self.core);
            }
        }
    }

    /// Takes in what is in the socket of a client that is about to be closed: whether there is
    /// anything.
    pub(super) fn has_spoken(&mut self, index: usize) -> bool {
        if let Some(client) = self.clients.slab.get(index) {
            client.stream.close_input();
        }
        let now = self.core.now;
        let read = |client: Option<&Client>| client.is_some_and(|c| c.active == now);
        let before = read(self.clients.slab.get(index));
        self.client_readable(index);
        !before && read(self.clients.slab.get(index))
    }
}
