//! The topology of a single server, from its own replies and those of the Sentinels that monitor
//! it.
//!
//! All known servers are asked at once: the seeds and the servers of the topology in use, or the
//! servers that the Sentinels name. [`crate::cluster::server`] evaluates the replies.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use tokio::task::JoinSet;
use tracing::debug;

use super::node::{Access, Answer, AskError, NodeConn};
use super::round::{Found, NoTopology, resolve};
use crate::cluster::server::{
    NoPrimary, SentinelReply, ServerReply, choose_primary, choose_sentinel, parse_sentinel,
    parse_server, snapshot_of,
};
use crate::cluster::trust::AdoptionRule;
use crate::cluster::{Info, NodeAddr, NodeState, ParseError, Role, Snapshot};
use crate::config::{Address, Config, UpstreamKind};

/// Maximum number of servers that are asked, including those that other servers name.
const MAX_ASKED: usize = 64;

/// One round of questions to the servers: its input, and the connections that it keeps.
pub(super) struct Servers<'a> {
    pub access: &'a Access,
    /// Kept connections, by address.
    pub connections: &'a mut HashMap<SocketAddr, NodeConn>,
    pub in_use: &'a Snapshot,
}

/// A server's reply, and the connection on which it arrived.
struct Asked {
    socket: SocketAddr,
    conn: NodeConn,
    reply: ServerReply,
}

