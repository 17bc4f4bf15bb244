//! The choice of the node that a read goes to: `read_from`. No I/O.

use crate::cluster::{Health, NodeAddr, Slot, Unfit};
use crate::config::{Config, InFailover, ReadFrom};
use crate::dest::NodeId;

use super::{Micros, Moment};

/// A node without a measurement for this long gets one read as a probe, to notice when it has
/// become faster.
const PROBE_AFTER: Micros = Micros(1_000_000);
/// Nodes count as equal to the fastest one if they are slower by at most this …
const LATENCY_MARGIN: Micros = Micros(100);
/// … plus the fastest one's latency divided by this.
const LATENCY_MARGIN_DIVISOR: u64 = 4;
/// Weight of one measurement in the mean: one part in this many.
const WEIGHT: u64 = 8;

/// Where a read that need not go to its primary went (metrics label `to`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadTo {
    /// A replica.
    Replica,
    /// A replica in slotway's own zone, for `read_from = "zone"`.
    ZoneReplica,
    /// A replica, because the primary is unreachable.
    FailoverReplica,
    /// The primary, by choice.
    Primary,
    /// The primary, because no replica can be read from.
    PrimaryFallback,
}

impl ReadTo {
    /// Number of values.
    pub const COUNT: usize = 5;
    /// Label values, indexed by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["replica", "zone_replica", "failover_replica", "primary", "primary_fallback"];
}

/// The configuration of reads.
#[derive(Debug, Clone)]
pub struct ReadPreferences {
    /// `read_from`.
    pub from: ReadFrom,
    /// `zone`; empty if unknown.
    zone: String,
    /// `replicas.in_failover = "read"`: replicas answer while a primary is unreachable, even if
    /// `from` is the primary.
    pub in_failover: bool,
}

impl ReadPreferences {
    /// Takes the settings from the configuration; `from`: that of the upstream.
    pub fn new(config: &Config, from: ReadFrom) -> Self {
        let in_failover = config.replicas.in_failover == InFailover::Read;
        ReadPreferences { from, zone: config.zone.clone(), in_failover }
    }

    /// Whether reads of clients that have not sent READONLY may go to replicas.
    pub fn any(&self) -> bool {
        self.from != ReadFrom::Primary || self.in_failover
    }

    /// The preference for a client that has sent READONLY: `read_from`, or replicas where that is
    /// the primary.
    pub fn for_readonly(&self) -> ReadFrom {
        match self.from {
            ReadFrom::Primary => ReadFrom::PreferReplica,
            other => other,
        }
    }
}

/// The nodes of a shard that can be read from, as indexes into the worker's nodes.
#[derive(Debug, Default)]
pub struct ReadCandidates {
    /// The primary is in slotway's zone.
    primary_near: bool,
    /// Replicas that can be read from.
    fit: Vec<NodeId>,
    /// The replicas in `fit` that are in slotway's zone.
    near: Vec<NodeId>,
    /// Replicas whose only fault is the loss of their primary. They are read from while it is
    /// unreachable.
    orphans: Vec<NodeId>,
}

impl ReadCandidates {
    /// Sorts the shard's online replicas by their health. A node whose health is not known yet
    /// counts as fit.
    pub fn new<'a>(
        preferences: &ReadPreferences,
        health: &Health,
        primary: Option<&NodeAddr>,
        replicas: impl Iterator<Item = (NodeId, &'a NodeAddr)>,
    ) -> Self {
        let near = |addr: &NodeAddr| {
            let zone = health.get(addr).and_then(|node| node.zone.as_deref());
            !preferences.zone.is_empty() && zone == Some(&*preferences.zone)
        };
        let mut all =
            ReadCandidates { primary_near: primary.is_some_and(near), ..ReadCandidates::default() };
        for (node, addr) in replicas {
            match health.get(addr).and_then(|node| node.unfit) {
                None => {
                    all.fit.push(node);
                    if near(addr) {
                        all.near.push(node);
                    }
                }
                Some(unfit) if unfit.is_only_lost_primary() => all.orphans.push(node),
                Some(_) => {}
            }
        }
        all
    }
}

