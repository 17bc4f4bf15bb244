//! Scripts are remembered, and given to the nodes that lack them.

use std::sync::Arc;

use memchr::memmem;

use crate::command::CommandId;
use crate::common::Core;
use crate::common::requests::discarded;
use crate::dest::{ConnId, Dest};
use crate::hash::{IntMap, fingerprint};
use crate::mailbox::ToControl;
use crate::metrics::LimitHit;
use crate::nodes::Nodes;
use crate::resp::{Args, Request, RequestProgress, scan_request};
use crate::route::{PendingFlags, Script};
use crate::scripts::{Insertion, ScriptCheck, ScriptStore, Sha};
use crate::upstream::{ConnectionState, Pending};

/// A script in use is told to the store so often, microseconds.
const TOUCH_EVERY: u64 = 1_000_000;
/// Bodies of EVAL that are known to be in the store; then the list begins anew, which costs a
/// SHA1 each.
const MOST_SEEN: usize = 10_000;
/// How often a command is sent again after NOSCRIPT. Other refusals are counted in, and a failover
/// that it waits for makes dozens of them: well above what a command's deadline lets happen.
const MOST_HEALS: u8 = 250;

/// What a worker knows of scripts.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) store: Arc<ScriptStore>,
    /// Bodies of EVAL by their hash, when the store was told and how many had gone from it: a
    /// repeated EVAL costs neither a SHA1 nor the store's lock. Unless the hash were keyed, two
    /// bodies could be made that share one.
    pub(crate) seen: IntMap<u64, (u64, u64)>,
    pub(crate) epoch: u64,
}

impl Scripts {
    pub fn new(store: Arc<ScriptStore>) -> Self {
        Scripts { store, seen: IntMap::default(), epoch: 0 }
    }

    /// Whether the store need not be told of `body` now.
    pub(crate) fn has_seen(&mut self, body: &[u8], now: u64) -> bool {
        let epoch = self.store.epoch();
        if self.epoch != epoch || self.seen.len() >= MOST_SEEN {
            self.seen.clear();
            self.epoch = epoch;
        }
        let hash = fingerprint(body);
        let evicted = self.store.evicted();
        match self.seen.get(&hash) {
            // Whatever went, it may have been this one.
            Some(&(told, before))
                if before == evicted && now.saturating_sub(told) < TOUCH_EVERY =>
            {
                true
            }
            _ => {
                self.seen.insert(hash, (now, evicted));
                false
            }
        }
    }

    pub(crate) fn remember_script(&mut self, body: &[u8], core: &mut Core) {
        let Insertion { evicted, partial } = self.store.insert(body);
        core.stats.limits_hit[LimitHit::Scripts as usize] += evicted as u64;
        core.report_partial(partial, "script");
    }

    /// FUNCTION LOAD [REPLACE] code. The nodes keep it.
    pub(crate) fn look_at_library(&mut self, args: &Args, core: &mut Core) {
        let code = args.get(args.len().saturating_sub(1)).unwrap_or_default();
        let partial = self.store.check_library(code);
        core.report_partial(partial, "function library");
    }

    /// A command about scripts that is queued behind MULTI.
    pub(crate) fn script_in_transaction(&mut self, script: Script, args: &Args, core: &mut Core) {
        match script {
            Script::Eval => self.remember_script(args.get(1).unwrap_or_default(), core),
            Script::Load => self.remember_script(args.get(2).unwrap_or_default(), core),
            Script::LoadLibrary => self.look_at_library(args, core),
            // Emptied when EXEC comes.
            Script::Flush | Script::EvalSha | Script::Exists | Script::Show => {}
        }
    }

    /// SCRIPT FLUSH: slotway forgets its scripts, too.
    pub(crate) fn flush_scripts(&mut self) {
        self.store.flush();
    }

    /// An EVALSHA in a batch of MULTI … EXEC cannot be sent again alone: all scripts of the batch
    /// go before it, if slotway has them.
    pub(crate) fn scripts_before_batch(
        &mut self,
        conn: ConnId,
        pending: &mut Pending,
        batch: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let mut rest = batch;
        let mut ranges = Vec::new();
        let limits = core.settings.accepted;
        // It was scanned when it came.
        while let Ok(Request::Array { len }) =
            scan_request(rest, &limits, &mut RequestProgress::default(), &mut ranges)
        {
            let args = Args::new(rest, &ranges);
            let command = core.router.command(&args);
            if core.router.script(command) == Some(Script::EvalSha) {
                pending.flags.insert(PendingFlags::SCRIPT);
                if let Some(sha) = args.get(1).and_then(Sha::parse) {
                    self.script_before(conn, &sha, command, true, nodes, core);
                }
            }
            rest = rest.get(len..).unwrap_or_default();
        }
    }

