//! The table of emulated commands: the recipe of each, and which guarantees are given up.

use super::algebra::Op;
use super::sets::{self, SetOutput};
use super::talk::{Emulation, Request};
use super::{moves, pops, sort, stores, streams};

/// How a command is composed of commands for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// Fetches the sets and combines them.
    Sets(Op, SetOutput),
    /// Fetches sorted sets, and plain sets as such, and combines them.
    SortedSets(Op, SetOutput),
    /// Fetches the HyperLogLogs and merges them.
    HllCount,
    /// Copies HyperLogLogs to the target's slot, where a node merges them.
    HllMerge,
    /// Fetches the strings and combines them.
    Bits,
    /// Copies one string to the other's slot, where a node compares them.
    LongestCommon,
    /// Fetches the elements, their weights, and the values of GET patterns.
    Sort,
    /// The source's node computes the result; its dump is restored to the target.
    ComputedThere,
    /// Restores a dump of the source to the target.
    Copy,
    /// Like `Copy`, then removes the source.
    Rename,
    /// Adds the member to the target, then removes it from the source.
    SetMember,
    /// Pushes the element to the target, then removes it from the source; `true`: blocking.
    ListElement(bool),
    /// Pops from the first key that exists; `true`: blocking.
    Pop(bool),
    /// Reads each stream by itself; may block.
    Streams,
    /// Checks all keys, then sets them slot by slot.
    SetIfNone,
}

/// An emulated command.
#[derive(Debug)]
pub struct Entry {
    /// The command's name in the command table.
    pub name: &'static str,
    /// How it is emulated.
    pub recipe: Recipe,
    /// The steps and the guarantees given up, for `docs/commands.md`.
    pub doc: &'static str,
}

const READS_DOC: &str = "Over several slots (`emulate`) slotway reads each key with a command of its own, all at the \
     same time, and combines them: not an atomic snapshot";
const STORES_DOC: &str = "Over several slots (`emulate`) slotway reads each key as for the command without `STORE`, \
     then writes the target atomically: writes to a source in between are not included";

const SORT_DOC: &str = "With patterns in `BY` or `GET`, or a target in another slot (`emulate`), slotway reads the \
     elements, then the keys of the patterns (not an atomic snapshot), and writes the target \
     atomically. Without `emulate` a node refuses patterns";
const THERE_DOC: &str = "With the target in another slot (`emulate`) the source's node computes the result, which is \
     then restored to the target (`DUMP`, `RESTORE`): writes to the source in between are not \
     included";
const RENAME_DOC: &str = "Over several slots (`emulate`) by `DUMP` and `RESTORE`, with the time to live; the source is \
     removed once the target is confirmed, and only if it is unchanged (a script compares the \
     dump), otherwise it is copied again. For a moment other clients see both keys; after an \
     error in between both may exist, and the error says so";
const MOVE_DOC: &str = "Over several slots (`emulate`) the element is written to the target, and removed from the \
     source once that is confirmed: for a moment other clients see it in both; after an error in \
     between both may have it, and the error says so. Such moves from one source run one after \
     the other. If another client takes the element from the source meanwhile, it is removed from \
     the target";
const BLOCKING_MOVE_DOC: &str = "Over several slots (`emulate`) like the command that does not block; the source is polled, \
     at least every `commands.cross_slot_turn`, and blocked clients are not served in order";
const POP_DOC: &str = "Over several slots (`emulate`) slotway checks all keys, then pops from the first that is not \
     empty: an element pushed to an earlier key in between is not taken";
const BLOCKING_POP_DOC: &str = "Over several slots (`emulate`) slotway polls the keys, at least every \
     `commands.cross_slot_turn`, and pops from the first that is not empty; blocked clients are \
     not served in order. Elements popped for a client that has disconnected are pushed back";

const fn entry_of(name: &'static str, recipe: Recipe, doc: &'static str) -> Entry {
    Entry { name, recipe, doc }
}

