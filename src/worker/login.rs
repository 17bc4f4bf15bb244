//! Clients log in.

use super::Worker;
use super::clock::{Job, Timer};
use super::downstream::Flow;
use super::state::Base;
use super::state::base;
use super::state::{Access, Clients, Core};
use crate::client::Paused;
use crate::command::CommandId;
use crate::dest::ClientId;
use crate::errors::{Code, Failure};
use crate::mailbox::ToControl;
use crate::mailbox::Verify;
use crate::metrics::{DeniedFor, LoginOutcome};
use crate::resp::{Args, strict_i64};
use crate::route::Local;
use crate::users::{
    Asking, Credentials, Granted, LONGEST_PASSWORD, Login, Source, Tag, Throttle, Verdict,
};
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::users::LOG_INTERVAL;

impl Clients {
    /// A node is asked; the command stays in its client's buffer.
    pub(super) fn ask_node(
        &mut self,
        index: usize,
        tag: Tag,
        asking: Asking,
        core: &mut Core,
    ) -> Flow {
        let Some(client) = self.slab.get_mut(index) else { return Flow::Stop };
        let Some(account) = client.session.account.as_mut() else { return Flow::Stop };
        client.paused = Paused::Command;
        let wanted = account.ask(tag, asking.bytes());
        let client = ClientId::new(index, client.generation);
        let verify = Verify { asking, client, wanted, to: core.link.own.clone() };
        // Control may be gone at the very end: nobody waits for an answer then.
        let _ = core.link.control.send(ToControl::Verify(Box::new(verify)));
        Flow::Pause
    }

    /// The node has answered.
    pub(super) fn verified(
        &mut self,
        client: ClientId,
        answer: Result<Granted, Failure>,
        core: &mut Core,
    ) {
        let verdict = match answer {
            Ok(Granted::Yes) => Verdict::Allowed,
            Ok(Granted::Open) => Verdict::Open,
            Err(failure) => Verdict::Refused(failure),
        };
        self.go_on_with(client, verdict, core);
    }

    fn go_on_with(&mut self, client: ClientId, verdict: Verdict, core: &mut Core) {
        let Some(c) = self.slab.get_mut(client.at()) else { return };
        if c.generation != client.generation || c.gone {
            return;
        }
        if let Some(account) = c.session.account.as_mut() {
            account.answer(verdict);
        }
        if c.paused == Paused::Command {
            core.turn.resume.push(client);
        }
    }

    /// A failed login has waited its time.
    pub(super) fn login_again(&mut self, id: ClientId, core: &mut Core) {
        let client = self.slab.get(id.at());
        if client.is_some_and(|c| c.generation == id.generation && c.paused == Paused::Command) {
            core.turn.resume.push(id);
        }
    }

    /// Many have failed from where the client comes from: it waits, or is refused.
    fn waits_in_line(
        &mut self,
        index: usize,
        command: CommandId,
        tag: Tag,
        core: &mut Core,
    ) -> Option<Flow> {
        let source = self.source(index);
        let admitted = throttle(&core.shared.throttle).admit(source, core.now);
        match admitted {
            Some(0) => None,
            Some(wait) => Some(self.put_off(index, tag, Verdict::Waited, wait, core)),
            None => {
                core.stats.logins[LoginOutcome::Throttled as usize] += 1;
                self.answer_own_error(index, command, &Failure::LoginsThrottled, core);
                Some(Flow::Next)
            }
        }
    }

    fn source(&self, index: usize) -> Source {
        Source::of(self.address(index))
    }

    fn address(&self, index: usize) -> Option<IpAddr> {
        self.slab.get(index)?.ip()
    }

    /// The command is read once more after a while, and finds the verdict.
    fn put_off(
        &mut self,
        index: usize,
        tag: Tag,
        verdict: Verdict,
        wait: u64,
        core: &mut Core,
    ) -> Flow {
        let Some(client) = self.slab.get_mut(index) else { return Flow::Stop };
        if let Some(account) = client.session.account.as_mut() {
            account.put_by(tag, verdict);
        }
        client.paused = Paused::Command;
        let job = Job::Login(ClientId::new(index, client.generation));
        core.clock.timers.push(Timer { due: core.now + wait, job });
        Flow::Pause
    }
}

impl Access {
    /// Told at once, or after a while that grows with the failures from the same address.
    fn login_failed(
        &mut self,
        index: usize,
        command: CommandId,
        tag: Tag,
        failure: Failure,
        clients: &mut Clients,
        core: &mut Core,
    ) -> Flow {
        core.stats.logins[LoginOutcome::Wrong as usize] += 1;
        let address = clients.address(index);
        let wait = throttle(&core.shared.throttle).failed(Source::of(address), core.now);
        self.failures.count += 1;
        if core.now >= self.failures.next_line {
            self.failures.next_line = core.now + LOG_INTERVAL;
            let failed = std::mem::take(&mut self.failures.count);
            let from = address.map_or_else(|| "a Unix socket".to_owned(), |ip| ip.to_string());
            // Not the name: it may be a password in the wrong place.
            tracing::warn!(from, failed, "logins failed; this address is the last one");
        }
        if wait == 0 {
            clients.answer_own_error(index, command, &failure, core);
            return Flow::Next;
        }
        clients.put_off(index, tag, Verdict::Told(failure), wait, core)
    }
}

