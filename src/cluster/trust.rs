//! What a view of the cluster must show before it replaces the one in use. No I/O.
//!
//! A cluster has no name of its own. It is recognized by its nodes' IDs, which survive restarts and
//! changes of address: a view belongs to the cluster in use if it still has most of the nodes known
//! so far. [`judge`] looks at one answer, [`decide`] at all answers of a round, when no single one
//! was good enough, and [`first`] at the answers of the first round, which has nothing to compare
//! with.

use std::collections::HashSet;

use thiserror::Error;

use super::{Info, SLOTS, Slot, Snapshot, listed};

/// The view in use.
#[derive(Debug, Clone, Copy)]
pub struct InUse<'a> {
    /// The topology.
    pub snapshot: &'a Snapshot,
    /// The cluster's epoch as the node that gave the view knew it.
    pub epoch: u64,
}

/// One node's answer.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The ID of the node that answered.
    pub witness: &'a str,
    /// The node's state and the epoch it has heard of.
    pub info: Info,
    /// The topology as the node sees it.
    pub snapshot: &'a Snapshot,
}

/// The result of looking at a single answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The view replaces the one in use.
    Adopt,
    /// Other nodes have to confirm the view first.
    NeedWitness(Doubt),
    /// The view is not used.
    Reject(Reason),
}

/// Why an answer needs the confirmation of another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Doubt {
    /// Most of the nodes in use are not in it.
    #[error("has only {kept} of the {of} other nodes known so far")]
    FewKnown {
        /// Nodes in use that the view has, the witness aside.
        kept: usize,
        /// Nodes in use, the witness aside.
        of: usize,
    },
    /// Slots that have a primary in the view in use have none here.
    #[error("has no primary for {0} slots that have one in the view in use")]
    LosesSlots(usize),
    /// The node says that the cluster is not ok.
    #[error("is in cluster_state:fail")]
    Failing,
}

/// Why an answer is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Reason {
    /// The node knows of no slots, as one that was reset or has not joined a cluster yet.
    #[error("knows no slots")]
    NoSlots,
    /// The view has no node in common with the one in use.
    #[error("belongs to another cluster: it knows none of the nodes in use")]
    Foreign,
    /// The node has not heard of epochs that the view in use has heard of.
    #[error("is older than the view in use (epoch {epoch}, not {known})")]
    Older {
        /// The view's.
        epoch: u64,
        /// Of the view in use.
        known: u64,
    },
}

impl Reason {
    /// How many label values there are: the reasons, and views that no other node confirmed.
    pub const LABELS: usize = 4;
    /// Label values of the metric, by [`Reason::label`]; the last one is for [`Doubt`]s that remain.
    pub const NAMES: [&'static str; Self::LABELS] = ["no_slots", "foreign", "older", "unconfirmed"];

    /// The reason's place in [`Reason::NAMES`].
    pub fn label(self) -> usize {
        match self {
            Reason::NoSlots => 0,
            Reason::Foreign => 1,
            Reason::Older { .. } => 2,
        }
    }
}

/// By which rule a view was adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It continues the view in use.
    Continued,
    /// It is older, but most nodes of the cluster agree on it, and no node knows a newer one: the
    /// cluster was restored from an older state.
    Restored,
    /// It has no known node, but all known nodes are gone and all seeds agree on it: the cluster was
    /// replaced by another.
    Replaced,
}

impl Rule {
    /// Label values of the metric, by discriminant; [`Rule::Continued`] is not counted.
    pub const NAMES: [&'static str; 3] = ["continued", "restored", "replaced"];
}

/// What is known at the end of a round beside the answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundEnd {
    /// No answer has been adopted for so long that the exceptional rules apply.
    pub patience_over: bool,
    /// All seeds have answered.
    pub all_seeds_answered: bool,
}

/// Two seeds that name different clusters: indices of their answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disagreement(pub usize, pub usize);

/// The IDs of all nodes.
fn ids(snapshot: &Snapshot) -> HashSet<&str> {
    snapshot.nodes.iter().map(|node| &*node.id).collect()
}

/// Whether two views show one cluster: most nodes of the smaller one are in the other.
pub(super) fn is_same_cluster(a: &Snapshot, b: &Snapshot) -> bool {
    let (a, b) = (ids(a), ids(b));
    a.intersection(&b).count() * 2 > a.len().min(b.len())
}

/// How much of the view in use is in an answer. The witness itself does not count: a node that was
/// reset and has joined another cluster keeps its ID.
struct Kinship {
    kept: usize,
    of: usize,
    /// The witness is a node of the view in use.
    known_witness: bool,
    /// Slots belong to nodes that are not in the view in use.
    strangers_own_slots: bool,
}

impl Kinship {
    fn of(in_use: &InUse, view: &View) -> Kinship {
        let (known, seen) = (ids(in_use.snapshot), ids(view.snapshot));
        let others = known.iter().filter(|id| **id != view.witness);
        let owners = view.snapshot.slot_primaries();
        Kinship {
            kept: others.clone().filter(|id| seen.contains(*id)).count(),
            of: others.count(),
            known_witness: known.contains(view.witness),
            strangers_own_slots: owners.iter().any(|node| !known.contains(&*node.id)),
        }
    }

    fn is_majority(&self) -> bool {
        self.kept * 2 > self.of || (self.of == 0 && self.known_witness)
    }

    fn is_foreign(&self) -> bool {
        let shrunk = self.known_witness && !self.strangers_own_slots;
        self.kept == 0 && !self.is_majority() && !shrunk
    }
}

/// The slots that have a primary in `before` and none in `after`.
fn lost_slots(before: &Snapshot, after: &Snapshot) -> Vec<Slot> {
    let lost =
        |slot: &Slot| before.primary_of(*slot).is_some() && after.primary_of(*slot).is_none();
    (0..SLOTS).map(Slot).filter(lost).collect()
}

