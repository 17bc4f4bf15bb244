//! Checks of nodes, once per `replicas.check`.
//!
//! Every node is asked for its ID: a node that was reset, and may have joined another cluster,
//! keeps its connections. All connections to a node with another ID than in the topology are
//! closed.
//!
//! Once a client reads from replicas, their health is checked as well, also when the topology
//! changes: whether they are connected to their primaries, how far they lag, and in which zone they
//! are. Of each shard the primary is asked first, so that the lag of replicas is underestimated
//! rather than overestimated.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{info, warn};

use super::node::{Access, AskError, NodeConn};
use super::pool::Pool;
use super::status::Status;
use crate::backoff::jittered;
use crate::cluster::{
    Health, LagLimits, Node, NodeAddr, NodeHealth, Replication, Unfit, UpstreamId,
    parse_replication, parse_zone,
};
use crate::config::ReadFrom;
use crate::mailbox::ToHub;
use crate::mailbox::{ToWorker, WrongNode};
use crate::upstream::HandshakeError;

/// The task that verifies nodes and checks replicas.
pub struct Replicas {
    access: Access,
    /// See [`Pool::log_name`].
    log_name: Option<Box<str>>,
    pool: Arc<Pool>,
    status: Arc<Status>,
    connections: HashMap<SocketAddr, Kept>,
    last: Arc<Health>,
    /// It was logged that no node is in slotway's zone.
    lonely: bool,
    /// It was logged that nodes do not answer INFO replication as expected.
    blind: bool,
}

/// A connection that is kept, and the zone that its node has told.
#[derive(Debug)]
struct Kept {
    conn: NodeConn,
    zone: Option<Arc<str>>,
}

/// The result of asking one node.
struct Asked {
    node: Node,
    /// Without [`Replication`]: the reply to INFO was not understood, so nothing is known against
    /// the node, or it was asked for its ID only.
    answer: Result<(Kept, Option<Replication>), AskError>,
}

