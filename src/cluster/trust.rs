//! Decides whether a node's view of the cluster replaces the one in use. No I/O.
//!
//! A cluster has no name. It is recognized by its nodes' IDs, which survive restarts and changes of
//! address: a view belongs to the cluster in use if it has most of the nodes known so far.
//! [`judge`] looks at one reply; [`decide`] at all replies of a round, if no single one was
//! sufficient; [`first`] at the replies of the first round, when there is nothing to compare with.

use std::collections::HashSet;

use thiserror::Error;

use super::{Info, Slot, Snapshot, listed};

/// The view in use.
#[derive(Debug, Clone, Copy)]
pub struct InUse<'a> {
    /// The topology.
    pub snapshot: &'a Snapshot,
    /// The cluster's epoch as known to the node that gave the view.
    pub epoch: u64,
}

/// A node's reply.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The ID of the node that answered.
    pub witness: &'a str,
    /// The node's state and the epoch that it knows.
    pub info: Info,
    /// The topology as the node sees it.
    pub snapshot: &'a Snapshot,
}

/// The verdict on a single reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewVerdict {
    /// The view replaces the one in use.
    Adopt,
    /// Other nodes have to confirm the view first.
    NeedWitness(Doubt),
    /// The view is not used.
    Reject(RejectReason),
}

/// Why a view needs the confirmation of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Doubt {
    /// Most nodes of the view in use are missing.
    #[error("has only {kept} of the {of} other nodes known so far")]
    FewKnown {
        /// Nodes of the view in use that are in this view, without the witness.
        kept: usize,
        /// Nodes of the view in use, without the witness.
        of: usize,
    },
    /// Slots that have a primary in the view in use have none in this one.
    #[error("has no primary for {0} slots that have one in the view in use")]
    LosesSlots(usize),
    /// The node reports that the cluster is not ok.
    #[error("is in cluster_state:fail")]
    Failing,
}

/// Why a view is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RejectReason {
    /// The node knows no slots, because it was reset or has not joined a cluster yet.
    #[error("knows no slots")]
    NoSlots,
    /// The view has no node of the view in use.
    #[error("belongs to another cluster: it knows none of the nodes in use")]
    Foreign,
    /// The node does not know an epoch that the view in use knows.
    #[error("is older than the view in use (epoch {epoch}, not {known})")]
    Older {
        /// Epoch of this view.
        epoch: u64,
        /// Epoch of the view in use.
        known: u64,
    },
}

impl RejectReason {
    /// Number of label values: the reasons, and views that no other node confirmed.
    pub const LABELS: usize = 4;
    /// Label values of the metric, indexed by [`RejectReason::label`]; the last one is for unresolved
    /// [`Doubt`]s.
    pub const NAMES: [&'static str; Self::LABELS] = ["no_slots", "foreign", "older", "unconfirmed"];

    /// Index of the reason in [`RejectReason::NAMES`].
    pub fn label(self) -> usize {
        match self {
            RejectReason::NoSlots => 0,
            RejectReason::Foreign => 1,
            RejectReason::Older { .. } => 2,
        }
    }
}

/// The rule by which a view was adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdoptionRule {
    /// It continues the view in use.
    Continued,
    /// It is older, but most nodes agree on it and no node knows a newer one: the cluster was
    /// restored from an older state.
    Restored,
    /// It has no known node, but they are all gone, and all seeds agree: the cluster was replaced.
    Replaced,
}

impl AdoptionRule {
    /// Label values of the metric, indexed by discriminant; [`AdoptionRule::Continued`] is not counted.
    pub const NAMES: [&'static str; 3] = ["continued", "restored", "replaced"];
}

/// State of a round of replies at its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundEnd {
    /// No view has been adopted for so long that the exceptional rules apply.
    pub patience_over: bool,
    /// All seeds have answered.
    pub all_seeds_answered: bool,
}

/// Two seeds that report different clusters, as indices of their replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disagreement(pub usize, pub usize);

fn ids(snapshot: &Snapshot) -> HashSet<&str> {
    snapshot.nodes.iter().map(|node| &*node.id).collect()
}

/// Whether two views show the same cluster: most nodes of the smaller one are in the other.
pub(super) fn is_same_cluster(a: &Snapshot, b: &Snapshot) -> bool {
    let (a, b) = (ids(a), ids(b));
    a.intersection(&b).count() * 2 > a.len().min(b.len())
}

/// The overlap of a view with the view in use. The witness itself does not count: a node that was
/// reset and has joined another cluster keeps its ID.
struct Overlap {
    kept: usize,
    of: usize,
    /// The witness is a node of the view in use.
    known_witness: bool,
    /// The view assigns slots to nodes that are not in the view in use.
    unknown_nodes_own_slots: bool,
}

