//! Tests of `holds`.

use super::*;

#[derive(Debug, PartialEq)]
struct Sent(u64);
impl HoldMeta for Sent {
    fn started(&self) -> Moment {
        Moment(self.0)
    }

    /// Numbers from 1,000 on stand for reads.
    fn class(&self) -> GateClass {
        if self.0 >= 1_000 { GateClass::Read } else { GateClass::Write }
    }
}

const fn id(index: u32) -> ClientId {
    ClientId { index, generation: 1 }
}

const SLOT: Slot = Slot(7);
const A: ClientId = id(1);
const B: ClientId = id(2);

fn command(n: u64) -> Held<Sent> {
    Held { meta: Sent(n), frame: vec![0; 10] }
}

fn next(holds: &mut Holds<Sent>, key: ClientId) -> Option<u64> {
    holds.next(SLOT, key, Moment(100)).map(|h| h.meta.0)
}

#[test]
fn one_at_a_time_per_client_in_order() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    for n in 1..=3 {
        h.push_fresh(SLOT, A, command(n));
    }
    h.push_fresh(SLOT, B, command(9));
    assert_eq!(next(&mut h, A), Some(1));
    assert_eq!(next(&mut h, A), None);
    assert_eq!(next(&mut h, B), Some(9));
    h.done(SLOT, A, true, Moment(100));
    assert_eq!(next(&mut h, A), Some(2));
    assert_eq!((h.count(), h.bytes()), (1, 10 + OVERHEAD));
}

#[test]
fn what_was_refused_goes_before_what_came_later() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    h.track(SLOT, A); // command 2 is in flight when command 1 is refused
    h.push_refused(SLOT, A, command(1));
    h.push_fresh(SLOT, A, command(3));
    assert_eq!(next(&mut h, A), Some(1));
    h.done(SLOT, A, true, Moment(100));
    assert_eq!(next(&mut h, A), None, "3 must wait for the fate of 2");
    h.untrack(SLOT, A);
    h.push_refused(SLOT, A, command(2));
    assert_eq!(next(&mut h, A), Some(2));
    // Refused again: still before 3.
    h.push_back_again(SLOT, A, command(2), Moment(0));
    assert_eq!(next(&mut h, A), Some(2));
    h.done(SLOT, A, true, Moment(100));
    assert_eq!(next(&mut h, A), Some(3));
}

#[test]
fn the_parts_of_a_command_go_together_and_all_before_the_next() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    h.push_fresh(SLOT, A, command(1));
    h.push_fresh(SLOT, A, command(5));
    assert_eq!(next(&mut h, A), Some(1));
    assert_eq!(h.divide(SLOT, A, 3), None);
    h.done(SLOT, A, true, Moment(100));
    assert_eq!(next(&mut h, A), None, "two parts are under way");
    assert!(!h.begin(SLOT, A));
    assert!(!h.release(SLOT).1, "the lane is not quiet");
    // A refused part is the lane's next command once the other parts have ended.
    h.push_back_again(SLOT, A, command(3), Moment(0));
    assert_eq!(next(&mut h, A), None);
    h.done(SLOT, A, false, Moment(100));
    assert_eq!(next(&mut h, A), Some(3));
    h.done(SLOT, A, true, Moment(100));
    assert_eq!(next(&mut h, A), Some(5));
}

#[test]
fn a_lane_waits_its_backoff() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    h.push_fresh(SLOT, A, command(1));
    let c = h.next(SLOT, A, Moment(100)).unwrap();
    h.push_back_again(SLOT, A, c, Moment(200));
    assert!(h.next(SLOT, A, Moment(199)).is_none());
    assert!(h.next(SLOT, A, Moment(200)).is_some());
}

#[test]
fn a_calm_slot_is_released_but_for_busy_lanes() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(50));
    h.push_fresh(SLOT, A, command(1));
    h.push_fresh(SLOT, A, command(2));
    h.push_fresh(SLOT, B, command(3));
    assert_eq!(next(&mut h, B), Some(3));
    assert!(h.calm(Moment(49)).is_empty());
    assert_eq!(h.calm(Moment(50)), [SLOT]);
    let (out, ended) = h.release(SLOT);
    assert_eq!(out.iter().map(|c| c.meta.0).collect::<Vec<_>>(), [1, 2]);
    assert!(!ended);
    h.done(SLOT, B, true, Moment(100));
    assert!(h.release(SLOT).1);
    assert!(h.is_empty());
    assert_eq!((h.count(), h.bytes()), (0, 0));
}

