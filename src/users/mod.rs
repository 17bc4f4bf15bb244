//! Who clients are, and what they may do.
//!
//! Users come from two places, which may be combined: slotway's own (`users`, `users_file`), whose
//! rules are checked here before anything is sent, and the cluster's (`auth = "passthrough"`), whom
//! a node verifies and whose commands travel on connections of that user. Without either every
//! client may do everything, as with a Redis server without passwords.
//!
//! - `rules`: commands, keys and channels that a user may use
//! - `user`: one user, and the line of an ACL file that makes it
//! - `account`: what a connection knows of its user
//! - `throttle`: failed logins are slowed
//! - `verify`: what a node is asked about its users; `look`: and from time to time again
//!
//! Not here: what a worker does with it ([`crate::worker`]).

mod account;
mod look;
mod rule_error;
mod rules;
mod throttle;
mod user;
mod verify;

use std::sync::Arc;

pub use account::{Account, OWN, Tag, Verdict};
pub use look::{Heard, Looked, is_refusal};
pub use rule_error::RuleError;
pub use rules::{Denied, Selector};
pub use throttle::{Source, Throttle};
pub use user::{Hash, UNCHECKED, User};
pub use verify::{Asking, Credentials, Granted};

use crate::command::CommandTable;

/// Longer names and passwords are nobody's: what Redis reads of who has not logged in.
pub const LONGEST_PASSWORD: usize = 16 << 10;
/// Why a command is refused whose effects cannot be checked, and the way out.
pub const UNCHECKED_DENIED: &str = "slotway cannot check what it does against this user's keys, channels and commands. Allowed for \
     users with ~* &* +@all, or with unchecked-commands in their rules (users, users_file)";
/// All users of slotway's own. Immutable: a changed file makes new ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// Sorted by name.
    own: Vec<Arc<User>>,
    /// Who is not among them is asked of the cluster.
    passthrough: bool,
    /// Somebody has to log in even if there is nobody who can: a file of users that is empty, for
    /// a moment perhaps, does not open the door.
    closed: bool,
}

/// What becomes of a name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// They are this user's.
    Own(Arc<User>),
    /// They are nobody's.
    Wrong,
    /// The cluster may know.
    Elsewhere,
}

impl Users {
    /// These users. `passthrough`: others may be the cluster's. `closed`: without any, nobody may
    /// do anything.
    ///
    /// # Errors
    /// Two of them have the same name.
    pub fn new(mut own: Vec<User>, passthrough: bool, closed: bool) -> Result<Users, String> {
        own.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = own.windows(2).find(|pair| matches!(pair, [a, b] if a.name == b.name))
        {
            let name = twice.first().map_or("", |user| &user.name);
            return Err(format!(
                "Duplicate user '{name}' found. A user can only be defined once in config files"
            ));
        }
        Ok(Users { own: own.into_iter().map(Arc::new).collect(), passthrough, closed })
    }

    /// Nobody has to log in, and nobody can: there are no users.
    pub fn is_open(&self) -> bool {
        self.own.is_empty() && !self.passthrough && !self.closed
    }

    /// Users of the cluster may log in.
    pub fn passes_through(&self) -> bool {
        self.passthrough
    }

    /// Who has not logged in may do something: the default user needs no password.
    pub fn lets_strangers_in(&self) -> bool {
        self.is_open() || self.stranger().is_some()
    }

    /// The user called so.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        let at = self.own.binary_search_by(|user| user.name.as_bytes().cmp(name));
        self.own.get(at.ok()?)
    }

    /// Clients may be the user called so.
    pub fn may_know(&self, name: &[u8]) -> bool {
        self.passthrough || name == b"default" || self.get(name).is_some()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
        self.own.iter()
    }

    /// Whose rules hold for who has not logged in.
    pub fn stranger(&self) -> Option<&Arc<User>> {
        self.get(b"default").filter(|user| user.on && user.nopass)
    }

    /// Who has this name and password.
    pub fn login(&self, name: &[u8], password: &[u8]) -> Login {
        // It is hashed whether there is such a user or not, so that the time does not tell.
        let given = Hash::of(password);
        match self.get(name) {
            Some(user) if user.has_password(&given) & user.on => Login::Own(Arc::clone(user)),
            Some(_) => Login::Wrong,
            None if self.passthrough => Login::Elsewhere,
            None => Login::Wrong,
        }
    }

    /// The user that a client is whose certificate has this name: it needs no password. Only
    /// slotway's own users can log in like this, the cluster's have to show their password.
    pub fn login_by_certificate(&self, name: &str) -> Option<&Arc<User>> {
        self.get(name.as_bytes()).filter(|user| user.on)
    }

    /// What an operator should know of these users' rules.
    pub fn warnings(&self) -> Vec<String> {
        let table = CommandTable::builtin();
        self.own.iter().filter_map(|user| user.warning(&table)).collect()
    }

    /// The same users for the commands of another table.
    pub fn compiled(&self, table: &CommandTable) -> Users {
        let own = self.own.iter().map(|user| Arc::new(user.compiled(table))).collect();
        Users { own, ..*self }
    }
}

/// Reads the lines of an ACL file: `user NAME rules …`; empty lines and those that begin with `#`
/// are passed over.
///
/// # Errors
/// What is wrong, with the number of the line.
pub fn parse_file(text: &str, table: &CommandTable) -> Result<Vec<User>, String> {
    let mut users = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("user ")) {
            return Err(format!("line {number}: should begin with \"user\""));
        }
        users.push(User::parse(line, table).map_err(|why| format!("line {number}: {why}"))?);
    }
    Ok(users)
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    Hash::of(a).same(&Hash::of(b))
}

#[cfg(test)]
mod tests;
