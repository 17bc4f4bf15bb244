//! Many clients move the same elements between slots at the same time, and clients leave while they
//! wait: every element is there exactly once in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use slotway::errors::FailureId;
use slotway::sandbox::{Conn, Reply};

use super::emulating;
use crate::common;
use crate::common::errors::is_one_of;

const MOVERS: usize = 6;
const ELEMENTS: usize = 12;
const TIME: Duration = Duration::from_millis(1500);
/// More moves than this show that the movers met.
const ENOUGH: usize = 20;

/// Three keys in three shards.
fn ring(name: &str) -> [String; 3] {
    // The slots of a, b and c belong to different thirds.
    ["a", "b", "c"].map(|tag| format!("{{{tag}}}{name}"))
}

/// Has `act` done by many clients, through two slotways, until the time is over. How often it
/// moved something.
fn many(act: impl Fn(&mut Conn, &[String; 3], usize) -> bool + Sync, keys: &[String; 3]) -> usize {
    let (done, moved) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (act, done, moved) = (&act, &done, &moved);
    thread::scope(|scope| {
        for i in 0..MOVERS {
            let mut conn = emulating().proxies[i % 2].connect();
            scope.spawn(move || {
                let mut turn = i;
                while !done.load(Ordering::SeqCst) {
                    if act(&mut conn, keys, turn) {
                        moved.fetch_add(1, Ordering::SeqCst);
                    }
                    turn += 1;
                }
            });
        }
        thread::sleep(TIME);
        // A busy machine needs longer.
        let deadline = Instant::now() + 20 * TIME;
        while moved.load(Ordering::SeqCst) <= ENOUGH && Instant::now() < deadline {
            thread::sleep(TIME / 20);
        }
        done.store(true, Ordering::SeqCst);
    });
    moved.load(Ordering::SeqCst)
}

/// From one key to the next one, or the one before.
fn way(keys: &[String; 3], turn: usize) -> (&str, &str) {
    let to = if turn.is_multiple_of(2) { turn + 1 } else { turn + 2 };
    (&keys[turn % 3], &keys[to % 3])
}

fn elements(keys: &[String; 3], read: &[&str], behind: &[&str]) -> BTreeMap<String, usize> {
    let mut conn = emulating().proxies[0].connect();
    let mut all = BTreeMap::new();
    for key in keys {
        let words = [read, &[key], behind].concat();
        let reply = conn.command(&words).expect("a reply");
        for element in reply.items().expect("elements") {
            *all.entry(element.text().expect("an element")).or_insert(0) += 1;
        }
    }
    all
}

#[track_caller]
fn each_once(all: &BTreeMap<String, usize>, moved: usize) {
    assert_eq!(all.len(), ELEMENTS, "{moved} moves: {all:?}");
    assert!(all.values().all(|n| *n == 1), "{moved} moves: {all:?}");
    assert!(moved > ENOUGH, "only {moved} moves");
}

fn names() -> Vec<String> {
    (0..ELEMENTS).map(|i| format!("element-{i}")).collect()
}

/// The errors of a move that was not begun.
const UNCHANGED: [FailureId; 4] = [
    FailureId::SourceContended,
    FailureId::KeysContended,
    FailureId::ElementsContended,
    FailureId::NoSuchKey,
];

fn worked(reply: &Reply) -> bool {
    match reply {
        Reply::Int(n) => *n == 1,
        Reply::Bulk(_) => true,
        Reply::Nil => false,
        reply if reply.is_ok() => true,
        // Many move the same: who has waited too long is told that nothing was changed.
        reply => {
            assert!(is_one_of(reply, &UNCHANGED), "{reply:?}");
            false
        }
    }
}

#[test]
fn lists_to_and_fro() {
    let keys = ring("lists");
    let mut conn = emulating().proxies[0].connect();
    conn.command(&[vec!["RPUSH".to_owned(), keys[0].clone()], names()].concat()).expect("RPUSH");
    let act = |conn: &mut Conn, keys: &[String; 3], turn: usize| {
        let (from, to) = way(keys, turn);
        let reply = match turn % 4 {
            0 => conn.command(&["LMOVE", from, to, "LEFT", "RIGHT"]),
            1 => conn.command(&["RPOPLPUSH", from, to]),
            2 => conn.command(&["BLMOVE", from, to, "RIGHT", "RIGHT", "0.01"]),
            _ => conn.command(&["BRPOPLPUSH", from, to, "0.01"]),
        };
        worked(&reply.expect("a reply"))
    };
    let moved = many(act, &keys);
    each_once(&elements(&keys, &["LRANGE"], &["0", "-1"]), moved);
}

#[test]
fn sets_to_and_fro() {
    let keys = ring("sets");
    let mut conn = emulating().proxies[0].connect();
    conn.command(&[vec!["SADD".to_owned(), keys[0].clone()], names()].concat()).expect("SADD");
    let act = |conn: &mut Conn, keys: &[String; 3], turn: usize| {
        let (from, to) = way(keys, turn);
        let member = format!("element-{}", turn / 3 % ELEMENTS);
        worked(&conn.command(&["SMOVE", from, to, &member]).expect("a reply"))
    };
    let moved = many(act, &keys);
    each_once(&elements(&keys, &["SMEMBERS"], &[]), moved);
}

