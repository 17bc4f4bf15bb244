//! Users: authentication and access rules.
//!
//! There are two kinds, which may be combined: slotway's own users (`users`, `users_file`), whose
//! rules are checked here before anything is sent, and the cluster's (`auth = "passthrough"`),
//! which a node verifies and whose commands use connections of that user. Without either, every
//! client may do everything, as with a Redis server without passwords.
//!
//! - `rules`: the commands, keys and channels that a user may use
//! - `user`: a user, and its line in an ACL file
//! - `account`: the user of a connection
//! - `throttle`: delays after failed logins
//! - `verify`: checks of the cluster's users by a node; `reverify`: their periodic repetition
//!
//! Not here: logins and checks in progress (`dispatch/login.rs`, `dispatch/users.rs`), and the
//! connections of the cluster's users (`access`).

mod account;
mod reverify;
mod rule_error;
mod rules;
mod throttle;
mod user;
mod verify;

use std::sync::Arc;

pub use account::{
    Account, CheckResult, CommandTag, MAX_DATABASES, OWN_REALM, database_of, database_realm,
};
pub use reverify::{Reverified, SubscribedTopic, is_refusal};
pub use rule_error::RuleError;
pub use rules::{Denied, Selector};
pub use throttle::{Source, Throttle};
pub use user::{Hash, UNCHECKED, User};
pub use verify::{Credentials, Granted, UserCheck};

use crate::command::CommandTable;

/// The longest name or password accepted, in bytes: Redis's limit before a login.
pub const MAX_PASSWORD_LEN: usize = 16 << 10;
/// The reason for refusing a command whose effects cannot be checked, and the remedy.
pub const UNCHECKED_DENIED: &str = "slotway cannot check what it does against this user's keys, channels and commands. Allowed for \
     users with ~* &* +@all, or with unchecked-commands in their rules (users, users_file)";

/// All of slotway's own users. Immutable: a changed file creates a new value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// Sorted by name.
    own: Vec<Arc<User>>,
    /// Other names may be users of the cluster.
    passthrough: bool,
    /// Logging in is required even without users: a users file that is empty, perhaps only for a
    /// moment, must not grant access.
    closed: bool,
}

/// The result of checking a name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Correct, for this user of slotway's.
    Own(Arc<User>),
    /// Wrong.
    Wrong,
    /// The cluster has to decide.
    Elsewhere,
}

impl Users {
    /// `passthrough`: other names may be the cluster's. `closed`: without users, nobody has access.
    ///
    /// # Errors
    /// Two users have the same name.
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

    /// Whether there are no users, so that every client has access.
    pub fn is_open(&self) -> bool {
        self.own.is_empty() && !self.passthrough && !self.closed
    }

    /// Whether users of the cluster may log in.
    pub fn passes_through(&self) -> bool {
        self.passthrough
    }

    /// Whether clients have access without logging in: the default user needs no password.
    pub fn allows_without_login(&self) -> bool {
        self.is_open() || self.user_without_login().is_some()
    }

    /// The user with this name.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        let at = self.own.binary_search_by(|user| user.name.as_bytes().cmp(name));
        self.own.get(at.ok()?)
    }

    /// Whether a client may be the user with this name.
    pub fn accepts_name(&self, name: &[u8]) -> bool {
        self.passthrough || name == b"default" || self.get(name).is_some()
    }

    /// All users, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
        self.own.iter()
    }

    /// The default user, if its rules apply to clients that have not logged in.
    pub fn user_without_login(&self) -> Option<&Arc<User>> {
        self.get(b"default").filter(|user| user.on && user.nopass)
    }

    /// Checks a name and password.
    pub fn login(&self, name: &[u8], password: &[u8]) -> Login {
        // Always hashed, so that the response time does not reveal whether the user exists.
        let given = Hash::of(password);
        match self.get(name) {
            Some(user) if user.has_password(&given) & user.on => Login::Own(Arc::clone(user)),
            Some(_) => Login::Wrong,
            None if self.passthrough => Login::Elsewhere,
            None => Login::Wrong,
        }
    }

    /// The user named by a client's certificate, which needs no password. Only slotway's own users
    /// can log in this way; the cluster's need their password.
    pub fn login_by_certificate(&self, name: &str) -> Option<&Arc<User>> {
        self.get(name.as_bytes()).filter(|user| user.on)
    }

    /// Warnings for the operator about these users' rules.
    pub fn warnings(&self) -> Vec<String> {
        let table = CommandTable::builtin();
        self.own.iter().filter_map(|user| user.warning(&table)).collect()
    }

    /// The same users, compiled for another command table.
    pub fn compiled(&self, table: &CommandTable) -> Users {
        let own = self.own.iter().map(|user| Arc::new(user.compiled(table))).collect();
        Users { own, ..*self }
    }
}

/// Parses an ACL file: lines `user NAME rules …`; empty lines and comments (`#`) are skipped.
///
/// # Errors
/// The error, with its line number.
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

/// Compares two secrets in constant time.
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    Hash::of(a).same(&Hash::of(b))
}

#[cfg(test)]
mod tests;
