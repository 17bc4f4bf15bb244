//! Verifies once per `replicas.check` that every node is still the one that the topology has at its
//! address: a node that is reset, and may have joined another cluster, keeps its connections. All
//! connections to one that is not are closed.
//!
//! From the moment that somebody reads from replicas, looks at these as well: whether they are
//! connected to their primaries, how far they are behind, and in which zone they are. That is asked
//! again when the topology changes; of each shard the primary first, then its replicas, so that a
//! replica seems a little less behind than it is rather than more.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::{info, warn};

use super::node::{AskError, NodeConn};
use super::pool::Pool;
use super::status::Status;
use crate::backoff::jittered;
use crate::cluster::{
    Health, LagLimits, Node, NodeAddr, NodeHealth, Replication, Unfit, parse_replication,
    parse_zone,
};
use crate::config::{Config, ReadFrom};
use crate::mailbox::ToHub;
use crate::mailbox::{ToWorker, WrongNode};
use crate::tls::Tls;
use crate::upstream::HandshakeError;

/// The one task that verifies nodes and looks at replicas.
pub struct Replicas {
    config: Arc<Config>,
    pool: Arc<Pool>,
    status: Arc<Status>,
    connections: HashMap<SocketAddr, Kept>,
    last: Arc<Health>,
    /// The log has been told that nobody is in slotway's zone.
    lonely: bool,
    /// The log has been told that nodes do not answer with what INFO replication has.
    blind: bool,
}

/// A connection that is kept, and what its node has said of its zone.
#[derive(Debug)]
struct Kept {
    conn: NodeConn,
    zone: Option<Arc<str>>,
}

/// What came of asking one node.
struct Asked {
    node: Node,
    /// `None` in it: it answered something else, so nothing is known against it, or it was not
    /// asked more than for its ID.
    answer: Result<(Kept, Option<Replication>), AskError>,
}

impl Replicas {
    /// Nobody is asked before [`Replicas::run`].
    pub fn new(config: Arc<Config>, pool: Arc<Pool>, status: Arc<Status>) -> Self {
        let connections = HashMap::new();
        Replicas {
            config,
            pool,
            status,
            connections,
            last: Arc::default(),
            lonely: false,
            blind: false,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) {
        let pool = Arc::clone(&self.pool);
        loop {
            self.config = pool.config();
            self.look(pool.replicas.is_on()).await;
            tokio::select! {
                () = tokio::time::sleep(jittered(self.config.replicas.check, 10)) => {}
                () = pool.replicas.wake.notified() => {}
            }
        }
    }

    /// Asks all nodes: for their IDs, and with `replicas` for what makes replicas fit to be read
    /// from.
    async fn look(&mut self, replicas: bool) {
        let snapshot = Arc::clone(&self.status.topology().snapshot);
        let node = |&i: &u16| snapshot.nodes.get(usize::from(i));
        let mut kept = std::mem::take(&mut self.connections);
        let mut take = |node: &Node| (node.clone(), node.socket.and_then(|s| kept.remove(&s)));
        let mut shards = JoinSet::new();
        let mut looked_at: HashSet<&NodeAddr> = HashSet::new();
        for shard in snapshot.shards.iter().filter(|_| replicas) {
            let primary = shard.primary.as_ref().and_then(node);
            let online = shard.replicas.iter().filter_map(node).filter(|n| n.is_online());
            let online: Vec<_> = online.collect();
            looked_at.extend(primary.iter().chain(&online).map(|node| &node.addr));
            let replicas: Vec<_> = online.into_iter().map(&mut take).collect();
            let primary = primary.map(&mut take);
            shards.spawn(ask_shard(primary, replicas, access(&self.config, &self.pool)));
        }
        let mut others = JoinSet::new();
        for node in snapshot.nodes.iter().filter(|node| !looked_at.contains(&node.addr)) {
            let (node, kept) = take(node);
            others.spawn(ask(node, kept, access(&self.config, &self.pool), false));
        }
        let limits = LagLimits {
            silence: self.config.replicas.max_lag,
            bytes: self.config.replicas.max_lag_bytes as u64,
        };
        let mut health = Health::new();
        while let Some(asked) = shards.join_next().await {
            // A task that panicked: its bug is logged, its shard stays as it is not known.
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
            // As above.
            let Ok(asked) = asked else { continue };
            self.verified(asked);
        }
        if replicas {
            self.tell(health);
        }
    }

    /// Keeps the connection to a node that is the one that is meant; has all others closed to one
    /// that is not.
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

    /// The zone that the configuration says the node is in.
    fn mapped(&self, node: &Node) -> Option<Arc<str>> {
        let ip = node.socket.map(|socket| socket.ip().to_string());
        let here = |host: &str| *host == *node.addr.host || ip.as_deref() == Some(host);
        let zones = self.config.replicas.zones.iter().filter(|z| here(&z.host));
        let mut fitting = zones.filter(|z| z.port.is_none_or(|port| port == node.addr.port));
        // The one with a port is the more specific one.
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
                (_, Some(unfit)) => info!(node = %addr, why = unfit.name(), "not read from"),
                (_, None) => info!(node = %addr, "read from again"),
            }
        }
        let ours = |node: &NodeHealth| node.zone.as_deref() == Some(&*self.config.zone);
        let lonely = self.config.read_from == ReadFrom::Zone && !health.values().any(ours);
        if lonely && !self.lonely {
            let zone = &self.config.zone;
            warn!(zone, "no node is known to be in slotway's zone: see replicas.zones");
        }
        self.lonely = lonely;
        self.last = Arc::new(health);
        self.status.topology().health = Arc::clone(&self.last);
        self.pool.set_health(Arc::clone(&self.last));
    }
}

