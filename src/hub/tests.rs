//! The hub in front of a real cluster. The test is the worker, and control.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mio::{Poll, Token as PollToken, Waker};

use super::{Hub, spawn};
use crate::channel::TopicKind;
use crate::cluster::{NodeAddr, Snapshot, UpstreamId, parse_shards, slot_of};
use crate::config::Config;
use crate::mailbox::ToHub;
use crate::mailbox::{ToControl, ToWorker, WorkerHandle};
use crate::pubsub::{GapReason, HubEvent, HubRequest, HubStats, Token, Topic, ident};
use crate::resp::Protocol;
use crate::sandbox::{Cluster, ClusterOptions, Node};

const PATIENCE: Duration = Duration::from_secs(30);

struct Setting {
    cluster: Cluster,
    hub: Hub,
    inbox: mpsc::Receiver<ToWorker>,
    control: tokio::sync::mpsc::UnboundedReceiver<ToControl>,
    handle: WorkerHandle,
    // Its waker needs it.
    _poll: Poll,
    news: Vec<HubEvent>,
    generation: u64,
    uncovered: bool,
    next: u32,
    names: HashMap<u32, String>,
}

impl Setting {
    fn start(options: ClusterOptions) -> Setting {
        let cluster = Cluster::start(options).unwrap();
        let (sender, control) = tokio::sync::mpsc::unbounded_channel();
        let tls = Arc::new(crate::tls::Tls::load(&Config::default()).unwrap());
        let hub = spawn(Arc::new(Config::default()), tls, sender).unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), PollToken(0)).unwrap());
        let (sender, inbox) = mpsc::channel();
        let handle = WorkerHandle::new(sender, waker, Arc::default());
        hub.handle.send(ToHub::Worker { index: 7, handle: handle.clone() }).unwrap();
        let (news, names) = (Vec::new(), HashMap::new());
        let mut setting = Setting {
            cluster,
            hub,
            inbox,
            control,
            handle,
            _poll: poll,
            news,
            generation: 0,
            uncovered: false,
            next: 0,
            names,
        };
        setting.tell_topology();
        setting
    }

    fn with_notifications() -> Setting {
        let conf = vec!["notify-keyspace-events KEA".to_owned()];
        Setting::start(ClusterOptions { conf, ..ClusterOptions::default() })
    }

    fn snapshot(&mut self) -> Snapshot {
        let ask = |node: &Node| {
            let mut conn = self.cluster.connect(node).ok()?;
            conn.send(&["CLUSTER", "SHARDS"]).ok()?;
            let reply = conn.receive_raw().ok()?;
            let asked = NodeAddr { host: "127.0.0.1".into(), port: node.addr.port() };
            parse_shards(&reply, &asked).ok()
        };
        let nodes = self.cluster.nodes().unwrap();
        let mut snapshot = nodes.iter().find_map(ask).expect("a node that answers");
        for node in &mut snapshot.nodes {
            node.socket = Some(format!("{}", node.addr).parse().unwrap());
        }
        self.generation += 1;
        snapshot.generation = self.generation;
        snapshot
    }

    fn tell_topology(&mut self) {
        let snapshot = Arc::new(self.snapshot());
        self.uncovered = !snapshot.covered();
        self.hub.handle.send(ToHub::Topology(snapshot)).unwrap();
    }

    fn wish(&self, wish: HubRequest) {
        self.hub.handle.send(ToHub::Wishes { worker: 7, wishes: vec![wish] }).unwrap();
    }

    fn subscribe(&mut self, kind: TopicKind, name: &str) -> Token {
        self.next += 1;
        let token = Token { index: self.next, generation: 1 };
        self.names.insert(token.index, name.to_owned());
        self.wish(HubRequest::Subscribe {
            token,
            of: UpstreamId::FIRST,
            kind,
            name: name.as_bytes().into(),
        });
        token
    }

    /// Waits for news that `wanted` picks; other news are kept.
    #[track_caller]
    fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&HubEvent) -> Option<T>) -> T {
        let since = Instant::now();
        loop {
            if let Some((i, found)) =
                self.news.iter().enumerate().find_map(|(i, news)| Some((i, wanted(news)?)))
            {
                self.news.remove(i);
                return found;
            }
            assert!(since.elapsed() < PATIENCE, "{what}: {:?}", self.news);
            if let Ok(ToWorker::PubSub(mut batch)) =
                self.inbox.recv_timeout(Duration::from_millis(50))
            {
                self.news.append(&mut batch.news);
            }
            // As control does: when it is asked, and in times of trouble.
            let mut asked = std::mem::take(&mut self.uncovered);
            while let Ok(ToControl::RefreshTopology { .. }) = self.control.try_recv() {
                asked = true;
            }
            if asked {
                self.tell_topology();
            }
        }
    }

    #[track_caller]
    fn live(&mut self, token: Token) -> Arc<Topic> {
        let name = self.names.get(&token.index).cloned().unwrap_or_default();
        self.wait(&format!("{name} is live"), |news| match news {
            HubEvent::Live { token: t, topic } if *t == token => Some(Arc::clone(topic)),
            _ => None,
        })
    }

    #[track_caller]
    fn gap(&mut self, token: Token) {
        let name = self.names.get(&token.index).cloned().unwrap_or_default();
        self.wait(&format!("{name} has a gap"), |news| {
            matches!(news, HubEvent::Gap { token: t } if *t == token).then_some(())
        });
    }

    /// The payloads of the next messages, up to `last`.
    #[track_caller]
    fn payloads(&mut self, token: Token, last: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        while all.last().is_none_or(|l| l != last) {
            all.extend(self.next_payloads(token));
        }
        all
    }

    /// The payloads of the next batch of messages.
    #[track_caller]
    fn next_payloads(&mut self, token: Token) -> Vec<String> {
        let name = self.names.get(&token.index).cloned().unwrap_or_default();
        let bytes = self.wait(&format!("messages on {name}"), |news| match news {
            HubEvent::Messages { token: t, frames } if *t == token => {
                Some(frames.bytes(Protocol::Resp3).to_vec())
            }
            _ => None,
        });
        let mut all = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let mut scan = crate::resp::ReplyScan::default();
            let Ok(crate::resp::ReplyProgress::Complete(n)) = scan.advance(rest) else {
                panic!("broken frames: {:?}", String::from_utf8_lossy(&bytes));
            };
            let (frame, behind) = rest.split_at(n);
            let text = crate::resp::reply::elements(frame).last().unwrap();
            let text = crate::resp::reply::text(text).unwrap();
            all.push(String::from_utf8(text.to_vec()).unwrap());
            rest = behind;
        }
        all
    }

    fn say(&self, node: &Node, args: &[&str]) -> crate::sandbox::Reply {
        self.cluster.connect(node).unwrap().command(args).unwrap()
    }

    fn publish(&self, channel: &str, payload: &str) {
        self.say(&self.any(), &["PUBLISH", channel, payload]);
    }

    fn any(&self) -> Node {
        self.cluster.primaries().unwrap().into_iter().find(|n| n.pid.is_some()).unwrap()
    }

    fn owner(&self, key: &str) -> Node {
        self.cluster.owner_of(slot_of(key.as_bytes())).unwrap()
    }

    fn home(&self, topic: &Topic) -> Node {
        let ident = |n: &Node| {
            ident(&NodeAddr { host: n.addr.ip().to_string().into(), port: n.addr.port() })
        };
        let nodes = self.cluster.nodes().unwrap();
        nodes.into_iter().find(|n| ident(n) == topic.home()).expect("a home")
    }

    fn stats(&self) -> &HubStats {
        &self.hub.stats
    }

    fn gaps(&self, reason: GapReason) -> u64 {
        self.stats().gaps[reason as usize].load(Relaxed)
    }

    fn all_gaps(&self) -> u64 {
        self.stats().gaps.iter().map(|n| n.load(Relaxed)).sum()
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = self.hub.handle.send(ToHub::Stop);
    }
}

