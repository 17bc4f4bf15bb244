//! COMMAND replies: whatever a server says of its commands, the table laid over the built-in one
//! stays a table: known commands keep their ids, every command is found by its name, and plans are
//! made by it.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use slotway::command::CommandTable;
use slotway::resp::{ArgRange, Args};
use slotway::route::Router;

static BUILTIN: LazyLock<CommandTable> = LazyLock::new(CommandTable::builtin);

fuzz_target!(|reply: &[u8]| {
    let Ok(table) = BUILTIN.overlay(reply) else { return };
    assert!(table.len() >= BUILTIN.len());
    for ((id, old), (same, new)) in BUILTIN.iter().zip(table.iter()) {
        assert_eq!((id, &old.name), (same, &new.name));
    }
    let twice = table.overlay(reply).expect("it was read before");
    assert_eq!(twice.len(), table.len(), "the same reply brings nothing new");

    let added: Vec<_> = table.iter().skip(BUILTIN.len()).map(|(_, s)| s.name.clone()).collect();
    let router = Router::new(Arc::new(table));
    let mut keys = Vec::new();
    for name in added.iter().map(|name| &**name).chain(["get", "mget", "eval", "config"]) {
        for count in [1, 2, 3, 7] {
            let (buf, ranges) = words(name, count);
            let args = Args::new(&buf, &ranges);
            let command = router.command(&args);
            assert!(command <= router.unknown());
            keys.clear();
            router.plan(slotway::cluster::ViewId::ROUTED, command, &args, &mut keys);
            assert!(keys.iter().all(|&at| (at as usize) < args.len()), "{name}: {keys:?}");
        }
    }
});

/// A request: `name` (of a subcommand: both its words) and arguments that count something.
fn words(name: &str, count: usize) -> (Vec<u8>, Vec<ArgRange>) {
    let (mut buf, mut ranges) = (Vec::new(), Vec::new());
    let rest = (1..count).map(|i| i.to_string());
    for word in name.split('|').map(str::to_owned).chain(rest) {
        let start = buf.len() as u32;
        buf.extend_from_slice(word.as_bytes());
        ranges.push(ArgRange { start, end: buf.len() as u32 });
    }
    (buf, ranges)
}