impl Replicas {
    /// A task that checks the nodes of an upstream's topology in `status`.
    pub fn new(upstream: UpstreamId, pool: Arc<Pool>, status: Arc<Status>) -> Self {
        Replicas {
            access: pool.access(upstream),
            log_name: pool.log_name(upstream),
            pool,
            status,
            connections: HashMap::new(),
            last: Arc::default(),
            lonely: false,
            blind: false,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let (pool, upstream) = (Arc::clone(&self.pool), self.access.upstream);
        loop {
            self.access = pool.access(upstream);
            self.check(pool.replicas.is_on_at(upstream)).await;
            let check = self.access.config.replicas.check;
            tokio::select! {
                () = tokio::time::sleep(jittered(check, 10)) => {}
                () = pool.replicas.woken(upstream) => {}
            }
        }
    }

    /// Asks all nodes for their IDs and, with `replicas`, for the health of replicas.
    async fn check(&mut self, replicas: bool) {
        let snapshot = Arc::clone(&self.status.upstream(self.access.upstream).snapshot);
        let node = |&i: &u16| snapshot.nodes.get(usize::from(i));
        let mut kept = std::mem::take(&mut self.connections);
        let mut take = |node: &Node| (node.clone(), node.socket.and_then(|s| kept.remove(&s)));
        let mut shards = JoinSet::new();
        let mut checked: HashSet<&NodeAddr> = HashSet::new();
        for shard in snapshot.shards.iter().filter(|_| replicas) {
            let primary = shard.primary.as_ref().and_then(node);
            let online = shard.replicas.iter().filter_map(node).filter(|n| n.is_online());
            let online: Vec<_> = online.collect();
            checked.extend(primary.iter().chain(&online).map(|node| &node.addr));
            let replicas: Vec<_> = online.into_iter().map(&mut take).collect();
            let primary = primary.map(&mut take);
            shards.spawn(ask_shard(primary, replicas, self.access.clone()));
        }
        let mut others = JoinSet::new();
        for node in snapshot.nodes.iter().filter(|node| !checked.contains(&node.addr)) {
            let (node, kept) = take(node);
            others.spawn(ask(node, kept, self.access.clone(), false));
        }
        let limits = LagLimits {
            silence: self.access.config.replicas.max_lag,
            bytes: self.access.config.replicas.max_lag_bytes as u64,
        };
        let mut health = Health::new();
        while let Some(asked) = shards.join_next().await {
            // A panic, which is logged: nothing is known of the shard's replicas.
            let Ok((primary, replicas)) = asked else { continue };
            let offset = primary
                .as_ref()
                .and_then(|p| p.answer.as_ref().ok())
                .and_then(|(_, said)| said.filter(|said| said.primary))
                .map(|said| said.offset);
            for asked in primary.into_iter().chain(replicas) {
                let odd = matches!(asked.answer, Ok((_, None)));
                if odd && !std::mem::replace(&mut self.blind, true) {
                    let node = asked.node.addr.to_string();
                    warn!(
                        upstream = self.log_name,
                        node,
                        "no answer to INFO replication that tells how far replicas lag: may \
                         slotway's user say INFO?"
                    );
                }
                let unfit = match &asked.answer {
                    Err(_) => Some(Unfit::Unreachable),
                    Ok((_, said)) => said.and_then(|said| said.unfit(offset, limits)),
                };
                let told = asked.answer.as_ref().ok().and_then(|(kept, _)| kept.zone.clone());
                let zone = self.mapped(&asked.node).or(told);
                health.insert(asked.node.addr.clone(), NodeHealth { unfit, zone });
                self.verified(asked);
            }
        }
        while let Some(asked) = others.join_next().await {
            // A panic, as above.
            let Ok(asked) = asked else { continue };
            self.verified(asked);
        }
        if replicas {
            self.tell(health);
        }
    }

    /// Keeps the connection if the node has the right ID; has all connections closed if it has
    /// another.
    fn verified(&mut self, asked: Asked) {
        let Some(socket) = asked.node.socket else { return };
        match asked.answer {
            Ok((kept, _)) if kept.conn.is_usable() => {
                self.connections.insert(socket, kept);
            }
            Err(AskError::Handshake(HandshakeError::WrongNode { found, expected })) => {
                self.pool.tell_wrong_node(WrongNode { socket, expected, found });
            }
            _ => {}
        }
    }

    /// The zone of the node according to `replicas.zones`.
    fn mapped(&self, node: &Node) -> Option<Arc<str>> {
        let ip = node.socket.map(|socket| socket.ip().to_string());
        let here = |host: &str| *host == *node.addr.host || ip.as_deref() == Some(host);
        let zones = self.access.config.replicas.zones.iter().filter(|z| here(&z.host));
        let mut fitting = zones.filter(|z| z.port.is_none_or(|port| port == node.addr.port));
        // An entry with a port is more specific.
        let found = fitting.clone().find(|z| z.port.is_some()).or_else(|| fitting.next())?;
        Some(found.zone.as_str().into())
    }

    fn tell(&mut self, health: Health) {
        if health == *self.last {
            return;
        }
        for (addr, now) in &health {
            let before = self.last.get(addr).and_then(|node| node.unfit);
            match (before, now.unfit) {
                (a, b) if a == b => {}
                (_, Some(unfit)) => {
                    let why = unfit.name();
                    info!(upstream = self.log_name, node = %addr, why, "not read from");
                }
                (_, None) => info!(upstream = self.log_name, node = %addr, "read from again"),
            }
        }
        let ours = |node: &NodeHealth| node.zone.as_deref() == Some(&*self.access.config.zone);
        let lonely = self.access.config.read_from == ReadFrom::Zone && !health.values().any(ours);
        if lonely && !self.lonely {
            let zone = &self.access.config.zone;
            let upstream = &self.log_name;
            warn!(upstream, zone, "no node is known to be in slotway's zone: see replicas.zones");
        }
        self.lonely = lonely;
        self.last = Arc::new(health);
        let upstream = self.access.upstream;
        self.status.upstream(upstream).health = Arc::clone(&self.last);
        self.pool.announce().health(upstream, Arc::clone(&self.last));
    }
}

impl Pool {
    fn tell_wrong_node(&self, wrong_node: WrongNode) {
        let wrong_node = Arc::new(wrong_node);
        self.tell_hub(ToHub::WrongNode(Arc::clone(&wrong_node)));
        self.tell(|| ToWorker::WrongNode(Arc::clone(&wrong_node)));
    }
}

type Place = (Node, Option<Kept>);

async fn ask_shard(
    primary: Option<Place>,
    replicas: Vec<Place>,
    access: Access,
) -> (Option<Asked>, Vec<Asked>) {
    let primary = match primary {
        Some((node, kept)) => Some(ask(node, kept, access.clone(), true).await),
        None => None,
    };
    let mut asking = JoinSet::new();
    for (node, kept) in replicas {
        asking.spawn(ask(node, kept, access.clone(), true));
    }
    (primary, asking.join_all().await)
}

/// Asks one node for its ID and, with `replication`, for INFO replication.
async fn ask(node: Node, kept: Option<Kept>, access: Access, replication: bool) -> Asked {
    let answer = match node.socket {
        Some(socket) => answer(socket, &node, kept, &access, replication).await,
        None => Err(AskError::Io(std::io::ErrorKind::AddrNotAvailable.into())),
    };
    Asked { node, answer }
}

async fn answer(
    socket: SocketAddr,
    node: &Node,
    kept: Option<Kept>,
    access: &Access,
    replication: bool,
) -> Result<(Kept, Option<Replication>), AskError> {
    if let Some(mut kept) = kept {
        let asked = match kept.conn.verify(&node.id).await {
            Ok(()) => ask_replication(&mut kept.conn, replication).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(said) => return Ok((kept, said)),
            // The time limit is used up, or the node has another ID.
            Err(error @ (AskError::Timeout(_) | AskError::Handshake(_))) => return Err(error),
            // Old connections die without a fault of the node: try a new one.
            Err(_) => {}
        }
    }
    let mut conn = NodeConn::connect(socket, node.server_name(), &node.id, access).await?;
    let said = ask_replication(&mut conn, replication).await?;
    let mut zone = None;
    if access.config.read_from == ReadFrom::Zone {
        zone = parse_zone(&conn.ask(&["INFO", "server"]).await?).map(Into::into);
    }
    Ok((Kept { conn, zone }, said))
}

async fn ask_replication(
    conn: &mut NodeConn,
    wanted: bool,
) -> Result<Option<Replication>, AskError> {
    match wanted {
        true => Ok(parse_replication(&conn.ask(&["INFO", "replication"]).await?)),
        false => Ok(None),
    }
}