/// All emulated commands.
pub const TABLE: &[Entry] = &[
    entry_of("sinter", Recipe::Sets(Op::Inter, SetOutput::Members), READS_DOC),
    entry_of("sintercard", Recipe::Sets(Op::Inter, SetOutput::Count), READS_DOC),
    entry_of("sinterstore", Recipe::Sets(Op::Inter, SetOutput::Store), STORES_DOC),
    entry_of("sunion", Recipe::Sets(Op::Union, SetOutput::Members), READS_DOC),
    entry_of("sunionstore", Recipe::Sets(Op::Union, SetOutput::Store), STORES_DOC),
    entry_of("sdiff", Recipe::Sets(Op::Diff, SetOutput::Members), READS_DOC),
    entry_of("sdiffstore", Recipe::Sets(Op::Diff, SetOutput::Store), STORES_DOC),
    entry_of("zinter", Recipe::SortedSets(Op::Inter, SetOutput::Members), READS_DOC),
    entry_of("zintercard", Recipe::SortedSets(Op::Inter, SetOutput::Count), READS_DOC),
    entry_of("zinterstore", Recipe::SortedSets(Op::Inter, SetOutput::Store), STORES_DOC),
    entry_of("zunion", Recipe::SortedSets(Op::Union, SetOutput::Members), READS_DOC),
    entry_of("zunionstore", Recipe::SortedSets(Op::Union, SetOutput::Store), STORES_DOC),
    entry_of("zdiff", Recipe::SortedSets(Op::Diff, SetOutput::Members), READS_DOC),
    entry_of("zdiffstore", Recipe::SortedSets(Op::Diff, SetOutput::Store), STORES_DOC),
    entry_of("pfcount", Recipe::HllCount, READS_DOC),
    entry_of(
        "pfmerge",
        Recipe::HllMerge,
        "Over several slots (`emulate`) slotway reads the sources in other slots, then merges them in the target's slot atomically (`MULTI`): writes to a source in between are not included",
    ),
    entry_of("bitop", Recipe::Bits, STORES_DOC),
    entry_of(
        "lcs",
        Recipe::LongestCommon,
        "Over several slots (`emulate`) the second string is copied to the slot of the first for the comparison (in `MULTI`, so that no client sees it there): not an atomic snapshot, and a write for the first key's node",
    ),
    entry_of("sort", Recipe::Sort, SORT_DOC),
    entry_of("sort_ro", Recipe::Sort, SORT_DOC),
    entry_of("zrangestore", Recipe::ComputedThere, THERE_DOC),
    entry_of("geosearchstore", Recipe::ComputedThere, THERE_DOC),
    entry_of("georadius", Recipe::ComputedThere, THERE_DOC),
    entry_of("georadiusbymember", Recipe::ComputedThere, THERE_DOC),
    entry_of(
        "copy",
        Recipe::Copy,
        "Over several slots (`emulate`) by `DUMP` and `RESTORE`, with the time to live: writes to the source in between are not included",
    ),
    entry_of("rename", Recipe::Rename, RENAME_DOC),
    entry_of("renamenx", Recipe::Rename, RENAME_DOC),
    entry_of("smove", Recipe::SetMember, MOVE_DOC),
    entry_of("lmove", Recipe::ListElement(false), MOVE_DOC),
    entry_of("rpoplpush", Recipe::ListElement(false), MOVE_DOC),
    entry_of("blmove", Recipe::ListElement(true), BLOCKING_MOVE_DOC),
    entry_of("brpoplpush", Recipe::ListElement(true), BLOCKING_MOVE_DOC),
    entry_of("lmpop", Recipe::Pop(false), POP_DOC),
    entry_of("zmpop", Recipe::Pop(false), POP_DOC),
    entry_of("blpop", Recipe::Pop(true), BLOCKING_POP_DOC),
    entry_of("brpop", Recipe::Pop(true), BLOCKING_POP_DOC),
    entry_of("blmpop", Recipe::Pop(true), BLOCKING_POP_DOC),
    entry_of("bzpopmin", Recipe::Pop(true), BLOCKING_POP_DOC),
    entry_of("bzpopmax", Recipe::Pop(true), BLOCKING_POP_DOC),
    entry_of("bzmpop", Recipe::Pop(true), BLOCKING_POP_DOC),
    entry_of(
        "xread",
        Recipe::Streams,
        "Over several slots (`emulate`) each stream is read by itself, not at the same moment; with `BLOCK` they are polled, at least every `commands.cross_slot_turn`",
    ),
    entry_of(
        "xreadgroup",
        Recipe::Streams,
        "Over several slots (`emulate`) like `XREAD`; slotway checks first that all groups exist. If a stream fails afterwards, the entries read from the others are pending for the consumer, and the error names their streams (with `NOACK` they are lost)",
    ),
    entry_of(
        "msetnx",
        Recipe::SetIfNone,
        "Over several slots (`emulate`) slotway checks all keys, then sets them slot by slot, each slot atomically: other clients see some before the others, and if a key is created in between, the keys of earlier slots are set and the error names them",
    ),
];

/// The entry of a command, and its index in the table.
pub fn entry(name: &str) -> Option<(usize, &'static Entry)> {
    TABLE.iter().enumerate().find(|(_, entry)| entry.name == name)
}

