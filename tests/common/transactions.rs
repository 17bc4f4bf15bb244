//! What tests of transactions share.

use slotway::sandbox::{Cluster, Conn, Node, Reply};

/// Counts up in both keys unless somebody else does: WATCH, GET, MULTI, SET, INCR, EXEC.
pub fn cas(conn: &mut Conn, a: &str, b: &str) -> Result<Option<()>, String> {
    let reply = conn.command(&["WATCH", a]).expect("WATCH");
    if let Reply::Error(error) = reply {
        return Err(error);
    }
    let now = match conn.command(&["GET", a]).expect("GET") {
        Reply::Error(error) => return Err(error),
        Reply::Nil => 0,
        value => value.text().and_then(|n| n.parse::<u64>().ok()).expect("a number"),
    };
    let next = (now + 1).to_string();
    let commands = [vec!["MULTI"], vec!["SET", a, &next], vec!["INCR", b], vec!["EXEC"]];
    match conn.pipeline(&commands).expect("replies").remove(3) {
        Reply::Error(error) => Err(error),
        Reply::Nil => Ok(None),
        Reply::Array(results) => {
            assert!(results.len() == 2 && results[0].is_ok(), "{results:?}");
            assert_eq!(results[1], Reply::Int(now as i64 + 1), "another slipped between");
            Ok(Some(()))
        }
        other => panic!("EXEC: {other:?}"),
    }
}

/// A command to every primary, on connections of its own.
pub fn each_primary(cluster: &Cluster, command: &[&str]) {
    for node in cluster.primaries().expect("primaries") {
        let mut conn = cluster.connect(&node).expect("a connection");
        let reply = conn.command(command).unwrap_or_else(|e| panic!("{}: {e}", node.addr));
        assert!(reply.error().is_none(), "{command:?}: {reply:?}");
    }
}

/// Another than this one.
pub fn other_primary(cluster: &Cluster, than: &Node) -> Node {
    let primaries = cluster.primaries().expect("primaries");
    primaries.into_iter().find(|node| node.id != than.id).expect("another primary")
}
