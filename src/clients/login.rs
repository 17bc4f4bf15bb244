//! Logins of clients: who waits, who goes on, who stays out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{MutexGuard, PoisonError};

use crate::client::Paused;
use crate::clients::{Clients, Flow};
use crate::cluster::ViewId;
use crate::command::CommandId;
use crate::common::Core;
use crate::common::clock::{Job, Timer};
use crate::dest::ClientId;
use crate::errors::Failure;
use crate::mailbox::{ToControl, UserQuestion};
use crate::metrics::{DisconnectReason, LoginOutcome};
use crate::route::{Merge, Plan};
use crate::sparsely;
use crate::stream::Stream;
use crate::users::{
    CheckResult, CommandTag, Granted, OWN_REALM, Source, Throttle, UserCheck, database_of,
    database_realm,
};

/// Clients that have to log in, in the order of their deadlines, with those that have done so since
/// or are gone.
#[derive(Debug, Default)]
pub(crate) struct LoginDeadlines {
    pub(crate) queue: VecDeque<LoginDeadline>,
}

impl LoginDeadlines {
    /// When the next one is.
    pub(crate) fn due(&self, core: &Core) -> Option<u64> {
        Some(self.queue.front()?.since.saturating_add(core.settings.login_timeout?))
    }
}

/// Since when a client has had to log in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoginDeadline {
    pub(crate) since: u64,
    pub(crate) client: ClientId,
    /// It was given the time once more.
    pub(crate) is_extended: bool,
}

/// The logins of clients: who is asked about, who waits, who stays out.
pub(crate) struct Logins<'a> {
    clients: &'a mut Clients,
}

impl Clients {
    /// The logins of clients.
    pub(crate) fn logins(&mut self) -> Logins<'_> {
        Logins { clients: self }
    }

    /// What the client sees of the upstreams.
    #[inline]
    pub(crate) fn view_of(&self, client: usize) -> ViewId {
        self.slab.get(client).map_or(ViewId::ROUTED, |client| client.session.view)
    }

    /// The realm of a client that is here.
    pub(crate) fn realm_of(&self, client: usize) -> u16 {
        let Some(client) = self.slab.get(client) else { return OWN_REALM };
        match client.session.account.as_ref().map_or(OWN_REALM, |account| account.realm) {
            OWN_REALM => database_realm(client.session.database),
            of_cluster => of_cluster,
        }
    }

    /// The plan for this client: what the nodes themselves tell their users about users reaches
    /// these as it is.
    pub(crate) fn filtered_for(&self, index: usize, plan: Plan) -> Plan {
        match plan {
            Plan::Fan { merge: Merge::Filtered(filter), .. }
                if !filter.holds_for_cluster_users()
                    && database_of(self.realm_of(index)).is_none() =>
            {
                Plan::Any
            }
            other => other,
        }
    }
}