/// Creates the emulation of a command.
pub fn begin(recipe: Recipe, request: Request) -> Emulation {
    match recipe {
        Recipe::Sets(op, output) => Emulation::new(request, |t, r| sets::sets(t, r, op, output)),
        Recipe::SortedSets(op, output) => {
            Emulation::new(request, |t, r| sets::sorted_sets(t, r, op, output))
        }
        Recipe::HllCount => Emulation::new(request, sets::hll_count),
        Recipe::HllMerge => Emulation::new(request, stores::hll_merge),
        Recipe::Bits => Emulation::new(request, stores::bit_operation),
        Recipe::LongestCommon => Emulation::new(request, stores::longest_common),
        Recipe::Sort => Emulation::new(request, sort::sort),
        Recipe::ComputedThere => Emulation::new(request, stores::computed_there),
        Recipe::Copy => Emulation::new(request, moves::copy),
        Recipe::Rename => Emulation::new(request, moves::rename),
        Recipe::SetMember => Emulation::new(request, moves::set_member),
        Recipe::ListElement(waits) => {
            Emulation::new(request, move |t, r| moves::list_element(t, r, waits))
        }
        Recipe::Pop(waits) => Emulation::new(request, move |t, r| pops::pop(t, r, waits)),
        Recipe::Streams => Emulation::new(request, streams::read),
        Recipe::SetIfNone => Emulation::new(request, moves::set_if_none),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::is_error;
    use super::super::talk::Next;
    use super::super::talk::testing::lost;
    use super::*;
    use crate::cluster::Slot;
    use crate::command::CommandTable;
    use crate::errors::Failure;
    use crate::resp::Protocol;
    use proptest::prelude::*;

    #[test]
    fn each_entry_is_a_distinct_command() {
        let table = CommandTable::builtin();
        for (i, one) in TABLE.iter().enumerate() {
            assert!(table.by_name(one.name).is_some(), "{}", one.name);
            assert_eq!(entry(one.name).map(|(at, _)| at), Some(i), "{}", one.name);
        }
    }

    const REPLIES: [&[u8]; 13] = [
        b"+OK\r\n",
        b":0\r\n",
        b":1\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"_\r\n",
        b"$1\r\nx\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\nx\r\n$3\r\n1.5\r\n",
        b"*3\r\n:0\r\n:1\r\n$1\r\nx\r\n",
        b"%1\r\n$1\r\nx\r\n*1\r\n*2\r\n$1\r\nm\r\n,2\r\n",
        b"-WRONGTYPE x\r\n",
        b"-NOPERM no key\r\n",
    ];

    fn failures() -> [Failure; 2] {
        [lost(), Failure::HoldsFull { slot: Slot(7) }]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever the arguments, replies and failures, every recipe ends; and until it writes,
        /// its outcome is never unknown.
        #[test]
        fn recipes_never_panic_and_always_end(
            at in 0..TABLE.len(),
            words in proptest::collection::vec(0..14usize, 0..9),
            keys in proptest::collection::btree_set(1..9usize, 0..4),
            said in proptest::collection::vec(0..REPLIES.len() + failures().len(), 1..30),
            resp3 in any::<bool>(),
        ) {
            const WORDS: [&str; 14] = [
                "a", "b", "LEFT", "RIGHT", "LIMIT", "1", "0", "STREAMS", "BLOCK", "WEIGHTS",
                "STORE", "BY", "w_*->f", "GET",
            ];
            let entry = &TABLE[at];
            let args = std::iter::once(entry.name).chain(words.iter().map(|&w| WORDS[w]));
            let request = Request {
                args: args.map(|word| word.as_bytes().into()).collect(),
                keys: keys.into_iter().collect(),
                name: entry.name.to_owned(),
                slots: crate::cluster::SlotSpace::CLUSTER,
                protocol: if resp3 { Protocol::Resp3 } else { Protocol::Resp2 },
                wait: Some(100_000),
                turn: 50_000,
                patience: 100_000,
                ticket: 3,
            };
            let mut emulation = begin(entry.recipe, request);
            let (mut now, mut i, mut rounds) = (0, 0, 0);
            loop {
                rounds += 1;
                prop_assert!(rounds < 2_000, "{} does not end", entry.name);
                now += 1_000;
                match emulation.advance(now) {
                    Next::Ask(steps) => {
                        for place in 0..steps.len() {
                            i += 1;
                            let (at, place) = (said[i % said.len()], place as u32);
                            match REPLIES.get(at) {
                                Some(reply) => emulation.add(place, reply),
                                None => {
                                    let failure = failures()[at - REPLIES.len()].clone();
                                    emulation.fail(place, failure)
                                }
                            };
                        }
                    }
                    Next::Pause(micros) => now += micros,
                    Next::Done(Ok(reply)) => {
                        prop_assert!(!reply.is_empty(), "{} answers nothing", entry.name);
                        prop_assert!(!is_error(&reply), "{} succeeds with an error", entry.name);
                        break;
                    }
                    Next::Done(Err(cause)) => {
                        let unknown = cause.is_outcome_unknown();
                        prop_assert!(!(unknown && emulation.only_reads()), "{}", entry.name);
                        break;
                    }
                }
            }
        }
    }
}
