//! Lua scripts: remembered as they pass, and given to the nodes that lack them.
//!
//! Two things together make that a script once seen is known everywhere:
//! - **Before.** The first EVALSHA of a script on a connection goes behind a SCRIPT LOAD of it. So
//!   a node that is new, was promoted or was restarted has the script when it is asked, and no
//!   command of the same client can come between. While a client pipelines, that is done in every
//!   turn of the worker, because what follows an EVALSHA that fails cannot be called back.
//! - **After.** A node that says NOSCRIPT all the same, because somebody has flushed its scripts,
//!   has not executed the command: it is a refusal like others, and the command is sent again,
//!   behind its script.

use super::state::base;
use super::state::{Base, Core, Nodes};
use std::sync::Arc;

use memchr::memmem;

use super::Worker;
use super::downstream::Flow;
use crate::cluster::{NO_SLOT, Slot};
use crate::command::CommandId;
use crate::dest::Dest;
use crate::errors::Failure;
use crate::hash::{IntMap, fingerprint};
use crate::metrics::LimitHit;
use crate::resp::{Args, Request, RequestProgress, scan_request, write};
use crate::route::{Fan, Script, flag};
use crate::scripts::{Note, Partial, Remembered, ScriptStore, Sha};
use crate::sparsely;
use crate::upstream::Pending;

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
pub(super) struct Scripts {
    store: Arc<ScriptStore>,
    /// Bodies of EVAL by their hash, when the store was told and how many had gone from it: a
    /// repeated EVAL costs neither a SHA1 nor the store's lock. Unless the hash were keyed, two
    /// bodies could be made that share one.
    seen: IntMap<u64, (u64, u64)>,
    epoch: u64,
}

impl Scripts {
    pub fn new(store: Arc<ScriptStore>) -> Self {
        Scripts { store, seen: IntMap::default(), epoch: 0 }
    }

    /// Whether the store need not be told of `body` now.
    fn has_seen(&mut self, body: &[u8], now: u64) -> bool {
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
}

impl Core {
    /// Logs and counts a source that sees one node's keys where it asks for all.
    fn report_partial(&mut self, partial: Option<Partial>, kind: &str) {
        let Some(Partial { sha, command }) = partial else { return };
        self.stats.scripts_partial += 1;
        sparsely!(
            self.lines.scripts,
            warn,
            sha1 = %sha,
            command,
            "a {kind} calls {command}: it sees and changes only the keys of the node that it runs \
             on, a part of the cluster's; send {command} to slotway instead, which asks every shard"
        );
    }

    /// Nobody waits for what the node says to SCRIPT LOAD: if it refuses, EVALSHA says NOSCRIPT.
    fn loading(&self, command: CommandId) -> Pending {
        Pending {
            dest: Dest::Discard,
            len: 0,
            slot: NO_SLOT,
            command,
            flags: 0,
            realm: crate::users::OWN,
            tries: 0,
            refused: None,
            before: 0,
            checks_shard: false,
            started: self.now,
            expected: 0,
        }
    }
}

impl Nodes {
    /// A node is not reached: SCRIPT LOAD does not wait for it, as it is given the script when it is
    /// needed.
    pub(super) fn loads_without(&mut self, u: usize, node: &str, core: &mut Core) {
        if !self.placement.slots.primaries().iter().any(|&n| self.is_reached(n)) {
            return; // somebody has to take it
        }
        let router = Arc::clone(&core.router);
        let Some(up) = self.upstreams.get_mut(u) else { return };
        let loads = up.take_unsent(&mut core.spare.pool, |p| {
            p.has(flag::NODE_BOUND) && router.script(p.command) == Some(Script::Load)
        });
        for (pending, _) in loads {
            core.fail(&pending, node, &Failure::NodeNotReached);
        }
    }
}

impl Scripts {
    fn remember_script(&mut self, body: &[u8], core: &mut Core) {
        let Remembered { evicted, partial } = self.store.remember(body);
        core.stats.limits_hit[LimitHit::Scripts as usize] += evicted as u64;
        core.report_partial(partial, "script");
    }

    /// FUNCTION LOAD [REPLACE] code. The nodes keep it.
    fn look_at_library(&mut self, args: &Args, core: &mut Core) {
        let code = args.get(args.len().saturating_sub(1)).unwrap_or_default();
        let partial = self.store.look_at(code);
        core.report_partial(partial, "function library");
    }

