//! The cluster's users: which are here, and what is believed of them.

use crate::access::Access;
use crate::clients::Clients;
use crate::command::CommandId;
use crate::common::clock::{Job, Timer};
use crate::common::{Core, Source};
use crate::dest::{ConnId, Dest, NodeId};
use crate::errors::{Code, Failure};
use crate::hash::IntMap;
use crate::nodes::{Nodes, reaccount};
use crate::resp::Protocol;
use crate::upstream::{Pending, Upstream};
use crate::users::{CheckResult, Credentials, OWN_REALM, database_of, database_realm};

/// Connections of a user without clients are closed after so long, microseconds.
pub(crate) const IDLE: u64 = 60_000_000;
/// What a node has said of a command is believed so long, microseconds.
const BELIEVED: u64 = 1_000_000;

impl Access {
    /// Nodes do not tell this user their IDs, so they are not asked any more.
    #[cold]
    pub(crate) fn note_unverified(&mut self, realm: u16) {
        if self.unverified.insert(realm) && realm == OWN_REALM {
            tracing::warn!(
                "slotway's user at the nodes may not ask them for their IDs, so a connection to \
                 another server that has got a node's address is not noticed: ACL SETUSER … \
                 +cluster|myid"
            );
        }
    }

    /// Somebody is this user with another password.
    pub(crate) fn has_realms_like(&self, user: &[u8], password: &[u8]) -> bool {
        let other = |realm: &Realm| {
            !realm.dead && *realm.who.user == *user && *realm.who.password != *password
        };
        self.realms.values().any(other)
    }

    /// Another client uses database `to`, and none more `from`.
    pub(crate) fn change_database(&mut self, from: u16, to: u16, core: &mut Core) {
        if to != 0 {
            let number = database_realm(to);
            self.realms.entry(number).or_insert_with(|| Realm::of_database(core.now));
            self.count_in_realm(number, true, core);
        }
        if from != 0 {
            self.count_in_realm(database_realm(from), false, core);
        }
    }

    /// Its clients are one more, or one fewer.
    pub(crate) fn count_in_realm(&mut self, number: u16, more: bool, core: &mut Core) {
        let Some(realm) = self.realms.get_mut(&number) else { return };
        realm.clients = match more {
            true => realm.clients + 1,
            false => realm.clients.saturating_sub(1),
        };
        if realm.clients == 0 {
            realm.idle_since = core.now;
            self.realm_later(number, core);
        }
    }

    /// Looks whether it is still without clients, later. One timer is enough: who logs in and out
    /// again and again must not leave as many.
    pub(crate) fn realm_later(&mut self, number: u16, core: &mut Core) {
        let Some(realm) = self.realms.get_mut(&number) else { return };
        if !std::mem::replace(&mut realm.looked_at, true) {
            let due = core.now.max(realm.idle_since) + IDLE;
            core.clock.timers.push(Timer { due, job: Job::Realm(number) });
        }
    }

    /// The user of a command that is sent again is still here; otherwise it is answered.
    pub(crate) fn has_realm(&mut self, pending: &Pending, core: &mut Core) -> bool {
        let here = pending.realm == OWN_REALM || self.realms.contains_key(&pending.realm);
        if !here {
            core.fail(pending, "slotway", &Failure::UserClosed);
        }
        here
    }

    /// The shared connection of a realm to `node` that `client` uses, if there is one.
    pub(crate) fn realm_connection(
        &self,
        realm: u16,
        node: NodeId,
        protocol: Protocol,
        client: usize,
        clients: &Clients,
    ) -> Option<ConnId> {
        let bulk = clients.slab.get(client).is_some_and(|c| c.bulk);
        self.realms.get(&realm)?.shared.get(&place(node, protocol, bulk)).copied()
    }

    /// A connection of a user of the cluster that nothing waits for is not made anew, but when
    /// something does: the user may be gone. `true`: it is forgotten.
    pub(crate) fn is_unwanted(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) -> bool {
        let unwanted = |up: &Upstream| {
            up.realm != OWN_REALM && up.dedicated.is_none() && up.pending.is_empty()
        };
        let unwanted = nodes.upstreams.get(conn).is_some_and(unwanted);
        if unwanted {
            self.remove_upstream(conn, nodes, core);
        }
        unwanted
    }

    /// A connection is forgotten.
    pub(crate) fn leave_realm(&mut self, conn: ConnId, nodes: &mut Nodes) {
        let Some(up) = nodes.upstreams.get(conn).filter(|up| up.realm != OWN_REALM) else { return };
        let place = place(up.node, up.protocol, up.bulk);
        if let Some(realm) = self.realms.get_mut(&up.realm)
            && realm.shared.get(&place) == Some(&conn)
        {
            realm.shared.remove(&place);
        }
    }

