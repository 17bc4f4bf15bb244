//! A question of one worker's client to all workers.
//!
//! The question goes over the control thread, which alone knows the workers that run. Every worker
//! adds its answer to the one [`Inquiry`] and lets go of it; the last to let go tells the worker
//! that asked, which finishes the reply. A worker that ends in the middle lets go of it too, as
//! does a channel that nobody reads any more: nobody waits for ever. It is rare, so a lock is fine.

use std::sync::{Mutex, PoisonError};

use super::{ToWorker, WorkerHandle};
use crate::client::Question;
use crate::command::CommandId;
use crate::dest::{ClientId, Dest};

/// A question that goes round all workers.
#[derive(Debug)]
pub struct Inquiry {
    question: Question,
    asker: Asker,
    answers: Mutex<Answers>,
    /// The worker that asked.
    back: WorkerHandle,
}

/// Whose question it is.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// `CLIENT ID`.
    pub id: u64,
    /// Index and generation.
    pub client: ClientId,
    /// Where the reply goes: to the client, which waits for it, or into its transaction.
    pub to: Dest,
    /// For the counters.
    pub command: CommandId,
}

/// What the workers have said so far.
#[derive(Debug, Default)]
pub struct Answers {
    /// Clients' lines by their numbers.
    pub lines: Vec<(u64, Vec<u8>)>,
    /// How many clients were closed, or unblocked.
    pub count: i64,
    /// Keys.
    pub seen: crate::seen::Seen,
    /// The asker is to be closed, too, when it has its answer.
    pub asker_too: bool,
}

/// All have answered.
#[derive(Debug)]
pub struct Answered {
    /// What was asked.
    pub question: Question,
    /// Whose question it is.
    pub asker: Asker,
    /// The answers of all workers.
    pub answers: Answers,
}

impl Inquiry {
    /// A question of `asker`; `back` is told the answers.
    pub fn new(question: Question, asker: Asker, back: WorkerHandle) -> Inquiry {
        Inquiry { question, asker, answers: Mutex::default(), back }
    }

    /// Whose question it is.
    pub fn asker(&self) -> Asker {
        self.asker
    }

    /// What is asked.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// Adds to the answer.
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
        // The asking worker may have ended meanwhile, its client with it.
        self.back.send(ToWorker::Answered(Box::new(answered)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, mpsc};

    use mio::{Poll, Token, Waker};

    use super::*;

    /// A worker that ends in the middle drops what is in its inbox; one that has ended takes
    /// nothing any more. The asker hears of it all the same, once, with the others' answers.
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
