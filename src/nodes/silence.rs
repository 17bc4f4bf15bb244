//! Nodes that owe an answer and say nothing, and connections that may be dead without anybody
//! knowing.
//!
//! A connection that owes an answer and is silent for `timeouts.probe` is told to control, which
//! looks at the node ([`crate::control`]'s `probe`) and watches what the cluster says of it. Until
//! there is a sign of life nothing more is written: what is not written can be sent elsewhere. What
//! was written waits on, to its deadline at most, because a node that is busy with a script looks
//! the same as one that is frozen, and a network comes back: a connection is only given up where
//! nothing is lost with it, or where the cluster has put another node in its place.
//!
//! On a connection that owes nothing PING makes it owe something, so that the first command after
//! a quiet night does not find out that the other end is gone.

use crate::common::Core;
use crate::dest::{ConnId, Dest};
use crate::mailbox::{ProbeResult, ToControl, WrongNode};
use crate::nodes::Nodes;
use crate::route::PendingFlags;
use crate::stream::Stream;
use crate::upstream::{ConnectionEnd, ConnectionState, Upstream};

/// A connection that is silent for this long while others wait behind a module's command may be
/// blocked by it, microseconds.
const BLOCKED_AFTER: u64 = 100_000;
/// Pause between two looks at the same silence, microseconds.
const BLOCKED_AGAIN: u64 = 1_000_000;
/// The same where a script may run, microseconds: its node says so when `busy-reply-threshold` has
/// passed.
const BUSY_AGAIN: u64 = 500_000;
pub(crate) const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// A connection is idle when nothing was said on it for so many times `timeouts.probe`.
pub(crate) const IDLE: u64 = 10;

/// What is found out about the nodes at the other ends of connections that say nothing: whether
/// they live, and who they are.
pub(crate) struct Silence<'a> {
    nodes: &'a mut Nodes,
}

impl Nodes {
    /// The methods about silent nodes.
    #[inline]
    pub(crate) fn silence(&mut self) -> Silence<'_> {
        Silence { nodes: self }
    }

    /// When idle connections are looked for next.
    pub(crate) fn idle_probe_due(&self, core: &Core) -> Option<u64> {
        core.settings
            .probe
            .filter(|_| !self.upstreams.is_empty())
            .map(|_| core.clock.next_idle_probe)
    }
}

