//! Probes of nodes that owe a worker a reply and are silent.
//!
//! The silent connection itself does not tell why. A node that runs a long script answers nobody,
//! nor does a frozen one, while their kernels accept new connections; a node that the network has
//! lost accepts none; and if a firewall has dropped the state of a connection, the node answers on
//! others. So the control thread probes on a new connection, once for all workers, and tells them
//! the result. The refresher then watches what the cluster thinks of the node
//! ([`super::Requests::silent`]).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::pool::Pool;
use super::requests::AllRequests;
use super::wire::{Wire, WireError};
use crate::cluster::UpstreamId;
use crate::mailbox::{ProbeResult, Probed, ToWorker};
use crate::tls::Tls;

/// Limit on the time to connect; the node is probed again later.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// Limit on the time to answer PING, the TLS handshake included.
const PING_LIMIT: Duration = Duration::from_millis(500);
/// Limit on simultaneous probes; workers ask again for further nodes.
const MAX_PROBES: usize = 256;

/// Probes silent nodes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prober {
    pool: Arc<Pool>,
    requests: AllRequests,
    under_way: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Prober {
    /// A prober that reports to the workers of `pool` and to the refreshers.
    pub fn new(pool: Arc<Pool>, requests: AllRequests) -> Self {
        Prober { pool, requests, under_way: Arc::default() }
    }

    /// Probes `node` and tells all workers the result; does nothing while it is being probed.
    pub fn probe(&self, node: SocketAddr) {
        {
            let mut under_way = self.under_way();
            if under_way.len() >= MAX_PROBES || !under_way.insert(node) {
                return;
            }
        }
        let prober = self.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            let upstream = prober.pool.upstream_of(node);
            let guard = ProbeGuard(&prober, node);
            let limit = prober.pool.config().timeouts.connect;
            let result = match upstream {
                Some(upstream) => {
                    let (name, tls) = (prober.pool.server_name(node), prober.pool.tls());
                    ask(node, &name, (upstream, tls), limit).await
                }
                None => reach(node, limit).await,
            };
            drop(guard);
            debug!(%node, ?result, "a silent node was probed");
            // A node that has left the topology is nobody's to watch.
            if let Some(upstream) = upstream.filter(|_| result != ProbeResult::Answers) {
                prober.requests.silent(upstream, node);
            }
            prober.pool.tell_probed(Probed { node, verdict: result, begun });
        });
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<SocketAddr>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A probe in progress; dropped when it ends, also by a panic.
struct ProbeGuard<'a>(&'a Prober, SocketAddr);

impl Drop for ProbeGuard<'_> {
    fn drop(&mut self) {
        self.0.under_way().remove(&self.1);
    }
}

impl Pool {
    fn tell_probed(&self, probed: Probed) {
        self.tell(|| ToWorker::Probed(probed));
    }
}

/// Whether a node that is in no topology any more can be connected to: with which upstream's TLS it
/// would have to be asked is not known.
async fn reach(node: SocketAddr, limit: Duration) -> ProbeResult {
    match connect(node, limit).await {
        Some(_) => ProbeResult::Accepts,
        None => ProbeResult::Unreachable,
    }
}

/// A new connection to the node; `None`: it cannot be made.
async fn connect(node: SocketAddr, limit: Duration) -> Option<TcpStream> {
    // The kernel repeats a SYN after a second; a new attempt notices sooner that the network is
    // back.
    let limit = limit.min(CONNECT_LIMIT);
    timeout(limit, TcpStream::connect(node)).await.ok()?.ok()
}

async fn ask(
    node: SocketAddr,
    name: &str,
    (upstream, tls): (UpstreamId, &Arc<Tls>),
    limit: Duration,
) -> ProbeResult {
    let Some(stream) = connect(node, limit).await else { return ProbeResult::Unreachable };
    let ping = async {
        let mut wire = Wire::over(stream, name, upstream, tls).await?;
        wire.write_all(b"PING\r\n").await?;
        wire.reply().await
    };
    match timeout(PING_LIMIT, ping).await {
        // Any answer is one: a password is required, there are too many clients.
        Ok(Ok(_) | Err(WireError::NotResp(_) | WireError::TooLarge)) => ProbeResult::Answers,
        Ok(Err(WireError::Io(_))) | Err(_) => ProbeResult::Accepts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_has_left_is_only_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap();
        assert_eq!(reach(node, CONNECT_LIMIT).await, ProbeResult::Accepts);
        drop(listener);
        assert_eq!(reach(node, CONNECT_LIMIT).await, ProbeResult::Unreachable);
    }
}