/// The chosen node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// To the primary.
    Primary(ReadTo),
    /// To the replica with this index.
    Replica(NodeId, ReadTo),
}

/// The state of the shard at the time of the choice.
pub struct ReadContext<'a> {
    /// The shard's primary, if it is reachable.
    pub primary: Option<NodeId>,
    /// Whether a replica is reachable: it is not waiting for its next connection attempt.
    pub reached: &'a dyn Fn(NodeId) -> bool,
    /// The latency of a node.
    pub speed: &'a dyn Fn(NodeId) -> Speed,
    /// Spreads reads over nodes: see [`affinity`].
    pub affinity: usize,
}

/// The latency of a node, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// The mean latency.
    Mean(Micros),
    /// Unknown or outdated, and due for a probe.
    ProbeDue,
    /// Unknown, with a probe under way.
    Unknown,
}

/// Chooses the node for a read of `shard`.
pub fn choose(from: ReadFrom, shard: &ReadCandidates, now: &ReadContext<'_>) -> Choice {
    let replica = |nodes: &[NodeId], to: ReadTo| {
        let node = pick(nodes, now.affinity, now.reached)?;
        Some(Choice::Replica(node, to))
    };
    let fit = || replica(&shard.fit, ReadTo::Replica);
    let chosen = match (from, now.primary) {
        (ReadFrom::Primary, Some(_)) => Some(Choice::Primary(ReadTo::Primary)),
        (ReadFrom::Primary, None) => {
            let mut all = shard.fit.clone();
            all.extend_from_slice(&shard.orphans);
            replica(&all, ReadTo::FailoverReplica)
        }
        (ReadFrom::PreferReplica, _) => fit(),
        (ReadFrom::Any, Some(_)) => Some(one_of_all(shard, now)),
        (ReadFrom::Any, None) => fit(),
        (ReadFrom::LowestLatency, _) => fastest(shard, now),
        (ReadFrom::Zone, primary) => replica(&shard.near, ReadTo::ZoneReplica)
            .or((shard.primary_near && primary.is_some())
                .then_some(Choice::Primary(ReadTo::Primary)))
            .or_else(fit),
    };
    let orphan = || match now.primary {
        None => replica(&shard.orphans, ReadTo::FailoverReplica),
        Some(_) => None,
    };
    let last = match from {
        ReadFrom::Primary => ReadTo::Primary,
        _ => ReadTo::PrimaryFallback,
    };
    chosen.or_else(orphan).unwrap_or(Choice::Primary(last))
}

/// The node at position `affinity`, or the next one that is reachable.
fn pick(nodes: &[NodeId], affinity: usize, reached: &dyn Fn(NodeId) -> bool) -> Option<NodeId> {
    let first = affinity.checked_rem(nodes.len())?;
    let in_turn = nodes.iter().cycle().skip(first).take(nodes.len());
    in_turn.copied().find(|&node| reached(node))
}

/// Any node of the shard: with equal shares for the primary and each replica.
fn one_of_all(shard: &ReadCandidates, now: &ReadContext<'_>) -> Choice {
    let place = now.affinity % (shard.fit.len() + 1);
    let replica = match place < shard.fit.len() {
        true => pick(&shard.fit, place, now.reached),
        false => None,
    };
    match replica {
        Some(node) => Choice::Replica(node, ReadTo::Replica),
        None => Choice::Primary(ReadTo::Primary),
    }
}

/// A node that is due for a probe, otherwise one of those that are as good as the fastest. `None`:
/// no node is reachable.
fn fastest(shard: &ReadCandidates, now: &ReadContext<'_>) -> Option<Choice> {
    let all = || {
        let replicas = shard.fit.iter().copied().filter(|&node| (now.reached)(node));
        now.primary.into_iter().chain(replicas)
    };
    let (mut best, mut count) = (None::<Micros>, 0);
    for node in all() {
        count += 1;
        match (now.speed)(node) {
            Speed::Mean(mean) => best = Some(best.map_or(mean, |best| best.min(mean))),
            Speed::ProbeDue => return Some(in_shard(node, now)),
            Speed::Unknown => {}
        }
    }
    let limit =
        best.map(|best| Micros(best.0 + best.0 / LATENCY_MARGIN_DIVISOR + LATENCY_MARGIN.0));
    let good = |node: &NodeId| match (limit, (now.speed)(*node)) {
        (Some(limit), Speed::Mean(mean)) => mean <= limit,
        (limit, _) => limit.is_none(),
    };
    let count = limit.map_or(count, |_| all().filter(good).count());
    let nth = now.affinity.checked_rem(count)?;
    all().filter(good).nth(nth).map(|node| in_shard(node, now))
}

