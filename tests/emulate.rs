//! `commands.cross_slot = "emulate"`: commands over several slots answer as a single server does.
//!
//! Each line of [`SCRIPT`] goes to slotway in front of a cluster, and to one standalone server; the
//! replies must be the same. In RESP2 and in RESP3.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use crate::common::errors::{assert_cross_slot, is_one_of};
use crate::common::{self, Setting, eventually};
use slotway::cluster::slot_of;
use slotway::errors::{CrossSlotRemedy, FailureId};
use slotway::sandbox::{Conn, Reply, Standalone, StandaloneOptions};

const EMULATE: [&str; 2] = ["--set", "commands.cross_slot=emulate"];

fn emulating() -> &'static Setting {
    static SETTING: OnceLock<Setting> = OnceLock::new();
    SETTING.get_or_init(|| common::setting(&EMULATE))
}

fn standalone() -> &'static Standalone {
    static SERVER: OnceLock<Standalone> = OnceLock::new();
    SERVER.get_or_init(|| Standalone::start(StandaloneOptions::default()).expect("a server"))
}

/// Words as in a shell: spaces between them, quotes around those that have spaces.
fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        all.push(word);
    }
    all
}

/// What has no order is put in one.
fn settled(line: &str, reply: Reply) -> Reply {
    let unordered = ["SINTER", "SUNION", "SDIFF", "SMEMBERS"]
        .iter()
        .any(|name| line.split(' ').next() == Some(name));
    match reply {
        Reply::Array(mut items) if unordered => {
            items.sort_by_key(|item| format!("{item:?}"));
            Reply::Array(items)
        }
        Reply::Set(mut items) => {
            items.sort_by_key(|item| format!("{item:?}"));
            Reply::Set(items)
        }
        other => other,
    }
}

const SCRIPT: &str = include_str!("data/emulate.txt");

fn compare(resp3: bool) {
    let Setting { proxy, .. } = emulating();
    let mut ours = if resp3 { proxy.connect3() } else { proxy.connect() };
    let mut theirs = Conn::tcp(standalone().addr()).expect("a connection");
    if resp3 {
        theirs.command(&["HELLO", "3"]).expect("HELLO");
    }
    // Keys of its own for each protocol: both run at the same time.
    let prefix = if resp3 { "three" } else { "two" };
    let mut differences = Vec::new();
    for line in SCRIPT.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let args = words(&line.replace('@', prefix));
        let mine = settled(line, ours.command(&args).expect(line));
        let want = settled(line, theirs.command(&args).expect(line));
        // Pauses until a time are told to the millisecond, a moment apart.
        if mine != want {
            differences.push(format!("{line}\n   slotway: {mine:?}\n   server:  {want:?}"));
        }
    }
    assert!(differences.is_empty(), "{}\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn replies_are_a_servers_in_resp2() {
    compare(false);
}

#[test]
fn replies_are_a_servers_in_resp3() {
    compare(true);
}

/// Two keys in different slots.
fn apart(prefix: &str) -> [String; 2] {
    let keys = [format!("{prefix}:one"), format!("{prefix}:two")];
    assert_ne!(slot_of(keys[0].as_bytes()), slot_of(keys[1].as_bytes()));
    keys
}

#[test]
fn by_default_the_error_names_the_keys_the_slots_and_the_setting() {
    let proxy = common::Proxy::start(&emulating().cluster, &[]);
    let mut conn = proxy.connect();
    let [a, b] = apart("plain");
    let commands: [&[&str]; 4] = [
        &["SINTER", &a, &b],
        &["RENAME", &a, &b],
        &["MSETNX", &a, "1", &b, "2"],
        &["BLPOP", &a, &b, "0"],
    ];
    for command in commands {
        let reply = conn.command(command).expect("a reply");
        assert_cross_slot(&reply, [&a, &b], &CrossSlotRemedy::Emulate(command[0].into()));
    }
    let reply = conn.command(&["SORT", &a, "BY", "w_*"]).expect("a reply");
    assert!(reply.error().is_some_and(|e| e.contains("luster mode")), "{reply:?}");
}

