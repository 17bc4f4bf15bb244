//! Everything at once: clients of every kind work while slots move, primaries change, die and come
//! back, connections are cut and scripts forgotten. Then the books are balanced: what was
//! acknowledged is there, nothing was done twice, nothing is out of order, nobody hangs, nothing
//! is left lent.
//!
//! Each client knows, for every key that it alone writes, what the key can be: what was
//! acknowledged, and at most as much more as ended with an unknown outcome. Primaries are killed
//! once their replicas have everything (writes are paused for that), so Redis itself loses nothing.
//! What Redis loses otherwise: `tests/redirection.rs`.
//!
//! `CHAOS_SEED` repeats the order of the disturbances, `CHAOS_SECONDS` says how long (15).

use crate::common::errors::is_outcome_unknown;
use crate::common::{self, Proxy, Setting};
use slotway::cluster::{Slot, slot_of};
use slotway::sandbox::{Cluster, Conn, Node, Reply};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

/// `timeouts.command`, and within what more every reply must be there. A failover on a busy machine
/// may take longer than 10 s.
const COMMAND: Duration = Duration::from_secs(30);
const SLACK: Duration = Duration::from_secs(3);

/// Clients of each kind; each counter, queue and log has a slot of its own, which moves.
const COUNTERS: usize = 3;
const SCRIPTS: usize = 2;
const PIPELINES: usize = 2;
const QUEUES: usize = 3;
/// Several clients compete by WATCH for each of these.
const WATCHED: usize = 2;
const WATCHERS: usize = 4;
/// Keys that are there all the time, in slots that stay where they are.
const STATIC: usize = 500;

#[test]
fn nothing_is_lost_or_done_twice_whatever_happens() {
    let seed = from_env("CHAOS_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the time");
        now.as_nanos() as u64
    });
    let lasts = Duration::from_secs(from_env("CHAOS_SECONDS").unwrap_or(15));
    eprintln!("CHAOS_SEED={seed}");
    let command = format!("timeouts.command={}s", COMMAND.as_secs());
    let Setting { proxy, cluster } = common::setting(&["--workers", "2", "--set", &command]);
    let stage = Stage::new(proxy.listen);
    let statics = write_statics(&stage);
    let mut unknown = 0;
    thread::scope(|scope| {
        let stage = &stage;
        let end = OnDrop(stage);
        let start = |act: fn(Client, usize) -> usize, name: &str, i: usize| {
            let client = stage.client(&format!("{name} {i}"));
            scope.spawn(move || act(client, i))
        };
        let mut clients: Vec<ScopedJoinHandle<usize>> = Vec::new();
        clients.extend((0..COUNTERS).map(|i| start(transactions, "transactions", i)));
        clients.extend((0..SCRIPTS).map(|i| start(scripts, "scripts", i)));
        clients.extend((0..PIPELINES).map(|i| start(pipelines, "pipelines", i)));
        let watchers: Vec<_> = (0..WATCHERS)
            .map(|i| (i, stage.client(&format!("watcher {i}"))))
            .map(|(i, client)| scope.spawn(move || watch(client, i)))
            .collect();
        let scanner = stage.client("scanner");
        let statics = &statics;
        clients.push(scope.spawn(move || scan(scanner, statics)));
        let queues: Vec<_> = (0..QUEUES)
            .map(|i| {
                let producer = stage.client(&format!("producer {i}"));
                let producer = scope.spawn(move || produce(producer, i));
                let consumers: Vec<_> = (0..consumers(i))
                    .map(|c| (c, stage.client(&format!("consumer {c} of queue {i}"))))
                    .map(|(c, client)| scope.spawn(move || consume(client, i, c)))
                    .collect();
                (producer, consumers)
            })
            .collect();

        stage.all_go_on("at first");
        let nuisance = scope.spawn(|| nuisance(stage, &cluster, seed));
        upheaval(stage, &cluster, seed, lasts);
        stage.calm.store(true, Ordering::Relaxed);
        nuisance.join().expect("the nuisance");
        cluster.settle().expect("a settled cluster");
        stage.all_go_on("at last");
        stage.over.store(true, Ordering::Relaxed);

        unknown += clients.into_iter().map(|c| c.join().expect("a client")).sum::<usize>();
        unknown += check_watched(stage, watchers.into_iter().map(|w| w.join().expect("a watcher")));
        let mut all = Vec::new();
        for (producer, consumers) in queues {
            all.push((producer.join().expect("a producer"), consumers));
        }
        stage.produced.store(true, Ordering::Relaxed);
        for (i, (pushed, consumers)) in all.into_iter().enumerate() {
            let got = consumers.into_iter().map(|c| c.join().expect("a consumer")).collect();
            unknown += pushed.values().filter(|push| !push.acknowledged).count();
            stage.check_queue(i, &pushed, got);
        }
        drop(end);
    });
    stage.report(unknown);
    check_metrics(&proxy, unknown);
}

