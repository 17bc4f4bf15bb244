//! Modules' commands that block their connection and do not say so by the flag `blocking` in COMMAND:
//! named in the configuration, or learned, they hold nobody up.
//!
//! The module is real: tests/data/blocking_module.c, compiled here.

use crate::common::errors::is_outcome_unknown;
use crate::common::{self, Proxy, Setting};
use slotway::cluster::slot_of;
use slotway::sandbox::{Conn, Node, Reply};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

const LEARNED: &str = "slotway_commands_learned_blocking";
/// Longer than a test takes: who waits for it waits until the test has failed.
const LONG: &str = "25000";

fn module() -> &'static PathBuf {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        let name = format!("blocking-module-{}.so", std::process::id());
        let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/blocking_module.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(compiler)
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(&out)
            .arg(source)
            .output()
            .expect("a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        out
    })
}

/// Nodes with the module, and slotway with one worker: all clients share its connections.
fn setting(args: &[&str]) -> Setting {
    let load = format!("loadmodule {}", module().display());
    let cluster = common::cluster_with(&[&load]);
    let mut all = vec!["--workers", "1", "--set", "timeouts.command=30s"];
    all.extend(args);
    let proxy = Proxy::start(&cluster, &all);
    let mut conn = connect(&proxy);
    common::eventually("slotway knows the module's commands", || {
        assert_eq!(conn.command(&["HOLD.READ", "{a}", "1"]).expect("a reply"), ok());
        proxy.metric("slotway_commands_total", "command=\"hold.read\"") > 0.0
    });
    Setting { proxy, cluster }
}

fn ok() -> Reply {
    Reply::Simple("OK".into())
}

fn connect(proxy: &Proxy) -> Conn {
    let mut conn = proxy.connect();
    conn.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    conn
}

/// The node that has the keys of all tests.
fn node(setting: &Setting) -> Node {
    setting.cluster.owner_of(slot_of(b"a")).expect("an owner")
}

/// IDs of the connections that a command blocks, at any primary.
fn blocked(setting: &Setting, command: &str) -> Vec<(Node, String)> {
    let mut ids = Vec::new();
    for node in setting.cluster.primaries().expect("the primaries") {
        let mut conn = setting.cluster.connect(&node).expect("a connection to a node");
        let list = conn.command(&["CLIENT", "LIST"]).expect("CLIENT LIST").text().expect("text");
        for line in list.lines() {
            if line.contains(" flags=b ") && line.contains(&format!(" cmd={command} ")) {
                let id = line.split(' ').find_map(|word| word.strip_prefix("id=")).expect("an ID");
                ids.push((node.clone(), id.to_owned()));
            }
        }
    }
    ids
}

/// `blocking` blocks for long, and all keys of its node can be read and written meanwhile.
fn holds_nobody_up(setting: &Setting, blocking: &[&str]) {
    let name = blocking[0].to_ascii_lowercase();
    let mut blocker = connect(&setting.proxy);
    blocker.send(blocking).expect("to send");
    common::eventually("the command blocks at its node", || blocked(setting, &name).len() == 1);
    for key in ["{a}", "b", "c", "d", "e", "f"] {
        let mut other = connect(&setting.proxy);
        assert_eq!(other.command(&["SET", key, "value"]).expect("a reply"), ok(), "{key}");
    }
    assert_eq!(blocked(setting, &name).len(), 1, "others waited until {name} was over");
    // With its client the connection that it was lent goes.
    drop(blocker);
    common::eventually("nothing is blocked", || blocked(setting, &name).is_empty());
}

