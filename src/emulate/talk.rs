//! How a recipe speaks with the nodes, without any I/O: it asks steps, and goes on when all their
//! replies are there. Who drives it sends the steps: the worker, or a test.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::reply::failed_before;
use super::reply::{Outcome, Reply};
use crate::cluster::slot_of;
use crate::errors::Failure;
use crate::placement::{AfterLoss, MAX_STEP_TRIES, Phase, Work, after_loss};
use crate::resp::{
    ArgRange, Protocol, Request as Frame, RequestLimits, RequestProgress, scan_request, write,
};

/// One command for the keys of one slot, or several that a node carries out as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The slot of its keys.
    pub slot: u16,
    /// What is sent.
    pub frame: Vec<u8>,
    /// The names of its commands, in lower case.
    pub names: Vec<String>,
    /// It is a MULTI … EXEC: the reply is a list of its commands' replies.
    pub batch: bool,
    /// A replica may answer it, where the client's reads may go to replicas.
    pub anywhere: bool,
    /// It changes nothing that stays, whatever its commands are: it may be sent twice.
    pub harmless: bool,
    /// An array in reply to its one command is the client's reply.
    pub last: bool,
}

/// Commands that change nothing, of those that recipes use.
const READS: [&str; 14] = [
    "dump",
    "exists",
    "get",
    "hget",
    "lindex",
    "mget",
    "pexpiretime",
    "sismember",
    "smembers",
    "type",
    "xinfo",
    "xpending",
    "xread",
    "zrange",
];
/// Executes one command.
const SCRIPT_OF_ONE: &[u8] = b"#!lua flags=allow-oom\nreturn redis.pcall(unpack(ARGV))";
/// Executes several commands, each behind the number of its arguments; an error of one does not keep
/// the next from being executed, as with EXEC.
const SCRIPT_OF_BATCH: &[u8] = b"#!lua flags=allow-oom\n\
    local replies, at = {}, 1 \
    while ARGV[at] do \
      local last = at + tonumber(ARGV[at]) \
      replies[#replies + 1] = redis.pcall(unpack(ARGV, at + 1, last)) \
      at = last + 1 \
    end \
    return replies";
const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

fn name_of(args: &[&[u8]]) -> String {
    String::from_utf8_lossy(args.first().copied().unwrap_or_default()).to_ascii_lowercase()
}

/// None of these commands changes anything.
fn is_harmless(names: &[String]) -> bool {
    names.iter().all(|name| READS.contains(&&**name))
}

impl Step {
    /// One command for the slot of `key`.
    pub fn one(key: &[u8], args: &[&[u8]]) -> Step {
        let mut frame = Vec::new();
        write::request(&mut frame, args);
        let names = vec![name_of(args)];
        let harmless = is_harmless(&names);
        let slot = slot_of(key).0;
        Step { slot, frame, names, batch: false, anywhere: false, harmless, last: false }
    }

