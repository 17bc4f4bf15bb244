//! Subscriptions at the Sentinels: each event about a server causes a topology refresh.
//!
//! A message is only a hint, and its content is not used: anybody who may publish at a Sentinel can
//! send one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use super::node::{Access, AskError, NodeConn};
use super::pool::Pool;
use super::requests::Requests;
use super::round::resolve;
use crate::backoff::Backoff;
use crate::cluster::UpstreamId;
use crate::config::{Address, UpstreamKind};

/// Interval at which the subscriptions are compared with the configured seeds.
const SEEDS_INTERVAL: Duration = Duration::from_secs(5);
/// Time without a message after which a Sentinel is sent PING.
const SILENCE: Duration = Duration::from_secs(15);
/// Pause after the first failed attempt to reach a Sentinel.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between attempts to reach a Sentinel.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Channels of events about primaries, replicas and failovers.
const EVENTS: [&str; 10] = [
    "+switch-master",
    "+slave",
    "+sdown",
    "-sdown",
    "+odown",
    "-odown",
    "+failover-end",
    "+promoted-slave",
    "+convert-to-slave",
    "+role-change",
];

/// The task that subscribes at the Sentinels.
pub struct SentinelWatcher {
    upstream: UpstreamId,
    pool: Arc<Pool>,
    requests: Arc<Requests>,
}

impl SentinelWatcher {
    /// A watcher of the Sentinels of an upstream that sends its requests for refreshes to `requests`.
    pub fn new(upstream: UpstreamId, pool: Arc<Pool>, requests: Arc<Requests>) -> Self {
        SentinelWatcher { upstream, pool, requests }
    }

    /// Runs until it is dropped. Returns at once if the upstream has no Sentinels.
    pub async fn run(self) {
        if self.pool.config_of(self.upstream).upstream.kind != UpstreamKind::Sentinel {
            return;
        }
        let mut listeners = JoinSet::new();
        let mut heard: HashMap<String, AbortHandle> = HashMap::new();
        loop {
            let seeds = self.pool.config_of(self.upstream).seeds.clone();
            heard.retain(|name, listener| {
                let stays = seeds.iter().any(|seed| seed.to_string() == *name);
                if !stays {
                    listener.abort();
                }
                stays && !listener.is_finished()
            });
            for seed in seeds {
                heard.entry(seed.to_string()).or_insert_with(|| {
                    let (pool, requests) = (Arc::clone(&self.pool), Arc::clone(&self.requests));
                    listeners.spawn(listen(seed, self.upstream, pool, requests))
                });
            }
            tokio::time::sleep(SEEDS_INTERVAL).await;
            while listeners.try_join_next().is_some() {}
        }
    }
}

/// Stays subscribed at one Sentinel, reconnecting with back-off.
async fn listen(seed: Address, upstream: UpstreamId, pool: Arc<Pool>, requests: Arc<Requests>) {
    let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut failures = 0;
    loop {
        match subscribe(&seed, pool.access(upstream)).await {
            Ok(mut conn) => {
                let since = Instant::now();
                // Events before the subscription have been missed.
                requests.topology(None);
                let error = hear(&mut conn, &requests).await;
                // A Sentinel that closes each connection early does not reset the back-off.
                if since.elapsed() > LONGEST_PAUSE {
                    failures = 0;
                }
                debug!(sentinel = %seed, %error, "the subscription at a Sentinel is lost");
            }
            Err(error) => {
                debug!(sentinel = %seed, error, "the subscription at a Sentinel has failed")
            }
        }
        failures += 1;
        tokio::time::sleep(Duration::from_micros(backoff.pause(failures))).await;
    }
}

/// A connection to a Sentinel with a subscription to [`EVENTS`].
async fn subscribe(seed: &Address, access: Access) -> Result<NodeConn, String> {
    let sockets = resolve(&seed.host, seed.port, access.config.timeouts.connect).await;
    let mut last = "no address".to_owned();
    for socket in sockets.map_err(|error| error.to_string())? {
        let conn = NodeConn::connect_to_sentinel(socket, &seed.host, &access).await;
        let subscribed = match conn {
            Ok(mut conn) => conn.subscribe(&EVENTS).await.map(|()| conn),
            Err(error) => Err(error),
        };
        match subscribed {
            Ok(conn) => return Ok(conn),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Requests a refresh for each event until the connection is lost. Returns the error.
async fn hear(conn: &mut NodeConn, requests: &Requests) -> AskError {
    loop {
        match conn.message(SILENCE).await {
            Ok(true) => requests.topology(None),
            Ok(false) => {}
            Err(error) => return error,
        }
    }
}
