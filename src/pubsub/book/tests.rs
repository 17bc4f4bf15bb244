//! Tests of the book: events in, actions and news out.
//!
//! Long: all tests share one model of a book with its nodes and workers.

mod notifications;

use super::*;
use crate::cluster::{
    NO_SHARD, Node as ClusterNode, NodeState, Role, SLOTS, Shard, Snapshot, UpstreamId, slot_of,
};
use crate::hash::KeyedMap;
use crate::pubsub::GapReason;

/// A cluster: nodes 0, 1, 2 are the primaries of shards 0, 1, 2 with a third of the slots each;
/// nodes 3, 4, 5 are their replicas.
fn cluster() -> Snapshot {
    let node = |i: u16| ClusterNode {
        id: format!("node{i}").into(),
        addr: addr(i),
        hostname: "".into(),
        socket: Some(([127, 0, 0, 1], 7000 + i).into()),
        role: if i < 3 { Role::Primary } else { Role::Replica },
        state: NodeState::Online,
        upstream: UpstreamId::FIRST,
    };
    let shard = |i: u16| Shard { primary: Some(i), replicas: vec![i + 3] };
    Snapshot {
        generation: 1,
        nodes: (0..6).map(node).collect(),
        shards: (0..3).map(shard).collect(),
        slots: (0..SLOTS).map(|slot| (slot * 3 / SLOTS).min(2)).collect(),
    }
}

fn addr(i: u16) -> NodeAddr {
    NodeAddr { host: "127.0.0.1".into(), port: 7000 + i }
}

/// Node `i + 3` is the primary of shard `i`, and node `i` its replica.
fn failed_over(i: u16) -> Snapshot {
    let mut snapshot = cluster();
    snapshot.nodes[usize::from(i)].role = Role::Replica;
    snapshot.nodes[usize::from(i) + 3].role = Role::Primary;
    snapshot.shards[usize::from(i)] = Shard { primary: Some(i + 3), replicas: vec![i] };
    snapshot
}

fn failed(i: u16) -> Snapshot {
    let mut snapshot = cluster();
    snapshot.nodes[usize::from(i)].state = NodeState::Failed;
    snapshot.shards[usize::from(i)].primary = None;
    snapshot
}

fn without_slots(mut snapshot: Snapshot, shard: u16) -> Snapshot {
    for slot in &mut snapshot.slots {
        if *slot == shard {
            *slot = NO_SHARD;
        }
    }
    snapshot
}

/// A book with scripted nodes. Actions and news are written as one line each: `+ c @1` is a
/// SUBSCRIBE at node 1, `live c` and `gap c` are news of worker 1.
struct Rig {
    book: Book,
    names: KeyedMap<Token, String>,
    next: u32,
    said: Vec<String>,
    /// The upstreams whose topology was asked for.
    refreshes: Vec<UpstreamId>,
}

impl Rig {
    fn new() -> Rig {
        let mut rig = Rig::without_topology();
        rig.topology(cluster());
        rig
    }

    fn without_topology() -> Rig {
        let backoff = Backoff { min: 10_000, max: 1_000_000 };
        let mut book = Book::new(Arc::default(), Pace { backoff, linger: 0, per_second: 100 });
        book.worker(1);
        Rig { book, names: KeyedMap::default(), next: 0, said: Vec::new(), refreshes: Vec::new() }
    }

    fn topology(&mut self, snapshot: Snapshot) {
        self.book.topology(Arc::new(snapshot));
    }

    fn token(&mut self, name: &str) -> Token {
        self.next += 1;
        let token = Token { index: self.next, generation: 1 };
        self.names.insert(token, name.to_owned());
        token
    }

    fn subscribe(&mut self, worker: usize, kind: TopicKind, name: &str) -> Token {
        let token = self.token(name);
        self.book.wish(
            worker,
            HubRequest::Subscribe {
                token,
                of: UpstreamId::FIRST,
                kind,
                name: name.as_bytes().into(),
            },
        );
        token
    }

    fn unsubscribe(&mut self, worker: usize, token: Token) {
        self.book.wish(worker, HubRequest::Unsubscribe { token });
    }

    /// The book's actions. Connections are established at once if `connect`.
    fn act(&mut self, connect: bool) -> Vec<String> {
        self.book.end_turn();
        let mut all = std::mem::take(&mut self.said);
        loop {
            let actions = self.book.nodes.take_actions();
            if actions.is_empty() {
                return all;
            }
            for action in actions {
                let text = |topic: &Topic| String::from_utf8_lossy(&topic.name).into_owned();
                match action {
                    Action::Connect(n) if connect => self.book.links().ready(n),
                    Action::Connect(n) => all.push(format!("connect {n}")),
                    Action::Close(n) => all.push(format!("close {n}")),
                    Action::Subscribe(n, topic) => all.push(format!("+ {} @{n}", text(&topic))),
                    Action::Unsubscribe(n, topic) => all.push(format!("- {} @{n}", text(&topic))),
                    Action::Ping(n) => all.push(format!("ping {n}")),
                    Action::Refresh(of, _) => self.refreshes.push(of),
                }
            }
        }
    }

