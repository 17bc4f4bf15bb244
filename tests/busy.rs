//! A node whose script runs on and on: other clients get the node's own BUSY, as at a server, and
//! nothing that was answered with it is executed.

use crate::common::{self, Proxy};
use slotway::cluster::slot_of;
use slotway::sandbox::{Cluster, Conn, Node, Reply};

const KEY: &str = "{busy}key";
const ENDLESS: &str = "while true do end";
const LIBRARY: &str = "#!lua name=endless\nredis.register_function{function_name='endless', \
                       callback=function() while true do end end}";
const BUSY: &str =
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";

#[test]
fn others_get_the_nodes_own_answer() {
    let cluster = common::cluster_with(&["busy-reply-threshold 100"]);
    for workers in ["1", "2"] {
        let proxy = Proxy::start(&cluster, &["--workers", workers]);
        let node = cluster.owner_of(slot_of(KEY.as_bytes())).expect("an owner");
        let (mut conn, mut other) = (proxy.connect(), proxy.connect3());
        assert!(ask(&mut conn, &["SET", KEY, "1"]).is_ok());
        assert!(ask(&mut conn, &["FUNCTION", "LOAD", "REPLACE", LIBRARY]).error().is_none());
        let [mut calls, mut exec] = [(); 2].map(|()| proxy.connect());
        let runs: [(&[&[&str]], &mut Conn, &str, &str); 4] = [
            (&[&["EVAL", ENDLESS, "1", KEY]], &mut proxy.connect(), "SCRIPT", "SCRIPT KILL"),
            (&[&["EVAL", ENDLESS, "1", KEY]], &mut proxy.connect3(), "SCRIPT", "SCRIPT KILL"),
            (&[&["FCALL", "endless", "1", KEY]], &mut calls, "FUNCTION", "FUNCTION KILL"),
            (
                &[&["MULTI"], &["EVAL", ENDLESS, "1", KEY], &["EXEC"]],
                &mut exec,
                "SCRIPT",
                "SCRIPT KILL",
            ),
        ];
        for (commands, runner, kind, kill) in runs {
            let (last, first) = commands.split_last().expect("commands");
            first.iter().for_each(|command| {
                ask(runner, command);
            });
            // What comes behind it on its own connection waits for it.
            runner.send(last).expect("to send");
            runner.send(&["INCR", KEY]).expect("to send");
            until_busy(&cluster, &node);
            for conn in [&mut conn, &mut other] {
                busy_reply(conn, &["GET", KEY], kill);
                busy_reply(conn, &["SET", KEY, "lost"], kill);
                busy_reply(conn, &["DBSIZE"], kill);
                // Queued here, refused there: discarded whole.
                assert!(ask(conn, &["MULTI"]).is_ok());
                ask(conn, &["SET", KEY, "lost"]);
                let reply = ask(conn, &["EXEC"]);
                let text = reply.error().expect("an error");
                assert!(text.starts_with("EXECABORT ") && text.contains("BUSY "), "{text}");
            }
            assert!(ask(&mut conn, &[kind, "KILL"]).is_ok());
            let ended = runner.receive().expect("the script's reply");
            let ended = ended.items().and_then(|replies| replies.first()).unwrap_or(&ended);
            let text = ended.error().expect("the script's error");
            assert!(text.contains("killed by user"), "{text}");
            let Reply::Int(count) = runner.receive().expect("INCR's reply") else { panic!() };
            for conn in [&mut conn, &mut other] {
                let now = Reply::Bulk(count.to_string().into_bytes());
                assert_eq!(ask(conn, &["GET", KEY]), now, "nothing else was executed");
            }
            let reply = ask(&mut conn, &["SET", KEY, "1"]);
            assert!(reply.is_ok(), "{reply:?}");
        }
    }
}

