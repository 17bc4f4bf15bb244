//! The node of each slot. A slot's *owner* is its primary in the latest topology or redirection;
//! its *route* is where its next command goes: to the owner, or nowhere while the slot is held.

use crate::cluster::{SLOTS, Slot};
use crate::dest::NodeId;
use crate::hash::IntMap;

use super::migration::Migration;
use super::policy::GateClass;
use super::{Held, HoldMeta, Holds, Moment};

/// Why and since when a slot's commands cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// When the outage began.
    pub since: Moment,
    /// Index of the slot's last primary; `None` if it never had one.
    pub primary: Option<NodeId>,
    /// The reason.
    pub cause: OutageCause,
}

/// Why a slot's commands cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutageCause {
    /// The topology has no primary for the slot.
    NoPrimary,
    /// The primary is unreachable.
    NotReached,
    /// The primary refuses the slot's commands with this error text.
    Refused(String),
}

/// One worker's slot table, with the commands that wait for their slots. Nodes are the worker's
/// indexes.
#[derive(Debug)]
pub struct SlotTable<T> {
    /// Per slot, the node that its commands go to; [`NodeId::NONE`] while the slot is held.
    routes: Box<[NodeId]>,
    /// Per slot, its primary, or [`NodeId::NONE`].
    owners: Box<[NodeId]>,
    /// Primaries of shards that own slots, in the order of the topology.
    primaries: Vec<NodeId>,
    /// Per slot without a primary: since when, and its last primary.
    orphans: IntMap<Slot, (Moment, NodeId)>,
    /// Per held slot, the text of the last refusal.
    refusals: IntMap<Slot, String>,
    /// Per held slot, its migration.
    migrations: IntMap<Slot, Migration>,
    /// The commands of held slots.
    pub holds: Holds<T>,
}

impl<T> Default for SlotTable<T> {
    /// A table in which no slot has an owner.
    fn default() -> Self {
        let none = || vec![NodeId::NONE; usize::from(SLOTS)].into();
        SlotTable {
            routes: none(),
            owners: none(),
            primaries: Vec::new(),
            orphans: IntMap::default(),
            refusals: IntMap::default(),
            migrations: IntMap::default(),
            holds: Holds::default(),
        }
    }
}

impl<T: HoldMeta> SlotTable<T> {
    /// The node that the slot's next command goes to; `None` if it has to wait in the slot's hold.
    #[inline]
    pub fn route(&self, slot: Slot) -> Option<NodeId> {
        self.routes.get(slot.at()).and_then(|node| node.known())
    }

    /// The slot's primary, if any. `None` for values that are not slots.
    #[inline]
    pub fn owner(&self, slot: Slot) -> Option<NodeId> {
        self.owners.get(slot.at()).and_then(|node| node.known())
    }

    /// Primaries of shards that own slots, in the order of the topology.
    pub fn primaries(&self) -> &[NodeId] {
        &self.primaries
    }

    /// Number of slots that have a primary.
    pub fn covered(&self) -> usize {
        self.owners.iter().filter(|&&node| node != NodeId::NONE).count()
    }

    /// Sets the owners from a new topology, by slot. The routes follow with
    /// [`SlotTable::set_routes`], once the commands in flight to the old owners are held.
    ///
    /// Refusals of an old owner say nothing about the new one, so the gates of slots with a new
    /// owner are probed at once: without taking from the budget if `is_news`, that is, if the
    /// previous topology had another primary. `unreached` returns since when a node is unreachable.
    pub fn set_owners(
        &mut self,
        owners: impl ExactSizeIterator<Item = Option<NodeId>>,
        primaries: Vec<NodeId>,
        now: Moment,
        is_news: impl Fn(Slot) -> bool,
        unreached: impl Fn(NodeId) -> Option<Moment>,
    ) {
        self.primaries = primaries;
        let mut changed = Vec::new();
        self.grow(owners.len());
        let places = self.owners.iter_mut().zip(Slot::first(usize::MAX));
        for ((place, slot), owner) in places.zip(owners.chain(std::iter::repeat(None))) {
            let owner = owner.unwrap_or(NodeId::NONE);
            let last = std::mem::replace(place, owner);
            if owner != last {
                self.migrations.remove(&slot);
                changed.push(slot);
            }
            if owner != NodeId::NONE {
                self.orphans.remove(&slot);
            } else {
                let since = || unreached(last).unwrap_or(now);
                self.orphans.entry(slot).or_insert_with(|| (since(), last));
            }
        }
        for slot in changed {
            if self.holds.contains(slot) {
                let paid = is_news(slot);
                for class in GateClass::ALL {
                    self.holds.probe_now(slot, class, now, paid);
                }
            }
        }
    }

