//! Commands that compute in one slot and store in another: ZRANGESTORE, GEOSEARCHSTORE, GEORADIUS …
//! STORE; and PFMERGE, LCS and BITOP, whose strings are brought into one slot.
//!
//! Slotway's own keys exist only between MULTI and EXEC: no client sees them, none is left behind.

use std::rc::Rc;

use super::fetch::{check_arguments, distinct, dry_run, own_key, target_failed, with_keys};
use super::reply::scalar;
use super::reply::{CommandResult, Reply, batch, check_frame, first_error, is_null, passed_on};
use super::talk::{Request, Step, Talk};
use crate::cluster::slot_of;
use crate::errors::Failure;
use crate::resp::reply::integer;

/// The source's node executes the command with a temporary target in the same slot; the dump of
/// that target is restored to the client's target.
pub(super) async fn computed_there(talk: Talk, req: Rc<Request>) -> CommandResult {
    // The target is the first argument, or the last one that follows STORE.
    let target_first = req.name.ends_with("store");
    let (source, target) = match target_first {
        true => (req.key(1), req.key(0)),
        false => (req.key(0), req.keys.iter().max().map_or(&[][..], |&at| req.arg(at))),
    };
    let aside = own_key(source, "target");
    let keys: Vec<Vec<u8>> = (0..req.keys.len())
        .map(|i| match i == usize::from(target_first) {
            true => source.to_vec(),
            false => aside.clone(),
        })
        .collect();
    let steps = [
        vec![b"DEL".as_slice(), &aside],
        with_keys(&req, &keys),
        vec![b"DUMP", &aside],
        vec![b"DEL", &aside],
    ];
    let reply = talk.one(Step::batch(source, steps).harmless()).await;
    let replies = batch(&reply)?;
    let (Some(said), Some(dump)) = (replies.get(1), replies.get(2)) else {
        return Err(Failure::ShortExec.into());
    };
    check_frame(said)?;
    talk.writes();
    let write = match scalar(dump) {
        Some(dump) => Step::one(target, &[b"RESTORE", target, b"0", dump, b"REPLACE"]),
        None => Step::one(target, &[b"DEL", target]),
    };
    let written = talk.one(write).await;
    match written.is_error() {
        true => Err(target_failed(&talk, &req, written)),
        false => Ok(said.to_vec()),
    }
}

/// BITOP.
pub(super) async fn bit_operation(talk: Talk, req: Rc<Request>) -> CommandResult {
    let (keys, of) = distinct(&req, 1);
    let mut steps: Vec<Step> = keys.iter().map(|key| Step::one(key, &[b"GET", key])).collect();
    steps.push(dry_run(&req));
    let mut replies = talk.ask(steps).await;
    check_arguments(&replies.pop().unwrap_or_default())?;
    first_error(&replies)?;
    let sources: Vec<&[u8]> =
        of.iter().map(|&i| replies.get(i).and_then(Reply::scalar).unwrap_or_default()).collect();
    let result = bits(req.arg(1), &sources).ok_or(Failure::Syntax)?;
    let target = req.key(0);
    talk.writes();
    let write = match result.is_empty() {
        true => Step::one(target, &[b"DEL", target]),
        false => Step::one(target, &[b"SET", target, &result]),
    };
    let written = talk.one(write).await;
    match written.is_error() {
        true => Err(target_failed(&talk, &req, written)),
        false => Ok(super::fetch::integer(result.len() as i64)),
    }
}

