//! Events for the status page: found by comparing two moments, kept in a ring buffer. Pure.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::moment::Moment;
use crate::cluster::{Snapshot, diff, listed};
use crate::control::{UpstreamStatus, of_upstream};
use crate::metrics::{DenialReason, LimitHit, LoginOutcome};
use crate::placement::Redirection;

/// Capacity in events.
const CAPACITY: usize = 200;
/// Occurrences of the same kind and text within this time are counted as one event, so that a slot
/// being moved does not push all other events out.
const SAME_MILLIS: u64 = 15_000;

/// Severity of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Level {
    Good,
    Info,
    Warn,
    Bad,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Good => "good",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Bad => "bad",
        }
    }
}

/// Something that happened between two moments, `count` times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occurrence {
    /// Severity.
    pub level: Level,
    /// Subject, as one word.
    pub kind: &'static str,
    /// Description, without the count.
    pub text: String,
    /// Number of times.
    pub count: u64,
}

#[derive(Debug)]
struct Event {
    id: u64,
    first: u64,
    last: u64,
    occurrence: Occurrence,
}

/// The last events.
#[derive(Debug, Default)]
pub struct Events {
    /// Events by their last occurrence, the most recent one last.
    ring: VecDeque<Event>,
    /// Id of the last new event.
    ids: u64,
    /// Number of changes.
    revision: u64,
}

impl Events {
    /// Adds an occurrence at `millis` since 1970, as a new event or to the event that it continues.
    pub fn add(&mut self, millis: u64, occurrence: Occurrence) {
        self.revision += 1;
        let same = |e: &Event| {
            e.occurrence.kind == occurrence.kind
                && e.occurrence.text == occurrence.text
                && millis.saturating_sub(e.last) <= SAME_MILLIS
        };
        let event = match self.ring.iter().rposition(same).and_then(|at| self.ring.remove(at)) {
            Some(mut event) => {
                event.last = millis;
                event.occurrence.count += occurrence.count;
                event
            }
            None => {
                self.ids += 1;
                Event { id: self.ids, first: millis, last: millis, occurrence }
            }
        };
        if self.ring.len() >= CAPACITY {
            self.ring.pop_front();
        }
        self.ring.push_back(event);
    }

    /// Number of changes to the events so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All events, the most recent one first.
    pub fn json(&self) -> Value {
        let one = |e: &Event| {
            json!({
                "id": e.id,
                "first": e.first,
                "last": e.last,
                "level": e.occurrence.level.name(),
                "kind": e.occurrence.kind,
                "text": e.occurrence.text,
                "count": e.occurrence.count,
            })
        };
        self.ring.iter().rev().map(one).collect()
    }
}

/// The occurrences between two moments.
pub fn between(was: &Moment, is: &Moment) -> Vec<Occurrence> {
    let mut found = Occurrences(Vec::new());
    topology(was, is, &mut found);
    nodes(was, is, &mut found);
    commands(was, is, &mut found);
    users(was, is, &mut found);
    process(was, is, &mut found);
    found.0
}

struct Occurrences(Vec<Occurrence>);

impl Occurrences {
    fn add(&mut self, level: Level, kind: &'static str, text: impl Into<String>, count: u64) {
        if count > 0 {
            self.0.push(Occurrence { level, kind, text: text.into(), count });
        }
    }

