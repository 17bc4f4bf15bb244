//! CLUSTER as slotway answers it: as a healthy cluster of one node that owns all slots, so that
//! cluster clients send everything to slotway.

use std::fmt::Write;

use crate::cluster::{SLOTS, slot_of};
use crate::errors::Failure;
use crate::resp::{Args, Protocol, write};
use crate::scripts::Sha;

/// The one node that cluster clients see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnnouncedNode {
    /// IP address or DNS name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The port speaks TLS.
    pub tls: bool,
}

impl AnnouncedNode {
    /// The node's ID: the same for all slotway processes that announce this address.
    fn id(&self) -> String {
        Sha::of(format!("slotway {}:{}", self.host, self.port).as_bytes()).to_string()
    }

    /// The ID of the shard of this node.
    pub(super) fn shard_id(&self) -> String {
        Sha::of(format!("slotway shard {}:{}", self.host, self.port).as_bytes()).to_string()
    }

    /// The port of the cluster bus, if there were one.
    fn bus(&self) -> u16 {
        self.port.checked_add(10_000).unwrap_or(0)
    }

    fn is_id(&self, id: &[u8]) -> bool {
        self.id().as_bytes() == id
    }
}

/// Appends the reply to `out`, in the format and with the texts of Redis 7.0. The arity is checked.
pub fn answer(args: &Args, protocol: Protocol, me: &AnnouncedNode, out: &mut Vec<u8>) {
    let is = |word| args.is(1, word);
    let argument = args.get(2).unwrap_or_default();
    if is("slots") {
        slots(protocol, me, out);
    } else if is("shards") {
        shards(protocol, me, out);
    } else if is("nodes") {
        write::verbatim(out, protocol, nodes(me).as_bytes());
    } else if is("info") {
        write::verbatim(out, protocol, INFO.replace('\n', "\r\n").as_bytes());
    } else if is("myid") {
        write::bulk(out, me.id().as_bytes());
    } else if is("keyslot") {
        write::integer(out, slot_of(argument).0.into());
    } else if is("links") {
        write::array_header(out, 0);
    } else if is("replicas") || is("slaves") {
        match me.is_id(argument) {
            true => write::array_header(out, 0),
            false => unknown_node(argument, out),
        }
    } else if is("count-failure-reports") {
        match me.is_id(argument) {
            true => write::integer(out, 0),
            false => unknown_node(argument, out),
        }
    } else {
        let sub = String::from_utf8_lossy(args.get(1).unwrap_or_default()).into_owned();
        // Redis shows 128 bytes of it.
        let sub: String = sub.chars().take(128).collect();
        Failure::UnknownSubcommand { name: sub.into(), container: "CLUSTER".into() }.write(out);
    }
}

const INFO: &str = "\
cluster_state:ok
cluster_slots_assigned:16384
cluster_slots_ok:16384
cluster_slots_pfail:0
cluster_slots_fail:0
cluster_known_nodes:1
cluster_size:1
cluster_current_epoch:1
cluster_my_epoch:1
cluster_stats_messages_sent:0
cluster_stats_messages_received:0
total_cluster_links_buffer_limit_exceeded:0
";

fn unknown_node(id: &[u8], out: &mut Vec<u8>) {
    Failure::UnknownNode { id: String::from_utf8_lossy(id).into() }.write(out);
}

fn slots(protocol: Protocol, me: &AnnouncedNode, out: &mut Vec<u8>) {
    write::array_header(out, 1);
    write::array_header(out, 3);
    write::integer(out, 0);
    write::integer(out, i64::from(SLOTS) - 1);
    write::array_header(out, 4);
    write::bulk(out, me.host.as_bytes());
    write::integer(out, me.port.into());
    write::bulk(out, me.id().as_bytes());
    write::map_header(out, protocol, 0);
}

fn shards(protocol: Protocol, me: &AnnouncedNode, out: &mut Vec<u8>) {
    write::array_header(out, 1);
    write::map_header(out, protocol, 2);
    write::bulk(out, b"slots");
    write::array_header(out, 2);
    write::integer(out, 0);
    write::integer(out, i64::from(SLOTS) - 1);
    write::bulk(out, b"nodes");
    write::array_header(out, 1);
    write::map_header(out, protocol, 7);
    let text = |out: &mut Vec<u8>, key: &str, value: &str| {
        write::bulk(out, key.as_bytes());
        write::bulk(out, value.as_bytes());
    };
    text(out, "id", &me.id());
    // Like a node that listens with TLS only, as this client has connected to a TLS port.
    write::bulk(out, if me.tls { b"tls-port".as_slice() } else { b"port" });
    write::integer(out, me.port.into());
    text(out, "ip", &me.host);
    text(out, "endpoint", &me.host);
    text(out, "role", "master");
    write::bulk(out, b"replication-offset");
    write::integer(out, 0);
    text(out, "health", "online");
}

