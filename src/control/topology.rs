//! The refresher: keeps the workers' topology and command table up to date.
//!
//! One task makes one refresh at a time, no sooner than `topology.min_interval` after the last one;
//! all requests during a refresh become one more refresh. Without requests the interval is
//! `topology.refresh`. While a slot has no primary, or a primary cannot be reached or is silent, it
//! is `topology.min_interval`, so that the end of a failover is noticed at once, even if the old
//! primary died before it could send MOVED.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::names::Names;
use super::node::{Access, Answer, AskError, NodeConn};
use super::pool::Pool;
use super::requests::{Pending, Requests};
use super::round::{Candidate, Found, Round};
use super::servers::Servers;
use super::status::{Status, Unreached, UpstreamStatus, of_upstream};
use crate::backoff::jittered;
use crate::cluster::trust::{AdoptionRule, InUse, RejectReason, cluster_name};
use crate::cluster::{
    Identity, Info, Node, NodeAddr, Snapshot, UpstreamId, diff, listed, parse_databases,
    parse_node_timeout,
};
use crate::config::UpstreamKind;
use crate::lines::LogLimit;
use crate::sparsely;

/// Least time between two requests of COMMAND: its reply is large, and every unknown command of a
/// client may cause one.
const COMMANDS_INTERVAL: Duration = Duration::from_secs(5);
/// How long trouble is watched at `topology.min_interval`. What lasts longer than a failover needs
/// an operator.
const CLOSE_WATCH: Duration = Duration::from_secs(30);
/// Number of known nodes that are asked before the seeds. If all nodes have new addresses, only the
/// seeds' host names lead to them.
const BEFORE_SEEDS: usize = 6;
/// Limit on changes of one refresh that are logged, one line each.
const CHANGES_SHOWN: usize = 50;
/// Time without an adopted answer after which the rules for restored and replaced clusters apply.
const RULE_AFTER: Duration = Duration::from_secs(5);
/// Duration of a failover beyond `cluster-node-timeout`: gossip, the election, its propagation.
/// Measured: 1.3 to 3.0 s.
const ELECTION: Duration = Duration::from_secs(3);
/// Limit on the time to ask the workers which nodes they are connected to.
const SCRAPE_LIMIT: Duration = Duration::from_millis(100);

/// The task that asks the cluster for its topology and commands.
pub struct Refresher {
    access: Access,
    /// See [`Pool::log_name`].
    log_name: Option<Box<str>>,
    pool: Arc<Pool>,
    status: Arc<Status>,
    requests: Arc<Requests>,
    /// Connections kept between refreshes, by address.
    connections: HashMap<SocketAddr, NodeConn>,
    names: Names,
    /// `cluster_current_epoch` of the last answer that was adopted.
    epoch: u64,
    current: Arc<Snapshot>,
    /// Since when no answer could be adopted.
    unconfirmed_since: Option<Instant>,
    commands: Commands,
    /// The values that were last checked for warnings: `cluster-node-timeout`, `timeouts.command`,
    /// `timeouts.no_primary`.
    timeouts_judged: [Option<Duration>; 3],
    /// Connection attempts to primaries.
    probes: JoinSet<(NodeAddr, SocketAddr, Result<NodeConn, AskError>)>,
    probing: HashSet<NodeAddr>,
    trouble_since: Option<Instant>,
    lines: LogLines,
}

/// Limits of log lines that nodes can cause without end.
struct LogLines {
    changes: LogLimit,
    uncovered: LogLimit,
    failed: LogLimit,
}

impl Default for LogLines {
    fn default() -> Self {
        // A failover of a large cluster makes some hundred changes at once.
        let changes = LogLimit::with(200);
        LogLines { changes, uncovered: LogLimit::default(), failed: LogLimit::default() }
    }
}

