//! What a connection knows of its user.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, LazyLock, Weak};

use super::User;
use crate::errors::Failure;
use crate::resp::Args;

/// Connections of slotway's own user ([`Account::realm`]).
pub const OWN: u16 = 0;

/// Of a client where there are users.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The user of slotway's own that it is.
    pub user: Option<Arc<User>>,
    /// Whose connections its commands travel on: a number of the worker's, [`OWN`] for slotway's.
    pub realm: u16,
    /// The name of a user of the cluster.
    pub name: Option<Arc<str>>,
    question: Option<Question>,
    verdict: Option<(Tag, Verdict)>,
}

/// What is being asked for a client. Dropped with its account: who is gone needs no answer.
#[derive(Debug, Clone)]
struct Question {
    tag: Tag,
    /// Bytes that the question has.
    bytes: usize,
    /// As long as it is wanted.
    _wanted: Arc<()>,
}

/// Which command a verdict is about: one that was not taken for its own is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(u64);

impl Tag {
    /// Not one command's: whether the client may be here without logging in.
    pub const STRANGER: Tag = Tag(0);

    /// Of a command, by all its bytes. The keys are random, or somebody could find two commands
    /// with the same.
    pub fn of(args: &Args) -> Tag {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = KEYS.build_hasher();
        for arg in args.iter() {
            hasher.write_usize(arg.len());
            hasher.write(arg);
        }
        Tag(hasher.finish() | 1)
    }
}

/// The answer that a command has waited for. The command is read once more and finds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// A node has said yes.
    Allowed,
    /// The same, and the user is nobody's in particular: any password is right, or none.
    Open,
    /// It has waited, and may be looked at.
    Waited,
    /// A node's error reply.
    Refused(Failure),
    /// The error reply, which has waited its time.
    Told(Failure),
}

impl Account {
    /// Of who need not log in, or has to (`None`).
    pub fn of_stranger(user: Option<Arc<User>>) -> Account {
        Account { user, ..Account::default() }
    }

    /// It has logged in, or need not.
    pub fn is_in(&self) -> bool {
        self.user.is_some() || self.realm != OWN
    }

    /// The user's name; Redis calls who is not logged in by the default user's.
    pub fn name(&self) -> &str {
        match (&self.user, &self.name) {
            (Some(user), _) => &user.name,
            (None, Some(name)) => name,
            (None, None) => "default",
        }
    }

    /// It is nobody any more. Gives its realm.
    pub fn leave(&mut self) -> u16 {
        std::mem::take(self).realm
    }

    /// Something of so many bytes is asked for it. Gives what lives as long as it is wanted.
    pub fn ask(&mut self, tag: Tag, bytes: usize) -> Weak<()> {
        let wanted = Arc::new(());
        let alive = Arc::downgrade(&wanted);
        self.verdict = None;
        self.question = Some(Question { tag, bytes, _wanted: wanted });
        alive
    }

    /// The answer to what was asked.
    pub fn answer(&mut self, verdict: Verdict) {
        self.verdict = self.question.take().map(|question| (question.tag, verdict));
    }

    /// This will be found when the command is read once more.
    pub fn put_by(&mut self, tag: Tag, verdict: Verdict) {
        self.verdict = Some((tag, verdict));
    }

    /// The answer, if it is this command's.
    pub fn answered(&mut self, tag: Tag) -> Option<Verdict> {
        self.verdict.take().filter(|(of, _)| *of == tag).map(|(_, verdict)| verdict)
    }

    /// Bytes of what is being asked.
    pub fn asked(&self) -> usize {
        self.question.as_ref().map_or(0, |question| question.bytes)
    }
}
