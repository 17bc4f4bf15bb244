//! Commands that move data from one key to another: RENAME, RENAMENX, COPY, SMOVE, LMOVE, RPOPLPUSH
//! and their blocking forms; and MSETNX.
//!
//! The target is written and confirmed before anything is removed from the source: a failure in
//! between loses nothing, but may leave one copy too many, which the error says.
//!
//! A move **locks** its source: a key of slotway's own in the same slot, with a time to live, makes
//! other emulated moves from that source wait, in any slotway. So two moves never take the same
//! element. If the target may already contain what is moved (a set member, a whole key), it is
//! locked as well: otherwise a move in the opposite direction could remove its copy while this one
//! removes the other, and nothing would be left. Commands that a node executes by itself ignore the
//! lock; against them each move makes sure that it removes only what it has written elsewhere.

use std::rc::Rc;

use super::fetch::{
    check_arguments, dry_run, integer as number, null_list, own_key, stopped, target_failed,
    unless_key_denied,
};
use super::pops::Wait;
use super::reply::scalar;
use super::reply::{CommandResult, Reply, batch, first_error};
use super::talk::{Request, Step, Talk};
use crate::cluster::{Slot, slot_of};
use crate::errors::{Cause, Failure, Halfway, Key, SomeSet, StopCause};
use crate::resp::reply::integer;
use crate::resp::{Protocol, write};
use crate::scripts::Sha;

/// Time to live of a lock, in milliseconds.
const LOCK_MILLIS: &[u8] = b"5000";
/// A lock younger than this cannot have expired, in microseconds.
const LOCK_VALID: u64 = 4_000_000;
/// The longest pause between two attempts to take a lock, in microseconds.
const MAX_PAUSE: u64 = 16_000;
/// Attempts to copy a source that keeps changing.
const MAX_COPIES: usize = 5;
/// Removes `KEYS[1]` and the lock `KEYS[2]` if the SHA-1 of the key's dump is `ARGV[1]`. Returns 1
/// if removed, 0 if the key has changed, -1 if it does not exist.
const REMOVE_IF_SAME: &[u8] = b"local d = redis.call('DUMP', KEYS[1]) \
    if not d then redis.call('DEL', KEYS[2]) return -1 end \
    if redis.sha1hex(d) ~= ARGV[1] then return 0 end \
    redis.call('DEL', KEYS[1], KEYS[2]) return 1";

/// The lock of a source key.
struct KeyLock<'a> {
    source: &'a [u8],
    key: Vec<u8>,
    /// Value of the lock key: identifies its owner.
    ticket: String,
    /// When the lock was taken, in microseconds.
    since: u64,
}

impl<'a> KeyLock<'a> {
    /// Locks `source` and sends `steps`, for the same slot, right behind; returns their replies.
    async fn take(
        talk: &Talk,
        req: &Request,
        source: &'a [u8],
        steps: Vec<Step>,
    ) -> Result<(KeyLock<'a>, Vec<Reply>), Cause> {
        let key = own_key(source, &format!("moving:{}", Sha::of(source)));
        let since = talk.now();
        let mut lock = KeyLock { source, key, ticket: req.ticket.to_string(), since };
        let mut pause = 500;
        loop {
            lock.since = talk.now();
            let ticket = lock.ticket.as_bytes();
            let args = [b"SET".as_slice(), &lock.key, ticket, b"NX", b"PX", LOCK_MILLIS];
            let all = || {
                let mut all = vec![Step::one(source, &args)];
                all.extend(steps.iter().cloned());
                all
            };
            let mut replies = match needs_no_memory(req) {
                true => talk.ask_even_if_full(all).await,
                false => talk.ask(all()).await,
            };
            let taken = replies.first().cloned().unwrap_or_default();
            replies.drain(..1.min(replies.len()));
            let unknown = taken.is_outcome_unknown();
            if unknown && lock.state(talk).await == LockState::Ours {
                return Ok((lock, replies));
            }
            // A user without access to slotway's own keys moves without a lock.
            if !unknown {
                check_arguments(&taken)?;
            }
            if !taken.is_null() && !unknown {
                return Ok((lock, replies));
            }
            if talk.now().saturating_sub(since) > req.patience {
                let (command, key) = (req.command(), Key::new(source));
                return Err(Failure::SourceContended { command, key }.into());
            }
            talk.pause(pause + req.ticket % 500).await;
            pause = (2 * pause).min(MAX_PAUSE);
        }
    }

