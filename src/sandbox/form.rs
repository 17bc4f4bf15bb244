//! Makes a cluster of servers, and says when a cluster is settled.
//!
//! What `redis-cli --cluster create` does, over our own connections: that takes a second or so
//! where redis-cli takes five and more, most of it the two seconds for which a fresh primary
//! refuses to call the cluster ok.

use super::Result;
use super::cluster::{Cluster, Member};
use super::conn::Reply;
use super::progress::Watcher;
use super::server::{self, Server, info_field};
use super::unmet::Unmet;
use super::view;
use crate::cluster::{Role, SLOTS};
use std::net::SocketAddr;

impl Cluster {
    /// Starts `count` servers that do not know each other yet.
    pub(super) fn spawn(&self, count: usize, watcher: &mut dyn Watcher) -> Result<()> {
        let first = self.members().len();
        let mut servers = Vec::with_capacity(count);
        for number in 0..count {
            // Numbers are not used twice, also not those of nodes that were removed.
            let room = (first + number..).map(|n| format!("node-{n}"));
            let mut room = room.filter(|name| !self.home.path().join(name).exists());
            let room = self.home.room(&room.next().unwrap_or_default())?;
            servers.push(Server::spawn(&self.setup, room, true)?);
        }
        for (number, mut server) in servers.into_iter().enumerate() {
            server.ready(watcher)?;
            let id = self.ask(server.addr(), &["CLUSTER", "MYID"])?.text().unwrap_or_default();
            self.members().push(Member { id, server });
            watcher.detail(&format!("{} of {count} answer", number + 1));
        }
        Ok(())
    }