/// Applies a bit operation. Shorter strings are padded with zeros. `None`: unknown operation.
fn bits(operation: &[u8], sources: &[&[u8]]) -> Option<Vec<u8>> {
    let length = sources.iter().map(|s| s.len()).max().unwrap_or(0);
    let (first, others) = sources.split_first()?;
    let mut result = first.to_vec();
    result.resize(length, 0);
    if operation.eq_ignore_ascii_case(b"not") {
        result.iter_mut().for_each(|byte| *byte = !*byte);
        return Some(result);
    }
    let is = |name: &[u8]| operation.eq_ignore_ascii_case(name);
    if is(b"one") {
        // Bits that are set in more than one source are cleared.
        let mut several = vec![0; length];
        for source in others {
            for ((byte, several), other) in result.iter_mut().zip(&mut several).zip(*source) {
                *several |= *byte & other;
                *byte |= other;
            }
        }
        result.iter_mut().zip(&several).for_each(|(byte, several)| *byte &= !several);
        return Some(result);
    }
    if is(b"diff") || is(b"diff1") || is(b"andor") {
        let any = bits(b"or", others).unwrap_or_default();
        for (byte, any) in result.iter_mut().zip(any.iter().chain(std::iter::repeat(&0))) {
            *byte = match () {
                () if is(b"diff") => *byte & !any,
                () if is(b"diff1") => !*byte & any,
                () => *byte & any,
            };
        }
        return Some(result);
    }
    let of: fn(u8, u8) -> u8 = match () {
        () if operation.eq_ignore_ascii_case(b"and") => |a, b| a & b,
        () if operation.eq_ignore_ascii_case(b"or") => |a, b| a | b,
        () if operation.eq_ignore_ascii_case(b"xor") => |a, b| a ^ b,
        () => return None,
    };
    for source in others {
        let zeros = std::iter::repeat(&0);
        for (byte, other) in result.iter_mut().zip(source.iter().chain(zeros)) {
            *byte = of(*byte, *other);
        }
    }
    Some(result)
}

/// PFMERGE: the sources in other slots are copied to the target's slot, where a node merges them.
pub(super) async fn hll_merge(talk: Talk, req: Rc<Request>) -> CommandResult {
    let target = req.key(0);
    let (keys, _) = distinct(&req, 1);
    let is_far = |key: &&&[u8]| slot_of(key) != slot_of(target);
    let far = keys.iter().filter(is_far).map(|key| Step::one(key, &[b"GET", key]));
    let replies = talk.ask(far.collect()).await;
    first_error(replies.iter().filter(|reply| !reply.is_error_of("WRONGTYPE")))?;
    // In the order of the arguments, so that the node reports the first invalid one.
    let asides: Vec<Vec<u8>> =
        (0..replies.len()).map(|i| own_key(target, &format!("source:{i}"))).collect();
    let mut brought = replies.iter().zip(&asides);
    let mut commands: Vec<Vec<&[u8]>> = Vec::new();
    let mut merge: Vec<&[u8]> = vec![b"PFMERGE", target];
    for key in &keys {
        if !is_far(&key) {
            merge.push(key);
        } else if let Some((reply, aside)) = brought.next() {
            match reply.scalar() {
                Some(string) => commands.push(vec![b"SET", aside, string]),
                None if reply.is_error() => commands.push(vec![b"RPUSH", aside, b"no string"]),
                None => continue,
            }
            merge.push(aside);
        }
    }
    let at = commands.len();
    commands.push(merge);
    if !asides.is_empty() {
        let asides = asides.iter().map(Vec::as_slice);
        commands.push(std::iter::once(b"DEL".as_slice()).chain(asides).collect());
    }
    talk.writes();
    let reply = talk.one(Step::batch(target, commands)).await;
    match batch(&reply) {
        Ok(all) => passed_on(all.get(at).ok_or(Failure::ShortExec)?),
        Err(cause) => Err(target_failed(&talk, &req, cause)),
    }
}

/// LCS: the second string is copied to the slot of the first, where a node compares them: for long
/// strings that takes seconds.
pub(super) async fn longest_common(talk: Talk, req: Rc<Request>) -> CommandResult {
    let (first, second) = (req.key(0), req.key(1));
    let reply = talk.one(Step::one(second, &[b"GET", second])).await;
    if reply.is_error_of("WRONGTYPE") {
        return Err(Failure::NotStrings.into());
    }
    reply.check()?;
    let aside = own_key(first, "second");
    let keys = [first.to_vec(), aside.clone()];
    let string = reply.scalar();
    let commands = || {
        let mut commands = vec![vec![b"DEL".as_slice(), &aside]];
        commands.extend(string.map(|string| vec![b"SET".as_slice(), &aside, string]));
        commands.push(with_keys(&req, &keys));
        commands.push(vec![b"DEL", &aside]);
        commands
    };
    let at = commands().len() - 2;
    let reply = talk.one_even_if_full(|| Step::batch(first, commands()).harmless()).await;
    let said = batch(&reply)?.get(at).copied();
    let whole = said.filter(|said| !is_null(said) && integer(said).is_none_or(|n| n >= 0));
    passed_on(whole.ok_or(Failure::ShortExec)?)
}

