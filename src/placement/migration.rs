//! What is known of a slot's migration from one node to another.

use crate::cluster::NodeAddr;

use super::Refusal;

/// Least time between two questions where a slot is being migrated to, microseconds.
const PROBE_PAUSE: u64 = 1_000_000;

/// What is known of the migration of one held slot.
#[derive(Debug, Default)]
pub struct Migration {
    to: Option<NodeAddr>,
    /// Earliest time of the next question, microseconds.
    next_probe: u64,
}

impl Migration {
    /// The node that the slot is being migrated to, once one is known.
    pub fn to(&self) -> Option<&NodeAddr> {
        self.to.as_ref()
    }

    /// The slot is being migrated to this node.
    pub fn leads_to(&mut self, addr: NodeAddr) {
        self.to = Some(addr);
    }

    /// Whether the node may be asked where the slot is being migrated to: once in a while.
    pub fn may_be_probed(&self, now: u64) -> bool {
        now >= self.next_probe
    }

    /// It is being asked.
    pub fn probed(&mut self, now: u64) {
        self.next_probe = now + PROBE_PAUSE;
    }
}

/// What a refusal says of its slot's migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationNews<'a> {
    /// It goes on, to this node.
    To(&'a NodeAddr),
    /// It is over.
    Over,
    /// Nothing.
    None,
}

impl<'a> MigrationNews<'a> {
    /// Of this refusal.
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
        assert!(migration.may_be_probed(0));
        migration.probed(5);
        assert!(!migration.may_be_probed(5 + PROBE_PAUSE - 1));
        assert!(migration.may_be_probed(5 + PROBE_PAUSE));
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