impl Logins<'_> {
    /// A node is asked; the command stays in its client's buffer.
    pub(crate) fn ask_node(
        &mut self,
        index: usize,
        tag: CommandTag,
        asking: UserCheck,
        core: &mut Core,
    ) -> Flow {
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        let Some(account) = client.session.account.as_mut() else { return Flow::Stop };
        client.paused = Paused::Command;
        let wanted = account.ask(tag, asking.bytes());
        let client = ClientId::new(index, client.generation);
        let verify = UserQuestion { asking, client, wanted, to: core.link.own.clone() };
        // Control may be gone at the very end: nobody waits for an answer then.
        let _ = core.link.control.send(ToControl::UserQuestion(Box::new(verify)));
        Flow::Pause
    }

    /// The node has answered.
    pub(crate) fn verified(
        &mut self,
        client: ClientId,
        answer: Result<Granted, Failure>,
        core: &mut Core,
    ) {
        let verdict = match answer {
            Ok(Granted::Yes) => CheckResult::Allowed,
            Ok(Granted::Open) => CheckResult::Open,
            Err(failure) => CheckResult::Refused(failure),
        };
        self.go_on_with(client, verdict, core);
    }

    fn go_on_with(&mut self, client: ClientId, verdict: CheckResult, core: &mut Core) {
        let Some(c) = self.clients.slab.get_mut(client.at()) else { return };
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
    pub(crate) fn again(&mut self, id: ClientId, core: &mut Core) {
        let client = self.clients.slab.get(id.at());
        if client.is_some_and(|c| c.generation == id.generation && c.paused == Paused::Command) {
            core.turn.resume.push(id);
        }
    }

    /// Many have failed from where the client comes from: it waits, or is refused.
    pub(crate) fn waits_in_line(
        &mut self,
        index: usize,
        command: CommandId,
        tag: CommandTag,
        core: &mut Core,
    ) -> Option<Flow> {
        let source = Source::of(self.address(index));
        let admitted = throttle(&core.shared.throttle).admit(source, core.now);
        match admitted {
            Some(0) => None,
            Some(wait) => Some(self.put_off(index, tag, CheckResult::Waited, wait, core)),
            None => {
                core.stats.logins[LoginOutcome::Throttled as usize] += 1;
                self.clients.answer_own_error(index, command, &Failure::LoginsThrottled, core);
                Some(Flow::Next)
            }
        }
    }

    /// Where the client comes from.
    pub(crate) fn address(&self, index: usize) -> Option<IpAddr> {
        self.clients.slab.get(index)?.ip()
    }

    /// The command is read once more after a while, and finds the verdict.
    pub(crate) fn put_off(
        &mut self,
        index: usize,
        tag: CommandTag,
        verdict: CheckResult,
        wait: u64,
        core: &mut Core,
    ) -> Flow {
        let Some(client) = self.clients.slab.get_mut(index) else { return Flow::Stop };
        if let Some(account) = client.session.account.as_mut() {
            account.store_result(tag, verdict);
        }
        client.paused = Paused::Command;
        let job = Job::Login(ClientId::new(index, client.generation));
        core.clock.timers.push(Timer { due: core.now + wait, job });
        Flow::Pause
    }

    /// It comes from elsewhere, and may not be a user that everybody may be.
    pub(crate) fn is_kept_out(&self, index: usize, core: &Core) -> bool {
        self.clients.slab.get(index).is_none_or(|c| core.settings.keeps_out(c))
    }

    /// If the client has to log in, its time for that begins.
    pub(crate) fn set_deadline(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.clients.slab.get(index).filter(|c| c.session.must_log_in()) else {
            return;
        };
        // That of a client with TLS begins at the end of its handshake.
        if client.created == core.now && matches!(client.stream, Stream::Tls(_)) {
            return;
        }
        let client = ClientId::new(index, client.generation);
        if self.clients.arrivals.logins.queue.len() > 1024 + 2 * self.clients.slab.len() {
            let clients = &self.clients.slab;
            self.clients.arrivals.logins.queue.retain(|login| {
                let client = clients.get(login.client.at());
                client.is_some_and(|c| {
                    c.generation == login.client.generation && c.session.must_log_in()
                })
            });
        }
        self.clients.arrivals.logins.queue.push_back(LoginDeadline {
            since: core.now,
            client,
            is_extended: false,
        });
    }

    /// Ends a client that has not logged in in time.
    pub(crate) fn end_stranger(&mut self, index: usize, core: &mut Core) {
        let Some(client) = self.clients.slab.get(index) else { return };
        let (address, generation) = (client.addresses().0, client.generation);
        let limit = core.settings.login_timeout.unwrap_or_default() / 1000;
        sparsely!(
            core.lines.logins,
            info,
            client = address,
            limit_ms = limit,
            "a client is closed: it has not logged in within timeouts.login"
        );
        core.stats.disconnected[DisconnectReason::Login as usize] += 1;
        self.clients.answer_error(index, &Failure::LoginLate { limit }, core);
        self.clients.stop_reading(index, core);
        core.close_later(index, generation);
    }
}

pub(crate) fn throttle(shared: &std::sync::Mutex<Throttle>) -> MutexGuard<'_, Throttle> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