    /// Executes all actions; every node confirms.
    fn run(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let done = self.act(true);
            if done.is_empty() {
                return all;
            }
            for n in 0..self.book.nodes.len() {
                self.confirm(n);
            }
            all.extend(done);
        }
    }

    /// The commands that node `n` has not answered.
    fn fifo(&self, n: usize) -> &Fifo {
        &self.book.nodes.get(n).unwrap().fifo
    }

    /// Node `n` answers all its commands.
    fn confirm(&mut self, n: usize) {
        while self.answer(n) {}
    }

    /// Node `n` answers one command.
    fn answer(&mut self, n: usize) -> bool {
        let Some((subscribed, topic)) = self.fifo(n).front().map(|sent| match sent {
            Sent::Subscribe { topic, .. } | Sent::Join { topic, .. } => (true, Arc::clone(topic)),
            Sent::Unsubscribe { topic } => (false, Arc::clone(topic)),
            Sent::FormerPing { .. } | Sent::Ping => panic!("no PING here"),
        }) else {
            return false;
        };
        self.book.replies().changed(n, topic.kind, subscribed, &topic.name).unwrap();
        true
    }

    fn news(&mut self, worker: usize) -> Vec<String> {
        let all: Vec<HubEvent> = self
            .book
            .workers
            .take_news()
            .filter(|(w, _)| *w == worker)
            .flat_map(|(_, n)| n)
            .collect();
        let name = |t: &Token| self.names.get(t).cloned().unwrap_or_default();
        let text = |topic: &Topic| String::from_utf8_lossy(&topic.name).into_owned();
        all.iter()
            .map(|news| match news {
                HubEvent::Known(topic) => format!("known {}", text(topic)),
                HubEvent::Forgotten(topic) => format!("forgotten {}", text(topic)),
                HubEvent::Live { token, .. } => format!("live {}", name(token)),
                HubEvent::Refused { token, text } => format!("refused {}: {text}", name(token)),
                HubEvent::Messages { token, frames } => {
                    let bytes = frames.bytes(crate::resp::Protocol::Resp3);
                    format!("{} {}", name(token), String::from_utf8_lossy(bytes))
                }
                HubEvent::Gap { token } => format!("gap {}", name(token)),
                HubEvent::Restarted => "restarted".into(),
            })
            .collect()
    }

    fn entry(&self, kind: TopicKind, name: &str) -> &Entry {
        let at = self.book.entries.named(UpstreamId::FIRST, kind, name.as_bytes()).unwrap();
        self.book.entries.get(at).unwrap()
    }

    fn home(&self, kind: TopicKind, name: &str) -> usize {
        self.entry(kind, name).home.unwrap()
    }

    fn gaps(&self) -> [u64; GapReason::COUNT] {
        self.book.stats.gaps.each_ref().map(|n| n.load(Relaxed))
    }

    fn upstream(&self) -> [u64; 3] {
        self.book.stats.upstream.each_ref().map(|n| n.load(Relaxed))
    }

    /// Node `n` sends a message.
    fn message(&mut self, n: usize, pattern: Option<&str>, channel: &str) {
        let mut frame = Vec::new();
        let kind = if pattern.is_some() { TopicKind::Pattern } else { TopicKind::Channel };
        let mut words: Vec<&[u8]> = vec![if pattern.is_some() { b"pmessage" } else { b"message" }];
        words.extend(pattern.map(str::as_bytes));
        words.extend([channel.as_bytes(), b"x"]);
        crate::resp::write::request(&mut frame, &words);
        frame[0] = b'>';
        let name = pattern.unwrap_or(channel).as_bytes();
        let at = frame.len() - b"$1\r\nx\r\n".len() - bulk_len(channel);
        let message = Message { kind, name, channel: channel.as_bytes(), at };
        let mut run = Run::default();
        self.book.message(n, &frame, (0, frame.len()), message, &mut run);
        self.book.end_read(&frame, &mut run);
    }

    fn shard_message(&mut self, n: usize, channel: &str, text: &str) {
        let mut frame = Vec::new();
        crate::resp::write::request(
            &mut frame,
            &[b"smessage", channel.as_bytes(), text.as_bytes()],
        );
        frame[0] = b'>';
        let (kind, channel) = (TopicKind::Shard, channel.as_bytes());
        let message = Message { kind, name: channel, channel, at: 0 };
        let mut run = Run::default();
        self.book.message(n, &frame, (0, frame.len()), message, &mut run);
        self.book.end_read(&frame, &mut run);
    }

    /// Number of messages that worker 1 got for `name`.
    fn got(&mut self, name: &str) -> usize {
        let start = format!("{name} >");
        self.news(1).iter().filter(|n| n.starts_with(&start)).count()
    }
}

/// The payload of a message in a worker's news.
fn last_line(news: &str) -> Option<String> {
    news.contains('>').then(|| news.trim_end().lines().last().unwrap_or_default().to_owned())
}

fn bulk_len(text: &str) -> usize {
    format!("${}\r\n{text}\r\n", text.len()).len()
}

