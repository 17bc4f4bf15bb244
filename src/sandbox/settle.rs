//! Waits until a cluster is settled, which its nodes are asked.

use super::Result;
use super::cluster::Cluster;
use super::conn::Reply;
use super::progress::Progress;
use super::server::{self, info_field};
use super::unmet::Unmet;
use super::view;
use crate::cluster::{Role, SLOTS};
use std::net::SocketAddr;

impl Cluster {
    /// Waits until the cluster is settled: every running node calls the cluster and all slots ok,
    /// all agree on roles and slots, all replicas are in sync, CLUSTER SHARDS calls every running
    /// node online, and no dead node owns a slot.
    ///
    /// A paused node counts as dead. After a kill this waits for the failover, or for the restart
    /// if there is no replica to take over.
    pub fn settle(&self) -> Result<()> {
        self.settle_with_progress(&mut ())
    }

    pub(super) fn settle_with_progress(&self, progress: &mut dyn Progress) -> Result<()> {
        self.wait("waiting for the cluster to be ok", progress, || self.checks().settled())
    }

    /// What the nodes say of the cluster.
    pub(super) fn checks(&self) -> Checks<'_> {
        Checks { cluster: self }
    }
}

/// Checks of what the nodes of a cluster say of it.
pub(super) struct Checks<'a> {
    cluster: &'a Cluster,
}

impl Checks<'_> {
    /// Checks that every running node knows `count` nodes.
    pub(super) fn known(&self, count: usize) -> std::result::Result<(), Unmet> {
        for (_, addr) in self.cluster.members.running() {
            let known = self.lines(addr)?.iter().filter(|line| line.problem.is_none()).count();
            if known < count {
                return Err(Unmet::Unknown { addr, known, count });
            }
        }
        Ok(())
    }

    /// CLUSTER NODES of the node at `addr`.
    pub(super) fn lines(&self, addr: SocketAddr) -> Result<Vec<view::Line>> {
        let reply = self.cluster.ask(addr, &["CLUSTER", "NODES"])?;
        Ok(view::parse(&reply.text().unwrap_or_default()))
    }

    /// Checks that the cluster is settled.
    fn settled(&self) -> std::result::Result<(), Unmet> {
        let running = self.cluster.members.running();
        let mixed = self.cluster.mixed.load(std::sync::atomic::Ordering::Relaxed);
        let mut agreed: Option<Vec<NodeView>> = None;
        if running.is_empty() {
            return Err(Unmet::NoNodeRuns);
        }
        for (_, addr) in &running {
            let addr = *addr;
            let mut conn = server::connect(addr, self.cluster.password())?;
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
            let mut seen = Vec::new();
            for line in lines {
                let runs = running.iter().any(|(id, _)| *id == line.id);
                if !runs && !line.slots.is_empty() {
                    return Err(Unmet::DeadOwner { addr, id: line.id });
                }
                if let (true, Some(flag)) = (runs, line.problem) {
                    return Err(Unmet::Flagged { addr, id: line.id, flag });
                }
                if line.myself && line.role == Role::Replica {
                    let info = ask(&["INFO", "replication"])?.text().unwrap_or_default();
                    if info_field(&info, "master_link_status") != Some("up") {
                        return Err(Unmet::NotInSync(addr));
                    }
                }
                if runs {
                    // A node of a newer version may not know the current primary of a replica of an
                    // older one.
                    let primary = line.primary.filter(|_| !mixed);
                    // It may also list the same slots several times.
                    let mut slots = line.slots;
                    slots.dedup();
                    seen.push(NodeView { id: line.id, primary, slots });
                }
            }
            seen.sort_by(|a: &NodeView, b: &NodeView| a.id.cmp(&b.id));
            if seen.len() < running.len() {
                return Err(Unmet::Unlisted { addr, listed: seen.len(), running: running.len() });
            }
            if agreed.get_or_insert_with(|| seen.clone()) != &seen {
                return Err(Unmet::Disagreement(addr));
            }

            let shards = ask(&["CLUSTER", "SHARDS"])?;
            // A node of a newer version leaves out primaries of an older one.
            if !mixed && running.iter().any(|(id, _)| !online(&shards, id)) {
                return Err(Unmet::NotOnline(addr));
            }
        }
        Ok(())
    }
}

/// A node's role and slots as another node sees them, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeView {
    id: String,
    primary: Option<String>,
    slots: Vec<std::ops::RangeInclusive<u16>>,
}

/// Whether a reply to CLUSTER SHARDS (in RESP2, so that maps are flat arrays) calls the node `id`
/// online.
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