/// A pause of ten microseconds for each failure.
fn tens(failures: u8) -> Micros {
    Micros(u64::from(failures) * 10)
}

/// Admits the next lane; returns its command and whether it was paid for.
fn through(holds: &mut Holds<Sent>, now: u64) -> Option<(u64, bool)> {
    let now = Moment(now);
    match holds.gate_next(SLOT, GateClass::Write, now, |_| false) {
        GateNext::Try { paid, .. } => {
            holds.admit(SLOT, GateClass::Write, now, Micros(0)).map(|held| (held.meta.0, paid))
        }
        GateNext::At(_) | GateNext::Nothing => None,
    }
}

#[test]
fn one_goes_through_a_closed_gate_and_each_answer_lets_two_more_go() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    let lanes: Vec<ClientId> = (1..=7).map(id).collect();
    assert!(h.close(SLOT, GateClass::Write, Moment(10), tens));
    for &lane in &lanes {
        h.push_fresh(SLOT, lane, command(u64::from(lane.index)));
        assert!(h.wait_at_gate(SLOT, GateClass::Write, lane));
    }
    assert!(!h.wait_at_gate(SLOT, GateClass::Read, lanes[0]), "reads may be served");
    assert_eq!(
        h.gate_next(SLOT, GateClass::Write, Moment(10), |_| false),
        GateNext::At(Moment(20))
    );
    assert_eq!(through(&mut h, 20), Some((1, false)), "a probe needs the budget");
    assert_eq!(through(&mut h, 20), None, "one at a time");
    // Refused: the next lane probes, and later.
    h.push_back_again(SLOT, lanes[0], command(1), Moment(0));
    assert!(!h.close(SLOT, GateClass::Write, Moment(20), tens));
    assert!(h.wait_at_gate(SLOT, GateClass::Write, lanes[0]));
    assert_eq!(through(&mut h, 39), None);
    assert_eq!(through(&mut h, 40), Some((2, false)));
    assert!(h.calm(Moment(1_000_000)).is_empty(), "somebody waits");
    assert_eq!(h.done(SLOT, lanes[1], true, Moment(40)), Some(GateClass::Write));
    assert_eq!([through(&mut h, 40), through(&mut h, 40)], [Some((3, true)), Some((4, true))]);
    assert_eq!(through(&mut h, 40), None);
    // Given up without an answer: the gate learns nothing.
    h.done(SLOT, lanes[2], false, Moment(40));
    assert_eq!(through(&mut h, 40), Some((5, false)));
    for lane in [3, 4] {
        h.done(SLOT, lanes[lane], true, Moment(41));
    }
    let rest: Vec<_> = std::iter::from_fn(|| through(&mut h, 41)).map(|(n, _)| n).collect();
    assert_eq!(rest, [6, 7, 1], "what was refused is not lost");
    for lane in [5, 6, 0] {
        h.done(SLOT, lanes[lane], true, Moment(42));
    }
    assert!(!h.wait_at_gate(SLOT, GateClass::Write, lanes[0]), "open");
}

#[test]
fn a_slot_is_not_calm_while_a_retry_waits_for_the_budget() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    h.push_refused(SLOT, A, command(1));
    h.owe(SLOT, A);
    assert!(h.calm(Moment(1_000_000)).is_empty());
    assert!(h.owes(SLOT, A, true));
    assert_eq!(next(&mut h, A), Some(1));
    assert_eq!(h.calm(Moment(1_000_000)), [SLOT]);
}