    /// Makes room for so many slots: of several upstreams there are more than of one cluster.
    fn grow(&mut self, slots: usize) {
        for table in [&mut self.routes, &mut self.owners] {
            if table.len() < slots {
                let mut longer = std::mem::take(table).into_vec();
                longer.resize(slots, NodeId::NONE);
                *table = longer.into();
            }
        }
    }

    /// Routes the slots that are not held to their owners.
    pub fn set_routes(&mut self) {
        for ((route, &owner), slot) in
            self.routes.iter_mut().zip(&self.owners).zip(Slot::first(usize::MAX))
        {
            *route = if self.holds.contains(slot) { NodeId::NONE } else { owner };
        }
    }

    /// Sets the slot's owner after a redirection.
    pub fn moved(&mut self, slot: Slot, node: NodeId) {
        if let Some(owner) = self.owners.get_mut(slot.at()) {
            *owner = node;
        }
    }

    /// Holds the slot, or extends its hold.
    pub fn hold(&mut self, slot: Slot, now: Moment) {
        self.holds.hold(slot, now);
        if let Some(route) = self.routes.get_mut(slot.at()) {
            *route = NodeId::NONE;
        }
    }

    /// Ends the hold of a calm slot and returns its waiting commands and `true`. If commands of the
    /// slot are in flight `elsewhere` (to a node that is not the owner), only lanes without a
    /// command in flight are released, and the slot stays held for the others (`false`).
    pub fn release(&mut self, slot: Slot, elsewhere: bool) -> (Vec<Held<T>>, bool) {
        let (waiting, ended) = match elsewhere {
            true => self.holds.release(slot),
            false => (self.holds.end(slot), true),
        };
        if ended {
            self.refusals.remove(&slot);
            self.migrations.remove(&slot);
            let owner = self.owner(slot).unwrap_or(NodeId::NONE);
            if let Some(route) = self.routes.get_mut(slot.at()) {
                *route = owner;
            }
        }
        (waiting, ended)
    }

    /// Records the text of a refusal of the held slot.
    pub fn refused(&mut self, slot: Slot, text: String) {
        self.refusals.insert(slot, text);
    }

    /// The text of the last refusal of the held slot.
    pub fn last_refusal(&self, slot: Slot) -> Option<&String> {
        self.refusals.get(&slot)
    }

    /// The held slot's migration, if it is known to be migrating.
    pub fn migration(&self, slot: Slot) -> Option<&Migration> {
        self.migrations.get(&slot)
    }

    /// Mutable access to the held slot's migration, which is created if there is none.
    pub fn migration_mut(&mut self, slot: Slot) -> &mut Migration {
        self.migrations.entry(slot).or_default()
    }

    /// Forgets the slot's migration, which is over.
    pub fn migrated(&mut self, slot: Slot) {
        self.migrations.remove(&slot);
    }

