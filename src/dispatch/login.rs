//! AUTH, and the login in HELLO.

use crate::base::{Base, base};
use crate::clients::Flow;
use crate::command::CommandId;
use crate::dispatch::Dispatcher;
use crate::errors::{Code, Failure};
use crate::metrics::{DenialReason, LoginOutcome};
use crate::resp::{Args, strict_i64};
use crate::route::Local;
use crate::users::{CheckResult, CommandTag, Credentials, Login, MAX_PASSWORD_LEN, UserCheck};
use std::sync::Arc;

impl Dispatcher<'_> {
    /// Carries out AUTH or the login in HELLO. `None`: HELLO continues.
    pub(super) fn login(
        &mut self,
        index: usize,
        command: CommandId,
        local: Local,
        args: &Args,
    ) -> Option<Flow> {
        let given = credentials(local, args);
        let alone = matches!(given, AuthArgs::Password(_));
        let (name, password) = match given {
            AuthArgs::Both(name, password) => (name, password),
            AuthArgs::Password(password) => {
                if self.engine.access.users.user_without_login().is_some() {
                    self.engine.clients.answer_own_error(
                        index,
                        command,
                        &Failure::NoPasswordExpected,
                        &mut self.engine.core,
                    );
                    return Some(Flow::Next);
                }
                (b"default".as_slice(), password)
            }
            AuthArgs::Wrong if local == Local::Auth => {
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &Failure::Syntax,
                    &mut self.engine.core,
                );
                return Some(Flow::Next);
            }
            AuthArgs::Wrong => return None,
            AuthArgs::Nothing => {
                let account = self.engine.clients.slab.get(index)?.session.account.as_ref()?;
                if account.is_authenticated() {
                    return None;
                }
                // If a login is required, HELLO's own error says so.
                return self.stranger_in_cluster(index).ok().flatten();
            }
        };
        let account = self.engine.clients.slab.get_mut(index)?.session.account.as_mut()?;
        let tag = CommandTag::of(args);
        let verdict = match account.answered(tag) {
            // The error of a failed login, after its delay.
            Some(CheckResult::Told(failure)) => {
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &failure,
                    &mut self.engine.core,
                );
                return Some(Flow::Next);
            }
            // No user has such a name or password: it is neither hashed nor sent.
            _ if name.len().max(password.len()) > MAX_PASSWORD_LEN => {
                return Some(self.engine.access.login_failed(
                    index,
                    command,
                    tag,
                    Failure::WrongPassword,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                ));
            }
            None => {
                match self.engine.clients.logins().waits_in_line(
                    index,
                    command,
                    tag,
                    &mut self.engine.core,
                ) {
                    Some(flow) => return Some(flow),
                    None => None,
                }
            }
            Some(CheckResult::Waited) => None,
            verdict => verdict,
        };
        let entered = match (verdict, self.engine.access.users.login(name, password)) {
            (_, Login::Own(user)) => {
                base!(self.engine).enter_own(index, user);
                LoginOutcome::Own
            }
            (_, Login::Wrong) => {
                return Some(self.engine.access.login_failed(
                    index,
                    command,
                    tag,
                    Failure::WrongPassword,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                ));
            }
            (None | Some(CheckResult::Waited), Login::Elsewhere) => {
                // A password without a name goes to the node as such, for the node's own error.
                let user = if alone { Arc::default() } else { name.into() };
                let another = self.engine.access.has_realms_like(name, password);
                let who = Credentials { user, password: password.into() };
                let asking = UserCheck::Login { who, another };
                return Some(self.engine.clients.logins().ask_node(
                    index,
                    tag,
                    asking,
                    &mut self.engine.core,
                ));
            }
            (Some(CheckResult::Open), Login::Elsewhere)
                if name == b"default"
                    && self.engine.clients.logins().is_kept_out(index, &self.engine.core) =>
            {
                self.engine.core.stats.denied[DenialReason::Login as usize] += 1;
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &Failure::Protected,
                    &mut self.engine.core,
                );
                return Some(Flow::Next);
            }
            // The user's connections are in database 0, and a login does not change the database.
            (Some(CheckResult::Allowed | CheckResult::Open), Login::Elsewhere)
                if self.engine.clients.slab.get(index).is_some_and(|c| c.session.database != 0) =>
            {
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &Failure::DatabaseOfUser,
                    &mut self.engine.core,
                );
                return Some(Flow::Next);
            }
            (Some(answer @ (CheckResult::Allowed | CheckResult::Open)), Login::Elsewhere) => {
                let who = match answer {
                    CheckResult::Open => Credentials::of_open(name),
                    _ => Credentials { user: name.into(), password: password.into() },
                };
                let Some(realm) = self.realm_for(who) else {
                    let failure = self.engine.core.too_many();
                    self.engine.clients.answer_own_error(
                        index,
                        command,
                        &failure,
                        &mut self.engine.core,
                    );
                    return Some(Flow::Next);
                };
                base!(self.engine).enter_realm(index, realm, name);
                LoginOutcome::Cluster
            }
            (Some(CheckResult::Refused(failure)), Login::Elsewhere)
                if failure.code() == Code::WrongPass =>
            {
                return Some(self.engine.access.login_failed(
                    index,
                    command,
                    tag,
                    failure,
                    &mut self.engine.clients,
                    &mut self.engine.core,
                ));
            }
            (
                Some(CheckResult::Refused(failure) | CheckResult::Told(failure)),
                Login::Elsewhere,
            ) => {
                self.engine.core.stats.logins[LoginOutcome::Unavailable as usize] += 1;
                self.engine.clients.answer_own_error(
                    index,
                    command,
                    &failure,
                    &mut self.engine.core,
                );
                return Some(Flow::Next);
            }
        };
        self.engine.core.stats.logins[entered as usize] += 1;
        if local == Local::Auth {
            self.engine.clients.answer_own(index, command, b"+OK\r\n", &mut self.engine.core);
            return Some(Flow::Next);
        }
        None
    }
}

/// The credentials in AUTH or HELLO.
enum AuthArgs<'a> {
    Both(&'a [u8], &'a [u8]),
    Password(&'a [u8]),
    Nothing,
    /// Invalid arguments.
    Wrong,
}

fn credentials<'a>(local: Local, args: &Args<'a>) -> AuthArgs<'a> {
    let arg = |i: usize| args.get(i).unwrap_or_default();
    match (local, args.len()) {
        (Local::Auth, 2) => return AuthArgs::Password(arg(1)),
        (Local::Auth, 3) => return AuthArgs::Both(arg(1), arg(2)),
        (Local::Auth, _) => return AuthArgs::Wrong,
        _ => {}
    }
    if args.get(1).is_some_and(|version| !matches!(strict_i64(version), Some(2 | 3))) {
        return AuthArgs::Wrong;
    }
    let mut at = 2;
    while at < args.len() {
        let more = args.len() - 1 - at;
        if args.is(at, "auth") && more >= 2 {
            return AuthArgs::Both(arg(at + 1), arg(at + 2));
        }
        if !(args.is(at, "setname") && more >= 1) {
            return AuthArgs::Wrong;
        }
        at += 2;
    }
    AuthArgs::Nothing
}
