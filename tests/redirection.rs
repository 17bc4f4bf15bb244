//! Nothing is lost, doubled or reordered while slots move and primaries change.
//!
//! Clients push counters to lists of their own, ten thousand commands in flight; every reply must
//! be the next length of its list, and at the end every list must hold its numbers in order.

use crate::common;
use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, Conn, Node, Reply, Standalone, StandaloneOptions};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

const CLIENTS: usize = 8;
/// Commands that each client has sent without having read their replies.
const IN_FLIGHT: usize = 10_000 / CLIENTS;
/// Hash tags of the slots that move.
const TAGS: [&str; 4] = ["{a}", "{b}", "{c}", "{d}"];

/// The order is looked at, not the time: a busy machine needs more than the default of 5 s.
const PATIENT: [&str; 2] = ["--set", "timeouts.command=30s"];

#[test]
fn lists_stay_in_order_while_slots_move() {
    let setting = common::setting(&PATIENT);
    let cluster = &setting.cluster;
    let pushed = under_load(setting.proxy.listen, || {
        for round in 0..16 {
            for tag in TAGS {
                move_on(cluster, tag, round % 2 == 0);
            }
        }
    });
    // every slot went to another node and back, so there was something to follow
    for kind in ["moved", "ask"] {
        let label = format!("kind=\"{kind}\"");
        let followed = setting.proxy.metric("slotway_redirections_total", &label);
        assert!(followed > 0.0, "no {kind} while {pushed} were pushed");
    }
}

#[test]
fn lists_stay_in_order_through_graceful_failovers() {
    let setting = common::setting(&PATIENT);
    let cluster = &setting.cluster;
    let pushed = || setting.proxy.metric("slotway_commands_total", "command=\"rpush\"");
    under_load(setting.proxy.listen, || {
        for tag in [TAGS[0], TAGS[1], TAGS[0]] {
            let primary = cluster.owner_of(slot_of(tag.as_bytes())).expect("an owner");
            let replicas = cluster.replicas_of(&primary).expect("its replicas");
            cluster.failover(replicas.first().expect("a replica")).expect("a failover");
            cluster.settle().expect("a settled cluster");
            let before = pushed();
            common::eventually("the load goes on", || {
                pushed() >= before + (2 * IN_FLIGHT * CLIENTS) as f64
            });
        }
    });
}

#[test]
fn split_commands_see_their_own_writes_while_slots_move() {
    let setting = common::setting(&PATIENT);
    let addr = setting.proxy.listen;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let stop = &stop;
            scope.spawn(move || write_and_read_back(addr, client, stop));
        }
        let _end = OnDrop(&stop);
        for round in 0..12 {
            for tag in TAGS {
                move_on(&setting.cluster, tag, round % 2 == 0);
            }
        }
    });
}

#[test]
fn the_load_itself_is_right() {
    // what must hold through slotway holds on one server, or the test is wrong
    let server = Standalone::start(StandaloneOptions::default()).expect("a server");
    let pushed = under_load(server.addr(), || {
        let mut conn = server.connect().expect("a connection");
        common::eventually("more than the clients have in flight", || {
            let info = conn.command(&["INFO", "stats"]).expect("INFO").text().expect("text");
            let line = info.lines().find_map(|l| l.strip_prefix("total_commands_processed:"));
            line.and_then(|n| n.parse::<usize>().ok()) > Some(2 * IN_FLIGHT * CLIENTS)
        });
    });
    assert!(pushed > IN_FLIGHT * CLIENTS, "{pushed}");
}

/// Moves the tag's slot to the next primary, or to the one before.
fn move_on(cluster: &Cluster, tag: &str, forth: bool) {
    let slot = slot_of(tag.as_bytes());
    let primaries: Vec<Node> = cluster.primaries().expect("the primaries");
    let from = cluster.owner_of(slot).expect("an owner");
    let at = primaries.iter().position(|p| p.id == from.id).expect("the owner is a primary");
    let step = if forth { 1 } else { primaries.len() - 1 };
    let to = &primaries[(at + step) % primaries.len()];
    cluster.begin_move(slot, &from, to).expect("to begin a move");
    // a few keys at a time, so that there is a while in which each node has some of them
    while cluster.move_keys(slot, &from, to, 5).expect("to move keys") > 0 {
        thread::sleep(Duration::from_millis(5));
    }
    cluster.finish_move(slot, &from, to).expect("to finish a move");
}

