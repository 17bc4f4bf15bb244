//! Sums of the workers' counters.

use std::collections::BTreeMap;

use super::stats::{CommandStats, NodeStats, WorkerStats};
use crate::cluster::NodeAddr;

/// Sums of the counters of all workers: nodes by address, commands by id.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Commands of the command table, by id.
    pub commands: Vec<CommandStats>,
    /// Commands that are not in the table.
    pub unknown: CommandStats,
    /// Nodes, by address.
    pub nodes: BTreeMap<NodeAddr, NodeStats>,
    /// All other counters; its `commands` and `nodes` are empty.
    pub rest: WorkerStats,
}

impl Totals {
    /// Adds the counters of a worker.
    ///
    /// The last entry of `commands` counts unknown commands, whatever the length of the worker's
    /// command table: while a new table is distributed, tables of workers differ in length.
    pub fn add(&mut self, stats: &WorkerStats) {
        if let Some((unknown, known)) = stats.commands.split_last() {
            add_command(&mut self.unknown, unknown);
            self.add_commands(known);
        }
        for node in &stats.nodes {
            if let Some(addr) = &node.addr {
                add_node(self.nodes.entry(addr.clone()).or_default(), node);
            }
        }
        self.add_rest(stats);
    }

    /// Adds other totals.
    pub fn merge(&mut self, other: &Totals) {
        add_command(&mut self.unknown, &other.unknown);
        self.add_commands(&other.commands);
        for (addr, node) in &other.nodes {
            add_node(self.nodes.entry(addr.clone()).or_default(), node);
        }
        self.add_rest(&other.rest);
    }

    fn add_commands(&mut self, commands: &[CommandStats]) {
        if self.commands.len() < commands.len() {
            self.commands.resize(commands.len(), CommandStats::default());
        }
        for (sum, one) in self.commands.iter_mut().zip(commands) {
            add_command(sum, one);
        }
    }

    fn add_rest(&mut self, stats: &WorkerStats) {
        for (sum, one) in self.rest.latency.iter_mut().zip(&stats.latency) {
            sum.merge(one);
        }
        add_all(&mut self.rest.redirections, &stats.redirections);
        add_all(&mut self.rest.retries, &stats.retries);
        add_all(&mut self.rest.logins, &stats.logins);
        add_all(&mut self.rest.disconnected, &stats.disconnected);
        add_all(&mut self.rest.denied, &stats.denied);
        add_all(&mut self.rest.reads, &stats.reads);
        add_all(&mut self.rest.transactions, &stats.transactions);
        if self.rest.emulated.len() < stats.emulated.len() {
            self.rest.emulated.resize(stats.emulated.len(), Default::default());
        }
        for (sum, one) in self.rest.emulated.iter_mut().zip(&stats.emulated) {
            add_all(sum, one);
        }
        add_all(&mut self.rest.subscriptions, &stats.subscriptions);
        add_all(&mut self.rest.deliveries, &stats.deliveries);
        add_all(&mut self.rest.limits_hit, &stats.limits_hit);
        add_all(&mut self.rest.errors, &stats.errors);
        let sum = &mut self.rest;
        for (sum, one) in [
            (&mut sum.clients, stats.clients),
            (&mut sum.clients_resp3, stats.clients_resp3),
            (&mut sum.clients_paused, stats.clients_paused),
            (&mut sum.clients_accepted, stats.clients_accepted),
            (&mut sum.clients_closed, stats.clients_closed),
            (&mut sum.bytes_in, stats.bytes_in),
            (&mut sum.bytes_out, stats.bytes_out),
            (&mut sum.retry_budget_exhausted, stats.retry_budget_exhausted),
            (&mut sum.no_primary, stats.no_primary),
            (&mut sum.outcome_unknown, stats.outcome_unknown),
            (&mut sum.strangers, stats.strangers),
            (&mut sum.deadline_exceeded, stats.deadline_exceeded),
            (&mut sum.splits, stats.splits),
            (&mut sum.key_by_key, stats.key_by_key),
            (&mut sum.large_reply_waits, stats.large_reply_waits),
            (&mut sum.script_loads, stats.script_loads),
            (&mut sum.scripts_partial, stats.scripts_partial),
            (&mut sum.buffer_bytes, stats.buffer_bytes),
            (&mut sum.held, stats.held),
            (&mut sum.users, stats.users),
            (&mut sum.subscribers, stats.subscribers),
            (&mut sum.messages_dropped, stats.messages_dropped),
            (&mut sum.publish_waits, stats.publish_waits),
            (&mut sum.clients_blocked, stats.clients_blocked),
            (&mut sum.dedicated_lent, stats.dedicated_lent),
            (&mut sum.dedicated_idle, stats.dedicated_idle),
            (&mut sum.sampled, stats.sampled),
            (&mut sum.turns, stats.turns),
        ] {
            *sum += one;
        }
    }

