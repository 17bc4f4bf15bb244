//! One round of a topology refresh: nodes are asked for their views of the cluster until one of
//! these can replace the view in use.
//!
//! Nodes are asked in order; if an answer takes longer than [`ASK_NEXT_AFTER`], the next node is
//! asked in parallel. The round collects the evidence; [`crate::cluster::trust`] judges it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::node::{Access, Answer, AskError, NodeConn};
use crate::cluster::ParseError;
use crate::cluster::server::NoPrimary;
use crate::cluster::trust::{
    self, AdoptionRule, Doubt, InUse, RejectReason, RoundEnd, View, ViewVerdict, cluster_name,
};

/// How long to wait for one node before the next is asked in parallel.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(200);
/// Number of nodes that are believed: when so many report a failed cluster, or slots without a
/// primary, the fault is the cluster's and the round ends. As many nodes of another cluster are
/// asked before it may replace the one in use.
const ENOUGH_WITNESSES: usize = 5;
/// Number of answers in need of a witness that ends a round.
const MAX_UNCONFIRMED: usize = 16;

/// A node to be asked.
#[derive(Debug)]
pub(super) enum Candidate {
    /// A node by its address, and its name.
    Node(SocketAddr, String),
    /// A seed, by IP address or host name, which is resolved when its turn comes, and port.
    Name(String, u16),
}

/// An answer, and the connection that it came on.
#[derive(Debug)]
pub(super) struct Found {
    pub socket: SocketAddr,
    pub conn: NodeConn,
    pub answer: Answer,
    /// The rule by which the answer was adopted.
    pub rule: AdoptionRule,
    /// The epoch that later views must have reached: the answer's or, if its node is not in state
    /// ok, one that a second node has reached. A node that is cut off raises its epoch in elections
    /// that it cannot win.
    pub epoch: u64,
}

/// The input of one round, and where it keeps connections and counts.
pub(super) struct Round<'a> {
    pub access: &'a Access,
    /// Kept connections, by address.
    pub connections: &'a mut HashMap<SocketAddr, NodeConn>,
    pub(super) in_use: InUse<'a>,
    /// No answer has been adopted for long: the exceptional rules apply.
    pub patience_over: bool,
    /// Counts of rejected views, by [`RejectReason::NAMES`].
    pub refused: &'a mut [u64; RejectReason::LABELS],
}

/// The evidence of one round: answers, and the addresses of seeds.
#[derive(Default)]
struct Evidence {
    answers: Vec<(Found, ViewVerdict)>,
    /// The addresses of each seed.
    seeds: HashMap<String, Vec<SocketAddr>>,
    /// Addresses that gave no answer.
    failed: HashSet<SocketAddr>,
    errors: Vec<String>,
}

impl Evidence {
    fn views(&self) -> Vec<View<'_>> {
        self.answers.iter().map(|(found, _)| found.answer.as_view()).collect()
    }

    fn all_seeds_answered(&self, seeds: usize) -> bool {
        let answered = |all: &Vec<SocketAddr>| {
            all.iter().any(|socket| self.answers.iter().any(|(found, _)| found.socket == *socket))
        };
        self.seeds.len() >= seeds && self.seeds.values().all(answered)
    }

    /// Whether enough nodes have answered, although no single view could be adopted.
    fn is_enough(&self) -> bool {
        let doubtful = |doubt: fn(&Doubt) -> bool| {
            let verdicts = self.answers.iter().map(|(_, verdict)| verdict);
            verdicts.filter(|v| matches!(v, ViewVerdict::NeedWitness(d) if doubt(d))).count()
        };
        doubtful(|doubt| !matches!(doubt, Doubt::FewKnown { .. })) >= ENOUGH_WITNESSES
            || doubtful(|_| true) >= MAX_UNCONFIRMED
    }
}

/// The result of a task of a round.
#[allow(clippy::large_enum_variant)] // a handful of them at a time
enum Step {
    Asked(SocketAddr, Result<(NodeConn, Answer), AskError>),
    /// A seed, by name and port, was resolved.
    Resolved(String, u16, Result<Vec<SocketAddr>, Unresolved>),
}