/// Sets a flag when the scope ends, also by a panic: the others must not run for ever.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps pushing while `disturb` runs, then checks everything. Returns how much was pushed.
fn under_load(addr: SocketAddr, disturb: impl FnOnce()) -> usize {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || push(addr, client, stop))).collect();
        let end = OnDrop(stop);
        disturb();
        drop(end);
        clients.into_iter().map(|c| c.join().expect("a client")).sum()
    })
}

/// One client: one thread writes, one reads.
fn push(addr: SocketAddr, client: usize, stop: &AtomicBool) -> usize {
    let keys: Vec<String> =
        (0..16).map(|i| format!("{}list:{client}:{i}", TAGS[i % TAGS.len()])).collect();
    let mut receiving = connect(addr);
    let mut sending = receiving.try_clone().expect("a second handle");
    let (sent, expected) = sync_channel::<usize>(IN_FLIGHT);
    let counts = thread::scope(|scope| {
        let keys = &keys;
        scope.spawn(move || {
            let mut counts = vec![0; keys.len()];
            // a small generator, so that keys do not come round in turn
            let mut random = client as u32 + 1;
            while !stop.load(Ordering::Relaxed) {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let k = (random >> 16) as usize % keys.len();
                // waits here when the window is full; ends when the reader has given up
                if sent.send(k).is_err() {
                    return;
                }
                let number = counts[k].to_string();
                if sending.send(&["RPUSH", &keys[k], &number]).is_err() {
                    return;
                }
                counts[k] += 1;
            }
        });
        let mut counts = vec![0; keys.len()];
        for k in expected {
            counts[k] += 1;
            let reply = receiving.receive().expect("a reply");
            assert_eq!(reply, Reply::Int(counts[k]), "{} of client {client}", keys[k]);
        }
        counts
    });
    for (key, count) in keys.iter().zip(&counts) {
        let list = receiving.command(&["LRANGE", key, "0", "-1"]).expect("the list");
        let list = list.items().unwrap_or_else(|| panic!("{key}: {list:?}"));
        assert_eq!(list.len() as i64, *count, "{key}");
        for (i, item) in list.iter().enumerate() {
            assert_eq!(item.text(), Some(i.to_string()), "{key}");
        }
    }
    counts.iter().sum::<i64>() as usize
}

/// MSET over all moving slots, then MGET, DEL and EXISTS of the same keys in one pipeline.
fn write_and_read_back(addr: SocketAddr, client: usize, stop: &AtomicBool) {
    let mut conn = connect(addr);
    let keys: Vec<String> =
        (0..8).map(|i| format!("{}string:{client}:{i}", TAGS[i % TAGS.len()])).collect();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    let with = |name: &str| -> Vec<String> {
        std::iter::once(name.to_string()).chain(keys.iter().cloned()).collect()
    };
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) || turn == 0 {
        turn += 1;
        let mut commands = Vec::new();
        for i in 0..50 {
            let mut mset = vec!["MSET".to_string()];
            for key in &keys {
                mset.extend([key.clone(), format!("{turn}-{i}")]);
            }
            commands.extend([mset, with("MGET"), with("EXISTS")]);
        }
        let replies = conn.pipeline(&commands).expect("replies");
        for (i, three) in replies.chunks(3).enumerate() {
            let value = Reply::Bulk(format!("{turn}-{i}").into_bytes());
            let expected = [
                Reply::Simple("OK".into()),
                Reply::Array(vec![value; keys.len()]),
                Reply::Int(keys.len() as i64),
            ];
            assert_eq!(three, expected, "client {client}, turn {turn}");
        }
    }
}

fn connect(addr: SocketAddr) -> Conn {
    let mut conn = Conn::tcp(addr).expect("a connection");
    // a command may wait for a failover; for longer than this nothing may
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    conn
}