#[test]
fn messages_come_once_and_in_order() {
    let mut s = Setting::start(ClusterOptions::default());
    let channel = s.subscribe(TopicKind::Channel, "news");
    let pattern = s.subscribe(TopicKind::Pattern, "ne*");
    let shard = s.subscribe(TopicKind::Shard, "sharded");
    let topic = s.live(channel);
    assert!(topic.is_live() && topic.upstream() == 1 && topic.home() != 0);
    s.live(pattern);
    s.live(shard);
    let expected: Vec<String> = (0..500).map(|i| format!("m{i}")).collect();
    let node = s.any();
    let mut conn = s.cluster.connect(&node).unwrap();
    let commands: Vec<Vec<&str>> = expected.iter().map(|m| vec!["PUBLISH", "news", m]).collect();
    conn.pipeline(&commands).unwrap();
    assert_eq!(s.payloads(channel, "m499"), expected);
    assert_eq!(s.payloads(pattern, "m499"), expected);
    s.say(&s.owner("sharded"), &["SPUBLISH", "sharded", "hello"]);
    assert_eq!(s.payloads(shard, "hello"), ["hello"]);
    let stats = s.stats();
    let of =
        |counts: &[std::sync::atomic::AtomicU64; 3]| counts.each_ref().map(|n| n.load(Relaxed));
    assert_eq!(of(&stats.messages), [500, 500, 1]);
    assert_eq!((of(&stats.topics), of(&stats.upstream)), ([1, 1, 1], [1, 1, 1]));
    // A topic without listeners is unsubscribed from at the node.
    let home = s.home(&topic);
    s.wish(HubRequest::Unsubscribe { token: channel });
    s.wait("news is forgotten", |n| {
        matches!(n, HubEvent::Forgotten(t) if *t.name == *b"news").then_some(())
    });
    let since = Instant::now();
    while s.say(&home, &["PUBSUB", "CHANNELS", "news"]).items().is_some_and(|i| !i.is_empty()) {
        assert!(since.elapsed() < PATIENCE, "the node still has it");
    }
    assert_eq!(s.all_gaps(), 0);
}