    /// Puts the script into the queue of connection `conn`, behind which its EVALSHA will go, if
    /// the connection has not had it; with `pipelined`, if it has not had it in this turn. `true`:
    /// it is there, in this turn.
    pub(crate) fn script_before(
        &mut self,
        conn: ConnId,
        sha: &Sha,
        command: CommandId,
        pipelined: bool,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        let (turn, now) = (core.stats.turns, core.now);
        let epoch = self.store.epoch();
        let Some(up) = nodes.upstreams.get_mut(conn) else { return false };
        if let Some(note) = up.scripts.get(sha, epoch) {
            if now.saturating_sub(note.used) >= TOUCH_EVERY {
                note.used = now;
                self.store.touch(sha);
            }
            if note.turn == turn || !pipelined {
                return note.turn == turn && note.loaded;
            }
        }
        let load = self.store.load_of(sha);
        up.scripts.put(sha, ScriptCheck { turn, used: now, loaded: load.is_some() });
        let Some(load) = load else { return false };
        core.stats.script_loads += 1;
        // Nobody waits for what the node says: if it refuses, EVALSHA says NOSCRIPT.
        nodes.send(conn, discarded(command, core.now), &load, core);
        true
    }

    /// Before a command goes to connection `conn` that did not come straight from its client.
    pub(crate) fn script_before_again(
        &mut self,
        conn: ConnId,
        pending: &mut Pending,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        if pending.before > 0 && pending.flags.contains(PendingFlags::SCRIPT) {
            self.scripts_before_batch(conn, pending, frame, nodes, core);
        } else if core.router.script(pending.command) == Some(Script::EvalSha) {
            pending.flags.remove(PendingFlags::SCRIPT);
            if let Some(sha) = sha_of(frame)
                && self.script_before(conn, &sha, pending.command, false, nodes, core)
            {
                pending.flags.insert(PendingFlags::SCRIPT);
            }
        }
    }

    /// The connection is a new one, and commands wait in its queue: their scripts go before them.
    pub(crate) fn scripts_before_all(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        let router = Arc::clone(&core.router);
        let by_sha = |p: &Pending| router.script(p.command) == Some(Script::EvalSha);
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        up.scripts.clear();
        let batch = |p: &Pending| p.before > 0 && p.flags.contains(PendingFlags::SCRIPT);
        if !up.pending.iter().any(|p| by_sha(p) || batch(p)) {
            return;
        }
        // What was put before them once, they are given anew.
        let discarded = |p: &Pending| p.dest == Dest::Discard && by_sha(p);
        let waiting = up.take_unsent(&mut core.spare.pool, |_| true);
        for (mut pending, frame) in waiting {
            if !discarded(&pending) {
                self.script_before_again(conn, &mut pending, &frame, nodes, core);
                nodes.send_owned(conn, pending, frame, core);
            }
        }
    }

    /// A node's NOSCRIPT to the command at the front of connection `conn` is healed by sending it
    /// again behind its script.
    ///
    /// Only where the command was not executed. The node's words alone do not tell, as a script
    /// may answer with the same ones after it has written. So it is the client's
    /// - if the words stand in the script or in what it was called with: then it may say them;
    /// - if the command was sent again already, right behind its script: then that was there, and
    ///   the words are its own.
    ///
    /// What is left is a script that puts these words together from pieces, or finds them in the
    /// database. It is run once more than it was asked for, and not twice more.
    pub(crate) fn heals(
        &mut self,
        conn: ConnId,
        text: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        const TEXTS: [&[u8]; 2] =
            [b"NOSCRIPT No matching script. Please use EVAL.", b"NOSCRIPT No matching script."];
        let Some(up) = nodes.upstreams.get_mut(conn) else { return false };
        let Some(front) = up.pending.front() else { return false };
        if !TEXTS.contains(&text)
            || core.router.script(front.command) != Some(Script::EvalSha)
            || (front.flags.contains(PendingFlags::SCRIPT) && front.tries > 0)
            || front.tries >= MOST_HEALS
        {
            return false;
        }
        let Some(frame) = up.queue.front(front.len as usize) else { return false };
        let Some(sha) = sha_of(frame) else { return false };
        let Some(load) = self.store.load_of(&sha) else { return false };
        let says_so = |bytes: &[u8]| memmem::find(bytes, b"NOSCRIPT").is_some();
        if says_so(&load) || says_so(frame) {
            return false;
        }
        // All of them are gone, most likely.
        up.scripts.clear();
        true
    }

