//! MULTI … EXEC over several slots: refused, or one transaction for each slot, as configured.

use crate::common::errors::{assert_cross_slot, identified};
use crate::common::transactions::each_primary;
use crate::common::{self, Proxy, Setting, shared};
use slotway::cluster::slot_of;
use slotway::errors::{CrossSlotRemedy, FailureId};
use slotway::sandbox::{Cluster, Node, Reply};
use std::collections::HashSet;
use std::thread;

const SPLIT: [&str; 2] = ["--set", "transactions.cross_slot=split"];

#[test]
fn several_slots_are_rejected_with_the_keys_the_slots_and_the_setting() {
    let proxy = &shared().proxy;
    let mut conn = proxy.connect();
    assert!(conn.command(&["MULTI"]).expect("MULTI").is_ok());
    let queued = conn.command(&["SET", "cross:one", "v"]).expect("SET");
    assert_eq!(queued, Reply::Simple("QUEUED".into()));
    let reply = conn.command(&["SET", "cross:two", "v"]).expect("SET");
    assert_cross_slot(&reply, ["cross:one", "cross:two"], &CrossSlotRemedy::Transaction);
    let exec = conn.command(&["EXEC"]).expect("EXEC");
    let aborted = "EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(exec, Reply::Error(aborted.into()));
    let left = conn.command(&["EXISTS", "cross:one", "cross:two"]).expect("EXISTS");
    assert_eq!(left, Reply::Int(0));
    assert_eq!(conn.command(&["EXEC"]).expect("EXEC").error(), Some("ERR EXEC without MULTI"));
}

#[test]
fn a_command_over_several_slots_is_rejected_as_well() {
    let mut conn = shared().proxy.connect();
    for command in
        [vec!["MGET", "cross:a", "cross:b"], vec!["MSET", "cross:a", "1", "cross:b", "2"]]
    {
        let replies = conn.pipeline(&[vec!["MULTI"], command, vec!["EXEC"]]).expect("replies");
        let error = identified(&replies[1]);
        assert_eq!(error.id, FailureId::CrossSlot, "{replies:?}");
        assert_eq!(error.field("other"), Some("cross:b"), "{replies:?}");
        assert!(replies[2].error().is_some_and(|e| e.starts_with("EXECABORT ")), "{replies:?}");
    }
}