impl Servers<'_> {
    /// Asks the Sentinels, if there are any, and then the servers. Returns the topology.
    ///
    /// # Errors
    /// No server answers, or the replies contradict each other; with the reasons.
    pub(super) async fn ask(mut self) -> Result<Found, NoTopology> {
        let mut errors = Vec::new();
        let named = match self.access.config.upstream.kind {
            UpstreamKind::Sentinel => Some(self.ask_sentinels(&mut errors).await?),
            _ => None,
        };
        let asked = self.ask_servers(named.as_ref(), &mut errors).await;
        self.conclude(asked, named, errors)
    }

    /// Asks all Sentinels at once. Returns the reply that counts.
    ///
    /// # Errors
    /// No Sentinel answers, or they disagree.
    async fn ask_sentinels(&self, errors: &mut Vec<String>) -> Result<SentinelReply, NoTopology> {
        let mut steps = JoinSet::new();
        for seed in &self.access.config.seeds {
            let (access, seed) = (self.access.clone(), seed.clone());
            steps.spawn(async move {
                let limit = access.config.timeouts.connect;
                let sockets = resolve(&seed.host, seed.port, limit).await;
                let sockets = sockets.map_err(|error| vec![error.to_string()])?;
                // One name may stand for all Sentinels, such as that of a headless service.
                let mut asking = JoinSet::new();
                for socket in sockets.into_iter().take(MAX_ASKED) {
                    let (access, seed) = (access.clone(), seed.clone());
                    asking.spawn(async move {
                        let asked = ask_sentinel(socket, &seed.host, &access).await;
                        asked.map_err(|error| {
                            format!("Sentinel {seed}: {}", explained(&error, &access.config))
                        })
                    });
                }
                let (mut replies, mut errors) = (Vec::new(), Vec::new());
                for asked in asking.join_all().await {
                    match asked {
                        Ok(reply) => replies.push(reply),
                        Err(error) => errors.push(error),
                    }
                }
                if replies.is_empty() { Err(errors) } else { Ok(replies) }
            });
        }
        let mut replies: Vec<SentinelReply> = Vec::new();
        while let Some(step) = steps.join_next().await {
            match step {
                Ok(Ok(more)) => replies.extend(more),
                Ok(Err(more)) => errors.extend(more),
                // A panic, which is logged.
                Err(_) => {}
            }
        }
        let Some(best) = choose_sentinel(&replies)? else {
            return Err(NoTopology::asked(std::mem::take(errors)));
        };
        Ok(replies.swap_remove(best))
    }

    /// Asks the known servers and those that these name. Returns the replies.
    async fn ask_servers(
        &mut self,
        named: Option<&SentinelReply>,
        errors: &mut Vec<String>,
    ) -> Vec<Asked> {
        let mut steps = JoinSet::new();
        let mut known: HashMap<SocketAddr, NodeAddr> = HashMap::new();
        let mut names: Vec<NodeAddr> = Vec::new();
        match named {
            Some(named) => {
                names.push(named.primary.clone());
                names.extend(named.replicas.iter().map(|(addr, _)| addr.clone()));
            }
            None => {
                let seeds = self.access.config.seeds.iter();
                names
                    .extend(seeds.map(|s| NodeAddr { host: s.host.as_str().into(), port: s.port }));
                names.extend(self.in_use.nodes.iter().map(|node| node.addr.clone()));
            }
        }
        let mut answers: Vec<Asked> = Vec::new();
        let mut resolved: HashSet<NodeAddr> = HashSet::new();
        let limit = self.access.config.timeouts.connect;
        loop {
            for addr in std::mem::take(&mut names) {
                // Names also come from replies, and resolving each of them may take long.
                if resolved.len() >= MAX_ASKED || !resolved.insert(addr.clone()) {
                    continue;
                }
                let found = resolve(&addr.host, addr.port, limit).await;
                let sockets = match found {
                    Ok(sockets) => sockets,
                    Err(error) => {
                        errors.push(error.to_string());
                        continue;
                    }
                };
                for socket in sockets {
                    if known.len() >= MAX_ASKED || known.contains_key(&socket) {
                        continue;
                    }
                    known.insert(socket, addr.clone());
                    let kept = self.connections.remove(&socket);
                    let (access, addr) = (self.access.clone(), addr.clone());
                    steps.spawn(
                        async move { (socket, ask_server(kept, socket, &addr, &access).await) },
                    );
                }
            }
            match steps.join_next().await {
                Some(Ok((socket, Ok((conn, reply))))) => {
                    // Sentinels know all servers.
                    if named.is_none() {
                        names.extend(reply.primary.clone());
                        names.extend(reply.replicas.iter().map(|(addr, _)| addr.clone()));
                    }
                    answers.push(Asked { socket, conn, reply });
                }
                Some(Ok((socket, Err(error)))) => {
                    debug!(%socket, %error, "no answer from this server");
                    errors.push(format!("{socket}: {error}"));
                }
                Some(Err(_)) => {}
                None => break,
            }
        }
        // Servers name each other by IP address, but may have been found by host name.
        let called = |addr: &NodeAddr| {
            let socket = addr.host.parse().ok().map(|ip| SocketAddr::new(ip, addr.port));
            socket.and_then(|socket| known.get(&socket)).unwrap_or(addr).clone()
        };
        for Asked { reply, .. } in &mut answers {
            reply.primary = reply.primary.as_ref().map(called);
            reply.replicas.iter_mut().for_each(|(addr, _)| *addr = called(addr));
        }
        answers
    }

    /// Whether a server may become the primary: it is a seed, or part of the topology in use. A
    /// server of which one of these has just been made a replica may be somebody else's.
    fn is_ours(&self, addr: &NodeAddr) -> bool {
        let is_seed = |s: &Address| *s.host == *addr.host && s.port == addr.port;
        self.in_use.nodes.is_empty()
            || self.in_use.nodes.iter().any(|node| node.addr == *addr)
            || self.access.config.seeds.iter().any(is_seed)
    }

    /// The topology according to these replies.
    ///
    /// # Errors
    /// There are no replies, or they contradict each other.
    fn conclude(
        self,
        mut asked: Vec<Asked>,
        named: Option<SentinelReply>,
        errors: Vec<String>,
    ) -> Result<Found, NoTopology> {
        let replies: Vec<ServerReply> = asked.iter().map(|asked| asked.reply.clone()).collect();
        let in_use = self.in_use.slot_primaries().first().map(|node| &node.addr);
        let (primary, epoch) = match &named {
            None => {
                let ours: Vec<ServerReply> =
                    replies.iter().filter(|reply| self.is_ours(&reply.addr)).cloned().collect();
                let chosen = choose_primary(&ours, in_use)?;
                (chosen.and_then(|i| ours.get(i)).map(|reply| reply.addr.clone()), 0)
            }
            // Sentinels that have just been started may name a former primary. A primary that does
            // not answer may do so in a moment.
            Some(named) => {
                let said = replies.iter().find(|reply| reply.addr == named.primary);
                let serves = said.is_none_or(|reply| reply.role == Role::Primary);
                ((serves && !named.is_down).then(|| named.primary.clone()), named.epoch)
            }
        };
        let mut replicas: Vec<(NodeAddr, NodeState)> = Vec::new();
        if let Some(named) = &named {
            replicas.extend(named.replicas.iter().cloned());
        }
        let leads = |reply: &&ServerReply| Some(&reply.addr) == primary.as_ref();
        if let Some(reply) = replies.iter().find(leads) {
            replicas.extend(reply.replicas.iter().cloned());
        }
        // Servers that report to replicate the primary, which may know them by other addresses.
        // While there is no primary: those that replicate one of ours.
        let follows = |reply: &&ServerReply| {
            reply.role == Role::Replica
                && match &primary {
                    Some(_) => reply.primary == primary,
                    None => reply.primary.as_ref().is_some_and(|addr| self.is_ours(addr)),
                }
        };
        let others = replies.iter().filter(follows);
        replicas.extend(others.map(|reply| (reply.addr.clone(), NodeState::Online)));
        // Any known server may come back as the primary, even if no reply names it meanwhile.
        if primary.is_none() {
            let known = self.in_use.nodes.iter();
            replicas.extend(known.map(|node| (node.addr.clone(), NodeState::Failed)));
        }
        // The best state counts: a server that answers is no longer what a Sentinel believed.
        replicas
            .sort_by(|a, b| (&a.0, std::cmp::Reverse(a.1)).cmp(&(&b.0, std::cmp::Reverse(b.1))));
        replicas.dedup_by(|a, b| a.0 == b.0);
        let id = |addr: &NodeAddr| {
            let said = replies.iter().find(|reply| reply.addr == *addr);
            // Not the form of a cluster node's ID, so that connections are not checked for it.
            said.map_or_else(|| "".into(), |reply| format!("run {}", reply.run_id).into())
        };
        let snapshot = snapshot_of(primary.as_ref(), &replicas, id);
        if snapshot.nodes.is_empty() || asked.is_empty() {
            return Err(NoTopology::asked(errors));
        }
        // The primary's connection is used for further questions.
        let at = asked.iter().position(|a| Some(&a.reply.addr) == primary.as_ref()).unwrap_or(0);
        let found = asked.swap_remove(at);
        self.connections.extend(asked.into_iter().map(|asked| (asked.socket, asked.conn)));
        let info = Info::of_server(primary.is_some(), epoch);
        let witness = found.reply.addr.to_string().into();
        Ok(Found {
            socket: found.socket,
            conn: found.conn,
            answer: Answer { info, snapshot, witness },
            rule: AdoptionRule::Continued,
            epoch,
        })
    }
}