    /// A command about scripts that is queued behind MULTI.
    pub(super) fn script_in_transaction(&mut self, script: Script, args: &Args, core: &mut Core) {
        match script {
            Script::Eval => self.remember_script(args.get(1).unwrap_or_default(), core),
            Script::Load => self.remember_script(args.get(2).unwrap_or_default(), core),
            Script::LoadLibrary => self.look_at_library(args, core),
            // Emptied when EXEC comes.
            Script::Flush | Script::EvalSha | Script::Exists | Script::Show => {}
        }
    }

    /// SCRIPT FLUSH: slotway forgets its scripts, too.
    pub(super) fn flush_scripts(&mut self) {
        self.store.flush();
    }

    /// An EVALSHA in a batch of MULTI … EXEC cannot be sent again alone: all scripts of the batch
    /// go before it, if slotway has them.
    pub(super) fn scripts_before_batch(
        &mut self,
        u: usize,
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
                pending.flags |= flag::SCRIPT;
                if let Some(sha) = args.get(1).and_then(Sha::parse) {
                    self.script_before(u, &sha, command, true, nodes, core);
                }
            }
            rest = rest.get(len..).unwrap_or_default();
        }
    }

    /// Puts the script into the queue of connection `u`, behind which its EVALSHA will go, if the
    /// connection has not had it; with `pipelined`, if it has not had it in this turn. `true`: it
    /// is there, in this turn.
    pub(super) fn script_before(
        &mut self,
        u: usize,
        sha: &Sha,
        command: CommandId,
        pipelined: bool,
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        let (turn, now) = (core.stats.turns, core.now);
        let epoch = self.store.epoch();
        let Some(up) = nodes.upstreams.get_mut(u) else { return false };
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
        up.scripts.put(sha, Note { turn, used: now, loaded: load.is_some() });
        let Some(load) = load else { return false };
        core.stats.script_loads += 1;
        nodes.send(u, core.loading(command), &load, core);
        true
    }

    /// Before a command goes to connection `u` that did not come straight from its client.
    pub(super) fn script_before_again(
        &mut self,
        u: usize,
        pending: &mut Pending,
        frame: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        if pending.before > 0 && pending.has(flag::SCRIPT) {
            self.scripts_before_batch(u, pending, frame, nodes, core);
        } else if core.router.script(pending.command) == Some(Script::EvalSha) {
            pending.flags &= !flag::SCRIPT;
            if let Some(sha) = sha_of(frame)
                && self.script_before(u, &sha, pending.command, false, nodes, core)
            {
                pending.flags |= flag::SCRIPT;
            }
        }
    }

    /// The connection is a new one, and commands wait in its queue: their scripts go before them.
    pub(super) fn scripts_before_all(&mut self, u: usize, nodes: &mut Nodes, core: &mut Core) {
        let router = Arc::clone(&core.router);
        let by_sha = |p: &Pending| router.script(p.command) == Some(Script::EvalSha);
        let Some(up) = nodes.upstreams.get_mut(u) else { return };
        up.scripts.clear();
        let batch = |p: &Pending| p.before > 0 && p.has(flag::SCRIPT);
        if !up.pending.iter().any(|p| by_sha(p) || batch(p)) {
            return;
        }
        // What was put before them once, they are given anew.
        let discarded = |p: &Pending| p.dest == Dest::Discard && by_sha(p);
        let waiting = up.take_unsent(&mut core.spare.pool, |_| true);
        for (mut pending, frame) in waiting {
            if !discarded(&pending) {
                self.script_before_again(u, &mut pending, &frame, nodes, core);
                nodes.send_owned(u, pending, frame, core);
            }
        }
    }

    /// A node's NOSCRIPT to the command at the front of connection `u` is healed by sending it
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
    pub(super) fn heals(
        &mut self,
        u: usize,
        text: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) -> bool {
        const TEXTS: [&[u8]; 2] =
            [b"NOSCRIPT No matching script. Please use EVAL.", b"NOSCRIPT No matching script."];
        let Some(up) = nodes.upstreams.get_mut(u) else { return false };
        let Some(front) = up.pending.front() else { return false };
        if !TEXTS.contains(&text)
            || core.router.script(front.command) != Some(Script::EvalSha)
            || (front.has(flag::SCRIPT) && front.tries > 0)
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

    /// The script at the front of connection `u` does not compile: servers do not keep such ones.
    pub(super) fn forget_script(
        &mut self,
        u: usize,
        text: &[u8],
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let Some(up) = nodes.upstreams.get(u) else { return };
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
}

impl Base<'_> {
    /// SCRIPT EXISTS is to say 1 of what slotway has, and to be right: the nodes are given it.
    fn scripts_to_primaries(&mut self, index: usize, command: CommandId, args: &Args) {
        let Some(client) = self.clients.slab.get(index) else { return };
        let protocol = client.session.protocol;
        let mut loads: Vec<Arc<[u8]>> = Vec::new();
        for sha in args.iter().skip(2).filter_map(Sha::parse) {
            let load = self.scripts.store.load_of(&sha);
            loads.extend(load.filter(|load| !loads.contains(load)));
        }
        if loads.is_empty() {
            return;
        }
        for node in self.nodes.fan_targets(Fan::Primaries, self.core).into_iter().flatten() {
            let u = self.upstream_for(node, protocol, index);
            for load in &loads {
                self.core.stats.script_loads += 1;
                self.nodes.send(u, self.core.loading(command), load, self.core);
            }
        }
    }
}

