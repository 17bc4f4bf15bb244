//! Pub/sub while nodes fail, change roles, come and go, slots move and connections are cut, under
//! streams of numbered messages: nothing is heard twice, nothing out of order, and what is missing
//! was counted as a gap of its topic. Afterwards everything is delivered again.
//!
//! `PUBSUB_SEED` repeats the choices. By default each fault happens once; `PUBSUB_SECONDS` says how
//! long they go on, in random order, instead.

use crate::common::pubsub::{Kind, Missing, Source, Stage, Subscriber, Topic};
use crate::common::{self, Proxy, eventually, eventually_ok};
use slotway::cluster::{Slot, slot_of};
use slotway::sandbox::{Cluster, Conn, Node, Reply, Standalone, StandaloneOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::time::{Duration, Instant, SystemTime};

/// Channels with subscribers of their own; all match `c:*`, as two more do.
const CHANNELS: [&str; 6] = ["c:0", "c:1", "c:2", "c:3", "c:4", "c:5"];
const BY_PATTERN_ONLY: [&str; 2] = ["c:x", "c:y"];
/// Shard channels, in slots that move.
const SHARDS: [&str; 5] = ["s:0", "s:1", "s:2", "s:3", "s:4"];
const SET: &str = "__keyevent@0__:set";

const GAPS: &str = "slotway_pubsub_gaps_total";
const REASONS: [&str; 5] =
    ["connection_lost", "node_left", "slot_moved", "new_primary", "hub_failed"];

/// Between the turns of a publisher.
const PAUSE: Duration = Duration::from_millis(10);

/// What the streams and the books are worth: straight to one server, everything is heard; what is
/// not heard, and what is heard twice, is found.
#[test]
fn the_books_find_what_is_missing() {
    let conf = vec!["notify-keyspace-events KEA".to_owned()];
    let options = StandaloneOptions { conf, ..StandaloneOptions::default() };
    let server = Standalone::start(options).expect("a server");
    let mut stage = Stage::new(server.addr());
    populate(&mut stage);
    let from = stage.marks();
    stage.all_hear("at first", &from);
    let to = stage.marks();
    stage.all_hear("at last", &to);
    eventually_ok("nothing is missing", || {
        let missing = stage.missing(&from, &to)?;
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    });

    let from = stage.marks();
    let deaf = |stage: &mut Stage, who: usize| {
        stage.subscribers[who].say(&["SUNSUBSCRIBE", SHARDS[1]]);
        stage.more(4);
        stage.subscribers[who].say(&["SSUBSCRIBE", SHARDS[1]]);
        let to = stage.marks();
        stage.all_hear("subscribed again", &to);
        to
    };
    let to = deaf(&mut stage, 2);
    let error = stage.missing(&from, &to).expect_err("the other one misses nothing");
    assert!(error.contains("misses"), "{error}");
    let from = stage.marks();
    stage.subscribers.remove(3);
    let to = deaf(&mut stage, 2);
    let missing = stage.missing(&from, &to).expect("nobody to disagree");
    assert_eq!(missing.keys().collect::<Vec<_>>(), [&Topic::shard(SHARDS[1])]);

    stage.assert_sound();
    // One server has no other to publish at, so the number is said once more by somebody else.
    let mut conn = server.connect().expect("a connection");
    conn.command(&["PUBLISH", CHANNELS[0], "p0:0"]).expect("PUBLISH");
    eventually("a duplicate is found", || stage.sound().is_err_and(|e| e.contains("2 times")));
    conn.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).expect("CLIENT KILL");
    eventually("a closed one is found", || stage.sound().is_err_and(|e| e.contains("closed")));
}