#[test]
fn scripts_and_transactions_are_refused_with_the_reason() {
    let mut conn = emulating().proxy.connect();
    let [a, b] = apart("refused");
    let reply = conn.command(&["EVAL", "return 1", "2", &a, &b]).expect("a reply");
    assert!(reply.error().is_some_and(|e| e.starts_with("CROSSSLOT")), "{reply:?}");
    let split = common::Proxy::start(
        &emulating().cluster,
        &[&EMULATE[..], &["--set", "transactions.cross_slot=split"]].concat(),
    );
    for mut conn in [conn, split.connect()] {
        for command in [vec!["RENAME", &*a, &b], vec!["SORT", &*a, "GET", "x*"]] {
            let all = [vec!["MULTI"], command, vec!["EXEC"]];
            let replies = conn.pipeline(&all).expect("replies");
            let refused = [FailureId::CrossSlot, FailureId::PatternInMulti];
            assert!(is_one_of(&replies[1], &refused), "{replies:?}");
            let text = replies[1].error().unwrap_or_default();
            assert!(text.contains("commands.cross_slot"), "{text}");
            assert!(replies[2].error().is_some_and(|e| e.starts_with("EXECABORT")), "{replies:?}");
        }
    }
}

#[test]
fn what_comes_behind_an_emulated_command_does_not_overtake_it() {
    let mut conn = emulating().proxy.connect();
    let [a, b] = apart("order");
    for round in 0..20 {
        let value = round.to_string();
        let commands = [
            vec!["SET", &*a, &value],
            vec!["RENAME", &a, &b],
            vec!["GET", &b],
            vec!["EXISTS", &a],
            vec!["SADD", &a, &value],
            vec!["SUNION", &a, "order:three"],
            vec!["DEL", &a],
        ];
        let replies = conn.pipeline(&commands).expect("replies");
        assert!(replies[1].is_ok(), "{replies:?}");
        assert_eq!(replies[2].text().as_deref(), Some(&*value));
        assert_eq!(replies[3], Reply::Int(0));
        assert_eq!(replies[5], Reply::Array(vec![Reply::Bulk(value.into())]));
    }
}

#[test]
fn who_waits_is_given_what_comes_to_any_of_its_keys() {
    let proxy = &emulating().proxy;
    let [a, b] = apart("waits");
    for key in [&a, &b] {
        let mut waiting = proxy.connect();
        waiting.send(&["BLPOP", &a, &b, "0"]).expect("to send");
        // That it waits is seen by the nodes' being asked again.
        let read = || proxy.metric("slotway_node_received_bytes_total", "");
        let before = read();
        eventually("it has asked", || read() > before);
        proxy.connect().command(&["RPUSH", key, "x", "y"]).expect("RPUSH");
        let got = waiting.receive().expect("an element");
        let bulk = |text: &str| Reply::Bulk(text.into());
        assert_eq!(got, Reply::Array(vec![bulk(key), bulk("x")]));
        assert_eq!(proxy.connect().command(&["LLEN", key]).expect("LLEN"), Reply::Int(1));
        proxy.connect().command(&["DEL", key]).expect("DEL");
    }
    // CLIENT UNBLOCK ends it, in either way.
    for (how, want) in [("TIMEOUT", Reply::Nil), ("ERROR", Reply::Nil)] {
        let mut waiting = proxy.connect();
        let id = waiting.command(&["CLIENT", "ID"]).expect("an ID").int().expect("an ID");
        waiting.send(&["BZPOPMIN", &a, &b, "0"]).expect("to send");
        let mut other = proxy.connect();
        eventually("it is blocked", || {
            let told = other.command(&["CLIENT", "UNBLOCK", &id.to_string(), how]);
            told.expect("UNBLOCK") == Reply::Int(1)
        });
        let got = waiting.receive().expect("an answer");
        match how {
            "ERROR" => assert!(got.error().is_some_and(|e| e.starts_with("UNBLOCKED")), "{got:?}"),
            _ => assert_eq!(got, want),
        }
    }
}

