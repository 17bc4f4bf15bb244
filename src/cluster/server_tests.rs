//! Tests of single servers and Sentinels, with replies of Redis 7.0.15.

use super::*;

fn addr(port: u16) -> NodeAddr {
    NodeAddr { host: "127.0.0.1".into(), port }
}

fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}

fn info(lines: &str) -> Vec<u8> {
    bulk(&format!("# Replication\r\n{}\r\n", lines.replace(' ', "\r\n")))
}

fn flat(pairs: &[(&str, &str)]) -> String {
    let words = pairs.iter().flat_map(|(a, b)| [a, b]);
    let words: String = words.map(|w| format!("${}\r\n{w}\r\n", w.len())).collect();
    format!("*{}\r\n{words}", pairs.len() * 2)
}

fn primary(port: u16, replicas: &[u16], offset: i64) -> ServerReply {
    let replicas = replicas.iter().map(|&port| (addr(port), NodeState::Online)).collect();
    let role = Role::Primary;
    ServerReply { addr: addr(port), run_id: "".into(), role, primary: None, replicas, offset }
}

fn replica(port: u16, of: u16, offset: i64) -> ServerReply {
    ServerReply { role: Role::Replica, primary: Some(addr(of)), ..primary(port, &[], offset) }
}

#[test]
fn a_primary_names_its_replicas() {
    let said = info(
        "role:master connected_slaves:2 \
         slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0 \
         slave1:ip=10.0.0.9,port=7002,state=wait_bgsave,offset=0,lag=0 \
         master_failover_state:no-failover master_repl_offset:14",
    );
    let server = bulk("# Server\r\nredis_version:7.0.15\r\nrun_id:0123456789\r\n");
    let reply = parse_server(&said, &server, &addr(7000)).unwrap();
    assert_eq!((reply.role, &*reply.run_id, reply.offset), (Role::Primary, "0123456789", 14));
    let other = NodeAddr { host: "10.0.0.9".into(), port: 7002 };
    assert_eq!(reply.replicas, [(addr(7001), NodeState::Online), (other, NodeState::Loading)]);
    assert_eq!(reply.primary, None);
}

#[test]
fn a_replica_names_its_primary() {
    let said = info(
        "role:slave master_host:127.0.0.1 master_port:7000 master_link_status:up \
         slave_repl_offset:28 slave_priority:100 slave_read_only:1 connected_slaves:0",
    );
    let reply = parse_server(&said, b"-NOPERM no\r\n", &addr(7001)).unwrap();
    assert_eq!((reply.role, reply.primary, reply.offset), (Role::Replica, Some(addr(7000)), 28));
    assert_eq!((&*reply.run_id, reply.replicas.len()), ("", 0));
}

#[test]
fn what_is_no_server_is_said() {
    let refused = parse_server(b"-NOAUTH Authentication required.\r\n", b"", &addr(1));
    assert!(matches!(refused, Err(ParseError::Refused(_))));
    assert!(matches!(
        parse_server(&info("role:sentinel"), b"", &addr(1)),
        Err(ParseError::NotInfo(_))
    ));
    assert!(matches!(parse_server(b":1\r\n", b"", &addr(1)), Err(ParseError::NotInfo(_))));
    let unknown = parse_sentinel(b"-ERR No such master with that name\r\n", b"*0\r\n");
    assert!(matches!(unknown, Err(ParseError::Refused(_))));
    assert!(matches!(parse_sentinel(b"*0\r\n", b"*0\r\n"), Err(ParseError::NotSentinel(_))));
}