/// One key goes round, as a whole; nobody writes over it.
#[test]
fn a_key_to_and_fro() {
    let keys = ring("key");
    let mut conn = emulating().proxies[0].connect();
    conn.command(&[vec!["RPUSH".to_owned(), keys[0].clone()], names()].concat()).expect("RPUSH");
    let act = |conn: &mut Conn, keys: &[String; 3], turn: usize| {
        let (from, to) = way(keys, turn);
        let name = if turn.is_multiple_of(3) { "RENAMENX" } else { "RENAME" };
        worked(&conn.command(&[name, from, to]).expect("a reply"))
    };
    let moved = many(act, &keys);
    each_once(&elements(&keys, &["LRANGE"], &["0", "-1"]), moved);
}

/// What is pushed goes to exactly one of those who wait, in whatever key it is.
#[test]
fn queues_with_many_who_wait() {
    const JOBS: usize = 600;
    let keys = ring("queues");
    let mut conn = emulating().proxies[0].connect();
    let got: Vec<String> = thread::scope(|scope| {
        let keys = &keys;
        let workers: Vec<_> = (0..MOVERS)
            .map(|i| {
                scope.spawn(move || {
                    let mut conn = emulating().proxies[i % 2].connect();
                    let (mut got, mut turn) = (Vec::new(), i);
                    loop {
                        let [a, b, c] = [0, 1, 2].map(|n| keys[(turn + n) % 3].as_str());
                        let words = match turn % 3 {
                            0 => vec!["BLPOP", a, b, c, "0.5"],
                            1 => vec!["BRPOP", a, b, c, "0.5"],
                            _ => vec!["BLMPOP", "0.5", "3", a, b, c, "LEFT", "COUNT", "3"],
                        };
                        turn += 1;
                        let reply = conn.command(&words).expect("a reply");
                        let mut texts = Vec::new();
                        flat(&reply, &mut texts);
                        if texts.is_empty() {
                            return got;
                        }
                        got.extend(texts.drain(1..));
                    }
                })
            })
            .collect();
        for job in 0..JOBS {
            conn.command(&["RPUSH", &keys[job % 3], &format!("job-{job}")]).expect("RPUSH");
        }
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    let mut sorted: Vec<usize> =
        got.iter().map(|job| job["job-".len()..].parse().expect("a number")).collect();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..JOBS).collect::<Vec<_>>());
}

fn flat(reply: &Reply, out: &mut Vec<String>) {
    match reply.items() {
        Some(items) => items.iter().for_each(|item| flat(item, out)),
        None => out.extend(reply.text().filter(|_| *reply != Reply::Nil)),
    }
}

/// Whenever a waiting client leaves, before or while something is pushed: what nobody has got is
/// still there.
#[test]
fn who_leaves_takes_nothing_along() {
    let keys = ring("leaving");
    let [a, b, c] = keys.each_ref().map(String::as_str);
    let mut conn = emulating().proxies[0].connect();
    let commands: [&[&str]; 8] = [
        &["BLPOP", a, b, "0"],
        &["BRPOP", b, a, "0"],
        &["BLMPOP", "0", "2", a, b, "RIGHT", "COUNT", "2"],
        &["BLMOVE", b, c, "LEFT", "RIGHT", "0"],
        &["BRPOPLPUSH", b, c, "0"],
        &["BZPOPMIN", a, b, "0"],
        &["BZPOPMAX", a, b, "0"],
        &["BZMPOP", "0", "2", a, b, "MAX", "COUNT", "2"],
    ];
    for round in 0..24 {
        for command in commands {
            conn.command(&["DEL", a, b, c]).expect("DEL");
            let mut leaving = emulating().proxies[round % 2].connect();
            leaving.send(command).expect("to send");
            thread::sleep(Duration::from_micros(300 * round as u64));
            let mut push = {
                let mut other = emulating().proxies[0].connect();
                let zset = command[0].starts_with("BZ");
                let words = match zset {
                    true => vec!["ZADD", b, "1", "x", "2", "y", "3", "z"],
                    false => vec!["RPUSH", b, "x", "y", "z"],
                };
                move || assert_eq!(other.command(&words).expect("to push"), Reply::Int(3))
            };
            // It goes away behind the push, at the same time, or before it.
            match round % 3 {
                0 => {
                    push();
                    thread::sleep(Duration::from_micros(200 * round as u64));
                    drop(leaving);
                }
                1 => thread::scope(|scope| {
                    scope.spawn(push);
                    drop(leaving);
                }),
                _ => {
                    drop(leaving);
                    nobody_waits(command);
                    push();
                }
            }
            // Nobody has read a reply, but one may have been sent: then all that a server would
            // have given is gone, and no more than that.
            let most = if command.contains(&"COUNT") { 2 } else { 1 };
            nobody_waits(command);
            let count = |conn: &mut Conn, key: &str| {
                let zset = command[0].starts_with("BZ");
                let name = if zset { "ZCARD" } else { "LLEN" };
                conn.command(&[name, key]).expect("a length").int().expect("a number")
            };
            // A move that was begun is brought to its end when its client is gone, and until then
            // has its element in both lists.
            let mut left = 0;
            common::eventually("what was begun has ended", || {
                left = count(&mut conn, b) + count(&mut conn, c);
                left <= 3
            });
            let moves = command[0] == "BLMOVE" || command[0] == "BRPOPLPUSH";
            let least = if moves || round % 3 == 2 { 3 } else { 3 - most };
            assert!((least..=3).contains(&left), "{command:?}, round {round}: {left} are left");
        }
    }
}

fn nobody_waits(command: &[&str]) {
    common::eventually_ok(&format!("{command:?} is over"), || match emulating().waiting() {
        0 => Ok(()),
        clients => Err(format!("{clients} wait")),
    });
}
