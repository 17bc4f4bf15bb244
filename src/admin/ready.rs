//! Readiness: whether slotway can serve every slot, and the reasons if not. Pure.

use std::collections::BTreeMap;

use crate::cluster::{NodeAddr, Snapshot};
use crate::control::Unreached;
use crate::metrics::NodeStats;

/// The content of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether slotway is ready.
    pub ready: bool,
    /// Slots without a primary, as ranges.
    pub missing_slots: Vec<String>,
    /// Addresses of unreachable primaries that have slots, and the reasons.
    pub unreachable: BTreeMap<String, String>,
    /// Reasons why slotway is not ready.
    pub reasons: Vec<String>,
}

/// The facts that readiness depends on.
#[derive(Debug)]
pub struct ReadinessInputs<'a> {
    pub draining: bool,
    pub workers: usize,
    pub snapshot: &'a Snapshot,
    /// Error of the last topology refresh.
    pub error: Option<&'a str>,
    /// The workers' counters for nodes.
    pub nodes: &'a BTreeMap<NodeAddr, NodeStats>,
    /// Results of the topology refresh's own connections to nodes.
    pub reached: &'a BTreeMap<NodeAddr, Result<(), Unreached>>,
}

impl Readiness {
    /// Determines readiness.
    pub fn of(facts: &ReadinessInputs) -> Self {
        let mut reasons = Vec::new();
        if facts.draining {
            reasons.push("draining: slotway was told to stop".to_owned());
        }
        if facts.workers == 0 {
            reasons.push("no worker runs".to_owned());
        }
        let known = facts.snapshot.generation > 0;
        if !known {
            reasons.push("the topology is not known: no seed has answered yet".to_owned());
        }
        // With a known topology, a failed refresh is no reason to turn clients away: the topology
        // may well be unchanged.
        if let (false, Some(error)) = (known, facts.error) {
            reasons.push(error.to_owned());
        }
        let missing_slots: Vec<String> = if known {
            facts.snapshot.missing_slots().iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        };
        if !missing_slots.is_empty() {
            reasons.push("slots without a primary".to_owned());
        }
        let mut unreachable = BTreeMap::new();
        for node in facts.snapshot.slot_primaries() {
            if let Some(why) = unreached(&node.addr, facts) {
                unreachable.insert(node.addr.to_string(), why);
            }
        }
        if !unreachable.is_empty() {
            reasons.push("primaries that cannot be reached".to_owned());
        }
        Readiness { ready: reasons.is_empty(), missing_slots, unreachable, reasons }
    }

    /// The body of `/readyz`.
    pub fn json(&self) -> String {
        serde_json::json!({
            "ready": self.ready,
            "reasons": self.reasons,
            "missing_slots": self.missing_slots,
            "unreachable": self.unreachable,
        })
        .to_string()
    }
}

/// Why a node is unreachable; `None` if it is reachable. The workers' connections decide; if no
/// worker has tried (they connect on demand), the topology refresh's connection does.
fn unreached(addr: &NodeAddr, facts: &ReadinessInputs) -> Option<String> {
    if let Some(stats) = facts.nodes.get(addr) {
        if stats.connections_ready > 0 {
            return None;
        }
        if stats.connections_backoff > 0 {
            return Some("workers cannot connect to it".to_owned());
        }
    }
    match facts.reached.get(addr) {
        Some(Ok(())) => None,
        Some(Err(why)) => Some(why.to_string()),
        None => Some("not tried yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::parse_shards;

    fn snapshot(reply: &[u8]) -> Snapshot {
        let asked = NodeAddr { host: "h".into(), port: 1 };
        Snapshot { generation: 1, ..parse_shards(reply, &asked).unwrap() }
    }

    fn addr(port: u16) -> NodeAddr {
        NodeAddr { host: "127.0.0.1".into(), port }
    }

    const HEALTHY: &[u8] = include_bytes!("../cluster/captured/shards.resp2");
    const FAILED: &[u8] = include_bytes!("../cluster/captured/shards_failed.resp2");

    #[test]
    fn all_slots_covered_and_reached() {
        let snapshot = snapshot(HEALTHY);
        let mut reached: BTreeMap<_, _> =
            [27110, 27111, 27112].map(|p| (addr(p), Ok(()))).into_iter().collect();
        let nodes = BTreeMap::new();
        let judge = |reached: &_, nodes: &_, draining| {
            let (snapshot, workers, error) = (&snapshot, 1, Some("a refresh failed"));
            Readiness::of(&ReadinessInputs { draining, workers, snapshot, error, nodes, reached })
        };
        assert!(judge(&reached, &nodes, false).ready);
        assert!(!judge(&reached, &nodes, true).ready);
        assert!(!judge(&BTreeMap::new(), &nodes, false).ready, "not tried is not reached");

        reached.insert(addr(27111), Err(Unreached::Asked("no route".to_owned())));
        let readiness = judge(&reached, &nodes, false);
        assert!(!readiness.ready);
        assert_eq!(readiness.unreachable["127.0.0.1:27111"], "no route");
        assert!(readiness.json().contains(r#""127.0.0.1:27111":"no route""#));

        // A worker has a connection nevertheless.
        let stats = NodeStats { connections_ready: 1, ..NodeStats::default() };
        assert!(judge(&reached, &BTreeMap::from([(addr(27111), stats)]), false).ready);
        // The topology refresh reaches it, the workers do not.
        let stats = NodeStats { connections_backoff: 1, ..NodeStats::default() };
        assert!(!judge(&reached, &BTreeMap::from([(addr(27110), stats)]), false).ready);
    }

    #[test]
    fn missing_slots_are_named() {
        let snapshot = snapshot(FAILED);
        let reached = [27110, 27112].map(|p| (addr(p), Ok(()))).into_iter().collect();
        let (nodes, error) = (BTreeMap::new(), None);
        let facts = ReadinessInputs {
            draining: false,
            workers: 1,
            snapshot: &snapshot,
            error,
            nodes: &nodes,
            reached: &reached,
        };
        let readiness = Readiness::of(&facts);
        assert!(!readiness.ready);
        assert_eq!(readiness.missing_slots, ["5461-10922"]);
        assert!(readiness.unreachable.is_empty());
    }

    #[test]
    fn nothing_is_known_at_first() {
        let facts = ReadinessInputs {
            draining: false,
            workers: 0,
            snapshot: &Snapshot::empty(),
            error: Some("10.0.0.1:7000: refused"),
            nodes: &BTreeMap::new(),
            reached: &BTreeMap::new(),
        };
        let json = Readiness::of(&facts).json();
        assert!(
            json.contains("no worker runs") && json.contains("10.0.0.1:7000: refused"),
            "{json}"
        );
        assert!(json.starts_with(r#"{"missing_slots":[],"ready":false"#), "{json}");
    }
}