/// Many take and leave at random; in the end everything was taken once, or is still there.
#[test]
fn nothing_is_lost_and_nothing_is_taken_twice() {
    const ALL: usize = 300;
    let proxy = &emulating().proxy;
    let [a, b] = apart("taken");
    let taken: Vec<String> = thread::scope(|scope| {
        let takers: Vec<_> = (0..6)
            .map(|taker| {
                let (a, b) = (&a, &b);
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    for round in 0.. {
                        let mut conn = proxy.connect();
                        if taker < 2 && round % 2 == 0 {
                            // It does not wait for what it asked for.
                            conn.send(&["BLPOP", a, b, "0"]).expect("to send");
                            thread::sleep(Duration::from_millis(3));
                            continue;
                        }
                        let got = conn.command(&["BLPOP", a, b, "0.6"]).expect("an answer");
                        match got.items() {
                            Some([_, value]) => taken.push(value.text().expect("a value")),
                            _ => break,
                        }
                    }
                    taken
                })
            })
            .collect();
        let mut pusher = proxy.connect();
        for i in 0..ALL {
            let key = if i % 3 == 0 { &b } else { &a };
            pusher.command(&["RPUSH", key, &i.to_string()]).expect("RPUSH");
            thread::sleep(Duration::from_millis(1));
        }
        takers.into_iter().flat_map(|taker| taker.join().expect("a taker")).collect()
    });
    let once: BTreeSet<&String> = taken.iter().collect();
    assert_eq!(once.len(), taken.len(), "something was taken twice");
    // What was answered to those who had just gone is in no list: as with a single server. But
    // what was answered to nobody is.
    let mut conn = proxy.connect();
    let mut left = 0;
    for key in [&a, &b] {
        left += conn.command(&["LLEN", key]).expect("LLEN").int().expect("a number") as usize;
    }
    assert!(taken.len() + left <= ALL);
    assert!(taken.len() + left > ALL - ALL / 3, "{} and {left}", taken.len());
}

/// Several move from one list to two others at the same time, while somebody takes from it.
#[test]
fn moves_from_one_list_at_the_same_time() {
    const ALL: usize = 200;
    let proxy = &emulating().proxy;
    let source = "moved:from".to_owned();
    let targets = ["moved:to:1", "moved:to:2"];
    let mut conn = proxy.connect();
    let values: Vec<String> = (0..ALL).map(|i| i.to_string()).collect();
    let push: Vec<&str> =
        ["RPUSH", &source].into_iter().chain(values.iter().map(|v| &**v)).collect();
    conn.command(&push).expect("RPUSH");
    let popped: Vec<String> = thread::scope(|scope| {
        for mover in 0..4 {
            let source = &source;
            scope.spawn(move || {
                let mut conn = proxy.connect();
                let target = targets[mover % 2];
                let lmove = ["LMOVE", source, target, "LEFT", "RIGHT"];
                while conn.command(&lmove).expect("LMOVE") != Reply::Nil {}
            });
        }
        let mut conn = proxy.connect();
        let mut popped = Vec::new();
        while let Some(value) = conn.command(&["LPOP", &source]).expect("LPOP").text() {
            popped.push(value);
            thread::sleep(Duration::from_millis(2));
        }
        popped
    });
    let mut all = popped;
    for target in targets {
        let list = conn.command(&["LRANGE", target, "0", "-1"]).expect("LRANGE");
        all.extend(list.items().expect("a list").iter().filter_map(Reply::text));
    }
    let once: BTreeSet<&String> = all.iter().collect();
    assert_eq!((once.len(), all.len()), (ALL, ALL));
    let holds = conn.command(&["KEYS", "slotway:*"]).expect("KEYS");
    assert_eq!(holds, Reply::Array(Vec::new()), "nothing is left behind");
}

#[test]
fn emulated_commands_are_counted() {
    let proxy = &emulating().proxy;
    let count = || proxy.metric("slotway_emulated_total", "command=\"sdiff\",outcome=\"ok\"");
    let before = count();
    let [a, b] = apart("counted");
    proxy.connect().command(&["SDIFF", &a, &b]).expect("SDIFF");
    assert!(count() > before);
}