    /// Locks the command's source and target, ordered by name so that two moves cannot deadlock,
    /// then sends `steps`. Returns the source's lock, the target's, and the replies.
    async fn both(
        talk: &Talk,
        req: &'a Request,
        steps: Vec<Step>,
    ) -> Result<(KeyLock<'a>, KeyLock<'a>, Vec<Reply>), Cause> {
        let (source, target) = (req.key(0), req.key(1));
        let [first, second] = if source < target { [source, target] } else { [target, source] };
        let (first, _) = KeyLock::take(talk, req, first, Vec::new()).await?;
        let (second, replies) = match KeyLock::take(talk, req, second, steps).await {
            Ok(both) => both,
            Err(cause) => {
                talk.one(first.release()).await;
                return Err(cause);
            }
        };
        if talk.now().saturating_sub(first.since) > LOCK_VALID / 2 {
            talk.ask(vec![first.release(), second.release()]).await;
            return Err(Failure::KeysContended { command: req.command() }.into());
        }
        let (source_lock, other) = if source < target { (first, second) } else { (second, first) };
        Ok((source_lock, other, replies))
    }

    /// The step that releases the lock.
    fn release(&self) -> Step {
        Step::one(self.source, &[b"DEL", &self.key])
    }

    /// The state of the lock. A removal from the source deletes the lock in the same transaction,
    /// so this tells whether a removal whose reply was lost was executed.
    async fn state(&self, talk: &Talk) -> LockState {
        let reply = talk.one(Step::one(self.source, &[b"GET", &self.key])).await;
        match reply.scalar() {
            Some(ticket) if ticket == self.ticket.as_bytes() => LockState::Ours,
            // Too young to have expired: it was deleted.
            None if reply.is_null() && talk.now().saturating_sub(self.since) < LOCK_VALID => {
                LockState::Released
            }
            _ => LockState::Unknown,
        }
    }

    /// Runs a command and releases the lock, in one transaction; returns the command's reply. If
    /// that is lost, a `repeatable` command is retried while the lock shows that it was not
    /// executed.
    async fn run_and_release(&self, talk: &Talk, args: &[&[u8]], repeatable: bool) -> Reply {
        let mut reply = Reply::default();
        for _ in 0..MAX_COPIES {
            let commands = || [args.to_vec(), vec![b"DEL".as_slice(), &self.key]];
            // A removal frees memory, so a full node may execute it.
            reply = talk.one_even_if_full(|| Step::batch(self.source, commands())).await;
            let cause = match batch(&reply) {
                Ok(replies) => {
                    let first = replies.first().copied().unwrap_or_default();
                    return Reply::Node(first.to_vec());
                }
                Err(cause) => cause,
            };
            if !cause.is_outcome_unknown() {
                return match unless_key_denied(cause) {
                    // The user may have access to all keys but the lock.
                    Ok(()) => talk.one(Step::one(self.source, args)).await,
                    Err(cause) => cause.into(),
                };
            }
            match self.state(talk).await {
                LockState::Released => return Reply::Node(number(1)),
                LockState::Ours if repeatable => {}
                LockState::Ours | LockState::Unknown => return cause.into(),
            }
        }
        reply
    }
}

/// The state of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LockState {
    /// It exists, with this owner.
    Ours,
    /// It was deleted by the command that also released it.
    Released,
    /// The state is not known.
    Unknown,
}

/// Whether a server executes the command although its memory is full: without the `denyoom` flag,
/// since what it adds to one key it removes from another.
fn needs_no_memory(req: &Request) -> bool {
    matches!(&*req.name, "rename" | "renamenx" | "smove")
}

/// Reads the dump and expiry time of a key, atomically.
fn dump(key: &[u8]) -> Step {
    Step::batch(key, [vec![b"DUMP".as_slice(), key], vec![b"PEXPIRETIME", key]])
}

/// The reply to [`dump`]: the dump and the expiry time; `None` if the key does not exist.
fn dumped(reply: &Reply) -> Result<Option<(Vec<u8>, String)>, Cause> {
    let replies = batch(reply)?;
    let expires = replies.get(1).and_then(|time| integer(time)).unwrap_or(-1).max(0);
    let dump = replies.first().and_then(|dump| scalar(dump));
    Ok(dump.map(|dump| (dump.to_vec(), expires.to_string())))
}

fn restore(target: &[u8], (dump, expires): &(Vec<u8>, String), replace: bool) -> Step {
    let mut args = vec![b"RESTORE".as_slice(), target, expires.as_bytes(), dump, b"ABSTTL"];
    if replace {
        args.push(b"REPLACE");
    }
    Step::one(target, &args)
}