impl Round<'_> {
    /// Asks candidates until a view can replace the one in use. The error names those that gave
    /// none.
    pub async fn ask(mut self, candidates: Vec<Candidate>) -> Result<Found, NoTopology> {
        let mut queue: VecDeque<Candidate> = candidates.into();
        let seeds = queue.iter().filter(|c| matches!(c, Candidate::Name(..))).count();
        let mut tried: HashSet<SocketAddr> = HashSet::new();
        let mut steps: JoinSet<Step> = JoinSet::new();
        let mut evidence = Evidence::default();
        let first = self.in_use.snapshot.slots_covered() == 0;
        while !evidence.is_enough() {
            if first && covers_all(&evidence, &queue, &tried, seeds) {
                break;
            }
            self.next_step(&mut queue, &mut tried, &mut steps);
            let step = tokio::select! {
                step = steps.join_next() => match step {
                    Some(Ok(step)) => step,
                    // A panic, which is logged, ends only its own step.
                    Some(Err(_)) => continue,
                    None => break,
                },
                () = sleep(ASK_NEXT_AFTER), if !queue.is_empty() => continue,
            };
            match step {
                Step::Resolved(name, port, Ok(found)) => {
                    evidence.seeds.insert(format!("{name}:{port}"), found.clone());
                    let nodes = found.into_iter().rev();
                    nodes.for_each(|s| queue.push_front(Candidate::Node(s, name.clone())));
                }
                Step::Resolved(name, port, Err(error)) => {
                    evidence.seeds.insert(format!("{name}:{port}"), Vec::new());
                    evidence.errors.push(error.to_string());
                }
                Step::Asked(socket, Ok((conn, answer))) => {
                    let (rule, epoch) = (AdoptionRule::Continued, answer.info.epoch);
                    let found = Found { socket, conn, answer, rule, epoch };
                    let verdict = if first { ViewVerdict::Adopt } else { self.judge(&found) };
                    evidence.answers.push((found, verdict));
                    match verdict {
                        _ if first => {}
                        ViewVerdict::Adopt => {
                            let last = evidence.answers.len() - 1;
                            return self.taken(evidence, last, AdoptionRule::Continued);
                        }
                        ViewVerdict::Reject(RejectReason::Foreign | RejectReason::NoSlots)
                            if self.patience_over =>
                        {
                            self.ask_others(&evidence, &mut queue);
                        }
                        _ => {
                            if let Some(i) = self.confirmed(&evidence) {
                                return self.taken(evidence, i, AdoptionRule::Continued);
                            }
                        }
                    }
                }
                Step::Asked(socket, Err(error)) => {
                    debug!(%socket, %error, "no topology from this node");
                    evidence.failed.insert(socket);
                    evidence.errors.push(format!("{socket}: {}", explained(&error)));
                }
            }
        }
        if first { self.first(evidence) } else { self.decide(evidence, seeds) }
    }

    fn judge(&self, found: &Found) -> ViewVerdict {
        let Found { socket, answer, .. } = found;
        let verdict = trust::judge(&self.in_use, &answer.as_view());
        if verdict != ViewVerdict::Adopt {
            debug!(%socket, info = ?answer.info, ?verdict, "not a view to be used as it is");
        }
        verdict
    }

    /// Adds nodes of another cluster to the queue: it may replace the one in use only if several of
    /// them confirm its view.
    fn ask_others(&self, evidence: &Evidence, queue: &mut VecDeque<Candidate>) {
        let answer = evidence.answers.last().map(|(found, _)| &found.answer.snapshot);
        let nodes = answer.into_iter().flat_map(|snapshot| &snapshot.nodes).take(ENOUGH_WITNESSES);
        let candidate = |node: &crate::cluster::Node| {
            Some(Candidate::Node(node.socket?, node.server_name().to_owned()))
        };
        queue.extend(nodes.filter_map(candidate));
    }

    /// An answer of a node in state ok that another answer confirms: it is adopted at once.
    fn confirmed(&self, evidence: &Evidence) -> Option<usize> {
        let (i, _) = trust::decide(&self.in_use, &evidence.views(), &RoundEnd::default())?;
        let (found, _) = evidence.answers.get(i)?;
        found.answer.info.state_ok.then_some(i)
    }

    /// Ends a round in which no single view could be adopted.
    fn decide(self, evidence: Evidence, seeds: usize) -> Result<Found, NoTopology> {
        let end = RoundEnd {
            patience_over: self.patience_over,
            all_seeds_answered: evidence.all_seeds_answered(seeds),
        };
        if let Some((i, rule)) = trust::decide(&self.in_use, &evidence.views(), &end) {
            return self.taken(evidence, i, rule);
        }
        let Evidence { answers, mut errors, .. } = evidence;
        for (found, verdict) in answers {
            let (label, why) = match verdict {
                ViewVerdict::Reject(reason) => (reason.label(), reason.to_string()),
                ViewVerdict::NeedWitness(doubt) => {
                    (RejectReason::LABELS - 1, format!("{doubt}, which no other node confirms"))
                }
                ViewVerdict::Adopt => continue,
            };
            count(self.refused, label);
            errors.push(format!("{}: its view {why}", found.socket));
            // The connection is kept, except to another cluster.
            if verdict != ViewVerdict::Reject(RejectReason::Foreign) {
                self.connections.insert(found.socket, found.conn);
            }
        }
        Err(NoTopology::asked(errors))
    }

    /// Ends the first round.
    fn first(self, evidence: Evidence) -> Result<Found, NoTopology> {
        let chosen = trust::first(&evidence.views());
        match chosen {
            Ok(Some(i)) => self.taken(evidence, i, AdoptionRule::Continued),
            Ok(None) => Err(NoTopology::asked(evidence.errors)),
            Err(trust::Disagreement(a, b)) => {
                count(self.refused, RejectReason::Foreign.label());
                let name = |i: usize| {
                    let found = evidence.answers.get(i).map(|(found, _)| found);
                    found.map_or_else(String::new, |found| {
                        format!("{} ({})", found.socket, cluster_name(&found.answer.snapshot))
                    })
                };
                Err(NoTopology::TwoClusters(name(a), name(b)))
            }
        }
    }

    /// Adopts the answer at `index`, and counts those that were rejected.
    fn taken(
        self,
        evidence: Evidence,
        index: usize,
        rule: AdoptionRule,
    ) -> Result<Found, NoTopology> {
        let mut taken = None;
        let epoch = trust::confirmed_epoch(&evidence.views(), index);
        for (i, (found, verdict)) in evidence.answers.into_iter().enumerate() {
            if i == index {
                taken = Some(Found { rule, epoch, ..found });
                continue;
            }
            if let ViewVerdict::Reject(reason) = verdict {
                count(self.refused, reason.label());
            }
            if verdict != ViewVerdict::Reject(RejectReason::Foreign) {
                self.connections.insert(found.socket, found.conn);
            }
        }
        taken.ok_or(NoTopology::NoSeeds)
    }

    /// Asks the next candidate that was not asked yet, if there is one.
    fn next_step(
        &mut self,
        queue: &mut VecDeque<Candidate>,
        tried: &mut HashSet<SocketAddr>,
        steps: &mut JoinSet<Step>,
    ) {
        while let Some(candidate) = queue.pop_front() {
            match candidate {
                Candidate::Node(socket, name) if tried.insert(socket) => {
                    let kept = self.connections.remove(&socket);
                    steps.spawn(ask_node(kept, socket, name, self.access.clone()));
                }
                Candidate::Node(..) => continue,
                Candidate::Name(host, port) => {
                    let limit = self.access.config.timeouts.connect;
                    steps.spawn(async move {
                        let found = resolve(&host, port, limit).await;
                        Step::Resolved(host, port, found)
                    });
                }
            }
            return;
        }
    }
}

