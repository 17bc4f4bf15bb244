//! Checks of the cluster's users by a node. The `control` room sends them.

use std::fmt;
use std::sync::Arc;

/// Name and password of a user of the cluster. Both are empty without a login.
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
    /// Credentials of a user that needs no password.
    pub fn of_open(user: &[u8]) -> Credentials {
        let user = if user == b"default" { b"" } else { user };
        Credentials { user: user.into(), password: Arc::default() }
    }
}

/// A node's positive answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// Allowed.
    Yes,
    /// Allowed, and the user needs no password.
    Open,
}

/// A check.
#[derive(Clone)]
pub enum UserCheck {
    /// Whether a password is correct.
    Login {
        /// The name and password.
        who: Credentials,
        /// Other clients are this user with another password: whether any password is accepted.
        another: bool,
    },
    /// Whether the default user needs no password.
    NoLogin,
    /// Whether a user may send a command (ACL DRYRUN), for commands that slotway answers itself.
    Command {
        /// The user.
        user: Arc<[u8]>,
        /// The command and its arguments.
        args: Vec<Vec<u8>>,
    },
}

impl UserCheck {
    /// Size of the strings, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            UserCheck::Login { who, .. } => who.user.len() + who.password.len(),
            UserCheck::NoLogin => 0,
            UserCheck::Command { user, args } => {
                user.len() + args.iter().map(Vec::len).sum::<usize>()
            }
        }
    }
}

impl fmt::Debug for UserCheck {
    /// Arguments may be secret: not even their number is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UserCheck::Login { .. } => "Login",
            UserCheck::NoLogin => "NoLogin",
            UserCheck::Command { .. } => "Command",
        })
    }
}