    /// The script at the front of connection `conn` does not compile: servers do not keep such ones.
    pub(crate) fn forget_script(
        &mut self,
        conn: ConnId,
        text: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let Some(up) = nodes.upstreams.get(conn) else { return };
        let Some(front) = up.pending.front() else { return };
        let at = match core.router.script(front.command) {
            Some(Script::Eval) => 1,
            Some(Script::Load) => 2,
            _ => return,
        };
        if text.starts_with(b"ERR Error compiling script")
            && let Some(body) = up.queue.front(front.len as usize).and_then(|f| argument(f, at))
        {
            self.store.forget(&Sha::of(body));
        }
    }

    pub(crate) fn ready(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        up.state = ConnectionState::Ready;
        up.ready_since = core.now;
        up.last_error = None;
        if up.failures > 0 && up.dedicated.is_none() {
            // The node may have been restarted, and be of another version now. Control may be gone
            // at the very end: nothing to ask then.
            let _ = core.link.control.send(ToControl::RefreshCommands);
        }
        let node = up.node;
        if let Some(stats) = core.stats.nodes.get_mut(node.at()) {
            stats.connects += 1;
        }
        if let Some(node) = nodes.list.get_mut(node.at()) {
            node.unreached_since = 0;
        }
        let addr = nodes.list.get(node.at()).map(|n| n.addr.to_string());
        tracing::debug!(node = addr, "connected");
        self.scripts_before_all(conn, nodes, core);
        nodes.checks().check_queued(conn, core);
        nodes.mark_upstream(conn, core);
    }
}

/// The SHA1 that an EVALSHA asks for.
fn sha_of(frame: &[u8]) -> Option<Sha> {
    Sha::parse(argument(frame, 1)?)
}

/// Argument `at` of a request that was scanned before, as an array.
pub(crate) fn argument(frame: &[u8], at: usize) -> Option<&[u8]> {
    let line = |from: &[u8]| memchr::memchr(b'\n', from).map(|end| end + 1);
    let mut rest = frame.get(line(frame)?..)?;
    for i in 0..=at {
        let start = line(rest)?;
        let len = std::str::from_utf8(rest.get(1..start)?).ok()?.trim().parse::<usize>().ok()?;
        if i == at {
            return rest.get(start..start.checked_add(len)?);
        }
        rest = rest.get(start.checked_add(len)?.checked_add(2)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_a_frame() {
        let frame = b"*3\r\n$7\r\nEVALSHA\r\n$0\r\n\r\n$3\r\na\r\n\r\n";
        assert_eq!(argument(frame, 0), Some(b"EVALSHA".as_slice()));
        assert_eq!(argument(frame, 1), Some(b"".as_slice()));
        assert_eq!(argument(frame, 2), Some(b"a\r\n".as_slice()));
        assert_eq!(argument(frame, 3), None);
        assert_eq!(argument(b"", 0), None);
        assert_eq!(sha_of(frame), None);
    }

    #[test]
    fn a_repeated_body_is_not_told_again() {
        let mut scripts = Scripts::new(Arc::new(ScriptStore::new(1000)));
        assert!(!scripts.has_seen(b"a", 5));
        assert!(scripts.has_seen(b"a", 5));
        assert!(!scripts.has_seen(b"b", 5));
        assert!(!scripts.has_seen(b"a", 5 + TOUCH_EVERY), "in use");
        scripts.store.flush();
        assert!(!scripts.has_seen(b"a", 5 + TOUCH_EVERY));
        assert!(scripts.has_seen(b"a", 5 + TOUCH_EVERY));
        for n in 0..10 {
            scripts.store.insert(format!("return {n}").as_bytes());
        }
        assert!(!scripts.has_seen(b"a", 5 + TOUCH_EVERY), "it may be among those that had to go");
    }
}