    /// Adds an occurrence for each label value of a metric whose counter has grown.
    fn grown(
        &mut self,
        (level, kind): (Level, &'static str),
        names: &[&str],
        (was, is): (&[u64], &[u64]),
        text: impl Fn(&str) -> String,
    ) {
        for ((name, was), is) in names.iter().zip(was).zip(is) {
            self.add(level, kind, text(name), is.saturating_sub(*was));
        }
    }
}

fn topology(was: &Moment, is: &Moment, found: &mut Occurrences) {
    for ((name, was), (_, is)) in was.topology.named().zip(is.topology.named()) {
        let tell = |level, kind, text: String, count| {
            found.add(level, kind, of_upstream(name, &text), count);
        };
        topology_of(was, is, tell);
    }
}

fn topology_of(
    was: &UpstreamStatus,
    is: &UpstreamStatus,
    mut tell: impl FnMut(Level, &'static str, String, u64),
) {
    let (old, new) = (&was.snapshot, &is.snapshot);
    if old.generation == 0 && new.generation > 0 {
        let (nodes, primaries) = (new.nodes.len(), new.slot_primaries().len());
        let text = format!("the cluster is known: {nodes} nodes, {primaries} of them primaries");
        tell(Level::Good, "topology", text, 1);
    } else if old.generation != new.generation {
        for change in diff(old, new) {
            let (level, kind) = if change.contains("promoted to primary") {
                (Level::Warn, "failover")
            } else if change.contains("lost their primary") || change.contains("is not online") {
                (Level::Bad, "topology")
            } else {
                (Level::Info, "topology")
            };
            tell(level, kind, change, 1);
        }
    }
    let missing = |snapshot: &Snapshot| {
        if snapshot.generation > 0 { snapshot.missing_slots() } else { Vec::new() }
    };
    match (missing(old).is_empty(), missing(new).is_empty()) {
        (true, false) => {
            let text = format!("no primary for slots {}", listed(&missing(new)));
            tell(Level::Bad, "slots", text, 1);
        }
        (false, true) => {
            tell(Level::Good, "slots", "every slot has a primary again".to_owned(), 1);
        }
        _ => {}
    }
    if let Some(error) = &is.error {
        let failed = is.refreshes_failed.saturating_sub(was.refreshes_failed);
        tell(Level::Warn, "topology", format!("no node gives the topology: {error}"), failed);
    }
}

fn nodes(was: &Moment, is: &Moment, found: &mut Occurrences) {
    let before: BTreeMap<_, _> = was.totals.nodes.iter().collect();
    for (addr, now) in &is.totals.nodes {
        let before = before.get(addr);
        let failures = now.failures.saturating_sub(before.map_or(0, |b| b.failures));
        let text = format!("connections to {addr} lost, or not made");
        found.add(Level::Warn, "connection", text, failures);
        let lost = before.is_some_and(|b| b.connections_ready == 0 && b.failures > 0);
        if lost && now.connections_ready > 0 {
            found.add(Level::Good, "connection", format!("{addr} is connected again"), 1);
        }
    }
}

fn commands(was: &Moment, is: &Moment, found: &mut Occurrences) {
    let (old, new) = (&was.totals.rest, &is.totals.rest);
    found.grown(
        (Level::Info, "redirection"),
        &Redirection::NAMES,
        (&old.redirections, &new.redirections),
        |kind| format!("{}: commands that a node sent elsewhere or put off", kind.to_uppercase()),
    );
    let unknown = new.outcome_unknown.saturating_sub(old.outcome_unknown);
    found.add(Level::Bad, "error", "commands whose outcome is not known", unknown);
    let late = new.deadline_exceeded.saturating_sub(old.deadline_exceeded);
    found.add(Level::Bad, "error", "commands not answered by their deadline", late);
    found.grown(
        (Level::Warn, "limit"),
        &LimitHit::NAMES,
        (&old.limits_hit, &new.limits_hit),
        |limit| match limit {
            "protocol" => "requests over a limit of the protocol".to_owned(),
            "pubsub_hard" | "pubsub_soft" => {
                format!("pubsub.output_{} was reached", limit.trim_start_matches("pubsub_"))
            }
            limit => format!("limits.{limit} was reached"),
        },
    );
    let gaps = is.counts.pubsub_gaps.saturating_sub(was.counts.pubsub_gaps);
    found.add(Level::Warn, "pub/sub", "topics that may have missed messages", gaps);
}

fn users(was: &Moment, is: &Moment, found: &mut Occurrences) {
    let (old, new) = (&was.totals.rest, &is.totals.rest);
    for (outcome, text) in [
        (LoginOutcome::Wrong, "logins refused: wrong name or password"),
        (LoginOutcome::TooMany, "logins refused: more users of the cluster than limits.users"),
        (LoginOutcome::Unavailable, "logins refused: no node could be asked"),
    ] {
        let count = |logins: &[u64]| logins.get(outcome as usize).copied().unwrap_or_default();
        let count = count(&new.logins).saturating_sub(count(&old.logins));
        found.add(Level::Warn, "login", text, count);
    }
    let denied = (&old.denied[..], &new.denied[..]);
    found.grown((Level::Warn, "denied"), &DenialReason::NAMES, denied, |reason| match reason {
        "login" => "commands refused: not logged in".to_owned(),
        reason => format!("commands refused to a user: not this {reason}"),
    });
    let turned_away = is.counts.clients_rejected.saturating_sub(was.counts.clients_rejected);
    found.add(Level::Bad, "limit", "clients turned away over limits.clients", turned_away);
    let tls = is.counts.tls_failures.saturating_sub(was.counts.tls_failures);
    found.add(Level::Warn, "tls", "TLS handshakes failed", tls);
}

fn process(was: &Moment, is: &Moment, found: &mut Occurrences) {
    let (old, new) = (&was.counts, &is.counts);
    let failed = new.worker_failures.saturating_sub(old.worker_failures);
    found.add(Level::Bad, "slotway", "a worker failed and was replaced", failed);
    let failed = new.task_failures.saturating_sub(old.task_failures);
    found.add(Level::Bad, "slotway", "a part of the control thread failed and began anew", failed);
    let errors = new.accept_errors.saturating_sub(old.accept_errors);
    found.add(Level::Bad, "slotway", "connections could not be accepted", errors);
    if is.answered < is.running {
        found.add(Level::Bad, "slotway", "workers did not answer in time", 1);
    }
    if is.draining && !was.draining {
        found.add(Level::Warn, "slotway", "told to stop: clients are let go", 1);
    }
    match (was.readiness.ready, is.readiness.ready) {
        (true, false) => {
            let text = format!("not ready: {}", is.readiness.reasons.join("; "));
            found.add(Level::Bad, "ready", text, 1);
        }
        (false, true) => found.add(Level::Good, "ready", "ready: every slot is served", 1),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{NodeAddr, Role, parse_shards};
    use crate::metrics::NodeStats;

    fn occurrence(text: &str, count: u64) -> Occurrence {
        Occurrence { level: Level::Info, kind: "k", text: text.into(), count }
    }

    fn cluster(generation: u64) -> Snapshot {
        let asked = NodeAddr { host: "h".into(), port: 1 };
        let healthy = include_bytes!("../cluster/captured/shards.resp2");
        Snapshot { generation, ..parse_shards(healthy, &asked).unwrap() }
    }

    fn told_of(was: &Moment, is: &Moment) -> Vec<String> {
        let line =
            |n: Occurrence| format!("{} {}: {} ×{}", n.level.name(), n.kind, n.text, n.count);
        between(was, is).into_iter().map(line).collect()
    }

    #[test]
    fn nothing_is_told_of_nothing() {
        assert!(told_of(&Moment::of(cluster(1)), &Moment::of(cluster(1))).is_empty());
        let known = told_of(&Moment::of(Snapshot::empty()), &Moment::of(cluster(1)));
        assert!(known[0].starts_with("good topology: the cluster is known: "), "{known:?}");
    }

    #[test]
    fn a_failover_is_told() {
        let mut after = cluster(2);
        let shard = usize::from(after.slots[0]);
        let old = after.shards[shard].primary.unwrap();
        let new = after.shards[shard].replicas.pop().unwrap();
        after.shards[shard].primary = Some(new);
        after.shards[shard].replicas.push(old);
        after.nodes[usize::from(old)].role = Role::Replica;
        after.nodes[usize::from(new)].role = Role::Primary;
        let heir = after.nodes[usize::from(new)].addr.clone();
        let told = told_of(&Moment::of(cluster(1)), &Moment::of(after));
        let promoted = format!("warn failover: node {heir} promoted to primary ×1");
        assert!(told.contains(&promoted), "{told:?}");

        // Before that nobody had the slots.
        let mut orphaned = cluster(2);
        orphaned.shards[shard].primary = None;
        let lost = told_of(&Moment::of(cluster(1)), &Moment::of(orphaned.clone()));
        assert!(
            lost.iter().any(|n| n.starts_with("bad slots: no primary for slots 0-")),
            "{lost:?}"
        );
        let again = told_of(&Moment::of(orphaned), &Moment::of(cluster(3)));
        assert!(again.contains(&"good slots: every slot has a primary again ×1".to_owned()));
    }

    #[test]
    fn counters_that_have_grown_are_told_by_how_much() {
        let was = Moment::of(cluster(1));
        let mut is = Moment::of(cluster(1));
        is.totals.rest.redirections[Redirection::Moved as usize] = 12;
        is.totals.rest.logins[LoginOutcome::Wrong as usize] = 2;
        is.totals.rest.logins[LoginOutcome::Own as usize] = 9;
        is.totals.rest.denied[DenialReason::Key as usize] = 3;
        is.totals.rest.limits_hit[LimitHit::Held as usize] = 1;
        is.totals.rest.outcome_unknown = 4;
        is.counts.clients_rejected = 5;
        let node = NodeStats { failures: 7, ..NodeStats::default() };
        let addr = NodeAddr { host: "a".into(), port: 1 };
        is.totals.nodes.insert(addr.clone(), node);
        is.readiness.ready = false;
        is.readiness.reasons.push("why".to_owned());
        let all = told_of(&was, &is);
        for wanted in [
            "info redirection: MOVED: commands that a node sent elsewhere or put off ×12",
            "warn login: logins refused: wrong name or password ×2",
            "warn denied: commands refused to a user: not this key ×3",
            "warn limit: limits.held was reached ×1",
            "bad error: commands whose outcome is not known ×4",
            "bad limit: clients turned away over limits.clients ×5",
            "warn connection: connections to a:1 lost, or not made ×7",
            "bad ready: not ready: why ×1",
        ] {
            assert!(all.contains(&wanted.to_owned()), "no {wanted}: {all:#?}");
        }
        assert_eq!(all.len(), 8, "{all:#?}");
        let mut later = Moment::of(cluster(1));
        later.totals = is.totals.clone();
        later.counts = is.counts;
        later.totals.nodes.get_mut(&addr).unwrap().connections_ready = 1;
        let later = told_of(&is, &later);
        let back = [
            "good connection: a:1 is connected again ×1",
            "good ready: ready: every slot is served ×1",
        ];
        assert_eq!(later, back);
    }

    #[test]
    fn the_same_again_is_counted_and_the_ring_is_bounded() {
        let mut events = Events::default();
        events.add(1_000, occurrence("a", 2));
        events.add(2_000, occurrence("b", 1));
        events.add(3_000, occurrence("a", 3));
        let json = events.json();
        assert_eq!(json[0]["text"], "a");
        assert_eq!((json[0]["count"].as_u64(), json[0]["first"].as_u64()), (Some(5), Some(1_000)));
        assert_eq!(json[1]["text"], "b");
        events.add(3_001 + SAME_MILLIS, occurrence("a", 1));
        assert_eq!(events.json()[0]["count"], 1, "that was long ago");
        let before = events.revision();
        for n in 0..1_000 {
            events.add(n, occurrence(&n.to_string(), 1));
        }
        assert_eq!(events.json().as_array().unwrap().len(), CAPACITY);
        assert!(events.revision() > before);
    }
}