#[test]
fn a_large_message_and_many_small_ones() {
    // A large message on the cluster's bus may be lost where nodes are slow: it takes so long that
    // they lose sight of each other. Where it is published there is no way to take.
    let node_timeout = PATIENCE;
    let mut s = Setting::start(ClusterOptions { node_timeout, ..ClusterOptions::default() });
    let token = s.subscribe(TopicKind::Channel, "large");
    let home = s.live(token);
    let home = s.home(&home);
    let large = "x".repeat(20 << 20); // nodes close a subscriber at 32 MiB
    for payload in ["before", &large, "after"] {
        s.say(&home, &["PUBLISH", "large", payload]);
    }
    let all = s.payloads(token, "after");
    assert_eq!(all.len(), 3);
    assert!(all[0] == "before" && all[1] == large);
    assert_eq!(s.stats().held.load(Relaxed), 0);
}

#[test]
fn notifications_come_from_every_primary_once() {
    let mut s = Setting::with_notifications();
    let narrow = s.subscribe(TopicKind::Pattern, "__keyspace@0__:*");
    let event = s.subscribe(TopicKind::Channel, "__keyevent@0__:set");
    let broad = s.subscribe(TopicKind::Pattern, "*");
    let topic = s.live(narrow);
    assert!(topic.everywhere);
    assert_eq!((topic.home(), topic.upstream()), (0, 3));
    s.live(event);
    let topic = s.live(broad);
    assert!(topic.everywhere && topic.home() != 0);
    assert_eq!(topic.upstream(), 1);
    let keys: Vec<String> = (0..60).map(|i| format!("k{i}")).collect();
    for key in &keys {
        s.say(&s.owner(key), &["SET", key, "v"]);
    }
    // Ordinary messages reach a broad pattern, too, and once.
    s.publish("ordinary", "done");
    let mut set = Vec::new();
    while set.len() < keys.len() {
        set.extend(s.payloads(event, "k59"));
    }
    set.sort();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(set, sorted);
    // keyspace says "set"; keyevent says the key; and the ordinary message.
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut count = 0;
    while count < 2 * keys.len() + 1 {
        let bytes = s.wait(&format!("all for * ({count})"), |news| match news {
            HubEvent::Messages { token, frames } if *token == broad => {
                Some((frames.count(), frames.bytes(Protocol::Resp3).to_vec()))
            }
            _ => None,
        });
        count += bytes.0;
        for part in String::from_utf8_lossy(&bytes.1).split(">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n") {
            *seen.entry(part.to_owned()).or_default() += 1;
        }
    }
    seen.remove("");
    assert_eq!(seen.len(), 2 * keys.len() + 1);
    assert!(seen.values().all(|&n| n == 1), "{seen:?}");
    assert_eq!(s.all_gaps(), 0);
}