// ------------------------------------------------------------------------------------------------
// The disturbances.

/// What concerns nodes and slots, one after the other: rounds in random order until time is over.
fn upheaval(stage: &Stage, cluster: &Cluster, seed: u64, lasts: Duration) {
    let until = Instant::now() + lasts;
    let mut random = Random::new(seed);
    while Instant::now() < until {
        let mut acts = [move_slots, fail_over, kill_a_primary, move_slots];
        for i in (1..acts.len()).rev() {
            acts.swap(i, random.below(i + 1));
        }
        for act in acts {
            if !stage.broken.load(Ordering::Relaxed) {
                act(stage, cluster, &mut random);
            }
        }
    }
}

/// Every slot that the clients write to goes to another primary, some with their keys at two nodes
/// for a while.
fn move_slots(stage: &Stage, cluster: &Cluster, random: &mut Random) {
    for slot in moving() {
        let since = Instant::now();
        let from = cluster.owner_of(slot).expect("the owner");
        let mut others = cluster.primaries().expect("primaries");
        others.retain(|node| node.id != from.id && node.slot_count() > 0);
        let to = others.swap_remove(random.below(others.len()));
        cluster.begin_move(slot, &from, &to).expect("to begin");
        if random.below(2) == 0 {
            cluster.move_keys(slot, &from, &to, 1).expect("to move a key");
            thread::sleep(Duration::from_millis(30));
        }
        while cluster.move_keys(slot, &from, &to, 10).expect("to move keys") > 0 {}
        cluster.finish_move(slot, &from, &to).expect("to finish");
        let what = format!("slot moved: {} from {} to {}", slot.0, from.addr, to.addr);
        stage.note(&what, since);
    }
}

fn fail_over(stage: &Stage, cluster: &Cluster, random: &mut Random) {
    let since = Instant::now();
    let (_, replica) = a_pair(cluster, random);
    cluster.failover(&replica).expect("a failover");
    stage.note(&format!("failover: {} leads", replica.addr), since);
}

/// SIGKILL; its replica takes over; it comes back, empty.
fn kill_a_primary(stage: &Stage, cluster: &Cluster, random: &mut Random) {
    let since = Instant::now();
    let (primary, replica) = a_pair(cluster, random);
    let mut conn = cluster.connect(&primary).expect("a connection");
    let paused = conn.command(&["CLIENT", "PAUSE", "20000", "WRITE"]).expect("CLIENT PAUSE");
    assert!(paused.is_ok(), "{paused:?}");
    cluster.catch_up(&replica).expect("the replica to catch up");
    cluster.kill(&primary).expect("to kill");
    stage.cut(since);
    stage.note(&format!("killed: {}", primary.addr), since);
    common::eventually("the replica leads", || {
        cluster.node(&replica.id).is_ok_and(|node| node.is_primary() && node.slot_count() > 0)
    });
    stage.note(&format!("it leads: {}", replica.addr), since);
    cluster.restart(&primary).expect("to restart");
    stage.note(&format!("restarted: {}", primary.addr), since);
    cluster.settle().expect("a settled cluster");
    stage.note(&format!("killed and back: {}", primary.addr), since);
}

/// A primary and its replica.
fn a_pair(cluster: &Cluster, random: &mut Random) -> (Node, Node) {
    let mut primaries = cluster.primaries().expect("primaries");
    primaries.retain(|node| node.slot_count() > 0);
    let primary = primaries.swap_remove(random.below(primaries.len()));
    let replica = cluster.replicas_of(&primary).expect("replicas").remove(0);
    (primary, replica)
}