    /// Several commands for the slot of `key`, all or nothing.
    pub fn batch<'a>(key: &[u8], commands: impl IntoIterator<Item = Vec<&'a [u8]>>) -> Step {
        let mut step = Step {
            slot: slot_of(key).0,
            frame: MULTI.to_vec(),
            names: Vec::new(),
            batch: true,
            anywhere: false,
            harmless: false,
            last: false,
        };
        for args in commands {
            write::request(&mut step.frame, &args);
            step.names.push(name_of(&args));
        }
        step.frame.extend_from_slice(EXEC);
        step.harmless = is_harmless(&step.names);
        step
    }

    /// The same commands as a script that a node executes although its memory is full. `None`: the
    /// frame is not one of [`Step::one`] or [`Step::batch`].
    ///
    /// Inside MULTI a node without memory refuses every command, and a command that may need memory
    /// in any case; a script with `allow-oom` is refused neither. The reply is that of the step: a
    /// command's own, or an array of the replies to the commands of a batch. Redis:
    /// <https://redis.io/docs/latest/develop/programmability/lua-api/#script_flags>
    fn as_script(&self) -> Option<Step> {
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        let limits =
            RequestLimits { bulk: 1 << 30, multibulk: 1 << 20, ..RequestLimits::default() };
        let (mut rest, mut ranges) = (&*self.frame, Vec::new());
        while !rest.is_empty() {
            ranges.clear();
            let progress = &mut RequestProgress::default();
            let Ok(Frame::Array { len }) = scan_request(rest, &limits, progress, &mut ranges)
            else {
                return None;
            };
            let (frame, behind) = rest.split_at_checked(len)?;
            let arg = |range: &ArgRange| frame.get(range.start as usize..range.end as usize);
            commands.push(ranges.iter().filter_map(arg).collect());
            rest = behind;
        }
        let (script, commands) = match self.batch {
            true => (SCRIPT_OF_BATCH, commands.get(1..commands.len().checked_sub(1)?)?),
            false => (SCRIPT_OF_ONE, &*commands),
        };
        let key = commands.first().and_then(|args| args.get(1))?;
        let counts: Vec<String> = commands.iter().map(|args| args.len().to_string()).collect();
        let mut args: Vec<&[u8]> = vec![b"EVAL", script, b"1", key];
        for (count, command) in counts.iter().zip(commands) {
            if self.batch {
                args.push(count.as_bytes());
            }
            args.extend(command);
        }
        let mut frame = Vec::new();
        write::request(&mut frame, &args);
        let (slot, harmless) = (self.slot, self.harmless);
        let names = vec!["eval".to_owned()];
        let last = self.last;
        Some(Step { slot, frame, names, batch: false, anywhere: false, harmless, last })
    }

    /// The same that leaves nothing behind.
    pub fn harmless(mut self) -> Step {
        self.harmless = true;
        self
    }

    /// The same where an array in reply to its one command is the client's reply: a large one may be
    /// handed on as it arrives, and the recipe does not hear of it.
    pub fn last(mut self) -> Step {
        self.last = true;
        self
    }

    /// The same where a replica may answer it.
    pub fn anywhere(mut self) -> Step {
        self.anywhere = true;
        self
    }
}

/// What a recipe is given.
#[derive(Debug)]
pub struct Request {
    /// The client's arguments; the first one is the command's name as it was sent.
    pub args: Vec<Box<[u8]>>,
    /// The arguments that are keys.
    pub keys: Vec<usize>,
    /// The command's name in the table.
    pub name: String,
    /// What the client and the steps speak.
    pub protocol: Protocol,
    /// How long it may wait, microseconds; `None` is for ever. For commands that block.
    pub wait: Option<u64>,
    /// The longest pause between two looks of a command that waits, microseconds.
    pub turn: u64,
    /// How long it tries to get hold of a key that another command moves, microseconds.
    pub patience: u64,
    /// Different for every command of every slotway.
    pub ticket: u64,
}

impl Request {
    /// Argument `i`; empty past the end.
    pub fn arg(&self, i: usize) -> &[u8] {
        self.args.get(i).map(|a| &**a).unwrap_or_default()
    }

