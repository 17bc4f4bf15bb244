//! Names that collide under a hash function without a key. What they cost is compared with what as
//! many ordinary names cost, in CPU time: on a busy machine both take longer, but no more work.

use std::thread;

use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Reply};

use super::quiet::served_beside;
use crate::common::Proxy;

/// Names in one attack.
const NAMES: u64 = 12_000;

/// The CPU time of an attack is at most so many times that of ordinary names. With colliding names
/// it would be hundreds of times as much.
const MOST: f64 = 4.0;

/// 16-byte names. All of those that `collide` have the same hash under FxHash, whose constant
/// their first half is.
fn names(collide: bool) -> Vec<Vec<u8>> {
    let first = if collide { 0x243f_6a88_85a3_08d3u64.to_le_bytes() } else { *b"ordinary" };
    (0..NAMES).map(|n| [first, n.to_be_bytes()].concat()).collect()
}

fn start(args: &[&str]) -> (Proxy, Cluster) {
    let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start(options).expect("a cluster");
    // On a busy machine the deadline is not what is tested.
    let args = [&["--workers", "1", "--set", "timeouts.command=60s"], args].concat();
    (Proxy::start(&cluster, &args), cluster)
}

/// Subscribes one connection to all `names`, one by one, with `command`, and unsubscribes it.
fn subscribe(proxy: &Proxy, command: &str, names: &[Vec<u8>]) {
    let mut sending = proxy.connect();
    let mut receiving = sending.try_clone().expect("a second handle");
    for command in [command.to_owned(), command.replace("SUB", "UNSUB")] {
        thread::scope(|scope| {
            let (sending, command) = (&mut sending, &command);
            scope.spawn(move || {
                for name in names {
                    sending.send(&[command.as_bytes(), name]).expect("to send");
                }
            });
            for name in names {
                let reply = receiving.receive().expect("a confirmation");
                let items = reply.items().unwrap_or_else(|| panic!("{reply:?}"));
                assert_eq!(items[1], Reply::Bulk(name.clone()));
            }
        });
    }
}

#[test]
fn subscriptions() {
    let (proxy, _cluster) = start(&[]);
    // Patterns and shard channels are in tables of their own.
    for command in ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"] {
        let cpu = [false, true].map(|collide| {
            let what =
                format!("{command} of {} names", if collide { "colliding" } else { "ordinary" });
            let names = names(collide);
            let served = served_beside(&proxy, &what, || subscribe(&proxy, command, &names));
            assert!(served.commands > 1 && served.probes > 1);
            served.cpu
        });
        assert!(cpu[1] < MOST * cpu[0], "{command}: {cpu:?} s of CPU");
    }
}

#[test]
fn members_of_combined_sets() {
    let (proxy, _cluster) = start(&["--set", "commands.cross_slot=emulate"]);
    let mut conn = proxy.connect();
    let keys = ["set:a", "set:b"];
    assert_ne!(slot_of(keys[0].as_bytes()), slot_of(keys[1].as_bytes()));
    let mut work = |collide: bool, commands: &[&str]| {
        let names = names(collide);
        for key in keys {
            conn.command(&["DEL", key]).expect("DEL");
            let args: Vec<&[u8]> =
                [b"SADD", key.as_bytes()].into_iter().chain(names.iter().map(|n| &**n)).collect();
            assert_eq!(conn.command(&args).expect("SADD"), Reply::Int(NAMES as i64));
        }
        let mut attacker = proxy.connect();
        let kind = if collide { "colliding" } else { "ordinary" };
        let what = format!("{commands:?} of {kind} members");
        served_beside(&proxy, &what, || run(&mut attacker, commands, keys)).cpu
    };
    for commands in [["SINTER", "SUNION"], ["ZINTER", "ZUNION"]] {
        let cpu = [false, true].map(|collide| work(collide, &commands));
        assert!(cpu[1] < MOST * cpu[0], "{commands:?}: {cpu:?} s of CPU");
    }
}

fn run(conn: &mut Conn, commands: &[&str], keys: [&str; 2]) {
    for command in commands {
        let count = if command.starts_with('Z') { vec!["2"] } else { Vec::new() };
        let args: Vec<&str> = [*command].into_iter().chain(count).chain(keys).collect();
        let reply = conn.command(&args).expect("a reply");
        let items = reply.items().unwrap_or_else(|| panic!("{command}: {reply:?}"));
        assert_eq!(items.len() as u64, NAMES, "{command}");
    }
}