/// When to ask for the command table again.
#[derive(Default)]
struct Commands {
    /// A refresh was requested; it waits for [`COMMANDS_INTERVAL`].
    due: bool,
    asked: Option<Instant>,
    /// The last reply, to recognize one that has not changed.
    reply: Bytes,
}

impl Refresher {
    /// A refresher of an upstream that begins with its topology in `status`.
    pub fn new(
        upstream: UpstreamId,
        pool: Arc<Pool>,
        status: Arc<Status>,
        requests: Arc<Requests>,
    ) -> Self {
        let current = Arc::clone(&status.upstream(upstream).snapshot);
        Refresher {
            access: pool.access(upstream),
            log_name: pool.log_name(upstream),
            pool,
            status,
            requests,
            connections: HashMap::new(),
            names: Names::default(),
            epoch: 0,
            current,
            unconfirmed_since: None,
            commands: Commands { due: true, ..Commands::default() },
            timeouts_judged: [None; 3],
            probes: JoinSet::new(),
            probing: HashSet::new(),
            trouble_since: None,
            lines: LogLines::default(),
        }
    }

    /// Runs until it is dropped; `first` is notified after the first refresh, successful or not.
    pub async fn run(mut self, first: Arc<Notify>) {
        let mut asked_for = Pending { topology: true, ..Pending::default() };
        loop {
            self.commands.due |= asked_for.commands;
            if asked_for.topology || self.commands_allowed() {
                self.refresh(asked_for.hint, asked_for.by_worker).await;
                first.notify_one();
            }
            asked_for = self.wait().await;
        }
    }

    /// Waits until the next refresh is due, and returns what it is to refresh.
    async fn wait(&mut self) -> Pending {
        let ended = Instant::now();
        let earliest =
            ended + self.access.config.topology.min_interval.mul_f64(1.0 + fastrand::f64() / 4.0);
        let mut due = earliest.max(ended + self.pace());
        if self.commands.due
            && let Some(asked) = self.commands.asked
        {
            due = earliest.max(due.min(asked + COMMANDS_INTERVAL));
        }
        let mut pending = Pending::default();
        loop {
            tokio::select! {
                () = sleep_until(due) => {
                    pending.topology = true;
                    return pending;
                }
                () = self.requests.wake.notified() => {
                    let more = self.requests.take();
                    pending.hint = more.hint.or(pending.hint);
                    pending.commands |= more.commands;
                    pending.by_worker |= more.by_worker;
                    if more.topology {
                        due = due.min(earliest);
                    } else if more.commands {
                        let allowed = self.commands.asked.map(|asked| asked + COMMANDS_INTERVAL);
                        due = due.min(allowed.unwrap_or(earliest).max(earliest));
                    }
                }
                Some(done) = self.probes.join_next(), if !self.probes.is_empty() => {
                    if let Ok((node, socket, result)) = done {
                        self.probed(node, socket, result);
                    }
                    // A primary that was not reached makes the next refresh due sooner.
                    self.note_trouble();
                    due = due.min(earliest.max(ended + self.pace()));
                }
            }
        }
    }

    /// The time to the next refresh without a request.
    fn pace(&self) -> Duration {
        match self.trouble_since {
            None => jittered(self.access.config.topology.refresh, 10),
            // topology.min_interval is the lower limit.
            Some(since) if since.elapsed() < CLOSE_WATCH => Duration::ZERO,
            Some(_) => random_millis(500..1000).min(self.access.config.topology.refresh),
        }
    }

    fn commands_allowed(&self) -> bool {
        self.commands.due && self.commands.asked.is_none_or(|at| at.elapsed() >= COMMANDS_INTERVAL)
    }