#[test]
fn a_killed_node_is_replaced_at_once() {
    let mut s = Setting::with_notifications();
    let tokens: Vec<Token> =
        (0..30).map(|i| s.subscribe(TopicKind::Channel, &format!("c{i}"))).collect();
    let broad = s.subscribe(TopicKind::Pattern, "?*");
    let topics: Vec<Arc<Topic>> = tokens.iter().map(|&t| s.live(t)).collect();
    s.live(broad);
    let victim = s.home(&topics[0]);
    let ident = topics[0].home();
    let lost: Vec<usize> = (0..30).filter(|&i| topics[i].home() == ident).collect();
    s.cluster.kill(&victim).unwrap();
    let mut moved = 0;
    for (i, &token) in tokens.iter().enumerate() {
        if lost.contains(&i) {
            s.gap(token);
            s.live(token);
            moved += 1;
        }
    }
    assert!(moved > 0);
    // The broad pattern needs the new primary.
    s.gap(broad);
    s.live(broad);
    for (i, topic) in topics.iter().enumerate() {
        assert!(topic.is_live() && topic.home() != ident && topic.upstream() == 1, "c{i}");
        s.publish(&format!("c{i}"), "again");
        assert_eq!(s.payloads(tokens[i], "again"), ["again"]);
    }
    let key = "notified";
    s.say(&s.owner(key), &["SET", key, "v"]);
    s.payloads(broad, key);
    assert_eq!(s.all_gaps(), moved + 1);
    assert!(s.stats().resubscriptions.load(Relaxed) == moved + 1);
}

#[test]
fn a_frozen_node_is_found_by_itself() {
    let mut s = Setting::start(ClusterOptions::default());
    let token = s.subscribe(TopicKind::Channel, "c");
    let topic = s.live(token);
    let node = s.home(&topic);
    s.cluster.pause(&node).unwrap();
    s.gap(token);
    s.live(token);
    assert_ne!(s.home(&topic).id, node.id);
    s.cluster.resume(&node).unwrap();
    s.publish("c", "one");
    s.publish("c", "two");
    assert_eq!(s.payloads(token, "two"), ["one", "two"]);
    assert_eq!(s.gaps(GapReason::ConnectionLost), 1);
}

