//! Clients that have to leave: too slow in their handshakes, idle, too old, drained.

use crate::client::{Client, Paused, SessionModes};
use crate::clients::Clients;
use crate::common::Core;
use crate::dest::ClientId;
use crate::metrics::DisconnectReason;

/// The clients that leave, or have to.
pub(crate) struct Departures<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The clients that leave, or have to.
    pub(crate) fn departures(&mut self) -> Departures<'_> {
        Departures { clients: self }
    }
}

impl Departures<'_> {
    /// Closes clients that have been idle for `timeouts.idle`.
    pub(crate) fn close_idle(&mut self, core: &mut Core) {
        let Some(timeout) = core.settings.idle_timeout else { return };
        if core.now < core.clock.next_idle_check {
            return;
        }
        core.clock.next_idle_check = core.now + (timeout / 4).clamp(10_000, 1_000_000);
        let before = core.now.saturating_sub(timeout);
        // Who monitors or is subscribed has nothing to say.
        let monitors = |c: &crate::client::Client| {
            c.subscriptions.is_some() || c.lent.as_ref().is_some_and(|lent| lent.monitor)
        };
        let idle: Vec<usize> = self
            .clients
            .slab
            .iter()
            .filter(|(_, c)| c.active < before && c.is_idle() && c.paused == Paused::No)
            .filter(|(_, c)| !monitors(c))
            .map(|(i, _)| i)
            .collect();
        for index in idle {
            core.stats.disconnected[DisconnectReason::Idle as usize] += 1;
            self.clients.close(index, core);
        }
    }

    /// Whether the drain is over: all have left, or there is no time left.
    pub(crate) fn are_over(&self, core: &Core) -> bool {
        self.clients
            .stop
            .drain
            .is_some_and(|drain| self.clients.slab.is_empty() || core.now >= drain.by)
    }

    /// The client's last reply is in the socket, and nothing else is under way for it: it is let go,
    /// or answered once more if it has said something meanwhile that would be lost.
    pub(crate) fn let_go_unless_it_speaks(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        client.stream.close_input();
        if client.stream.has_input() {
            self.clients.read_again(index, core);
            self.clients.memory().account(index, core);
        } else {
            self.let_go(index, core);
        }
    }

    /// Its last reply is in the socket: says that this is the end, and waits for the client to see
    /// it. Closing at once would take the reply back if the client has sent anything meanwhile.
    pub(crate) fn let_go(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        if client.stream.finish().is_err() {
            return self.clients.close(index, core);
        }
        client.paused = Paused::Leaving;
        let (reason, generation) = (client.leave_when_idle, client.generation);
        if let Some(reason) = reason {
            core.stats.disconnected[reason as usize] += 1;
        }
        core.close_later(index, generation);
        // What it sent before it saw the end is not looked at, but must not stay in the socket.
        self.clients.read_again(index, core);
        self.clients.memory().account(index, core);
    }

    /// A client that was let go: what it still says is dropped until it closes.
    pub(crate) fn drop_input(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.clients.slab.get_mut(index) else { return };
        let mut scratch = std::mem::take(&mut core.spare.scratch);
        match std::io::Read::read(&mut client.stream, &mut scratch) {
            Ok(0) => self.clients.close(index, core),
            Ok(_) => self.clients.read_again(index, core),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                self.clients.read_again(index, core)
            }
            Err(_) => self.clients.close(index, core),
        }
        core.spare.scratch = scratch;
    }

    /// The time is over that a client had to see the end.
    pub(crate) fn close_if_leaving(&mut self, id: ClientId, core: &mut Core) {
        let client = self.clients.slab.get(id.at());
        if client.is_some_and(|c| c.generation == id.generation && c.paused.is_final()) {
            self.clients.close(id.at(), core);
        }
    }

    /// Lets as many clients go that `keep` are left: those that are idle longest, and those in the
    /// middle of something last.
    pub(crate) fn shed(&mut self, keep: usize, core: &mut Core) {
        let stays = |c: &Client| !c.gone && c.leave_when_idle.is_none() && !c.paused.is_final();
        let staying = self.clients.slab.iter().filter(|(_, c)| stays(c));
        let mut staying: Vec<(bool, u64, usize)> =
            staying.map(|(index, c)| (is_engaged(c), c.active, index)).collect();
        let excess = staying.len().saturating_sub(keep);
        if excess == 0 {
            return;
        }
        staying.sort_unstable();
        for &(_, _, index) in staying.iter().take(excess) {
            if let Some(client) = self.clients.slab.get_mut(index) {
                client.leave_when_idle = Some(DisconnectReason::Descriptors);
            }
        }
        tracing::warn!(
            worker = core.link.index,
            clients = excess,
            "clients are closed, those that are idle longest first: file descriptors are needed for \
             nodes"
        );
        (self.clients.arrivals.leaving.any, self.clients.arrivals.leaving.next_look) =
            (true, core.now);
    }

    /// Closes clients whose handshakes take too long.
    pub(crate) fn end_slow_handshakes(&mut self, core: &mut Core) {
        self.clients.arrivals.handshakes.sweep(&self.clients.slab, core.now);
        while self.clients.arrivals.handshakes.due(core).is_some_and(|due| due <= core.now) {
            let Some((_, index, generation)) = self.clients.arrivals.handshakes.queue.pop_front()
            else {
                return;
            };
            let Some(client) = self.clients.slab.get_mut(index as usize) else { continue };
            if client.generation != generation || client.paused != Paused::Handshake {
                continue;
            }
            if let Some(tls) = client.stream.tls() {
                tls.timed_out();
            }
            self.clients.close(index as usize, core);
        }
    }
}

/// Until when, in microseconds of the worker's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    /// Clients are let go behind a reply; `None` when that time is over.
    pub(crate) polite: Option<u64>,
    pub(crate) by: u64,
}

impl Drain {
    /// When something is to be done next.
    pub(crate) fn next(&self) -> u64 {
        self.polite.unwrap_or(self.by)
    }

    /// Whether clients are let go behind a reply.
    pub(crate) fn is_polite(&self) -> bool {
        self.polite.is_some()
    }

    /// What there is to write to this client is its last: nothing else is under way for it.
    pub(crate) fn is_last(&self, client: &Client) -> bool {
        if client.replies.is_none() || !client.is_drained() {
            return false;
        }
        (self.is_polite() && may_leave(client)) || client.paused == Paused::Closing
    }
}

/// Behind the replies that there are to write now, the client can be let go and loses nothing.
pub(crate) fn may_leave(client: &Client) -> bool {
    client.replies.is_some()
        && client.is_drained()
        && client.paused == Paused::No
        && !client.read_closed
        && client.tail.is_empty()
        && client.lent.is_none()
        && client.subscriptions.is_none()
        && !client.session.modes.contains(SessionModes::MULTI)
}

/// When clients that are to leave are looked at.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    pub(crate) next_look: u64,
    /// There were some at the last look.
    pub(crate) any: bool,
}

impl Leaving {
    /// Ages are looked at again at once, because another limit may hold.
    pub(crate) fn look_at_ages(&mut self, now: u64) {
        self.next_look = now;
    }

    /// When clients that are to leave are looked at next.
    pub(crate) fn due(&self, core: &Core) -> Option<u64> {
        let wanted = self.any || core.settings.max_age.is_some();
        wanted.then_some(self.next_look)
    }
}

/// The client is in the middle of something that only it can end.
pub(crate) fn is_engaged(client: &Client) -> bool {
    client.session.modes.contains(SessionModes::MULTI)
        || client.lent.as_ref().is_some_and(|l| !l.monitor)
}