#[test]
fn what_is_missing_was_counted_whatever_happens() {
    let seed = from_env("PUBSUB_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the time");
        now.as_nanos() as u64
    });
    eprintln!("PUBSUB_SEED={seed}");
    let mut scene = Scene::new(seed);
    scene.each_topic_has_one_home();
    let Some(seconds) = from_env("PUBSUB_SECONDS") else {
        scene.disturb("failover", Scene::fail_over);
        scene.disturb("connections cut", Scene::cut_all);
        scene.disturb("connections cut repeatedly", Scene::cut_repeatedly);
        // It has the topology as it is now, so nothing but what is done to it happens to it.
        let quick = Proxy::start(
            &scene.cluster,
            &["--set", "pubsub.on_gap=disconnect", "--set", "timeouts.command=1s"],
        );
        scene.disturb("cut and disconnected", |scene| disconnect_on_gap(scene, &quick));
        scene.disturb("slots moved", Scene::move_slots);
        scene.disturb("node added", Scene::add_node);
        scene.disturb("replica killed", Scene::kill_a_replica);
        scene.disturb("primary killed", |scene| scene.kill_a_primary(Some(&quick)));
        scene.disturb("node stopped for 3 s", Scene::stop_a_node);
        drop(quick);
        scene.end();
        return;
    };
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut added = false;
    while Instant::now() < until {
        match scene.random.u32(..10) {
            0..2 => scene.disturb("failover", Scene::fail_over),
            2 => scene.disturb("connections cut", Scene::cut_all),
            3 => scene.disturb("connections cut repeatedly", Scene::cut_repeatedly),
            4..6 => scene.disturb("slots moved", Scene::move_slots),
            6 if !added => {
                added = true;
                scene.disturb("node added", Scene::add_node);
            }
            6 => scene.disturb("replica killed", Scene::kill_a_replica),
            7 => scene.disturb("primary killed", |scene| scene.kill_a_primary(None)),
            _ => scene.disturb("node stopped for 3 s", Scene::stop_a_node),
        }
    }
    scene.end();
}

/// What is published while a worker reconnects to a channel's home goes elsewhere today, and what
/// goes to the home after that overtakes it on the cluster's bus.
#[test]
fn order_survives_the_loss_of_workers_connections() {
    let mut scene = Scene::new(from_env("PUBSUB_SEED").unwrap_or(1));
    scene.disturb("all connections cut", Scene::cut_everything);
    scene.end();
}

/// After a failover the old primary, now a replica, sends notifications of its own, accepts SPUBLISH
/// and exchanges messages with the new one over the cluster's bus, while nodes do not agree yet
/// which of the two is the primary. `PUBSUB_FAILOVERS` says how many.
#[test]
fn nothing_is_heard_twice_or_out_of_order_in_failovers() {
    let mut scene = Scene::new(from_env("PUBSUB_SEED").unwrap_or(1));
    for _ in 0..from_env("PUBSUB_FAILOVERS").unwrap_or(4) {
        scene.disturb("failover", Scene::fail_over);
    }
    scene.end();
}

/// Subscribers of every kind in both protocols, most topics with two or more, and publishers.
fn populate(stage: &mut Stage) {
    let channels = || CHANNELS.map(Topic::channel).to_vec();
    let shards = || SHARDS.map(Topic::shard).to_vec();
    let with = |mut topics: Vec<Topic>, more: Vec<Topic>| {
        topics.extend(more);
        topics
    };
    stage.subscribe(false, channels());
    stage.subscribe(true, with(channels(), vec![Topic::pattern("c:*")]));
    stage.subscribe(false, with(shards(), vec![Topic::pattern("c:*")]));
    stage.subscribe(true, shards());
    stage.subscribe(true, vec![Topic::pattern("*")]);
    stage.subscribe(false, vec![Topic::pattern("*"), Topic::channel(SET)]);
    stage.subscribe(true, vec![Topic::channel(SET), Topic::channel("c:0"), Topic::shard("s:0")]);
    let ordinary = [&CHANNELS[..], &BY_PATTERN_ONLY].concat();
    stage.publish(false, PAUSE, Source::Publish, &ordinary);
    stage.publish(true, PAUSE, Source::Publish, &ordinary);
    stage.publish(false, PAUSE, Source::Shard, &SHARDS);
    stage.publish(true, PAUSE, Source::Shard, &SHARDS);
    stage.publish(false, PAUSE, Source::Set, &[SET]);
    stage.publish(true, PAUSE, Source::Set, &[SET]);
}

/// The streams run behind slotway, and one thing after the other happens to the cluster.
struct Scene {
    // Dropped in this order.
    stage: Stage,
    proxy: Proxy,
    cluster: Cluster,
    random: fastrand::Rng,
    /// Up to here the books are balanced.
    from: Vec<u64>,
    since: Instant,
}

/// The gaps that were counted, by reason.
type Gaps = BTreeMap<&'static str, f64>;

impl Scene {
    fn new(seed: u64) -> Scene {
        let conf = ["cluster-require-full-coverage no", "notify-keyspace-events KEA"];
        let cluster = common::cluster_with(&conf);
        // Longer than a failover takes: only what was sent and lost is answered with an error.
        let proxy = Proxy::start(&cluster, &["--workers", "2", "--set", "timeouts.command=25s"]);
        let mut stage = Stage::new(proxy.listen);
        populate(&mut stage);
        let from = stage.marks();
        let random = fastrand::Rng::with_seed(seed);
        let mut scene = Scene { stage, proxy, cluster, random, from, since: Instant::now() };
        scene.calm("at first");
        scene
    }

