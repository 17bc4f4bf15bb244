//! Requests to plans, by the built-in table: no request panics, and the keys of one that is split
//! are arguments of it, each with what belongs to it.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slotway::cluster::slot_of;
use slotway::command::CommandTable;
use slotway::resp::{ArgRange, Args};
use slotway::route::{Plan, Router};

static ROUTER: LazyLock<Router> = LazyLock::new(|| Router::new(Arc::new(CommandTable::builtin())));

#[derive(Arbitrary, Debug)]
enum Word<'a> {
    Bytes(&'a [u8]),
    Number(i64),
    Small(u8),
    Option(u8),
    Key(u8),
}

/// What commands look for among their arguments.
const OPTIONS: [&str; 12] = [
    "STORE",
    "GET",
    "BY",
    "LIMIT",
    "KEYS",
    "AUTH",
    "AUTH2",
    "STREAMS",
    "BLOCK",
    "COUNT",
    "GROUP",
    "STOREDIST",
];

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    command: u16,
    words: Vec<Word<'a>>,
}

fuzz_target!(|input: Input| {
    let (mut buf, mut ranges) = (Vec::new(), Vec::new());
    let mut push = |word: &[u8]| {
        let start = buf.len() as u32;
        buf.extend_from_slice(word);
        ranges.push(ArgRange { start, end: buf.len() as u32 });
    };
    let table = ROUTER.table();
    match table.iter().nth(usize::from(input.command) % (table.len() + 1)) {
        Some((_, spec)) => spec.name.split('|').for_each(|word| push(word.as_bytes())),
        None => push(b"nosuch"),
    }
    for word in &input.words {
        match word {
            Word::Bytes(bytes) => push(bytes),
            Word::Number(n) => push(n.to_string().as_bytes()),
            Word::Small(n) => push((n % 8).to_string().as_bytes()),
            Word::Option(n) => push(OPTIONS[usize::from(*n) % OPTIONS.len()].as_bytes()),
            Word::Key(n) => push(&[b'k', b'0' + n % 4]),
        }
    }
    let args = Args::new(&buf, &ranges);
    let mut keys = Vec::new();
    let plan = ROUTER.plan(slotway::cluster::ViewId::ROUTED, ROUTER.command(&args), &args, &mut keys);
    match plan {
        Plan::Slot(slot) => {
            // Where keys were looked for, the first decides.
            if let Some(&first) = keys.first() {
                assert_eq!(args.get(first as usize).map(slot_of), Some(slot));
            }
        }
        Plan::Split { step, .. } => {
            assert!(step >= 1 && keys.len() >= 2);
            assert!(keys.windows(2).all(|pair| pair[1] == pair[0] + step), "{keys:?} by {step}");
            let last = *keys.last().expect("there are two") + step - 1;
            assert!((last as usize) < args.len(), "{keys:?} by {step} of {}", args.len());
        }
        _ => {}
    }
});
