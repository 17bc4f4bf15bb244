//! Users of the cluster lose their rights while their clients are here: what nodes cannot take from
//! them is taken here. A server closes who hears what it may not hear any more, and everybody whose
//! user is deleted; here nodes are asked about that every few seconds, and when one refuses a user.

use super::Worker;
use super::clock::{Job, Timer};
use super::state::{Access, Base, Core};
use crate::hash::{IntMap, IntSet};
use crate::mailbox::Look;
use crate::mailbox::ToControl;
use crate::users::{Heard, Looked, OWN};

/// How often what users hear is looked at, microseconds; for each topic a little longer.
const EVERY: u64 = 3_000_000;
const PER_TOPIC: u64 = 100;
/// In every so many of these rounds the password is asked about as well: a user that was deleted and
/// made anew in between has another.
const PASSWORD: u32 = 10;

/// The rounds.
#[derive(Debug, Default)]
pub(super) struct Looks {
    armed: bool,
    rounds: u32,
}

impl Access {
    /// There are users of the cluster: they are looked at from time to time.
    pub(super) fn arm_looks(&mut self, topics: u64, core: &mut Core) {
        if !self.realms.is_empty() && !std::mem::replace(&mut self.looks.armed, true) {
            let due = core.now + EVERY + PER_TOPIC * topics;
            core.clock.timers.push(Timer { due, job: Job::Looks });
        }
    }

    /// A node has refused the user: if the others do as well it is gone.
    pub(super) fn doubt_realm(&mut self, realm: u16, core: &mut Core) {
        self.look_at_realm(realm, true, Vec::new(), core);
    }

    fn look_at_realm(&mut self, number: u16, password: bool, topics: Vec<Heard>, core: &mut Core) {
        let Some(realm) = self.realms.get_mut(&number) else { return };
        if realm.dead {
            return;
        }
        if realm.looking {
            realm.doubted |= password;
            return;
        }
        realm.looking = true;
        let who = realm.who.clone();
        let look = Look { realm: number, who, password, topics, to: core.link.own.clone() };
        // Control may be gone at the very end.
        let _ = core.link.control.send(ToControl::Look(Box::new(look)));
    }
}

impl Base<'_> {
    /// One round: those that hear something. The others' commands are seen by nodes.
    pub(super) fn look_at_realms(&mut self) {
        self.access.looks.armed = false;
        self.access.looks.rounds = self.access.looks.rounds.wrapping_add(1);
        let password = self.access.looks.rounds.is_multiple_of(PASSWORD);
        let mut heard: IntMap<u16, IntSet<u32>> = IntMap::default();
        for (_, client) in &self.clients.slab {
            let (Some(account), Some(subscriptions)) =
                (&client.session.account, &client.subscriptions)
            else {
                continue;
            };
            if account.realm != OWN && !client.gone {
                heard.entry(account.realm).or_default().extend(subscriptions.topics.keys());
            }
        }
        let all = heard.values().map(|topics| topics.len() as u64).sum();
        for (realm, topics) in heard {
            let topics = topics.into_iter().filter_map(|index| {
                let local = self.subscribers.topics.local.get(index as usize)?;
                let place = (index, local.generation);
                Some(Heard { kind: local.kind, name: local.name.clone(), place })
            });
            let topics = topics.collect();
            self.access.look_at_realm(realm, password, topics, self.core);
        }
        self.access.arm_looks(all, self.core);
    }

    /// The answer.
    pub(super) fn looked(&mut self, looked: &Looked) {
        let Some(realm) = self.access.realms.get_mut(&looked.realm) else { return };
        realm.looking = false;
        let doubted = std::mem::take(&mut realm.doubted);
        let mut close: Vec<usize> = Vec::new();
        if looked.gone {
            realm.dead = true;
            close.extend(self.clients.slab.iter().map(|(index, _)| index));
        } else if doubted {
            self.access.doubt_realm(looked.realm, self.core);
        }
        for &(index, generation) in &looked.denied {
            let local = self.subscribers.topics.local.get(index as usize);
            let local = local.filter(|local| local.generation == generation);
            let subscribers = local.into_iter().flat_map(|local| &local.subscribers);
            close.extend(subscribers.map(|subscriber| subscriber.client as usize));
        }
        close.retain(|index| self.clients.realm_of(*index) == looked.realm);
        for index in close {
            let Some(client) = self.clients.slab.get(index) else { continue };
            let hears = client.subscriptions.is_some() || client.lent.is_some();
            match hears || !looked.gone || client.is_drained() {
                true => self.clients.close(index, self.core),
                // What it waits for is answered first.
                false => self.clients.stop_reading(index, self.core),
            }
        }
    }
}
