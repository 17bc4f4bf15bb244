//! One round of asking nodes for their view of the cluster, until one can replace the view in use.
//!
//! Nodes are asked one after the other, but nobody waits for a dead one: if an answer takes longer
//! than [`ASK_NEXT_AFTER`] the next is asked beside it. What an answer must show is decided in
//! [`crate::cluster::trust`]; the round brings the evidence.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::node::{Answer, AskError, NodeConn};
use crate::cluster::trust::{
    self, Doubt, InUse, Reason, RoundEnd, Rule, Verdict, View, cluster_name,
};
use crate::config::Config;
use crate::tls::Tls;

/// How long one node is waited for before the next is asked, too.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(200);
/// When so many nodes say that the cluster fails, or that slots have no primary, it is the cluster,
/// not the nodes.
const MAX_OBJECTIONS: usize = 5;
/// Answers that need a witness, at most: more of them tell nothing new.
const MAX_UNCONFIRMED: usize = 16;

/// Someone to ask.
#[derive(Debug)]
pub(super) enum Candidate {
    /// A node by its address, and its name.
    Node(SocketAddr, String),
    /// A seed, by IP address or DNS name, resolved when its turn comes.
    Name(String, u16),
}

/// The answer that was taken, and the connection that it came on.
#[derive(Debug)]
pub(super) struct Found {
    pub socket: SocketAddr,
    pub conn: NodeConn,
    pub answer: Answer,
    /// By which rule the answer was taken.
    pub rule: Rule,
    /// The epoch that later views have to have heard of: the answer's, but where its node is not in
    /// state ok, one that a second node has heard of. A node that is cut off raises its epoch in
    /// elections that it cannot win.
    pub epoch: u64,
}

/// What one round knows.
pub(super) struct Round<'a> {
    pub config: &'a Arc<Config>,
    pub tls: &'a Arc<Tls>,
    /// Kept connections; taken from and given back to.
    pub connections: &'a mut HashMap<SocketAddr, NodeConn>,
    pub(super) in_use: InUse<'a>,
    /// No answer has been taken for long: the exceptional rules apply.
    pub patience_over: bool,
    /// Views that were not used, by [`Reason::NAMES`].
    pub refused: &'a mut [u64; Reason::LABELS],
}

/// The answers of one round, and where seeds have led to.
#[derive(Default)]
struct Evidence {
    answers: Vec<(Found, Verdict)>,
    /// Each seed with its addresses.
    seeds: HashMap<String, Vec<SocketAddr>>,
    /// Addresses that were asked in vain.
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

    /// Whether enough nodes were asked, although none of them has a view that can be used as it is.
    fn is_enough(&self) -> bool {
        let doubtful = |doubt: fn(&Doubt) -> bool| {
            let verdicts = self.answers.iter().map(|(_, verdict)| verdict);
            verdicts.filter(|v| matches!(v, Verdict::NeedWitness(d) if doubt(d))).count()
        };
        doubtful(|doubt| !matches!(doubt, Doubt::FewKnown { .. })) >= MAX_OBJECTIONS
            || doubtful(|_| true) >= MAX_UNCONFIRMED
    }
}

/// What a task of a round brings back.
#[allow(clippy::large_enum_variant)] // a handful of them at a time
enum Step {
    Asked(SocketAddr, Result<(NodeConn, Answer), AskError>),
    /// With the seed that was resolved.
    Resolved(String, u16, Result<Vec<SocketAddr>, Unresolved>),
}