    /// Argument `i` equals `word`, letter case aside.
    pub fn is(&self, i: usize, word: &str) -> bool {
        self.args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The command's name as errors have it.
    pub fn command(&self) -> Box<str> {
        self.name.to_ascii_uppercase().into()
    }

    /// The `i`th key.
    pub fn key(&self, i: usize) -> &[u8] {
        self.keys.get(i).map_or(&[], |&at| self.arg(at))
    }

    /// The arguments from `from` on.
    pub fn rest(&self, from: usize) -> impl Iterator<Item = &[u8]> {
        self.args.iter().skip(from).map(|a| &**a)
    }
}

/// What recipe and driver have in common.
#[derive(Debug, Default)]
struct Exchange {
    asked: Option<Vec<Step>>,
    pause: Option<u64>,
    replies: Option<Vec<Reply>>,
    now: u64,
    gone: bool,
    unblocked: Option<bool>,
    wrote: bool,
    halfway: bool,
    waits: bool,
}

/// The recipe's side.
#[derive(Debug, Clone, Default)]
pub struct Talk(Rc<RefCell<Exchange>>);

impl Talk {
    /// Sends all steps at once, and gives their replies in the same order. Those that change nothing
    /// are sent again where their reply is lost: their connection does not do that itself where a
    /// write of the same client was lost behind them.
    pub async fn ask(&self, steps: Vec<Step>) -> Vec<Reply> {
        let again = |step: &Step| {
            let work = Work::Step { harmless: step.harmless };
            (after_loss(work, Phase::Sent) == AfterLoss::Again).then(|| step.clone())
        };
        let spare: Vec<Option<Step>> = steps.iter().map(again).collect();
        let mut replies = self.send(steps).await;
        for _ in 0..MAX_STEP_TRIES {
            let lost = |i: usize| replies.get(i).is_some_and(Reply::is_outcome_unknown);
            let (places, again): (Vec<usize>, Vec<Step>) = spare
                .iter()
                .enumerate()
                .filter(|(i, _)| lost(*i))
                .filter_map(|(i, step)| Some((i, step.clone()?)))
                .unzip();
            let new = self.send(again).await;
            if new.is_empty() {
                break;
            }
            for (place, reply) in places.into_iter().zip(new) {
                if let Some(old) = replies.get_mut(place) {
                    *old = reply;
                }
            }
        }
        replies
    }

    async fn send(&self, steps: Vec<Step>) -> Vec<Reply> {
        if steps.is_empty() {
            return Vec::new();
        }
        self.0.borrow_mut().asked = Some(steps);
        poll_fn(|_| match self.0.borrow_mut().replies.take() {
            Some(replies) => Poll::Ready(replies),
            None => Poll::Pending,
        })
        .await
    }

    /// Sends one step; its reply.
    pub async fn one(&self, step: Step) -> Reply {
        self.ask(vec![step]).await.pop().unwrap_or_default()
    }

    /// As [`Talk::ask`], also of nodes whose memory is full (`maxmemory`): for the steps of a command
    /// that a server carries out nevertheless. `make` makes the steps, a second time if need be.
    pub(super) async fn ask_even_if_full(&self, make: impl Fn() -> Vec<Step>) -> Vec<Reply> {
        let mut replies = self.ask(make()).await;
        if !replies.iter().any(Reply::is_out_of_memory) {
            return replies;
        }
        let (places, scripts): (Vec<usize>, Vec<Step>) = make()
            .iter()
            .enumerate()
            .filter(|(i, _)| replies.get(*i).is_some_and(Reply::is_out_of_memory))
            .filter_map(|(i, step)| Some((i, step.as_script()?)))
            .unzip();
        for (place, reply) in places.into_iter().zip(self.ask(scripts).await) {
            // A server before 7.0 does not know the flag, and not every user may run scripts: what
            // was said first is the reason then.
            let no_script = ["NOPERM", "ERR Error compiling script"];
            if let Some(first) = replies.get_mut(place)
                && !no_script.iter().any(|error| reply.is_error_of(error))
            {
                *first = reply;
            }
        }
        replies
    }

    /// The same for one step; its reply.
    pub(super) async fn one_even_if_full(&self, make: impl Fn() -> Step) -> Reply {
        self.ask_even_if_full(|| vec![make()]).await.pop().unwrap_or_default()
    }

    /// Waits for so many microseconds, or less where something else has come.
    pub async fn pause(&self, micros: u64) {
        self.0.borrow_mut().pause = Some(micros);
        poll_fn(|_| match self.0.borrow_mut().replies.take() {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        })
        .await;
    }

