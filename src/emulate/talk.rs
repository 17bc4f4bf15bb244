//! The interface between a recipe and its driver (the worker, or a test), without I/O: the recipe
//! asks for steps and resumes when all their replies have arrived; the driver sends the steps.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::reply::failed_before;
use super::reply::{CommandResult, Reply};
use crate::cluster::{Slot, SlotSpace, slot_of};
use crate::errors::Failure;
use crate::placement::{AfterLoss, MAX_STEP_TRIES, Phase, Work, after_loss};
use crate::resp::{
    ArgRange, Protocol, Request as Frame, RequestLimits, RequestProgress, scan_request, write,
};

/// One command for keys of one slot, or several that a node executes atomically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The slot of the keys.
    pub slot: Slot,
    /// The encoded command or commands.
    pub frame: Vec<u8>,
    /// The names of the commands, in lower case.
    pub names: Vec<String>,
    /// A MULTI … EXEC batch: the reply is an array of the commands' replies.
    pub batch: bool,
    /// A replica may execute it, if the client's reads may go to replicas.
    pub anywhere: bool,
    /// It leaves no change behind, whatever its commands are, so it may be sent twice.
    pub harmless: bool,
    /// If its one command is answered with an array, that is the client's reply.
    pub last: bool,
}

/// Commands used by recipes that change nothing.
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
/// Script that executes one command.
const SCRIPT_OF_ONE: &[u8] = b"#!lua flags=allow-oom\nreturn redis.pcall(unpack(ARGV))";
/// Script that executes several commands, each preceded by its argument count, as EXEC does.
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

/// Whether none of these commands changes anything.
fn is_harmless(names: &[String]) -> bool {
    names.iter().all(|name| READS.contains(&&**name))
}

impl Step {
    /// A single command for the slot of `key`.
    pub fn one(key: &[u8], args: &[&[u8]]) -> Step {
        let mut frame = Vec::new();
        write::request(&mut frame, args);
        let names = vec![name_of(args)];
        let harmless = is_harmless(&names);
        let slot = slot_of(key);
        Step { slot, frame, names, batch: false, anywhere: false, harmless, last: false }
    }

    /// A MULTI … EXEC batch of commands for the slot of `key`.
    pub fn batch<'a>(key: &[u8], commands: impl IntoIterator<Item = Vec<&'a [u8]>>) -> Step {
        let mut step = Step {
            slot: slot_of(key),
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

    /// The same commands as a script that a node executes although its memory is full. `None` if
    /// the frame was not made by [`Step::one`] or [`Step::batch`].
    ///
    /// A node without memory refuses every command inside MULTI, and elsewhere those that may need
    /// memory; a script with `allow-oom` is exempt. The reply has the form of the step's reply.
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

    /// Marks the step as leaving no change behind.
    pub fn harmless(mut self) -> Step {
        self.harmless = true;
        self
    }

    /// Marks the step as the last: an array in reply to its one command is the client's reply. A
    /// large one may be streamed to the client without passing through the recipe.
    pub fn last(mut self) -> Step {
        self.last = true;
        self
    }

    /// Allows a replica to execute the step.
    pub fn anywhere(mut self) -> Step {
        self.anywhere = true;
        self
    }
}

/// The command to emulate.
#[derive(Debug)]
pub struct Request {
    /// The client's arguments, command name included.
    pub args: Vec<Box<[u8]>>,
    /// Indexes of the keys in `args`.
    pub keys: Vec<usize>,
    /// The command's name in the command table.
    pub name: String,
    /// The slots of the upstream that all keys are on.
    pub slots: SlotSpace,
    /// The protocol of the client and of the steps.
    pub protocol: Protocol,
    /// Timeout of a blocking command, in microseconds; `None` for no limit.
    pub wait: Option<u64>,
    /// The longest pause between two polls of a blocking command, in microseconds.
    pub turn: u64,
    /// How long to wait for the lock of a key that another command moves, in microseconds.
    pub patience: u64,
    /// Unique among all commands of all slotway processes.
    pub ticket: u64,
}

impl Request {
    /// Argument `i`; empty past the end.
    pub fn arg(&self, i: usize) -> &[u8] {
        self.args.get(i).map(|a| &**a).unwrap_or_default()
    }

    /// Whether argument `i` equals `word`, ignoring case.
    pub fn is(&self, i: usize, word: &str) -> bool {
        self.args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The command's name as error texts show it.
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

/// State shared by recipe and driver.
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

/// The recipe's handle.
#[derive(Debug, Clone, Default)]
pub struct Talk(Rc<RefCell<Exchange>>);

impl Talk {
    /// Sends all steps at once and returns their replies in order. Steps that change nothing are
    /// retried when their reply is lost: the connection itself does not retry a read if a write of
    /// the same client was lost behind it.
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

    /// Sends one step and returns its reply.
    pub async fn one(&self, step: Step) -> Reply {
        self.ask(vec![step]).await.pop().unwrap_or_default()
    }

    /// Like [`Talk::ask`], for steps of a command that a server executes although its memory is
    /// full (`maxmemory`). `make` creates the steps, a second time if a node refused them.
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
            // Servers before 7.0 do not know the flag, and not every user may run scripts: the
            // first error is the reason then.
            let no_script = ["NOPERM", "ERR Error compiling script"];
            if let Some(first) = replies.get_mut(place)
                && !no_script.iter().any(|error| reply.is_error_of(error))
            {
                *first = reply;
            }
        }
        replies
    }

    /// Like [`Talk::ask_even_if_full`], for one step.
    pub(super) async fn one_even_if_full(&self, make: impl Fn() -> Step) -> Reply {
        self.ask_even_if_full(|| vec![make()]).await.pop().unwrap_or_default()
    }

    /// Pauses for `micros` microseconds, or less if the driver resumes the recipe early.
    pub async fn pause(&self, micros: u64) {
        self.0.borrow_mut().pause = Some(micros);
        poll_fn(|_| match self.0.borrow_mut().replies.take() {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        })
        .await;
    }

    /// The current time, in microseconds.
    pub fn now(&self) -> u64 {
        self.0.borrow().now
    }

    /// Whether the client has disconnected.
    pub(super) fn is_gone(&self) -> bool {
        self.0.borrow().gone
    }

    /// Whether CLIENT UNBLOCK was called; `true`: with ERROR.
    pub fn unblocked(&self) -> Option<bool> {
        self.0.borrow().unblocked
    }

    /// Marks that the next steps change data: after that, lack of memory does not end the command.
    pub fn writes(&self) {
        self.0.borrow_mut().wrote = true;
    }

    /// Marks that the command ends with only some of its steps executed.
    pub fn halfway(&self) {
        self.0.borrow_mut().halfway = true;
    }

    /// Sets whether the command waits for data, so that CLIENT UNBLOCK can end it.
    pub fn waits(&self, on: bool) {
        self.0.borrow_mut().waits = on;
    }
}

/// What an emulation needs next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The replies to these steps.
    Ask(Vec<Step>),
    /// To be resumed after this many microseconds.
    Pause(u64),
    /// Nothing; this is the command's result.
    Done(CommandResult),
}

