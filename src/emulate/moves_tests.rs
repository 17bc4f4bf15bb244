//! Tests of `moves`.

use super::super::talk::testing::{FakeNode, drive, request};
use super::*;

const TAKEN: (&str, &str) = ("SET NONE 7 NX PX 5000", "+OK\r\n");
const FREED: (&str, &str) = ("DEL NONE", ":1\r\n");

#[test]
fn a_key_is_written_before_it_is_removed() {
    let script = String::from_utf8_lossy(REMOVE_IF_SAME);
    let removal = format!("EVAL {script} 2 a NONE {}", Sha::of(b"DUMP"));
    let node = FakeNode::new(&[
        TAKEN,
        FREED,
        ("MULTI DUMP a PEXPIRETIME a EXEC", "*2\r\n$4\r\nDUMP\r\n:1234\r\n"),
        ("RESTORE b 1234 DUMP ABSTTL REPLACE", "+OK\r\n"),
        (&removal, ":1\r\n"),
    ]);
    assert_eq!(drive(request("RENAME a b", &[1, 2]), &node, rename), "+OK\r\n");
    let order = node.asked.borrow();
    assert!(order[3].starts_with("RESTORE") && order[4].starts_with("EVAL"), "{order:?}");
}

#[test]
fn existing_target() {
    let node = FakeNode::new(&[
        TAKEN,
        FREED,
        ("MULTI DUMP a PEXPIRETIME a EXEC", "*2\r\n$4\r\nDUMP\r\n:-1\r\n"),
        ("RESTORE b 0 DUMP ABSTTL", "-BUSYKEY Target key name already exists.\r\n"),
        ("DEL NONE", ":1\r\n"),
        ("COPY NONE NONE", ":0\r\n"),
    ]);
    assert_eq!(drive(request("RENAMENX a b", &[1, 2]), &node, rename), ":0\r\n");
    assert_eq!(drive(request("COPY a b", &[1, 2]), &node, copy), ":0\r\n");
}

#[test]
fn an_element_taken_by_another_client_is_removed_from_the_target() {
    let node = FakeNode::new(&[
        TAKEN,
        FREED,
        ("LMOVE NONE NONE LEFT RIGHT", "$-1\r\n"),
        ("LINDEX a 0", "$1\r\nx\r\n"),
        ("RPUSH b x", ":1\r\n"),
        ("MULTI LREM a 1 x DEL NONE EXEC", "*2\r\n:0\r\n:1\r\n"),
        ("LREM b -1 x", ":1\r\n"),
    ]);
    let req = request("LMOVE a b LEFT RIGHT", &[1, 2]);
    let mut emulation = super::super::talk::Emulation::new(req, |t, r| list_element(t, r, false));
    let mut now = 0;
    let mut rounds = 0;
    // It tries until its patience is over.
    let end = loop {
        match emulation.advance(now) {
            super::super::talk::Next::Ask(steps) => node.answer(&mut emulation, &steps),
            super::super::talk::Next::Pause(_) => {}
            super::super::talk::Next::Done(outcome) => break outcome,
        }
        now += 100_000;
        rounds += 1;
        assert!(rounds < 1000);
    };
    assert_eq!(end, Err(Failure::ElementsContended.into()));
    let asked = node.asked.borrow();
    let count = |words: &str| asked.iter().filter(|w| *w == words).count();
    assert_eq!(count("RPUSH b x"), count("LREM b -1 x"));
    assert!(count("RPUSH b x") > 1);
}

#[test]
fn without_the_lock_nothing_is_changed() {
    let node = FakeNode::new(&[("SET NONE 7 NX PX 5000", "$-1\r\n")]);
    assert_eq!(
        drive(request("RENAME a b", &[1, 2]), &node, rename),
        "-ERR RENAME over several slots: others are moving 'a' all the time; nothing was \
         changed\r\n"
    );
}

#[test]
fn missing_source() {
    let dump = ("MULTI DUMP a PEXPIRETIME a EXEC", "*2\r\n$-1\r\n:-2\r\n");
    let node = FakeNode::new(&[TAKEN, FREED, dump]);
    assert_eq!(drive(request("RENAME a b", &[1, 2]), &node, rename), "-ERR no such key\r\n");
}

