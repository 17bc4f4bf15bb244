//! Commands that wait because their slot is in motion: it is being redirected, or has no primary.
//!
//! While a slot is calm its commands are pipelined and nothing here is asked. With the first
//! refusal (MOVED, ASK, TRYAGAIN …) the slot is *held*: each client that uses it gets a **lane**,
//! in which commands go one at a time, in the order they were sent. That is what keeps the order
//! per client and key: a command refused now and one sent later never overtake one another. When
//! nothing was refused for a while the hold ends and the slot is pipelined again.
//!
//! Pure bookkeeping: the worker asks what may go now and tells what came back.

use std::collections::VecDeque;

use crate::hash::IntMap;

/// Whose lane: a client's index and generation.
pub type LaneKey = (u32, u32);

/// What a waiting command costs beside its bytes, so that a limit on bytes is one on their number,
/// too.
const OVERHEAD: usize = 128;

/// A command that waits.
#[derive(Debug)]
pub struct Held<T> {
    /// What the worker knows of it.
    pub meta: T,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// What [`Holds`] needs to know of a waiting command.
pub trait HoldMeta {
    /// When its client sent it, in microseconds of the worker's clock.
    fn started(&self) -> u64;
}

#[derive(Debug)]
struct Lane<T> {
    /// Refused by a node, in the order they were first sent: they go before `fresh`.
    refused: VecDeque<Held<T>>,
    /// Came while the slot was held.
    fresh: VecDeque<Held<T>>,
    /// How many at the front of `fresh` came before the hold and were not sent.
    unsent: usize,
    /// One of this lane is under way.
    busy: bool,
    /// Commands that were sent before the hold and are not answered: whatever comes of them, they
    /// were first.
    in_flight: u32,
    /// Nothing goes before this moment (backoff after TRYAGAIN and the like).
    not_before: u64,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Lane {
            refused: VecDeque::new(),
            fresh: VecDeque::new(),
            unsent: 0,
            busy: false,
            in_flight: 0,
            not_before: 0,
        }
    }
}

impl<T> Lane<T> {
    fn waiting(&self) -> usize {
        self.refused.len() + self.fresh.len()
    }

    fn is_quiet(&self) -> bool {
        !self.busy && self.in_flight == 0
    }
}

#[derive(Debug)]
struct SlotHold<T> {
    lanes: IntMap<LaneKey, Lane<T>>,
    last_refusal: u64,
    /// What waits for this slot.
    bytes: usize,
}

/// All held slots of one worker.
#[derive(Debug)]
pub struct Holds<T> {
    slots: IntMap<u16, SlotHold<T>>,
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
    pub fn contains(&self, slot: u16) -> bool {
        self.slots.contains_key(&slot)
    }

    /// Whether no slot is held.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The held slots.
    pub fn slots(&self) -> Vec<u16> {
        self.slots.keys().copied().collect()
    }

    /// Bytes that the commands that wait occupy.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a command of `len` bytes may wait for `slot`: within `limit` bytes for all slots
    /// together a slot gets as much as is still left for the others, so that one that is written
    /// to without end leaves room for them.
    pub fn fits(&self, slot: u16, len: usize, limit: usize) -> bool {
        let ours = self.slots.get(&slot).map_or(0, |hold| hold.bytes);
        ours + self.bytes + len + OVERHEAD <= limit
    }