/// What concerns connections and scripts, all the time beside [`upheaval`].
fn nuisance(stage: &Stage, cluster: &Cluster, seed: u64) {
    let mut random = Random::new(!seed);
    while !stage.calm.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100 + random.below(400) as u64));
        let Ok(nodes) = cluster.nodes() else { continue };
        let node = &nodes[random.below(nodes.len())];
        // It may be dead.
        let Ok(mut conn) = cluster.connect(node) else { continue };
        let since = Instant::now();
        if random.below(2) == 0 {
            let _ = conn.command(&["SCRIPT", "FLUSH"]);
            stage.note(&format!("scripts flushed: {}", node.addr), since);
        } else if cut_connections(&mut conn).is_some() {
            stage.cut(since);
            stage.note(&format!("connections cut: {}", node.addr), since);
        }
    }
}

/// Kills slotway's connections to a node; CLIENT KILL TYPE normal would hit [`upheaval`]'s as well,
/// which have no name.
fn cut_connections(conn: &mut Conn) -> Option<()> {
    let list = conn.command(&["CLIENT", "LIST", "TYPE", "normal"]).ok()?.text()?;
    let named = list.lines().filter(|line| !line.contains(" name= "));
    let ids: Vec<&str> =
        named.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
    let kills: Vec<Vec<&str>> = ids.iter().map(|id| vec!["CLIENT", "KILL", "ID", id]).collect();
    conn.pipeline(&kills).ok().map(|_| ())
}

// ------------------------------------------------------------------------------------------------
// The clients. Each returns how many outcomes were unknown, or what it has to say.

/// MULTI, INCR a, INCR b, EXEC.
fn transactions(mut client: Client, i: usize) -> usize {
    let (a, b) = (format!("{{counter{i}}}a"), format!("{{counter{i}}}b"));
    let mut count = Count::default();
    while client.goes_on() {
        let commands = [vec!["MULTI"], vec!["INCR", &a], vec!["INCR", &b], vec!["EXEC"]];
        match client.pipeline(&commands).remove(3) {
            Reply::Array(both) if both.len() == 2 && both[0] == both[1] => {
                count.done(&client.name, &both[0]);
            }
            other => count.unknown(&client.name, &other),
        }
    }
    let (last, other) = (client.number(&a), client.number(&b));
    assert_eq!(last, other, "{}: half a transaction was executed", client.name);
    count.check(&client.name, last);
    count.unknown
}

/// INCR by EVALSHA, of a script that all nodes are made to forget, and by EVAL.
fn scripts(mut client: Client, i: usize) -> usize {
    let script = format!("return redis.call('INCR', KEYS[1]) -- {i}");
    let sha = client.command(&["SCRIPT", "LOAD", &script]).text().expect("a digest");
    let key = format!("{{script{i}}}n");
    let mut count = Count::default();
    while client.goes_on() {
        for command in [["EVALSHA", &sha, "1", &key], ["EVAL", &script, "1", &key]] {
            let since = Instant::now();
            match client.command(&command) {
                reply @ Reply::Int(_) => count.done(&client.name, &reply),
                other => {
                    count.unknown(
                        &format!("{} {}", client.name, client.stage.meanwhile(since)),
                        &other,
                    );
                }
            }
        }
    }
    let last = client.number(&key);
    count.check(&client.name, last);
    count.unknown
}

