//! Replies captured from Redis 7.0.15 clusters with 3 primaries and 3 replicas on ports 27110 to
//! 27115: fresh (replicas not synchronized), with hostnames, with unknown endpoints, with node
//! 27111 dead before its failover, and after it.

use super::super::{Slot, SlotRange, diff};
use super::*;

macro_rules! captured {
    ($name:literal) => {
        [
            &include_bytes!(concat!("captured/", $name, ".resp2"))[..],
            &include_bytes!(concat!("captured/", $name, ".resp3"))[..],
        ]
    };
}

fn asked() -> NodeAddr {
    NodeAddr { host: "10.9.8.7".into(), port: 27110 }
}

fn shards(replies: [&[u8]; 2]) -> Snapshot {
    let [two, three] = replies.map(|reply| parse_shards(reply, &asked()).unwrap());
    assert_eq!(two, three, "RESP2 and RESP3 say the same");
    two
}

fn slots(replies: [&[u8]; 2]) -> Snapshot {
    let [two, three] = replies.map(|reply| parse_slots(reply, &asked()).unwrap());
    assert_eq!(two, three, "RESP2 and RESP3 say the same");
    two
}

fn primary(snapshot: &Snapshot, slot: u16) -> Option<String> {
    snapshot.primary_of(Slot(slot)).map(|n| n.addr.to_string())
}

#[test]
fn a_healthy_cluster() {
    let snapshot = shards(captured!("shards"));
    assert_eq!(snapshot.nodes.len(), 6);
    assert_eq!(snapshot.shards.len(), 3);
    assert!(snapshot.covered());
    assert!(snapshot.missing_slots().is_empty());
    assert_eq!(primary(&snapshot, 0).unwrap(), "127.0.0.1:27110");
    assert_eq!(primary(&snapshot, 5460).unwrap(), "127.0.0.1:27110");
    assert_eq!(primary(&snapshot, 5461).unwrap(), "127.0.0.1:27111");
    assert_eq!(primary(&snapshot, 16383).unwrap(), "127.0.0.1:27112");
    for shard in &snapshot.shards {
        assert_eq!(shard.replicas.len(), 1);
        let primary = &snapshot.nodes[shard.primary.unwrap() as usize];
        assert_eq!(primary.role, Role::Primary);
        assert!(primary.is_online());
        assert_eq!(primary.id.len(), 40);
        assert_eq!(primary.socket.unwrap().to_string(), primary.addr.to_string());
        let replica = &snapshot.nodes[shard.replicas[0] as usize];
        assert_eq!(replica.role, Role::Replica);
        let state = NodeState::Loading;
        assert_eq!(replica.state, state, "captured before its first synchronization");
    }
    assert_eq!(snapshot.slot_primaries().len(), 3);
}

#[test]
fn cluster_slots_gives_the_same_owners() {
    let by_shards = shards(captured!("shards_failover"));
    let by_slots = slots(captured!("slots_failover"));
    for slot in 0..SLOTS {
        assert_eq!(primary(&by_shards, slot), primary(&by_slots, slot));
    }
    assert_eq!(by_slots.nodes.len(), 5, "the failed node has no slots, so it is not listed");
    // Replicas that have not synchronized are not listed by CLUSTER SLOTS.
    assert_eq!(slots(captured!("slots")).nodes.len(), 3);
}

#[test]
fn hostnames_are_preferred_where_the_server_says_so() {
    for snapshot in [shards(captured!("shards_hostname")), slots(captured!("slots_hostname"))] {
        assert_eq!(primary(&snapshot, 0).unwrap(), "node0.cluster.local:27110");
        assert_eq!(snapshot.primary_of(Slot(0)).unwrap().socket, None, "resolved by the caller");
        // Hostnames are preferred, but this node has none and says "?": its IP address counts, not
        // asked's.
        assert_eq!(primary(&snapshot, 16383).unwrap(), "127.0.0.1:27112");
    }
}