    /// Lets something happen and balances the books: what was acknowledged and is missing was
    /// counted. Then everything is delivered again, and nothing is counted any more.
    fn disturb(&mut self, what: &str, fault: impl FnOnce(&mut Scene)) {
        let gaps = self.gaps();
        self.stage.reset_silence();
        let since = Instant::now();
        fault(self);
        let took = since.elapsed();
        let to = self.two_rounds(what);
        let mut missing = Missing::new();
        eventually_ok(&format!("{what}: what is missing was counted"), || {
            missing = self.stage.missing(&self.from, &to)?;
            covered(&missing, &grown(&gaps, &self.gaps()))
        });
        self.from = to;
        let count: usize = missing.values().flat_map(BTreeMap::values).map(BTreeSet::len).sum();
        let silence =
            |kind: Kind| self.stage.silence(|topic| topic.kind == kind && !topic.is_keyspace());
        eprintln!(
            "{:6.1?} {what} ({took:.1?}): {count} missing of {} topics; gaps {:?}; longest silence: \
             channels {:.0?}, patterns {:.0?}, shards {:.0?}, notifications {:.0?}",
            self.since.elapsed(),
            missing.len(),
            grown(&gaps, &self.gaps()),
            silence(Kind::Channel),
            silence(Kind::Pattern),
            silence(Kind::Shard),
            self.stage.silence(Topic::is_keyspace),
        );
        self.calm(&format!("after: {what}"));
    }

    /// Something is published and heard, and something more: what was lost before is known now.
    fn two_rounds(&self, what: &str) -> Vec<u64> {
        self.stage.all_hear(what, &self.stage.marks());
        let to = self.stage.marks();
        self.stage.all_hear(what, &to);
        to
    }

    /// A time without any gap comes, in which everything is delivered.
    fn calm(&mut self, when: &str) {
        eventually_ok(&format!("calm {when}"), || {
            let gaps = self.gaps();
            self.stage.more(20);
            let to = self.two_rounds(when);
            let mut grown = Gaps::new();
            eventually_ok(&format!("{when}: what is missing was counted"), || {
                grown = self::grown(&gaps, &self.gaps());
                covered(&self.stage.missing(&self.from, &to)?, &grown)
            });
            self.from = to;
            if grown.is_empty() { Ok(()) } else { Err(format!("gaps: {grown:?}")) }
        });
    }

    fn gaps(&self) -> Gaps {
        let (_, text) = self.proxy.get("/metrics").expect("/metrics");
        let mut gaps = Gaps::new();
        for line in text.lines().filter(|line| line.starts_with(GAPS)) {
            let reason = REASONS.iter().find(|reason| line.contains(&format!("\"{reason}\"")));
            let reason = reason.unwrap_or_else(|| panic!("a reason that is not known: {line}"));
            let number = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
            gaps.insert(reason, number);
        }
        assert_eq!(gaps.len(), REASONS.len(), "{GAPS}: {gaps:?}");
        gaps
    }

    /// What is subscribed at each node, as it says itself.
    fn homes(&self) -> Vec<(Node, BTreeSet<String>)> {
        let nodes = self.cluster.nodes().expect("nodes").into_iter();
        let nodes = nodes.filter(|node| node.pid.is_some());
        let look = |node: Node| {
            let mut conn = self.cluster.connect(&node).expect("a connection");
            let mut names = BTreeSet::new();
            for kind in ["CHANNELS", "SHARDCHANNELS"] {
                let reply = conn.command(&["PUBSUB", kind]).expect("PUBSUB");
                names.extend(reply.items().expect("names").iter().filter_map(Reply::text));
            }
            (node, names)
        };
        nodes.map(look).collect()
    }

    /// Each channel and shard channel is subscribed at one node, notifications at every primary.
    fn each_topic_has_one_home(&self) {
        let homes = self.homes();
        for name in CHANNELS.iter().chain(&SHARDS).chain([&SET]) {
            let at = homes.iter().filter(|(_, names)| names.contains(*name)).count();
            assert_eq!(at, if *name == SET { 3 } else { 1 }, "{name}: {homes:?}");
        }
    }

