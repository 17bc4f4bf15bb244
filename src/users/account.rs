//! The account of a connection: its user, and a pending check of that user.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, LazyLock, Weak};

use super::User;
use crate::errors::Failure;
use crate::resp::Args;

/// The realm of connections that use slotway's own credentials ([`Account::realm`]).
pub const OWN_REALM: u16 = 0;
/// The first number of the realms of slotway's own user in databases other than 0.
const DATABASE_REALMS: u16 = 0xC000;
/// Maximum number of databases that can be selected.
pub const MAX_DATABASES: u16 = u16::MAX - DATABASE_REALMS;

/// The realm of slotway's own user in database `database`, which is less than [`MAX_DATABASES`].
pub fn database_realm(database: u16) -> u16 {
    match database {
        0 => OWN_REALM,
        other => DATABASE_REALMS + other.min(MAX_DATABASES - 1),
    }
}

/// The database of a realm of slotway's own user. `None`: the realm is a user of the cluster.
pub fn database_of(realm: u16) -> Option<u16> {
    match realm {
        OWN_REALM => Some(0),
        realm => realm.checked_sub(DATABASE_REALMS).filter(|database| *database < MAX_DATABASES),
    }
}

/// The account of a client, if there are users.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The user, if it is slotway's own.
    pub user: Option<Arc<User>>,
    /// Worker-local number of the user of the cluster whose connections carry the client's
    /// commands. [`OWN_REALM`]: slotway's own user.
    pub realm: u16,
    /// The user's name, if it is the cluster's.
    pub name: Option<Arc<str>>,
    pending: Option<PendingCheck>,
    result: Option<(CommandTag, CheckResult)>,
}

/// A pending check. Dropped with the account: a client that has left needs no answer.
#[derive(Debug, Clone)]
struct PendingCheck {
    tag: CommandTag,
    /// Size of the check's arguments, in bytes.
    bytes: usize,
    /// Alive as long as the answer is wanted.
    _wanted: Arc<()>,
}

/// Identifies the command that a result is about; another command must not use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandTag(u64);

impl CommandTag {
    /// Not a command: whether the client may send commands without logging in.
    pub const NO_LOGIN: CommandTag = CommandTag(0);

    /// A hash of the arguments, keyed at random so that nobody can construct equal tags.
    pub fn of(args: &Args) -> CommandTag {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = KEYS.build_hasher();
        for arg in args.iter() {
            hasher.write_usize(arg.len());
            hasher.write(arg);
        }
        CommandTag(hasher.finish() | 1)
    }
}

/// The result of a check. The command that waited for it is processed again and finds it.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckResult {
    /// A node allows it.
    Allowed,
    /// A node allows it, and the user needs no password.
    Open,
    /// The command has waited its time and may be processed.
    Waited,
    /// A node's error reply.
    Refused(Failure),
    /// The error reply, after its delay.
    Told(Failure),
}

impl Account {
    /// The account of a client that has not logged in. `user` is the default user; `None`: the
    /// client has to log in.
    pub fn without_login(user: Option<Arc<User>>) -> Account {
        Account { user, ..Account::default() }
    }

    /// Whether it has logged in or does not have to.
    pub fn is_authenticated(&self) -> bool {
        self.user.is_some() || self.realm != OWN_REALM
    }

    /// The user's name; `default` before a login, as in Redis.
    pub fn name(&self) -> &str {
        match (&self.user, &self.name) {
            (Some(user), _) => &user.name,
            (None, Some(name)) => name,
            (None, None) => "default",
        }
    }

    /// Logs out. Returns the realm left.
    pub fn leave(&mut self) -> u16 {
        std::mem::take(self).realm
    }

    /// Starts a check of `bytes` bytes. The returned handle is alive while the answer is wanted.
    pub fn ask(&mut self, tag: CommandTag, bytes: usize) -> Weak<()> {
        let wanted = Arc::new(());
        let alive = Arc::downgrade(&wanted);
        self.result = None;
        self.pending = Some(PendingCheck { tag, bytes, _wanted: wanted });
        alive
    }

    /// Stores the result of the pending check.
    pub fn answer(&mut self, result: CheckResult) {
        self.result = self.pending.take().map(|pending| (pending.tag, result));
    }

    /// Stores a result for the next time that the command is processed.
    pub fn store_result(&mut self, tag: CommandTag, result: CheckResult) {
        self.result = Some((tag, result));
    }

    /// Takes the result, if it is for this command.
    pub fn answered(&mut self, tag: CommandTag) -> Option<CheckResult> {
        self.result.take().filter(|(of, _)| *of == tag).map(|(_, result)| result)
    }

    /// Size of the pending check, in bytes.
    pub fn asked(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.bytes)
    }
}