const SPACE: &str = "__keyspace@0__:*";
const EVENT: &str = "__keyevent@0__:*";
const LOST: [u64; 5] = [1, 0, 0, 0, 0];
const NO_GAP: [u64; 5] = [0; 5];

#[test]
fn subscriptions_wait_for_the_topology() {
    let mut rig = Rig::without_topology();
    rig.subscribe(1, TopicKind::Channel, "c");
    assert_eq!(rig.run(), [] as [&str; 0]);
    rig.topology(cluster());
    let home = rig.home(TopicKind::Channel, "c");
    assert!(home < 3, "a primary");
    assert_eq!(rig.run(), [format!("+ c @{home}")]);
    assert_eq!(rig.news(1), ["known c", "live c"]);
}

#[test]
fn two_workers_share_a_subscription() {
    let mut rig = Rig::new();
    rig.book.worker(2);
    let one = rig.subscribe(1, TopicKind::Channel, "c");
    let two = rig.subscribe(2, TopicKind::Channel, "c");
    assert_eq!(rig.run().len(), 1);
    assert!(rig.news(1) == ["known c", "live c"]);
    // News of the second subscription went with the first's: subscribe a third time.
    let three = rig.subscribe(2, TopicKind::Channel, "c");
    assert!(rig.news(2).is_empty(), "the node has to answer behind what it sent before");
    assert_eq!(rig.run(), [format!("+ c @{}", rig.home(TopicKind::Channel, "c"))]);
    assert_eq!(rig.news(2), ["live c"]);
    for token in [three, two] {
        rig.unsubscribe(2, token);
    }
    assert!(rig.run().is_empty());
    rig.unsubscribe(1, one);
    let home = rig.home(TopicKind::Channel, "c");
    assert_eq!(rig.run(), [format!("- c @{home}")]);
    assert_eq!(rig.news(1), ["forgotten c"]);
    assert_eq!((rig.upstream(), rig.gaps()), ([0; 3], NO_GAP));
    assert!(rig.book.nodes.is_unused(home));
}

#[test]
fn a_worker_that_ends_drops_its_topics() {
    let mut rig = Rig::new();
    rig.book.worker(2);
    rig.subscribe(1, TopicKind::Channel, "both");
    rig.subscribe(2, TopicKind::Channel, "both");
    rig.subscribe(2, TopicKind::Channel, "own");
    rig.run();
    rig.book.worker_gone(2);
    let home = rig.home(TopicKind::Channel, "own");
    assert_eq!(rig.run(), [format!("- own @{home}")]);
    // A worker that starts later is told of the topics.
    rig.book.worker(3);
    assert_eq!(rig.news(3), ["known both"]);
}

#[test]
fn a_subscriber_that_replaces_another_causes_no_gap() {
    let mut rig = Rig::new();
    let first = rig.subscribe(1, TopicKind::Channel, "c");
    rig.run();
    rig.news(1);
    rig.unsubscribe(1, first);
    rig.subscribe(1, TopicKind::Channel, "c");
    assert_eq!(rig.run(), [format!("+ c @{}", rig.home(TopicKind::Channel, "c"))]);
    assert_eq!(rig.news(1), ["live c"]);
}

#[test]
fn a_new_subscriber_gets_no_earlier_messages() {
    let mut rig = Rig::new();
    let token = rig.subscribe(1, TopicKind::Channel, "c");
    rig.run();
    rig.news(1);
    let home = rig.home(TopicKind::Channel, "c");
    let confirm = |rig: &mut Rig| rig.book.wish(1, HubRequest::Confirm { token });
    confirm(&mut rig);
    assert_eq!(rig.act(true), [format!("+ c @{home}")]);
    rig.message(home, None, "c");
    // These subscribers come too late for the current round.
    confirm(&mut rig);
    confirm(&mut rig);
    assert!(rig.act(true).is_empty());
    let news = rig.news(1);
    assert!(news.len() == 1 && news[0].starts_with("c >3"), "a message, no confirmation");
    assert!(rig.answer(home));
    assert_eq!(rig.news(1), ["live c"]);
    assert_eq!(rig.act(true), [format!("+ c @{home}")]);
    // The connection is lost: waiting subscribers are told when the topic is restored.
    rig.book.links().lost(home, false);
    assert_eq!(rig.news(1), ["gap c"]);
    rig.run();
    assert_eq!(rig.news(1), ["live c"]);
    assert_eq!(rig.upstream(), [1, 0, 0]);
}