#[test]
fn a_sentinel_names_the_server_and_its_replicas() {
    let master = flat(&[
        ("name", "mymaster"),
        ("ip", "127.0.0.1"),
        ("port", "7000"),
        ("flags", "s_down,o_down,master"),
        ("config-epoch", "3"),
    ]);
    let of = |port: &str, flags: &str, link: &str| {
        flat(&[("ip", "127.0.0.1"), ("port", port), ("flags", flags), ("master-link-status", link)])
    };
    let replicas =
        [of("7001", "slave", "ok"), of("7002", "s_down,slave", "err"), of("7003", "slave", "err")];
    let replicas = format!("*3\r\n{}", replicas.concat());
    let reply = parse_sentinel(master.as_bytes(), replicas.as_bytes()).unwrap();
    assert_eq!((reply.primary, reply.is_down, reply.epoch), (addr(7000), true, 3));
    let states: Vec<NodeState> = reply.replicas.iter().map(|(_, state)| *state).collect();
    assert_eq!(states, [NodeState::Online, NodeState::Failed, NodeState::Loading]);
}

/// (the servers that answer, the one in use, the one that is written to)
#[test]
fn who_is_written_to() {
    let one = [primary(1, &[2], 10), replica(2, 1, 10)];
    assert_eq!(choose_primary(&one, None), Ok(Some(0)));
    // Promoted: the one in use follows now, or is gone.
    let promoted = [replica(1, 2, 20), primary(2, &[1], 20)];
    assert_eq!(choose_primary(&promoted, Some(&addr(1))), Ok(Some(1)));
    assert_eq!(choose_primary(&promoted[1..], Some(&addr(1))), Ok(Some(0)));
    // The former primary is back and has not been told yet.
    let both = [primary(1, &[], 10), primary(2, &[], 5)];
    assert_eq!(choose_primary(&both, Some(&addr(2))), Ok(Some(1)));
    // Nobody was in use: the one that is followed.
    let followed = [primary(1, &[], 99), primary(2, &[3], 5), replica(3, 2, 5)];
    assert_eq!(choose_primary(&followed, None), Ok(Some(1)));
    assert_eq!(choose_primary(&both, None), Err(NoPrimary::Two(addr(1), addr(2))));
    // The one in use is gone, and two claim its place: the one with its data.
    assert_eq!(choose_primary(&both, Some(&addr(9))), Ok(Some(0)));
    // A failover in progress.
    assert_eq!(choose_primary(&[replica(2, 1, 10)], Some(&addr(1))), Ok(None));
    assert_eq!(choose_primary(&[], None), Ok(None));
}

#[test]
fn which_sentinel_is_believed() {
    let says = |port, epoch| SentinelReply {
        primary: addr(port),
        is_down: false,
        epoch,
        replicas: Vec::new(),
    };
    assert_eq!(choose_sentinel(&[]), Ok(None));
    assert_eq!(choose_sentinel(&[says(1, 3), says(2, 4), says(1, 3)]), Ok(Some(1)));
    assert_eq!(choose_sentinel(&[says(1, 4), says(1, 4), says(2, 4)]), Ok(Some(0)));
    // Whoever answers first.
    assert_eq!(choose_sentinel(&[says(2, 4), says(1, 4), says(1, 4)]), Ok(Some(1)));
    assert_eq!(choose_sentinel(&[says(2, 4), says(1, 3), says(1, 3)]), Ok(Some(0)));
    let torn = choose_sentinel(&[says(1, 4), says(2, 4)]);
    assert_eq!(torn, Err(NoPrimary::SentinelsDisagree(addr(1), addr(2))));
}

#[test]
fn the_topology_is_one_shard_with_all_slots() {
    let replicas =
        [(addr(3), NodeState::Online), (addr(2), NodeState::Loading), (addr(1), NodeState::Online)];
    let id = |a: &NodeAddr| a.to_string().into();
    let whole = snapshot_of(Some(&addr(1)), &replicas, id);
    assert!(whole.covered());
    let ports: Vec<u16> = whole.nodes.iter().map(|n| n.addr.port).collect();
    assert_eq!((ports, &*whole.shards[0].replicas), (vec![1, 2, 3], [1, 2].as_slice()));
    assert_eq!(whole.primary_of(super::super::Slot(77)).map(|n| n.addr.port), Some(1));
    let without = snapshot_of(None, &replicas, id);
    assert_eq!((without.covered(), without.nodes.len()), (false, 3));
    assert_eq!(without.shards[0].replicas, [0, 1, 2]);
}