impl Silence<'_> {
    /// With every tick: does this connection owe an answer, and how long has it been silent?
    pub(crate) fn check(&mut self, conn: ConnId, core: &mut Core) {
        let after = core.settings.probe.unwrap_or(u64::MAX / 2);
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        if up.dedicated.is_some() {
            return; // what is lent may wait as long as it likes
        }
        let owes = up.state == ConnectionState::Ready && up.queue.sent() > 0 && !up.read_paused;
        let heard = up.seen_read != up.last_read;
        up.seen_read = up.last_read;
        if heard || !owes || up.quiet_since == 0 {
            up.quiet_since = if owes { core.now } else { 0 };
            up.next_ask = core.now + after;
            up.next_block_check = core.now + BLOCKED_AFTER;
            if heard || !owes {
                self.clear_suspicion(conn, core);
            }
            return;
        }
        if core.now >= up.next_block_check {
            up.next_block_check = core.now + BLOCKED_AGAIN;
            self.check_blocked(conn, core);
        }
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        if core.now < up.next_ask {
            return;
        }
        up.next_ask = core.now + after;
        let node = self.nodes.list.get(up.node.at()).and_then(|n| n.socket);
        if let Some(node) = node {
            // Control may be gone at the very end: nothing to look at then.
            let _ = core.link.control.send(ToControl::Silent { node });
        }
    }

    /// The connection is silent. If its first command may run a script, nothing more is written
    /// behind it, and control asks whether that keeps the node busy; if it is a module's and others
    /// wait behind it, whether it blocks the connection.
    fn check_blocked(&mut self, conn: ConnId, core: &mut Core) {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        let Some(first) = up.pending.front() else { return };
        if up.streaming || !up.tail.is_empty() || up.retiring {
            return;
        }
        let module = first.before == 0 && core.router.may_block_others(first.command);
        if core.router.may_run_script(first.command) {
            up.stop_writing();
            up.next_block_check = core.now + BUSY_AGAIN;
        } else if !module || up.pending.len() == 1 {
            return;
        }
        let own = up.stream.as_ref().and_then(Stream::tcp).and_then(|s| s.local_addr().ok());
        let node = self.nodes.list.get(up.node.at()).and_then(|n| n.socket);
        if let (Some(node), Some(own)) = (node, own) {
            // Control may be gone at the very end: nothing to look at then.
            let _ = core.link.control.send(ToControl::Blocked { node, own, module });
        }
    }

    fn clear_suspicion(&mut self, conn: ConnId, core: &mut Core) {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        if std::mem::take(&mut up.suspect) {
            up.blocked = false;
            self.nodes.mark_upstream(conn, core);
        }
    }

    /// The node at this address has become another while connections to it stood: they are closed.
    /// New ones verify who answers.
    pub(crate) fn wrong_node_answers(&mut self, stranger: &WrongNode, core: &mut Core) {
        let stands = |up: &Upstream| {
            let node = self.nodes.list.get(up.node.at());
            up.state == ConnectionState::Ready
                && node.is_some_and(|node| {
                    node.socket == Some(stranger.socket) && *node.id == *stranger.expected
                })
        };
        let standing = self.nodes.upstreams.iter().filter(|(_, up)| stands(up));
        for conn in standing.map(|(conn, _)| conn).collect::<Vec<_>>() {
            // Closing one may have closed others, such as those of the same KEYS.
            if self.nodes.upstreams.get(conn).is_some_and(|up| up.state == ConnectionState::Ready) {
                core.lose(conn, stranger.why().into());
            }
        }
    }

    pub(crate) fn after_probe(&mut self, conn: ConnId, verdict: ProbeResult, core: &mut Core) {
        let Some(up) = self.nodes.upstreams.get_mut(conn) else { return };
        match verdict {
            // PING waits for nothing: the node has not got ours, or its answer did not get here.
            // Anything else may take its time (a node that is paused for a failover answers PING).
            ProbeResult::Answers if waits_for_ping(up) => {
                core.lose(conn, ConnectionEnd::AnswersElsewhere);
            }
            // It is back from where nobody heard of it, or the network is. What this connection
            // has under way the kernel sends again when it sees fit; reads need not wait for that.
            ProbeResult::Answers if up.suspect && !owes_for_good(up) => {
                core.lose(conn, ConnectionEnd::AnswersAgain);
            }
            ProbeResult::Answers => self.clear_suspicion(conn, core),
            ProbeResult::Unreachable if !owes_for_good(up) => {
                core.lose(conn, ConnectionEnd::TakesNoConnection);
            }
            ProbeResult::Accepts | ProbeResult::Unreachable => {
                up.suspect = true;
                up.blocked = true;
                self.nodes.mark_upstream(conn, core); // nobody waits for a turn on it
            }
        }
    }

    /// Asks for a sign of life where nothing was said for a while.
    pub(crate) fn probe_idle(&mut self, core: &mut Core) {
        let Some(after) = core.settings.probe else { return };
        if core.now < core.clock.next_idle_probe {
            return;
        }
        let idle = after * IDLE;
        core.clock.next_idle_probe = core.now + idle / 4;
        let before = core.now.saturating_sub(idle);
        let quiet = |up: &Upstream| {
            up.dedicated.is_none()
                && up.state == ConnectionState::Ready
                && up.pending.is_empty()
                && up.last_read.max(up.ready_since) < before
        };
        let quiet = self.nodes.upstreams.iter().filter(|(_, up)| quiet(up));
        for conn in quiet.map(|(conn, _)| conn).collect::<Vec<_>>() {
            self.nodes.discard(conn, PING, core);
        }
    }
}

/// The first answer that it owes is that to the PING of [`Silence::probe_idle`].
fn waits_for_ping(up: &Upstream) -> bool {
    let first = up.pending.front();
    first.is_some_and(|p| p.dest == Dest::Discard && up.queue.front(p.len as usize) == Some(PING))
}

/// It owes the answer to something that cannot be sent again.
fn owes_for_good(up: &Upstream) -> bool {
    let mut written = up.queue.sent();
    let mut sent = up.pending.iter().take_while(|p| {
        let begun = written > 0;
        written = written.saturating_sub(p.len as usize);
        begun
    });
    sent.any(|p| p.dest != Dest::Discard && !p.flags.contains(PendingFlags::READ_ONLY))
}
