//! Retries are carried out: gates are served, the budget is kept, and slots whose primary is
//! missing for too long fail fast. The policy itself is pure: [`crate::placement`].

use std::collections::{BTreeSet, VecDeque};

use super::clock::{Job, Timer};
use super::{NOBODY, Worker};
use crate::cluster::{Slot, Snapshot};
use crate::config::Config;
use crate::dest::Dest;
use crate::errors::Failure;
use crate::hash::{IntMap, KeyedSet};
use crate::metrics::RetryReason;
use crate::placement::{Budget, Class, GateNext, pause};
use crate::route::flag;
use crate::upstream::{NO_SLOT, Pending, State};

/// How long an errand waits for its slot to get a primary before it looks again, microseconds.
pub(super) const NO_PRIMARY_PAUSE: u64 = 20_000;

/// A blocking command that was not refused within this time was accepted, microseconds.
const TRIAL: u64 = 20_000;
/// Slots of a node that are tried after an answer of the node to one of them.
const NEIGHBOURS: usize = 2;

/// A retry that waits for the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Want {
    Gate(u16, Class),
    Lane(u16, (u32, u32)),
    /// A command on a dedicated connection: its client's index and generation, its number.
    Errand(u32, u32, u32),
}

/// The retries of one worker.
#[derive(Debug)]
pub(super) struct Retries {
    pub budget: Budget,
    waiting: VecDeque<Want>,
    /// What stands in it: each once.
    queued: KeyedSet<Want>,
    armed: bool,
    /// The retry that is being carried out has been allowed.
    granted: bool,
    /// By node: slots whose gates its refusals have closed.
    closed: IntMap<u16, BTreeSet<(u16, u8)>>,
    /// By slot without a primary: since when, and who was the last.
    pub orphans: IntMap<u16, (u64, u16)>,
}

impl Retries {
    pub fn new(config: &Config) -> Retries {
        let (percent, min) = (config.retries.budget_percent, config.retries.min_per_second);
        Retries {
            budget: Budget::new(percent, min),
            waiting: VecDeque::new(),
            queued: KeyedSet::default(),
            armed: false,
            granted: false,
            closed: IntMap::default(),
            orphans: IntMap::default(),
        }
    }
}

impl Worker {
    pub(super) fn count_retry(&mut self, reason: RetryReason) {
        self.stats.retries[reason as usize] += 1;
    }

    /// The pause before try `tries`, with jitter.
    pub(super) fn retry_pause(&self, tries: u8) -> u64 {
        let pause = pause(tries);
        pause / 2 + self.backoff_jitter(pause)
    }

    fn earn_retries(&mut self) {
        let answered = self.stats.commands.iter().map(|c| c.ok + c.error + c.refused).sum();
        self.retries.budget.earn(self.now, answered);
    }

    /// Whether the budget has room for this retry; otherwise it waits and is carried out later.
    pub(super) fn may_retry(&mut self, want: Want) -> bool {
        if std::mem::take(&mut self.retries.granted) {
            return true;
        }
        self.earn_retries();
        if self.retries.waiting.is_empty() && self.retries.budget.has() {
            self.retries.budget.take(1);
            return true;
        }
        if self.retries.queued.insert(want) {
            self.stats.retry_budget_exhausted += 1;
            self.retries.waiting.push_back(want);
        }
        self.arm_retries();
        false
    }

    fn arm_retries(&mut self) {
        if !std::mem::replace(&mut self.retries.armed, true) {
            let due = self.now + self.retries.budget.wait();
            self.timers.push(Timer { due, job: Job::Retries });
        }
    }

    /// The budget may have room again.
    pub(super) fn run_retries(&mut self) {
        self.retries.armed = false;
        self.earn_retries();
        while self.retries.budget.has()
            && let Some(want) = self.retries.waiting.pop_front()
        {
            self.retries.queued.remove(&want);
            self.retries.granted = true;
            match want {
                Want::Gate(slot, class) => self.run_gate(slot, class),
                Want::Lane(slot, lane) => self.run_lane(slot, lane),
                Want::Errand(index, generation, seq) => self.errand_again(index, generation, seq),
            }
            // What wanted it may be gone.
            if !std::mem::take(&mut self.retries.granted) {
                self.retries.budget.take(1);
            }
        }
        if !self.retries.waiting.is_empty() {
            self.arm_retries();
        }
    }