/// COPY.
pub async fn copy(talk: Talk, req: Rc<Request>) -> CommandResult {
    let (source, target) = (req.key(0), req.key(1));
    let replies = talk.ask(vec![dry_run(&req), dump(source)]).await;
    replies.first().map_or(Ok(()), check_arguments)?;
    let none = Reply::default();
    let Some(found) = dumped(replies.get(1).unwrap_or(&none))? else { return Ok(number(0)) };
    let replace = req.rest(3).any(|arg| arg.eq_ignore_ascii_case(b"replace"));
    talk.writes();
    let reply = talk.one(restore(target, &found, replace)).await;
    match reply.is_error() {
        true if reply.is_error_of("BUSYKEY") => Ok(number(0)),
        true => Err(target_failed(&talk, &req, reply)),
        false => Ok(number(1)),
    }
}

/// RENAME and RENAMENX.
pub async fn rename(talk: Talk, req: Rc<Request>) -> CommandResult {
    let (lock, other, replies) = KeyLock::both(&talk, &req, vec![dump(req.key(0))]).await?;
    let outcome = rename_locked(&talk, &req, &lock, replies).await;
    talk.one(other.release()).await;
    outcome
}

async fn rename_locked(
    talk: &Talk,
    req: &Request,
    lock: &KeyLock<'_>,
    replies: Vec<Reply>,
) -> CommandResult {
    let (source, target) = (req.key(0), req.key(1));
    let only_new = req.name == "renamenx";
    let mut reply = replies.into_iter().next().unwrap_or_default();
    for copies in 0..MAX_COPIES {
        let found = match dumped(&reply) {
            Ok(Some(found)) => found,
            Ok(None) if copies == 0 => {
                talk.one(lock.release()).await;
                return Err(Failure::NoSuchKey.into());
            }
            // The source was deleted: treated as if that had happened after the renaming.
            Ok(None) => break,
            Err(cause) => {
                talk.one(lock.release()).await;
                return Err(match copies {
                    0 => cause,
                    _ => stopped(talk, req, Halfway::Copied, cause),
                });
            }
        };
        talk.writes();
        let replace = !only_new || copies > 0;
        let written = talk.one_even_if_full(|| restore(target, &found, replace)).await;
        if written.is_error() {
            talk.one(lock.release()).await;
            return match written.is_error_of("BUSYKEY") {
                true => Ok(number(0)),
                false if copies > 0 => {
                    Err(stopped(talk, req, Halfway::Copied, Cause::from(written)))
                }
                false => Err(target_failed(talk, req, written)),
            };
        }
        let sha = Sha::of(&found.0).to_string();
        let script = [b"EVAL".as_slice(), REMOVE_IF_SAME, b"2", source, &lock.key, sha.as_bytes()];
        let mut removed = talk.one(Step::one(source, &script)).await;
        if removed.is_error_of("NOPERM") {
            // Without permission for scripts, remove it without the comparison.
            removed = lock.run_and_release(talk, &[b"DEL", source], true).await;
        }
        if removed.is_outcome_unknown() {
            removed = match lock.state(talk).await {
                LockState::Released => Reply::Node(number(1)),
                LockState::Ours => Reply::Node(number(0)),
                LockState::Unknown => removed,
            };
        }
        match removed.integer() {
            Some(0) => reply = talk.one_even_if_full(|| dump(source)).await,
            Some(_) => {
                return Ok(match only_new {
                    true => number(1),
                    false => b"+OK\r\n".to_vec(),
                });
            }
            None => return Err(stopped(talk, req, Halfway::MayHaveRemoved, Cause::from(removed))),
        }
        if copies + 1 == MAX_COPIES {
            talk.one(lock.release()).await;
            return Err(stopped(talk, req, Halfway::Copied, StopCause::SourceChanging));
        }
    }
    talk.one(lock.release()).await;
    Ok(if only_new { number(1) } else { b"+OK\r\n".to_vec() })
}

/// SMOVE.
pub(super) async fn set_member(talk: Talk, req: Rc<Request>) -> CommandResult {
    let (source, target, member) = (req.key(0), req.key(1), req.arg(3));
    let is_member = |key: &[u8]| Step::one(key, &[b"SISMEMBER", key, member]);
    let looks = vec![is_member(source), Step::one(source, &[b"EXISTS", source]), is_member(target)];
    let (lock, other, replies) = KeyLock::both(&talk, &req, looks).await?;
    let outcome = set_member_locked(&talk, &req, &lock, replies).await;
    talk.one(other.release()).await;
    outcome
}

