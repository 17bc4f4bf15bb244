//! Readiness: whether slotway can serve every slot, and the reasons if not. Pure.

use std::collections::BTreeMap;

use crate::cluster::NodeAddr;
use crate::control::{TopologyStatus, Unreached, UpstreamStatus, of_upstream};
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
    /// Each upstream, where there are several.
    pub upstreams: Vec<UpstreamReadiness>,
}

/// Whether one of several upstreams is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamReadiness {
    /// Its name.
    pub name: Box<str>,
    /// Whether slotway is ready without it.
    pub optional: bool,
    /// Reasons why it is not ready.
    pub reasons: Vec<String>,
}

/// The facts that readiness depends on.
#[derive(Debug)]
pub struct ReadinessInputs<'a> {
    pub draining: bool,
    pub workers: usize,
    /// Topologies, errors of their last refreshes, and the results of the refreshes' own connections
    /// to nodes.
    pub topology: &'a TopologyStatus,
    /// Whether each upstream is optional; those that are not listed are not.
    pub optional: &'a [bool],
    /// The workers' counters for nodes.
    pub nodes: &'a BTreeMap<NodeAddr, NodeStats>,
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
        let mut all = Readiness {
            ready: false,
            missing_slots: Vec::new(),
            unreachable: BTreeMap::new(),
            reasons,
            upstreams: Vec::new(),
        };
        let optional = facts.optional.iter().copied().chain(std::iter::repeat(false));
        for ((name, upstream), optional) in facts.topology.named().zip(optional) {
            let own = all.judge(name, upstream, facts.nodes);
            if !optional {
                all.reasons.extend(own.iter().map(|reason| of_upstream(name, reason)));
            }
            if let Some(name) = name {
                let name = name.into();
                all.upstreams.push(UpstreamReadiness { name, optional, reasons: own });
            }
        }
        all.ready = all.reasons.is_empty();
        all
    }

    /// Adds what is missing of an upstream. Returns why it is not ready.
    fn judge(
        &mut self,
        name: Option<&str>,
        upstream: &UpstreamStatus,
        nodes: &BTreeMap<NodeAddr, NodeStats>,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        let known = upstream.snapshot.generation > 0;
        if !known {
            reasons.push("the topology is not known: no seed has answered yet".to_owned());
        }
        // With a known topology, a failed refresh is no reason to turn clients away: the topology
        // may well be unchanged.
        if let (false, Some(error)) = (known, &upstream.error) {
            reasons.push(error.clone());
        }
        let missing = if known { upstream.snapshot.missing_slots() } else { Vec::new() };
        if !missing.is_empty() {
            reasons.push("slots without a primary".to_owned());
        }
        let missing = missing.iter().map(|range| of_upstream(name, &range.to_string()));
        self.missing_slots.extend(missing);
        let mut reached = true;
        for node in upstream.snapshot.slot_primaries() {
            if let Some(why) = unreached(&node.addr, nodes, &upstream.reached) {
                self.unreachable.insert(node.addr.to_string(), why);
                reached = false;
            }
        }
        if !reached {
            reasons.push("primaries that cannot be reached".to_owned());
        }
        reasons
    }

    /// The body of `/readyz`.
    pub fn json(&self) -> String {
        let mut body = serde_json::json!({
            "ready": self.ready,
            "reasons": self.reasons,
            "missing_slots": self.missing_slots,
            "unreachable": self.unreachable,
        });
        let one = |up: &UpstreamReadiness| {
            serde_json::json!({
                "name": up.name,
                "optional": up.optional,
                "ready": up.reasons.is_empty(),
                "reasons": up.reasons,
            })
        };
        if let (false, Some(body)) = (self.upstreams.is_empty(), body.as_object_mut()) {
            body.insert("upstreams".to_owned(), self.upstreams.iter().map(one).collect());
        }
        body.to_string()
    }
}