#[test]
fn topics_without_listeners_linger() {
    let mut rig = Rig::new();
    rig.book.pace.linger = 1_000;
    let first = rig.subscribe(1, TopicKind::Channel, "c");
    rig.run();
    let home = rig.home(TopicKind::Channel, "c");
    rig.unsubscribe(1, first);
    assert!(rig.run().is_empty());
    // A subscriber comes back and leaves again.
    let again = rig.subscribe(1, TopicKind::Channel, "c");
    rig.run();
    rig.unsubscribe(1, again);
    rig.book.now = 500;
    assert!(rig.run().is_empty());
    rig.news(1);
    rig.book.now = 1_100;
    rig.book.tick();
    assert!(rig.run().is_empty(), "the first time is over, but not the second");
    let topic = Arc::clone(&rig.entry(TopicKind::Channel, "c").topic);
    rig.book.now = 1_500;
    rig.book.tick();
    assert_eq!(rig.run(), [format!("- c @{home}")]);
    // The node counted it until now; replies with that count may still arrive.
    assert_eq!(topic.upstream(), 1);
    assert!(rig.news(1).is_empty());
    assert_eq!(rig.book.next_due(), Some(2_500));
    rig.book.now = 2_500;
    rig.book.tick();
    assert_eq!(topic.upstream(), 0);
    assert_eq!(rig.news(1), ["forgotten c"]);
}

#[test]
fn unconfirmed_subscriptions_are_counted() {
    let mut rig = Rig::new();
    for i in 0..30 {
        rig.subscribe(1, TopicKind::Channel, &format!("c{i}"));
    }
    rig.run(); // every node is connected
    rig.subscribe(1, TopicKind::Channel, "c");
    // The node may have counted it before its confirmation arrives.
    assert_eq!(rig.entry(TopicKind::Channel, "c").topic.upstream(), 1);
    rig.run();
    assert_eq!(rig.entry(TopicKind::Channel, "c").topic.upstream(), 1);
}

#[test]
fn stale_confirmations_are_ignored() {
    let mut rig = Rig::new();
    let first = rig.subscribe(1, TopicKind::Channel, "c");
    let home = rig.home(TopicKind::Channel, "c");
    rig.act(true);
    rig.unsubscribe(1, first);
    rig.act(true);
    rig.subscribe(1, TopicKind::Channel, "c");
    rig.act(true);
    rig.news(1);
    // SUBSCRIBE, UNSUBSCRIBE and SUBSCRIBE are on their way.
    assert!(rig.answer(home) && rig.news(1).is_empty());
    rig.message(home, None, "c");
    // Until now the node counted the first subscription.
    assert!(rig.answer(home));
    assert_eq!(rig.news(1), ["forgotten c"]);
    assert!(rig.answer(home) && !rig.answer(home));
    assert_eq!(rig.news(1), ["live c"]);
    assert_eq!(rig.upstream(), [1, 0, 0]);
    rig.book.replies().changed(home, TopicKind::Channel, true, b"c").unwrap_err();
    rig.book.replies().other(home).unwrap_err();
    rig.book.replies().error(home, b"ERR what").unwrap_err();
}

#[test]
fn topics_of_a_lost_connection_move_at_once() {
    let mut rig = Rig::new();
    for i in 0..30 {
        rig.subscribe(1, TopicKind::Channel, &format!("c{i}"));
    }
    rig.run();
    rig.news(1);
    let homes: Vec<usize> =
        (0..30).map(|i| rig.home(TopicKind::Channel, &format!("c{i}"))).collect();
    assert!([0, 1, 2].iter().all(|n| homes.contains(n)), "spread: {homes:?}");
    let victims = homes.iter().filter(|&&h| h == 1).count();
    rig.book.links().lost(1, false);
    let actions = rig.act(false);
    // No new connection was needed.
    assert_eq!(actions.len(), victims, "{actions:?}");
    assert!(actions.iter().all(|a| a.ends_with("@0") || a.ends_with("@2")));
    assert_eq!(rig.news(1).len(), victims);
    rig.confirm(0);
    rig.confirm(2);
    assert!(rig.news(1).iter().all(|n| n.starts_with("live")));
    assert_eq!(rig.gaps()[GapReason::ConnectionLost as usize], victims as u64);
    assert_eq!(rig.book.stats.resubscriptions.load(Relaxed), victims as u64);
    // Topics stay there even when the old home comes back.
    rig.book.nodes.retry(1);
    assert!(rig.run().is_empty());
    assert_eq!(rig.upstream(), [30, 0, 0]);
}

#[test]
fn an_unconfirmed_subscription_makes_no_gap() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Channel, "c");
    let home = rig.home(TopicKind::Channel, "c");
    assert_eq!(rig.act(false), [format!("connect {home}")]);
    rig.book.links().lost(home, false);
    let other = rig.home(TopicKind::Channel, "c");
    assert_ne!(other, home);
    assert_eq!(rig.run(), [format!("+ c @{other}")]);
    assert_eq!(rig.news(1), ["known c", "live c"]);
    assert_eq!(rig.gaps(), NO_GAP);
}

#[test]
fn all_nodes_gone_and_back() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Channel, "c");
    rig.run();
    rig.news(1);
    for _ in 0..3 {
        for n in 0..6 {
            rig.book.links().lost(n, false);
        }
    }
    rig.act(false);
    assert_eq!(rig.news(1), ["gap c"]);
    // The first node to connect becomes the home, even a replica.
    rig.book.links().ready(4);
    assert_eq!(rig.act(false), ["+ c @4"]);
    rig.confirm(4);
    assert_eq!(rig.news(1), ["live c"]);
    assert_eq!(rig.gaps(), LOST);
}