/// What a node says when its memory is full, and what it does nevertheless: as a server.
#[test]
fn commands_over_several_slots_on_nodes_without_memory() {
    let full = common::setting(&EMULATE);
    let server = Standalone::start(StandaloneOptions::default()).expect("a server");
    let limit = |bytes: &str| {
        let set = ["CONFIG", "SET", "maxmemory", bytes];
        let mut nodes: Vec<Conn> =
            full.cluster.addrs().into_iter().map(|addr| Conn::tcp(addr).expect("a node")).collect();
        nodes.push(Conn::tcp(server.addr()).expect("the server"));
        for node in &mut nodes {
            assert!(node.command(&set).expect("CONFIG SET").is_ok());
        }
    };
    let data = "RPUSH la 1 2 3 4 5 6|ZADD za 1 one 2 two 3 three|SADD sa m n o|SADD sb m|\
                SET ta ohmytext|SET tb mynewtext|SET ra value EX 1000|SET rb old|\
                XADD xa 1-1 f v|XGROUP CREATE xa g 0|XGROUP CREATE xb g 0 MKSTREAM|HSET ha f v";
    let commands = "BLPOP lz la 1|BRPOP lz la 1|BLMPOP 1 2 lz la LEFT|LMPOP 2 lz la LEFT|\
                    BLPOP lz la 0.05|BLPOP lz la x|BLPOP lz la -1|BLPOP za lz 1|\
                    BLMPOP 0.05 2 lz ly LEFT COUNT 0|BLMPOP x 2 lz ly LEFT|\
                    BZPOPMIN zz za 1|BZPOPMAX zz za 1|BZMPOP 1 2 zz za MIN|BZPOPMIN zz za 0.05|\
                    XREADGROUP GROUP g c BLOCK 50 COUNT 1 STREAMS xa xb > >|\
                    XREADGROUP GROUP g c BLOCK 50 STREAMS xa xb > >|\
                    XREADGROUP GROUP g c BLOCK x STREAMS xa xb > >|\
                    XREADGROUP GROUP nog c BLOCK 50 STREAMS xa xb > >|\
                    LCS ta tb|LCS ta tb LEN|LCS ta tz|LCS ta la|\
                    SMOVE sa sc m|SMOVE sa sb m|SMOVE sa sb nosuch|SMOVE sa ta n|SMOVE sz sb n|\
                    SISMEMBER sa m|SISMEMBER sc m|SCARD sb|\
                    RENAMENX ra rb|RENAME ra rb|GET rb|EXISTS ra|RENAME rz rb|RENAMENX rb rc|GET rc|\
                    RENAME ha hc|HGET hc f|EXISTS ha|\
                    COPY rc rd|LMOVE la lb LEFT RIGHT|BLMOVE la lb LEFT RIGHT 1|RPOPLPUSH la lb|\
                    MSETNX na 1 nb 2|SUNIONSTORE sd sa sb|\
                    SORT la STORE lsorted|PFMERGE pa pb|BITOP NOT ba ta";
    for resp3 in [false, true] {
        let mut ours = if resp3 { full.proxy.connect3() } else { full.proxy.connect() };
        let mut theirs = Conn::tcp(server.addr()).expect("a connection");
        if resp3 {
            theirs.command(&["HELLO", "3"]).expect("HELLO");
        }
        limit("0");
        let mut ask = |line: &str| {
            let words = words(line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let want = theirs.command(&words).expect("the server's reply");
            (ours.command(&words).expect("slotway's reply"), want)
        };
        for line in std::iter::once("FLUSHALL").chain(data.split('|')) {
            let (got, want) = ask(line);
            assert!(got == want && got.error().is_none(), "{line}: {got:?}, {want:?}");
        }
        limit("1");
        for line in commands.split('|') {
            let (got, want) = ask(line);
            assert_eq!(got, want, "RESP{}: {line}", if resp3 { 3 } else { 2 });
        }
    }
}