    /// The clock, microseconds.
    pub fn now(&self) -> u64 {
        self.0.borrow().now
    }

    /// The client has closed its connection.
    pub(super) fn is_gone(&self) -> bool {
        self.0.borrow().gone
    }

    /// CLIENT UNBLOCK was said: `true` with an error.
    pub fn unblocked(&self) -> Option<bool> {
        self.0.borrow().unblocked
    }

    /// From here on data is changed: what came in so far is not refused for want of memory.
    pub fn writes(&self) {
        self.0.borrow_mut().wrote = true;
    }

    /// It ends with some steps done and others not.
    pub fn halfway(&self) {
        self.0.borrow_mut().halfway = true;
    }

    /// It waits for data (`true`), so that CLIENT UNBLOCK ends it.
    pub fn waits(&self, on: bool) {
        self.0.borrow_mut().waits = on;
    }
}

/// What an emulation wants next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// These steps' replies.
    Ask(Vec<Step>),
    /// To be woken after so many microseconds.
    Pause(u64),
    /// Nothing: this is the client's reply, or the error in its place.
    Done(Outcome),
}

/// How a step with [`Step::last`] is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStep {
    /// By itself.
    Command,
    /// Between MULTI and EXEC.
    Batch,
}

/// An emulated command under way.
pub struct Emulation {
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    talk: Talk,
    replies: Vec<Reply>,
    left: usize,
    held: usize,
    /// Of the request, which the recipe holds.
    request: usize,
    begun: bool,
    paused: bool,
    /// See [`Emulation::last_step`].
    last_step: Option<LastStep>,
    /// The command's name.
    name: String,
    /// Its request's.
    pub ticket: u64,
}

impl std::fmt::Debug for Emulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulation").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Emulation {
    /// Begins one; nothing is done before [`Emulation::advance`].
    pub fn new<F>(request: Request, recipe: impl FnOnce(Talk, Rc<Request>) -> F) -> Emulation
    where
        F: Future<Output = Outcome> + 'static,
    {
        let talk = Talk::default();
        let bytes = request.args.iter().map(|a| a.len() + size_of::<Box<[u8]>>()).sum();
        let (ticket, name) = (request.ticket, request.name.clone());
        Emulation {
            ticket,
            future: Box::pin(recipe(talk.clone(), Rc::new(request))),
            talk,
            replies: Vec::new(),
            left: 0,
            held: 0,
            request: bytes,
            begun: false,
            paused: false,
            last_step: None,
            name,
        }
    }

    /// Goes on: all replies are there, or its pause is over.
    pub fn advance(&mut self, now: u64) -> Next {
        {
            let mut exchange = self.talk.0.borrow_mut();
            exchange.now = now;
            let replies = std::mem::take(&mut self.replies);
            // At the first time nobody waits for any.
            exchange.replies = std::mem::replace(&mut self.begun, true).then_some(replies);
        }
        self.held = 0;
        self.paused = false;
        let mut context = Context::from_waker(Waker::noop());
        match self.future.as_mut().poll(&mut context) {
            Poll::Ready(Err(cause)) if self.only_reads() => {
                Next::Done(Err(failed_before(&self.name, cause)))
            }
            Poll::Ready(outcome) => Next::Done(outcome),
            Poll::Pending => {
                let mut exchange = self.talk.0.borrow_mut();
                match exchange.asked.take() {
                    Some(steps) => {
                        self.left = steps.len();
                        self.replies = vec![Reply::default(); steps.len()];
                        self.last_step = match &*steps {
                            [step] if step.last && step.batch => Some(LastStep::Batch),
                            [step] if step.last => Some(LastStep::Command),
                            _ => None,
                        };
                        Next::Ask(steps)
                    }
                    None => {
                        self.paused = true;
                        Next::Pause(exchange.pause.take().unwrap_or(0))
                    }
                }
            }
        }
    }

    /// A node's reply to step `i`. `true`: it was the last one that was waited for.
    pub fn add(&mut self, i: u32, frame: &[u8]) -> bool {
        self.put(i, Reply::Node(frame.to_vec()))
    }

    /// Step `i` has failed. `true`: it was the last one that was waited for.
    pub fn fail(&mut self, i: u32, failure: Failure) -> bool {
        self.put(i, failure.into())
    }

    fn put(&mut self, i: u32, reply: Reply) -> bool {
        if let Some(place) = self.replies.get_mut(i as usize) {
            self.held += reply.frame().len();
            *place = reply;
        }
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    /// The step under way, if an array in reply to its one command is the client's reply.
    pub fn last_step(&self) -> Option<LastStep> {
        self.last_step
    }

    /// Bytes that it holds.
    pub fn held(&self) -> usize {
        self.held + self.request
    }

    /// Bytes of the replies that it goes on with.
    pub fn gathered(&self) -> usize {
        self.held
    }

    /// Nothing was changed yet, so that it may be given up.
    pub fn only_reads(&self) -> bool {
        !self.talk.0.borrow().wrote
    }

    /// It ended with some of its steps done and others not.
    pub fn is_halfway(&self) -> bool {
        self.talk.0.borrow().halfway
    }

    /// It waits for the end of a pause.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// It waits for data, as a blocking command.
    pub fn is_blocked(&self) -> bool {
        self.talk.0.borrow().waits
    }

    /// The client is gone: it takes nothing more for it.
    pub fn leave(&mut self) {
        self.talk.0.borrow_mut().gone = true;
    }

    /// CLIENT UNBLOCK.
    pub fn unblock(&mut self, error: bool) {
        self.talk.0.borrow_mut().unblocked = Some(error);
    }
}

