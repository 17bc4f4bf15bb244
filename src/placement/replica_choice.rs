//! Which node of its shard a read goes to: `read_from`. No I/O.

use crate::cluster::{Health, NodeAddr, Unfit};
use crate::config::{Config, InFailover, ReadFrom};

/// A node that was not measured for so long is asked once, to see whether it got better,
/// microseconds.
const PROBE_AFTER: u64 = 1_000_000;
/// A node is as good as the fastest one if it takes longer by no more than this, microseconds, ...
const AS_GOOD_BY: u64 = 100;
/// ... and this part of it.
const AS_GOOD_PART: u64 = 4;
/// One measurement is this part of the mean.
const WEIGHT: u64 = 8;

/// Where a read went that need not go to its primary (label `to`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadTo {
    /// A replica.
    Replica,
    /// A replica in slotway's own zone, for `read_from = "zone"`.
    ZoneReplica,
    /// A replica, because the primary is not reached.
    FailoverReplica,
    /// The primary, chosen.
    Primary,
    /// The primary, for want of a replica.
    PrimaryFallback,
}

impl ReadTo {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// Label values, by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["replica", "zone_replica", "failover_replica", "primary", "primary_fallback"];
}

/// What the configuration says about reads.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// `read_from`.
    pub from: ReadFrom,
    /// Empty: unknown.
    zone: String,
    /// Replicas answer while a primary is not reached, even if `from` is the primary.
    pub in_failover: bool,
}

impl Wishes {
    /// Of this configuration.
    pub fn new(config: &Config) -> Self {
        let in_failover = config.replicas.in_failover == InFailover::Read;
        Wishes { from: config.read_from, zone: config.zone.clone(), in_failover }
    }

    /// Some reads of ordinary connections go elsewhere than to the primary.
    pub fn any(&self) -> bool {
        self.from != ReadFrom::Primary || self.in_failover
    }

    /// For a connection that said READONLY: the configuration's wish, or, where that is the
    /// primary, the connection's.
    pub fn for_readonly(&self) -> ReadFrom {
        match self.from {
            ReadFrom::Primary => ReadFrom::PreferReplica,
            other => other,
        }
    }
}

/// A shard's nodes, as reads see them. Indexes of the worker's nodes.
#[derive(Debug, Default)]
pub struct Readable {
    /// Its primary is in slotway's zone.
    primary_near: bool,
    /// Replicas to read from.
    fit: Vec<u16>,
    /// Those of them in slotway's zone.
    near: Vec<u16>,
    /// Replicas that only lack a primary: for as long as that is not reached.
    orphans: Vec<u16>,
}

impl Readable {
    /// From the shard's primary and its replicas that are online. Of a node that was not looked at
    /// yet nothing bad is known.
    pub fn new<'a>(
        wishes: &Wishes,
        health: &Health,
        primary: Option<&NodeAddr>,
        replicas: impl Iterator<Item = (u16, &'a NodeAddr)>,
    ) -> Self {
        let near = |addr: &NodeAddr| {
            let zone = health.get(addr).and_then(|node| node.zone.as_deref());
            !wishes.zone.is_empty() && zone == Some(&*wishes.zone)
        };
        let mut all = Readable { primary_near: primary.is_some_and(near), ..Readable::default() };
        for (node, addr) in replicas {
            match health.get(addr).and_then(|node| node.unfit) {
                None => {
                    all.fit.push(node);
                    if near(addr) {
                        all.near.push(node);
                    }
                }
                Some(unfit) if unfit.is_for_want_of_a_primary() => all.orphans.push(node),
                Some(_) => {}
            }
        }
        all
    }
}

/// Where a read goes; the primary is the ordinary way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// To the primary.
    Primary(ReadTo),
    /// To this node, which is a replica.
    Replica(u16, ReadTo),
}

/// What the worker knows at the moment of a choice.
pub struct Moment<'a> {
    /// The shard's primary, if it is reached.
    pub primary: Option<u16>,
    /// A replica is not waiting for its next attempt to be reached.
    pub reached: &'a dyn Fn(u16) -> bool,
    /// How fast a node is.
    pub speed: &'a dyn Fn(u16) -> Speed,
    /// By which reads are spread: the same for the same client and slot.
    pub seat: usize,
}

/// How fast a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speed {
    /// Microseconds.
    Micros(u64),
    /// Not known, or not lately, and it should be asked.
    ToBeSeen,
    /// Not known, and asked already.
    Unknown,
}