#[test]
fn a_channel_moves_from_a_failed_node_but_not_after_a_failover() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Channel, "c");
    rig.run();
    let home = rig.home(TopicKind::Channel, "c");
    rig.news(1);
    rig.topology(failed_over(home as u16));
    assert!(rig.run().is_empty() && rig.news(1).is_empty());
    assert_eq!(rig.home(TopicKind::Channel, "c"), home);
    rig.topology(failed(home as u16));
    let actions = rig.run();
    let other = rig.home(TopicKind::Channel, "c");
    assert_eq!(actions, [format!("close {home}"), format!("+ c @{other}")]);
    assert_eq!(rig.news(1), ["gap c", "live c"]);
    assert_eq!(rig.gaps()[GapReason::NodeLeft as usize], 1);
}

#[test]
fn a_shard_channel_follows_sunsubscribe_and_moved() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Shard, "s");
    rig.run();
    rig.news(1);
    let home = rig.home(TopicKind::Shard, "s");
    let other = (home + 1) % 3;
    // The topology is old: the node itself knows the new owner.
    rig.book.replies().changed(home, TopicKind::Shard, false, b"s").unwrap();
    assert_eq!(rig.act(true), [format!("+ s @{home}")]);
    assert_eq!(rig.news(1), ["gap s"]);
    let moved = format!("MOVED 1 127.0.0.1:{}", 7000 + other);
    rig.book.replies().error(home, moved.as_bytes()).unwrap();
    assert_eq!(rig.run(), [format!("+ s @{other}")]);
    assert_eq!(rig.news(1), ["live s"]);
    assert_eq!((rig.gaps(), rig.upstream()), ([0, 0, 1, 0, 0], [0, 0, 1]));
    // The same old topology does not move the topic back; a new one moves it.
    rig.topology(cluster());
    assert!(rig.run().is_empty());
    let third = (home + 2) % 3;
    let mut moved = cluster();
    moved.slots[usize::from(slot_of(b"s").0)] = third as u16;
    rig.topology(moved);
    assert_eq!(rig.run(), [format!("+ s @{third}")]);
    assert_eq!(rig.news(1), ["gap s", "live s"]);
    // The former home is heard until it ends the subscription itself.
    rig.book.replies().changed(other, TopicKind::Shard, false, b"s").unwrap();
    // Unexpected ends of other subscriptions are ignored.
    rig.book.replies().changed(home, TopicKind::Shard, false, b"s").unwrap();
    rig.book.replies().changed(home, TopicKind::Shard, false, b"unknown").unwrap();
    assert!(rig.run().is_empty());
}

#[test]
fn messages_published_before_a_move_come_first() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Shard, "s");
    rig.run();
    let home = rig.home(TopicKind::Shard, "s");
    let other = (home + 1) % 3;
    let mut moved = cluster();
    moved.slots[usize::from(slot_of(b"s").0)] = other as u16;
    rig.topology(moved);
    assert_eq!(rig.book.nodes.formers().collect::<Vec<_>>(), [home]);
    rig.news(1);
    // Before and after the new home has confirmed.
    rig.shard_message(home, "s", "1");
    assert_eq!(rig.run(), [format!("+ s @{other}")]);
    for (node, text) in [(home, "2"), (other, "3"), (other, "1"), (other, "2"), (home, "3")] {
        rig.shard_message(node, "s", text);
    }
    let heard: Vec<String> = rig.news(1).iter().filter_map(|n| last_line(n)).collect();
    assert_eq!(heard, ["1", "2", "3"]);
    // A former home that does not end the subscription is left after a while.
    let due = rig.book.next_due().unwrap();
    rig.book.now = due - 1;
    rig.book.tick();
    assert!(rig.run().is_empty());
    rig.book.now = due;
    rig.book.tick();
    assert_eq!(rig.run(), [format!("- s @{home}")]);
    assert_eq!(rig.book.nodes.formers().count(), 0);
    assert_eq!(rig.upstream(), [0, 0, 1]);
    rig.shard_message(home, "s", "4");
    assert!(rig.news(1).is_empty());
    // A former home whose connection is lost is left at once.
    rig.topology(cluster());
    rig.run();
    assert_eq!(rig.book.nodes.formers().collect::<Vec<_>>(), [other]);
    rig.book.links().lost(other, false);
    assert_eq!(rig.book.nodes.formers().count(), 0);
    assert_eq!(rig.home(TopicKind::Shard, "s"), home);
}

