//! File descriptors: the number of clients is lowered to what connections to nodes, the admin
//! listener and files leave of the limit on open files.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use slotway::cluster::{Slot, slot_of};
use slotway::errors::FailureId;
use slotway::sandbox::{Cluster, Conn, Node, Reply};

use crate::common::errors::named;
use crate::common::{self, Proxy, eventually};

/// Starts slotway in front of `cluster` with so many file descriptors, as `ulimit -n` does it.
fn start_with_descriptors(cluster: &Cluster, descriptors: &str, args: &[&str]) -> Proxy {
    let seeds: Vec<String> = cluster.addrs().iter().map(ToString::to_string).collect();
    let limited = |name: &str, program: &Path| {
        let (mut command, folder) = cluster.command(name, Path::new("/bin/sh"))?;
        let script = format!("ulimit {descriptors} && exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(program);
        Ok::<(Command, _), slotway::sandbox::Error>((command, folder))
    };
    let proxy = Proxy::launch(limited, &seeds.join(","), args);
    eventually("slotway is ready", || {
        proxy.get("/readyz").is_some_and(|(status, _)| status == 200)
    });
    proxy
}

fn limit(proxy: &Proxy, name: &str) -> usize {
    proxy.metric("slotway_limit", &format!("limit=\"{name}\"")) as usize
}

/// Opens idle connections and gives those that were let in, and the errors of the others.
fn crowd(proxy: &Proxy, count: usize) -> (Vec<Conn>, Vec<String>) {
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut conn = proxy.connect();
        match conn.command(&["PING"]) {
            Ok(Reply::Simple(_)) => kept.push(conn),
            Ok(Reply::Error(text)) => refused.push(text),
            other => panic!("neither let in nor refused: {other:?}"),
        }
    }
    (kept, refused)
}

/// A key whose slot `node` owns.
fn key_on(node: &Node) -> String {
    let owned = |slot: Slot| node.slots.iter().any(|range| range.contains(&slot.0));
    let mut keys = (0..).map(|i| format!("{{{i}}}descriptors"));
    keys.find(|key| owned(slot_of(key.as_bytes()))).expect("a key")
}

fn writes_everywhere(conn: &mut Conn, cluster: &Cluster) {
    let primaries = cluster.primaries().expect("primaries").into_iter();
    for primary in primaries.filter(|primary| primary.slot_count() > 0) {
        assert!(conn.command(&["SET", &key_on(&primary), "v"]).expect("SET").is_ok());
    }
}

fn open_descriptors(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("/proc").count()
}

#[test]
fn idle_connections_take_no_descriptor_that_others_need() {
    let cluster = common::cluster();
    let proxy = start_with_descriptors(&cluster, "-n 100", &["--workers", "2"]);
    let before = open_descriptors(&proxy);
    let mut first = proxy.connect();
    assert!(first.command(&["SET", "k", "v"]).expect("SET").is_ok());

    let (kept, refused) = crowd(&proxy, 150);
    let clients = limit(&proxy, "clients");
    assert_eq!((kept.len() + 1, kept.len() + refused.len()), (clients, 150));
    assert!((10..100).contains(&clients), "{clients}");
    for text in &refused {
        assert_eq!(named(text).id, FailureId::TooManyClientsForFiles, "{text}");
        assert!(text.contains("LimitNOFILE"), "{text}");
    }
    assert!(proxy.log().contains("limits.clients is lowered"), "{}", proxy.log());
    let status: serde_json::Value =
        serde_json::from_str(&proxy.get("/status.json").expect("the status").1).expect("JSON");
    assert_eq!(status["limits"]["clients"], clients);
    assert!(proxy.metric("slotway_descriptors_reserved", "") as usize + clients <= 100);
    assert_eq!(proxy.metric("slotway_clients_rejected_total", "") as usize, refused.len());

    // Whoever was let in goes on: to each node, in both protocols, on connections of its own.
    writes_everywhere(&mut first, &cluster);
    let mut others = kept.into_iter();
    let mut resp3 = others.next().expect("another client");
    resp3.command(&["HELLO", "3"]).expect("HELLO");
    writes_everywhere(&mut resp3, &cluster);
    let mut blocked = others.next().expect("another client");
    blocked.send(&["BLPOP", "list", "0"]).expect("to send");
    let mut subscriber = others.next().expect("another client");
    subscriber.command(&["SUBSCRIBE", "news"]).expect("SUBSCRIBE");
    eventually("it waits", || proxy.metric("slotway_clients_blocked", "") == 1.0);
    assert_eq!(first.command(&["RPUSH", "list", "x"]).expect("RPUSH"), Reply::Int(1));
    assert_eq!(blocked.receive().expect("BLPOP").items().map(<[_]>::len), Some(2));
    assert_eq!(first.command(&["PUBLISH", "news", "x"]).expect("PUBLISH"), Reply::Int(1));
    subscriber.receive().expect("the message");
    for page in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(proxy.get(page).map(|(status, _)| status), Some(200), "{page}");
    }
    assert_eq!(proxy.metric("slotway_accept_errors_total", ""), 0.0);

    drop((first, resp3, blocked, subscriber, others));
    eventually("all are gone", || proxy.metric("slotway_clients", "") == 0.0);
    let (again, refused) = crowd(&proxy, clients);
    assert_eq!((again.len(), refused.len()), (clients, 0));
    drop(again);
    // The connections to nodes stay; nothing else does.
    eventually("the descriptors are back", || open_descriptors(&proxy) <= before + 3 * 6);
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let cluster = common::cluster();
    let proxy = start_with_descriptors(&cluster, "-S -n 100", &["--workers", "1"]);
    let (kept, refused) = crowd(&proxy, 150);
    assert_eq!((kept.len(), refused.len()), (150, 0));
}

#[test]
fn a_larger_cluster_leaves_fewer_clients() {
    let cluster = common::cluster();
    let proxy = start_with_descriptors(&cluster, "-n 110", &["--workers", "2"]);
    let before = limit(&proxy, "clients");
    let (mut kept, _) = crowd(&proxy, 150);
    assert_eq!(kept.len(), before);
    // Its connection is the one that was used last.
    let mut active = kept.pop().expect("a client");
    cluster.add_node(None).expect("another node");
    eventually("the new node has its share", || {
        assert!(active.command(&["PING"]).is_ok(), "who is active is not closed");
        let now = limit(&proxy, "clients");
        now < before && proxy.metric("slotway_clients", "") as usize <= now
    });
    let closed = proxy.metric("slotway_clients_disconnected_total", "reason=\"descriptors\"");
    assert_eq!(closed as usize, before - limit(&proxy, "clients"));
    writes_everywhere(&mut active, &cluster);
}

#[test]
fn a_limit_that_is_lowered_under_slotway_is_noticed() {
    let common::Setting { proxy, cluster } = common::setting(&["--workers", "1"]);
    let mut conn = proxy.connect();
    writes_everywhere(&mut conn, &cluster);
    let max = rustix::process::getrlimit(Resource::Nofile).maximum;
    let pid = Pid::from_raw(i32::try_from(proxy.pid()).expect("a process ID")).expect("one");
    let set = |current| {
        let limit = Rlimit { current: Some(current), maximum: max };
        prlimit(Some(pid), Resource::Nofile, limit).expect("prlimit").current.expect("a limit")
    };
    let before = set(100);
    let (kept, refused) = crowd(&proxy, 150);
    assert!(kept.len() < 100 && !refused.is_empty());
    writes_everywhere(&mut conn, &cluster);
    set(before);
    let (_more, refused) = crowd(&proxy, 150);
    assert!(refused.is_empty(), "{refused:?}");
}
