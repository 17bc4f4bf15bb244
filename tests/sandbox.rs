//! The sandbox: real clusters that start, can be broken on purpose, and leave nothing behind.

use crate::common::{self, cluster, eventually, send, wait};
use rustix::process::Signal;
use slotway::cluster::{Role, Slot, slot_of};
use slotway::sandbox::{
    Cluster, ClusterOptions, Reply, Standalone, StandaloneOptions, free_port, free_ports,
};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// For tests that leave it as they found it.
fn quiet() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(cluster)
}

fn small(primaries: usize, replicas: usize) -> Cluster {
    Cluster::start(ClusterOptions { primaries, replicas, ..Default::default() }).unwrap()
}

/// The processes whose working directory lies in `dir`, or lay there.
fn processes_in(dir: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let cwd = std::fs::read_link(path.join("cwd")).ok()?;
        let command = std::fs::read_to_string(path.join("cmdline")).ok()?;
        cwd.starts_with(dir).then(|| command.replace('\0', " "))
    });
    processes.collect()
}

#[test]
fn a_cluster_is_whole_in_every_nodes_eyes() {
    let cluster = quiet();
    let nodes = cluster.nodes().unwrap();
    assert_eq!(nodes.len(), 6);
    for node in &nodes {
        let mut conn = cluster.connect(node).unwrap();
        let info = conn.command(&["CLUSTER", "INFO"]).unwrap().text().unwrap();
        for line in [
            "cluster_state:ok",
            "cluster_slots_ok:16384",
            "cluster_known_nodes:6",
            "cluster_size:3",
        ] {
            assert!(info.contains(line), "{}: {info}", node.addr);
        }
        assert_eq!(conn.command(&["CLUSTER", "MYID"]).unwrap().text(), Some(node.id.clone()));
    }
    let primaries = cluster.primaries().unwrap();
    assert_eq!(primaries.len(), 3);
    assert_eq!(primaries.iter().map(|node| node.slot_count()).sum::<usize>(), 16384);
    for primary in &primaries {
        let replicas = cluster.replicas_of(primary).unwrap();
        assert_eq!(replicas.len(), 1, "replicas of {}", primary.addr);
        assert_eq!(replicas[0].role, Role::Replica);
    }
}

#[test]
fn what_is_written_arrives_at_the_replica() {
    let cluster = quiet();
    let owner = cluster.owner_of(slot_of(b"arrives")).unwrap();
    assert!(cluster.connect(&owner).unwrap().command(&["SET", "arrives", "1"]).unwrap().is_ok());
    let replica = cluster.replicas_of(&owner).unwrap().remove(0);
    cluster.catch_up(&replica).unwrap();
    let mut conn = cluster.connect(&replica).unwrap();
    assert!(conn.command(&["READONLY"]).unwrap().is_ok());
    assert_eq!(conn.command(&["GET", "arrives"]).unwrap(), Reply::Bulk(b"1".to_vec()));
}

#[test]
fn a_slot_moves_with_its_keys() {
    let cluster = quiet();
    let slot = slot_of(b"moving");
    let from = cluster.owner_of(slot).unwrap();
    let to = cluster.primaries().unwrap().into_iter().find(|node| node.id != from.id).unwrap();
    let keys: Vec<Vec<u8>> = (0..25u8).map(|n| [b"{moving}\r\n\xff", &[n][..]].concat()).collect();
    let mut old = cluster.connect(&from).unwrap();
    for key in &keys {
        assert!(old.command(&[b"SET", &key[..], &key[..]]).unwrap().is_ok());
    }

    assert_eq!(cluster.move_slot(slot, &from, &to).unwrap(), 25);
    let moved = format!("MOVED {} {}", slot.0, to.addr);
    assert_eq!(old.command(&[b"GET", &keys[0][..]]).unwrap(), Reply::Error(moved));
    let mut new = cluster.connect(&to).unwrap();
    for key in &keys {
        assert_eq!(new.command(&[b"GET", &key[..]]).unwrap(), Reply::Bulk(key.clone()));
    }
    cluster.settle().unwrap();
    assert_eq!(cluster.owner_of(slot).unwrap().id, to.id);

    assert_eq!(cluster.move_slot(slot, &to, &from).unwrap(), 25);
    cluster.settle().unwrap();
    assert_eq!(cluster.owner_of(slot).unwrap().id, from.id);
}