/// Bursts over several slots: counters that are read back, and lists of numbered lines.
fn pipelines(mut client: Client, i: usize) -> usize {
    const KEYS: usize = 4;
    let key = |k: usize| format!("{{pipeline{i}-{k}}}");
    let keys: Vec<[String; 2]> =
        (0..KEYS).map(|k| [format!("{}n", key(k)), format!("{}log", key(k))]).collect();
    let mut counts: Vec<Count> = (0..KEYS).map(|_| Count::default()).collect();
    let mut sure: Vec<Vec<i64>> = vec![Vec::new(); KEYS];
    let (mut lines, mut unknown) = (0, 0);
    while client.goes_on() {
        let numbers: Vec<String> = (lines..lines + 2 * KEYS).map(|n| n.to_string()).collect();
        let mut burst: Vec<Vec<&str>> = Vec::new();
        for (line, number) in numbers.iter().enumerate() {
            let [n, log] = &keys[line % KEYS];
            burst.extend([vec!["INCR", n], vec!["GET", n], vec!["RPUSH", log, number]]);
        }
        let replies = client.pipeline(&burst);
        for (line, replies) in replies.chunks(3).enumerate() {
            let count = &mut counts[line % KEYS];
            match &replies[0] {
                reply @ Reply::Int(_) => count.done(&client.name, reply),
                other => count.unknown(&client.name, other),
            }
            match as_number(&replies[1]) {
                Some(got) => count.check(&client.name, got),
                // It is not read again behind a later write that may have been executed.
                None => {
                    assert_unknown(&client.name, &replies[1]);
                    assert_unknown(&client.name, &replies[2]);
                    unknown += 1;
                }
            }
            match &replies[2] {
                Reply::Int(_) => sure[line % KEYS].push((lines + line) as i64),
                other => {
                    assert_unknown(&client.name, other);
                    unknown += 1;
                }
            }
        }
        lines += 2 * KEYS;
    }
    for (k, count) in counts.iter().enumerate() {
        let [n, log] = &keys[k];
        let last = client.number(n);
        count.check(&client.name, last);
        let log = client.command(&["LRANGE", log, "0", "-1"]);
        let log: Vec<i64> = log.items().expect("a list").iter().filter_map(as_number).collect();
        let name = &client.name;
        assert!(log.windows(2).all(|w| w[0] < w[1]), "{name}: not in order, or twice: {log:?}");
        let there: BTreeSet<i64> = log.into_iter().collect();
        let lost: Vec<_> = sure[k].iter().filter(|n| !there.contains(n)).collect();
        assert!(lost.is_empty(), "{name}: acknowledged and not there: {lost:?}");
        unknown += count.unknown;
    }
    unknown
}

/// What a watcher did: the numbers that it set, per key, and how often it does not know.
type Watched = ([Vec<i64>; WATCHED], [usize; WATCHED]);

/// WATCH, GET, MULTI, SET, INCR, EXEC: counts up unless somebody else does.
fn watch(mut client: Client, i: usize) -> Watched {
    let mut set: [Vec<i64>; WATCHED] = Default::default();
    let mut unknown = [0; WATCHED];
    let mut turn = i;
    while client.goes_on() {
        turn = (turn + 1) % WATCHED;
        let (a, b) = (format!("{{watched{turn}}}a"), format!("{{watched{turn}}}b"));
        let watch = client.command(&["WATCH", &a]);
        assert!(watch.is_ok(), "{}: WATCH: {watch:?}", client.name);
        let next = client.number(&a) + 1;
        let text = next.to_string();
        let commands = [vec!["MULTI"], vec!["SET", &a, &text], vec!["INCR", &b], vec!["EXEC"]];
        match client.pipeline(&commands).remove(3) {
            Reply::Nil => {}
            Reply::Array(results) => {
                let name = &client.name;
                assert_eq!(results.get(1), Some(&Reply::Int(next)), "{name}: another slipped in");
                set[turn].push(next);
            }
            other => {
                assert_unknown(&client.name, &other);
                unknown[turn] += 1;
            }
        }
    }
    (set, unknown)
}

/// Each number was set by one watcher only, and the keys have what they then must have.
fn check_watched(stage: &Stage, watchers: impl Iterator<Item = Watched>) -> usize {
    let mut client = stage.client("the watchers' judge");
    let watchers: Vec<Watched> = watchers.collect();
    let mut all = 0;
    for key in 0..WATCHED {
        let mut set: Vec<i64> = watchers.iter().flat_map(|(set, _)| set[key].clone()).collect();
        let unknown: usize = watchers.iter().map(|(_, unknown)| unknown[key]).sum();
        let successes = set.len();
        set.sort_unstable();
        set.dedup();
        assert_eq!(set.len(), successes, "two watchers set the same number");
        let [a, b] = ["a", "b"].map(|name| client.number(&format!("{{watched{key}}}{name}")));
        assert_eq!(a, b, "half a transaction was executed");
        let count = Count { least: successes as i64, most: (successes + unknown) as i64, unknown };
        count.check("watchers", a);
        all += unknown;
    }
    all
}