fn nodes(me: &AnnouncedNode) -> String {
    let mut line = String::new();
    let last = SLOTS - 1;
    // Writing to a String cannot fail.
    let _ = writeln!(
        line,
        "{} {}:{}@{} myself,master - 0 0 1 connected 0-{last}",
        me.id(),
        me.host,
        me.port,
        me.bus()
    );
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{NodeAddr, parse_shards, parse_slots};
    use crate::resp::ArgRange;

    fn me() -> AnnouncedNode {
        AnnouncedNode { host: "10.0.0.9".into(), port: 6379, tls: false }
    }

    fn ask(line: &str, protocol: Protocol) -> String {
        let (mut buf, mut ranges) = (Vec::new(), Vec::new());
        for word in line.split(' ') {
            let start = buf.len() as u32;
            buf.extend_from_slice(word.as_bytes());
            ranges.push(ArgRange { start, end: buf.len() as u32 });
        }
        let mut out = Vec::new();
        answer(&Args::new(&buf, &ranges), protocol, &me(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn slots_and_shards_are_read_as_a_cluster_of_one_node() {
        let asked = NodeAddr { host: "asked".into(), port: 1 };
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let shards = ask("cluster shards", protocol);
            let slots = ask("cluster slots", protocol);
            for read in [
                parse_shards(shards.as_bytes(), &asked).unwrap(),
                parse_slots(slots.as_bytes(), &asked).unwrap(),
            ] {
                assert_eq!(read.slots_covered(), usize::from(SLOTS));
                let [node] = read.nodes.as_slice() else { panic!("{read:?}") };
                assert_eq!((&*node.addr.host, node.addr.port), ("10.0.0.9", 6379));
                assert_eq!(*node.id, *me().id());
                assert!(node.is_online());
            }
        }
        assert!(ask("cluster shards", Protocol::Resp3).starts_with("*1\r\n%2\r\n$5\r\nslots\r\n"));
        assert!(ask("cluster shards", Protocol::Resp2).starts_with("*1\r\n*4\r\n$5\r\nslots\r\n"));
    }

    #[test]
    fn the_id_is_the_address() {
        let id = me().id();
        assert!(id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(id, me().id());
        assert_ne!(id, AnnouncedNode { port: 6380, ..me() }.id());
        let shard = me().shard_id();
        assert!(shard.len() == 40 && shard != id && shard == me().shard_id());
        assert_eq!(ask("cluster myid", Protocol::Resp2), format!("$40\r\n{id}\r\n"));
        let line = format!("{id} 10.0.0.9:6379@16379 myself,master - 0 0 1 connected 0-16383\n");
        let nodes = ask("cluster nodes", Protocol::Resp2);
        assert_eq!(nodes, format!("${}\r\n{line}\r\n", line.len()));
        let nodes = ask("cluster nodes", Protocol::Resp3);
        assert_eq!(nodes, format!("={}\r\ntxt:{line}\r\n", line.len() + 4));
        assert_eq!(ask(&format!("cluster replicas {id}"), Protocol::Resp2), "*0\r\n");
        assert_eq!(ask(&format!("cluster count-failure-reports {id}"), Protocol::Resp2), ":0\r\n");
        assert_eq!(ask("cluster slaves x", Protocol::Resp2), "-ERR Unknown node x\r\n");
        assert_eq!(AnnouncedNode { port: 60_000, ..me() }.bus(), 0);
    }

    #[test]
    fn small_answers() {
        assert_eq!(ask("cluster keyslot foo", Protocol::Resp2), ":12182\r\n");
        assert_eq!(ask("cluster links", Protocol::Resp3), "*0\r\n");
        assert!(ask("cluster info", Protocol::Resp2).contains("cluster_state:ok\r\n"));
        let unknown = "-ERR unknown subcommand 'myshardid'. Try CLUSTER HELP.\r\n";
        assert_eq!(ask("cluster myshardid", Protocol::Resp2), unknown);
    }
}
