//! Looks at whether clients may still do what they do.

use crate::access::Access;
use crate::common::Core;
use crate::common::clock::{Job, Timer};
use crate::mailbox::{ToControl, UserRecheck};
use crate::users::SubscribedTopic;

/// How often what users hear is looked at, microseconds; for each topic a little longer.
const EVERY: u64 = 3_000_000;
const PER_TOPIC: u64 = 100;

/// The rounds.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    pub(crate) armed: bool,
    pub(crate) rounds: u32,
}

impl Access {
    /// There are users of the cluster: they are looked at from time to time.
    pub(crate) fn arm_looks(&mut self, topics: u64, core: &mut Core) {
        if !self.realms.is_empty() && !std::mem::replace(&mut self.looks.armed, true) {
            let due = core.now + EVERY + PER_TOPIC * topics;
            core.clock.timers.push(Timer { due, job: Job::Looks });
        }
    }

    /// A node has refused the user: if the others do as well it is gone.
    pub(crate) fn doubt_realm(&mut self, realm: u16, core: &mut Core) {
        self.look_at_realm(realm, true, Vec::new(), core);
    }

    pub(crate) fn look_at_realm(
        &mut self,
        number: u16,
        password: bool,
        topics: Vec<SubscribedTopic>,
        core: &mut Core,
    ) {
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
        let look = UserRecheck { realm: number, who, password, topics, to: core.link.own.clone() };
        // Control may be gone at the very end.
        let _ = core.link.control.send(ToControl::UserRecheck(Box::new(look)));
    }
}