/// SCAN, again and again: every key that is there all the time, each time.
fn scan(mut client: Client, statics: &BTreeSet<Vec<u8>>) -> usize {
    const CALLS: usize = 2_000;
    while client.goes_on() {
        let since = Instant::now();
        let (mut cursor, mut seen, mut calls) = ("0".to_owned(), BTreeSet::new(), String::new());
        for call in 0.. {
            assert!(call < CALLS, "SCAN does not end");
            let reply = client.command(&["SCAN", &cursor, "COUNT", "50"]);
            let Some([next, keys]) = reply.items() else { panic!("SCAN {cursor}: {reply:?}") };
            for key in keys.items().expect("keys") {
                let Reply::Bulk(key) = key else { panic!("SCAN {cursor}: {reply:?}") };
                seen.insert(key.clone());
            }
            cursor = next.text().expect("a cursor");
            let (count, at) = (keys.items().map_or(0, <[Reply]>::len), since.elapsed());
            calls.push_str(&format!("\n  {at:.3?}: {count} keys, then {cursor}"));
            if cursor == "0" {
                break;
            }
        }
        let missed: Vec<_> =
            statics.difference(&seen).map(|key| String::from_utf8_lossy(key)).collect();
        let (count, meanwhile) = (missed.len(), client.stage.meanwhile(since));
        assert!(missed.is_empty(), "SCAN has missed {count} keys, {meanwhile}{calls}");
    }
    0
}

/// An item of a queue.
struct Push {
    at: Instant,
    acknowledged: bool,
}

fn consumers(queue: usize) -> usize {
    1 + queue % 2
}

/// RPUSH of numbered items.
fn produce(mut client: Client, queue: usize) -> BTreeMap<i64, Push> {
    let key = format!("{{queue{queue}}}");
    let mut pushed = BTreeMap::new();
    let mut item = 0;
    while client.goes_on() {
        item += 1;
        let at = Instant::now();
        let reply = client.command(&["RPUSH", &key, &item.to_string()]);
        let acknowledged = matches!(reply, Reply::Int(_));
        if !acknowledged {
            assert_unknown(&client.name, &reply);
        }
        pushed.insert(item, Push { at, acknowledged });
    }
    pushed
}