#[cfg(test)]
mod tests {
    use super::super::talk::testing::{FakeNode, drive, request};
    use super::super::talk::{Emulation, Next};
    use super::*;
    use crate::errors::Cause;

    #[test]
    fn bit_operations() {
        assert_eq!(bits(b"AND", &[b"\xff\x0f", b"\x3c"]).unwrap(), [0x3c, 0]);
        assert_eq!(bits(b"or", &[b"\x01", b"\x10\x80"]).unwrap(), [0x11, 0x80]);
        assert_eq!(bits(b"xor", &[b"\xff", b"\xff", b"\x01"]).unwrap(), [1]);
        assert_eq!(bits(b"not", &[b"\x0f"]).unwrap(), [0xf0]);
        assert_eq!(bits(b"and", &[b"", b""]).unwrap(), [0; 0]);
        assert_eq!(bits(b"nand", &[b"a"]), None);
        let three: [&[u8]; 3] = [b"\xf0\xff", b"\x33", b"\x55\x0f\x81"];
        assert_eq!(bits(b"DIFF", &three).unwrap(), [0x80, 0xf0, 0]);
        assert_eq!(bits(b"diff1", &three).unwrap(), [0x07, 0, 0x81]);
        assert_eq!(bits(b"andor", &three).unwrap(), [0x70, 0x0f, 0]);
        // Sources: 1111 0000, 0011 0011, 0101 0101
        assert_eq!(bits(b"one", &three).unwrap(), [0x86, 0xf0, 0x81]);
    }

    #[test]
    fn the_target_gets_the_result_computed_at_the_source() {
        let node = FakeNode::new(&[
            (
                "MULTI DEL NONE ZRANGESTORE NONE s 0 -1 DUMP NONE DEL NONE EXEC",
                "*4\r\n:0\r\n:3\r\n$4\r\nDUMP\r\n:1\r\n",
            ),
            ("RESTORE d 0 DUMP REPLACE", "+OK\r\n"),
            (
                "MULTI DEL NONE GEORADIUS s 0 0 1 m STORE NONE DUMP NONE DEL NONE EXEC",
                "*4\r\n:0\r\n:0\r\n$-1\r\n:0\r\n",
            ),
            ("DEL d", ":1\r\n"),
        ]);
        let req = request("ZRANGESTORE d s 0 -1", &[1, 2]);
        assert_eq!(drive(req, &node, computed_there), ":3\r\n");
        let req = request("GEORADIUS s 0 0 1 m STORE d", &[1, 7]);
        assert_eq!(drive(req, &node, computed_there), ":0\r\n");
    }

    #[test]
    fn a_short_reply_to_exec() {
        let steps = "MULTI DEL NONE ZRANGESTORE NONE s 0 -1 DUMP NONE DEL NONE EXEC";
        let node = FakeNode::new(&[(steps, "*1\r\n:0\r\n")]);
        let req = request("ZRANGESTORE d s 0 -1", &[1, 2]);
        let short = "-ERR a node answered EXEC with too little\r\n";
        assert_eq!(drive(req, &node, computed_there), short);
    }

    #[test]
    fn lcs_rejects_other_types() {
        let node = FakeNode::new(&[("GET b", "-WRONGTYPE x\r\n")]);
        assert_eq!(
            drive(request("LCS a b", &[1, 2]), &node, longest_common),
            "-ERR The specified keys must contain string values\r\n"
        );
    }

    /// A node's error in the reply to a batch becomes the client's error.
    #[test]
    fn a_nodes_error_in_a_batch_is_the_clients() {
        let compare = "MULTI DEL NONE SET NONE y LCS a NONE DEL NONE EXEC";
        let node = FakeNode::new(&[
            ("GET b", "$1\r\ny\r\n"),
            (compare, "*4\r\n:0\r\n+OK\r\n-WRONGTYPE x\r\n:1\r\n"),
        ]);
        let mut emulation = Emulation::new(request("LCS a b", &[1, 2]), longest_common);
        let outcome = loop {
            match emulation.advance(0) {
                Next::Ask(steps) => node.answer(&mut emulation, &steps),
                Next::Pause(_) => {}
                Next::Done(outcome) => break outcome,
            }
        };
        assert_eq!(outcome, Err(Cause::node(b"-WRONGTYPE x\r\n")));
    }
}