    /// Makes one cluster of the servers: the first `primaries` of them share the slots, the others
    /// are dealt out to them as replicas.
    pub(super) fn form(&self, primaries: usize, watcher: &mut dyn Watcher) -> Result<()> {
        let nodes = self.running();
        let (first, others) = nodes.split_at(primaries.min(nodes.len()));
        for (number, (_, addr)) in nodes.iter().enumerate() {
            // Different epochs from the start, so that nothing has to be sorted out later.
            self.ask(*addr, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
        }
        for (number, (_, addr)) in first.iter().enumerate() {
            let border = |n: usize| n * usize::from(SLOTS) / primaries;
            let (start, end) = (border(number), border(number + 1) - 1);
            let range = [start.to_string(), end.to_string()];
            self.ask(*addr, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]])?;
        }
        // Everybody meets everybody: no waiting for gossip.
        for (number, (_, addr)) in nodes.iter().enumerate() {
            for (_, other) in nodes.iter().skip(number + 1) {
                self.meet(*addr, *other)?;
            }
        }
        self.wait("waiting for the nodes to meet", watcher, || self.strangers(nodes.len()))?;
        for ((_, addr), (primary, _)) in others.iter().zip(first.iter().cycle()) {
            self.ask(*addr, &["CLUSTER", "REPLICATE", primary])?;
        }
        self.settle_watched(watcher)
    }

    /// Introduces the server at `other` to the one at `addr`.
    pub(super) fn meet(&self, addr: SocketAddr, other: SocketAddr) -> Result<()> {
        let bus_port = {
            let members = self.members();
            let member = members.iter().find(|member| member.server.addr() == other);
            member.map_or(0, |member| member.server.bus_port())
        };
        let (port, bus_port) = (other.port().to_string(), bus_port.to_string());
        self.ask(addr, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]).map(|_| ())
    }

    /// Whether every running node knows `count` nodes.
    pub(super) fn strangers(&self, count: usize) -> std::result::Result<(), Unmet> {
        for (_, addr) in self.running() {
            let known = self.lines(addr)?.iter().filter(|line| line.trouble.is_none()).count();
            if known < count {
                return Err(Unmet::Unknown { addr, known, count });
            }
        }
        Ok(())
    }

    /// Waits until the cluster is settled: every running node says that the cluster is ok with all
    /// its slots, all give the same roles and slots to the same nodes, all replicas are in sync,
    /// CLUSTER SHARDS calls every running node online, and no dead node owns a slot.
    ///
    /// A paused node counts as dead. After a kill this waits for the failover; where no replica is
    /// left to take over, for the restart.
    pub fn settle(&self) -> Result<()> {
        self.settle_watched(&mut ())
    }

    fn settle_watched(&self, watcher: &mut dyn Watcher) -> Result<()> {
        self.wait("waiting for the cluster to be ok", watcher, || self.unsettled())
    }

    pub(super) fn lines(&self, addr: SocketAddr) -> Result<Vec<view::Line>> {
        let reply = self.ask(addr, &["CLUSTER", "NODES"])?;
        Ok(view::parse(&reply.text().unwrap_or_default()))
    }

    /// What is missing for the cluster to be settled.
    fn unsettled(&self) -> std::result::Result<(), Unmet> {
        let running = self.running();
        let mixed = self.mixed.load(std::sync::atomic::Ordering::Relaxed);
        let mut agreed: Option<Vec<Part>> = None;
        if running.is_empty() {
            return Err(Unmet::NoNodeRuns);
        }
        for (_, addr) in &running {
            let addr = *addr;
            let mut conn = server::connect(addr, self.password())?;
            let mut ask = |args: &[&str]| {
                conn.command(args).map_err(|source| Unmet::Connection { addr, source })
            };

            let info = ask(&["CLUSTER", "INFO"])?.text().unwrap_or_default();
            let state = info_field(&info, "cluster_state").unwrap_or("nothing");
            if state != "ok" {
                return Err(Unmet::ClusterState { addr, state: state.to_owned() });
            }
            let slots = info_field(&info, "cluster_slots_ok").unwrap_or("no");
            if slots != SLOTS.to_string() {
                return Err(Unmet::SlotsOk { addr, slots: slots.to_owned() });
            }

            let lines = view::parse(&ask(&["CLUSTER", "NODES"])?.text().unwrap_or_default());
            let mut parts = Vec::new();
            for line in lines {
                let runs = running.iter().any(|(id, _)| *id == line.id);
                if !runs && !line.slots.is_empty() {
                    return Err(Unmet::DeadOwner { addr, id: line.id });
                }
                if let (true, Some(flag)) = (runs, line.trouble) {
                    return Err(Unmet::Flagged { addr, id: line.id, flag });
                }
                if line.myself && line.role == Role::Replica {
                    let info = ask(&["INFO", "replication"])?.text().unwrap_or_default();
                    if info_field(&info, "master_link_status") != Some("up") {
                        return Err(Unmet::NotInSync(addr));
                    }
                }
                if runs {
                    // A newer version may not know of which primary a node of an older one is the
                    // replica now.
                    let primary = line.primary.filter(|_| !mixed);
                    // It may list the same slots several times.
                    let mut slots = line.slots;
                    slots.dedup();
                    parts.push(Part { id: line.id, primary, slots });
                }
            }
            parts.sort_by(|a: &Part, b: &Part| a.id.cmp(&b.id));
            if parts.len() < running.len() {
                return Err(Unmet::Unlisted { addr, listed: parts.len(), running: running.len() });
            }
            if agreed.get_or_insert_with(|| parts.clone()) != &parts {
                return Err(Unmet::Disagreement(addr));
            }

            let shards = ask(&["CLUSTER", "SHARDS"])?;
            // A newer version leaves out the primaries of an older one.
            if !mixed && running.iter().any(|(id, _)| !online(&shards, id)) {
                return Err(Unmet::NotOnline(addr));
            }
        }
        Ok(())
    }
}

/// A node's part in the cluster, to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    id: String,
    primary: Option<String>,
    slots: Vec<std::ops::RangeInclusive<u16>>,
}

/// Whether CLUSTER SHARDS (RESP2: maps are flat arrays) has the node `id` as online.
fn online(shards: &Reply, id: &str) -> bool {
    let Some(items) = shards.items() else { return false };
    let text = |n: usize| items.get(n).and_then(Reply::text);
    let field = |name: &str| {
        (0..items.len()).step_by(2).find(|n| text(*n).as_deref() == Some(name)).map(|n| n + 1)
    };
    match field("id").zip(field("health")) {
        Some((at, health)) if text(at).as_deref() == Some(id) => {
            text(health).as_deref() == Some("online")
        }
        _ => items.iter().any(|item| online(item, id)),
    }
}
