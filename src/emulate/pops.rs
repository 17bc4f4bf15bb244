//! Pops from the first of several keys that is not empty: LMPOP, ZMPOP, and the blocking BLPOP,
//! BRPOP, BLMPOP, BZPOPMIN, BZPOPMAX, BZMPOP.
//!
//! All keys are checked; then the command itself, with one key, pops from the first that exists, in
//! the order of the arguments. So never more than one key is popped from. A blocking command polls:
//! it is sent in MULTI … EXEC, where it does not block, and repeated after a pause. Elements popped
//! for a client that has meanwhile disconnected are pushed back.

use std::rc::Rc;

use super::fetch::{distinct, flatten, null_list, own_key, unless_key_denied};
use super::reply::{CommandResult, Reply, batch, is_node_error, is_null};
use super::talk::{Request, Step, Talk};
use crate::errors::Failure;
use crate::resp::reply::elements;
use crate::resp::write;

/// The first pause of a blocking command, in microseconds; it doubles up to [`Request::turn`].
const FIRST_PAUSE: u64 = 1_000;

/// The command with `key` as its only key.
fn with_single_key<'a>(req: &'a Request, key: &'a [u8]) -> Vec<&'a [u8]> {
    let first = req.keys.iter().min().copied().unwrap_or(1);
    let last = req.keys.iter().max().copied().unwrap_or(1);
    let mut args: Vec<&[u8]> = req.rest(0).take(first).collect();
    // The argument before the keys is their number, unless the keys come first.
    if first > 1
        && let Some(count) = args.last_mut()
    {
        *count = b"1";
    }
    args.push(key);
    args.extend(req.rest(last + 1));
    // LEFT or RIGHT was counted as a key: with an unknown word the node reports a syntax error.
    if first > 1 && last + 1 >= req.args.len() {
        args.push(b"?");
    }
    args
}

fn attempt(req: &Request, key: &[u8], blocking: bool) -> Step {
    match blocking {
        true => Step::batch(key, [with_single_key(req, key)]),
        false => Step::one(key, &with_single_key(req, key)),
    }
}

/// An attempt that a full node executes: inside MULTI it refuses every command, so this is the form
/// that does not block. Except for BLMPOP and BZMPOP the reply lacks the key.
fn attempt_if_full(req: &Request, key: &[u8]) -> Step {
    let args = with_single_key(req, key);
    match &*req.name {
        "blmpop" | "bzmpop" => {
            let name = req.name.trim_start_matches('b');
            let args = args.iter().skip(2).copied();
            let args: Vec<&[u8]> = std::iter::once(name.as_bytes()).chain(args).collect();
            Step::one(key, &args)
        }
        name => Step::one(key, &[name.trim_start_matches('b').as_bytes(), key]),
    }
}

/// The reply to [`attempt_if_full`], in the form of the blocking command's reply.
fn as_blocking_reply(req: &Request, key: &[u8], reply: &Reply) -> CommandResult {
    reply.check()?;
    let (reply, mut out) = (reply.frame(), Vec::new());
    match &*req.name {
        _ if is_null(reply) || reply == b"*0\r\n" => out = null_list(req.protocol),
        "blmpop" | "bzmpop" => out.extend_from_slice(reply),
        "blpop" | "brpop" => {
            write::array_header(&mut out, 2);
            write::bulk(&mut out, key);
            out.extend_from_slice(reply);
        }
        _ => {
            write::array_header(&mut out, 3);
            write::bulk(&mut out, key);
            elements(reply).for_each(|element| out.extend_from_slice(element));
        }
    }
    Ok(out)
}

/// Pops from `key`; replies with null if it is empty.
async fn try_pop(talk: &Talk, req: &Request, key: &[u8], blocking: bool) -> CommandResult {
    let reply = talk.one(attempt(req, key, blocking).last()).await;
    if blocking && reply.is_out_of_memory() {
        let step = attempt_if_full(req, key);
        // The other commands' reply lacks the key: it is not the client's reply.
        let step = if req.name.ends_with("mpop") { step.last() } else { step };
        let reply = talk.one(step).await;
        return as_blocking_reply(req, key, &reply);
    }
    unwrapped(&reply, blocking)
}

/// Validates the arguments of a blocking command on a node whose memory is full.
async fn check_arguments_if_full(talk: &Talk, req: &Request, nothing: &[u8]) -> CommandResult {
    let step = match req.wait {
        // The timeout is not a number: the node rejects that first, so the command cannot block.
        Some(0) => Step::one(nothing, &with_single_key(req, nothing)),
        _ => attempt_if_full(req, nothing),
    };
    let reply = talk.one(step.harmless()).await;
    reply.check().map(|()| null_list(req.protocol))
}