/// BLPOP until the producers have ended and nothing is left.
fn consume(mut client: Client, queue: usize, consumer: usize) -> Vec<(i64, Instant)> {
    let key = format!("{{queue{queue}}}");
    let timeout = if consumer == 0 { "0.3" } else { "1" };
    let mut got = Vec::new();
    loop {
        let last = client.stage.produced.load(Ordering::Relaxed);
        let reply = if queue == 0 {
            client.command(&["BLMPOP", timeout, "1", &key, "LEFT", "COUNT", "1"])
        } else {
            client.command(&["BLPOP", &key, timeout])
        };
        let item = match &reply {
            Reply::Nil if last => return got,
            Reply::Nil => continue,
            Reply::Array(both) if both.len() == 2 => match both[1].items() {
                Some(items) => as_number(&items[0]),
                None => as_number(&both[1]),
            },
            _ => None,
        };
        let item = item.unwrap_or_else(|| panic!("{}: {reply:?}", client.name));
        got.push((item, Instant::now()));
        client.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Stage {
    /// In order, none twice, none lost but in the moment in which a connection was: documented for
    /// blocking commands, at most one item for each consumer and loss.
    fn check_queue(
        &self,
        queue: usize,
        pushed: &BTreeMap<i64, Push>,
        got: Vec<Vec<(i64, Instant)>>,
    ) {
        let mut received: BTreeMap<i64, Instant> = BTreeMap::new();
        for got in &got {
            assert!(got.windows(2).all(|w| w[0].0 < w[1].0), "queue {queue} is out of order");
            for (item, at) in got {
                assert!(pushed.contains_key(item), "queue {queue}: {item} was never pushed");
                assert!(received.insert(*item, *at).is_none(), "queue {queue}: {item} came twice");
            }
        }
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = vec![consumers(queue); cuts.len()];
        let mut lost = 0;
        for (item, push) in pushed {
            if received.contains_key(item) || !push.acknowledged {
                continue;
            }
            // It was taken before any later one was received.
            let later = received.range(item..).map(|(_, at)| *at);
            let until = later.min().unwrap_or_else(Instant::now);
            let mut moments = cuts.iter().zip(&mut left);
            let moment = moments
                .find(|((from, to), left)| push.at <= *to && *from <= until && **left > 0)
                .map(|(_, left)| *left -= 1);
            assert!(moment.is_some(), "queue {queue}: {item} was acknowledged and is lost");
            lost += 1;
        }
        eprintln!(
            "queue {queue}: {} pushed, {} received, {lost} lost",
            pushed.len(),
            received.len()
        );
        assert!(received.len() > 100, "queue {queue}: only {} items came", received.len());
    }
}

// ------------------------------------------------------------------------------------------------
// What they have in common.

/// What a counter that only one client increments can be.
#[derive(Default)]
struct Count {
    least: i64,
    most: i64,
    unknown: usize,
}

impl Count {
    /// Incremented, to this.
    #[track_caller]
    fn done(&mut self, name: &str, to: &Reply) {
        let to = to.int().unwrap_or_else(|| panic!("{name}: {to:?}"));
        let (least, most) = (self.least + 1, self.most + 1);
        assert!((least..=most).contains(&to), "{name}: {to}, not from {least} to {most}");
        (self.least, self.most) = (to, to);
    }

    /// Incremented or not.
    #[track_caller]
    fn unknown(&mut self, name: &str, reply: &Reply) {
        assert_unknown(name, reply);
        self.most += 1;
        self.unknown += 1;
    }

    #[track_caller]
    fn check(&self, name: &str, is: i64) {
        let Count { least, most, .. } = self;
        assert!((*least..=*most).contains(&is), "{name}: {is}, not from {least} to {most}");
    }
}

/// The one error that a write may be answered with.
#[track_caller]
fn assert_unknown(name: &str, reply: &Reply) {
    assert!(reply.error().is_some_and(is_outcome_unknown), "{name}: {reply:?}");
}

fn as_number(reply: &Reply) -> Option<i64> {
    if *reply == Reply::Nil { Some(0) } else { reply.text()?.parse().ok() }
}

/// What all threads know.
struct Stage {
    addr: SocketAddr,
    /// The disturbances are over.
    calm: AtomicBool,
    /// The clients are to end, but for the consumers,
    over: AtomicBool,
    /// who end with the last item.
    produced: AtomicBool,
    /// A thread has failed.
    broken: AtomicBool,
    /// How much each client has done.
    done: Mutex<Vec<(String, Arc<AtomicUsize>)>>,
    /// When connections were lost.
    cuts: Mutex<Vec<(Instant, Instant)>>,
    /// What happened, from when to when.
    notes: Mutex<Vec<(String, Instant, Instant)>>,
}

impl Stage {
    fn new(addr: SocketAddr) -> Stage {
        let no = || AtomicBool::new(false);
        let (calm, over, produced, broken) = (no(), no(), no(), no());
        let (done, cuts, notes) = Default::default();
        Stage { addr, calm, over, produced, broken, done, cuts, notes }
    }

    fn client(&self, name: &str) -> Client<'_> {
        let mut conn = Conn::tcp(self.addr).expect("a connection");
        // Whoever waits longer hangs.
        conn.set_timeout(Some(COMMAND + SLACK)).expect("a timeout");
        let done = Arc::<AtomicUsize>::default();
        let mut all = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() % 2 == 1 {
            assert!(matches!(conn.command(&["HELLO", "3"]), Ok(Reply::Map(_))), "HELLO 3");
        }
        all.push((name.to_owned(), done.clone()));
        Client { stage: self, conn, name: name.to_owned(), done }
    }

    /// Every client has done something more.
    #[track_caller]
    fn all_go_on(&self, when: &str) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let before: Vec<usize> = done.iter().map(|(_, n)| n.load(Ordering::Relaxed)).collect();
        for ((name, done), before) in done.iter().zip(before) {
            common::eventually(&format!("{when}: {name} goes on"), || {
                self.broken.load(Ordering::Relaxed) || done.load(Ordering::Relaxed) > before + 3
            });
        }
    }

    /// Connections were lost since then.
    fn cut(&self, since: Instant) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.push((since, Instant::now()));
    }

    fn note(&self, what: &str, since: Instant) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push((what.to_owned(), since, Instant::now()));
    }

    /// What happened in this time, for the words of a failure.
    fn meanwhile(&self, since: Instant) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let notes = notes.iter().filter(|(_, _, to)| *to > since).map(|(what, from, to)| {
            let from = from.saturating_duration_since(since);
            format!("\n  {from:.3?} to {:.3?}: {what}", to.saturating_duration_since(since))
        });
        format!("in {:.3?}:{}", since.elapsed(), notes.collect::<String>())
    }

    fn report(&self, unknown: usize) {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        notes.iter().for_each(|(what, ..)| {
            *times.entry(what.split(':').next().unwrap_or_default()).or_default() += 1;
        });
        eprintln!("{times:?}");
        for (name, done) in &*self.done.lock().unwrap_or_else(PoisonError::into_inner) {
            eprintln!("{name}: {}", done.load(Ordering::Relaxed));
        }
        eprintln!("unknown outcomes: {unknown}");
    }
}

