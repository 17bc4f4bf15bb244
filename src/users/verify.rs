//! What a node is asked about its users. The asking itself is control's.

use std::fmt;
use std::sync::Arc;

/// A user of the cluster and its password. Both are empty for who has not logged in.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The name.
    pub user: Arc<[u8]>,
    /// The password.
    pub password: Arc<[u8]>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user.escape_ascii())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Of the user that everybody may be, whatever the password.
    pub fn of_open(user: &[u8]) -> Credentials {
        let user = if user == b"default" { b"" } else { user };
        Credentials { user: user.into(), password: Arc::default() }
    }
}

/// A node's yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// It is so.
    Yes,
    /// It is so, and the user needs no password.
    Open,
}

/// What is asked.
#[derive(Clone)]
pub enum Asking {
    /// Is this a user's password?
    Login {
        /// The user and the password.
        who: Credentials,
        /// Somebody else is that user with another password: is any password right?
        another: bool,
    },
    /// Does the default user need no password?
    Stranger,
    /// May this user send this? For what no node sees of it.
    May {
        /// The user.
        user: Arc<[u8]>,
        /// The command and its arguments.
        args: Vec<Vec<u8>>,
    },
}

impl Asking {
    /// Bytes that it has.
    pub fn bytes(&self) -> usize {
        match self {
            Asking::Login { who, .. } => who.user.len() + who.password.len(),
            Asking::Stranger => 0,
            Asking::May { user, args } => user.len() + args.iter().map(Vec::len).sum::<usize>(),
        }
    }
}

impl fmt::Debug for Asking {
    /// Arguments may be anything: not even their number is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Asking::Login { .. } => "Login",
            Asking::Stranger => "Stranger",
            Asking::May { .. } => "May",
        })
    }
}
