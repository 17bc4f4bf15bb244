//! Users of the cluster: their connections, which carry the commands of all clients of the same
//! user, so that a node applies its own rules.
//!
//! A **realm** is a user and its password; its number stands in everything that is under way
//! ([`crate::upstream::Pending::realm`]), so that a command that is sent again, elsewhere or later,
//! travels with the rights of its user also when its client has gone. Numbers are given in turn:
//! one that comes again has been out of use for 65,000 others. Number 0 ([`OWN_REALM`]) is slotway's own
//! user, for everything else.

use crate::access::realms::Realm;
use crate::base::{Base, base};
use crate::dispatch::Dispatcher;
use crate::hash::IntMap;
use crate::operations::gatherings::NOBODYS;
use crate::users::{Credentials, OWN_REALM, database_of, database_realm};

/// A user has no more passwords in use: who may be somebody with any is not to take all places.
const PASSWORDS: usize = 8;

impl Dispatcher<'_> {
    /// The realm of these credentials, which a node has found right. `None`: there are too many.
    pub(super) fn realm_for(&mut self, who: Credentials) -> Option<u16> {
        if let Some((number, _)) =
            self.engine.access.realms.iter().find(|(_, r)| !r.dead && r.who == who)
        {
            return Some(*number);
        }
        let same: Vec<u16> = self.realms_of(&who.user).collect();
        let too_like = same.len() >= PASSWORDS;
        if !self.has_room_for_realm(too_like.then_some(&same)) {
            return None;
        }
        let taken = |number: &u16| {
            database_of(*number).is_some()
                || *number == NOBODYS
                || self.engine.access.realms.contains_key(number)
        };
        let mut next = self.engine.access.next_realm.wrapping_add(1);
        while taken(&next) {
            next = next.wrapping_add(1);
        }
        self.engine.access.next_realm = next;
        let realm = Realm {
            who,
            clients: 0,
            idle_since: self.engine.core.now,
            looked_at: false,
            looking: false,
            doubted: false,
            dead: false,
            shared: IntMap::default(),
            verdicts: IntMap::default(),
        };
        self.engine.access.realms.insert(next, realm);
        self.engine.access.realm_later(next, &mut self.engine.core);
        self.engine.access.arm_looks(0, &mut self.engine.core);
        Some(next)
    }

    /// Whether there may be one more realm, of a user or a database. At the limit, or in place of
    /// one of `these`, one that nobody is left of makes room.
    pub(super) fn has_room_for_realm(&mut self, these: Option<&[u16]>) -> bool {
        let core = &self.engine.core;
        let limit = core.settings.users.min(core.shared.max_users());
        let realms = &self.engine.access.realms;
        if these.is_none() && realms.len() < limit {
            return true;
        }
        let may_go = |number: &u16| these.is_none_or(|these| these.contains(number));
        let unused = realms.iter().filter(|(n, realm)| realm.clients == 0 && may_go(n));
        let oldest = unused.min_by_key(|(_, realm)| realm.idle_since).map(|(n, _)| *n);
        oldest.is_some_and(|number| base!(self.engine).close_realm(number))
    }

    /// Whether the client may use database `database`: at the limit only one that others use.
    pub(super) fn may_select(&mut self, database: u16) -> bool {
        let realm = database_realm(database);
        realm == OWN_REALM
            || self.engine.access.realms.contains_key(&realm)
            || self.has_room_for_realm(None)
    }

    fn realms_of<'a>(&'a self, user: &'a [u8]) -> impl Iterator<Item = u16> + 'a {
        let of = |realm: &Realm| !realm.dead && *realm.who.user == *user;
        self.engine
            .access
            .realms
            .iter()
            .filter(move |(_, realm)| of(realm))
            .map(|(number, _)| *number)
    }
}
