//! One round of asking: who answers first with a view that can be trusted.
//!
//! Nodes are asked one after the other, but nobody waits for a dead one: if an answer takes longer
//! than [`PATIENCE`] the next is asked beside it. A view is trusted if its node is in state ok and
//! has heard of every epoch that slotway has heard of; a node that is cut off, or that comes back
//! from a long sleep, would roll the view back. Such views are taken only if nobody has better.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::node::{Answer, AskError, NodeConn};
use crate::config::Config;
use crate::tls::Tls;

/// How long one node is waited for before the next is asked, too.
const PATIENCE: Duration = Duration::from_millis(200);
/// When so many nodes have no trusted view, it is the cluster, not the nodes.
const ENOUGH: usize = 5;

/// Someone to ask.
#[derive(Debug)]
pub enum Candidate {
    /// A node by its address, and its name.
    Node(SocketAddr, String),
    /// A seed or a hint, by IP address or DNS name, resolved when its turn comes.
    Name(String, u16),
}

/// The answer that was taken, and the connection that it came on.
#[derive(Debug)]
pub struct Found {
    pub socket: SocketAddr,
    pub conn: NodeConn,
    pub answer: Answer,
}

/// What one round knows.
pub struct Round<'a> {
    pub config: &'a Arc<Config>,
    pub tls: &'a Arc<Tls>,
    /// Kept connections; taken from and given back to.
    pub connections: &'a mut HashMap<SocketAddr, NodeConn>,
    /// Epoch of the view in use.
    pub epoch: u64,
    /// There is a view in use: one that knows no slots does not replace it.
    pub known: bool,
}

/// What a task of a round brings back.
#[allow(clippy::large_enum_variant)] // a handful of them at a time
enum Step {
    Asked(SocketAddr, Result<(NodeConn, Answer), AskError>),
    /// With the name that was resolved.
    Resolved(String, Result<Vec<SocketAddr>, String>),
}

impl Round<'_> {
    /// Asks until a view can be trusted. The error names everyone who was asked in vain.
    pub async fn ask(mut self, candidates: Vec<Candidate>) -> Result<Found, String> {
        let mut queue: VecDeque<Candidate> = candidates.into();
        let mut tried: HashSet<SocketAddr> = HashSet::new();
        let mut steps: JoinSet<Step> = JoinSet::new();
        let mut fallback: Option<Found> = None;
        let mut answers = 0;
        let mut errors: Vec<String> = Vec::new();
        while answers < ENOUGH {
            self.next_step(&mut queue, &mut tried, &mut steps);
            let step = tokio::select! {
                step = steps.join_next() => match step {
                    Some(Ok(step)) => step,
                    // A step that panicked; its bug is logged, the others go on.
                    Some(Err(_)) => continue,
                    None => break,
                },
                () = sleep(PATIENCE), if !queue.is_empty() => continue,
            };
            match step {
                Step::Resolved(name, Ok(found)) => {
                    let nodes = found.into_iter().rev();
                    nodes.for_each(|s| queue.push_front(Candidate::Node(s, name.clone())));
                }
                Step::Resolved(_, Err(error)) => errors.push(error),
                Step::Asked(socket, Ok((conn, answer))) => {
                    answers += 1;
                    let found = Found { socket, conn, answer };
                    if self.trusts(&found.answer) {
                        self.give_back(fallback);
                        return Ok(found);
                    }
                    debug!(%socket, info = ?found.answer.info, "not trusted unless nobody has better");
                    fallback = Some(self.better(fallback, found));
                }
                Step::Asked(socket, Err(error)) => {
                    debug!(%socket, %error, "no topology from this node");
                    errors.push(format!("{socket}: {error}"));
                }
            }
        }
        match fallback {
            Some(found) if !self.known || found.answer.snapshot.slots_covered() > 0 => Ok(found),
            Some(found) => {
                errors.push(format!("{}: knows no slots", found.socket));
                Err(told(errors))
            }
            None => Err(told(errors)),
        }
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
                        Step::Resolved(host, found)
                    });
                }
            }
            return;
        }
    }

    fn trusts(&self, answer: &Answer) -> bool {
        answer.info.state_ok && answer.info.epoch >= self.epoch
    }

    /// The one of two untrusted views to take if nothing better comes.
    fn better(&self, a: Option<Found>, b: Found) -> Found {
        let Some(a) = a else { return b };
        let rank = |f: &Found| {
            let covers = f.answer.snapshot.slots_covered() > 0;
            (covers, f.answer.info.state_ok, f.answer.info.epoch)
        };
        if rank(&b) > rank(&a) { b } else { a }
    }

    fn give_back(self, unused: Option<Found>) {
        if let Some(Found { socket, conn, .. }) = unused {
            self.connections.insert(socket, conn);
        }
    }
}

/// Everyone asked in vain, the first few of them: with a thousand nodes the reasons repeat.
fn told(mut errors: Vec<String>) -> String {
    const SHOWN: usize = 6;
    if errors.is_empty() {
        return "there is nobody to ask: no seeds".to_owned();
    }
    errors.sort();
    let more = errors.len().saturating_sub(SHOWN);
    errors.truncate(SHOWN);
    if more > 0 {
        errors.push(format!("and {more} more"));
    }
    errors.join("; ")
}

async fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    match timeout(limit, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(format!("{host} does not resolve: {error}")),
        Err(_) => Err(format!("{host} does not resolve: DNS does not answer")),
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
        let mut conn = NodeConn::connect(socket, &name, &config, &tls).await?;
        let answer = conn.topology().await?;
        Ok((conn, answer))
    };
    Step::Asked(socket, fresh.await)
}