fn count(refused: &mut [u64; RejectReason::LABELS], label: usize) {
    if let Some(count) = refused.get_mut(label) {
        *count += 1;
    }
}

/// Whether a view in state ok includes all nodes that the seeds lead to, so that no seed can belong
/// to another cluster.
fn covers_all(
    evidence: &Evidence,
    queue: &VecDeque<Candidate>,
    tried: &HashSet<SocketAddr>,
    seeds: usize,
) -> bool {
    let whole = |found: &&(Found, ViewVerdict)| {
        let answer = &found.0.answer;
        answer.info.state_ok && answer.snapshot.covered()
    };
    let Some((found, _)) = evidence.answers.iter().find(whole) else { return false };
    let sockets: HashSet<SocketAddr> =
        found.answer.snapshot.nodes.iter().filter_map(|node| node.socket).collect();
    let waiting = queue.iter().all(|candidate| match candidate {
        Candidate::Node(socket, _) => sockets.contains(socket),
        Candidate::Name(..) => false,
    });
    let answered = |socket: &SocketAddr| {
        *socket == found.socket || evidence.answers.iter().any(|(f, _)| f.socket == *socket)
    };
    let failed = |socket: &SocketAddr| evidence.failed.contains(socket);
    waiting
        && evidence.seeds.len() >= seeds
        && tried.iter().all(|s| sockets.contains(s) || answered(s) || failed(s))
}