#[test]
fn a_source_that_keeps_changing_is_not_removed() {
    let script = String::from_utf8_lossy(REMOVE_IF_SAME);
    let removal = format!("EVAL {script} 2 a NONE {}", Sha::of(b"DUMP"));
    let node = FakeNode::new(&[
        TAKEN,
        FREED,
        ("MULTI DUMP a PEXPIRETIME a EXEC", "*2\r\n$4\r\nDUMP\r\n:-1\r\n"),
        ("RESTORE b 0 DUMP ABSTTL REPLACE", "+OK\r\n"),
        (&removal, ":0\r\n"),
    ]);
    assert_eq!(
        drive(request("RENAME a b", &[1, 2]), &node, rename),
        "-ERR RENAME over several slots stopped halfway: the target has a copy, the source is \
         still there (commands.cross_slot = \"emulate\"); the cause: it changes all the time\r\n"
    );
}

#[test]
fn lost_write_of_the_target() {
    let dump = ("MULTI DUMP a PEXPIRETIME a EXEC", "*2\r\n$4\r\nDUMP\r\n:-1\r\n");
    let node =
        FakeNode::new(&[("COPY NONE NONE", ":0\r\n"), dump]).losing("RESTORE b 0 DUMP ABSTTL");
    assert_eq!(
        drive(request("COPY a b", &[1, 2]), &node, copy),
        "-OUTCOMEUNKNOWN COPY over several slots stopped halfway: the target may or may not have \
         been written, the sources are as they were (commands.cross_slot = \"emulate\"); the \
         cause: slotway lost its connection to n:1 (closed) after the command was sent\r\n"
    );
}

fn removal() -> FakeNode {
    FakeNode::new(&[
        TAKEN,
        FREED,
        ("SISMEMBER a m", ":1\r\n"),
        ("EXISTS a", ":1\r\n"),
        ("SISMEMBER b m", ":0\r\n"),
        ("SADD b m", ":1\r\n"),
    ])
}

#[test]
fn a_lost_removal_is_reported() {
    let mut node = removal().losing("MULTI SREM a m DEL NONE EXEC");
    node.and("GET NONE", "$1\r\n8\r\n");
    let said = drive(request("SMOVE a b m", &[1, 2]), &node, set_member);
    assert!(said.starts_with("-OUTCOMEUNKNOWN SMOVE over several slots stopped"), "{said}");
    assert!(said.contains(&Halfway::MayHaveRemoved.to_string()), "{said}");
}

/// The lock tells whether the removal was executed.
#[test]
fn the_lock_tells_whether_a_lost_removal_was_executed() {
    let mut node = removal().losing("MULTI SREM a m DEL NONE EXEC");
    node.and("GET NONE", "$-1\r\n");
    assert_eq!(drive(request("SMOVE a b m", &[1, 2]), &node, set_member), ":1\r\n");
}

#[test]
fn msetnx_reports_which_keys_are_set() {
    let slots = |key: &str| slot_of(key.as_bytes());
    let mut keys = ["a", "b"];
    keys.sort_by_key(|key| slots(key));
    let [one, two] = keys;
    let (one, two) = (format!("MSETNX {one} 1"), format!("MSETNX {two} 1"));
    let node = FakeNode::new(&[
        ("EXISTS a", ":0\r\n"),
        ("EXISTS b", ":0\r\n"),
        (&one, ":1\r\n"),
        (&two, ":0\r\n"),
    ]);
    let done = |set: &[&str], unknown: &[&str], others| {
        let [set, unknown] =
            [set, unknown].map(|keys| keys.iter().map(ToString::to_string).collect());
        format!("halfway: {} (", SomeSet { set, unknown, others })
    };
    let said = drive(request("MSETNX a 1 b 1", &[1, 3]), &node, set_if_none);
    let [first, second] = keys;
    assert!(said.contains(&done(&[first], &[], true)), "{said}");
    assert!(said.starts_with("-ERR MSETNX "), "{said}");
    let cause = "; the cause: one of the next keys came to exist in between\r\n";
    assert!(said.ends_with(cause), "{said}");
    let looks = [("EXISTS a", ":0\r\n"), ("EXISTS b", ":0\r\n")];
    let node = FakeNode::new(&looks).losing(&one);
    let said = drive(request("MSETNX a 1 b 1", &[1, 3]), &node, set_if_none);
    assert!(said.contains(&done(&[], &[first], true)), "{said}");
    let node = FakeNode::new(&[looks[0], looks[1], (&one, ":1\r\n")]).losing(&two);
    let said = drive(request("MSETNX a 1 b 1", &[1, 3]), &node, set_if_none);
    assert!(said.contains(&done(&[first], &[second], false)), "{said}");
}