    async fn refresh(&mut self, hint: Option<NodeAddr>, by_worker: bool) {
        self.access = self.pool.access(self.access.upstream);
        if self.access.config.upstream.kind != UpstreamKind::Cluster {
            let servers = Servers {
                access: &self.access,
                connections: &mut self.connections,
                in_use: &self.current,
            };
            match servers.ask().await {
                Ok(found) => self.accept(found, by_worker).await,
                Err(error) => self.failed(error.to_string()),
            }
            return self.note_trouble();
        }
        let candidates = self.candidates(hint.as_ref());
        let mut refused = [0; RejectReason::LABELS];
        let round = Round {
            access: &self.access,
            connections: &mut self.connections,
            in_use: InUse { snapshot: &self.current, epoch: self.epoch },
            patience_over: self
                .unconfirmed_since
                .is_some_and(|since| since.elapsed() >= RULE_AFTER),
            refused: &mut refused,
        };
        let outcome = round.ask(candidates).await;
        {
            let mut topology = self.status();
            for (sum, count) in topology.views_refused.iter_mut().zip(refused) {
                *sum += count;
            }
        }
        match outcome {
            Ok(found) => self.accept(found, by_worker).await,
            Err(error) => self.failed(error.to_string()),
        }
        self.note_trouble();
    }

    /// The candidates for a round, in this order: the hint, replicas that may just have been
    /// promoted, some nodes that are online in random order, the seeds, the other nodes; silent
    /// nodes last.
    fn candidates(&self, hint: Option<&NodeAddr>) -> Vec<Candidate> {
        let silent = self.requests.silent_now();
        let is_silent = |n: &Node| n.socket.is_some_and(|s| silent.contains(&s));
        let mut online: Vec<&Node> = self.current.nodes.iter().filter(|n| n.is_online()).collect();
        fastrand::shuffle(&mut online);
        let heirs = self.heirs(is_silent);
        online.sort_by_key(|n| (is_silent(n), !heirs.contains(&n.addr)));
        let answering = online.iter().filter(|n| !is_silent(n)).count();
        // A hint comes from a reply, which a script can forge: it may only select a node that the
        // cluster itself has named.
        let hinted = hint
            .and_then(|hint| self.current.nodes.iter().find(|n| n.addr == *hint))
            .and_then(candidate);
        let mut known = online.into_iter().filter_map(candidate);
        let first: Vec<Candidate> = known.by_ref().take(answering.min(BEFORE_SEEDS)).collect();
        let seeds =
            self.access.config.seeds.iter().map(|s| Candidate::Name(s.host.clone(), s.port));
        hinted.into_iter().chain(first).chain(seeds).chain(known).collect()
    }

    /// Replicas of shards whose primary has failed or is silent: the promoted one knows first.
    fn heirs(&self, is_silent: impl Fn(&Node) -> bool) -> HashSet<NodeAddr> {
        let node = |&n: &u16| self.current.nodes.get(usize::from(n));
        let orphaned = self.current.shards.iter().filter(|shard| {
            shard.primary.as_ref().and_then(node).is_none_or(|p| !p.is_online() || is_silent(p))
        });
        let replicas = orphaned.flat_map(|shard| shard.replicas.iter().filter_map(node));
        replicas.map(|n| n.addr.clone()).collect()
    }

    /// Tells the workers why they cannot serve, or (`None`) that they can.
    fn tell_trouble(&self, why: Option<String>) {
        self.pool.set_trouble(why.map(|why| of_upstream(self.log_name.as_deref(), &why)));
    }