#[test]
fn a_slot_is_calm_although_a_gate_is_closed_or_a_retry_is_owed_for_which_nobody_waits() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    h.close(SLOT, GateClass::Write, Moment(10), tens);
    assert_eq!(h.calm(Moment(10)), [SLOT]);
    h.push_refused(SLOT, A, command(1));
    h.owe(SLOT, A);
    assert_eq!(next(&mut h, A), Some(1));
    assert_eq!(h.calm(Moment(10)), [SLOT], "what is owed is under way");
}

#[test]
fn old_ones_expire() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    h.push_fresh(SLOT, A, command(1));
    h.push_fresh(SLOT, A, command(5));
    let out = h.expire(Moment(1));
    assert_eq!(out.len(), 1);
    assert_eq!(h.count(), 1);
}

#[test]
fn lanes_are_forgotten_when_their_commands_expire_but_for_busy_and_waiting_ones() {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    h.push_fresh(SLOT, A, command(1));
    h.push_fresh(SLOT, B, command(2));
    assert_eq!(next(&mut h, B), Some(2), "in flight, and nothing waits behind it");
    let c = id(3);
    h.push_fresh(SLOT, c, command(9));
    assert_eq!(h.expire(Moment(1)).len(), 1);
    let left = |h: &Holds<Sent>| {
        let lanes = &h.slots.get(&SLOT).unwrap().lanes;
        [A, B, c].map(|lane| lanes.contains_key(&lane))
    };
    assert_eq!(left(&h), [false, true, true]);
    assert_eq!(h.take_waiting(SLOT, None).len(), 1);
    assert_eq!(left(&h), [false, true, false]);
}

/// Holds slot 7, with these commands waiting in lane A.
fn waiting(commands: &[u64]) -> Holds<Sent> {
    let mut h = Holds::default();
    h.hold(SLOT, Moment(0));
    commands.iter().for_each(|&n| h.push_fresh(SLOT, A, command(n)));
    h
}

fn numbers(held: Vec<Held<Sent>>) -> Vec<u64> {
    held.into_iter().map(|h| h.meta.0).collect()
}

#[test]
fn slots_are_held_until_they_are_released() {
    let mut h: Holds<Sent> = Holds::default();
    assert!(h.is_empty() && h.slots().is_empty());
    h.hold(SLOT, Moment(0));
    assert!(!h.is_empty());
    assert_eq!(h.slots(), [SLOT]);
    h.end(SLOT);
    assert!(h.is_empty());
}

#[test]
fn a_slot_gets_as_much_as_is_left_for_the_others() {
    let one = 10 + OVERHEAD;
    let mut h = waiting(&[]);
    assert!(h.fits(SLOT, 10, one) && !h.fits(SLOT, 10, one - 1));
    h.push_fresh(SLOT, A, command(1));
    // The slot's bytes, all slots' bytes (the same here), and the next command's.
    assert!(h.fits(SLOT, 10, 3 * one) && !h.fits(SLOT, 10, 3 * one - 1));
    assert!(
        h.fits(Slot(9), 10, 2 * one) && !h.fits(Slot(9), 10, 2 * one - 1),
        "another slot has none"
    );
    h.push_fresh(SLOT, A, command(2));
    assert!(h.fits(SLOT, 10, 5 * one) && !h.fits(SLOT, 10, 5 * one - 1));
    next(&mut h, A);
    assert_eq!((h.bytes(), h.count()), (one, 1));
    assert!(
        h.fits(SLOT, 10, 3 * one) && !h.fits(SLOT, 10, 3 * one - 1),
        "what has gone is no weight"
    );
}

#[test]
fn what_was_not_sent_goes_before_what_came_later() {
    let mut h = waiting(&[3]);
    h.push_unsent(SLOT, A, command(1));
    h.push_unsent(SLOT, A, command(2));
    for n in 1..=3 {
        assert_eq!(next(&mut h, A), Some(n));
        h.done(SLOT, A, true, Moment(100));
    }
    assert_eq!(h.bytes(), 0);
}

#[test]
fn what_was_not_sent_goes_before_what_came_later_when_one_has_gone() {
    let mut h = waiting(&[3]);
    h.push_unsent(SLOT, A, command(1));
    assert_eq!(next(&mut h, A), Some(1));
    h.push_unsent(SLOT, A, command(2));
    h.done(SLOT, A, true, Moment(100));
    assert_eq!(next(&mut h, A), Some(2));
}

