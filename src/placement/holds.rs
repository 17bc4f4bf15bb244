//! Holds: commands that wait because their slot is migrating, refused, or without a primary.
//!
//! Commands of a calm slot are pipelined and bypass this module. At the first refusal (MOVED, ASK,
//! TRYAGAIN …) the slot is *held*: each client that uses it gets a **lane**, in which its commands
//! go one at a time, in the order they were sent. This keeps the order per client and key: a
//! refused command and a later one never overtake one another. When nothing has been refused for a
//! while, the hold ends and the slot's commands are pipelined again.
//!
//! While nodes refuse the whole slot (CLUSTERDOWN, LOADING …) its **gate** is closed: one command
//! goes as a probe, and the other lanes queue. Each answer admits two more commands, so that a
//! recovered slot is served within a few round trips, and a flapping slot costs no more refusals
//! than answers. There is one gate for each [`GateClass`] of commands.
//!
//! No I/O: the worker asks what may go, sends it and reports the result.

use std::collections::VecDeque;

use crate::cluster::Slot;
use crate::dest::ClientId;
use crate::hash::IntMap;

use super::gate::{Gate, GateNext};
use super::policy::GateClass;
use super::{Micros, Moment};

/// Memory accounted to a waiting command beside its bytes, so that a limit on bytes limits their
/// number.
const OVERHEAD: usize = 128;

/// A waiting command.
#[derive(Debug)]
pub struct Held<T> {
    /// The worker's description of the command.
    pub meta: T,
    /// The command as it is sent to the node.
    pub frame: Vec<u8>,
}

/// What [`Holds`] needs to know about a waiting command.
pub trait HoldMeta {
    /// When the client sent the command.
    fn started(&self) -> Moment;
    /// The gate that the command passes.
    fn class(&self) -> GateClass;
}

/// The commands of one client for one held slot.
#[derive(Debug)]
struct Lane<T> {
    /// Commands refused by a node, in the order they were first sent. They go before `fresh`.
    refused: VecDeque<Held<T>>,
    /// Commands that arrived while the slot was held.
    fresh: VecDeque<Held<T>>,
    /// Number of commands at the front of `fresh` that arrived before the hold and were not sent.
    unsent: usize,
    /// Number of the lane's commands in flight: at most one, or the parts that it was divided into.
    under_way: u32,
    /// Number of unanswered commands that were sent before the hold. They precede all others.
    in_flight: u32,
    /// Earliest time of the lane's next command (backoff after TRYAGAIN and the like).
    not_before: Moment,
    /// The closed gate that admitted the lane's command in flight.
    through: Option<GateClass>,
    /// The gate in whose queue the lane waits.
    queued: Option<GateClass>,
    /// The lane's next command is a retry that has not been taken from the worker's budget.
    owes: bool,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Lane {
            refused: VecDeque::new(),
            fresh: VecDeque::new(),
            unsent: 0,
            under_way: 0,
            in_flight: 0,
            not_before: Moment(0),
            through: None,
            queued: None,
            owes: false,
        }
    }
}

impl<T> Lane<T> {
    fn waiting(&self) -> usize {
        self.refused.len() + self.fresh.len()
    }

    fn is_quiet(&self) -> bool {
        self.under_way == 0 && self.in_flight == 0
    }

    /// The lane's next command, if the lane lets it go at `now`.
    fn ready(&self, now: Moment) -> Option<&Held<T>> {
        if self.under_way > 0 || self.not_before > now {
            return None;
        }
        let fresh = || self.fresh.front().filter(|_| self.in_flight == 0);
        self.refused.front().or_else(fresh)
    }

    /// Takes the lane's next command, which is in flight from here on; `None` if none may go.
    fn next(&mut self, now: Moment) -> Option<Held<T>> {
        if self.under_way > 0 || self.not_before > now {
            return None;
        }
        let held = match self.refused.pop_front() {
            Some(held) => held,
            None if self.in_flight == 0 => {
                self.unsent = self.unsent.saturating_sub(1);
                self.fresh.pop_front()?
            }
            None => return None,
        };
        self.under_way = 1;
        Some(held)
    }
}

