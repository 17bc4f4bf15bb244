//! Looks at nodes that owe a worker an answer and say nothing.
//!
//! What silence means cannot be told from the connection that is silent. A node that runs a long
//! script answers nobody, nor does a frozen one; the kernels of both take new connections. A node
//! that the network has swallowed takes none. And a connection that something on the way has
//! forgotten is silent while its node answers others. So control asks on a connection of its own,
//! once for all workers, and tells them what it saw; what the cluster thinks of the node the
//! refresher finds out, which watches closely from then on ([`Requests::silent`]).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::pool::Pool;
use super::requests::Requests;
use super::wire::{Wire, WireError};
use crate::mailbox::{ProbeResult, Probed, ToWorker};
use crate::tls::Tls;

/// How long a node may take to accept a connection, at most; it is looked at again.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// How long a node that takes connections may think about PING.
const PING_LIMIT: Duration = Duration::from_millis(500);
/// So many nodes are looked at at the same time; of more the workers will ask again.
const MAX_PROBES: usize = 256;

/// The one who looks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prober {
    pool: Arc<Pool>,
    requests: Arc<Requests>,
    under_way: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Prober {
    /// Nothing is looked at before [`Prober::probe`].
    pub fn new(pool: Arc<Pool>, requests: Arc<Requests>) -> Self {
        Prober { pool, requests, under_way: Arc::default() }
    }

    /// Looks at `node` and tells all workers; nothing if it is being looked at already.
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
            let guard = ProbeGuard(&prober, node);
            let result = {
                let connect = prober.pool.config().timeouts.connect;
                let (name, tls) = (prober.pool.server_name(node), prober.pool.tls());
                ask(node, &name, tls, connect).await
            };
            drop(guard);
            debug!(%node, ?result, "a silent node was looked at");
            if result != ProbeResult::Answers {
                prober.requests.silent(node);
            }
            prober.pool.tell_probed(Probed { node, verdict: result, begun });
        });
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<SocketAddr>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look under way; over when this is dropped, however it ends.
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

async fn ask(node: SocketAddr, name: &str, tls: &Arc<Tls>, limit: Duration) -> ProbeResult {
    // The kernel repeats an attempt after a second: one that begins anew notices sooner that the
    // network is back.
    let limit = limit.min(CONNECT_LIMIT);
    let Ok(Ok(stream)) = timeout(limit, TcpStream::connect(node)).await else {
        return ProbeResult::Unreachable;
    };
    let ping = async {
        let mut wire = Wire::over(stream, name, tls).await?;
        wire.write_all(b"PING\r\n").await?;
        wire.reply().await
    };
    match timeout(PING_LIMIT, ping).await {
        // Any answer is one: a password is required, there are too many clients.
        Ok(Ok(_) | Err(WireError::NotResp(_) | WireError::TooLarge)) => ProbeResult::Answers,
        Ok(Err(WireError::Io(_))) | Err(_) => ProbeResult::Accepts,
    }
}