async fn set_member_locked(
    talk: &Talk,
    req: &Request,
    lock: &KeyLock<'_>,
    replies: Vec<Reply>,
) -> CommandResult {
    let (source, target, member) = (req.key(0), req.key(1), req.arg(3));
    let found: Vec<Option<i64>> = replies.iter().map(Reply::integer).collect();
    let end = match found.as_slice() {
        [_, Some(0), _] => Some(Ok(number(0))),
        _ if replies.iter().any(Reply::is_error) => {
            Some(first_error(&replies).map(|()| Vec::new()))
        }
        [Some(0), ..] => Some(Ok(number(0))),
        _ => None,
    };
    if let Some(end) = end {
        talk.one(lock.release()).await;
        return end;
    }
    talk.writes();
    let add = || Step::one(target, &[b"SADD", target, member]);
    let written = talk.one_even_if_full(add).await;
    if written.is_error() {
        talk.one(lock.release()).await;
        return Err(target_failed(talk, req, written));
    }
    let removed = lock.run_and_release(talk, &[b"SREM", source, member], true).await;
    match removed.integer() {
        Some(0) => {
            // Another client has removed the member: there is nothing to move.
            if written.integer() == Some(1) {
                let taken_back = talk.one(Step::one(target, &[b"SREM", target, member])).await;
                if taken_back.is_error() {
                    let done = Halfway::MemberRemoved;
                    return Err(stopped(talk, req, done, Cause::from(taken_back)));
                }
            }
            Ok(number(0))
        }
        Some(_) => Ok(number(1)),
        None => Err(stopped(talk, req, Halfway::MayHaveRemoved, Cause::from(removed))),
    }
}

/// The ends of the lists from which and to which an element is moved.
#[derive(Debug, Clone, Copy)]
struct Ends {
    from_left: bool,
    to_left: bool,
}

impl Ends {
    fn of(req: &Request) -> Ends {
        match req.name.ends_with("rpoplpush") {
            true => Ends { from_left: false, to_left: true },
            false => Ends { from_left: req.is(3, "left"), to_left: req.is(4, "left") },
        }
    }

    fn look(self, source: &[u8]) -> Step {
        let at: &[u8] = if self.from_left { b"0" } else { b"-1" };
        Step::one(source, &[b"LINDEX", source, at])
    }

    /// Arguments of LREM: removes one element with this value, searching from this end.
    fn remove<'a>(left: bool, key: &'a [u8], value: &'a [u8]) -> [&'a [u8]; 4] {
        [b"LREM", key, if left { b"1" } else { b"-1" }, value]
    }
}

/// LMOVE and RPOPLPUSH, and their blocking forms.
pub(super) async fn list_element(talk: Talk, req: Rc<Request>, blocking: bool) -> CommandResult {
    let (source, target) = (req.key(0), req.key(1));
    let ends = Ends::of(&req);
    let dry_run = match blocking {
        true => {
            let keys = [own_key(source, "none:0"), own_key(source, "none:1")];
            Step::batch(source, [super::fetch::with_keys(&req, &keys)]).harmless()
        }
        false => dry_run(&req),
    };
    let replies = talk.ask(vec![dry_run, ends.look(source)]).await;
    let mut replies = replies.into_iter();
    let said = replies.next().unwrap_or_default();
    let null = match blocking {
        // Inside MULTI a node replies with LMOVE's null; a client that has waited expects BLMOVE's.
        true => {
            batch(&said).map(|_| ()).or_else(unless_key_denied)?;
            null_list(req.protocol)
        }
        false => check_arguments(&said).map(|()| null(req.protocol))?,
    };
    let mut seen = replies.next().unwrap_or_default();
    if seen.is_error_of("WRONGTYPE") || (seen.is_error() && !blocking) {
        return Err(seen.into());
    }
    let mut wait = blocking.then(|| Wait::new(&talk, &req));
    loop {
        if !seen.is_null() && !seen.is_error() {
            if talk.is_gone() {
                return Ok(null);
            }
            if let Some(value) = move_one(&talk, &req, (source, target), ends).await? {
                return Ok(value);
            }
        }
        let Some(wait) = wait.as_mut() else { return Ok(null) };
        if let Err(end) = wait.again(&talk, &req).await {
            return end;
        }
        seen = talk.one(ends.look(source)).await;
    }
}