#[test]
fn a_move_can_be_stopped_half_way() {
    let cluster = quiet();
    let slot = slot_of(b"halfway");
    let from = cluster.owner_of(slot).unwrap();
    let to = cluster.primaries().unwrap().into_iter().find(|node| node.id != from.id).unwrap();
    let mut old = cluster.connect(&from).unwrap();
    for key in ["{halfway}1", "{halfway}2"] {
        assert!(old.command(&["SET", key, "x"]).unwrap().is_ok());
    }
    cluster.begin_move(slot, &from, &to).unwrap();
    assert_eq!(cluster.move_keys(slot, &from, &to, 1).unwrap(), 1);
    let ask = Reply::Error(format!("ASK {} {}", slot.0, to.addr));
    let replies = ["{halfway}1", "{halfway}2"].map(|key| old.command(&["GET", key]).unwrap());
    assert!(replies.contains(&ask) && replies.contains(&Reply::Bulk(b"x".to_vec())), "{replies:?}");
    let both = old.command(&["MGET", "{halfway}1", "{halfway}2"]).unwrap();
    assert!(both.error().is_some_and(|e| e.starts_with("TRYAGAIN")), "{both:?}");
    assert_eq!(cluster.move_keys(slot, &from, &to, 10).unwrap(), 1);
    cluster.finish_move(slot, &from, &to).unwrap();
    cluster.move_slot(slot, &to, &from).unwrap();
}

#[test]
fn a_failover_swaps_the_roles() {
    let cluster = small(3, 3);
    let primary = cluster.primaries().unwrap().remove(0);
    let replica = cluster.replicas_of(&primary).unwrap().remove(0);
    cluster.failover(&replica).unwrap();
    assert!(cluster.node(&replica.id).unwrap().is_primary());
    assert_eq!(cluster.node(&primary.id).unwrap().primary, Some(replica.id));
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_replica() {
    let cluster = small(3, 3);
    let primary = cluster.primaries().unwrap().remove(0);
    let replica = cluster.replicas_of(&primary).unwrap().remove(0);
    cluster.kill(&primary).unwrap();
    cluster.connect(&primary).unwrap_err();
    cluster.settle().unwrap();
    assert!(cluster.node(&replica.id).unwrap().is_primary());
    assert_eq!(cluster.node(&primary.id).unwrap().pid, None);

    cluster.restart(&primary).unwrap();
    cluster.settle().unwrap();
    let back = cluster.node(&primary.id).unwrap();
    assert_eq!((back.addr, back.primary), (primary.addr, Some(replica.id)));
    assert_ne!(back.pid, primary.pid);
}

#[test]
fn a_paused_node_is_silent_until_it_is_resumed() {
    let cluster = small(1, 0);
    let node = cluster.primaries().unwrap().remove(0);
    let mut conn = cluster.connect(&node).unwrap();
    cluster.pause(&node).unwrap();
    conn.set_timeout(Some(Duration::from_millis(300))).unwrap();
    conn.command(&["PING"]).unwrap_err();
    cluster.resume(&node).unwrap();
    conn.set_timeout(Some(common::PATIENCE)).unwrap();
    assert_eq!(conn.receive().unwrap(), Reply::Simple("PONG".into()));
    cluster.pause(&node).unwrap(); // and a paused one does not outlive its cluster
    let dir = cluster.dir().to_owned();
    drop(cluster);
    assert_eq!(processes_in(&dir), [""; 0]);
}

#[test]
fn nodes_come_and_go() {
    let cluster = small(1, 0);
    let first = cluster.primaries().unwrap().remove(0);
    let replica = cluster.add_node(Some(&first)).unwrap();
    assert_eq!(replica.primary, Some(first.id.clone()));
    let second = cluster.add_node(None).unwrap();
    assert_eq!((second.role, second.slot_count()), (Role::Primary, 0));
    cluster.move_slot(Slot(7), &first, &second).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.owner_of(Slot(7)).unwrap().id, second.id);

    cluster.remove_node(&second).unwrap_err();
    cluster.remove_node(&replica).unwrap();
    cluster.settle().unwrap();
    assert_eq!(cluster.nodes().unwrap().len(), 2);
    cluster.node(&replica.id).unwrap_err();
}