/// Every command that runs a script, over two slots.
const SCRIPTS: [[&str; 5]; 6] = [
    ["EVAL", "return 1", "2", "script:a", "script:b"],
    ["EVAL_RO", "return 1", "2", "script:a", "script:b"],
    ["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "2", "script:a", "script:b"],
    ["EVALSHA_RO", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "2", "script:a", "script:b"],
    ["FCALL", "f", "2", "script:a", "script:b"],
    ["FCALL_RO", "f", "2", "script:a", "script:b"],
];

/// No setting helps a script.
#[track_caller]
fn assert_script_refused(reply: &Reply) {
    assert_cross_slot(reply, ["script:a", "script:b"], &CrossSlotRemedy::Script);
}

#[test]
fn a_script_over_several_slots_is_refused_with_the_keys_and_the_remedy() {
    let emulating = [SPLIT[0], SPLIT[1], "--set", "commands.cross_slot=emulate"];
    let other = Proxy::start(&shared().cluster, &emulating);
    for proxy in [&shared().proxy, &other] {
        let mut conn = proxy.connect();
        for script in SCRIPTS {
            assert_script_refused(&conn.command(&script).expect("a script"));
        }
    }
}

#[test]
fn a_script_over_several_slots_is_refused_when_it_is_queued() {
    let other = Proxy::start(&shared().cluster, &SPLIT);
    for (name, proxy) in [("reject", &shared().proxy), ("split", &other)] {
        let mut conn = proxy.connect();
        for (i, script) in SCRIPTS.into_iter().enumerate() {
            let keys = [format!("{{{name}}}{i}"), format!("{{{name}}}{i}:second")];
            let mut commands = vec![vec!["MULTI"]];
            commands.extend(keys.iter().map(|key| vec!["SET", key, "v"]));
            commands.push(script.to_vec());
            commands.push(vec!["EXEC"]);
            let replies = conn.pipeline(&commands).expect("replies");
            assert_script_refused(&replies[3]);
            let aborted = "EXECABORT Transaction discarded because of previous errors.";
            assert_eq!(replies[4], Reply::Error(aborted.into()));
            for key in &keys {
                assert_eq!(conn.command(&["EXISTS", key]).expect("EXISTS"), Reply::Int(0));
            }
        }
    }
}

#[test]
fn a_discarded_part_of_a_split_transaction_says_which_part() {
    let Setting { proxy, cluster } = common::setting(&SPLIT);
    let mut conn = proxy.connect();
    // A slot of a node that has no memory left, and one of a node that has.
    let owner = |key: &str| cluster.owner_of(slot_of(key.as_bytes())).expect("an owner");
    let full = owner("full");
    let other = (0..)
        .map(|i| format!("other:{i}"))
        .find(|key| owner(key).id != full.id)
        .expect("a key of another node");
    let mut node = cluster.connect(&full).expect("a connection");
    assert!(node.command(&["CONFIG", "SET", "maxmemory", "1"]).expect("CONFIG SET").is_ok());
    let commands =
        [vec!["MULTI"], vec!["SET", &other, "v"], vec!["SET", "full", "v"], vec!["EXEC"]];
    let replies = conn.pipeline(&commands).expect("replies");
    let Some([done, refused]) = replies[3].items() else { panic!("{replies:?}") };
    assert!(done.is_ok(), "{replies:?}");
    let error = identified(refused);
    assert_eq!(error.id, FailureId::PartDiscarded, "one part was executed: {replies:?}");
    assert!(error.field("reason").is_some_and(|why| why.contains("OOM ")), "{replies:?}");
    assert_eq!(conn.command(&["GET", &other]).expect("GET"), Reply::Bulk(b"v".to_vec()));
    // All of it was discarded: one error, as a server gives.
    let commands = [vec!["MULTI"], vec!["SET", "full", "v"], vec!["EXEC"]];
    let replies = conn.pipeline(&commands).expect("replies");
    let error = identified(&replies[2]);
    assert_eq!(error.id, FailureId::Discarded, "{replies:?}");
    assert!(error.field("cause").is_some_and(|why| why.starts_with("OOM ")), "{replies:?}");
}

#[test]
fn split_gives_the_replies_in_the_order_asked_and_one_transaction_for_each_slot() {
    let Setting { proxy, cluster } = common::setting(&SPLIT);
    const KEYS: usize = 30;
    let keys: Vec<String> = (0..KEYS).map(|i| format!("split:{}", i % 20)).collect();
    let slots: HashSet<u16> = keys.iter().map(|k| slot_of(k.as_bytes()).0).collect();
    let mut conn = proxy.connect();
    assert!(conn.command(&["SET", "split:warm", "v"]).expect("SET").is_ok());
    each_primary(&cluster, &["CONFIG", "RESETSTAT"]);
    let before = [
        proxy.metric("slotway_transactions_total", "kind=\"split\""),
        proxy.metric("slotway_transactions_total", "kind=\"one_slot\""),
    ];
    let mut commands = vec![vec!["MULTI"]];
    commands.extend(keys.iter().map(|k| vec!["APPEND", k, "ab"]));
    commands.push(vec!["EXEC"]);
    let replies = conn.pipeline(&commands).expect("replies");
    let wanted: Vec<Reply> = (0..KEYS).map(|i| Reply::Int(if i < 20 { 2 } else { 4 })).collect();
    assert_eq!(replies[KEYS + 1], Reply::Array(wanted));
    assert_eq!(calls(&cluster, "multi"), slots.len() as u64, "one MULTI for each slot");
    assert_eq!(calls(&cluster, "exec"), slots.len() as u64, "one EXEC for each slot");
    assert_eq!(proxy.metric("slotway_transactions_total", "kind=\"split\"") - before[0], 1.0);
    // All in one slot is still one.
    let one = [vec!["MULTI"], vec!["INCR", "{t}a"], vec!["INCR", "{t}b"], vec!["EXEC"]];
    conn.pipeline(&one).expect("replies");
    assert_eq!(calls(&cluster, "multi"), slots.len() as u64 + 1);
    assert_eq!(proxy.metric("slotway_transactions_total", "kind=\"one_slot\"") - before[1], 1.0);
}

#[test]
fn split_lets_in_commands_over_several_slots_and_all_shards() {
    let Setting { proxy, cluster: _cluster } = common::setting(&SPLIT);
    for mut conn in [proxy.connect(), proxy.connect3()] {
        assert!(conn.command(&["FLUSHALL"]).expect("FLUSHALL").is_ok());
        let replies = conn.pipeline(&[
            vec!["MULTI"],
            vec!["MSET", "a", "1", "b", "2", "c", "3", "d", "4"],
            vec!["MGET", "d", "nosuch", "a", "b"],
            vec!["DBSIZE"],
            vec!["INCR", "b"],
            vec!["DEL", "a", "c", "nosuch"],
            vec!["EXISTS", "a", "b", "c", "d"],
            vec!["PING"],
            vec!["LPUSH", "b", "x"],
            vec!["EXEC"],
        ]);
        let replies = replies.expect("replies");
        let Some(Reply::Array(results)) = replies.last() else { panic!("{replies:?}") };
        let bulk = |s: &str| Reply::Bulk(s.into());
        assert_eq!(results.len(), 8, "{replies:?}");
        assert!(results[0].is_ok(), "{results:?}");
        let mget = vec![bulk("4"), Reply::Nil, bulk("1"), bulk("2")];
        assert_eq!(results[1], Reply::Array(mget));
        // Each shard's part is carried out by itself: what DBSIZE sees of the others is open.
        assert!(matches!(results[2], Reply::Int(0..=4)), "{results:?}");
        assert_eq!(results[3], Reply::Int(3));
        assert_eq!(results[4], Reply::Int(2));
        assert_eq!(results[5], Reply::Int(2));
        assert_eq!(results[6], Reply::Simple("PONG".into()));
        assert!(results[7].error().is_some_and(|e| e.starts_with("WRONGTYPE ")), "{results:?}");
    }
}

#[test]
fn split_keeps_each_slot_atomic_among_many_clients() {
    const TAGS: usize = 6;
    let proxy = Proxy::start(&shared().cluster, &SPLIT);
    let keys: Vec<[String; 2]> =
        (0..TAGS).map(|t| [format!("{{{t}}}a"), format!("{{{t}}}b")]).collect();
    let keys = &keys;
    thread::scope(|scope| {
        for _ in 0..6 {
            let mut conn = proxy.connect();
            scope.spawn(move || {
                let mut one = vec![vec!["MULTI"]];
                one.extend(keys.iter().map(|[a, _]| vec!["INCR", a.as_str()]));
                one.extend(keys.iter().map(|[_, b]| vec!["INCR", b.as_str()]));
                one.push(vec!["EXEC"]);
                let batch: Vec<Vec<&str>> = (0..10).flat_map(|_| one.clone()).collect();
                for _ in 0..20 {
                    let replies = conn.pipeline(&batch).expect("replies");
                    for transaction in replies.chunks(one.len()) {
                        let results = transaction.last().and_then(Reply::items);
                        let Some(results) = results else { panic!("{transaction:?}") };
                        let (a, b) = results.split_at(TAGS);
                        assert_eq!(a, b, "one slot's part was not atomic");
                    }
                }
            });
        }
    });
    let mut conn = proxy.connect();
    for key in keys.iter().flatten() {
        assert_eq!(conn.command(&["GET", key]).expect("GET"), Reply::Bulk(b"1200".to_vec()));
    }
}

#[test]
fn split_answers_null_when_a_watched_key_of_any_slot_changed() {
    let proxy = Proxy::start(&shared().cluster, &SPLIT);
    let (mut conn, mut other) = (proxy.connect(), proxy.connect());
    for changed in ["w:1", "w:2", "w:3"] {
        assert!(conn.command(&["WATCH", "w:1", "w:2", "w:3"]).expect("WATCH").is_ok());
        assert!(other.command(&["SET", changed, "other"]).expect("SET").is_ok());
        let commands = [
            vec!["MULTI"],
            vec!["SET", "w:1", "mine"],
            vec!["SET", "w:2", "mine"],
            vec!["SET", "w:3", "mine"],
            vec!["EXEC"],
        ];
        let replies = conn.pipeline(&commands).expect("replies");
        assert_eq!(replies[4], Reply::Nil, "{changed} was changed");
        let got = conn.command(&["MGET", "w:1", "w:2", "w:3"]).expect("MGET");
        let mine = Reply::Bulk(b"mine".to_vec());
        assert!(!got.items().unwrap_or_default().contains(&mine), "{got:?}");
    }
    assert!(conn.command(&["WATCH", "w:1", "w:2"]).expect("WATCH").is_ok());
    let commands =
        [vec!["MULTI"], vec!["SET", "w:1", "mine"], vec!["SET", "w:2", "mine"], vec!["EXEC"]];
    let replies = conn.pipeline(&commands).expect("replies");
    let Some([a, b]) = replies[3].items() else { panic!("{replies:?}") };
    assert!(a.is_ok() && b.is_ok());
}

/// How often all primaries together were asked a command since CONFIG RESETSTAT.
fn calls(cluster: &Cluster, command: &str) -> u64 {
    let nodes = cluster.primaries().expect("primaries");
    let of_node = |node: &Node| {
        let mut conn = cluster.connect(node).expect("a connection");
        let info = conn.command(&["INFO", "commandstats"]).expect("INFO").text().expect("text");
        let start = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&start)?.split(',').next());
        line.map_or(0, |n| n.parse::<u64>().expect("a number"))
    };
    nodes.iter().map(of_node).sum()
}