#[derive(Debug)]
struct SlotHold<T> {
    lanes: IntMap<ClientId, Lane<T>>,
    last_refusal: Moment,
    /// Accounted bytes of the slot's waiting commands.
    bytes: usize,
    gates: [Gate; GateClass::COUNT],
}

impl<T: HoldMeta> SlotHold<T> {
    fn lane(&mut self, key: ClientId) -> &mut Lane<T> {
        self.lanes.entry(key).or_default()
    }

    fn gate(&mut self, class: GateClass) -> &mut Gate {
        &mut self.gates[class as usize]
    }

    /// Takes the lane's command off the count of the closed gate that admitted it.
    fn leave_gate(&mut self, key: ClientId) -> Option<GateClass> {
        let class = self.lanes.get_mut(&key)?.through.take()?;
        let gate = self.gate(class);
        gate.under_way = gate.under_way.saturating_sub(1);
        Some(class)
    }

    /// Takes the first lane out of the queue of the gate.
    fn pop_gate(&mut self, class: GateClass) {
        if let Some(key) = self.gate(class).queue.pop_front()
            && let Some(lane) = self.lanes.get_mut(&key)
        {
            lane.queued = None;
        }
    }

    /// Whether nothing was refused after `since`, and no lane waits at a closed gate or for the
    /// budget.
    fn is_calm(&self, since: Moment) -> bool {
        let waits = |gate: &Gate| gate.closed && !gate.queue.is_empty();
        let owes = |lane: &Lane<T>| lane.owes && lane.waiting() > 0;
        self.last_refusal <= since
            && !self.gates.iter().any(waits)
            && !self.lanes.values().any(owes)
    }
}

/// The held slots of one worker.
#[derive(Debug)]
pub struct Holds<T> {
    slots: IntMap<Slot, SlotHold<T>>,
    bytes: usize,
    count: usize,
}

impl<T> Default for Holds<T> {
    fn default() -> Self {
        Holds { slots: IntMap::default(), bytes: 0, count: 0 }
    }
}

impl<T: HoldMeta> Holds<T> {
    /// Whether `slot` is held.
    pub fn contains(&self, slot: Slot) -> bool {
        self.slots.contains_key(&slot)
    }

    /// Whether no slot is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The held slots.
    pub fn slots(&self) -> Vec<Slot> {
        self.slots.keys().copied().collect()
    }

    /// Memory of all waiting commands, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a command of `len` bytes may wait for `slot`. Within `limit` bytes for all slots
    /// together, a slot may take as much as it leaves for the others, so that one busy slot cannot
    /// use up the limit.
    pub fn fits(&self, slot: Slot, len: usize, limit: usize) -> bool {
        let ours = self.slots.get(&slot).map_or(0, |hold| hold.bytes);
        ours + self.bytes + len + OVERHEAD <= limit
    }