    /// `node` has refused the slot to commands of `class`; `wide`: most likely its other slots, too.
    pub(super) fn close_gate(&mut self, slot: u16, class: Class, node: u16, wide: bool) {
        let jitter = self.backoff_jitter(1 << 10);
        let jittered = |failures| {
            let pause = pause(failures);
            pause / 2 + pause * jitter / (1 << 10)
        };
        self.holds.close(slot, class, self.now, jittered);
        if wide && slot != NO_SLOT {
            self.retries.closed.entry(node).or_default().insert((slot, class as u8));
        }
    }

    /// Sends what the slot's closed gate lets through.
    pub(super) fn run_gate(&mut self, slot: u16, class: Class) {
        loop {
            let now = self.now;
            let Self { holds, clients, .. } = &mut *self;
            let waits = |(index, generation): (u32, u32)| {
                let client = clients.get(index as usize).filter(|c| c.generation == generation);
                let errand = client.and_then(|c| c.lent.as_ref()?.errand.as_ref());
                errand.is_some_and(|e| e.slot == slot && e.upstream.is_none())
            };
            let (lane, paid) = match holds.gate_next(slot, class, now, waits) {
                GateNext::Nothing => return,
                GateNext::At(due) => {
                    if self.holds.arm(slot, class) {
                        self.timers.push(Timer { due, job: Job::Gate(slot, class) });
                    }
                    return;
                }
                GateNext::Try { lane, paid } => (lane, paid),
            };
            let Some(owner) = self.owner_for(slot, lane) else {
                // A client whose errand waits has nothing in its lane: no topology sends it.
                if self.holds.arm(slot, class) {
                    let due = self.now + NO_PRIMARY_PAUSE;
                    self.timers.push(Timer { due, job: Job::Gate(slot, class) });
                }
                return;
            };
            if !paid && !self.may_retry(Want::Gate(slot, class)) {
                return;
            }
            match self.holds.admit(slot, class, self.now, TRIAL) {
                Some(held) => {
                    let mut pending = held.meta.pending;
                    pending.flags |= flag::LANE;
                    let owner = self.node_of_held(&pending, &held.frame, owner);
                    self.send_to(owner, pending, held.frame, lane.0);
                }
                None => self.send_errand(lane.0 as usize, None),
            }
        }
    }

    pub(super) fn owner_for(&self, slot: u16, lane: (u32, u32)) -> Option<u16> {
        match slot {
            NO_SLOT => self.any_primary(lane.0 as usize),
            slot => self.owners.get(usize::from(slot)).copied().filter(|&n| n != NOBODY),
        }
    }

    /// A command that went through a closed gate is answered: the gate's next go, and those of
    /// other slots that the node had refused.
    pub(super) fn gate_answered(&mut self, slot: u16, class: Class, answered: bool) {
        self.run_gate(slot, class);
        let Some(owner) = self.owners.get(usize::from(slot)).copied().filter(|_| answered) else {
            return;
        };
        let mut found = 0;
        while found < NEIGHBOURS
            && let Some((other, class)) =
                self.retries.closed.get_mut(&owner).and_then(BTreeSet::pop_first)
        {
            let Some(&class) = Class::ALL.get(usize::from(class)) else { continue };
            if other != slot && self.holds.hurry(other, class, self.now, true) {
                found += 1;
                self.run_gate(other, class);
            }
        }
        if self.retries.closed.get(&owner).is_some_and(BTreeSet::is_empty) {
            self.retries.closed.remove(&owner);
        }
    }