#[test]
fn a_turn_is_taken_by_the_lanes_next_only() {
    let mut h = waiting(&[]);
    assert!(h.begin(SLOT, A));
    assert!(!h.begin(SLOT, A), "one is under way");
    h.done(SLOT, A, true, Moment(100));
    h.push_refused(SLOT, A, command(1));
    assert!(!h.begin(SLOT, A), "one was refused before");
    assert!(!h.begin(Slot(9), A), "the slot is not held");
}

#[test]
fn a_lane_that_pauses_is_not_ready() {
    let mut h = waiting(&[1, 2]);
    h.delay(SLOT, A, Moment(200));
    h.delay(SLOT, A, Moment(150));
    assert_eq!(h.ready(SLOT, A, Moment(199)), None);
    assert_eq!(h.ready(SLOT, A, Moment(200)), Some(GateClass::Write));
    assert_eq!(next(&mut h, A), None, "at 100");
    assert!(h.next(SLOT, A, Moment(200)).is_some());
    assert_eq!(h.ready(SLOT, A, Moment(300)), None, "it is under way");
}

#[test]
fn a_lane_is_ready_for_what_is_next() {
    let mut h = waiting(&[1_000, 1]);
    assert_eq!(h.ready(SLOT, A, Moment(0)), Some(GateClass::Read));
    h.track(SLOT, A);
    assert_eq!(h.ready(SLOT, A, Moment(0)), None, "one was sent before");
    h.push_refused(SLOT, A, command(2));
    assert_eq!(
        h.ready(SLOT, A, Moment(0)),
        Some(GateClass::Write),
        "what was refused goes all the same"
    );
}

#[test]
fn lanes_are_those_that_wait() {
    let mut h = waiting(&[1]);
    h.track(SLOT, B);
    assert_eq!(h.lanes(SLOT), [A]);
    h.push_refused(SLOT, B, command(2));
    let mut lanes = h.lanes(SLOT);
    lanes.sort();
    assert_eq!(lanes, [A, B]);
    assert!(h.lanes(Slot(9)).is_empty());
}

#[test]
fn a_lane_owes_until_it_has_paid() {
    let mut h = waiting(&[1]);
    assert!(!h.owes(SLOT, A, false));
    h.owe(SLOT, A);
    assert!(h.owes(SLOT, A, false), "looking does not pay");
    assert!(h.owes(SLOT, A, true));
    assert!(!h.owes(SLOT, A, false));
}

#[test]
fn a_gate_is_armed_once() {
    let mut h = waiting(&[]);
    assert!(h.arm(SLOT, GateClass::Write));
    assert!(!h.arm(SLOT, GateClass::Write));
    assert!(h.arm(SLOT, GateClass::Read), "another gate");
    h.disarm(SLOT, GateClass::Write);
    assert!(h.arm(SLOT, GateClass::Write));
    assert!(!h.arm(Slot(9), GateClass::Write), "there is none");
}

#[test]
fn a_gate_that_is_open_is_not_hurried() {
    let mut h = waiting(&[]);
    assert!(!h.probe_now(SLOT, GateClass::Write, Moment(5), true));
    h.close(SLOT, GateClass::Write, Moment(5), |_| Micros(1_000));
    assert!(h.probe_now(SLOT, GateClass::Write, Moment(6), false));
    assert!(!h.probe_now(SLOT, GateClass::Read, Moment(6), true), "that of another class");
}

/// Closes the gate at 0 until 1,000, with a client that waits with a blocking command.
fn at_a_closed_gate() -> Holds<Sent> {
    let mut h = waiting(&[]);
    h.close(SLOT, GateClass::Write, Moment(0), |_| Micros(1_000));
    assert!(h.wait_at_gate(SLOT, GateClass::Write, A));
    h
}