#[cfg(test)]
#[path = "talk_testing.rs"]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::{lost, rendered, request};
    use super::*;
    use crate::errors::Cause;

    #[test]
    fn what_changes_nothing_is_asked_again() {
        let recipe = |talk: Talk, _: Rc<Request>| async move {
            let steps = vec![Step::one(b"a", &[b"GET", b"a"]), Step::one(b"a", &[b"INCR", b"a"])];
            let replies = talk.ask(steps).await;
            assert_eq!(replies, [Reply::Node(b"$1\r\nx\r\n".to_vec()), lost().into()]);
            Ok(b"+OK\r\n".to_vec())
        };
        let mut emulation = Emulation::new(request("X a", &[1]), recipe);
        let Next::Ask(steps) = emulation.advance(0) else { panic!() };
        assert_eq!(steps.len(), 2);
        assert!(!emulation.fail(0, lost()));
        assert!(emulation.fail(1, lost()));
        let Next::Ask(steps) = emulation.advance(0) else { panic!() };
        assert_eq!(steps, [Step::one(b"a", &[b"GET", b"a"])]);
        emulation.add(0, b"$1\r\nx\r\n");
        assert_eq!(emulation.advance(0), Next::Done(Ok(b"+OK\r\n".to_vec())));
    }

    #[test]
    fn what_fails_before_it_writes_has_changed_nothing() {
        let fails = |cause: Cause, writes: bool| {
            let recipe = move |talk: Talk, _: Rc<Request>| async move {
                if writes {
                    talk.writes();
                }
                Err(cause)
            };
            match Emulation::new(request("RENAME a b", &[1, 2]), recipe).advance(0) {
                Next::Done(outcome) => outcome,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            rendered(fails(lost().into(), false)),
            "-ERR RENAME over several slots failed before anything was changed; the cause: slotway \
             lost its connection to n:1 (closed) after the command was sent\r\n"
        );
        assert_eq!(fails(lost().into(), true), Err(lost().into()));
        let refused = Cause::node(b"-WRONGTYPE x\r\n");
        assert_eq!(fails(refused.clone(), false), Err(refused));
    }
}