#[test]
fn a_password_and_own_configuration_hold_for_every_node() {
    let options = ClusterOptions {
        primaries: 2,
        replicas: 1,
        password: Some("p\"w\\1".into()),
        conf: vec!["maxmemory-policy allkeys-lfu".into()],
        ..Default::default()
    };
    let cluster = Cluster::start(options).unwrap();
    let nodes = cluster.nodes().unwrap();
    for node in &nodes {
        let mut stranger = slotway::sandbox::Conn::tcp(node.addr).unwrap();
        let refused = stranger.command(&["PING"]).unwrap();
        assert!(refused.error().is_some_and(|e| e.starts_with("NOAUTH")), "{refused:?}");
        let mut conn = cluster.connect(node).unwrap();
        let policy = conn.command(&["CONFIG", "GET", "maxmemory-policy"]).unwrap();
        assert_eq!(policy.items().unwrap()[1], Reply::Bulk(b"allkeys-lfu".to_vec()));
    }
    let from = cluster.owner_of(slot_of(b"k")).unwrap();
    let to = cluster.primaries().unwrap().into_iter().find(|node| node.id != from.id).unwrap();
    assert!(cluster.connect(&from).unwrap().command(&["SET", "k", "v"]).unwrap().is_ok());
    assert_eq!(cluster.move_slot(slot_of(b"k"), &from, &to).unwrap(), 1);
    let mut new = cluster.connect(&to).unwrap();
    assert_eq!(new.command(&["GET", "k"]).unwrap(), Reply::Bulk(b"v".to_vec()));
}

#[test]
fn a_single_server_answers_on_both_sockets() {
    let options = StandaloneOptions { unix_socket: true, ..Default::default() };
    let mut server = Standalone::start(options).unwrap();
    let mut tcp = server.connect().unwrap();
    let many: Vec<Vec<String>> =
        (0..1000).map(|n| vec!["SET".into(), format!("k{n}"), n.to_string()]).collect();
    assert!(tcp.pipeline(&many).unwrap().iter().all(Reply::is_ok));
    let mut unix = server.connect_unix().unwrap();
    assert_eq!(unix.command(&["GET", "k999"]).unwrap(), Reply::Bulk(b"999".to_vec()));
    assert!(matches!(unix.command(&["HELLO", "3"]).unwrap(), Reply::Map(_)));
    assert_eq!(unix.command(&["GET", "none"]).unwrap(), Reply::Nil);
    assert_eq!(unix.command(&["HGETALL", "none"]).unwrap(), Reply::Map(vec![]));

    let pid = server.pid();
    server.restart().unwrap();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.connect().unwrap().command(&["DBSIZE"]).unwrap().int(), Some(0));
    let dir = server.dir().to_owned();
    drop(server);
    assert!(!dir.exists() && processes_in(&dir).is_empty());
}

#[test]
fn two_clusters_at_once_keep_apart_and_leave_nothing() {
    let threads = [(); 2].map(|()| std::thread::spawn(|| small(2, 1)));
    let clusters = threads.map(|thread| thread.join().unwrap());
    let mut addrs: Vec<_> = clusters.iter().flat_map(Cluster::addrs).collect();
    addrs.sort();
    addrs.dedup();
    assert_eq!(addrs.len(), 6);
    for cluster in clusters {
        let dir = cluster.dir().to_owned();
        assert_eq!(processes_in(&dir).len(), 3);
        drop(cluster);
        assert!(!dir.exists(), "{} is still there", dir.display());
        assert_eq!(processes_in(&dir), [""; 0]);
    }
}

#[test]
fn a_server_that_does_not_start_is_shown_with_its_log() {
    let options = ClusterOptions { conf: vec!["no-such-key 1".into()], ..Default::default() };
    let error = Cluster::start(options).unwrap_err().to_string();
    assert!(error.contains("no-such-key"), "{error}");
}

/// Not a test: what the next one starts, so that there is a process to kill.
#[test]
#[ignore = "started by a_process_that_is_killed_leaves_nothing"]
fn a_process_that_holds_a_cluster_in_a_static() {
    static HELD: OnceLock<Cluster> = OnceLock::new();
    HELD.get_or_init(|| small(2, 0));
    println!("held");
    std::thread::sleep(common::PATIENCE);
}