#[test]
fn a_blocking_command_that_is_not_refused_opens_the_gate() {
    let mut h = at_a_closed_gate();
    let next =
        |h: &mut Holds<Sent>, now| h.gate_next(SLOT, GateClass::Write, Moment(now), |_| true);
    assert_eq!(next(&mut h, 999), GateNext::At(Moment(1_000)));
    assert_eq!(next(&mut h, 1_000), GateNext::Try { lane: A, paid: false });
    assert!(h.admit(SLOT, GateClass::Write, Moment(1_000), Micros(50)).is_none());
    assert_eq!(next(&mut h, 1_049), GateNext::Nothing);
    assert_eq!(h.closed_since(SLOT, GateClass::Write), Some(Moment(0)), "it is on trial");
    assert_eq!(next(&mut h, 1_050), GateNext::Nothing);
    assert_eq!(h.closed_since(SLOT, GateClass::Write), None);
}

#[test]
fn a_gate_without_a_queue_opens_when_nothing_is_awaited() {
    let mut h = at_a_closed_gate();
    // The waiting client is gone. After the pause the gate stays closed, as it was refused once.
    assert_eq!(h.gate_next(SLOT, GateClass::Write, Moment(1_000), |_| false), GateNext::Nothing);
    assert!(h.closed_since(SLOT, GateClass::Write).is_some());
    h.probe_now(SLOT, GateClass::Write, Moment(1_000), false);
    assert_eq!(h.gate_next(SLOT, GateClass::Write, Moment(1_000), |_| false), GateNext::Nothing);
    assert_eq!(h.closed_since(SLOT, GateClass::Write), None);
}

#[test]
fn a_gate_with_a_probe_under_way_stays_closed() {
    let mut h = waiting(&[1]);
    h.close(SLOT, GateClass::Write, Moment(0), |_| Micros(1_000));
    h.wait_at_gate(SLOT, GateClass::Write, A);
    h.probe_now(SLOT, GateClass::Write, Moment(1), false);
    assert!(h.admit(SLOT, GateClass::Write, Moment(1), Micros(50)).is_some());
    assert_eq!(h.gate_next(SLOT, GateClass::Write, Moment(1), |_| false), GateNext::Nothing);
    assert!(h.closed_since(SLOT, GateClass::Write).is_some());
}

#[test]
fn what_waits_is_taken_by_class() {
    let mut h = waiting(&[1, 2, 1_000, 3]);
    h.push_refused(SLOT, A, command(9));
    assert_eq!(
        numbers(h.take_waiting(SLOT, Some(GateClass::Read))),
        [] as [u64; 0],
        "behind writes"
    );
    assert_eq!(numbers(h.take_waiting(SLOT, Some(GateClass::Write))), [9, 1, 2]);
    assert_eq!(
        numbers(h.take_waiting(SLOT, Some(GateClass::Write))),
        [] as [u64; 0],
        "behind a read"
    );
    assert_eq!(numbers(h.take_waiting(SLOT, None)), [1_000, 3]);
    assert_eq!((h.count(), h.bytes()), (0, 0));
    assert!(h.take_waiting(Slot(9), None).is_empty());
}

#[test]
fn what_is_refused_and_stays_keeps_what_is_behind_it() {
    let mut h = waiting(&[1]);
    h.push_refused(SLOT, A, command(1_000));
    assert_eq!(numbers(h.take_waiting(SLOT, Some(GateClass::Write))), [] as [u64; 0]);
    assert_eq!(h.count(), 2);
}

#[test]
fn lanes_under_way_outlive_what_was_taken() {
    let mut h = waiting(&[1, 2]);
    assert_eq!(next(&mut h, A), Some(1));
    assert_eq!(numbers(h.take_waiting(SLOT, None)), [2]);
    h.push_fresh(SLOT, A, command(3));
    assert_eq!(next(&mut h, A), None, "1 is under way still");
}

#[test]
fn what_was_not_sent_keeps_its_place_when_some_are_taken() {
    let mut h = waiting(&[5]);
    h.push_unsent(SLOT, A, command(1));
    h.push_unsent(SLOT, A, command(1_000));
    assert_eq!(numbers(h.take_waiting(SLOT, Some(GateClass::Write))), [1]);
    h.push_unsent(SLOT, A, command(2));
    assert_eq!(numbers(h.take_waiting(SLOT, None)), [1_000, 2, 5]);
}