impl From<NoPrimary> for NoTopology {
    fn from(error: NoPrimary) -> Self {
        NoTopology::NoPrimary(error)
    }
}

/// A Sentinel's error with its remedy.
fn explained(error: &AskError, config: &Config) -> String {
    let master = &config.upstream.master;
    match error {
        AskError::Answer(ParseError::Refused(text)) if text.contains("No such master") => {
            format!("it watches no server of the name \"{master}\": upstream.master")
        }
        AskError::Answer(ParseError::Refused(text)) if text.contains("unknown command") => {
            "this is no Sentinel: seeds has to name Sentinels, or upstream.kind is another".into()
        }
        AskError::Auth(text) => format!(
            "authentication refused, see upstream.sentinel_user and upstream.sentinel_password: \
             {text}"
        ),
        other => other.to_string(),
    }
}

/// Asks one Sentinel for the primary that it monitors, and the replicas.
async fn ask_sentinel(
    socket: SocketAddr,
    name: &str,
    access: &Access,
) -> Result<SentinelReply, AskError> {
    let mut conn = NodeConn::connect_to_sentinel(socket, name, access).await?;
    let name = &access.config.upstream.master;
    let master = conn.ask(&["SENTINEL", "MASTER", name]).await?;
    let replicas = conn.ask(&["SENTINEL", "REPLICAS", name]).await?;
    Ok(parse_sentinel(&master, &replicas)?)
}

/// Asks one server for its role. If the kept connection fails, a new one is established: old
/// connections may break without a fault of the server.
async fn ask_server(
    kept: Option<NodeConn>,
    socket: SocketAddr,
    addr: &NodeAddr,
    access: &Access,
) -> Result<(NodeConn, ServerReply), AskError> {
    if let Some(mut conn) = kept
        && let Ok(reply) = ask_role(&mut conn, addr).await
    {
        return Ok((conn, reply));
    }
    let mut conn = NodeConn::connect(socket, &addr.host, "", access).await?;
    let reply = ask_role(&mut conn, addr).await?;
    Ok((conn, reply))
}

async fn ask_role(conn: &mut NodeConn, addr: &NodeAddr) -> Result<ServerReply, AskError> {
    let replication = conn.ask(&["INFO", "replication"]).await?;
    let server = conn.ask(&["INFO", "server"]).await?;
    Ok(parse_server(&replication, &server, addr)?)
}