impl Overlap {
    fn of(in_use: &InUse, view: &View) -> Overlap {
        let (known, seen) = (ids(in_use.snapshot), ids(view.snapshot));
        let others = known.iter().filter(|id| **id != view.witness);
        let owners = view.snapshot.slot_primaries();
        Overlap {
            kept: others.clone().filter(|id| seen.contains(*id)).count(),
            of: others.count(),
            known_witness: known.contains(view.witness),
            unknown_nodes_own_slots: owners.iter().any(|node| !known.contains(&*node.id)),
        }
    }

    fn is_majority(&self) -> bool {
        self.kept * 2 > self.of || (self.of == 0 && self.known_witness)
    }

    fn is_foreign(&self) -> bool {
        let shrunk = self.known_witness && !self.unknown_nodes_own_slots;
        self.kept == 0 && !self.is_majority() && !shrunk
    }
}

/// The slots that have a primary in `before` but not in `after`.
fn lost_slots(before: &Snapshot, after: &Snapshot) -> Vec<Slot> {
    let lost =
        |slot: &Slot| before.primary_of(*slot).is_some() && after.primary_of(*slot).is_none();
    before.each_slot().filter(lost).collect()
}

/// Judges one view against the view in use, which covers slots.
pub fn judge(in_use: &InUse, view: &View) -> ViewVerdict {
    if view.snapshot.slots_covered() == 0 {
        return ViewVerdict::Reject(RejectReason::NoSlots);
    }
    let overlap = Overlap::of(in_use, view);
    if overlap.is_foreign() {
        return ViewVerdict::Reject(RejectReason::Foreign);
    }
    if view.info.epoch < in_use.epoch {
        let (epoch, known) = (view.info.epoch, in_use.epoch);
        return ViewVerdict::Reject(RejectReason::Older { epoch, known });
    }
    if !overlap.is_majority() {
        return ViewVerdict::NeedWitness(Doubt::FewKnown { kept: overlap.kept, of: overlap.of });
    }
    let lost = lost_slots(in_use.snapshot, view.snapshot).len();
    if lost > 0 {
        return ViewVerdict::NeedWitness(Doubt::LosesSlots(lost));
    }
    if view.info.state_ok { ViewVerdict::Adopt } else { ViewVerdict::NeedWitness(Doubt::Failing) }
}

/// Whether other views confirm `view`, which [`judge`] doubted. `views`: all of them, judged.
fn is_confirmed(in_use: &InUse, view: &View, views: &[(&View, ViewVerdict)]) -> bool {
    let overlap = Overlap::of(in_use, view);
    let known = ids(in_use.snapshot);
    let accepted = |other: &(&View, ViewVerdict)| {
        !matches!(other.1, ViewVerdict::Reject(_))
            && is_same_cluster(view.snapshot, other.0.snapshot)
    };
    let agreed: Vec<&View> = views.iter().filter(|v| accepted(v)).map(|v| v.0).collect();
    if !overlap.is_majority() {
        let witnesses = |views: &mut dyn Iterator<Item = &View>| {
            let known: HashSet<&str> =
                views.map(|v| v.witness).filter(|id| known.contains(id)).collect();
            known.len()
        };
        let in_a_cluster =
            views.iter().filter(|v| v.1 != ViewVerdict::Reject(RejectReason::NoSlots));
        let all = witnesses(&mut in_a_cluster.map(|v| v.0));
        let agreeing = witnesses(&mut agreed.iter().copied());
        let several = agreeing >= 2 && agreeing * 2 > all;
        // The last node of a cluster that was scaled down to it.
        let alone =
            agreeing == 1 && all == 1 && overlap.known_witness && !overlap.unknown_nodes_own_slots;
        if !several && !alone {
            return false;
        }
        if alone {
            return true;
        }
    }
    let lost = lost_slots(in_use.snapshot, view.snapshot);
    let agrees = |other: &&View| {
        other.witness != view.witness
            && lost.iter().all(|slot| other.snapshot.primary_of(*slot).is_none())
    };
    lost.is_empty() || overlap.of == 0 || agreed.iter().any(agrees)
}

