//! Limits of users, and what a user may send.

use crate::command::CommandSpec;
use crate::common::Core;
use crate::errors::Failure;
use crate::metrics::LoginOutcome;
use crate::resp::Args;
use crate::users::{Denied, UNCHECKED_DENIED, User};

impl Core {
    pub(crate) fn too_many(&mut self) -> Failure {
        self.stats.logins[LoginOutcome::TooMany as usize] += 1;
        let (configured, left) = (self.settings.users, self.shared.max_users());
        match configured <= left {
            true => Failure::TooManyUsers { limit: configured },
            false => Failure::TooManyUsersForFiles { configured, lowered: left },
        }
    }

    /// What may be sent by `user`, for ACL DRYRUN. `Err`: why not.
    pub(crate) fn dry_run(&mut self, user: &User, args: &Args) -> Result<(), DryRunError> {
        let command = self.router.command(args);
        let spec: &CommandSpec = self.router.table().get(command);
        if command == self.router.unknown() || (spec.container && args.len() > 1) {
            let command = args.get(0).unwrap_or_default().escape_ascii().to_string().into();
            return Err(DryRunError::NoCommand(Failure::CommandNotFound { command }));
        }
        if !spec.arity_fits(args.len()) {
            let failure = Failure::WrongArity { command: spec.name.clone() };
            return Err(DryRunError::NoCommand(failure));
        }
        let name = &spec.name;
        let checked = user.check(command, spec, args, &mut self.spare.keys);
        let told = |why| match why {
            Denied::Command => {
                format!("This user has no permissions to run the '{name}' command")
            }
            Denied::Unchecked => format!(
                "This user has no permissions to run the '{name}' command: {UNCHECKED_DENIED}"
            ),
            Denied::Key | Denied::Sort(_) | Denied::Channel => {
                let what = if why == Denied::Channel { "channel" } else { "key" };
                let at = args.get(user.denied_argument(spec, args)).unwrap_or_default();
                format!(
                    "This user has no permissions to access the '{}' {what}",
                    String::from_utf8_lossy(at)
                )
            }
        };
        checked.map_err(|why| DryRunError::Denied(told(why)))
    }
}

/// Why a user may not send a command.
pub(crate) enum DryRunError {
    /// There is no such command; ACL DRYRUN's error.
    NoCommand(Failure),
    /// The user's rules leave it out; ACL DRYRUN's reply.
    Denied(String),
}
