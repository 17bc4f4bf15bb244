//! Tests of `holds`.

use super::*;

#[derive(Debug, PartialEq)]
struct Sent(u64);
impl HoldMeta for Sent {
    fn started(&self) -> u64 {
        self.0
    }

    fn class(&self) -> Class {
        Class::Write
    }
}

const fn id(index: u32) -> ClientId {
    ClientId { index, generation: 1 }
}

const A: ClientId = id(1);
const B: ClientId = id(2);

fn command(n: u64) -> Held<Sent> {
    Held { meta: Sent(n), frame: vec![0; 10] }
}

fn next(holds: &mut Holds<Sent>, key: ClientId) -> Option<u64> {
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
    h.done(7, A, true, 100);
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
    h.done(7, A, true, 100);
    assert_eq!(next(&mut h, A), None, "3 must wait for the fate of 2");
    h.untrack(7, A);
    h.push_refused(7, A, command(2));
    assert_eq!(next(&mut h, A), Some(2));
    // Refused again: still before 3.
    h.push_back_again(7, A, command(2), 0);
    assert_eq!(next(&mut h, A), Some(2));
    h.done(7, A, true, 100);
    assert_eq!(next(&mut h, A), Some(3));
}

#[test]
fn the_parts_of_a_command_go_together_and_all_before_the_next() {
    let mut h = Holds::default();
    h.hold(7, 0);
    h.push_fresh(7, A, command(1));
    h.push_fresh(7, A, command(5));
    assert_eq!(next(&mut h, A), Some(1));
    assert_eq!(h.divide(7, A, 3), None);
    h.done(7, A, true, 100);
    assert_eq!(next(&mut h, A), None, "two parts are under way");
    assert!(!h.begin(7, A));
    assert!(!h.release(7).1, "the lane is not quiet");
    // A part that is refused is the next, when the others have come to their end.
    h.push_back_again(7, A, command(3), 0);
    assert_eq!(next(&mut h, A), None);
    h.done(7, A, false, 100);
    assert_eq!(next(&mut h, A), Some(3));
    h.done(7, A, true, 100);
    assert_eq!(next(&mut h, A), Some(5));
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
    h.done(7, B, true, 100);
    assert!(h.release(7).1);
    assert!(h.is_empty());
    assert_eq!((h.count(), h.bytes()), (0, 0));
}

/// Gives the key of the lane that goes.
fn through(holds: &mut Holds<Sent>, now: u64) -> Option<(u64, bool)> {
    match holds.gate_next(7, Class::Write, now, |_| false) {
        GateNext::Try { paid, .. } => {
            holds.admit(7, Class::Write, now, 0).map(|held| (held.meta.0, paid))
        }
        GateNext::At(_) | GateNext::Nothing => None,
    }
}

#[test]
fn one_goes_through_a_closed_gate_and_each_answer_lets_two_more_go() {
    let mut h = Holds::default();
    h.hold(7, 0);
    let lanes: Vec<ClientId> = (1..=7).map(id).collect();
    assert!(h.close(7, Class::Write, 10, |failures| u64::from(failures) * 10));
    for &lane in &lanes {
        h.push_fresh(7, lane, command(u64::from(lane.index)));
        assert!(h.wait_at_gate(7, Class::Write, lane));
    }
    assert!(!h.wait_at_gate(7, Class::Read, lanes[0]), "reads may be served");
    assert_eq!(h.gate_next(7, Class::Write, 10, |_| false), GateNext::At(20));
    assert_eq!(through(&mut h, 20), Some((1, false)), "a probe needs the budget");
    assert_eq!(through(&mut h, 20), None, "one at a time");
    // Refused: the next lane probes, and later.
    h.push_back_again(7, lanes[0], command(1), 0);
    assert!(!h.close(7, Class::Write, 20, |failures| u64::from(failures) * 10));
    assert!(h.wait_at_gate(7, Class::Write, lanes[0]));
    assert_eq!(through(&mut h, 39), None);
    assert_eq!(through(&mut h, 40), Some((2, false)));
    assert!(h.calm(1_000_000).is_empty(), "somebody waits");
    assert_eq!(h.done(7, lanes[1], true, 40), Some(Class::Write));
    assert_eq!([through(&mut h, 40), through(&mut h, 40)], [Some((3, true)), Some((4, true))]);
    assert_eq!(through(&mut h, 40), None);
    // Given up, not answered: nothing is learned from it.
    h.done(7, lanes[2], false, 40);
    assert_eq!(through(&mut h, 40), Some((5, false)));
    for lane in [3, 4] {
        h.done(7, lanes[lane], true, 41);
    }
    let rest: Vec<_> = std::iter::from_fn(|| through(&mut h, 41)).map(|(n, _)| n).collect();
    assert_eq!(rest, [6, 7, 1], "what was refused is not lost");
    for lane in [5, 6, 0] {
        h.done(7, lanes[lane], true, 42);
    }
    assert!(!h.wait_at_gate(7, Class::Write, lanes[0]), "open");
}

#[test]
fn a_slot_is_not_calm_while_a_retry_waits_for_the_budget() {
    let mut h = Holds::default();
    h.hold(7, 0);
    h.push_refused(7, A, command(1));
    h.owe(7, A);
    assert!(h.calm(1_000_000).is_empty());
    assert!(h.owes(7, A, true));
    assert_eq!(next(&mut h, A), Some(1));
    assert_eq!(h.calm(1_000_000), [7]);
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