    /// A primary with a replica; one that is home to as many channels as possible.
    fn a_home(&mut self) -> (Node, Node) {
        let mut homes = self.homes();
        self.random.shuffle(&mut homes);
        let channels =
            |names: &BTreeSet<String>| names.iter().filter(|n| n.starts_with("c:")).count();
        homes.sort_by_key(|(_, names)| std::cmp::Reverse(channels(names)));
        let pairs =
            homes.into_iter().filter(|(node, _)| node.is_primary()).filter_map(|(node, _)| {
                let replica = self.cluster.replicas_of(&node).expect("replicas").pop()?;
                Some((node, replica))
            });
        pairs.into_iter().next().expect("a primary with a replica")
    }

    fn fail_over(&mut self) {
        let (_, replica) = self.a_home();
        self.cluster.failover(&replica).expect("a failover");
        self.stage.more(10);
    }

    fn cut_all(&mut self) {
        for node in self.cluster.nodes().expect("nodes") {
            self.cut(&node);
        }
    }

    fn cut_repeatedly(&mut self) {
        let nodes = self.cluster.nodes().expect("nodes");
        for _ in 0..15 {
            let node = &nodes[self.random.usize(..nodes.len())];
            self.cut(node);
            std::thread::sleep(Duration::from_millis(self.random.u64(..100)));
        }
    }

    /// The workers' connections as well, which publishers' messages travel on.
    fn cut_everything(&mut self) {
        let nodes = self.cluster.nodes().expect("nodes");
        for _ in 0..10 {
            let node = &nodes[self.random.usize(..nodes.len())];
            let mut conn = self.cluster.connect(node).expect("a connection");
            let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
            assert!(conn.command(&kill).expect("CLIENT KILL").int().is_some());
            if self.random.bool() {
                self.cut(node);
            }
            std::thread::sleep(Duration::from_millis(self.random.u64(..100)));
        }
    }

    /// Cuts all subscription connections to a node.
    fn cut(&self, node: &Node) {
        let mut conn = self.cluster.connect(node).expect("a connection");
        let killed = conn.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).expect("CLIENT KILL");
        assert!(killed.int().is_some(), "{killed:?}");
    }

    /// There and back, for all shard channels.
    fn move_slots(&mut self) {
        for name in SHARDS {
            let slot = slot_of(name.as_bytes());
            let from = self.cluster.owner_of(slot).expect("the owner");
            let mut others = self.cluster.primaries().expect("primaries");
            others.retain(|node| node.id != from.id && node.slot_count() > 0);
            let to = others.swap_remove(self.random.usize(..others.len()));
            self.cluster.move_slot(slot, &from, &to).expect("to move a slot");
            if self.random.bool() {
                self.stage.more(4);
            }
            // Nodes that have not all heard of the first move may disagree about the second.
            self.cluster.settle().expect("a settled cluster");
            self.cluster.move_slot(slot, &to, &from).expect("to move a slot back");
            self.cluster.settle().expect("a settled cluster");
        }
    }

    /// A primary more, that gets a shard channel's slot and a thousand others.
    fn add_node(&mut self) {
        let new = self.cluster.add_node(None).expect("a new node");
        self.stage.more(4);
        let slot = slot_of(SHARDS[0].as_bytes());
        let from = self.cluster.owner_of(slot).expect("the owner");
        self.cluster.move_slot(slot, &from, &new).expect("to move a slot");
        for number in 0..50 {
            let slot = Slot(number * 327);
            let from = self.cluster.owner_of(slot).expect("the owner");
            if from.id != new.id {
                self.cluster.move_slot(slot, &from, &new).expect("to move a slot");
            }
        }
        self.cluster.settle().expect("a settled cluster");
    }

    fn kill_a_replica(&mut self) {
        let (_, replica) = self.a_home();
        self.cluster.kill(&replica).expect("to kill");
        self.stage.more(50);
        self.cluster.restart(&replica).expect("to restart");
        self.cluster.settle().expect("a settled cluster");
    }

    /// SIGKILL; its replica takes over, it comes back.
    fn kill_a_primary(&mut self, quick: Option<&Proxy>) {
        let (primary, replica) = self.a_home();
        self.cluster.kill(&primary).expect("to kill");
        let waits = quick.map(|quick| subscribe_without_a_primary(self, &primary, quick));
        eventually("the replica leads", || {
            let node = self.cluster.node(&replica.id);
            node.is_ok_and(|node| node.is_primary() && node.slot_count() > 0)
        });
        if let Some((waits, name)) = waits {
            confirmed_after_all(self, waits, &name, quick.expect("it"));
        }
        self.cluster.restart(&primary).expect("to restart");
        self.cluster.settle().expect("a settled cluster");
    }

    /// SIGSTOP until the cluster has lost its patience.
    fn stop_a_node(&mut self) {
        let (primary, replica) = self.a_home();
        self.cluster.pause(&primary).expect("to stop");
        eventually("its replica takes over", || {
            let node = self.cluster.node(&replica.id);
            node.is_ok_and(|node| node.is_primary() && node.slot_count() > 0)
        });
        self.cluster.resume(&primary).expect("to resume");
        self.cluster.settle().expect("a settled cluster");
    }

    fn end(mut self) {
        let (acknowledged, unknown) = self.stage.published();
        eprintln!("{acknowledged} messages acknowledged, {unknown} outcomes unknown");
        self.stage.end();
        for metric in ["slotway_pubsub_held_bytes", "slotway_pubsub_subscriptions"] {
            eventually(&format!("{metric} is 0"), || self.proxy.metric(metric, "") == 0.0);
        }
        eventually("nothing is subscribed any more", || {
            self.homes().iter().all(|(_, names)| names.is_empty())
        });
    }
}

