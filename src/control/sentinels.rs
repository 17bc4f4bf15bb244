//! Subscriptions at the Sentinels: whatever they say of the server makes the refresher look.
//!
//! A message is a hint and nothing else: what it says is asked again, as anybody who may publish at
//! a Sentinel could say it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use super::node::{AskError, NodeConn};
use super::pool::Pool;
use super::requests::Requests;
use super::round::resolve;
use crate::backoff::Backoff;
use crate::config::{Address, UpstreamKind};

/// How often the seeds of the configuration are compared with the Sentinels that are listened to.
const SEEDS_INTERVAL: Duration = Duration::from_secs(5);
/// A Sentinel that says nothing for so long is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(15);
/// Pauses between attempts to reach a Sentinel.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What is said when a primary, a replica or a failover changes.
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

/// The task that listens to the Sentinels.
pub struct SentinelWatcher {
    pool: Arc<Pool>,
    requests: Arc<Requests>,
}

impl SentinelWatcher {
    /// A watcher that asks for refreshes by `requests`.
    pub fn new(pool: Arc<Pool>, requests: Arc<Requests>) -> Self {
        SentinelWatcher { pool, requests }
    }

    /// Runs until it is dropped; ends at once where there are no Sentinels.
    pub async fn run(self) {
        if self.pool.config().upstream.kind != UpstreamKind::Sentinel {
            return;
        }
        let mut listeners = JoinSet::new();
        let mut heard: HashMap<String, AbortHandle> = HashMap::new();
        loop {
            let seeds = self.pool.config().seeds.clone();
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
                    listeners.spawn(listen(seed, pool, requests))
                });
            }
            tokio::time::sleep(SEEDS_INTERVAL).await;
            while listeners.try_join_next().is_some() {}
        }
    }
}

/// Listens to one Sentinel, and connects to it again and again.
async fn listen(seed: Address, pool: Arc<Pool>, requests: Arc<Requests>) {
    let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut failures = 0;
    loop {
        match subscribe(&seed, &pool).await {
            Ok(mut conn) => {
                let since = Instant::now();
                // What was said before is not heard any more.
                requests.topology(None);
                let error = hear(&mut conn, &requests).await;
                // Before, it may be one that closes each connection.
                if since.elapsed() > LONGEST_PAUSE {
                    failures = 0;
                }
                debug!(sentinel = %seed, %error, "a Sentinel is not heard any more");
            }
            Err(error) => debug!(sentinel = %seed, error, "a Sentinel cannot be listened to"),
        }
        failures += 1;
        tokio::time::sleep(Duration::from_micros(backoff.pause(failures))).await;
    }
}

async fn subscribe(seed: &Address, pool: &Pool) -> Result<NodeConn, String> {
    let config = pool.config();
    let sockets = resolve(&seed.host, seed.port, config.timeouts.connect).await;
    let mut last = "no address".to_owned();
    for socket in sockets.map_err(|error| error.to_string())? {
        let conn = NodeConn::connect_to_sentinel(socket, &seed.host, &config, pool.tls()).await;
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

/// Hears messages until the connection is lost.
async fn hear(conn: &mut NodeConn, requests: &Requests) -> AskError {
    loop {
        match conn.message(SILENCE).await {
            Ok(true) => requests.topology(None),
            Ok(false) => {}
            Err(error) => return error,
        }
    }
}