impl Round<'_> {
    /// Asks until a view can replace the one in use. The error names everyone who was asked in
    /// vain.
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
                    // A step that panicked; its bug is logged, the others go on.
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
                    let (rule, epoch) = (Rule::Continued, answer.info.epoch);
                    let found = Found { socket, conn, answer, rule, epoch };
                    let verdict = if first { Verdict::Adopt } else { self.judge(&found) };
                    evidence.answers.push((found, verdict));
                    match verdict {
                        _ if first => {}
                        Verdict::Adopt => {
                            let last = evidence.answers.len() - 1;
                            return self.taken(evidence, last, Rule::Continued);
                        }
                        Verdict::Reject(Reason::Foreign | Reason::NoSlots)
                            if self.patience_over =>
                        {
                            self.ask_others(&evidence, &mut queue);
                        }
                        _ => {
                            if let Some(i) = self.confirmed(&evidence) {
                                return self.taken(evidence, i, Rule::Continued);
                            }
                        }
                    }
                }
                Step::Asked(socket, Err(error)) => {
                    debug!(%socket, %error, "no topology from this node");
                    evidence.failed.insert(socket);
                    evidence.errors.push(format!("{socket}: {error}"));
                }
            }
        }
        if first { self.first(evidence) } else { self.decide(evidence, seeds) }
    }

    fn judge(&self, found: &Found) -> Verdict {
        let Found { socket, answer, .. } = found;
        let verdict = trust::judge(&self.in_use, &answer.as_view());
        if verdict != Verdict::Adopt {
            debug!(%socket, info = ?answer.info, ?verdict, "not a view to be used as it is");
        }
        verdict
    }

    /// The nodes of another cluster are asked as well, before it may take the place of the one in
    /// use: one witness is not enough.
    fn ask_others(&self, evidence: &Evidence, queue: &mut VecDeque<Candidate>) {
        let answer = evidence.answers.last().map(|(found, _)| &found.answer.snapshot);
        let nodes = answer.into_iter().flat_map(|snapshot| &snapshot.nodes).take(MAX_OBJECTIONS);
        let candidate = |node: &crate::cluster::Node| {
            Some(Candidate::Node(node.socket?, node.server_name().to_owned()))
        };
        queue.extend(nodes.filter_map(candidate));
    }

    /// An answer of a node in state ok that another one confirms need not wait for more of them.
    fn confirmed(&self, evidence: &Evidence) -> Option<usize> {
        let (i, _) = trust::decide(&self.in_use, &evidence.views(), &RoundEnd::default())?;
        let (found, _) = evidence.answers.get(i)?;
        found.answer.info.state_ok.then_some(i)
    }

    /// The end of a round in which no view could be used as it is.
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
                Verdict::Reject(reason) => (reason.label(), reason.to_string()),
                Verdict::NeedWitness(doubt) => {
                    (Reason::LABELS - 1, format!("{doubt}, which no other node confirms"))
                }
                Verdict::Adopt => continue,
            };
            count(self.refused, label);
            errors.push(format!("{}: its view {why}", found.socket));
            // The connection is as good as any, except to another cluster.
            if verdict != Verdict::Reject(Reason::Foreign) {
                self.connections.insert(found.socket, found.conn);
            }
        }
        Err(NoTopology::asked(errors))
    }

    /// The end of the first round.
    fn first(self, evidence: Evidence) -> Result<Found, NoTopology> {
        let chosen = trust::first(&evidence.views());
        match chosen {
            Ok(Some(i)) => self.taken(evidence, i, Rule::Continued),
            Ok(None) => Err(NoTopology::asked(evidence.errors)),
            Err(trust::Disagreement(a, b)) => {
                count(self.refused, Reason::Foreign.label());
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

    /// The answer at `index` is taken. What was rejected meanwhile is counted.
    fn taken(self, evidence: Evidence, index: usize, rule: Rule) -> Result<Found, NoTopology> {
        let mut taken = None;
        let epoch = trust::confirmed_epoch(&evidence.views(), index);
        for (i, (found, verdict)) in evidence.answers.into_iter().enumerate() {
            if i == index {
                taken = Some(Found { rule, epoch, ..found });
                continue;
            }
            if let Verdict::Reject(reason) = verdict {
                count(self.refused, reason.label());
            }
            if verdict != Verdict::Reject(Reason::Foreign) {
                self.connections.insert(found.socket, found.conn);
            }
        }
        taken.ok_or(NoTopology::NoSeeds)
    }

    /// Asks the next one who was not asked yet, if there is one.
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
                    let (config, tls) = (Arc::clone(self.config), Arc::clone(self.tls));
                    steps.spawn(ask_node(kept, socket, name, config, tls));
                }
                Candidate::Node(..) => continue,
                Candidate::Name(host, port) => {
                    let limit = self.config.timeouts.connect;
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

fn count(refused: &mut [u64; Reason::LABELS], label: usize) {
    if let Some(count) = refused.get_mut(label) {
        *count += 1;
    }
}

/// Whether a view in state ok has all nodes that the seeds lead to, so that none of them can name
/// another cluster.
fn covers_all(
    evidence: &Evidence,
    queue: &VecDeque<Candidate>,
    tried: &HashSet<SocketAddr>,
    seeds: usize,
) -> bool {
    let whole = |found: &&(Found, Verdict)| {
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

/// Why a round has found no topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoTopology {
    /// No node is known, and none is configured.
    #[error("there is nobody to ask: no seeds")]
    NoSeeds,
    /// Everyone was asked in vain: each with the reason.
    #[error("{0}")]
    InVain(String),
    /// The seeds are of two clusters.
    #[error(
        "the seeds name two clusters, and nothing tells which one is meant: {0} and {1}; correct \
         seeds"
    )]
    TwoClusters(String, String),
}

impl NoTopology {
    /// Everyone was asked in vain. The first few are named: with a thousand nodes the reasons
    /// repeat.
    fn asked(mut errors: Vec<String>) -> NoTopology {
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

/// A seed's name has no address.
#[derive(Debug, thiserror::Error)]
enum Unresolved {
    #[error("{0} does not resolve: {1}")]
    Failed(String, std::io::Error),
    #[error("{0} does not resolve: DNS does not answer")]
    Silent(String),
}

async fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, Unresolved> {
    match timeout(limit, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(Unresolved::Failed(host.to_owned(), error)),
        Err(_) => Err(Unresolved::Silent(host.to_owned())),
    }
}

/// A kept connection may have died of old age, which says nothing about its node.
async fn ask_node(
    kept: Option<NodeConn>,
    socket: SocketAddr,
    name: String,
    config: Arc<Config>,
    tls: Arc<Tls>,
) -> Step {
    if let Some(mut conn) = kept
        && let Ok(answer) = conn.topology().await
    {
        return Step::Asked(socket, Ok((conn, answer)));
    }
    let fresh = async {
        let mut conn = NodeConn::connect(socket, &name, "", &config, &tls).await?;
        let answer = conn.topology().await?;
        Ok((conn, answer))
    };
    Step::Asked(socket, fresh.await)
}