#[test]
fn an_unknown_endpoint_is_the_address_that_was_asked() {
    for snapshot in [shards(captured!("shards_unknown")), slots(captured!("slots_unknown"))] {
        assert_eq!(primary(&snapshot, 0).unwrap(), "10.9.8.7:27110");
        assert_eq!(primary(&snapshot, 16383).unwrap(), "10.9.8.7:27112");
    }
    let unknown = b"*1\r\n*3\r\n:0\r\n:9\r\n*3\r\n$1\r\n?\r\n:7000\r\n$2\r\nid\r\n";
    assert_eq!(primary(&parse_slots(unknown, &asked()).unwrap(), 9).unwrap(), "10.9.8.7:7000");
    let empty = b"*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n$0\r\n\r\n:7000\r\n";
    assert_eq!(primary(&parse_slots(empty, &asked()).unwrap(), 9).unwrap(), "10.9.8.7:7000");
}

#[test]
fn a_failed_primary_leaves_its_slots_uncovered_until_the_failover() {
    let before = shards(captured!("shards"));
    let failed = shards(captured!("shards_failed"));
    assert!(!failed.covered());
    assert_eq!(failed.missing_slots(), [SlotRange { start: 5461, end: 10922 }]);
    assert_eq!(failed.slots_covered(), 16384 - 5462);
    assert_eq!(failed.slot_primaries().len(), 2);
    let words = diff(&before, &failed);
    assert!(words.contains(&"node 127.0.0.1:27111 is not online".to_owned()), "{words:?}");
    assert!(
        words.contains(&"slots 5461-10922 lost their primary 127.0.0.1:27111".to_owned()),
        "{words:?}"
    );

    let after = shards(captured!("shards_failover"));
    assert!(after.covered());
    assert_eq!(primary(&after, 6000).unwrap(), "127.0.0.1:27114");
    let words = diff(&failed, &after);
    assert!(words.contains(&"node 127.0.0.1:27114 promoted to primary".to_owned()), "{words:?}");
    assert!(
        words.contains(&"slots 5461-10922 are served by 127.0.0.1:27114".to_owned()),
        "{words:?}"
    );
    assert!(diff(&after, &after).is_empty());
}

/// A node of a CLUSTER SHARDS reply as written by 7.2 and later.
fn node(id: &str, port: u16, role: &str, health: &str, offset: i64) -> String {
    format!(
        "*14\r\n+id\r\n+{id}\r\n+port\r\n:{port}\r\n+ip\r\n+127.0.0.1\r\n+endpoint\r\n+127.0.0.1\r\n\
         +role\r\n+{role}\r\n+replication-offset\r\n:{offset}\r\n+health\r\n+{health}\r\n"
    )
}

fn shard(ranges: &[(u16, u16)], nodes: &[String]) -> String {
    let slots: String = ranges.iter().map(|(a, b)| format!(":{a}\r\n:{b}\r\n")).collect();
    format!(
        "*4\r\n+slots\r\n*{}\r\n{slots}+nodes\r\n*{}\r\n{}",
        ranges.len() * 2,
        nodes.len(),
        nodes.concat()
    )
}

fn parsed(shards: &[String]) -> Snapshot {
    let reply = format!("*{}\r\n{}", shards.len(), shards.concat());
    parse_shards(reply.as_bytes(), &asked()).unwrap()
}

#[test]
fn of_several_primaries_in_a_shard_the_live_one() {
    let snapshot = parsed(&[shard(
        &[(0, 16383)],
        &[
            node("old", 1, "master", "failed", 900),
            node("new", 2, "master", "online", 800),
            node("behind", 3, "master", "online", 700),
        ],
    )]);
    assert_eq!(primary(&snapshot, 0).unwrap(), "127.0.0.1:2");
    assert_eq!(snapshot.shards[0].replicas.len(), 2);
    assert!(snapshot.covered());
}

#[test]
fn two_shards_claim_a_slot_and_the_one_with_a_primary_has_it() {
    let dead = shard(&[(0, 100)], &[node("a", 1, "master", "fail", 0)]);
    let live = shard(&[(50, 60)], &[node("b", 2, "master", "online", 0)]);
    for shards in [[dead.clone(), live.clone()], [live, dead]] {
        let snapshot = parsed(&shards);
        assert_eq!(primary(&snapshot, 55).unwrap(), "127.0.0.1:2");
        assert_eq!(primary(&snapshot, 49), None);
    }
}