impl Pool {
    fn tell_wrong_node(&self, stranger: WrongNode) {
        let stranger = Arc::new(stranger);
        self.tell_hub(ToHub::WrongNode(Arc::clone(&stranger)));
        self.tell(|| ToWorker::WrongNode(Arc::clone(&stranger)));
    }
}

type Place = (Node, Option<Kept>);
/// What it takes to connect.
type Access = (Arc<Config>, Arc<Tls>);

fn access(config: &Arc<Config>, pool: &Pool) -> Access {
    (Arc::clone(config), Arc::clone(pool.tls()))
}

async fn ask_shard(
    primary: Option<Place>,
    replicas: Vec<Place>,
    (config, tls): Access,
) -> (Option<Asked>, Vec<Asked>) {
    let primary = match primary {
        Some((node, kept)) => {
            Some(ask(node, kept, (Arc::clone(&config), Arc::clone(&tls)), true).await)
        }
        None => None,
    };
    let mut asking = JoinSet::new();
    for (node, kept) in replicas {
        asking.spawn(ask(node, kept, (Arc::clone(&config), Arc::clone(&tls)), true));
    }
    (primary, asking.join_all().await)
}

/// Asks one node for its ID, and with `replication` for that, too.
async fn ask(node: Node, kept: Option<Kept>, (config, tls): Access, replication: bool) -> Asked {
    let answer = match node.socket {
        Some(socket) => answer(socket, &node, kept, (&config, &tls), replication).await,
        None => Err(AskError::Io(std::io::ErrorKind::AddrNotAvailable.into())),
    };
    Asked { node, answer }
}

async fn answer(
    socket: SocketAddr,
    node: &Node,
    kept: Option<Kept>,
    (config, tls): (&Arc<Config>, &Arc<Tls>),
    replication: bool,
) -> Result<(Kept, Option<Replication>), AskError> {
    if let Some(mut kept) = kept {
        let asked = match kept.conn.verify(&node.id).await {
            Ok(()) => ask_replication(&mut kept.conn, replication).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(said) => return Ok((kept, said)),
            // It had its time, or has become another node.
            Err(error @ (AskError::Timeout(_) | AskError::Handshake(_))) => return Err(error),
            // A kept connection may have died of old age, which says nothing about its node.
            Err(_) => {}
        }
    }
    let mut conn = NodeConn::connect(socket, node.server_name(), &node.id, config, tls).await?;
    let said = ask_replication(&mut conn, replication).await?;
    let mut zone = None;
    if config.read_from == ReadFrom::Zone {
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