    /// Adds the last counters of a worker that has ended: its counters remain in the sums, its
    /// gauges become 0, and its clients count as closed.
    pub fn add_ended(&mut self, stats: &WorkerStats) {
        let mut ended = stats.clone();
        ended.clients_closed += ended.clients;
        for gauge in [
            &mut ended.clients,
            &mut ended.clients_resp3,
            &mut ended.clients_blocked,
            &mut ended.dedicated_lent,
            &mut ended.dedicated_idle,
            &mut ended.buffer_bytes,
            &mut ended.held,
            &mut ended.users,
            &mut ended.subscribers,
        ] {
            *gauge = 0;
        }
        ended.subscriptions = Default::default();
        for node in &mut ended.nodes {
            node.connections_ready = 0;
            node.connections_connecting = 0;
            node.connections_backoff = 0;
            node.connections_aside = 0;
            node.in_flight = 0;
            node.in_flight_bytes = 0;
        }
        self.add(&ended);
    }
}

fn add_command(sum: &mut CommandStats, one: &CommandStats) {
    sum.ok += one.ok;
    sum.error += one.error;
    sum.refused += one.refused;
}

fn add_node(sum: &mut NodeStats, one: &NodeStats) {
    sum.latency.merge(&one.latency);
    for (sum, one) in [
        (&mut sum.connections_ready, one.connections_ready),
        (&mut sum.connections_connecting, one.connections_connecting),
        (&mut sum.connections_backoff, one.connections_backoff),
        (&mut sum.connections_aside, one.connections_aside),
        (&mut sum.in_flight, one.in_flight),
        (&mut sum.in_flight_bytes, one.in_flight_bytes),
        (&mut sum.connects, one.connects),
        (&mut sum.failures, one.failures),
        (&mut sum.bytes_sent, one.bytes_sent),
        (&mut sum.bytes_received, one.bytes_received),
    ] {
        *sum += one;
    }
}

fn add_all(sums: &mut [u64], ones: &[u64]) {
    for (sum, one) in sums.iter_mut().zip(ones) {
        *sum += one;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16, in_flight: u64, connects: u64) -> NodeStats {
        let addr = Some(NodeAddr { host: "h".into(), port });
        NodeStats { addr, in_flight, connects, ..NodeStats::default() }
    }

    fn command(ok: u64) -> CommandStats {
        CommandStats { ok, ..CommandStats::default() }
    }

    #[test]
    fn nodes_by_address_and_commands_by_id_whatever_the_lengths() {
        let older = WorkerStats {
            commands: vec![command(1), command(10)],
            nodes: vec![node(1, 2, 3), NodeStats::default(), node(2, 1, 1)],
            clients: 4,
            ..WorkerStats::default()
        };
        let newer = WorkerStats {
            commands: vec![command(5), command(7), command(100)],
            nodes: vec![node(2, 1, 1)],
            clients: 2,
            ..WorkerStats::default()
        };
        let mut totals = Totals::default();
        totals.add(&older);
        totals.add(&newer);
        assert_eq!(totals.commands, [command(6), command(7)]);
        assert_eq!(totals.unknown, command(110));
        assert_eq!(totals.nodes.len(), 2, "entries not in use are dropped");
        let second = totals.nodes.values().nth(1).unwrap();
        assert_eq!((second.in_flight, second.connects), (2, 2));
        assert_eq!(totals.rest.clients, 6);
    }

    #[test]
    fn an_ended_worker_leaves_its_counters_and_takes_its_gauges() {
        let stats = WorkerStats {
            nodes: vec![node(1, 2, 3)],
            clients: 4,
            clients_accepted: 9,
            clients_closed: 5,
            ..WorkerStats::default()
        };
        let mut totals = Totals::default();
        totals.add_ended(&stats);
        assert_eq!(totals.rest.clients, 0);
        assert_eq!(totals.rest.clients_accepted, 9);
        assert_eq!(totals.rest.clients_closed, 9);
        let node = totals.nodes.values().next().unwrap();
        assert_eq!((node.in_flight, node.connects), (0, 3));
    }
}