/// After a failover the former home is a replica of the new one: each hears the other's messages,
/// but not all of them in order. They form one stream until the former home has sent all.
#[test]
fn after_a_failover_the_former_home_is_drained_first() {
    let moved = |pings: usize| {
        let mut rig = Rig::new();
        rig.subscribe(1, TopicKind::Shard, "s");
        rig.run();
        let home = rig.home(TopicKind::Shard, "s");
        rig.news(1);
        rig.topology(failed_over(home as u16));
        assert_eq!(rig.act(true), [format!("+ s @{}", home + 3)]);
        assert_eq!(rig.news(1), ["gap s"]);
        rig.shard_message(home, "s", "0");
        assert!(rig.answer(home + 3));
        assert_eq!(rig.act(true), [format!("ping {home}")]);
        for _ in 0..pings {
            rig.book.replies().other(home).unwrap();
        }
        (rig, home, home + 3)
    };
    let texts = |news: Vec<String>| -> Vec<String> {
        news.iter().map(|n| last_line(n).unwrap_or_else(|| n.clone())).collect()
    };
    // 1 was published at the replica, and reaches the primary after 2.
    let (mut rig, old, new) = moved(0);
    for (node, text) in [(new, "2"), (new, "1"), (old, "1"), (old, "2"), (new, "3")] {
        rig.shard_message(node, "s", text);
    }
    rig.book.replies().other(old).unwrap();
    assert_eq!(rig.act(true), [format!("ping {old}")]);
    assert_eq!(texts(rig.news(1)), ["0", "1", "2"]);
    rig.book.replies().other(old).unwrap();
    assert_eq!(texts(rig.news(1)), ["3", "live s"]);
    assert_eq!(rig.run(), [format!("- s @{old}")]);
    // The primary did not forward 1: it is not delivered late, and the gap lasts until then.
    let (mut rig, old, new) = moved(1);
    for (node, text) in [(new, "1"), (new, "2"), (old, "2"), (new, "3")] {
        rig.shard_message(node, "s", text);
    }
    assert_eq!(texts(rig.news(1)), ["0", "2"]);
    rig.book.replies().other(old).unwrap();
    assert_eq!(texts(rig.news(1)), ["3", "live s"]);
    // From then on only the primary is heard, which sends everything.
    for (node, text) in [(old, "5"), (new, "4"), (new, "5")] {
        rig.shard_message(node, "s", text);
    }
    assert_eq!(texts(rig.news(1)), ["4", "5"]);
    assert_eq!(rig.gaps()[GapReason::SlotMoved as usize], 1);
    // A replica that does not answer, or is lost, delays nobody.
    let (mut rig, old, new) = moved(1);
    rig.shard_message(new, "s", "1");
    assert_eq!(texts(rig.news(1)), ["0"]);
    rig.book.now = rig.book.next_due().unwrap();
    rig.book.tick();
    assert_eq!(texts(rig.news(1)), ["1", "live s"]);
    rig.book.replies().other(old).unwrap();
    let (mut rig, old, new) = moved(1);
    rig.shard_message(new, "s", "1");
    rig.book.links().lost(old, false);
    assert_eq!(texts(rig.news(1)), ["0", "1", "live s"]);
    // The bytes held back are limited.
    let (mut rig, _, new) = moved(1);
    let large = "x".repeat(600_000);
    rig.shard_message(new, "s", &large);
    assert_eq!(texts(rig.news(1)), ["0"]);
    rig.shard_message(new, "s", "1");
    assert!(rig.news(1).is_empty());
    rig.shard_message(new, "s", &large);
    assert_eq!(rig.news(1).pop().unwrap(), "live s");
    assert_eq!(rig.book.nodes.formers().count(), 0);
    // A worker that follows the previous topology publishes at the replica: wait for it.
    let mut rig = Rig::new();
    rig.book.worker(2);
    rig.book.worker(3);
    (1..3).for_each(|worker| rig.book.worker_follows(worker, 1));
    rig.subscribe(1, TopicKind::Shard, "s");
    rig.run();
    let (old, new) = (rig.home(TopicKind::Shard, "s"), rig.home(TopicKind::Shard, "s") + 3);
    rig.topology(Snapshot { generation: 2, ..failed_over(old as u16) });
    rig.book.worker_follows(1, 2);
    assert_eq!(rig.act(true), [format!("+ s @{new}")]);
    assert!(rig.answer(new));
    rig.shard_message(new, "s", "2");
    assert!(rig.act(true).is_empty());
    rig.news(1);
    rig.shard_message(old, "s", "1");
    rig.book.worker_follows(2, 2);
    for _ in 0..2 {
        assert_eq!(rig.act(true), [format!("ping {old}")]);
        rig.book.worker_follows(1, 2);
        assert!(rig.act(true).is_empty());
        rig.book.replies().other(old).unwrap();
    }
    assert_eq!(texts(rig.news(1)), ["1", "2", "live s"]);
}

#[test]
fn a_lost_connection_asks_for_the_topology_of_its_upstream_only() {
    let mut rig = Rig::new();
    let mut two = cluster();
    two.nodes[1].upstream = UpstreamId(1);
    rig.topology(two);
    rig.act(false);
    rig.refreshes.clear();
    rig.book.links().lost(1, false);
    rig.act(false);
    assert_eq!(rig.refreshes, [UpstreamId(1)]);
}