    async fn accept(&mut self, found: Found, by_worker: bool) {
        let Found { socket, mut conn, answer, rule, epoch } = found;
        let Answer { info, mut snapshot, .. } = answer;
        self.names.resolve(&mut snapshot, self.access.config.timeouts.connect).await;
        self.unconfirmed_since = None;
        self.tell_rule(rule, socket, &info, &snapshot);
        self.epoch = if rule == AdoptionRule::Continued { self.epoch.max(epoch) } else { epoch };
        let changed = !snapshot.same_as(&self.current);
        self.tell_trouble(None);
        if changed {
            snapshot.generation = self.current.generation + 1;
            self.tell_changes(&snapshot, socket);
            let known: HashSet<&str> = self.current.nodes.iter().map(|n| &*n.id).collect();
            // A new node may have another version and configuration.
            self.commands.due |= snapshot.nodes.iter().any(|n| !known.contains(&*n.id));
            self.current = Arc::new(snapshot);
            self.announce();
            let sockets: HashSet<_> = self.current.nodes.iter().filter_map(|n| n.socket).collect();
            self.connections.retain(|socket, _| sockets.contains(socket));
        } else if by_worker {
            self.announce();
        }
        {
            let mut topology = self.status();
            topology.snapshot = Arc::clone(&self.current);
            topology.answered = Some(std::time::Instant::now());
            topology.refreshes_ok += 1;
            topology.changes += u64::from(changed);
            topology.error = None;
        }
        if self.commands_allowed() {
            self.fetch_commands(&mut conn).await;
        }
        self.judge_timeouts();
        if conn.is_usable() {
            self.connections.insert(socket, conn);
        }
        if changed {
            self.pool.replicas.changed(self.access.upstream);
        }
        self.probe_primaries().await;
    }

    fn announce(&self) {
        self.pool.announce().topology(self.access.upstream, Arc::clone(&self.current));
    }