#[test]
fn the_order_of_the_reply_does_not_matter() {
    let a = shard(
        &[(0, 9)],
        &[node("a", 1, "master", "online", 0), node("r", 9, "replica", "online", 0)],
    );
    let a2 = shard(
        &[(0, 9)],
        &[node("r", 9, "replica", "online", 5), node("a", 1, "master", "online", 7)],
    );
    let b = shard(&[(10, 16383)], &[node("b", 2, "master", "online", 0)]);
    let empty = shard(&[], &[node("c", 3, "master", "online", 0)]);
    let one = parsed(&[a, b.clone(), empty.clone()]);
    let other = parsed(&[empty, b, a2]);
    assert!(one.same_as(&other));
    assert_eq!(one.nodes.len(), 4, "a primary without slots is a node");
    assert_eq!(one.slot_primaries().len(), 2, "but owns none");
}

#[test]
fn a_node_set_up_anew_at_an_old_address_replaces_the_failed_one() {
    let snapshot = parsed(&[
        shard(&[(0, 16383)], &[node("new", 1, "master", "online", 0)]),
        shard(&[], &[node("old", 1, "master", "fail", 0)]),
    ]);
    assert_eq!(snapshot.nodes.len(), 1);
    assert_eq!(&*snapshot.nodes[0].id, "new");
}

#[test]
fn tls_only_nodes_and_nodes_without_a_port() {
    let tls = node("a", 7001, "master", "online", 0).replace("+port", "+tls-port");
    let none = node("b", 0, "master", "online", 0);
    let snapshot = parsed(&[shard(&[(0, 1)], &[tls, none])]);
    assert_eq!(primary(&snapshot, 0).unwrap(), "127.0.0.1:7001");
    assert_eq!(snapshot.nodes.len(), 1);
}

#[test]
fn moved_slots_and_moved_nodes_in_words() {
    let before = parsed(&[
        shard(&[(0, 99)], &[node("a", 1, "master", "online", 0)]),
        shard(&[(100, 16383)], &[node("b", 2, "master", "online", 0)]),
    ]);
    let after = parsed(&[
        shard(&[(0, 9), (50, 99)], &[node("a", 1, "master", "online", 0)]),
        shard(&[(10, 49), (100, 16383)], &[node("b", 2, "master", "online", 0)]),
        shard(&[], &[node("c", 3, "replica", "online", 0)]),
    ]);
    assert_eq!(
        diff(&before, &after),
        ["node 127.0.0.1:3 added (replica)", "slots 10-49 moved from 127.0.0.1:1 to 127.0.0.1:2"]
    );
    let renumbered = parsed(&[
        shard(&[(0, 99)], &[node("a", 11, "master", "online", 0)]),
        shard(&[(100, 16383)], &[node("b", 2, "master", "online", 0)]),
    ]);
    assert_eq!(
        diff(&before, &renumbered),
        [
            "node 127.0.0.1:1 is now at 127.0.0.1:11",
            "slots 0-99 moved from 127.0.0.1:1 to 127.0.0.1:11"
        ]
    );
    assert_eq!(diff(&before, &Snapshot::empty()).len(), 4);
}

#[test]
fn epochs_of_cluster_info() {
    let reply = include_bytes!("captured/info_failed.resp3");
    assert_eq!(
        parse_info(reply),
        Ok(Info { state_ok: false, epoch: 6, slots_assigned: 16384, known_nodes: 6 })
    );
    let ok = b"$44\r\ncluster_state:ok\r\ncluster_current_epoch:12\r\n\r\n";
    assert_eq!(parse_info(ok), Ok(Info { state_ok: true, epoch: 12, ..Info::default() }));
    assert!(parse_info(b":1\r\n").is_err());
}

#[test]
fn refusals_keep_the_servers_words() {
    let noperm = b"-NOPERM this user has no permissions\r\n";
    assert_eq!(
        parse_shards(noperm, &asked()),
        Err(ParseError::Refused("NOPERM this user has no permissions".into()))
    );
    assert!(matches!(parse_slots(b"+OK\r\n", &asked()), Err(ParseError::Unexpected(..))));
    assert!(parse_slots(b"*1\r\n*2\r\n:0\r\n:16384\r\n", &asked()).is_err());
    assert!(parse_shards(b"*1\r\n:5\r\n", &asked()).is_err());
    // A node that has not joined a cluster.
    assert_eq!(parse_slots(b"*0\r\n", &asked()).unwrap().slots_covered(), 0);
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    for reply in captured!("shards_hostname").into_iter().chain(captured!("slots_hostname")) {
        for at in 0..reply.len() {
            assert!(parse_shards(&reply[..at], &asked()).is_err());
            assert!(parse_slots(&reply[..at], &asked()).is_err());
            for with in [0, b'9', b'-', b'*', b':', 0xff] {
                let mut broken = reply.to_vec();
                broken[at] = with;
                let _ = parse_shards(&broken, &asked());
                let _ = parse_slots(&broken, &asked());
                let _ = parse_info(&broken);
            }
        }
    }
}