#[test]
fn moved_to_an_unknown_node_waits_for_the_topology() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Shard, "s");
    let home = rig.home(TopicKind::Shard, "s");
    rig.act(true);
    rig.book.replies().error(home, b"MOVED 1 10.0.0.1:7000").unwrap();
    assert!(rig.act(true).is_empty() && !rig.refreshes.is_empty());
    let mut grown = cluster();
    let mut node = grown.nodes[0].clone();
    node.addr = NodeAddr { host: "10.0.0.1".into(), port: 7000 };
    grown.nodes.push(node);
    grown.shards.push(Shard { primary: Some(6), replicas: Vec::new() });
    grown.slots[usize::from(slot_of(b"s").0)] = 3;
    rig.topology(grown);
    assert_eq!(rig.run(), ["+ s @6"]);
    assert_eq!(rig.news(1), ["known s", "live s"]);
    assert_eq!(rig.gaps(), NO_GAP);
}

#[test]
fn temporary_refusals_are_retried_with_backoff() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Shard, "s");
    let home = rig.home(TopicKind::Shard, "s");
    let mut waits = Vec::new();
    for _ in 0..6 {
        assert_eq!(rig.act(true), [format!("+ s @{home}")]);
        rig.book.replies().error(home, b"CLUSTERDOWN Hash slot not served").unwrap();
        assert!(rig.act(true).is_empty());
        let due = rig.book.next_due().unwrap();
        waits.push(due - rig.book.now);
        rig.book.now = due;
        rig.book.tick();
    }
    assert!(waits[0] <= 10_000 && waits[5] >= 160_000, "{waits:?}");
    rig.run();
    assert_eq!(rig.news(1), ["known s", "live s"]);
    assert!(rig.book.next_due().is_none());
}

#[test]
fn redirection_loops_end() {
    let mut rig = Rig::new();
    rig.subscribe(1, TopicKind::Shard, "s");
    let mut followed = 0;
    loop {
        let actions = rig.act(true);
        let Some(action) = actions.first() else { break };
        let n: usize = action.rsplit('@').next().unwrap().parse().unwrap();
        let moved = format!("MOVED 1 127.0.0.1:{}", 7000 + (n + 1) % 2);
        rig.book.replies().error(n, moved.as_bytes()).unwrap();
        followed += 1;
        assert!(followed < 10);
    }
    assert!(rig.book.next_due().is_some());
}

#[test]
fn a_refusal_is_reported_to_all_listeners() {
    let mut rig = Rig::new();
    rig.book.worker(2);
    rig.subscribe(1, TopicKind::Channel, "c");
    let again = rig.subscribe(1, TopicKind::Channel, "c");
    let home = rig.home(TopicKind::Channel, "c");
    rig.act(true);
    rig.book.replies().error(home, b"NOPERM no").unwrap();
    assert!(rig.act(true).is_empty());
    assert_eq!(
        rig.news(1),
        ["known c", "refused c: NOPERM no", "refused c: NOPERM no", "forgotten c"]
    );
    rig.unsubscribe(1, again); // its refusal was still on the way
    assert!(rig.run().is_empty() && rig.news(1).is_empty());
    assert_eq!(rig.book.stats.topics[0].load(Relaxed), 0);
    // If one of several nodes refuses, the topic is unsubscribed at the others.
    rig.subscribe(1, TopicKind::Pattern, SPACE);
    rig.act(true);
    rig.confirm(0);
    rig.book.replies().error(1, b"NOPERM no").unwrap();
    assert_eq!(rig.act(true), [format!("- {SPACE} @0"), format!("- {SPACE} @2")]);
    rig.confirm(0);
    rig.confirm(2);
    assert_eq!(rig.upstream(), [0; 3]);
}

#[test]
fn messages_of_one_topic_are_one_run() {
    let mut rig = Rig::new();
    for name in ["a", "b"] {
        rig.subscribe(1, TopicKind::Channel, name);
    }
    rig.run();
    rig.news(1);
    // Both topics at one node.
    let home = rig.home(TopicKind::Channel, "a");
    let other = rig.home(TopicKind::Channel, "b");
    if other != home {
        rig.book.links().lost(other, false);
        rig.book.links().lost((0..3).find(|&n| n != home && n != other).unwrap(), false);
        rig.run();
        rig.news(1);
    }
    let home = rig.home(TopicKind::Channel, "a");
    assert_eq!(home, rig.home(TopicKind::Channel, "b"));
    let one = |name: &str| format!(">3\r\n$7\r\nmessage\r\n$1\r\n{name}\r\n$1\r\nx\r\n");
    let order = ["a", "a", "b", "a", "gone", "a", "a"];
    let (mut buf, mut spans) = (Vec::new(), Vec::new());
    for name in order {
        let start = buf.len();
        buf.extend_from_slice(one(name).as_bytes());
        spans.push((start, buf.len()));
    }
    let mut run = Run::default();
    for (name, span) in order.iter().zip(spans) {
        let name = name.as_bytes();
        let message = Message { kind: TopicKind::Channel, name, channel: name, at: 17 };
        rig.book.message(home, &buf, span, message, &mut run);
    }
    rig.book.end_read(&buf, &mut run);
    let a = one("a");
    assert_eq!(
        rig.news(1),
        [format!("a {a}{a}"), format!("b {}", one("b")), format!("a {a}"), format!("a {a}{a}")]
    );
    assert_eq!(rig.book.stats.messages[0].load(Relaxed), 7);
    assert_eq!(rig.book.stats.ignored.load(Relaxed), 1);
}