fn in_shard(node: NodeId, now: &ReadContext<'_>) -> Choice {
    match Some(node) == now.primary {
        true => Choice::Primary(ReadTo::Primary),
        false => Choice::Replica(node, ReadTo::Replica),
    }
}

/// A number that spreads reads over nodes: always the same for one client and slot, which therefore
/// keep reading from one node.
pub fn affinity(client: usize, slot: Slot) -> usize {
    let mixed = ((client as u64) << 16 | u64::from(slot.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 33) as usize
}

/// The latency of a node's recent replies to reads: an exponentially weighted mean.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// Eighths of microseconds; 0: unknown.
    mean: u64,
    /// Time of the last measurement.
    at: Moment,
    /// Time of the last probe.
    asked: Option<Moment>,
}

impl Latency {
    /// Records that the node has answered a read after `micros`.
    pub fn measured(&mut self, micros: Micros, now: Moment) {
        // An old mean says nothing about now.
        self.mean = match self.mean {
            mean if mean > 0 && now - self.at <= PROBE_AFTER => {
                (mean - mean / WEIGHT + micros.0).max(1)
            }
            _ => (micros.0 * WEIGHT).max(1),
        };
        self.at = now;
    }

    /// The latency at `now`. `waiting`: age of the oldest command that the node has not answered; a
    /// node that has stopped answering yields no more measurements.
    pub fn speed(&self, waiting: Micros, now: Moment) -> Speed {
        let old = self.mean == 0 || now - self.at > PROBE_AFTER;
        if old && self.asked.is_none_or(|asked| now - asked > PROBE_AFTER) {
            return Speed::ProbeDue;
        }
        match self.mean {
            0 => Speed::Unknown,
            mean => Speed::Mean(Micros(mean / WEIGHT).max(waiting)),
        }
    }

    /// Records that a probe is sent at `now`.
    pub fn ask(&mut self, now: Moment) {
        self.asked = Some(now);
    }
}