fn null(protocol: Protocol) -> Vec<u8> {
    let mut frame = Vec::new();
    write::null(&mut frame, protocol);
    frame
}

/// Moves one element; `None` if the source is empty.
async fn move_one(
    talk: &Talk,
    req: &Request,
    (source, target): (&[u8], &[u8]),
    ends: Ends,
) -> Result<Option<Vec<u8>>, Cause> {
    let (mut lock, replies) = KeyLock::take(talk, req, source, vec![ends.look(source)]).await?;
    let mut seen = replies.into_iter().next().unwrap_or_default();
    let since = talk.now();
    loop {
        let Some(value) = seen.scalar() else {
            talk.one(lock.release()).await;
            return seen.check().map(|()| None);
        };
        let push: &[u8] = if ends.to_left { b"LPUSH" } else { b"RPUSH" };
        talk.writes();
        let written = talk.one(Step::one(target, &[push, target, value])).await;
        if written.is_error() {
            talk.one(lock.release()).await;
            return Err(target_failed(talk, req, written));
        }
        let removed = {
            let remove = Ends::remove(ends.from_left, source, value);
            // Not repeatable: a second LREM would remove another element of the same value.
            lock.run_and_release(talk, &remove, false).await
        };
        match removed.integer() {
            Some(0) => {}
            Some(_) => return Ok(Some(seen.frame().to_vec())),
            None => return Err(stopped(talk, req, Halfway::MayHaveRemoved, Cause::from(removed))),
        }
        // Another client has taken the element: remove our copy and try the next one.
        let taken_back =
            talk.one(Step::one(target, &Ends::remove(ends.to_left, target, value))).await;
        if taken_back.is_error() {
            return Err(stopped(talk, req, Halfway::ElementTaken, Cause::from(taken_back)));
        }
        if talk.now().saturating_sub(since) > req.patience {
            return Err(Failure::ElementsContended.into());
        }
        let (again, replies) = KeyLock::take(talk, req, source, vec![ends.look(source)]).await?;
        lock = again;
        seen = replies.into_iter().next().unwrap_or_default();
    }
}

/// MSETNX: checks all keys, then sets them slot by slot, each slot's only if all of them are new.
/// Of two commands for the same keys, only one gets past the first slot.
pub(super) async fn set_if_none(talk: Talk, req: Rc<Request>) -> CommandResult {
    let mut by_slot: std::collections::BTreeMap<Slot, Vec<usize>> = Default::default();
    for &at in &req.keys {
        by_slot.entry(slot_of(req.arg(at))).or_default().push(at);
    }
    let first = |all: &Vec<usize>| all.first().map_or(&[][..], |&at| req.arg(at));
    let looks = by_slot.values().map(|all| {
        let keys = all.iter().map(|&at| req.arg(at));
        let args: Vec<&[u8]> = std::iter::once(&b"EXISTS"[..]).chain(keys).collect();
        Step::one(first(all), &args)
    });
    let replies = talk.ask(looks.collect()).await;
    first_error(&replies)?;
    if replies.iter().any(|reply| reply.integer() != Some(0)) {
        return Ok(number(0));
    }
    talk.writes();
    let names = |all: &[usize]| -> Vec<String> {
        all.iter().map(|&at| String::from_utf8_lossy(req.arg(at)).into_owned()).collect()
    };
    let mut done: Vec<usize> = Vec::new();
    for all in by_slot.values() {
        let pairs = all.iter().flat_map(|&at| [req.arg(at), req.arg(at + 1)]);
        let args: Vec<&[u8]> = std::iter::once(&b"MSETNX"[..]).chain(pairs).collect();
        let reply = talk.one(Step::one(first(all), &args)).await;
        let cause = match reply.integer() {
            Some(0) if done.is_empty() => return Ok(number(0)),
            Some(0) => StopCause::KeyAppeared,
            Some(_) => {
                done.extend(all);
                continue;
            }
            None if done.is_empty() && !reply.is_outcome_unknown() => {
                return Err(target_failed(&talk, &req, reply));
            }
            None => StopCause::Step(reply.into()),
        };
        let unknown = if cause.is_outcome_unknown() { all.as_slice() } else { &[] };
        let others = done.len() + unknown.len() < req.keys.len();
        let done = SomeSet { set: names(&done), unknown: names(unknown), others };
        return Err(stopped(&talk, &req, Halfway::Set(Box::new(done)), cause));
    }
    Ok(number(1))
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