    /// Why and since when the slot's commands of `class` cannot be executed; `None` if they can.
    /// `unreached` returns since when a node is unreachable.
    pub fn outage(
        &self,
        slot: Slot,
        class: GateClass,
        unreached: impl Fn(NodeId) -> Option<Moment>,
    ) -> Option<Outage> {
        if let Some(&(since, last)) = self.orphans.get(&slot) {
            let primary = last.known();
            return Some(Outage { since, primary, cause: OutageCause::NoPrimary });
        }
        let primary = self.owner(slot);
        if let Some(since) = primary.and_then(unreached) {
            return Some(Outage { since, primary, cause: OutageCause::NotReached });
        }
        let since = self.holds.closed_since(slot, class)?;
        let said = self.last_refusal(slot).cloned().unwrap_or_default();
        Some(Outage { since, primary, cause: OutageCause::Refused(said) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dest::ClientId;
    use crate::placement::Micros;

    #[derive(Debug)]
    struct Command(GateClass);

    impl HoldMeta for Command {
        fn started(&self) -> Moment {
            Moment(0)
        }

        fn class(&self) -> GateClass {
            self.0
        }
    }

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);
    const LANE: ClientId = ClientId { index: 1, generation: 1 };

    /// A table in which slots 0 to 9 belong to node A and the others to node B.
    fn slots() -> SlotTable<Command> {
        let mut slots = SlotTable::default();
        give(&mut slots, 10, Moment(0));
        slots
    }

    fn give(slots: &mut SlotTable<Command>, first: usize, now: Moment) {
        let owners = (0..usize::from(SLOTS)).map(|slot| Some(if slot < first { A } else { B }));
        slots.set_owners(owners, vec![A, B], now, |_| true, |_| None);
        slots.set_routes();
    }

    /// Takes away every slot's primary.
    fn orphan(slots: &mut SlotTable<Command>, now: Moment, unreached: Option<Moment>) {
        slots.set_owners(std::iter::empty(), Vec::new(), now, |_| true, |_| unreached);
        slots.set_routes();
    }

    fn command() -> Held<Command> {
        Held { meta: Command(GateClass::Write), frame: vec![0] }
    }

    #[test]
    fn without_a_topology_no_slot_has_an_owner() {
        let slots: SlotTable<Command> = SlotTable::default();
        assert_eq!((slots.route(Slot(0)), slots.owner(Slot(0)), slots.covered()), (None, None, 0));
    }

    #[test]
    fn commands_go_to_owners() {
        let slots = slots();
        assert_eq!((slots.route(Slot(9)), slots.route(Slot(10))), (Some(A), Some(B)));
        assert_eq!((slots.owner(Slot(9)), slots.owner(Slot(16_383))), (Some(A), Some(B)));
        assert_eq!(slots.covered(), usize::from(SLOTS));
        assert_eq!(slots.primaries(), [A, B]);
    }

    #[test]
    fn what_is_no_slot_has_no_owner() {
        let slots = slots();
        assert_eq!((slots.route(Slot::NONE), slots.owner(Slot(SLOTS))), (None, None));
    }

    #[test]
    fn a_held_slot_has_an_owner_and_no_route() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        assert_eq!((slots.route(Slot(9)), slots.owner(Slot(9))), (None, Some(A)));
        assert_eq!(slots.route(Slot(8)), Some(A));
    }

    #[test]
    fn a_redirection_changes_the_owner_and_no_route() {
        let mut slots = slots();
        slots.moved(Slot(9), B);
        assert_eq!((slots.route(Slot(9)), slots.owner(Slot(9))), (Some(A), Some(B)));
    }

    #[test]
    fn a_redirection_of_no_slot_changes_nothing() {
        let mut slots = slots();
        slots.moved(Slot::NONE, B);
        assert_eq!(slots.owner(Slot(0)), Some(A));
    }

    #[test]
    fn a_calm_slot_has_its_new_owner_as_its_route() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        slots.moved(Slot(9), B);
        let (waiting, ended) = slots.release(Slot(9), false);
        assert!(waiting.is_empty() && ended);
        assert_eq!(slots.route(Slot(9)), Some(B));
    }

