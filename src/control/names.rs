//! Resolution of the host names in a topology, with a short-lived cache.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::cluster::{NodeAddr, Snapshot};

/// How long an answer of DNS is cached: while a cluster is in trouble its topology is refreshed
/// many times a second.
const FRESH: Duration = Duration::from_secs(5);

/// Host names of nodes, each with the last address and the time of the lookup.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Box<str>, (Option<IpAddr>, Instant)>,
}

impl Names {
    /// Sets [`crate::cluster::Node::socket`] of every node. A name that does not resolve now keeps
    /// its last address, so that an outage of DNS does not cut off nodes. `limit` is for each
    /// lookup.
    pub async fn resolve(&mut self, snapshot: &mut Snapshot, limit: Duration) {
        let names: HashSet<Box<str>> = snapshot
            .nodes
            .iter()
            .filter(|n| n.addr.host.parse::<IpAddr>().is_err())
            .map(|n| n.addr.host.clone())
            .collect();
        self.known.retain(|name, _| names.contains(name));
        let mut lookups = JoinSet::new();
        for name in names {
            if self.known.get(&name).is_some_and(|(_, at)| at.elapsed() < FRESH) {
                continue;
            }
            lookups.spawn(async move {
                let ips = lookup(&name, limit).await;
                (name, ips)
            });
        }
        while let Some(done) = lookups.join_next().await {
            let Ok((name, ips)) = done else { continue };
            let before = self.known.get(&name).and_then(|(ip, _)| *ip);
            let ip = match ips {
                // Of several addresses the one in use stays: DNS rotates their order.
                Ok(ips) => before.filter(|ip| ips.contains(ip)).or(ips.first().copied()),
                Err(error) => {
                    warn!(%name, error, "the name of a node does not resolve");
                    before
                }
            };
            self.known.insert(name, (ip, Instant::now()));
        }
        for node in &mut snapshot.nodes {
            let ip = match node.addr.host.parse() {
                Ok(ip) => Some(ip),
                Err(_) => self.known.get(&node.addr.host).and_then(|(ip, _)| *ip),
            };
            node.socket = ip.map(|ip| SocketAddr::new(ip, node.addr.port));
        }
    }

    /// Makes the cached address of a node's name expire: the node does not answer there.
    pub(super) fn expire(&mut self, addr: &NodeAddr) {
        if let Some((_, at)) = self.known.get_mut(&addr.host)
            && let Some(long_ago) = Instant::now().checked_sub(FRESH)
        {
            *at = long_ago;
        }
    }
}

async fn lookup(name: &str, limit: Duration) -> Result<Vec<IpAddr>, String> {
    match timeout(limit, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|a| a.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("DNS does not answer".to_owned()),
    }
}