impl Worker {
    /// AUTH, and HELLO as far as it is about who the client is. `None`: HELLO goes on.
    pub(super) fn login(
        &mut self,
        index: usize,
        command: CommandId,
        local: Local,
        args: &Args,
    ) -> Option<Flow> {
        let given = credentials(local, args);
        let alone = matches!(given, Given::Password(_));
        let (name, password) = match given {
            Given::Both(name, password) => (name, password),
            Given::Password(password) => {
                if self.access.users.stranger().is_some() {
                    self.clients.answer_own_error(
                        index,
                        command,
                        &Failure::NoPasswordExpected,
                        &mut self.core,
                    );
                    return Some(Flow::Next);
                }
                (b"default".as_slice(), password)
            }
            Given::Wrong if local == Local::Auth => {
                self.clients.answer_own_error(index, command, &Failure::Syntax, &mut self.core);
                return Some(Flow::Next);
            }
            Given::Wrong => return None,
            Given::Nothing => {
                let account = self.clients.slab.get(index)?.session.account.as_ref()?;
                if account.is_in() {
                    return None;
                }
                // HELLO says itself that it wants a login.
                return self.stranger_in_cluster(index).ok().flatten();
            }
        };
        let account = self.clients.slab.get_mut(index)?.session.account.as_mut()?;
        let tag = Tag::of(args);
        let verdict = match account.answered(tag) {
            // Its failure has waited its time, see below.
            Some(Verdict::Told(failure)) => {
                self.clients.answer_own_error(index, command, &failure, &mut self.core);
                return Some(Flow::Next);
            }
            // Nobody's: neither hashed nor sent.
            _ if name.len().max(password.len()) > LONGEST_PASSWORD => {
                return Some(self.access.login_failed(
                    index,
                    command,
                    tag,
                    Failure::WrongPassword,
                    &mut self.clients,
                    &mut self.core,
                ));
            }
            None => match self.clients.waits_in_line(index, command, tag, &mut self.core) {
                Some(flow) => return Some(flow),
                None => None,
            },
            Some(Verdict::Waited) => None,
            verdict => verdict,
        };
        let entered = match (verdict, self.access.users.login(name, password)) {
            (_, Login::Own(user)) => {
                base!(self).enter_own(index, user);
                LoginOutcome::Own
            }
            (_, Login::Wrong) => {
                return Some(self.access.login_failed(
                    index,
                    command,
                    tag,
                    Failure::WrongPassword,
                    &mut self.clients,
                    &mut self.core,
                ));
            }
            (None | Some(Verdict::Waited), Login::Elsewhere) => {
                // A node knows what to say to a password without a name.
                let user = if alone { Arc::default() } else { name.into() };
                let another = self.access.has_realms_like(name, password);
                let who = Credentials { user, password: password.into() };
                let asking = Asking::Login { who, another };
                return Some(self.clients.ask_node(index, tag, asking, &mut self.core));
            }
            (Some(Verdict::Open), Login::Elsewhere)
                if name == b"default" && self.clients.is_kept_out(index, &self.core) =>
            {
                self.core.stats.denied[DeniedFor::Login as usize] += 1;
                self.clients.answer_own_error(index, command, &Failure::Protected, &mut self.core);
                return Some(Flow::Next);
            }
            (Some(answer @ (Verdict::Allowed | Verdict::Open)), Login::Elsewhere) => {
                let who = match answer {
                    Verdict::Open => Credentials::of_open(name),
                    _ => Credentials { user: name.into(), password: password.into() },
                };
                let Some(realm) = self.realm_for(who) else {
                    let failure = self.core.too_many();
                    self.clients.answer_own_error(index, command, &failure, &mut self.core);
                    return Some(Flow::Next);
                };
                base!(self).enter_realm(index, realm, name);
                LoginOutcome::Cluster
            }
            (Some(Verdict::Refused(failure)), Login::Elsewhere)
                if failure.code() == Code::WrongPass =>
            {
                return Some(self.access.login_failed(
                    index,
                    command,
                    tag,
                    failure,
                    &mut self.clients,
                    &mut self.core,
                ));
            }
            (Some(Verdict::Refused(failure) | Verdict::Told(failure)), Login::Elsewhere) => {
                self.core.stats.logins[LoginOutcome::Unavailable as usize] += 1;
                self.clients.answer_own_error(index, command, &failure, &mut self.core);
                return Some(Flow::Next);
            }
        };
        self.core.stats.logins[entered as usize] += 1;
        if local == Local::Auth {
            self.clients.answer_own(index, command, b"+OK\r\n", &mut self.core);
            return Some(Flow::Next);
        }
        None
    }
}

/// What AUTH or HELLO say of who somebody is.
enum Given<'a> {
    Both(&'a [u8], &'a [u8]),
    Password(&'a [u8]),
    Nothing,
    /// It is not understood so far.
    Wrong,
}

fn credentials<'a>(local: Local, args: &Args<'a>) -> Given<'a> {
    let arg = |i: usize| args.get(i).unwrap_or_default();
    match (local, args.len()) {
        (Local::Auth, 2) => return Given::Password(arg(1)),
        (Local::Auth, 3) => return Given::Both(arg(1), arg(2)),
        (Local::Auth, _) => return Given::Wrong,
        _ => {}
    }
    if args.get(1).is_some_and(|version| !matches!(strict_i64(version), Some(2 | 3))) {
        return Given::Wrong;
    }
    let mut at = 2;
    while at < args.len() {
        let more = args.len() - 1 - at;
        if args.is(at, "auth") && more >= 2 {
            return Given::Both(arg(at + 1), arg(at + 2));
        }
        if !(args.is(at, "setname") && more >= 1) {
            return Given::Wrong;
        }
        at += 2;
    }
    Given::Nothing
}

fn throttle(shared: &std::sync::Mutex<Throttle>) -> MutexGuard<'_, Throttle> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