/// CPU time used by this thread, in nanoseconds.
fn thread_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// The cost of dropping broad patterns is linear in their number.
#[test]
fn dropping_broad_patterns_takes_linear_time() {
    let cpu = [10_000, 40_000].map(|count| {
        let mut rig = Rig::new();
        let names = (0..count).map(|i| format!("*{i}"));
        let tokens: Vec<Token> = names.map(|n| rig.subscribe(1, TopicKind::Pattern, &n)).collect();
        rig.run();
        assert_eq!(rig.book.entries.broad.len(), count);
        let before = thread_cpu();
        for token in tokens {
            rig.unsubscribe(1, token);
            rig.book.end_turn();
        }
        let cpu = thread_cpu() - before;
        assert!(rig.book.entries.broad.is_empty());
        rig.run();
        assert!(rig.book.entries.iter().next().is_none());
        cpu
    });
    assert!(cpu[1] < 8.0 * cpu[0], "{cpu:?} ns of CPU");
}

#[test]
fn broad_patterns_keep_their_indexes() {
    let mut rig = Rig::new();
    let tokens = ["*a", "*b", "*c", "*d"].map(|name| rig.subscribe(1, TopicKind::Pattern, name));
    rig.run();
    for (gone, left) in [(1, 3), (3, 2), (0, 1), (2, 0)] {
        rig.unsubscribe(1, tokens[gone]);
        rig.run();
        assert_eq!(rig.book.entries.broad.len(), left);
        for (i, &at) in rig.book.entries.broad.iter().enumerate() {
            assert_eq!(rig.book.entries.get(at).unwrap().broad_at, i);
        }
    }
}

#[test]
fn refused_topics_share_a_budget() {
    let mut rig = Rig::new();
    for i in 0..1_000 {
        rig.subscribe(1, TopicKind::Shard, &format!("{{s}}{i}"));
    }
    let home = rig.home(TopicKind::Shard, "{s}0");
    // The first refusals cost nothing, then 100 retries per second, with as many saved up.
    let (mut calls, end) = (rig.act(true).len(), rig.book.now + 3_000_000);
    assert_eq!(calls, 1_000);
    loop {
        while !rig.fifo(home).is_empty() {
            rig.book.replies().error(home, b"CLUSTERDOWN The cluster is down").unwrap();
        }
        let due = rig.book.next_due().unwrap();
        assert!(due > rig.book.now);
        if due > end {
            break;
        }
        rig.book.now = due;
        rig.book.tick();
        calls += rig.act(true).len();
    }
    assert!((1_300..=1_401).contains(&calls), "{calls}");
    // Each confirmation lets two more retries go.
    while rig.act(true).is_empty() {
        rig.book.now = rig.book.next_due().unwrap();
        rig.book.tick();
    }
    let before = rig.book.now;
    rig.run();
    while let Some(due) = rig.book.next_due() {
        rig.book.now = due;
        rig.book.tick();
        rig.run();
    }
    assert!(rig.book.entries.iter().all(|(_, entry)| entry.live));
    assert!(rig.book.now < before + 2_000_000, "{}", rig.book.now - before);
}

#[test]
fn an_unresponsive_node_gets_a_single_probe() {
    let mut rig = Rig::new();
    for i in 0..10 {
        rig.subscribe(1, TopicKind::Shard, &format!("{{s}}{i}"));
    }
    let home = rig.home(TopicKind::Shard, "{s}0");
    assert_eq!(rig.act(true).len(), 10);
    for _ in 0..3 {
        assert_eq!(rig.book.links().lost(home, true), None);
        assert_eq!(rig.act(true).len(), 1);
    }
    assert!(rig.answer(home));
    assert_eq!(rig.act(true).len(), 9);
    rig.confirm(home);
    assert!(rig.book.entries.iter().all(|(_, entry)| entry.live));
}

/// That the node accepts connections says nothing: it may close each, after an answer or without.
#[test]
fn from_a_node_that_closes_each_connection_one_backs_off_further_and_further() {
    for (closes, answers) in [(true, false), (true, true), (false, true)] {
        let mut rig = Rig::new();
        for i in 0..10 {
            rig.subscribe(1, TopicKind::Shard, &format!("{{s}}{i}"));
        }
        let home = rig.home(TopicKind::Shard, "{s}0");
        let start = rig.book.now;
        let (mut connections, mut sent) = (0, 0);
        while rig.book.now < start + 10_000_000 {
            sent += rig.act(true).len();
            if answers {
                rig.confirm(home);
            }
            connections += 1;
            if let Some(due) = rig.book.links().lost(home, closes) {
                rig.book.now = due;
                rig.book.nodes.retry(home);
            }
        }
        // 20 of them at once or at the shortest pause, the rest as after other failures.
        assert!(connections < 60, "{closes} {answers}: {connections}");
        assert!(sent >= connections, "{closes} {answers}: {sent} in {connections}");
        // It has recovered, which takes a connection that lasts.
        rig.act(true);
        rig.book.now += 2_000_000;
        assert_eq!(rig.book.links().lost(home, true), None, "{closes} {answers}");
    }
}