/// Commands that were behind the script when it was found to be one: what only reads is asked
/// again and answered BUSY, a write waits, as it will be executed.
#[test]
fn a_write_that_is_on_its_way_is_executed_once() {
    let cluster = common::cluster_with(&["busy-reply-threshold 100"]);
    let proxy = Proxy::start(&cluster, &["--workers", "1"]);
    let node = cluster.owner_of(slot_of(KEY.as_bytes())).expect("an owner");
    let [mut runner, mut reader, mut writer, mut late] = [(); 4].map(|()| proxy.connect());
    for conn in [&mut reader, &mut writer, &mut late] {
        assert!(ask(conn, &["SET", KEY, "0"]).is_ok());
    }
    runner.send(&["EVAL", ENDLESS, "1", KEY]).expect("to send");
    let label = format!("node=\"{}\"", node.addr);
    common::eventually("the script is at its node", || {
        proxy.metric("slotway_upstream_in_flight", &label) > 0.0
    });
    writer.send(&["INCR", KEY]).expect("to send");
    writer.send(&["GET", KEY]).expect("to send");
    reader.send(&["GET", KEY]).expect("to send");
    reader.send(&["MGET", KEY, "a", "b"]).expect("to send");
    until_busy(&cluster, &node);
    for _ in 0..2 {
        let reply = reader.receive().expect("a reply");
        assert_eq!(reply.error(), Some(BUSY), "{reply:?}");
    }
    busy_reply(&mut late, &["INCR", KEY], "SCRIPT KILL");
    let aside = || proxy.metric("slotway_upstream_connections_set_aside", &label);
    assert_eq!(aside(), 1.0);
    // More of the writer's stays behind what it has under way.
    writer.send(&["INCR", KEY]).expect("to send");
    assert!(ask(&mut late, &["SCRIPT", "KILL"]).is_ok());
    let replies = [(); 3].map(|()| writer.receive().expect("a reply"));
    assert_eq!(replies, [Reply::Int(1), Reply::Bulk(b"1".to_vec()), Reply::Int(2)]);
    assert!(runner.receive().expect("the script's reply").error().is_some());
    assert_eq!(ask(&mut late, &["GET", KEY]), Reply::Bulk(b"2".to_vec()), "executed once");
    // The script's connection goes when nothing waits on it any more.
    let shared = || proxy.metric("slotway_upstream_connections", "state=\"ready\"");
    let connects = proxy.metric("slotway_upstream_connects_total", "");
    common::eventually("it is closed", || shared() < connects);
    assert_eq!(aside(), 0.0);
}

#[test]
fn subscribers_hear_while_a_node_is_busy() {
    let cluster = common::cluster_with(&["busy-reply-threshold 100"]);
    let proxy = Proxy::start(&cluster, &["--workers", "1"]);
    let node = cluster.owner_of(slot_of(KEY.as_bytes())).expect("an owner");
    let others = cluster.primaries().expect("primaries");
    let elsewhere = others.iter().find(|other| other.addr != node.addr).expect("another");
    let mut subscriber = proxy.connect();
    assert!(ask(&mut subscriber, &["SUBSCRIBE", "channel"]).items().is_some());
    let mut runner = proxy.connect();
    runner.send(&["EVAL", ENDLESS, "1", KEY]).expect("to send");
    until_busy(&cluster, &node);
    let mut conn = proxy.connect();
    busy_reply(&mut conn, &["GET", KEY], "SCRIPT KILL");
    let mut direct = cluster.connect(elsewhere).expect("a connection");
    ask(&mut direct, &["PUBLISH", "channel", "while it is busy"]);
    assert!(ask(&mut conn, &["SCRIPT", "KILL"]).is_ok());
    assert!(runner.receive().expect("the script's reply").error().is_some());
    let message = subscriber.receive().expect("a message");
    let words: Vec<_> = message.items().expect("a message").iter().map(Reply::text).collect();
    assert_eq!(words[2].as_deref(), Some("while it is busy"));
}

/// The command gets the node's BUSY, whichever of its commands ends what runs.
fn busy_reply(conn: &mut Conn, command: &[&str], kill: &str) {
    let reply = ask(conn, command);
    assert_eq!(reply.error(), Some(&*BUSY.replace("SCRIPT KILL", kill)), "{command:?}: {reply:?}");
}

fn until_busy(cluster: &Cluster, node: &Node) {
    let mut direct = cluster.connect(node).expect("a connection");
    common::eventually("the node is busy", || {
        ask(&mut direct, &["PING"]).error().is_some_and(|text| text.starts_with("BUSY "))
    });
}

fn ask(conn: &mut Conn, command: &[&str]) -> Reply {
    conn.command(command).expect("a reply")
}