/// Ends all threads, also when one of them has failed.
struct OnDrop<'a>(&'a Stage);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.calm.store(true, Ordering::Relaxed);
        self.0.over.store(true, Ordering::Relaxed);
        self.0.produced.store(true, Ordering::Relaxed);
    }
}

struct Client<'a> {
    stage: &'a Stage,
    conn: Conn,
    name: String,
    done: Arc<AtomicUsize>,
}

impl Client<'_> {
    /// Between two rounds: the load is to be there, not to be heavy.
    fn goes_on(&self) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(2));
        !self.stage.over.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn command(&mut self, command: &[&str]) -> Reply {
        let reply = self.conn.command(command);
        reply.unwrap_or_else(|e| panic!("{}: {command:?}: {e}", self.name))
    }

    #[track_caller]
    fn pipeline(&mut self, commands: &[Vec<&str>]) -> Vec<Reply> {
        let replies = self.conn.pipeline(commands);
        replies.unwrap_or_else(|e| panic!("{}: {commands:?}: {e}", self.name))
    }

    #[track_caller]
    fn number(&mut self, key: &str) -> i64 {
        let reply = self.command(&["GET", key]);
        as_number(&reply).unwrap_or_else(|| panic!("{}: GET {key}: {reply:?}", self.name))
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.stage.broken.store(true, Ordering::Relaxed);
            // The others' ends must not wait for this one.
            self.stage.over.store(true, Ordering::Relaxed);
            self.stage.produced.store(true, Ordering::Relaxed);
        }
    }
}

/// The slots of all keys that clients write to.
fn moving() -> BTreeSet<Slot> {
    let tags = |name: &'static str, count| (0..count).map(move |i| format!("{name}{i}"));
    let tags = tags("counter", COUNTERS).chain(tags("script", SCRIPTS));
    let tags = tags.chain((0..PIPELINES).map(|i| format!("pipeline{i}-0")));
    let tags = tags.chain((0..QUEUES).map(|i| format!("queue{i}")));
    let tags = tags.chain((0..WATCHED).map(|i| format!("watched{i}")));
    tags.map(|tag| slot_of(tag.as_bytes())).collect()
}

fn write_statics(stage: &Stage) -> BTreeSet<Vec<u8>> {
    let moving = moving();
    let keys = (0..STATIC).map(|i| format!("static:{i}"));
    let keys: Vec<String> = keys.filter(|key| !moving.contains(&slot_of(key.as_bytes()))).collect();
    let mut client = stage.client("the writer");
    let commands: Vec<Vec<&str>> = keys.iter().map(|key| vec!["SET", key, "v"]).collect();
    assert!(client.pipeline(&commands).iter().all(Reply::is_ok));
    stage.done.lock().unwrap_or_else(PoisonError::into_inner).clear();
    keys.into_iter().map(String::into_bytes).collect()
}

/// Nothing is left behind, and the disturbances have disturbed.
fn check_metrics(proxy: &Proxy, unknown: usize) {
    for (what, labels) in [
        ("slotway_dedicated_connections", "state=\"lent\""),
        ("slotway_clients_blocked", ""),
        ("slotway_held_commands", ""),
        ("slotway_upstream_in_flight", ""),
        ("slotway_clients", ""),
    ] {
        common::eventually(&format!("{what} is 0"), || proxy.metric(what, labels) == 0.0);
    }
    for (what, labels) in [
        ("slotway_redirections_total", "kind=\"moved\""),
        ("slotway_redirections_total", "kind=\"ask\""),
        ("slotway_redirections_total", "kind=\"noscript\""),
        ("slotway_upstream_failures_total", ""),
        ("slotway_retries_total", ""),
    ] {
        assert!(proxy.metric(what, labels) > 0.0, "{what} {labels} did not happen");
    }
    assert_eq!(proxy.metric("slotway_deadline_exceeded_total", ""), 0.0, "deadlines");
    assert_eq!(proxy.metric("slotway_outcome_unknown_total", ""), unknown as f64);
}

fn from_env(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Xorshift: enough for an order of things.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }
}