    /// New owners: what the ones before have refused says nothing of them.
    /// `former` is the topology before. A probe is free where it named another primary; not where
    /// only a redirection had, or nodes that redirect in circles would be asked anew each time.
    pub(super) fn note_owners(&mut self, before: &[u16], former: &Snapshot) {
        for slot in self.holds.slots() {
            let at = usize::from(slot);
            if before.get(at) == self.owners.get(at) {
                continue;
            }
            let primary = |snapshot: &Snapshot| {
                (slot != NO_SLOT).then(|| snapshot.primary_of(Slot(slot)).map(|n| n.addr.clone()))
            };
            let is_news = primary(former) != primary(&self.snapshot);
            for class in Class::ALL {
                self.holds.hurry(slot, class, self.now, is_news);
            }
        }
        for (slot, (owner, last)) in (0u16..).zip(self.owners.iter().zip(before)) {
            if owner != last {
                self.migrations.remove(&slot);
            }
            if *owner != NOBODY {
                self.retries.orphans.remove(&slot);
            } else if !self.retries.orphans.contains_key(&slot) {
                let node = self.nodes.get(usize::from(*last));
                let since = node.map(|n| n.unreached_since).filter(|&since| since > 0);
                self.retries.orphans.insert(slot, (since.unwrap_or(self.now), *last));
            }
        }
    }

    /// The error for commands of a slot whose primary has been missing for longer than
    /// `timeouts.no_primary`: the cluster names none, or it is not reached, or it refuses them.
    pub(super) fn without_primary(&self, slot: u16, class: Class) -> Option<Failure> {
        let limit = self.settings.no_primary?;
        let owner = self.owners.get(usize::from(slot)).copied().unwrap_or(NOBODY);
        let node = self.nodes.get(usize::from(owner));
        let unreached = node.map(|n| n.unreached_since).filter(|&since| since > 0);
        let (since, last, why) = if let Some(&(since, last)) = self.retries.orphans.get(&slot) {
            (since, last, "the cluster has no primary for it".to_owned())
        } else if let Some(since) = unreached {
            (since, owner, "its primary is not reached".to_owned())
        } else {
            let since = self.holds.closed_since(slot, class)?;
            let said = self.last_refusal.get(&slot).cloned().unwrap_or_default();
            (since, owner, format!("its primary refuses commands: {said}"))
        };
        if self.now.saturating_sub(since) < limit {
            return None;
        }
        let addr = self.nodes.get(usize::from(last)).map(|n| n.addr.to_string());
        let addr = addr.unwrap_or_else(|| "unknown".to_owned());
        let seconds = self.now.saturating_sub(since) as f64 / 1e6;
        let limit = limit as f64 / 1e6;
        let place = match slot {
            NO_SLOT => "a command without keys".into(),
            slot => format!("slot {slot}").into(),
        };
        Some(Failure::PrimaryMissing { place, primary: addr.into(), seconds, limit, why })
    }

    /// With every tick: what waits for a primary that is missing for too long fails.
    pub(super) fn fail_without_primary(&mut self) {
        if self.settings.no_primary.is_none() {
            return;
        }
        for slot in self.holds.slots() {
            for class in Class::ALL {
                let Some(failure) = self.without_primary(slot, class) else { continue };
                for held in self.holds.take_waiting(slot, Some(class)) {
                    self.stats.no_primary += 1;
                    self.fail(&held.meta.pending, "slotway", &failure);
                }
            }
        }
        let waits = |up: &crate::upstream::Upstream| {
            up.is_ordered() && up.state != State::Ready && !up.pending.is_empty()
        };
        let all: Vec<usize> =
            self.upstreams.iter().filter(|(_, up)| waits(up)).map(|(u, _)| u).collect();
        for u in all {
            let Some(node) = self.upstreams.get(u).map(|up| up.node) else { continue };
            let slot = self.nodes.get(usize::from(node)).map_or(NO_SLOT, |n| n.shard_slot);
            let owns = self.owners.get(usize::from(slot)) == Some(&node);
            if !owns || self.without_primary(slot, Class::Write).is_none() {
                continue;
            }
            let Some(up) = self.upstreams.get_mut(u) else { continue };
            let taken = up.take_unsent(&mut self.pool, |p: &Pending| {
                p.dest != Dest::Discard && (p.slot != NO_SLOT || p.has(flag::NODE_BOUND))
            });
            for (pending, _) in taken {
                let at = if pending.slot == NO_SLOT { slot } else { pending.slot };
                let failure = self.without_primary(at, pending.class());
                let failure = failure.or_else(|| self.without_primary(slot, Class::Write));
                let failure = failure.unwrap_or(Failure::SlotWithoutPrimary { slot: at });
                self.stats.no_primary += 1;
                self.fail(&pending, "slotway", &failure);
            }
            self.mark_upstream(u);
        }
    }
}
