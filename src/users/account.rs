//! What a connection knows of its user.

use std::sync::Arc;

use super::User;

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
    /// What its command at hand waited for.
    pub verdict: Option<Verdict>,
}

/// The answer that a command has waited for. The command is read once more and finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A node has said yes.
    Allowed,
    /// A node's error reply.
    Refused(String),
    /// The error reply, which has waited its time.
    Told(String),
}

impl Account {
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
}