/// How a step marked with [`Step::last`] is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStep {
    /// By itself.
    Command,
    /// Between MULTI and EXEC.
    Batch,
}

/// An emulated command in progress.
pub struct Emulation {
    future: Pin<Box<dyn Future<Output = CommandResult>>>,
    talk: Talk,
    replies: Vec<Reply>,
    left: usize,
    held: usize,
    /// Size of the request, which the recipe holds, in bytes.
    request: usize,
    begun: bool,
    paused: bool,
    /// See [`Emulation::last_step`].
    last_step: Option<LastStep>,
    name: String,
    /// The slots of the upstream that all keys are on: steps call them by their own numbers.
    pub slots: SlotSpace,
    /// The request's ticket.
    pub ticket: u64,
}

impl std::fmt::Debug for Emulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulation").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Emulation {
    /// Creates an emulation; it does nothing before [`Emulation::advance`].
    pub fn new<F>(request: Request, recipe: impl FnOnce(Talk, Rc<Request>) -> F) -> Emulation
    where
        F: Future<Output = CommandResult> + 'static,
    {
        let talk = Talk::default();
        let bytes = request.args.iter().map(|a| a.len() + size_of::<Box<[u8]>>()).sum();
        let (ticket, name, slots) = (request.ticket, request.name.clone(), request.slots);
        Emulation {
            ticket,
            slots,
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

    /// Resumes the recipe, once all replies have arrived or its pause is over.
    pub fn advance(&mut self, now: u64) -> Next {
        {
            let mut exchange = self.talk.0.borrow_mut();
            exchange.now = now;
            let replies = std::mem::take(&mut self.replies);
            // At the first call the recipe does not await any replies.
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

    /// Adds a node's reply to step `i`. Returns whether no other reply is outstanding.
    pub fn add(&mut self, i: u32, frame: &[u8]) -> bool {
        self.put(i, Reply::Node(frame.to_vec()))
    }

    /// Adds the failure of step `i`. Returns whether no other reply is outstanding.
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

    /// How the current step is sent, if an array in its reply is the client's reply.
    pub fn last_step(&self) -> Option<LastStep> {
        self.last_step
    }

    /// Bytes held, request included.
    pub fn memory(&self) -> usize {
        self.held + self.request
    }

    /// Bytes of the replies to the current steps.
    pub fn gathered(&self) -> usize {
        self.held
    }

    /// Whether nothing has been changed yet, so that the command may be abandoned.
    pub fn only_reads(&self) -> bool {
        !self.talk.0.borrow().wrote
    }

    /// Whether the command ended with only some of its steps executed.
    pub fn is_halfway(&self) -> bool {
        self.talk.0.borrow().halfway
    }

    /// Whether the recipe is pausing.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the command waits for data, as a blocking command.
    pub fn is_blocked(&self) -> bool {
        self.talk.0.borrow().waits
    }

    /// Marks the client as disconnected.
    pub fn leave(&mut self) {
        self.talk.0.borrow_mut().gone = true;
    }

    /// Handles CLIENT UNBLOCK; `error`: with ERROR.
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
    fn lost_reads_are_retried() {
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
    fn failures_before_the_first_write_changed_nothing() {
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