/// Reasons whose number has grown, and how much.
fn grown(before: &Gaps, now: &Gaps) -> Gaps {
    let grown = now.iter().map(|(reason, n)| (*reason, n - before[reason]));
    grown.filter(|(_, n)| *n > 0.0).collect()
}

/// Each topic that misses something was counted, with a reason that it can have.
fn covered(missing: &Missing, gaps: &Gaps) -> Result<(), String> {
    let mut by_kind = [
        ("channels and patterns", ""),
        ("shard channels", "slot_moved"),
        ("notifications", "new_primary"),
    ]
    .map(|(kind, reason)| (kind, reason, 0usize));
    for (topic, streams) in missing {
        let kind = match topic.kind {
            Kind::Shard => 1,
            _ if streams.keys().all(|stream| stream.contains("__key")) => 2,
            _ => 0,
        };
        by_kind[kind].2 += 1;
    }
    let of = |reason: &str| gaps.get(reason).copied().unwrap_or_default();
    let any = of("connection_lost") + of("node_left") + of("hub_failed");
    for (kind, reason, count) in by_kind {
        if count as f64 > any + of(reason) {
            return Err(format!("{count} {kind} miss something, gaps {gaps:?}: {missing:?}"));
        }
    }
    if missing.len() as f64 > gaps.values().sum() {
        return Err(format!("gaps {gaps:?}: {missing:?}"));
    }
    Ok(())
}

/// With `pubsub.on_gap = "disconnect"`, those whose topic had a gap are closed, and nobody else.
fn disconnect_on_gap(scene: &mut Scene, quick: &Proxy) {
    let names = |prefix: &str| (0..8).map(|i| format!("{prefix}:{i}")).collect::<Vec<_>>();
    let one = |i: usize, name: &str, topics: Vec<Topic>| {
        Subscriber::start(quick.listen, name, i % 2 == 1, topics)
    };
    let mut subscribers: Vec<Subscriber> = Vec::new();
    for (i, name) in names("d").iter().enumerate() {
        subscribers.push(one(i, name, vec![Topic::channel(name)]));
    }
    for (i, name) in names("t").iter().enumerate() {
        subscribers.push(one(i, name, vec![Topic::shard(name)]));
    }
    let all = names("d").iter().map(|name| Topic::channel(name)).collect();
    let everything = one(1, "all channels", all);
    let notified = one(0, "notifications", vec![Topic::channel(SET)]);
    let mut plain = quick.connect();
    assert_eq!(plain.command(&["ECHO", "before"]).expect("ECHO"), Reply::Bulk(b"before".to_vec()));

    let ours = |names: &BTreeSet<String>| {
        names.iter().filter(|n| n.starts_with("d:") || n.starts_with("t:")).count()
    };
    let channels = |names: &BTreeSet<String>| names.iter().filter(|n| n.starts_with("d:")).count();
    let homes = scene.homes();
    // One with some of the channels, and not all if it can be.
    let home = homes.iter().filter(|(_, names)| channels(names) > 0);
    let (home, there) = home.min_by_key(|(_, names)| ours(names)).expect("a home");
    scene.cut(home);
    for subscriber in &subscribers {
        if there.contains(&subscriber.name) {
            eventually(&format!("{} is closed", subscriber.name), || subscriber.end().is_some());
            assert_eq!(subscriber.end().as_deref(), Some("closed"), "{}", subscriber.name);
        }
    }
    for subscriber in [&everything, &notified] {
        eventually(&format!("{} is closed", subscriber.name), || subscriber.end().is_some());
        assert_eq!(subscriber.end().as_deref(), Some("closed"), "{}", subscriber.name);
    }
    // The others hear on, and those who come anew.
    let again = there.iter().filter(|name| ours(&BTreeSet::from([(*name).clone()])) > 0);
    let topic = |name: &str| {
        if name.starts_with("t:") { Topic::shard(name) } else { Topic::channel(name) }
    };
    let again: Vec<Subscriber> =
        again.enumerate().map(|(i, name)| one(i, name, vec![topic(name)])).collect();
    let others = subscribers.iter().filter(|subscriber| !there.contains(&subscriber.name));
    for (i, subscriber) in others.chain(&again).enumerate() {
        let topic = &subscriber.topics[0];
        let publish = if topic.kind == Kind::Shard { "SPUBLISH" } else { "PUBLISH" };
        // Those who were closed may be counted for a moment more, and the other slotway's `*`.
        let mut number = 0..;
        eventually(&format!("{} is there", subscriber.name), || {
            let text = format!("own{i}:{}", number.next().unwrap_or(0));
            let reply = plain.command(&[publish, &topic.name, &text]).expect("a reply");
            reply == Reply::Int(1) || (topic.kind == Kind::Channel && reply == Reply::Int(2))
        });
        eventually(&format!("{} hears", subscriber.name), || {
            subscriber.count(topic) == number.start
        });
        assert_eq!(subscriber.end(), None, "{}", subscriber.name);
    }
    let gaps = quick.metric(GAPS, "");
    assert!(gaps >= 1.0 + ours(there) as f64, "{gaps} gaps, {there:?}");
}