    fn add(&mut self, slot: Slot, len: usize) {
        self.bytes += len + OVERHEAD;
        self.count += 1;
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.bytes += len + OVERHEAD;
        }
    }

    fn take(&mut self, slot: Slot, len: usize) {
        self.bytes -= len + OVERHEAD;
        self.count -= 1;
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.bytes -= len + OVERHEAD;
        }
    }

    /// Number of waiting commands.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Holds `slot`, or extends its hold.
    pub fn hold(&mut self, slot: Slot, now: Moment) {
        let hold = self.slots.entry(slot).or_insert_with(|| SlotHold {
            lanes: IntMap::default(),
            last_refusal: now,
            bytes: 0,
            gates: Default::default(),
        });
        hold.last_refusal = now;
    }

    /// Counts an unanswered command of the lane that was sent before the hold.
    pub fn track(&mut self, slot: Slot, key: ClientId) {
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.lane(key).in_flight += 1;
        }
    }

    /// Records that such a command ([`Holds::track`]) is answered or lost.
    pub fn untrack(&mut self, slot: Slot, key: ClientId) {
        if let Some(hold) = self.slots.get_mut(&slot) {
            let lane = hold.lane(key);
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
    }

    /// Appends a command that arrived while the slot was held.
    pub fn push_fresh(&mut self, slot: Slot, key: ClientId, held: Held<T>) {
        self.add(slot, held.frame.len());
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.lane(key).fresh.push_back(held);
        }
    }

    /// Inserts a command that arrived before the hold and was not sent (it was in a node's queue):
    /// before those that arrived during the hold, behind those that were sent.
    pub fn push_unsent(&mut self, slot: Slot, key: ClientId, held: Held<T>) {
        self.add(slot, held.frame.len());
        if let Some(hold) = self.slots.get_mut(&slot) {
            let lane = hold.lane(key);
            lane.fresh.insert(lane.unsent, held);
            lane.unsent += 1;
        }
    }

    /// Appends a command that was sent before the hold and refused.
    pub fn push_refused(&mut self, slot: Slot, key: ClientId, held: Held<T>) {
        self.add(slot, held.frame.len());
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.lane(key).refused.push_back(held);
        }
    }

    /// Returns the lane's command in flight, which was refused, to the front of its lane. It goes
    /// again at `not_before`.
    pub fn push_back_again(
        &mut self,
        slot: Slot,
        key: ClientId,
        held: Held<T>,
        not_before: Moment,
    ) {
        self.add(slot, held.frame.len());
        if let Some(hold) = self.slots.get_mut(&slot) {
            let lane = hold.lane(key);
            lane.under_way = lane.under_way.saturating_sub(1);
            lane.not_before = not_before;
            lane.refused.push_front(held);
            hold.leave_gate(key);
        }
    }

    /// Takes the lane's turn for a command that was just refused and is resent elsewhere at once.
    /// `false`: it is not the lane's next command.
    pub fn begin(&mut self, slot: Slot, key: ClientId) -> bool {
        let Some(hold) = self.slots.get_mut(&slot) else { return false };
        let lane = hold.lane(key);
        let next = lane.under_way == 0 && lane.refused.is_empty();
        if next {
            lane.under_way = 1;
        }
        next
    }

    /// Replaces the lane's command in flight by `parts`, which go at the same time; the lane goes
    /// on when all of them have ended. Returns the closed gate that the command had passed.
    pub fn divide(&mut self, slot: Slot, key: ClientId, parts: u32) -> Option<GateClass> {
        let hold = self.slots.get_mut(&slot)?;
        hold.lane(key).under_way = parts;
        hold.leave_gate(key)
    }

    /// Delays the lane until `not_before`.
    pub fn delay(&mut self, slot: Slot, key: ClientId, not_before: Moment) {
        if let Some(hold) = self.slots.get_mut(&slot) {
            let lane = hold.lane(key);
            lane.not_before = lane.not_before.max(not_before);
        }
    }

    /// Records the end of the lane's command in flight: the node has `answered` it, or it was given
    /// up. Returns the closed gate that the command had passed.
    pub fn done(
        &mut self,
        slot: Slot,
        key: ClientId,
        answered: bool,
        now: Moment,
    ) -> Option<GateClass> {
        let hold = self.slots.get_mut(&slot)?;
        let lane = hold.lane(key);
        lane.under_way = lane.under_way.saturating_sub(1);
        let class = hold.leave_gate(key)?;
        if answered {
            hold.gate(class).answered(now);
        }
        Some(class)
    }

    /// Closes the slot's gate for `class` after a refusal; `true` if it was open. The next probe
    /// goes after `pause(failures)`. Refusals that arrive before that do not extend the
    /// pause.
    pub fn close(
        &mut self,
        slot: Slot,
        class: GateClass,
        now: Moment,
        pause: impl FnOnce(u8) -> Micros,
    ) -> bool {
        self.slots.get_mut(&slot).is_some_and(|hold| hold.gate(class).close(now, pause))
    }

    /// Makes the next probe due now, because something may have ended the refusals. `paid`: without
    /// taking from the budget. `false`: the gate is open.
    pub fn probe_now(&mut self, slot: Slot, class: GateClass, now: Moment, paid: bool) -> bool {
        self.slots.get_mut(&slot).is_some_and(|hold| hold.gate(class).probe_now(now, paid))
    }

    /// Since when the slot is refused to commands of `class`; `None` if its gate is open.
    pub fn closed_since(&self, slot: Slot, class: GateClass) -> Option<Moment> {
        let gate = &self.slots.get(&slot)?.gates[class as usize];
        gate.closed.then_some(gate.since)
    }

    /// The class of the lane's next command, if the lane lets it go at `now`.
    pub fn ready(&self, slot: Slot, key: ClientId, now: Moment) -> Option<GateClass> {
        Some(self.slots.get(&slot)?.lanes.get(&key)?.ready(now)?.meta.class())
    }

    /// Appends the lane to the queue of the gate; `false` if the gate is open.
    pub fn wait_at_gate(&mut self, slot: Slot, class: GateClass, key: ClientId) -> bool {
        let Some(hold) = self.slots.get_mut(&slot) else { return false };
        if !hold.gate(class).closed {
            return false;
        }
        let lane = hold.lane(key);
        if lane.queued != Some(class) {
            lane.queued = Some(class);
            hold.gate(class).queue.push_back(key);
        }
        true
    }

    /// What the gate permits next. `waits` tells whether a client waits with a command that is not
    /// in its lane (a blocking one).
    pub fn gate_next(
        &mut self,
        slot: Slot,
        class: GateClass,
        now: Moment,
        waits: impl Fn(ClientId) -> bool,
    ) -> GateNext {
        let Some(hold) = self.slots.get_mut(&slot) else { return GateNext::Nothing };
        let gate = hold.gate(class);
        if gate.closed && gate.trial && now >= gate.not_before {
            gate.answered(now);
        }
        loop {
            let gate = hold.gate(class);
            let Some(&key) = gate.queue.front() else {
                if gate.under_way == 0 && gate.failures == 0 && !gate.trial {
                    gate.closed = false;
                }
                return GateNext::Nothing;
            };
            if gate.not_before > now {
                return GateNext::At(gate.not_before);
            }
            if gate.under_way >= gate.width {
                return GateNext::Nothing;
            }
            let paid = gate.paid > 0;
            let next = hold.lanes.get(&key).and_then(|lane| lane.ready(now));
            if next.is_some_and(|held| held.meta.class() == class) || waits(key) {
                return GateNext::Try { lane: key, paid };
            }
            hold.pop_gate(class);
        }
    }

    /// Admits the first lane in the gate's queue and returns its command. `None`: the client waits
    /// with a blocking command, which counts as answered if it is not refused within `trial`.
    pub fn admit(
        &mut self,
        slot: Slot,
        class: GateClass,
        now: Moment,
        trial: Micros,
    ) -> Option<Held<T>> {
        let hold = self.slots.get_mut(&slot)?;
        let gate = hold.gate(class);
        let key = *gate.queue.front()?;
        gate.paid = gate.paid.saturating_sub(1);
        hold.pop_gate(class);
        let held = self.next(slot, key, now);
        let hold = self.slots.get_mut(&slot)?;
        let gate = hold.gate(class);
        match held {
            Some(held) => {
                gate.under_way += 1;
                hold.lane(key).through = Some(class);
                Some(held)
            }
            None => {
                if gate.paid == 0 {
                    gate.trial = true;
                    gate.not_before = now + trial;
                }
                None
            }
        }
    }

    /// Records that the gate's timer has expired.
    pub fn disarm(&mut self, slot: Slot, class: GateClass) {
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.gate(class).armed = false;
        }
    }

    /// Records that a timer is set for the gate; `false` if there was one already.
    pub fn arm(&mut self, slot: Slot, class: GateClass) -> bool {
        let Some(hold) = self.slots.get_mut(&slot) else { return false };
        !std::mem::replace(&mut hold.gate(class).armed, true)
    }

    /// Marks the lane's next command as a retry that has to be taken from the worker's budget.
    pub fn owe(&mut self, slot: Slot, key: ClientId) {
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.lane(key).owes = true;
        }
    }

    /// Whether the lane's next command is such a retry; `paid` removes the mark.
    pub fn owes(&mut self, slot: Slot, key: ClientId, paid: bool) -> bool {
        let lane = self.slots.get_mut(&slot).and_then(|hold| hold.lanes.get_mut(&key));
        lane.is_some_and(|lane| {
            let owed = lane.owes;
            lane.owes &= !paid;
            owed
        })
    }

    /// Takes out the waiting commands of `slot`, each lane's in order. With a `class`, only those
    /// at the front of their lanes up to the first command of another class.
    pub fn take_waiting(&mut self, slot: Slot, class: Option<GateClass>) -> Vec<Held<T>> {
        let Some(hold) = self.slots.get_mut(&slot) else { return Vec::new() };
        let mut out = Vec::new();
        for lane in hold.lanes.values_mut() {
            let fresh = lane.fresh.len();
            for queue in [&mut lane.refused, &mut lane.fresh] {
                while queue.front().is_some_and(|h| class.is_none_or(|c| h.meta.class() == c)) {
                    out.extend(queue.pop_front());
                }
                if !queue.is_empty() {
                    break;
                }
            }
            lane.unsent = lane.unsent.saturating_sub(fresh - lane.fresh.len());
        }
        hold.lanes.retain(|_, lane| !lane.is_quiet() || lane.waiting() > 0);
        out.iter().for_each(|h: &Held<T>| self.take(slot, h.frame.len()));
        out
    }

    /// Takes the lane's next command, which is in flight from here on; `None` if none may go.
    pub fn next(&mut self, slot: Slot, key: ClientId, now: Moment) -> Option<Held<T>> {
        let held = self.slots.get_mut(&slot)?.lanes.get_mut(&key)?.next(now)?;
        self.take(slot, held.frame.len());
        Some(held)
    }

    /// The lanes of `slot` that have waiting commands.
    pub fn lanes(&self, slot: Slot) -> Vec<ClientId> {
        let hold = self.slots.get(&slot);
        let waiting = |(key, lane): (&ClientId, &Lane<T>)| (lane.waiting() > 0).then_some(*key);
        hold.map(|h| h.lanes.iter().filter_map(waiting).collect()).unwrap_or_default()
    }

    /// The slots where nothing was refused after `since`, and where no lane waits at a closed gate
    /// or for the budget.
    pub fn calm(&self, since: Moment) -> Vec<Slot> {
        self.slots.iter().filter(|(_, hold)| hold.is_calm(since)).map(|(slot, _)| *slot).collect()
    }

    /// Ends the hold of a calm slot as far as no command is in flight: takes out the commands of
    /// quiet lanes, in order, to be pipelined. `true`: the slot is no longer held.
    pub fn release(&mut self, slot: Slot) -> (Vec<Held<T>>, bool) {
        let Some(hold) = self.slots.get_mut(&slot) else { return (Vec::new(), true) };
        let mut out = Vec::new();
        hold.lanes.retain(|_, lane| {
            if !lane.is_quiet() {
                return true;
            }
            out.extend(lane.refused.drain(..));
            out.extend(lane.fresh.drain(..));
            false
        });
        let ended = hold.lanes.is_empty();
        if ended {
            self.slots.remove(&slot);
        }
        out.iter().for_each(|h: &Held<T>| self.take(slot, h.frame.len()));
        (out, ended)
    }

    /// Ends the hold of `slot` and takes out all waiting commands, each lane's in order.
    pub fn end(&mut self, slot: Slot) -> Vec<Held<T>> {
        let Some(hold) = self.slots.remove(&slot) else { return Vec::new() };
        let lanes = hold.lanes.into_values();
        let out: Vec<_> = lanes.flat_map(|l| l.refused.into_iter().chain(l.fresh)).collect();
        out.iter().for_each(|h: &Held<T>| self.take(slot, h.frame.len()));
        out
    }

    /// Takes out the waiting commands that their clients sent at `before` or earlier.
    pub fn expire(&mut self, before: Moment) -> Vec<(Slot, Held<T>)> {
        let mut out = Vec::new();
        for (slot, hold) in &mut self.slots {
            for lane in hold.lanes.values_mut() {
                let fresh = lane.fresh.len();
                for queue in [&mut lane.refused, &mut lane.fresh] {
                    while queue.front().is_some_and(|h| h.meta.started() <= before) {
                        out.extend(queue.pop_front().map(|h| (*slot, h)));
                    }
                }
                lane.unsent = lane.unsent.saturating_sub(fresh - lane.fresh.len());
            }
            // Remove empty lanes: clients come and go while a slot is held.
            hold.lanes.retain(|_, lane| !lane.is_quiet() || lane.waiting() > 0);
        }
        out.iter().for_each(|(slot, h): &(Slot, Held<T>)| self.take(*slot, h.frame.len()));
        out
    }
}

#[cfg(test)]
#[path = "holds_tests.rs"]
mod tests;