    /// The state of the upstream. The guard must not be held across an await.
    fn status(&self) -> MutexGuard<'_, UpstreamStatus> {
        self.status.upstream(self.access.upstream)
    }

    /// Logs and counts a view that was adopted by an exceptional rule.
    fn tell_rule(&self, rule: AdoptionRule, from: SocketAddr, info: &Info, snapshot: &Snapshot) {
        let (was, upstream) = (cluster_name(&self.current), &self.log_name);
        match rule {
            AdoptionRule::Continued => return,
            AdoptionRule::Restored => warn!(
                upstream, %from, epoch = info.epoch, known = self.epoch,
                "most nodes agree on an older topology and none has a newer one: it is used from \
                 now on"
            ),
            AdoptionRule::Replaced => warn!(
                upstream, %from, was, is = cluster_name(snapshot),
                "all nodes known so far are gone and all seeds name another cluster: it is used \
                 from now on"
            ),
        }
        let mut topology = self.status();
        if let Some(count) = topology.exceptions.get_mut(rule as usize) {
            *count += 1;
        }
    }

    fn tell_changes(&mut self, snapshot: &Snapshot, from: SocketAddr) {
        let (generation, upstream) = (snapshot.generation, &self.log_name);
        if self.current.generation == 0 {
            let (nodes, primaries) = (snapshot.nodes.len(), snapshot.slot_primaries().len());
            let slots = snapshot.slots_covered();
            info!(upstream, %from, nodes, primaries, slots, "topology known");
        } else {
            let changes = diff(&self.current, snapshot);
            for change in changes.iter().take(CHANGES_SHOWN) {
                sparsely!(self.lines.changes, info, upstream, %from, generation, "topology: {change}");
            }
            if changes.len() > CHANGES_SHOWN {
                let more = changes.len() - CHANGES_SHOWN;
                sparsely!(self.lines.changes, info, upstream, %from, generation, more, "topology: and more changes");
            }
        }
        if !snapshot.covered() {
            let slots = listed(&snapshot.missing_slots());
            sparsely!(self.lines.uncovered, warn, upstream, %from, generation, "no primary for slots {slots}");
        }
    }

    fn failed(&mut self, error: String) {
        self.tell_trouble(Some(error.clone()));
        self.unconfirmed_since.get_or_insert_with(Instant::now);
        let upstream = &self.log_name;
        let mut topology = self.status.upstream(self.access.upstream);
        topology.refreshes_failed += 1;
        // A failure that repeats is logged once.
        if topology.error.as_ref() == Some(&error) {
            debug!(upstream, error, "no node gives the topology");
        } else {
            sparsely!(self.lines.failed, warn, upstream, error, "no node gives the topology");
            topology.error = Some(error);
        }
    }

    /// Asks for COMMAND and merges it into the table in use, so that command IDs stay.
    async fn fetch_commands(&mut self, conn: &mut NodeConn) {
        self.commands.asked = Some(Instant::now());
        let reply = match conn.ask(&["COMMAND"]).await {
            Ok(reply) => reply,
            // It stays due, for a later refresh.
            Err(error) => {
                return warn!(upstream = self.log_name, %error, "COMMAND was not answered");
            }
        };
        self.commands.due = false;
        self.fetch_identity(conn).await;
        if reply == self.commands.reply {
            return;
        }
        let upstream = &self.log_name;
        match self.pool.announce().overlay(self.access.upstream, &reply) {
            Ok(table) => {
                let added = table.len().saturating_sub(self.status.commands().len());
                debug!(upstream, commands = table.len(), added, "command table from the cluster");
                self.status.set_commands(table);
            }
            Err(error) => {
                warn!(upstream, %error, "COMMAND's answer cannot be used, keeping the known commands")
            }
        }
        self.commands.reply = reply;
    }

    /// Asks for the node's version and the like, which clients are told.
    async fn fetch_identity(&self, conn: &mut NodeConn) {
        let databases = self.fetch_settings(conn).await;
        // Clients are told one version: that of the first upstream.
        if self.access.upstream != UpstreamId::FIRST {
            return self.pool.announce().databases(self.access.upstream, databases);
        }
        match ask_identity(conn).await {
            Ok(Some(mut identity)) => {
                identity.databases = databases;
                self.pool.announce().identity(identity);
            }
            Ok(None) => debug!("INFO has no redis_version"),
            Err(error) => {
                let upstream = &self.log_name;
                warn!(upstream, %error, "INFO, HELLO or CLIENT INFO was not answered");
            }
        }
    }

    /// Asks for settings: how many databases there are, which it returns, and of a cluster
    /// `cluster-node-timeout`, the silence after which nodes declare a node failed.
    async fn fetch_settings(&self, conn: &mut NodeConn) -> u16 {
        // Servers before 7.0 accept one name or pattern. One that does not tell has the usual number.
        let (asked, databases, usual) = match self.access.config.upstream.kind {
            // Valkey 9 has several.
            UpstreamKind::Cluster => ("cluster-*", "cluster-databases", 1),
            UpstreamKind::Sentinel | UpstreamKind::Standalone => ("databases", "databases", 16),
        };
        let reply = match conn.ask(&["CONFIG", "GET", asked]).await {
            Ok(reply) => reply,
            Err(error) => {
                debug!(%error, "CONFIG GET was not answered");
                return usual;
            }
        };
        if self.access.config.upstream.kind == UpstreamKind::Cluster {
            let timeout = parse_node_timeout(&reply);
            if timeout.is_none() {
                debug!("the node does not tell its cluster-node-timeout");
            }
            self.status().node_timeout = timeout;
        }
        parse_databases(&reply, databases).unwrap_or(usual)
    }

    /// Warns of timeouts shorter than a failover, once for each combination of values.
    fn judge_timeouts(&mut self) {
        let Some(node_timeout) = self.status().node_timeout else { return };
        let (command, no_primary) =
            (self.access.config.timeouts.command, self.access.config.timeouts.no_primary);
        let judged = [Some(node_timeout), command, no_primary];
        if std::mem::replace(&mut self.timeouts_judged, judged) == judged {
            return;
        }
        let needed = node_timeout + ELECTION;
        for (key, timeout) in [("timeouts.command", command), ("timeouts.no_primary", no_primary)] {
            if let Some(timeout) = timeout.filter(|timeout| *timeout < needed) {
                warn!(
                    upstream = self.log_name,
                    "{key} = {timeout:?} is shorter than a failover takes: with the nodes' \
                     cluster-node-timeout of {node_timeout:?} about {needed:?}, and commands that \
                     wait for a failed primary get errors before its replica is promoted; set {key} \
                     to {needed:?} or more, or lower cluster-node-timeout on the nodes"
                );
            }
        }
    }

    /// Connects to every primary with slots to which no worker is connected, so that the
    /// reachability of all primaries is known.
    async fn probe_primaries(&mut self) {
        let connected = self.pool.survey().scrape(SCRAPE_LIMIT).await.totals.nodes;
        let mut reached = std::mem::take(&mut self.status().reached);
        let mut still = BTreeMap::new();
        for node in self.current.slot_primaries() {
            if let Some(result) = reached.remove(&node.addr) {
                still.insert(node.addr.clone(), result);
            }
            if connected.get(&node.addr).is_some_and(|stats| stats.connections_ready > 0) {
                still.insert(node.addr.clone(), Ok(()));
                continue;
            }
            let Some(socket) = node.socket else {
                still.insert(node.addr.clone(), Err(Unreached::Unresolved));
                continue;
            };
            if !self.probing.insert(node.addr.clone()) {
                continue;
            }
            let (name, id) = (node.server_name().to_owned(), node.id.clone());
            let (node, access) = (node.addr.clone(), self.access.clone());
            let kept = self.connections.remove(&socket);
            self.probes.spawn(async move {
                let result = probe(kept, socket, (&name, &id), &access).await;
                (node, socket, result)
            });
        }
        self.status().reached = still;
    }

    fn probed(&mut self, node: NodeAddr, socket: SocketAddr, result: Result<NodeConn, AskError>) {
        self.probing.remove(&node);
        let result = match result {
            Ok(conn) => {
                self.connections.insert(socket, conn);
                Ok(())
            }
            Err(error) => {
                debug!(%node, %error, "primary not reached");
                self.names.expire(&node);
                Err(Unreached::Asked(error.to_string()))
            }
        };
        if self.current.slot_primaries().iter().any(|n| n.addr == node) {
            let reached = result.is_ok();
            let before = self.status().reached.insert(node, result);
            // It may have been restarted as another version.
            self.commands.due |= reached && matches!(before, Some(Err(_)));
        }
    }

    fn note_trouble(&mut self) {
        let silent = self.requests.silent_now();
        let mut primaries = self.current.slot_primaries().into_iter();
        let silence = primaries.any(|n| n.socket.is_some_and(|s| silent.contains(&s)));
        let trouble = silence || !self.current.covered() || {
            let topology = self.status();
            topology.error.is_some() || topology.reached.values().any(Result::is_err)
        };
        match (trouble, self.trouble_since) {
            (true, None) => self.trouble_since = Some(Instant::now()),
            (false, Some(_)) => self.trouble_since = None,
            _ => {}
        }
    }
}

async fn ask_identity(conn: &mut NodeConn) -> Result<Option<Identity>, AskError> {
    let info = conn.ask(&["INFO", "server"]).await?;
    let hello = conn.ask(&["HELLO"]).await?;
    let client = conn.ask(&["CLIENT", "INFO"]).await?;
    Ok(Identity::parse(&info, &hello, &client))
}

/// The node as a candidate; `None` if its host name does not resolve.
fn candidate(node: &Node) -> Option<Candidate> {
    Some(Candidate::Node(node.socket?, node.server_name().to_owned()))
}

/// Connects to a primary. If the kept connection fails, a new one is made: old connections die
/// without a fault of the node.
async fn probe(
    kept: Option<NodeConn>,
    socket: SocketAddr,
    (name, id): (&str, &str),
    access: &Access,
) -> Result<NodeConn, AskError> {
    if let Some(mut conn) = kept
        && conn.ask(&["PING"]).await.is_ok()
    {
        return Ok(conn);
    }
    let mut conn = NodeConn::connect(socket, name, id, access).await?;
    conn.ask(&["PING"]).await?;
    Ok(conn)
}

fn random_millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}