/// While a shard channel's slot has no primary, its subscription waits or is answered at the
/// deadline; other subscriptions do not wait for it. Returns the one that waits.
fn subscribe_without_a_primary(scene: &Scene, dead: &Node, quick: &Proxy) -> (Conn, String) {
    let mut names = (0..).map(|i| format!("late:{i}"));
    let of_it = |name: &String| {
        let slot = slot_of(name.as_bytes()).0;
        dead.slots.iter().any(|range| range.contains(&slot))
    };
    let name = names.find(of_it).expect("a name");
    let mut waits = scene.proxy.connect();
    waits.set_timeout(Some(common::PATIENCE)).expect("a timeout");
    waits.send(&["SSUBSCRIBE", &name]).expect("to send");
    let mut other = scene.proxy.connect3();
    for i in 0..4 {
        let reply = other.command(&["SUBSCRIBE", &format!("meanwhile:{i}")]).expect("SUBSCRIBE");
        let items = reply.items().expect("a confirmation");
        assert_eq!(items[0].text().as_deref(), Some("subscribe"), "{reply:?}");
    }
    let mut refused = quick.connect();
    let since = Instant::now();
    let reply = refused.command(&["SSUBSCRIBE", &name]).expect("SSUBSCRIBE");
    eprintln!("SSUBSCRIBE without a primary, after {:.1?}: {reply:?}", since.elapsed());
    assert!(reply.error().is_some(), "{reply:?}");
    // It is not subscribed, so this is its first one.
    let reply = refused.command(&["SUBSCRIBE", "meanwhile:0"]).expect("SUBSCRIBE");
    assert_eq!(reply.items().and_then(|items| items[2].int()), Some(1), "{reply:?}");
    (waits, name)
}

fn confirmed_after_all(scene: &Scene, mut waits: Conn, name: &str, quick: &Proxy) {
    let reply = waits.receive().expect("the confirmation");
    let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
    assert_eq!(reply, Reply::Array(vec![bulk("ssubscribe"), bulk(name), Reply::Int(1)]));
    let mut conn = scene.proxy.connect();
    let count = conn.command(&["SPUBLISH", name, "hello"]).expect("SPUBLISH");
    assert_eq!(count, Reply::Int(1));
    let reply = waits.receive().expect("the message");
    assert_eq!(reply, Reply::Array(vec![bulk("smessage"), bulk(name), bulk("hello")]));
    let mut conn = quick.connect();
    let reply = conn.command(&["SSUBSCRIBE", name]).expect("SSUBSCRIBE");
    assert_eq!(reply.items().and_then(|items| items[2].int()), Some(1), "{reply:?}");
}

fn from_env(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}