/// The command's own reply in the reply to an attempt; an error is `Err`.
fn unwrapped(reply: &Reply, blocking: bool) -> CommandResult {
    reply.check()?;
    let reply = match blocking {
        true => batch(reply)?.first().copied().unwrap_or_default(),
        false => reply.frame(),
    };
    Ok(reply.to_vec())
}

/// The polling of a blocking command: its deadline and its next pause.
#[derive(Debug)]
pub(super) struct Wait {
    until: Option<u64>,
    pause: u64,
}

impl Wait {
    /// Starts waiting now.
    pub fn new(talk: &Talk, req: &Request) -> Wait {
        talk.waits(true);
        let until = req.wait.map(|wait| talk.now().saturating_add(wait));
        Wait { until, pause: FIRST_PAUSE.min(req.turn) }
    }

    /// Pauses before the next poll.
    ///
    /// # Errors The command's result: timeout, CLIENT UNBLOCK, or the client has disconnected.
    pub async fn again(&mut self, talk: &Talk, req: &Request) -> Result<(), CommandResult> {
        self.is_over(talk, req)?;
        let left = self.until.map_or(u64::MAX, |until| until.saturating_sub(talk.now()));
        talk.pause(self.pause.min(left)).await;
        self.pause = (2 * self.pause).min(req.turn);
        self.is_over(talk, req)
    }

    fn is_over(&self, talk: &Talk, req: &Request) -> Result<(), CommandResult> {
        let null = || Err(Ok(null_list(req.protocol)));
        match talk.unblocked() {
            Some(true) => return Err(Err(Failure::UnblockedByClient.into())),
            Some(false) => return null(),
            None => {}
        }
        let over = self.until.is_some_and(|until| talk.now() >= until);
        if over || talk.is_gone() { null() } else { Ok(()) }
    }
}

/// Runs the command.
pub async fn pop(talk: Talk, req: Rc<Request>, blocking: bool) -> CommandResult {
    let (keys, of) = distinct(&req, 0);
    let nothing = own_key(req.key(0), "none");
    let look = || keys.iter().map(|key| Step::one(key, &[b"EXISTS", key]));
    let mut steps: Vec<Step> = look().collect();
    steps.push(attempt(&req, &nothing, blocking).harmless());
    let mut replies = talk.ask(steps).await;
    let said = replies.pop().unwrap_or_default();
    let said = match blocking && said.is_out_of_memory() {
        true => check_arguments_if_full(&talk, &req, &nothing).await,
        false => unwrapped(&said, blocking),
    };
    let null = said.or_else(|cause| unless_key_denied(cause).map(|()| null_list(req.protocol)))?;
    let mut wait = blocking.then(|| Wait::new(&talk, &req));
    let mut first = true;
    loop {
        for &i in &of {
            let (Some(reply), Some(key)) = (replies.get(i), keys.get(i)) else { continue };
            match reply.integer() {
                Some(1..) => {}
                Some(_) => continue,
                // A blocking command also waits for nodes that fail.
                None if blocking => continue,
                None => return Err(reply.clone().into()),
            }
            if talk.is_gone() {
                return Ok(null);
            }
            talk.writes();
            match try_pop(&talk, &req, key, blocking).await {
                Ok(reply) if is_null(&reply) => {}
                Ok(reply) => {
                    if blocking && talk.is_gone() {
                        put_back(&talk, &req, key, &reply).await;
                    }
                    return Ok(reply);
                }
                // Once blocked, Redis ignores keys of another type as well.
                Err(cause) if !first && is_node_error(&cause, "WRONGTYPE") => {}
                Err(cause) => return Err(cause),
            }
        }
        let Some(wait) = wait.as_mut() else { return Ok(null) };
        if let Err(end) = wait.again(&talk, &req).await {
            return end;
        }
        first = false;
        replies = talk.ask(look().collect()).await;
    }
}