/// Chooses among views none of which [`judge`] has adopted: the index of the one to adopt, and the
/// rule; `None` keeps the view in use.
pub fn decide(in_use: &InUse, views: &[View], end: &RoundEnd) -> Option<(usize, AdoptionRule)> {
    let judged: Vec<(&View, ViewVerdict)> = views.iter().map(|v| (v, judge(in_use, v))).collect();
    let confirmed = |&i: &usize| {
        judged.get(i).is_some_and(|(view, verdict)| match verdict {
            ViewVerdict::Adopt => true,
            ViewVerdict::NeedWitness(_) => is_confirmed(in_use, view, &judged),
            ViewVerdict::Reject(_) => false,
        })
    };
    let confirmed: Vec<usize> = (0..views.len()).filter(confirmed).collect();
    if let Some(best) = best_supported(in_use, views, &confirmed) {
        return Some((best, AdoptionRule::Continued));
    }
    if !end.patience_over {
        return None;
    }
    let known = ids(in_use.snapshot);
    let is_known = |view: &View| known.contains(view.witness);
    let older = |&i: &usize| {
        judged.get(i).is_some_and(|(view, verdict)| {
            matches!(verdict, ViewVerdict::Reject(RejectReason::Older { .. }))
                && is_known(view)
                && Overlap::of(in_use, view).is_majority()
        })
    };
    let restored: Vec<usize> = (0..views.len()).filter(older).collect();
    let witnesses: HashSet<&str> =
        restored.iter().filter_map(|&i| views.get(i)).map(|view| view.witness).collect();
    if witnesses.len() * 2 > known.len() {
        return best(views, restored.into_iter()).map(|i| (i, AdoptionRule::Restored));
    }
    replacement(views, end, is_known).map(|i| (i, AdoptionRule::Replaced))
}

/// The best view of a cluster that has replaced the one in use: all known nodes are gone, all seeds
/// have answered and agree, and at least two nodes vouch for it.
fn replacement(views: &[View], end: &RoundEnd, is_known: impl Fn(&View) -> bool) -> Option<usize> {
    if !end.all_seeds_answered || views.iter().any(is_known) {
        return None;
    }
    let best = best(views, 0..views.len())?;
    let view = views.get(best)?;
    let agree = views.iter().all(|other| is_same_cluster(view.snapshot, other.snapshot));
    let witnesses: HashSet<&str> = views.iter().map(|v| v.witness).collect();
    (agree && witnesses.len() >= 2 && view.info.state_ok && view.snapshot.covered()).then_some(best)
}

/// Chooses among the views of the first round.
///
/// # Errors
/// The seeds report two clusters, and nothing tells which one is meant.
pub fn first(views: &[View]) -> Result<Option<usize>, Disagreement> {
    let with_slots = |&i: &usize| views.get(i).is_some_and(|v| v.snapshot.slots_covered() > 0);
    let Some(best_of) = best(views, (0..views.len()).filter(with_slots)) else {
        return Ok(best(views, 0..views.len()));
    };
    let Some(view) = views.get(best_of) else { return Ok(None) };
    let other = (0..views.len()).filter(with_slots).find(|&i| {
        views.get(i).is_some_and(|other| !is_same_cluster(view.snapshot, other.snapshot))
    });
    match other {
        Some(other) => Err(Disagreement(best_of, other)),
        None => Ok(Some(best_of)),
    }
}

/// The best of the views that continue the view in use: the one with the newest epoch, and among
/// those the one whose lost slots most nodes agree on. A primary that has come back believes for a
/// moment that it still is one.
fn best_supported(in_use: &InUse, views: &[View], among: &[usize]) -> Option<usize> {
    let views = among.iter().filter_map(|&i| views.get(i).map(|view| (i, view)));
    let views: Vec<(usize, &View, Vec<Slot>)> =
        views.map(|(i, view)| (i, view, lost_slots(in_use.snapshot, view.snapshot))).collect();
    let rank = |(_, view, lost): &&(usize, &View, Vec<Slot>)| {
        let agreeing = views.iter().filter(|(_, _, other)| other == lost).count();
        (view.info.state_ok, view.info.epoch, agreeing)
    };
    // The first of equals.
    views.iter().rev().max_by_key(rank).map(|(i, ..)| *i)
}

/// The minimum epoch of later views once the view at `index` is in use: its own epoch if its node
/// is in state ok, otherwise the newest that it and another node know.
pub fn confirmed_epoch(views: &[View], index: usize) -> u64 {
    let Some(view) = views.get(index) else { return 0 };
    if view.info.state_ok {
        return view.info.epoch;
    }
    let others = views.iter().filter(|other| {
        other.witness != view.witness && is_same_cluster(view.snapshot, other.snapshot)
    });
    others.map(|other| other.info.epoch.min(view.info.epoch)).max().unwrap_or(0)
}

fn best(views: &[View], among: impl Iterator<Item = usize>) -> Option<usize> {
    let rank = |i: &usize| {
        views.get(*i).map(|v| (v.info.state_ok, v.info.epoch, v.snapshot.slots_covered()))
    };
    // The first of equals.
    among.collect::<Vec<_>>().into_iter().rev().max_by_key(rank)
}

/// A short description of the cluster in a view, to distinguish it from another.
pub fn cluster_name(snapshot: &Snapshot) -> String {
    let primaries = snapshot.slot_primaries();
    let first = primaries.first().map(|node| format!(", {} {}", node.addr, node.id));
    let missing = snapshot.missing_slots();
    let missing = match missing.is_empty() {
        true => String::new(),
        false => format!(", without slots {}", listed(&missing)),
    };
    format!("{} nodes{}{missing}", snapshot.nodes.len(), first.unwrap_or_default())
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