/// Why a round has adopted no view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoTopology {
    /// No node is known, and no seed is configured.
    #[error("there is nobody to ask: no seeds")]
    NoSeeds,
    /// No candidate gave a usable view: each with the reason.
    #[error("{0}")]
    InVain(String),
    /// The seeds belong to two clusters.
    #[error(
        "the seeds name two clusters, and nothing tells which one is meant: {0} and {1}; correct \
         seeds"
    )]
    TwoClusters(String, String),
    /// The answers name no single server.
    #[error(transparent)]
    NoPrimary(NoPrimary),
}

impl NoTopology {
    /// The error of a round with these reasons, of which the first few are named: with a thousand
    /// nodes they repeat.
    pub(super) fn asked(mut errors: Vec<String>) -> NoTopology {
        const SHOWN: usize = 6;
        if errors.is_empty() {
            return NoTopology::NoSeeds;
        }
        errors.sort();
        let more = errors.len().saturating_sub(SHOWN);
        errors.truncate(SHOWN);
        if more > 0 {
            errors.push(format!("and {more} more"));
        }
        NoTopology::InVain(errors.join("; "))
    }
}

/// The error of a node with its remedy, where it is no node of a cluster.
fn explained(error: &AskError) -> String {
    let AskError::Answer(ParseError::Refused(said)) = error else { return error.to_string() };
    let kind = match said {
        said if said.contains("cluster support disabled") => ("a single server", "standalone"),
        said if said.contains("unknown command") => ("a Sentinel", "sentinel"),
        _ => return error.to_string(),
    };
    format!("{error}; if it is {}, set upstream.kind = \"{}\"", kind.0, kind.1)
}

/// Why the host name of a seed has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unresolved {
    #[error("{0} does not resolve: {1}")]
    Failed(String, std::io::Error),
    #[error("{0} does not resolve: DNS does not answer")]
    Silent(String),
}

pub(super) async fn resolve(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<Vec<SocketAddr>, Unresolved> {
    match timeout(limit, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(Unresolved::Failed(host.to_owned(), error)),
        Err(_) => Err(Unresolved::Silent(host.to_owned())),
    }
}

/// Asks one node for its view. If the kept connection fails, a new one is made: old connections die
/// without a fault of the node.
async fn ask_node(
    kept: Option<NodeConn>,
    socket: SocketAddr,
    name: String,
    access: Access,
) -> Step {
    if let Some(mut conn) = kept
        && let Ok(answer) = conn.topology().await
    {
        return Step::Asked(socket, Ok((conn, answer)));
    }
    let fresh = async {
        let mut conn = NodeConn::connect(socket, &name, "", &access).await?;
        let answer = conn.topology().await?;
        Ok((conn, answer))
    };
    Step::Asked(socket, fresh.await)
}