/// Where a read of `shard` goes.
pub fn choose(from: ReadFrom, shard: &Readable, now: &Moment<'_>) -> Choice {
    let replica = |nodes: &[u16], to: ReadTo| {
        let node = pick(nodes, now.seat, now.reached)?;
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

/// The one that the seat falls on, or the next one that is reached.
fn pick(nodes: &[u16], seat: usize, reached: &dyn Fn(u16) -> bool) -> Option<u16> {
    let first = seat.checked_rem(nodes.len())?;
    let in_turn = nodes.iter().cycle().skip(first).take(nodes.len());
    in_turn.copied().find(|&node| reached(node))
}

fn one_of_all(shard: &Readable, now: &Moment<'_>) -> Choice {
    let place = now.seat % (shard.fit.len() + 1);
    let replica = match place < shard.fit.len() {
        true => pick(&shard.fit, place, now.reached),
        false => None,
    };
    match replica {
        Some(node) => Choice::Replica(node, ReadTo::Replica),
        None => Choice::Primary(ReadTo::Primary),
    }
}

/// One that is to be seen; otherwise one of those that are as good as the fastest. `None`: nobody
/// is reached.
fn fastest(shard: &Readable, now: &Moment<'_>) -> Option<Choice> {
    let all = || {
        let replicas = shard.fit.iter().copied().filter(|&node| (now.reached)(node));
        now.primary.into_iter().chain(replicas)
    };
    let (mut best, mut count) = (None::<u64>, 0);
    for node in all() {
        count += 1;
        match (now.speed)(node) {
            Speed::Micros(micros) => best = Some(best.map_or(micros, |best| best.min(micros))),
            Speed::ToBeSeen => return Some(in_shard(node, now)),
            Speed::Unknown => {}
        }
    }
    let limit = best.map(|best| best + best / AS_GOOD_PART + AS_GOOD_BY);
    let good = |node: &u16| match (limit, (now.speed)(*node)) {
        (Some(limit), Speed::Micros(micros)) => micros <= limit,
        (limit, _) => limit.is_none(),
    };
    let count = limit.map_or(count, |_| all().filter(good).count());
    let nth = now.seat.checked_rem(count)?;
    all().filter(good).nth(nth).map(|node| in_shard(node, now))
}

fn in_shard(node: u16, now: &Moment<'_>) -> Choice {
    match Some(node) == now.primary {
        true => Choice::Primary(ReadTo::Primary),
        false => Choice::Replica(node, ReadTo::Replica),
    }
}

/// The same number for the same client and slot, others for others.
pub fn seat(client: usize, slot: u16) -> usize {
    let mixed = ((client as u64) << 16 | u64::from(slot)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 33) as usize
}

/// How fast a node has answered reads lately: an exponentially weighted mean.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// Eighths of microseconds; 0 is not known.
    mean: u64,
    /// Of the last measurement.
    at: u64,
    /// When it was last asked to be seen.
    asked: Option<u64>,
}

impl Latency {
    /// The node has answered a read after `micros`.
    pub fn measured(&mut self, micros: u64, now: u64) {
        // What was measured long ago says nothing about now.
        self.mean = match self.mean {
            mean if mean > 0 && now.saturating_sub(self.at) <= PROBE_AFTER => {
                (mean - mean / WEIGHT + micros).max(1)
            }
            _ => (micros * WEIGHT).max(1),
        };
        self.at = now;
    }

    /// `waiting`: how long the node has kept the oldest command waiting that it has not answered.
    /// One that answers no more is not measured any more.
    pub fn speed(&self, waiting: u64, now: u64) -> Speed {
        let old = self.mean == 0 || now.saturating_sub(self.at) > PROBE_AFTER;
        if old && self.asked.is_none_or(|asked| now.saturating_sub(asked) > PROBE_AFTER) {
            return Speed::ToBeSeen;
        }
        match self.mean {
            0 => Speed::Unknown,
            mean => Speed::Micros((mean / WEIGHT).max(waiting)),
        }
    }

    /// Something is sent to it.
    pub fn ask(&mut self, now: u64) {
        self.asked = Some(now);
    }
}

/// The node does not answer, as the control thread has found.
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

    /// Node 0 is the primary, 1 to 3 are replicas; health by node: why unfit, zone.
    fn shard(health: [(Option<Unfit>, &str); 4]) -> Readable {
        let wishes = Wishes { from: ReadFrom::Zone, zone: "z".into(), in_failover: false };
        let health: Health = (0..)
            .zip(health)
            .map(|(i, (unfit, zone))| (addr(i), NodeHealth { unfit, zone: Some(zone.into()) }))
            .collect();
        let replicas = [addr(1), addr(2), addr(3)];
        Readable::new(&wishes, &health, Some(&addr(0)), (1..).zip(&replicas))
    }

    /// What is chosen by 3000 clients, sorted, once each.
    fn chosen(
        from: ReadFrom,
        shard: &Readable,
        primary: Option<u16>,
        reached: impl Fn(u16) -> bool,
        speed: impl Fn(u16) -> Speed,
    ) -> Vec<Choice> {
        let mut count: Vec<(Choice, usize)> = Vec::new();
        for client in 0..3000 {
            let moment =
                Moment { primary, reached: &reached, speed: &speed, seat: seat(client, 7) };
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
            Choice::Replica(node, _) => *node,
        });
        count.into_iter().map(|(c, _)| c).collect()
    }

    const FIT: (Option<Unfit>, &str) = (None, "y");
    const P: Choice = Choice::Primary(ReadTo::Primary);
    const LAST: Choice = Choice::Primary(ReadTo::PrimaryFallback);
    fn r(node: u16) -> Choice {
        Choice::Replica(node, ReadTo::Replica)
    }
    fn orphan(node: u16) -> Choice {
        Choice::Replica(node, ReadTo::FailoverReplica)
    }
    fn all(_: u16) -> bool {
        true
    }
    fn same(_: u16) -> Speed {
        Speed::Micros(100)
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
        let zone = |node| Choice::Replica(node, ReadTo::ZoneReplica);
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
        let by = |micros: [u64; 4]| move |n: u16| Speed::Micros(micros[usize::from(n)]);
        assert_eq!(chosen(from, &s, Some(0), all, by([1000, 1000, 300, 350])), [r(2), r(3)]);
        assert_eq!(chosen(from, &s, Some(0), all, by([200, 9000, 3000, 3500])), [P]);
        assert_eq!(chosen(from, &s, None, |n| n != 2, by([1, 9000, 300, 3500])), [r(3)]);
        assert_eq!(chosen(from, &s, None, |_| false, same), [LAST]);
        let unseen = |n: u16| if n == 3 { Speed::ToBeSeen } else { Speed::Micros(1) };
        assert_eq!(chosen(from, &s, Some(0), all, unseen), [r(3)]);
        let unknown = |n: u16| if n == 3 { Speed::Unknown } else { Speed::Micros(1) };
        assert_eq!(chosen(from, &s, Some(0), all, unknown), [P, r(1), r(2)]);
        assert_eq!(chosen(from, &s, Some(0), all, |_| Speed::Unknown), [P, r(1), r(2), r(3)]);
    }

    #[test]
    fn latency_follows_and_is_looked_at_again() {
        let mut latency = Latency::default();
        let mut now = 5_000_000;
        assert_eq!(latency.speed(0, now), Speed::ToBeSeen);
        latency.ask(now);
        assert_eq!(latency.speed(0, now), Speed::Unknown);
        latency.measured(800, now);
        assert_eq!(latency.speed(0, now), Speed::Micros(800));
        assert_eq!(latency.speed(90_000, now), Speed::Micros(90_000), "it keeps others waiting");
        for _ in 0..100 {
            latency.measured(200, now);
        }
        assert!(matches!(latency.speed(0, now), Speed::Micros(195..=210)));
        now += PROBE_AFTER + 1;
        assert_eq!(latency.speed(0, now), Speed::ToBeSeen, "not measured for long");
        latency.ask(now);
        assert!(matches!(latency.speed(0, now), Speed::Micros(195..=210)), "once");
        latency.measured(900, now);
        assert_eq!(latency.speed(0, now), Speed::Micros(900), "the old mean is forgotten");
    }

    #[test]
    fn a_node_is_as_good_as_the_fastest_within_a_quarter_and_a_little() {
        let s = shard([FIT; 4]);
        let by = |micros: [u64; 4]| move |n: u16| Speed::Micros(micros[usize::from(n)]);
        let near = by([9_000, 1_001, 1_351, 1_352]);
        assert_eq!(chosen(ReadFrom::LowestLatency, &s, Some(0), all, near), [r(1), r(2)]);
    }

    #[test]
    fn one_measurement_is_an_eighth_of_the_mean() {
        let mut latency = Latency::default();
        latency.measured(800, 5_000_000);
        latency.measured(1_600, 5_000_001);
        assert_eq!(latency.speed(0, 5_000_001), Speed::Micros(900));
        latency.measured(100, 5_000_001 + PROBE_AFTER + 1);
        let now = 5_000_001 + PROBE_AFTER + 1;
        assert_eq!(latency.speed(0, now), Speed::Micros(100), "the old ones say nothing any more");
    }

    #[test]
    fn reads_go_elsewhere_where_it_is_wished_for() {
        let wishes = |from, in_failover| Wishes { from, zone: String::new(), in_failover };
        assert!(!wishes(ReadFrom::Primary, false).any());
        assert!(wishes(ReadFrom::Primary, true).any());
        assert!(wishes(ReadFrom::Any, false).any());
        assert!(wishes(ReadFrom::Any, true).any());
    }
}
