//! Test doubles: a node with scripted replies, and a driver for recipes.

use super::*;
use crate::errors::Cause;
use crate::resp::Args;

/// A request from a line of words; `keys` are the indexes of its keys.
pub fn request(line: &str, keys: &[usize]) -> Request {
    let args: Vec<Box<[u8]>> = line.split(' ').map(|w| w.as_bytes().into()).collect();
    let name = line.split(' ').next().unwrap_or_default().to_lowercase();
    Request {
        args,
        keys: keys.to_vec(),
        name,
        slots: crate::cluster::SlotSpace::CLUSTER,
        protocol: Protocol::Resp2,
        wait: Some(0),
        turn: 50_000,
        patience: 1_000_000,
        ticket: 7,
    }
}

/// The failure of a step whose connection is lost.
pub fn lost() -> Failure {
    Failure::ConnectionLost { node: "n:1".into(), why: "closed".into() }
}

/// The reply as the client receives it.
pub(super) fn rendered(outcome: CommandResult) -> String {
    let mut frame = Vec::new();
    match outcome {
        Ok(reply) => frame = reply,
        Err(Cause::Own(failure)) => failure.write(&mut frame),
        Err(Cause::Node(reply)) => frame.extend_from_slice(&reply),
    }
    String::from_utf8_lossy(&frame).into_owned()
}

/// A node that answers each step by its words; slotway's own keys are written `NONE`.
#[derive(Debug)]
pub struct FakeNode {
    replies: Vec<(String, Reply)>,
    /// All steps asked for.
    pub asked: RefCell<Vec<String>>,
}

impl FakeNode {
    pub fn new(replies: &[(&str, &str)]) -> FakeNode {
        let reply = |r: &str| Reply::Node(r.as_bytes().to_vec());
        let own = |(w, r): &(&str, &str)| ((*w).to_owned(), reply(r));
        FakeNode { replies: replies.iter().map(own).collect(), asked: RefCell::default() }
    }

    /// Adds a step whose reply is lost.
    pub fn losing(mut self, words: &str) -> FakeNode {
        self.replies.push((words.to_owned(), lost().into()));
        self
    }

    /// Adds a reply.
    pub fn and(&mut self, words: &str, reply: &str) {
        self.replies.push((words.to_owned(), Reply::Node(reply.as_bytes().to_vec())));
    }

    /// Answers the steps of `emulation`.
    pub fn answer(&self, emulation: &mut Emulation, steps: &[Step]) {
        for (i, step) in steps.iter().enumerate() {
            let last = match self.say(step) {
                Reply::Node(frame) => emulation.add(i as u32, &frame),
                Reply::Failed(failure) => emulation.fail(i as u32, *failure),
            };
            assert_eq!(last, i + 1 == steps.len());
        }
    }

    fn say(&self, step: &Step) -> Reply {
        let (mut at, mut words) = (0, Vec::new());
        while at < step.frame.len() {
            let mut ranges = Vec::new();
            let rest = &step.frame[at..];
            let limits = RequestLimits {
                bulk: 1 << 30,
                inline: 1 << 16,
                multibulk: 1 << 20,
                ..RequestLimits::default()
            };
            let scanned = scan_request(rest, &limits, &mut RequestProgress::default(), &mut ranges);
            let Ok(crate::resp::Request::Array { len }) = scanned else { panic!("{scanned:?}") };
            for arg in Args::new(rest, &ranges).iter() {
                words.push(match arg.starts_with(b"slotway:{") {
                    true => "NONE".to_owned(),
                    false => String::from_utf8_lossy(arg).into_owned(),
                });
            }
            at += len;
        }
        let words = words.join(" ");
        self.asked.borrow_mut().push(words.clone());
        let found = self.replies.iter().find(|(w, _)| *w == words);
        found.map_or_else(|| panic!("nobody told what to say to: {words}"), |(_, r)| r.clone())
    }
}

/// Runs a recipe to its end and returns the client's reply.
pub fn drive<F>(
    request: Request,
    node: &FakeNode,
    recipe: impl FnOnce(Talk, Rc<Request>) -> F,
) -> String
where
    F: Future<Output = CommandResult> + 'static,
{
    let (mut emulation, mut now) = (Emulation::new(request, recipe), 0);
    loop {
        match emulation.advance(now) {
            Next::Ask(steps) => node.answer(&mut emulation, &steps),
            Next::Pause(micros) => now += micros,
            Next::Done(outcome) => return rendered(outcome),
        }
    }
}