    #[test]
    fn a_slot_with_commands_elsewhere_stays_held_for_them() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        slots.holds.track(Slot(9), LANE);
        slots.refused(Slot(9), "TRYAGAIN".into());
        let (_, ended) = slots.release(Slot(9), true);
        assert!(!ended);
        assert_eq!(slots.route(Slot(9)), None);
        assert!(slots.last_refusal(Slot(9)).is_some());
    }

    #[test]
    fn what_waited_goes_when_the_hold_ends() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        slots.holds.push_fresh(Slot(9), LANE, command());
        let (waiting, ended) = slots.release(Slot(9), false);
        assert_eq!((waiting.len(), ended), (1, true));
    }

    #[test]
    fn the_end_of_a_hold_forgets_its_refusal() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        slots.refused(Slot(9), "CLUSTERDOWN".into());
        slots.release(Slot(9), false);
        assert_eq!(slots.last_refusal(Slot(9)), None);
    }

    #[test]
    fn the_end_of_a_hold_forgets_its_migration() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        slots.migration_mut(Slot(9));
        slots.release(Slot(9), false);
        assert!(slots.migration(Slot(9)).is_none());
    }

    #[test]
    fn a_new_topology_leaves_held_slots_held() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        give(&mut slots, 5, Moment(6));
        assert_eq!((slots.route(Slot(9)), slots.owner(Slot(9))), (None, Some(B)));
        assert_eq!(slots.route(Slot(8)), Some(B));
    }

    #[test]
    fn routes_follow_when_they_are_told_to() {
        let mut slots = slots();
        let all = std::iter::repeat_n(Some(B), usize::from(SLOTS));
        slots.set_owners(all, vec![B], Moment(6), |_| true, |_| None);
        assert_eq!((slots.route(Slot(0)), slots.owner(Slot(0))), (Some(A), Some(B)));
        slots.set_routes();
        assert_eq!(slots.route(Slot(0)), Some(B));
    }

    #[test]
    fn a_slot_that_changes_hands_is_not_migrating_any_more() {
        let mut slots = slots();
        slots.migration_mut(Slot(9));
        slots.migration_mut(Slot(4));
        give(&mut slots, 5, Moment(6));
        assert!(slots.migration(Slot(9)).is_none());
        assert!(slots.migration(Slot(4)).is_some(), "its owner is the same");
    }

    #[test]
    fn a_new_owner_is_probed_at_once() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        slots.holds.push_fresh(Slot(9), LANE, command());
        assert!(slots.holds.close(Slot(9), GateClass::Write, Moment(5), |_| Micros(1_000)));
        assert!(slots.holds.wait_at_gate(Slot(9), GateClass::Write, LANE));
        let next = |slots: &mut SlotTable<Command>| {
            slots.holds.gate_next(Slot(9), GateClass::Write, Moment(6), |_| false)
        };
        assert_eq!(next(&mut slots), super::super::GateNext::At(Moment(1_005)));
        give(&mut slots, 10, Moment(6));
        assert_eq!(next(&mut slots), super::super::GateNext::At(Moment(1_005)), "the same owner");
        give(&mut slots, 5, Moment(6));
        let go = super::super::GateNext::Try { lane: LANE, paid: true };
        assert_eq!(next(&mut slots), go);
    }

    #[test]
    fn a_probe_of_what_was_known_needs_budget() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        slots.holds.push_fresh(Slot(9), LANE, command());
        slots.holds.close(Slot(9), GateClass::Write, Moment(5), |_| Micros(1_000));
        slots.holds.wait_at_gate(Slot(9), GateClass::Write, LANE);
        let all = std::iter::repeat_n(Some(B), usize::from(SLOTS));
        slots.set_owners(all, vec![B], Moment(6), |_| false, |_| None);
        let go = super::super::GateNext::Try { lane: LANE, paid: false };
        assert_eq!(slots.holds.gate_next(Slot(9), GateClass::Write, Moment(6), |_| false), go);
    }

    fn cause(
        slots: &SlotTable<Command>,
        class: GateClass,
        unreached: Option<Moment>,
    ) -> Option<OutageCause> {
        slots.outage(Slot(9), class, |_| unreached).map(|outage| outage.cause)
    }

    #[test]
    fn a_slot_with_a_primary_that_is_reached_has_no_outage() {
        assert_eq!(slots().outage(Slot(9), GateClass::Write, |_| None), None);
    }

    #[test]
    fn an_orphan_is_one_since_it_lost_its_primary() {
        let mut slots = slots();
        orphan(&mut slots, Moment(70), None);
        orphan(&mut slots, Moment(90), None);
        let outage = slots.outage(Slot(9), GateClass::Write, |_| None).unwrap();
        assert_eq!(
            outage,
            Outage { since: Moment(70), primary: Some(A), cause: OutageCause::NoPrimary }
        );
    }

    #[test]
    fn an_orphan_whose_primary_was_not_reached_is_one_since_then() {
        let mut slots = slots();
        orphan(&mut slots, Moment(70), Some(Moment(30)));
        assert_eq!(slots.outage(Slot(9), GateClass::Read, |_| None).unwrap().since, Moment(30));
    }

    #[test]
    fn a_slot_that_never_had_a_primary_names_none() {
        let mut slots: SlotTable<Command> = SlotTable::default();
        orphan(&mut slots, Moment(70), None);
        assert_eq!(slots.outage(Slot(9), GateClass::Read, |_| None).unwrap().primary, None);
    }

    #[test]
    fn an_orphan_with_a_new_primary_is_none() {
        let mut slots = slots();
        orphan(&mut slots, Moment(70), None);
        give(&mut slots, 10, Moment(80));
        assert_eq!(cause(&slots, GateClass::Write, None), None);
    }

    #[test]
    fn a_primary_that_is_not_reached_is_an_outage() {
        let outage = slots().outage(Slot(9), GateClass::Write, |_| Some(Moment(30))).unwrap();
        assert_eq!(
            outage,
            Outage { since: Moment(30), primary: Some(A), cause: OutageCause::NotReached }
        );
    }

    #[test]
    fn a_slot_that_is_refused_is_an_outage_for_what_is_refused() {
        let mut slots = slots();
        slots.hold(Slot(9), Moment(5));
        slots.holds.close(Slot(9), GateClass::Write, Moment(5), |_| Micros(1_000));
        slots.refused(Slot(9), "CLUSTERDOWN".into());
        let refused = Some(OutageCause::Refused("CLUSTERDOWN".into()));
        assert_eq!(cause(&slots, GateClass::Write, None), refused);
        assert_eq!(cause(&slots, GateClass::Read, None), None);
        assert_eq!(cause(&slots, GateClass::Write, Some(Moment(1))), Some(OutageCause::NotReached));
    }
}