#[test]
fn a_failover_moves_notifications_and_nothing_else() {
    let mut s = Setting::with_notifications();
    let plain = s.subscribe(TopicKind::Channel, "plain");
    let narrow = s.subscribe(TopicKind::Pattern, "__keyevent@0__:*");
    let plain_topic = s.live(plain);
    let topic = s.live(narrow);
    let home = s.home(&plain_topic);
    let replica = s.cluster.replicas_of(&home).unwrap().remove(0);
    s.cluster.failover(&replica).unwrap();
    s.tell_topology();
    s.gap(narrow);
    s.live(narrow);
    assert_eq!(topic.upstream(), 3);
    assert_eq!(s.gaps(GapReason::NewPrimary), 1);
    let slot = s.cluster.node(&replica.id).unwrap().slots;
    let slot = *slot[0].start();
    let key = (0..).map(|i| format!("k{i}")).find(|k| slot_of(k.as_bytes()).0 == slot).unwrap();
    s.say(&s.owner(&key), &["SET", &key, "v"]);
    s.say(&s.owner(&key), &["DEL", &key]);
    s.say(&s.owner("last"), &["SET", "last", "v"]);
    // The old primary says the same as a replica: once is enough. (Other nodes' messages may come
    // in between.)
    let mut all = Vec::new();
    while all.len() < 3 {
        let next = s.next_payloads(narrow);
        all.extend(next);
    }
    // Behind a later message of the old primary's there is none left on the way.
    s.cluster.catch_up(&s.cluster.node(&home.id).unwrap()).unwrap();
    s.publish("plain", "fence");
    s.payloads(plain, "fence");
    s.say(&s.owner(&key), &["SET", &key, "v"]);
    all.extend(s.next_payloads(narrow));
    all.sort();
    let mut expected = vec![key.clone(), key.clone(), key.clone(), "last".to_owned()];
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(s.home(&plain_topic).id, home.id);
    s.publish("plain", "still");
    assert_eq!(s.payloads(plain, "still"), ["still"]);
    assert_eq!(s.all_gaps(), 1);
}

#[test]
fn a_shard_channel_follows_its_slot() {
    let mut s = Setting::start(ClusterOptions::default());
    let token = s.subscribe(TopicKind::Shard, "moving");
    let topic = s.live(token);
    let slot = slot_of(b"moving");
    let from = s.cluster.owner_of(slot).unwrap();
    let to = s.cluster.primaries().unwrap().into_iter().find(|n| n.id != from.id).unwrap();
    assert_eq!(s.home(&topic).id, from.id);
    s.cluster.move_slot(slot, &from, &to).unwrap();
    s.gap(token);
    s.live(token);
    assert_eq!(s.home(&topic).id, to.id);
    s.say(&to, &["SPUBLISH", "moving", "there"]);
    assert_eq!(s.payloads(token, "there"), ["there"]);
    assert_eq!((s.gaps(GapReason::SlotMoved), s.all_gaps()), (1, 1));
}

#[test]
fn what_the_cluster_does_not_allow_is_refused() {
    let mut s = Setting::start(ClusterOptions::default());
    for node in s.cluster.nodes().unwrap() {
        s.say(&node, &["ACL", "SETUSER", "default", "resetchannels", "&ok*", "&\\*"]);
    }
    let no = s.subscribe(TopicKind::Channel, "secret");
    let ok = s.subscribe(TopicKind::Channel, "okay");
    let text = s.wait("secret is refused", |news| match news {
        HubEvent::Refused { token, text } if *token == no => Some(text.clone()),
        _ => None,
    });
    assert!(text.starts_with("NOPERM"), "{text}");
    s.live(ok);
}

#[test]
fn after_a_failure_of_its_own_it_begins_anew() {
    let mut s = Setting::start(ClusterOptions::default());
    let token = s.subscribe(TopicKind::Channel, "c");
    let old = s.live(token);
    s.hub.handle.send(ToHub::Fail).unwrap();
    s.wait("the hub has failed", |n| matches!(n, HubEvent::Restarted).then_some(()));
    assert!(!old.is_live());
    s.wish(HubRequest::Subscribe {
        token,
        of: UpstreamId::FIRST,
        kind: TopicKind::Channel,
        name: b"c".as_slice().into(),
    });
    let topic = s.live(token);
    assert!(!Arc::ptr_eq(&old, &topic));
    s.publish("c", "again");
    assert_eq!(s.payloads(token, "again"), ["again"]);
    assert_eq!((s.stats().restarts.load(Relaxed), s.gaps(GapReason::HubFailed)), (1, 1));
    // A worker that starts late is told the known topics.
    s.hub.handle.send(ToHub::Worker { index: 8, handle: s.handle.clone() }).unwrap();
    s.wait("known", |n| matches!(n, HubEvent::Known(t) if Arc::ptr_eq(t, &topic)).then_some(()));
}