/// Why a node is unreachable; `None` if it is reachable. The workers' connections decide; if no
/// worker has tried (they connect on demand), the topology refresh's connection does.
fn unreached(
    addr: &NodeAddr,
    nodes: &BTreeMap<NodeAddr, NodeStats>,
    reached: &BTreeMap<NodeAddr, Result<(), Unreached>>,
) -> Option<String> {
    if let Some(stats) = nodes.get(addr) {
        if stats.connections_ready > 0 {
            return None;
        }
        if stats.connections_backoff > 0 {
            return Some("workers cannot connect to it".to_owned());
        }
    }
    match reached.get(addr) {
        Some(Ok(())) => None,
        Some(Err(why)) => Some(why.to_string()),
        None => Some("not tried yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::{Snapshot, parse_shards};
    use crate::command::CommandTable;
    use crate::control::Status;

    fn snapshot(reply: &[u8]) -> Snapshot {
        let asked = NodeAddr { host: "h".into(), port: 1 };
        Snapshot { generation: 1, ..parse_shards(reply, &asked).unwrap() }
    }

    fn addr(port: u16) -> NodeAddr {
        NodeAddr { host: "127.0.0.1".into(), port }
    }

    const HEALTHY: &[u8] = include_bytes!("../cluster/captured/shards.resp2");
    const FAILED: &[u8] = include_bytes!("../cluster/captured/shards_failed.resp2");

    type Reached = BTreeMap<NodeAddr, Result<(), Unreached>>;

    fn all_reached() -> Reached {
        [27110, 27111, 27112].map(|port| (addr(port), Ok(()))).into_iter().collect()
    }

    /// Upstreams of these names, topologies and reached primaries.
    fn topology(upstreams: &[(&str, &[u8], &Reached)]) -> TopologyStatus {
        let names: Vec<&str> = upstreams.iter().map(|(name, ..)| *name).collect();
        let mut topology = Status::new(&names, Arc::new(CommandTable::builtin())).topology();
        for (status, (_, reply, reached)) in topology.upstreams.iter_mut().zip(upstreams) {
            if !reply.is_empty() {
                status.snapshot = Arc::new(snapshot(reply));
            }
            status.reached = (*reached).clone();
        }
        topology
    }

    fn judge(topology: &TopologyStatus, optional: &[bool]) -> Readiness {
        let nodes = &BTreeMap::new();
        let (draining, workers) = (false, 1);
        Readiness::of(&ReadinessInputs { draining, workers, topology, optional, nodes })
    }

    #[test]
    fn all_slots_covered_and_reached() {
        let mut reached = all_reached();
        let nodes = BTreeMap::new();
        let judge = |reached: &Reached, nodes: &_, draining| {
            let mut topology = topology(&[("main", HEALTHY, reached)]);
            topology.upstreams[0].error = Some("a refresh failed".into());
            let (topology, workers, optional) = (&topology, 1, &[][..]);
            Readiness::of(&ReadinessInputs { draining, workers, topology, optional, nodes })
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
        let reached = [27110, 27112].map(|p| (addr(p), Ok(()))).into_iter().collect();
        let readiness = judge(&topology(&[("main", FAILED, &reached)]), &[]);
        assert!(!readiness.ready);
        assert_eq!(readiness.missing_slots, ["5461-10922"]);
        assert!(readiness.unreachable.is_empty());
        assert!(!readiness.json().contains("main"), "there is only one upstream");
    }

    #[test]
    fn nothing_is_known_at_first() {
        let mut topology = topology(&[("main", b"", &BTreeMap::new())]);
        topology.upstreams[0].error = Some("10.0.0.1:7000: refused".into());
        let facts = ReadinessInputs {
            draining: false,
            workers: 0,
            topology: &topology,
            optional: &[],
            nodes: &BTreeMap::new(),
        };
        let json = Readiness::of(&facts).json();
        assert!(
            json.contains("no worker runs") && json.contains("10.0.0.1:7000: refused"),
            "{json}"
        );
        assert!(json.starts_with(r#"{"missing_slots":[],"ready":false"#), "{json}");
    }

    #[test]
    fn of_several_upstreams_each_is_named_and_an_optional_one_is_no_reason() {
        let (reached, none) = (all_reached(), BTreeMap::new());
        let both = topology(&[("main", HEALTHY, &reached), ("queues", FAILED, &none)]);
        let strict = judge(&both, &[false, false]);
        assert!(!strict.ready);
        let reasons = [
            "upstream queues: slots without a primary",
            "upstream queues: primaries that cannot be reached",
        ];
        assert_eq!(strict.reasons, reasons);
        assert_eq!(strict.missing_slots, ["upstream queues: 5461-10922"]);
        let lenient = judge(&both, &[false, true]);
        assert!(lenient.ready && lenient.reasons.is_empty());
        let json: serde_json::Value = serde_json::from_str(&lenient.json()).unwrap();
        assert_eq!(json["upstreams"][0]["name"], "main");
        assert_eq!(json["upstreams"][0]["ready"], true);
        assert_eq!(json["upstreams"][1]["optional"], true);
        assert_eq!(json["upstreams"][1]["ready"], false);
        assert_eq!(json["upstreams"][1]["reasons"][0], "slots without a primary");
    }
}
