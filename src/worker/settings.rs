//! What a worker needs of the configuration, in the units it counts in.

use crate::config::{Config, CrossSlot};
use crate::resp::RequestLimits;

#[derive(Debug)]
pub(super) struct Settings {
    pub user: String,
    pub password: String,
    pub client_name: String,
    /// Shared connections per node and protocol.
    pub connections: usize,
    /// Microseconds; `None` is no deadline.
    pub command_timeout: Option<u64>,
    pub connect_timeout: u64,
    pub idle_timeout: Option<u64>,
    pub reconnect_min: u64,
    pub reconnect_max: u64,
    pub client_output: usize,
    pub upstream_in_flight: usize,
    /// This worker's share of `limits.memory`.
    pub memory: usize,
    /// This worker's share of `limits.held`.
    pub held: usize,
    pub request: RequestLimits,
    /// `limits.dedicated`, of all workers.
    pub dedicated: usize,
    /// `transactions.cross_slot` is "split".
    pub split_transactions: bool,
    /// For error texts: the configured values.
    pub memory_total: usize,
}

impl Settings {
    pub fn new(config: &Config) -> Self {
        let workers = config.workers.count().max(1);
        let micros = |d: std::time::Duration| d.as_micros() as u64;
        Settings {
            user: config.upstream.user.clone(),
            password: config.upstream.password.reveal().to_owned(),
            client_name: config.upstream.client_name.clone(),
            connections: config.upstream.connections.max(1),
            command_timeout: config.timeouts.command.map(micros),
            connect_timeout: micros(config.timeouts.connect),
            idle_timeout: config.timeouts.idle.map(micros),
            reconnect_min: micros(config.reconnect.min),
            reconnect_max: micros(config.reconnect.max),
            client_output: config.limits.client_output,
            upstream_in_flight: config.limits.upstream_in_flight,
            memory: config.limits.memory / workers,
            held: config.limits.held / workers,
            request: RequestLimits {
                bulk: config.limits.bulk as u64,
                inline: config.limits.inline,
                multibulk: config.limits.multibulk as u64,
            },
            dedicated: config.limits.dedicated,
            split_transactions: config.transactions.cross_slot == CrossSlot::Split,
            memory_total: config.limits.memory,
        }
    }
}

/// The error at `limits.memory`.
pub(super) fn out_of_memory(settings: &Settings) -> String {
    format!(
        "OOM slotway's buffers are full: limits.memory = {} bytes over all workers; try again, or \
         raise it",
        settings.memory_total
    )
}