#[test]
fn a_process_that_is_killed_leaves_nothing() {
    for signal in [Signal::KILL, Signal::INT] {
        let temp = tempfile::tempdir().unwrap();
        // Where the tests are a shell's background job, SIGINT is ignored by all that they start.
        let mut holder = Command::new("env")
            .arg("--default-signal=INT")
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("sandbox::a_process_that_holds_a_cluster_in_a_static")
            .env("TMPDIR", temp.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_line(&mut holder, "held");
        assert_eq!(processes_in(temp.path()).len(), 2);
        send(&holder, signal);
        wait(&mut holder, "the holder ends");
        nothing_is_left(temp.path());
    }
}

/// `slotway sandbox` on free ports, with its own folder for temporary files.
fn slotway_sandbox(temp: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    command
        .args(["sandbox", "--primaries", "2", "--replicas", "1"])
        .args(args)
        .env("TMPDIR", temp)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Reads the child's output until a line contains `text`.
#[track_caller]
fn wait_for_line(child: &mut Child, text: &str) -> String {
    let mut read = String::new();
    let mut stdout = BufReader::new(child.stdout.as_mut().expect("its output"));
    while stdout.read_line(&mut read).expect("its output") > 0 {
        if read.contains(text) {
            return read;
        }
    }
    let _ = child.kill();
    panic!("ended without saying {text:?}:\n{read}");
}

#[track_caller]
fn nothing_is_left(temp: &Path) {
    eventually("the watchdog has cleaned up", || {
        processes_in(temp).is_empty() && std::fs::read_dir(temp).unwrap().next().is_none()
    });
}

#[test]
fn the_command_says_what_to_try_and_a_signal_stops_everything() {
    for signal in [Signal::TERM, Signal::INT] {
        let temp = tempfile::tempdir().unwrap();
        let [port, admin] = free_ports(2).unwrap()[..] else { unreachable!() };
        let admin_addr = format!("127.0.0.1:{admin}");
        let args = ["--port", &port.to_string(), "--admin", &admin_addr];
        let mut sandbox = slotway_sandbox(temp.path(), &args).spawn().unwrap();
        let said = wait_for_line(&mut sandbox, "Ctrl-C");
        for text in [format!("redis-cli -p {port}"), format!("http://{admin_addr}/metrics")] {
            assert!(said.contains(&text), "{said}");
        }
        assert_eq!(processes_in(temp.path()).len(), 3);
        let mut conn =
            slotway::sandbox::Conn::tcp((Ipv4Addr::LOCALHOST, port).into()).expect("slotway");
        assert!(conn.command(&["SET", "k", "v"]).unwrap().is_ok());

        send(&sandbox, signal);
        let status = wait(&mut sandbox, "slotway sandbox ends");
        assert!(status.success(), "{status}");
        // At once: this is the orderly end, not the watchdog's.
        assert!(processes_in(temp.path()).is_empty());
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}

#[test]
fn the_command_starts_a_single_server_as_well() {
    for (kind, processes) in [("standalone", 2), ("sentinel", 5)] {
        let temp = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let args = ["--kind", kind, "--port", &port.to_string(), "--admin", "127.0.0.1:0"];
        let mut sandbox = slotway_sandbox(temp.path(), &args).spawn().unwrap();
        let said = wait_for_line(&mut sandbox, "Ctrl-C");
        assert!(said.contains("a Redis server"), "{said}");
        assert_eq!(processes_in(temp.path()).len(), processes);
        let mut conn =
            slotway::sandbox::Conn::tcp((Ipv4Addr::LOCALHOST, port).into()).expect("slotway");
        assert!(conn.command(&["MSETNX", "a", "1", "b", "2"]).unwrap() == Reply::Int(1));
        send(&sandbox, Signal::TERM);
        assert!(wait(&mut sandbox, "slotway sandbox ends").success());
        nothing_is_left(temp.path());
    }
}

#[test]
fn the_command_can_be_stopped_while_it_starts() {
    let temp = tempfile::tempdir().unwrap();
    let args = ["--port", "0", "--admin", "127.0.0.1:0"];
    let mut sandbox = slotway_sandbox(temp.path(), &args).spawn().unwrap();
    eventually("a server runs", || !processes_in(temp.path()).is_empty());
    send(&sandbox, Signal::TERM);
    let status = wait(&mut sandbox, "slotway sandbox ends");
    assert!(status.success(), "{status}");
    assert!(processes_in(temp.path()).is_empty());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

/// Runs the command, which must fail, and returns what it says.
fn failure(command: &mut Command) -> String {
    let mut child = command.spawn().unwrap();
    let status = wait(&mut child, "slotway sandbox gives up");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!status.success(), "{status}: {said}");
    said
}

#[test]
fn the_command_refuses_a_taken_port_and_names_the_way_out() {
    let temp = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).unwrap();
    let addr = taken.local_addr().unwrap();
    let port = addr.port().to_string();
    let said =
        failure(&mut slotway_sandbox(temp.path(), &["--port", &port, "--admin", "127.0.0.1:0"]));
    assert!(said.contains(&addr.to_string()) && said.contains("--port"), "{said}");
    let said =
        failure(&mut slotway_sandbox(temp.path(), &["--port", "0", "--admin", &addr.to_string()]));
    assert!(said.contains(&addr.to_string()) && said.contains("--admin"), "{said}");
    nothing_is_left(temp.path());
}

#[test]
fn the_command_says_how_to_install_what_is_missing() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = slotway_sandbox(temp.path(), &["--port", "0", "--admin", "127.0.0.1:0"]);
    let said = failure(command.env("PATH", "/nonexistent"));
    assert!(said.contains("apt-get install redis-server"), "{said}");
    nothing_is_left(temp.path());
}