#[test]
fn what_blocks_is_learned() {
    let setting = setting(&[]);
    let mut learned = 0.0;
    for (command, long) in [
        (&["HOLD.READ", "{a}", "2000"][..], &["HOLD.READ", "{a}", LONG][..]),
        (&["HOLD.ANY", "2000"][..], &["HOLD.ANY", LONG][..]),
    ] {
        // On a busy machine nobody may have looked in time.
        common::eventually("it is learned", || {
            let mut blocker = connect(&setting.proxy);
            blocker.send(command).expect("to send");
            common::eventually("it blocks", || {
                !blocked(&setting, &command[0].to_ascii_lowercase()).is_empty()
            });
            // Wherever it is, there is somebody behind it.
            let mut others: Vec<Conn> = Vec::new();
            for key in ["{a}", "b", "c", "d", "e", "f"] {
                let mut other = connect(&setting.proxy);
                other.send(&["GET", key]).expect("to send");
                others.push(other);
            }
            for other in &mut others {
                assert!(other.receive().expect("a reply").error().is_none());
            }
            assert_eq!(blocker.receive().expect("a reply"), ok());
            setting.proxy.metric(LEARNED, "") > learned
        });
        learned += 1.0;
        assert_eq!(setting.proxy.metric(LEARNED, ""), learned);
        let log = setting.proxy.log();
        let line = log.lines().find(|line| {
            line.contains("commands.blocking") && line.contains(&command[0].to_ascii_lowercase())
        });
        assert!(line.is_some(), "no line tells of {}", command[0]);
        holds_nobody_up(&setting, long);
    }
}

#[test]
fn what_keeps_its_node_busy_is_not_learned() {
    let setting = setting(&["--set", "log.level=info,slotway::control::blocked=debug"]);
    common::eventually("connections were looked at", || {
        let mut busy = connect(&setting.proxy);
        busy.send(&["HOLD.BUSY", "{a}", "400"]).expect("to send");
        let mut other = connect(&setting.proxy);
        assert!(other.command(&["GET", "{a}"]).expect("a reply").error().is_none());
        assert_eq!(busy.receive().expect("a reply"), ok());
        setting.proxy.log().matches("is not blocked").count() >= 3
    });
    assert_eq!(setting.proxy.metric(LEARNED, ""), 0.0);
}

#[test]
fn what_is_named_holds_nobody_up() {
    let setting = setting(&["--set", "commands.blocking=hold.read,hold.any,hold.write"]);
    holds_nobody_up(&setting, &["HOLD.READ", "{a}", LONG]);
    holds_nobody_up(&setting, &["HOLD.ANY", LONG]);
    holds_nobody_up(&setting, &["HOLD.WRITE", "{a}number", LONG]);
    assert_eq!(setting.proxy.metric(LEARNED, ""), 0.0);
}

#[test]
fn only_what_reads_is_sent_again() {
    let setting = setting(&["--set", "commands.blocking=hold.read,hold.write"]);
    let kill = |(at, id): &(Node, String)| {
        let mut conn = setting.cluster.connect(at).expect("a connection to a node");
        assert_eq!(conn.command(&["CLIENT", "KILL", "ID", id]).expect("a reply"), Reply::Int(1));
    };
    let mut conn = connect(&setting.proxy);
    conn.send(&["HOLD.WRITE", "{a}n", LONG]).expect("to send");
    common::eventually("it blocks", || blocked(&setting, "hold.write").len() == 1);
    kill(&blocked(&setting, "hold.write")[0]);
    let reply = conn.receive().expect("a reply");
    let text = reply.error().unwrap_or_else(|| panic!("{reply:?}"));
    assert!(is_outcome_unknown(text), "{text}");
    let count = conn.command(&["GET", "{a}n"]).expect("a reply");
    assert_eq!(count, Reply::Bulk(b"1".to_vec()), "once, at {:?}", node(&setting).addr);

    conn.send(&["HOLD.READ", "{a}", LONG]).expect("to send");
    common::eventually("it blocks", || blocked(&setting, "hold.read").len() == 1);
    let first = blocked(&setting, "hold.read");
    kill(&first[0]);
    common::eventually("it blocks again", || {
        let again = blocked(&setting, "hold.read");
        again.len() == 1 && again[0].1 != first[0].1
    });
}
