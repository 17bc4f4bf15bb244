//! A question of a client (CLIENT LIST, CLIENT KILL and the like) to all workers.
//!
//! It goes through the control thread, which alone knows which workers run. Every worker adds its
//! answer to the shared [`Inquiry`] and drops its reference; dropping the last one sends the
//! answers to the worker that asked, which completes the reply. A worker that ends drops its
//! reference too, as does a channel without a receiver, so the reply always comes. Inquiries are
//! rare: a lock is cheap enough.

use std::sync::{Mutex, PoisonError};

use super::{ToWorker, WorkerHandle};
use crate::client::Question;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};

/// A question to all workers, and their answers so far.
#[derive(Debug)]
pub struct Inquiry {
    question: Question,
    asker: Asker,
    answers: Mutex<Answers>,
    /// The worker to send the answers to.
    back: WorkerHandle,
}

/// The client that asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// Its CLIENT ID.
    pub id: u64,
    /// Index and generation.
    pub client: ClientId,
    /// Where the reply goes: to the client, or into its transaction.
    pub to: Dest,
    /// The command, for the counters.
    pub command: CommandId,
}

/// The combined answers of workers.
#[derive(Debug, Default)]
pub struct Answers {
    /// Lines of CLIENT LIST, each with the CLIENT ID.
    pub lines: Vec<(u64, Vec<u8>)>,
    /// Number of clients that were closed or unblocked.
    pub count: i64,
    /// What was observed of keys.
    pub seen: crate::observe::ObservedKeys,
    /// The asker must be closed as well, after its reply.
    pub asker_too: bool,
}

/// The answers of all workers to a question.
#[derive(Debug)]
pub struct Answered {
    /// The question.
    pub question: Question,
    /// The client that asks.
    pub asker: Asker,
    /// The answers.
    pub answers: Answers,
}

impl Inquiry {
    /// A question of `asker`, a client of the worker `back`.
    pub fn new(question: Question, asker: Asker, back: WorkerHandle) -> Inquiry {
        Inquiry { question, asker, answers: Mutex::default(), back }
    }

    /// The client that asks.
    pub fn asker(&self) -> Asker {
        self.asker
    }

    /// The question.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// Adds a worker's answer.
    pub fn answer(&self, add: impl FnOnce(&mut Answers)) {
        add(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        let answers = self.answers.get_mut().unwrap_or_else(PoisonError::into_inner);
        let answered = Answered {
            question: self.question.clone(),
            asker: self.asker,
            answers: std::mem::take(answers),
        };
        // If the worker has ended, so has its client.
        self.back.send(ToWorker::Answered(Box::new(answered)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, mpsc};

    use mio::{Poll, Token, Waker};

    use super::*;

    /// A worker that ends drops the messages in its inbox, and one that has ended receives none.
    /// The asker gets the answers of the others all the same, once.
    #[test]
    fn the_last_to_let_go_tells_the_asker() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (sender, inbox) = mpsc::channel();
        let back = WorkerHandle::new(sender, Arc::clone(&waker), Arc::new(AtomicUsize::new(0)));
        let asker =
            Asker { id: 1, client: ClientId::UNKNOWN, to: Dest::Discard, command: CommandId(0) };
        let question = Question::Unblock { id: 5, error: true };
        let inquiry = Arc::new(Inquiry::new(question, asker, back));

        let (others, other_inbox) = mpsc::channel();
        others.send(ToWorker::Asked(Arc::clone(&inquiry))).unwrap();
        let good = Arc::clone(&inquiry);
        std::thread::spawn(move || good.answer(|a| a.count += 1)).join().unwrap();
        drop(inquiry);
        assert!(inbox.try_recv().is_err(), "one has not answered yet");
        drop(other_inbox);
        let Ok(ToWorker::Answered(answered)) = inbox.try_recv() else { panic!("no answer") };
        assert_eq!(answered.answers.count, 1);
        assert!(inbox.try_recv().is_err());
    }
}