/// Replies of a node of Redis 8.2 next to 7.0: it omits the 7.0 primary from CLUSTER SHARDS, and a
/// replica whose primary it does not know from CLUSTER SLOTS too.
#[test]
fn what_one_reply_leaves_out_is_in_another() {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let node = |id: &str, port: u16, role: &str| {
        let fields = [("id", id), ("endpoint", "127.0.0.1"), ("role", role), ("health", "online")];
        let words: String = fields.iter().map(|(k, v)| bulk(k) + &bulk(v)).collect();
        format!("*10\r\n{words}$4\r\nport\r\n:{port}\r\n")
    };
    let newer = node("replica", 7003, "replica");
    let shards = format!("*1\r\n*4\r\n$5\r\nslots\r\n*0\r\n$5\r\nnodes\r\n*1\r\n{newer}");
    let entry = |id: &str, port: u16| format!("*3\r\n{}:{port}\r\n{}", bulk("127.0.0.1"), bulk(id));
    let (first, second) = (entry("primary", 7000), entry("replica", 7003));
    let slots = format!("*1\r\n*4\r\n:0\r\n:16383\r\n{first}{second}");
    let line =
        |id: &str, port: u16, rest: &str| format!("{id} 127.0.0.1:{port}@1{port} {rest} 0\n");
    let nodes = bulk(
        &[
            line("primary", 7000, "master - 0 0 1 connected 0-16383"),
            line("replica", 7003, "myself,slave primary 0 0 1 connected"),
            line("demoted", 7001, "slave unknown 0 0 1 connected"),
            line("gone", 7009, "slave,fail primary 0 0 1 disconnected"),
            line("new", 7010, "handshake - 0 0 0 connected"),
        ]
        .concat(),
    );
    let shards_only = parse_shards(shards.as_bytes(), &asked()).unwrap();
    let info = Info { slots_assigned: 16384, known_nodes: 4, ..Info::default() };
    assert!(info.contradicts(&shards_only));
    let mut replies = Replies { shards: shards.as_bytes(), slots: slots.as_bytes(), nodes: b"" };
    let merged = parse_replies(&replies, &asked(), false).unwrap();
    assert!(merged.covered() && info.contradicts(&merged));
    replies.nodes = nodes.as_bytes();
    let all = parse_replies(&replies, &asked(), false).unwrap();
    assert!(all.covered() && !info.contradicts(&all));
    let is = |id: &str| all.nodes.iter().find(|n| &*n.id == id).map(|n| (n.role, n.state));
    assert_eq!(is("primary"), Some((Role::Primary, NodeState::Online)));
    assert_eq!(is("replica"), Some((Role::Replica, NodeState::Online)));
    assert_eq!(is("demoted"), Some((Role::Replica, NodeState::Online)));
    assert_eq!(is("gone"), Some((Role::Replica, NodeState::Failed)));
    assert_eq!(is("new"), None);
    assert_eq!(all.shards.iter().filter(|shard| shard.primary.is_some()).count(), 1);
}

#[test]
fn slots_that_are_listed_again_and_again() {
    assert_eq!(united(vec![(5, 9), (0, 3), (5, 9), (2, 4), (11, 11)]), [(0, 4), (5, 9), (11, 11)]);
}

#[test]
fn the_node_timeout_where_it_is_told() {
    let told = |reply: &str| parse_node_timeout(reply.as_bytes());
    let name = "$20\r\ncluster-node-timeout\r\n";
    let after = Some(Duration::from_millis(15_000));
    assert_eq!(told(&format!("*2\r\n{name}$5\r\n15000\r\n")), after);
    assert_eq!(told(&format!("%1\r\n{name}$5\r\n15000\r\n")), after);
    assert_eq!(told(&format!("*2\r\n{name}$2\r\n-1\r\n")), None);
    assert_eq!(told("*0\r\n"), None, "a server that has no such setting");
    assert_eq!(told("-NOPERM User default has no permissions\r\n"), None);
    assert_eq!(told("$-1\r\n"), None);
}