    /// A shared connection is not kept any longer; nothing waits on it.
    pub(crate) fn remove_upstream(&mut self, conn: ConnId, nodes: &mut Nodes, core: &mut Core) {
        self.leave_realm(conn, nodes);
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        let node = up.node;
        if let Some(stream) = up.stream.as_mut() {
            stream.unwatch(core.link.poll.registry());
        }
        core.turn.resume.append(&mut up.waiters);
        core.turn.resume.extend(up.turns.drain());
        reaccount(&mut core.memory.accounted, &mut up.accounted, 0);
        up.queue.clear(&mut core.spare.pool);
        nodes.upstreams.remove(conn);
        nodes.connections().leave_node(node, conn);
        core.turn.again.retain(|s| *s != Source::Upstream(conn));
    }

    /// The node does not let the user in (any more): who waits is told in the node's words.
    pub(crate) fn realm_refused(
        &mut self,
        conn: ConnId,
        text: &str,
        nodes: &mut Nodes,
        core: &mut Core,
    ) {
        let Some(realm) = nodes.upstreams.get(conn).map(|up| up.realm) else { return };
        if database_of(realm).is_none() && crate::users::is_refusal(text.as_bytes()) {
            self.doubt_realm(realm, core);
        }
        let Some(up) = nodes.upstreams.get_mut(conn) else { return };
        if up.realm == OWN_REALM || up.dedicated.is_some() {
            return;
        }
        // HELLO words it for those who say HELLO.
        let failure = match Code::of_node(text) {
            Some(Code::NoAuth) => Failure::LogInFirst,
            _ => Failure::Verbatim(text.as_bytes().into()),
        };
        let node = up.node;
        let all = up.take_unsent(&mut core.spare.pool, |_| true);
        let name = nodes.list.get(node.at()).map(|n| n.addr.to_string()).unwrap_or_default();
        for (pending, _) in all.iter().filter(|(pending, _)| pending.dest != Dest::Discard) {
            core.fail(pending, &name, &failure);
        }
    }

    /// What a node said lately about this command and this user.
    pub(crate) fn believed(
        &self,
        realm: u16,
        command: CommandId,
        core: &Core,
    ) -> Option<CheckResult> {
        let (until, verdict) = self.realms.get(&realm)?.verdicts.get(&command.0)?;
        (core.now < *until).then(|| verdict.clone())
    }

    pub(crate) fn believe(
        &mut self,
        realm: u16,
        command: CommandId,
        verdict: CheckResult,
        core: &mut Core,
    ) {
        if let Some(realm) = self.realms.get_mut(&realm) {
            realm.verdicts.insert(command.0, (core.now + BELIEVED, verdict));
        }
    }
}

/// A user of the cluster, as long as clients of it are here or were a moment ago.
#[derive(Debug)]
pub(crate) struct Realm {
    pub who: Credentials,
    pub(crate) clients: usize,
    /// Since when there are none, microseconds.
    pub(crate) idle_since: u64,
    /// A timer will look at it.
    pub(crate) looked_at: bool,
    /// Its user is being looked at, see `revoke`; and is to be once more.
    pub looking: bool,
    pub(crate) doubted: bool,
    /// Its user is not any more. One that logs in by the same name and password is another.
    pub dead: bool,
    /// By [`place`].
    pub(crate) shared: IntMap<(NodeId, u8), ConnId>,
    /// By command: what a node has said about it, and until when that holds.
    pub(crate) verdicts: IntMap<u16, (u64, CheckResult)>,
}

impl Realm {
    /// Slotway's own user in another database. Its credentials are those of the configuration.
    fn of_database(now: u64) -> Realm {
        Realm {
            who: Credentials { user: (*b"").into(), password: (*b"").into() },
            clients: 0,
            idle_since: now,
            looked_at: false,
            looking: false,
            doubted: false,
            // Nobody is it by logging in, and no node is asked about it.
            dead: true,
            shared: IntMap::default(),
            verdicts: IntMap::default(),
        }
    }
}

/// Where a connection stands in [`Realm::shared`]: its node, and its protocol and whether it is for
/// large transfers as one number.
pub(crate) fn place(node: NodeId, protocol: Protocol, bulk: bool) -> (NodeId, u8) {
    (node, protocol as u8 | u8::from(bulk) << 1)
}
