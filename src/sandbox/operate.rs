//! Operations of an administrator: moving slots, failing over, adding and removing nodes.

use super::cluster::{Cluster, SETTLE_TIMEOUT};
use super::server::{self, PAUSE};
use super::unmet::Unmet;
use super::view::Node;
use super::{Error, Result};
use crate::cluster::Slot;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Maximum number of keys in one MIGRATE, as in redis-cli's reshard.
const MIGRATE_BATCH: usize = 10;
/// Time after which a manual failover is requested again. The server silently abandons one that has
/// not succeeded within its own limit (5 s).
const FAILOVER_RETRY: Duration = Duration::from_secs(6);

impl Cluster {
    /// Moves `slot` with all its keys, as redis-cli's reshard does. Returns the number of keys.
    pub fn move_slot(&self, slot: Slot, from: &Node, to: &Node) -> Result<usize> {
        self.begin_move(slot, from, to)?;
        let mut moved = 0;
        loop {
            match self.move_keys(slot, from, to, MIGRATE_BATCH)? {
                0 => break,
                keys => moved += keys,
            }
        }
        self.finish_move(slot, from, to)?;
        Ok(moved)
    }

    /// The first step of [`Cluster::move_slot`]: from now on the old owner answers ASK for keys
    /// that it does not have.
    pub fn begin_move(&self, slot: Slot, from: &Node, to: &Node) -> Result<()> {
        let slot = slot.0.to_string();
        self.ask(to.addr, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id])?;
        self.ask(from.addr, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id])?;
        Ok(())
    }

    /// The second step, to be repeated: moves at most `limit` keys and returns their number.
    pub fn move_keys(&self, slot: Slot, from: &Node, to: &Node, limit: usize) -> Result<usize> {
        let (slot, limit) = (slot.0.to_string(), limit.to_string());
        let keys = self.ask(from.addr, &["CLUSTER", "GETKEYSINSLOT", &slot, &limit])?;
        let keys: Vec<&[u8]> = keys.items().unwrap_or_default().iter().filter_map(bytes).collect();
        if keys.is_empty() {
            return Ok(0);
        }
        let port = to.addr.port().to_string();
        let mut migrate: Vec<&[u8]> =
            vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", b"60000"];
        if let Some(password) = self.password() {
            migrate.extend([b"AUTH", password.as_bytes()]);
        }
        migrate.push(b"KEYS");
        migrate.extend(&keys);
        self.ask(from.addr, &migrate)?;
        Ok(keys.len())
    }

    /// The last step: makes `to` the owner. The new owner is told first (it takes a new epoch),
    /// then the old one, then the other primaries.
    pub fn finish_move(&self, slot: Slot, from: &Node, to: &Node) -> Result<()> {
        self.wait_for_epoch(to, from)?;
        let others = self.primaries()?.into_iter().map(|node| node.addr);
        let others = others.filter(|addr| *addr != from.addr && *addr != to.addr);
        let running: Vec<SocketAddr> =
            self.members.running().into_iter().map(|(_, addr)| addr).collect();
        let slot = slot.0.to_string();
        for addr in [to.addr, from.addr].into_iter().chain(others.filter(|a| running.contains(a))) {
            self.ask(addr, &["CLUSTER", "SETSLOT", &slot, "NODE", &to.id])?;
        }
        Ok(())
    }

    /// Waits until `node` knows the current epoch of `other`.
    ///
    /// The epoch that a node takes with a slot is the largest that it knows, plus one. If that is
    /// the old owner's epoch, the old owner takes a larger one, with which it claims the slot back,
    /// and is then told that it has lost the slot: in the end each says for ever that the other
    /// owns it.
    fn wait_for_epoch(&self, node: &Node, other: &Node) -> Result<()> {
        let epoch = |addr: SocketAddr| -> std::result::Result<u64, Unmet> {
            let lines = self.checks().lines(addr)?;
            let line = lines.iter().find(|line| line.id == other.id);
            line.map(|line| line.epoch).ok_or(Unmet::Stranger { addr, other: other.addr })
        };
        self.wait("waiting for a node to hear of another's epoch", &mut (), || {
            let (known, current) = (epoch(node.addr)?, epoch(other.addr)?);
            if known >= current { Ok(()) } else { Err(Unmet::OldEpoch { known, current }) }
        })
    }

    /// CLUSTER FAILOVER: `replica` and its primary exchange roles without loss of data. Returns
    /// when the cluster is settled again.
    pub fn failover(&self, replica: &Node) -> Result<()> {
        let mut asked: Option<Instant> = None;
        self.wait("waiting for the failover", &mut (), || {
            if asked.is_none_or(|at| at.elapsed() > FAILOVER_RETRY) && !self.is_primary(replica)? {
                asked = Some(Instant::now());
                // Refused while the primary is unreachable: try again.
                self.ask(replica.addr, &["CLUSTER", "FAILOVER"]).inspect_err(|_| asked = None)?;
            }
            if self.is_primary(replica)? { Ok(()) } else { Err(Unmet::NotPrimary) }
        })?;
        self.settle()
    }

    /// Whether `node` calls itself a primary.
    fn is_primary(&self, node: &Node) -> Result<bool> {
        let role = self.ask(node.addr, &["ROLE"])?;
        let role = role.items().and_then(|items| items.first()?.text());
        Ok(role.as_deref() == Some("master"))
    }

    /// Starts another node: a replica of `primary`, or a primary without slots. Returns when the
    /// cluster is settled again.
    pub fn add_node(&self, primary: Option<&Node>) -> Result<Node> {
        let before = self.members.running();
        self.spawn(1, &mut ())?;
        let Some((id, addr)) = self.members.running().pop() else {
            return Err(Error::NewNodeEnded);
        };
        for (_, other) in &before {
            self.meet(*other, addr)?;
        }
        let count = before.len() + 1;
        self.wait("waiting for the new node to be known", &mut (), || self.checks().known(count))?;
        if let Some(primary) = primary {
            self.ask(addr, &["CLUSTER", "REPLICATE", &primary.id])?;
        }
        self.settle()?;
        self.node(&id)
    }

    /// Kills a node that owns no slots and makes all others forget it.
    pub fn remove_node(&self, node: &Node) -> Result<()> {
        if self.node(&node.id)?.slot_count() > 0 {
            return Err(Error::OwnsSlots(node.addr));
        }
        self.kill(node)?;
        self.members.lock().retain(|member| member.id != node.id);
        for (_, addr) in self.members.running() {
            self.ask(addr, &["CLUSTER", "FORGET", &node.id])?;
        }
        Ok(())
    }

    /// Waits until `replica` has received all that its primary has written so far. For tests that
    /// write and then read from replicas or kill the primary.
    pub fn catch_up(&self, replica: &Node) -> Result<()> {
        let Some(primary) = self.node(&replica.id)?.primary else {
            return Err(Error::NotReplica(replica.addr));
        };
        let offset = |addr: SocketAddr, field: &str| -> Result<i64> {
            let info = self.ask(addr, &["INFO", "replication"])?.text().unwrap_or_default();
            Ok(server::info_field(&info, field).and_then(|n| n.parse().ok()).unwrap_or(-1))
        };
        let wanted = offset(self.node(&primary)?.addr, "master_repl_offset")?;
        let since = Instant::now();
        while offset(replica.addr, "slave_repl_offset")? < wanted {
            if since.elapsed() > SETTLE_TIMEOUT {
                return Err(Error::Deadline {
                    what: format!("waiting for replica {} to catch up", replica.addr),
                    within: SETTLE_TIMEOUT,
                    reason: Box::new(Unmet::BehindOffset(wanted)),
                    log: String::new(),
                });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn bytes(reply: &super::Reply) -> Option<&[u8]> {
    if let super::Reply::Bulk(bytes) = reply { Some(bytes) } else { None }
}