impl Worker {
    /// A command about scripts.
    pub(super) fn script(
        &mut self,
        index: usize,
        command: CommandId,
        (script, slot): (Script, Option<Slot>),
        frame: &[u8],
        args: &Args,
    ) -> Flow {
        match script {
            Script::Eval => {
                let body = args.get(1).unwrap_or_default();
                if !self.scripts.has_seen(body, self.core.now) {
                    self.scripts.remember_script(body, &mut self.core);
                }
            }
            Script::Load => {
                self.scripts.remember_script(args.get(2).unwrap_or_default(), &mut self.core)
            }
            Script::LoadLibrary => self.scripts.look_at_library(args, &mut self.core),
            Script::Exists => base!(self).scripts_to_primaries(index, command, args),
            // With anything else behind it the nodes refuse it.
            Script::Flush if args.len() == 2 || args.is(2, "async") || args.is(2, "sync") => {
                self.scripts.store.flush();
            }
            Script::Show => {
                let sha = args.get(2).and_then(Sha::parse);
                if let Some(load) = sha.and_then(|sha| self.scripts.store.load_of(&sha)) {
                    let mut reply = Vec::new();
                    write::bulk(&mut reply, argument(&load, 2).unwrap_or_default());
                    self.clients.answer_own(index, command, &reply, &mut self.core);
                    return Flow::Next;
                }
            }
            Script::EvalSha | Script::Flush => {}
        }
        if let Some((to, merge)) = script.fan() {
            return self.fan(index, command, to, merge, frame);
        }
        let node = match slot {
            Some(slot) => self.nodes.route(slot.0),
            None => self.nodes.any_primary(index),
        };
        let number = slot.map_or(NO_SLOT, |slot| slot.0);
        let Some(node) = node else {
            return match slot {
                Some(_) => self.ops.forward(index, command, number, frame, &mut base!(self)),
                None => self.ops.wait_for_a_node(index, command, frame, &mut base!(self)),
            };
        };
        let Some((mut pending, u)) = self.ops.admit(index, command, number, node, &mut base!(self))
        else {
            return Flow::Pause;
        };
        if script == Script::EvalSha
            && let Some(sha) = args.get(1).and_then(Sha::parse)
            && self.scripts.script_before(
                u,
                &sha,
                pending.command,
                frame.len() < self.core.turn.unread,
                &mut self.nodes,
                &mut self.core,
            )
        {
            pending.flags |= flag::SCRIPT;
        }
        self.nodes.send(u, pending, frame, &mut self.core);
        Flow::Next
    }
}

/// The SHA1 that an EVALSHA asks for.
fn sha_of(frame: &[u8]) -> Option<Sha> {
    Sha::parse(argument(frame, 1)?)
}

/// Argument `at` of a request that was scanned before, as an array.
fn argument(frame: &[u8], at: usize) -> Option<&[u8]> {
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
            scripts.store.remember(format!("return {n}").as_bytes());
        }
        assert!(!scripts.has_seen(b"a", 5 + TOUCH_EVERY), "it may be among those that had to go");
    }
}