/// Pushes back elements that were popped for a client that has disconnected.
async fn put_back(talk: &Talk, req: &Request, key: &[u8], reply: &[u8]) {
    let mut taken = Vec::new();
    flatten(reply, &mut taken);
    let taken = taken.get(1..).unwrap_or_default();
    let mut args: Vec<&[u8]> = Vec::new();
    if req.name.contains('z') {
        args.extend([b"ZADD".as_slice(), key]);
        let pairs = taken.chunks_exact(2);
        pairs.for_each(|pair| args.extend(pair.iter().rev().copied()));
    } else {
        let behind = req.keys.iter().max().copied().unwrap_or(0) + 1;
        let right = req.name.starts_with("br") || req.is(behind, "right");
        args.extend([if right { b"RPUSH".as_slice() } else { b"LPUSH" }, key]);
        args.extend(taken.iter().rev().copied());
    }
    if args.len() > 2 {
        // A failure cannot be reported to anyone.
        talk.one(Step::one(key, &args)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::talk::testing::{FakeNode, drive, lost, request};
    use super::super::talk::{Emulation, Next};
    use super::*;

    #[test]
    fn command_with_a_single_key() {
        let words = |line: &str, keys: &[usize]| {
            let req = request(line, keys);
            let args = with_single_key(&req, b"k");
            let args: Vec<_> = args.iter().map(|a| String::from_utf8_lossy(a)).collect();
            args.join(" ")
        };
        assert_eq!(words("BLPOP a b 1.5", &[1, 2]), "BLPOP k 1.5");
        assert_eq!(words("LMPOP 2 a b LEFT COUNT 3", &[2, 3]), "LMPOP 1 k LEFT COUNT 3");
        assert_eq!(words("BZMPOP 0 2 a b MIN", &[3, 4]), "BZMPOP 0 1 k MIN");
    }

    #[test]
    fn pops_from_the_first_key_that_exists() {
        let node = FakeNode::new(&[
            ("EXISTS a", ":0\r\n"),
            ("EXISTS b", ":1\r\n"),
            ("EXISTS c", ":1\r\n"),
            ("LMPOP 1 NONE LEFT", "*-1\r\n"),
            ("LMPOP 1 b LEFT", "*-1\r\n"),
            ("LMPOP 1 c LEFT", "*2\r\n$1\r\nc\r\n*1\r\n$1\r\nx\r\n"),
        ]);
        let req = request("LMPOP 3 a b c LEFT", &[2, 3, 4]);
        let reply = drive(req, &node, |t, r| pop(t, r, false));
        assert_eq!(reply, "*2\r\n$1\r\nc\r\n*1\r\n$1\r\nx\r\n");
    }

    #[test]
    fn blocks_until_its_timeout() {
        let null = "*1\r\n*-1\r\n";
        let node = FakeNode::new(&[
            ("EXISTS a", ":0\r\n"),
            ("EXISTS b", ":0\r\n"),
            ("MULTI BLPOP NONE 0.2 EXEC", null),
        ]);
        let mut req = request("BLPOP a b 0.2", &[1, 2]);
        req.wait = Some(200_000);
        assert_eq!(drive(req, &node, |t, r| pop(t, r, true)), "*-1\r\n");
        let looks = node.asked.borrow().iter().filter(|w| *w == "EXISTS a").count();
        assert!((6..20).contains(&looks), "{looks}");
    }

    #[test]
    fn client_unblock_ends_the_wait() {
        for (error, want) in
            [(true, Err(Failure::UnblockedByClient.into())), (false, Ok("*-1\r\n"))]
        {
            let mut req = request("BLPOP a b 0", &[1, 2]);
            req.wait = None;
            let mut emulation = Emulation::new(req, |t, r| pop(t, r, true));
            let Next::Ask(_) = emulation.advance(0) else { panic!() };
            emulation.add(0, b":0\r\n");
            emulation.add(1, b":0\r\n");
            emulation.add(2, b"*1\r\n*-1\r\n");
            let Next::Pause(_) = emulation.advance(0) else { panic!() };
            assert!(emulation.is_blocked());
            emulation.unblock(error);
            let want = want.map(|reply| reply.as_bytes().to_vec());
            assert_eq!(emulation.advance(0), Next::Done(want));
        }
    }

    /// The outcome of a lost pop is unknown: the error must not say that nothing was changed.
    #[test]
    fn a_lost_pop_has_an_unknown_outcome() {
        let looks = [("EXISTS a", ":1\r\n"), ("EXISTS b", ":0\r\n")];
        let dry_run = ("LMPOP 1 NONE LEFT", "*-1\r\n");
        let node = FakeNode::new(&[looks[0], looks[1], dry_run]).losing("LMPOP 1 a LEFT");
        let req = request("LMPOP 2 a b LEFT", &[2, 3]);
        let reply = drive(req, &node, |t, r| pop(t, r, false));
        assert_eq!(reply.as_bytes(), lost().frame());
    }

    /// The element arrives after the client has disconnected.
    #[test]
    fn elements_for_a_disconnected_client_are_pushed_back() {
        let mut req = request("BRPOP a b 0", &[1, 2]);
        req.wait = None;
        let mut emulation = Emulation::new(req, |t, r| pop(t, r, true));
        let Next::Ask(steps) = emulation.advance(0) else { panic!() };
        assert_eq!(steps.len(), 3);
        for (i, reply) in [&b":0\r\n"[..], b":1\r\n", b"*1\r\n*-1\r\n"].iter().enumerate() {
            emulation.add(i as u32, reply);
        }
        let Next::Ask(_) = emulation.advance(0) else { panic!() };
        emulation.leave();
        emulation.add(0, b"*1\r\n*2\r\n$1\r\nb\r\n$1\r\nx\r\n");
        let Next::Ask(steps) = emulation.advance(0) else { panic!() };
        assert_eq!(steps, [Step::one(b"b", &[b"RPUSH", b"b", b"x"])]);
    }
}