/// Whether the control thread has found the node unreachable.
pub fn is_unreachable(health: &Health, addr: &NodeAddr) -> bool {
    health.get(addr).is_some_and(|node| node.unfit == Some(Unfit::Unreachable))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeHealth;

    fn addr(port: u16) -> NodeAddr {
        NodeAddr { host: "h".into(), port }
    }

    /// A shard with primary 0 and replicas 1 to 3. Each node's health: why it is unfit, zone.
    fn shard(health: [(Option<Unfit>, &str); 4]) -> ReadCandidates {
        let preferences =
            ReadPreferences { from: ReadFrom::Zone, zone: "z".into(), in_failover: false };
        let health: Health = (0..)
            .zip(health)
            .map(|(i, (unfit, zone))| (addr(i), NodeHealth { unfit, zone: Some(zone.into()) }))
            .collect();
        let replicas = [addr(1), addr(2), addr(3)];
        ReadCandidates::new(&preferences, &health, Some(&addr(0)), (1..).map(NodeId).zip(&replicas))
    }

    /// The distinct choices for 3000 clients, sorted; asserts that they are evenly distributed.
    fn chosen(
        from: ReadFrom,
        shard: &ReadCandidates,
        primary: Option<u16>,
        reached: impl Fn(u16) -> bool,
        speed: impl Fn(u16) -> Speed,
    ) -> Vec<Choice> {
        let mut count: Vec<(Choice, usize)> = Vec::new();
        for client in 0..3000 {
            let moment = ReadContext {
                primary: primary.map(NodeId),
                reached: &|node| reached(node.0),
                speed: &|node| speed(node.0),
                affinity: affinity(client, Slot(7)),
            };
            let choice = choose(from, shard, &moment);
            match count.iter_mut().find(|(c, _)| *c == choice) {
                Some((_, n)) => *n += 1,
                None => count.push((choice, 1)),
            }
        }
        let fair = 3000 / count.len();
        for (choice, n) in &count {
            assert!((fair * 8 / 10..=fair * 12 / 10).contains(n), "{choice:?}: {n} of 3000");
        }
        count.sort_by_key(|(c, _)| match c {
            Choice::Primary(_) => 0,
            Choice::Replica(node, _) => node.0,
        });
        count.into_iter().map(|(c, _)| c).collect()
    }

    const FIT: (Option<Unfit>, &str) = (None, "y");
    const P: Choice = Choice::Primary(ReadTo::Primary);
    const LAST: Choice = Choice::Primary(ReadTo::PrimaryFallback);
    fn r(node: u16) -> Choice {
        Choice::Replica(NodeId(node), ReadTo::Replica)
    }
    fn orphan(node: u16) -> Choice {
        Choice::Replica(NodeId(node), ReadTo::FailoverReplica)
    }
    fn all(_: u16) -> bool {
        true
    }
    fn same(_: u16) -> Speed {
        Speed::Mean(Micros(100))
    }

    #[test]
    fn replicas_first() {
        let s = shard([FIT; 4]);
        let from = ReadFrom::PreferReplica;
        assert_eq!(chosen(from, &s, Some(0), all, same), [r(1), r(2), r(3)]);
        assert_eq!(chosen(from, &s, None, all, same), [r(1), r(2), r(3)]);
        assert_eq!(chosen(from, &s, Some(0), |_| false, same), [LAST]);
        let s = shard([FIT, (Some(Unfit::Behind), "y"), FIT, (Some(Unfit::LinkDown), "y")]);
        assert_eq!(chosen(from, &s, Some(0), all, same), [r(2)]);
        assert_eq!(chosen(from, &s, None, |n| n != 2, same), [orphan(3)]);
        assert_eq!(chosen(from, &s, None, |_| false, same), [LAST]);
    }

    #[test]
    fn all_alike() {
        let s = shard([FIT, FIT, (Some(Unfit::Syncing), "y"), FIT]);
        assert_eq!(chosen(ReadFrom::Any, &s, Some(0), all, same), [P, r(1), r(3)]);
        assert_eq!(chosen(ReadFrom::Any, &s, None, all, same), [r(1), r(3)]);
        assert_eq!(chosen(ReadFrom::Any, &s, Some(0), |_| false, same), [P]);
    }

    #[test]
    fn the_primary_unless_it_is_not_reached() {
        let s = shard([FIT, FIT, (Some(Unfit::Silent), "y"), (Some(Unfit::Unreachable), "y")]);
        assert_eq!(chosen(ReadFrom::Primary, &s, Some(0), all, same), [P]);
        let both = [orphan(1), orphan(2)];
        assert_eq!(chosen(ReadFrom::Primary, &s, None, all, same), both);
        assert_eq!(chosen(ReadFrom::Primary, &s, None, |_| false, same), [P]);
    }

    #[test]
    fn the_own_zone_first() {
        let near = (None, "z");
        let from = ReadFrom::Zone;
        let zone = |node| Choice::Replica(NodeId(node), ReadTo::ZoneReplica);
        let s = shard([near, FIT, near, near]);
        assert_eq!(chosen(from, &s, Some(0), all, same), [zone(2), zone(3)]);
        assert_eq!(chosen(from, &s, Some(0), |n| n == 1, same), [P]);
        assert_eq!(chosen(from, &s, None, |n| n == 1, same), [r(1)]);
        let s = shard([FIT, FIT, (Some(Unfit::LinkDown), "z"), FIT]);
        assert_eq!(chosen(from, &s, Some(0), all, same), [r(1), r(3)]);
        assert_eq!(chosen(from, &s, Some(0), |_| false, same), [LAST]);
    }

    #[test]
    fn the_fastest() {
        let s = shard([FIT; 4]);
        let from = ReadFrom::LowestLatency;
        let by = |micros: [u64; 4]| move |n: u16| Speed::Mean(Micros(micros[usize::from(n)]));
        assert_eq!(chosen(from, &s, Some(0), all, by([1000, 1000, 300, 350])), [r(2), r(3)]);
        assert_eq!(chosen(from, &s, Some(0), all, by([200, 9000, 3000, 3500])), [P]);
        assert_eq!(chosen(from, &s, None, |n| n != 2, by([1, 9000, 300, 3500])), [r(3)]);
        assert_eq!(chosen(from, &s, None, |_| false, same), [LAST]);
        let unseen = |n: u16| if n == 3 { Speed::ProbeDue } else { Speed::Mean(Micros(1)) };
        assert_eq!(chosen(from, &s, Some(0), all, unseen), [r(3)]);
        let unknown = |n: u16| if n == 3 { Speed::Unknown } else { Speed::Mean(Micros(1)) };
        assert_eq!(chosen(from, &s, Some(0), all, unknown), [P, r(1), r(2)]);
        assert_eq!(chosen(from, &s, Some(0), all, |_| Speed::Unknown), [P, r(1), r(2), r(3)]);
    }

    #[test]
    fn latency_follows_and_is_looked_at_again() {
        let mut latency = Latency::default();
        let mut now = Moment(5_000_000);
        assert_eq!(latency.speed(Micros(0), now), Speed::ProbeDue);
        latency.ask(now);
        assert_eq!(latency.speed(Micros(0), now), Speed::Unknown);
        latency.measured(Micros(800), now);
        assert_eq!(latency.speed(Micros(0), now), Speed::Mean(Micros(800)));
        assert_eq!(
            latency.speed(Micros(90_000), now),
            Speed::Mean(Micros(90_000)),
            "it keeps others waiting"
        );
        for _ in 0..100 {
            latency.measured(Micros(200), now);
        }
        assert!(matches!(latency.speed(Micros(0), now), Speed::Mean(Micros(195..=210))));
        now = now + PROBE_AFTER + Micros(1);
        assert_eq!(latency.speed(Micros(0), now), Speed::ProbeDue, "not measured for long");
        latency.ask(now);
        assert!(matches!(latency.speed(Micros(0), now), Speed::Mean(Micros(195..=210))), "once");
        latency.measured(Micros(900), now);
        assert_eq!(
            latency.speed(Micros(0), now),
            Speed::Mean(Micros(900)),
            "the old mean is forgotten"
        );
    }

    #[test]
    fn a_node_is_as_good_as_the_fastest_within_a_quarter_and_a_little() {
        let s = shard([FIT; 4]);
        let by = |micros: [u64; 4]| move |n: u16| Speed::Mean(Micros(micros[usize::from(n)]));
        let near = by([9_000, 1_001, 1_351, 1_352]);
        assert_eq!(chosen(ReadFrom::LowestLatency, &s, Some(0), all, near), [r(1), r(2)]);
    }

    #[test]
    fn one_measurement_is_an_eighth_of_the_mean() {
        let mut latency = Latency::default();
        latency.measured(Micros(800), Moment(5_000_000));
        latency.measured(Micros(1_600), Moment(5_000_001));
        assert_eq!(latency.speed(Micros(0), Moment(5_000_001)), Speed::Mean(Micros(900)));
        latency.measured(Micros(100), Moment(5_000_001) + PROBE_AFTER + Micros(1));
        let now = Moment(5_000_001) + PROBE_AFTER + Micros(1);
        assert_eq!(
            latency.speed(Micros(0), now),
            Speed::Mean(Micros(100)),
            "the old ones say nothing any more"
        );
    }

    #[test]
    fn reads_go_elsewhere_where_it_is_wished_for() {
        let preferences =
            |from, in_failover| ReadPreferences { from, zone: String::new(), in_failover };
        assert!(!preferences(ReadFrom::Primary, false).any());
        assert!(preferences(ReadFrom::Primary, true).any());
        assert!(preferences(ReadFrom::Any, false).any());
        assert!(preferences(ReadFrom::Any, true).any());
    }
}