    fn add(&mut self, slot: u16, len: usize) {
        self.bytes += len + OVERHEAD;
        self.count += 1;
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.bytes += len + OVERHEAD;
        }
    }

    fn take(&mut self, slot: u16, len: usize) {
        self.bytes -= len + OVERHEAD;
        self.count -= 1;
        if let Some(hold) = self.slots.get_mut(&slot) {
            hold.bytes -= len + OVERHEAD;
        }
    }

    /// Commands that wait.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Holds `slot` from now on, or holds it on.
    pub fn hold(&mut self, slot: u16, now: u64) {
        let hold = self.slots.entry(slot).or_insert_with(|| SlotHold {
            lanes: IntMap::default(),
            last_refusal: now,
            bytes: 0,
        });
        hold.last_refusal = now;
    }

    fn lane(&mut self, slot: u16, key: LaneKey) -> Option<&mut Lane<T>> {
        Some(self.slots.get_mut(&slot)?.lanes.entry(key).or_default())
    }

    /// A command of the lane was sent before the hold and is not answered.
    pub fn track(&mut self, slot: u16, key: LaneKey) {
        if let Some(lane) = self.lane(slot, key) {
            lane.in_flight += 1;
        }
    }

    /// Such a command is answered, or lost.
    pub fn untrack(&mut self, slot: u16, key: LaneKey) {
        if let Some(lane) = self.lane(slot, key) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
    }

    /// A command that came while the slot is held.
    pub fn push_fresh(&mut self, slot: u16, key: LaneKey, held: Held<T>) {
        self.add(slot, held.frame.len());
        if let Some(lane) = self.lane(slot, key) {
            lane.fresh.push_back(held);
        }
    }

    /// A command that came before the hold and was not sent, taken out of a node's queue: it goes
    /// before what came while the slot is held, and after what was sent.
    pub fn push_unsent(&mut self, slot: u16, key: LaneKey, held: Held<T>) {
        self.add(slot, held.frame.len());
        if let Some(lane) = self.lane(slot, key) {
            lane.fresh.insert(lane.unsent, held);
            lane.unsent += 1;
        }
    }

    /// A command that was sent before the hold and was refused.
    pub fn push_refused(&mut self, slot: u16, key: LaneKey, held: Held<T>) {
        self.add(slot, held.frame.len());
        if let Some(lane) = self.lane(slot, key) {
            lane.refused.push_back(held);
        }
    }

    /// The lane's command that was under way was refused: it is the next again, not before
    /// `not_before`.
    pub fn push_back_again(&mut self, slot: u16, key: LaneKey, held: Held<T>, not_before: u64) {
        self.add(slot, held.frame.len());
        if let Some(lane) = self.lane(slot, key) {
            lane.busy = false;
            lane.not_before = not_before;
            lane.refused.push_front(held);
        }
    }

    /// The lane's turn is taken by a command that was just refused and is sent elsewhere at once,
    /// if it is the lane's next.
    pub fn begin(&mut self, slot: u16, key: LaneKey) -> bool {
        match self.lane(slot, key) {
            Some(lane) if !lane.busy && lane.refused.is_empty() => {
                lane.busy = true;
                true
            }
            _ => false,
        }
    }

    /// Nothing of this lane goes before `not_before`.
    pub fn delay(&mut self, slot: u16, key: LaneKey, not_before: u64) {
        if let Some(lane) = self.lane(slot, key) {
            lane.not_before = lane.not_before.max(not_before);
        }
    }

    /// The lane's command that was under way is answered.
    pub fn done(&mut self, slot: u16, key: LaneKey) {
        if let Some(lane) = self.lane(slot, key) {
            lane.busy = false;
        }
    }

    /// The lane's next command, if one may go now; it is under way from here on.
    pub fn next(&mut self, slot: u16, key: LaneKey, now: u64) -> Option<Held<T>> {
        let lane = self.slots.get_mut(&slot)?.lanes.get_mut(&key)?;
        if lane.busy || lane.not_before > now {
            return None;
        }
        let held = match lane.refused.pop_front() {
            Some(held) => held,
            None if lane.in_flight == 0 => {
                lane.unsent = lane.unsent.saturating_sub(1);
                lane.fresh.pop_front()?
            }
            None => return None,
        };
        lane.busy = true;
        self.take(slot, held.frame.len());
        Some(held)
    }

    /// The lanes of `slot` that have something to send.
    pub fn lanes(&self, slot: u16) -> Vec<LaneKey> {
        let hold = self.slots.get(&slot);
        let waiting = |(key, lane): (&LaneKey, &Lane<T>)| (lane.waiting() > 0).then_some(*key);
        hold.map(|h| h.lanes.iter().filter_map(waiting).collect()).unwrap_or_default()
    }

    /// The slots where nothing was refused since `since`.
    pub fn calm(&self, since: u64) -> Vec<u16> {
        self.slots.iter().filter(|(_, h)| h.last_refusal <= since).map(|(s, _)| *s).collect()
    }

    /// Ends the hold of a calm slot as far as nothing is under way: takes out what waits in quiet
    /// lanes, in order, to be pipelined. `true`: the slot is not held any more.
    pub fn release(&mut self, slot: u16) -> (Vec<Held<T>>, bool) {
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

    /// Ends the hold of `slot` altogether: takes out what waits, each lane's in order.
    pub fn end(&mut self, slot: u16) -> Vec<Held<T>> {
        let Some(hold) = self.slots.remove(&slot) else { return Vec::new() };
        let lanes = hold.lanes.into_values();
        let out: Vec<_> = lanes.flat_map(|l| l.refused.into_iter().chain(l.fresh)).collect();
        out.iter().for_each(|h: &Held<T>| self.take(slot, h.frame.len()));
        out
    }

    /// Takes out what was sent by its client before `before` and still waits.
    pub fn expire(&mut self, before: u64) -> Vec<(u16, Held<T>)> {
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
            // Clients come and go while a slot is held.
            hold.lanes.retain(|_, lane| !lane.is_quiet() || lane.waiting() > 0);
        }
        out.iter().for_each(|(slot, h): &(u16, Held<T>)| self.take(*slot, h.frame.len()));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Sent(u64);
    impl HoldMeta for Sent {
        fn started(&self) -> u64 {
            self.0
        }
    }

    const A: LaneKey = (1, 1);
    const B: LaneKey = (2, 1);

    fn command(n: u64) -> Held<Sent> {
        Held { meta: Sent(n), frame: vec![0; 10] }
    }

    fn next(holds: &mut Holds<Sent>, key: LaneKey) -> Option<u64> {
        holds.next(7, key, 100).map(|h| h.meta.0)
    }

    #[test]
    fn one_at_a_time_per_client_in_order() {
        let mut h = Holds::default();
        h.hold(7, 0);
        for n in 1..=3 {
            h.push_fresh(7, A, command(n));
        }
        h.push_fresh(7, B, command(9));
        assert_eq!(next(&mut h, A), Some(1));
        assert_eq!(next(&mut h, A), None);
        assert_eq!(next(&mut h, B), Some(9));
        h.done(7, A);
        assert_eq!(next(&mut h, A), Some(2));
        assert_eq!((h.count(), h.bytes()), (1, 10 + OVERHEAD));
    }

    #[test]
    fn what_was_refused_goes_before_what_came_later() {
        let mut h = Holds::default();
        h.hold(7, 0);
        h.track(7, A); // command 2 is in flight when command 1 is refused
        h.push_refused(7, A, command(1));
        h.push_fresh(7, A, command(3));
        assert_eq!(next(&mut h, A), Some(1));
        h.done(7, A);
        assert_eq!(next(&mut h, A), None, "3 must wait for the fate of 2");
        h.untrack(7, A);
        h.push_refused(7, A, command(2));
        assert_eq!(next(&mut h, A), Some(2));
        // Refused again: still before 3.
        h.push_back_again(7, A, command(2), 0);
        assert_eq!(next(&mut h, A), Some(2));
        h.done(7, A);
        assert_eq!(next(&mut h, A), Some(3));
    }

    #[test]
    fn a_lane_waits_its_backoff() {
        let mut h = Holds::default();
        h.hold(7, 0);
        h.push_fresh(7, A, command(1));
        let c = h.next(7, A, 100).unwrap();
        h.push_back_again(7, A, c, 200);
        assert!(h.next(7, A, 199).is_none());
        assert!(h.next(7, A, 200).is_some());
    }

    #[test]
    fn a_calm_slot_is_released_but_for_busy_lanes() {
        let mut h = Holds::default();
        h.hold(7, 50);
        h.push_fresh(7, A, command(1));
        h.push_fresh(7, A, command(2));
        h.push_fresh(7, B, command(3));
        assert_eq!(next(&mut h, B), Some(3));
        assert!(h.calm(49).is_empty());
        assert_eq!(h.calm(50), [7]);
        let (out, ended) = h.release(7);
        assert_eq!(out.iter().map(|c| c.meta.0).collect::<Vec<_>>(), [1, 2]);
        assert!(!ended);
        h.done(7, B);
        assert!(h.release(7).1);
        assert!(h.is_empty());
        assert_eq!((h.count(), h.bytes()), (0, 0));
    }

    #[test]
    fn old_ones_expire() {
        let mut h = Holds::default();
        h.hold(7, 0);
        h.push_fresh(7, A, command(1));
        h.push_fresh(7, A, command(5));
        let out = h.expire(1);
        assert_eq!(out.len(), 1);
        assert_eq!(h.count(), 1);
    }
}