/// Judges one answer by the view in use, which covers slots.
pub fn judge(in_use: &InUse, view: &View) -> Verdict {
    if view.snapshot.slots_covered() == 0 {
        return Verdict::Reject(Reason::NoSlots);
    }
    let kin = Kinship::of(in_use, view);
    if kin.is_foreign() {
        return Verdict::Reject(Reason::Foreign);
    }
    if view.info.epoch < in_use.epoch {
        let (epoch, known) = (view.info.epoch, in_use.epoch);
        return Verdict::Reject(Reason::Older { epoch, known });
    }
    if !kin.is_majority() {
        return Verdict::NeedWitness(Doubt::FewKnown { kept: kin.kept, of: kin.of });
    }
    let lost = lost_slots(in_use.snapshot, view.snapshot).len();
    if lost > 0 {
        return Verdict::NeedWitness(Doubt::LosesSlots(lost));
    }
    if view.info.state_ok { Verdict::Adopt } else { Verdict::NeedWitness(Doubt::Failing) }
}

/// Whether other answers confirm `view`, which [`judge`] had doubts about. `views` are all answers,
/// with their verdicts.
fn is_confirmed(in_use: &InUse, view: &View, views: &[(&View, Verdict)]) -> bool {
    let kin = Kinship::of(in_use, view);
    let known = ids(in_use.snapshot);
    let accepted = |other: &(&View, Verdict)| {
        !matches!(other.1, Verdict::Reject(_)) && is_same_cluster(view.snapshot, other.0.snapshot)
    };
    let agreed: Vec<&View> = views.iter().filter(|v| accepted(v)).map(|v| v.0).collect();
    if !kin.is_majority() {
        let witnesses = |views: &mut dyn Iterator<Item = &View>| {
            let known: HashSet<&str> =
                views.map(|v| v.witness).filter(|id| known.contains(id)).collect();
            known.len()
        };
        let in_a_cluster = views.iter().filter(|v| v.1 != Verdict::Reject(Reason::NoSlots));
        let all = witnesses(&mut in_a_cluster.map(|v| v.0));
        let agreeing = witnesses(&mut agreed.iter().copied());
        let several = agreeing >= 2 && agreeing * 2 > all;
        // The last node of a cluster that has shrunk to it.
        let alone = agreeing == 1 && all == 1 && kin.known_witness && !kin.strangers_own_slots;
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
    lost.is_empty() || kin.of == 0 || agreed.iter().any(agrees)
}

/// Chooses among answers none of which [`judge`] has adopted: the index of the one to adopt, and by
/// which rule; `None` keeps the view in use.
pub fn decide(in_use: &InUse, views: &[View], end: &RoundEnd) -> Option<(usize, Rule)> {
    let judged: Vec<(&View, Verdict)> = views.iter().map(|v| (v, judge(in_use, v))).collect();
    let confirmed = |&i: &usize| {
        judged.get(i).is_some_and(|(view, verdict)| match verdict {
            Verdict::Adopt => true,
            Verdict::NeedWitness(_) => is_confirmed(in_use, view, &judged),
            Verdict::Reject(_) => false,
        })
    };
    let confirmed: Vec<usize> = (0..views.len()).filter(confirmed).collect();
    if let Some(best) = best_supported(in_use, views, &confirmed) {
        return Some((best, Rule::Continued));
    }
    if !end.patience_over {
        return None;
    }
    let known = ids(in_use.snapshot);
    let is_known = |view: &View| known.contains(view.witness);
    let older = |&i: &usize| {
        judged.get(i).is_some_and(|(view, verdict)| {
            matches!(verdict, Verdict::Reject(Reason::Older { .. }))
                && is_known(view)
                && Kinship::of(in_use, view).is_majority()
        })
    };
    let restored: Vec<usize> = (0..views.len()).filter(older).collect();
    let witnesses: HashSet<&str> =
        restored.iter().filter_map(|&i| views.get(i)).map(|view| view.witness).collect();
    if witnesses.len() * 2 > known.len() {
        return best(views, restored.into_iter()).map(|i| (i, Rule::Restored));
    }
    replacement(views, end, is_known).map(|i| (i, Rule::Replaced))
}

/// The best answer of a cluster that has taken the place of the one in use: all known nodes are
/// gone, all seeds have answered and agree, and two nodes at least vouch for it.
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

/// Chooses among the answers of the first round.
///
/// # Errors
/// The seeds name two clusters, and nothing tells which one is meant.
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

/// The best of the answers that continue the view in use: of the newest epoch, and of those the one
/// that most nodes agree with on the slots without a primary. A primary that has come back thinks
/// for a moment that it is one still.
fn best_supported(in_use: &InUse, views: &[View], among: &[usize]) -> Option<usize> {
    let views = among.iter().filter_map(|&i| views.get(i).map(|view| (i, view)));
    let views: Vec<(usize, &View, Vec<Slot>)> =
        views.map(|(i, view)| (i, view, lost_slots(in_use.snapshot, view.snapshot))).collect();
    let rank = |(_, view, lost): &&(usize, &View, Vec<Slot>)| {
        let agreeing = views.iter().filter(|(_, _, other)| other == lost).count();
        (view.info.state_ok, view.info.epoch, agreeing)
    };
    // Of equals the first.
    views.iter().rev().max_by_key(rank).map(|(i, ..)| *i)
}

/// The epoch that views have to have heard of once the answer at `index` is in use: its own if its
/// node is in state ok, otherwise the newest that it and another node have heard of.
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
    // Of equals the first.
    among.collect::<Vec<_>>().into_iter().rev().max_by_key(rank)
}

/// A few words about the cluster that a view shows, to tell it from another.
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
