//! The known target of a slot's migration, and when to probe for it.

use crate::cluster::NodeAddr;

use super::{Micros, Moment, Refusal};

/// Minimum interval between two probes for a migration's target.
const PROBE_PAUSE: Micros = Micros(1_000_000);

/// The migration of one held slot.
#[derive(Debug, Default)]
pub struct Migration {
    to: Option<NodeAddr>,
    /// Earliest time of the next probe.
    next_probe: Moment,
}

impl Migration {
    /// The node that is importing the slot, if known.
    pub fn to(&self) -> Option<&NodeAddr> {
        self.to.as_ref()
    }

    /// Records the node that is importing the slot.
    pub fn leads_to(&mut self, addr: NodeAddr) {
        self.to = Some(addr);
    }

    /// Whether the target may be probed for at `now`: at most once a second.
    pub fn may_be_probed(&self, now: Moment) -> bool {
        now >= self.next_probe
    }

    /// Records a probe at `now`.
    pub fn probed(&mut self, now: Moment) {
        self.next_probe = now + PROBE_PAUSE;
    }
}

/// What a refusal says about its slot's migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationNews<'a> {
    /// The slot is being imported by this node.
    To(&'a NodeAddr),
    /// The migration is over.
    Over,
    /// The refusal does not tell.
    None,
}

impl<'a> MigrationNews<'a> {
    /// Reads the news from a refusal: ASK names the target, MOVED ends the migration.
    pub fn of(refusal: &'a Refusal) -> MigrationNews<'a> {
        match refusal {
            Refusal::Ask(_, addr) => MigrationNews::To(addr),
            Refusal::Moved(..) => MigrationNews::Over,
            Refusal::Later(_) => MigrationNews::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Redirection;
    use super::*;
    use crate::cluster::Slot;

    fn node() -> NodeAddr {
        NodeAddr { host: "n".into(), port: 1 }
    }

    #[test]
    fn a_migration_begins_without_a_target() {
        assert_eq!(Migration::default().to(), None);
    }

    #[test]
    fn the_target_is_kept() {
        let mut migration = Migration::default();
        migration.leads_to(node());
        assert_eq!(migration.to(), Some(&node()));
    }

    #[test]
    fn a_target_is_asked_for_once_a_second() {
        let mut migration = Migration::default();
        assert!(migration.may_be_probed(Moment(0)));
        migration.probed(Moment(5));
        assert!(!migration.may_be_probed(Moment(5 + PROBE_PAUSE.0 - 1)));
        assert!(migration.may_be_probed(Moment(5) + PROBE_PAUSE));
    }

    #[test]
    fn ask_names_the_target() {
        let refusal = Refusal::Ask(Slot(1), node());
        assert_eq!(MigrationNews::of(&refusal), MigrationNews::To(&node()));
    }

    #[test]
    fn moved_is_the_end() {
        assert_eq!(MigrationNews::of(&Refusal::Moved(Slot(1), node())), MigrationNews::Over);
    }

    #[test]
    fn tryagain_says_nothing_of_the_target() {
        let refusal = Refusal::Later(Redirection::TryAgain);
        assert_eq!(MigrationNews::of(&refusal), MigrationNews::None);
    }
}
