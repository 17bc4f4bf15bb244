//! Nodes of a cluster are killed between the steps of commands that store or move over several
//! slots, and their replicas take over: what was there is in the source, in the target or in both,
//! and what a client was told is so.
//!
//! Slotway reaches each node through a door, which knows when the step comes that a test names.
//! In that moment the real server behind it gets its SIGKILL, while others of all kinds are under
//! way. Its replica becomes the primary when it has read all that it was sent: what a primary has
//! confirmed and not sent on is lost to Redis itself, see `docs/commands.md`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use slotway::cluster::Slot;
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Node, Reply, Standalone, StandaloneOptions};

use super::relay::{Unit, Units};
use super::steps::{CASES, Keys, State, judge, state};
use crate::common::{self, Proxy};

/// Each case so often, with keys of its own, while one node is killed.
const COPIES: usize = 2;
/// Clients at the same time.
const CLIENTS: usize = 24;

/// When a server is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// It never sees the step.
    Before,
    /// It has carried it out; nobody gets the reply.
    Unanswered,
    /// It has confirmed the step, and is dead before slotway goes on to the next one.
    Answered,
}
use When::{Answered, Before, Unanswered};

/// Of which half of the slots the primary is killed (`S` is in the first, `T` and `U` in the
/// second), and at which command to it: the so many'th of this name.
const KILLS: &[(usize, &str, usize, When)] = &[
    // The target's node, which has just confirmed what is to be removed from the source now.
    (1, "RESTORE", 1, Answered),
    (1, "RPUSH", 2, Answered),
    (1, "SADD", 3, Answered),
    // The source's, which has just lost it, or is about to.
    (0, "EVAL", 2, Unanswered),
    (0, "LREM", 1, Answered),
    (0, "SREM", 2, Before),
    // The target's in the middle of a store.
    (1, "PFMERGE", 1, Unanswered),
    (1, "ZADD", 2, Before),
    // The first half of MSETNX is done.
    (0, "MSETNX", 1, Answered),
    (1, "MSETNX", 1, Unanswered),
];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to happen.
struct Plan {
    /// The node's place among the doors.
    node: usize,
    name: &'static str,
    /// Commands of this name until then.
    left: usize,
    when: When,
}

/// A door before each node, which is told to slotway in the node's place.
struct Doors {
    cluster: Cluster,
    nodes: Vec<Node>,
    ports: Vec<u16>,
    plan: Mutex<Option<Plan>>,
    open: Vec<Mutex<Vec<TcpStream>>>,
}

impl Doors {
    fn start(cluster: Cluster) -> Arc<Doors> {
        let nodes = cluster.nodes().expect("nodes");
        let listeners: Vec<TcpListener> =
            nodes.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let doors = Arc::new(Doors {
            cluster,
            ports: listeners.iter().map(port).collect(),
            plan: Mutex::default(),
            open: nodes.iter().map(|_| Mutex::default()).collect(),
            nodes,
        });
        for (node, listener) in listeners.into_iter().enumerate() {
            let doors = Arc::clone(&doors);
            thread::spawn(move || {
                for near in listener.incoming().flatten() {
                    lock(&doors.open[node]).push(near.try_clone().expect("a handle"));
                    let doors = Arc::clone(&doors);
                    thread::spawn(move || {
                        // It ends when one of the two has had enough.
                        let _ = doors.serve(node, &near);
                        let _ = near.shutdown(Shutdown::Both);
                    });
                }
            });
        }
        doors
    }

    fn seeds(&self) -> String {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    fn serve(&self, node: usize, mut near: &TcpStream) -> std::io::Result<()> {
        near.set_nodelay(true)?;
        let mut far = Conn::tcp(self.nodes[node].addr)?;
        let (mut units, mut buffer) = (Units::default(), vec![0; 64 << 10]);
        loop {
            let n = near.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            units.push(&buffer[..n]);
            while let Some(unit) = units.next() {
                let when = self.is_now(node, &unit);
                if when == Some(Before) {
                    self.kill(node);
                }
                let replies = unit.carried_out(&mut far)?.concat();
                match when {
                    Some(Unanswered) => self.kill(node),
                    Some(_) => {
                        self.cluster.kill(&self.nodes[node]).expect("to kill");
                        near.write_all(&replies)?;
                        self.kill(node);
                    }
                    None => near.write_all(&self.with_doors(replies))?,
                }
            }
        }
    }

    /// Where the plan says that this is the moment, it is over.
    fn is_now(&self, node: usize, unit: &Unit) -> Option<When> {
        let mut plan = lock(&self.plan);
        let of_it = |plan: &&mut Plan| {
            let is = |command: &String| command.split(' ').next() == Some(plan.name);
            plan.node == node && unit.commands.iter().any(is)
        };
        let now = plan.as_mut().filter(of_it)?;
        now.left -= 1;
        if now.left > 0 {
            return None;
        }
        plan.take().map(|plan| plan.when)
    }

    /// SIGKILL; its connections are closed, as the system would.
    fn kill(&self, node: usize) {
        self.cluster.kill(&self.nodes[node]).expect("to kill");
        for stream in lock(&self.open[node]).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ports of nodes in a topology or a redirection become those of their doors.
    fn with_doors(&self, mut reply: Vec<u8>) -> Vec<u8> {
        for (node, door) in self.nodes.iter().zip(&self.ports) {
            let (from, to) = (format!(":{}", node.addr.port()), format!(":{door}"));
            assert_eq!(from.len(), to.len(), "ports of five digits");
            let mut at = 0;
            while let Some(found) =
                reply.get(at..).and_then(|rest| memchr::memmem::find(rest, from.as_bytes()))
            {
                at += found;
                let end = at + from.len();
                // Followed by the line's end, or by the bus port.
                if matches!(reply.get(end), Some(b'\r' | b'@')) {
                    reply[at..end].copy_from_slice(to.as_bytes());
                }
                at = end;
            }
        }
        reply
    }

    /// The primary of this half of the slots.
    fn primary(&self, half: usize) -> Node {
        self.cluster.owner_of(Slot([0, 16383][half])).expect("a primary")
    }

    fn field(&self, node: &Node, field: &str) -> Option<String> {
        let info = self.cluster.connect(node).ok()?.command(&["INFO", "replication"]).ok()?;
        let info = info.text()?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    }

    /// What both halves hold.
    fn state(&self) -> State {
        let mut all = State::new();
        for half in [0, 1] {
            all.extend(state(&mut self.cluster.connect(&self.primary(half)).expect("to connect")));
        }
        all
    }
}

/// One command and its keys.
struct Job {
    case: usize,
    keys: Keys,
    words: Vec<String>,
    wanted: Reply,
    old: State,
    new: State,
}

fn jobs(reference: &Standalone, round: usize) -> Vec<Job> {
    let mut single = reference.connect().expect("a connection");
    single.command(&["FLUSHALL"]).expect("FLUSHALL");
    let each = (0..COPIES).flat_map(|copy| (0..CASES.len()).map(move |case| (copy, case)));
    let mut jobs = Vec::new();
    for (copy, case) in each {
        let keys = Keys::named(case, &format!("{round}.{case}.{copy}."));
        for words in keys.all_words(CASES[case].1) {
            single.command(&words).expect("a reply");
        }
        let words = keys.words(CASES[case].0);
        let (wanted, old, new) = (Reply::Nil, State::new(), State::new());
        jobs.push(Job { case, keys, words, wanted, old, new });
    }
    let old = state(&mut single);
    for job in &mut jobs {
        job.old = job.its(&old);
        job.wanted = single.command(&job.words).expect("a reply");
    }
    let new = state(&mut single);
    jobs.iter_mut().for_each(|job| job.new = job.its(&new));
    jobs
}

impl Job {
    /// Its own keys of all.
    fn its(&self, all: &State) -> State {
        let keys = [&self.keys.s, &self.keys.t, &self.keys.u];
        let there = keys.into_iter().filter_map(|key| all.get_key_value(key));
        there.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Slotway before the doors.
struct Stage {
    // Dropped in this order.
    proxy: Proxy,
    doors: Arc<Doors>,
    reference: Standalone,
    wrong: Vec<String>,
    /// How often commands ended how.
    seen: BTreeMap<&'static str, usize>,
}

impl Stage {
    fn start() -> Stage {
        // From a file a new replica is fed at once, otherwise when it has said something first.
        let conf = vec!["repl-diskless-sync no".to_owned()];
        let options =
            ClusterOptions { primaries: 2, replicas: 2, conf, ..ClusterOptions::default() };
        let doors = Doors::start(Cluster::start(options).expect("a cluster"));
        let mut args = vec!["--workers", "1"];
        for set in
            ["commands.cross_slot=emulate", "reconnect.max=20ms", "topology.min_interval=20ms"]
        {
            args.extend(["--set", set]);
        }
        let make = |name: &str, program: &std::path::Path| doors.cluster.command(name, program);
        let proxy = Proxy::launch(make, &doors.seeds(), &args);
        common::eventually("slotway is ready", || {
            proxy.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
        let reference = Standalone::start(StandaloneOptions::default()).expect("a server");
        Stage { proxy, doors, reference, wrong: Vec::new(), seen: BTreeMap::new() }
    }

    /// What there is before, at the replicas as well.
    fn set_up(&self, round: usize) -> Vec<Job> {
        let jobs = jobs(&self.reference, round);
        let mut conn = self.proxy.connect();
        conn.command(&["FLUSHALL"]).expect("FLUSHALL");
        for job in &jobs {
            for words in job.keys.all_words(CASES[job.case].1) {
                let reply = conn.command(&words).expect("a reply");
                assert_eq!(reply.error(), None, "{words:?}");
            }
        }
        let nodes = self.doors.cluster.nodes().expect("nodes");
        for replica in nodes.iter().filter(|node| !node.is_primary()) {
            self.doors.cluster.catch_up(replica).expect("the same");
        }
        jobs
    }

    /// The primary of a half of the slots, and its replica.
    fn shard(&self, half: usize) -> (Node, Node) {
        let primary = self.doors.primary(half);
        let replica = self.doors.cluster.replicas_of(&primary).expect("nodes").remove(0);
        (primary, replica)
    }

    /// The replies of all, while `act` does its work.
    fn run(&self, jobs: &[Job], act: impl FnOnce()) -> BTreeMap<usize, Reply> {
        let (next, replies) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut conn = self.proxy.connect();
                    loop {
                        let i = next.fetch_add(1, Ordering::SeqCst);
                        let Some(job) = jobs.get(i) else { break };
                        let reply = conn.command(&job.words).expect("a reply");
                        lock(&replies).insert(i, reply);
                    }
                });
            }
            act();
        });
        replies.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn promote(&self, replica: &Node) {
        let mut conn = self.doors.cluster.connect(replica).expect("to connect");
        let reply = conn.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]).expect("a reply");
        assert!(reply.is_ok(), "{reply:?}");
    }

    fn judge(&mut self, what: &str, jobs: &[Job], replies: &BTreeMap<usize, Reply>) {
        let all = self.doors.state();
        for (i, job) in jobs.iter().enumerate() {
            let (reply, now) = (&replies[&i], job.its(&all));
            let outcome = match reply.error() {
                _ if *reply == job.wanted => "done",
                Some(_) if now == job.old => "an error, and as before",
                Some(_) if now == job.new => "an error, and all done",
                Some(_) => "an error, and in between",
                None => "waited in vain",
            };
            *self.seen.entry(outcome).or_insert(0) += 1;
            let Job { keys, words, wanted, old, new, .. } = job;
            if let Some(why) = judge(old, new, &now, reply, wanted, keys, true) {
                self.wrong.push(format!(
                    "{why}\n   {words:?}, {what}\n   reply {reply:?}\n   before {old:?}\n   now    \
                     {now:?}\n   wanted {new:?}"
                ));
            }
        }
    }

    fn bring_back(&self, node: &Node) {
        self.doors.cluster.restart(node).expect("to start again");
        self.doors.cluster.settle().expect("a cluster");
    }

    /// A primary is killed at the moment that is named.
    fn killed(
        &mut self,
        round: usize,
        (half, name, nth, when): (usize, &'static str, usize, When),
    ) {
        let jobs = self.set_up(round);
        let (primary, replica) = self.shard(half);
        let doors = &self.doors;
        let node = doors.nodes.iter().position(|node| node.id == primary.id).expect("the node");
        *lock(&doors.plan) = Some(Plan { node, name, left: nth, when });
        let replies = self.run(&jobs, || {
            common::eventually(&format!("{name} comes"), || lock(&doors.plan).is_none());
            // It has read all that it was sent when it finds its primary gone.
            common::eventually("the replica has read all", || {
                doors.field(&replica, "master_link_status").as_deref() == Some("down")
            });
            self.promote(&replica);
        });
        self.judge(&format!("{name} {nth} {when:?}"), &jobs, &replies);
        self.bring_back(&primary);
    }

    /// A primary whose replica is cut off is killed when all are answered. What only it had is lost
    /// to Redis; where it is told to confirm nothing without a replica, nothing is in neither.
    fn cut_off(&mut self, round: usize) {
        let jobs = self.set_up(round);
        let (primary, replica) = self.shard(1);
        let cluster = &self.doors.cluster;
        let mut conn = cluster.connect(&primary).expect("to connect");
        conn.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).expect("CONFIG");
        cluster.pause(&replica).expect("to pause");
        conn.command(&["CLIENT", "KILL", "TYPE", "replica"]).expect("CLIENT KILL");
        common::eventually("the replica is cut off", || {
            self.doors.field(&primary, "connected_slaves").as_deref() == Some("0")
        });
        let replies = self.run(&jobs, || {});
        cluster.kill(&primary).expect("to kill");
        cluster.resume(&replica).expect("to resume");
        self.promote(&replica);
        self.judge("the replica was cut off", &jobs, &replies);
    }
}

#[test]
fn a_node_killed_at_a_step() {
    let mut stage = Stage::start();
    for (round, kill) in KILLS.iter().enumerate() {
        stage.killed(round, *kill);
    }
    stage.cut_off(KILLS.len());
    let Stage { wrong, seen, .. } = &stage;
    println!("{} nodes killed, of the commands {seen:?}", KILLS.len() + 1);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let errors = |what: &str| seen.get(what).copied().unwrap_or(0);
    assert!(errors("an error, and in between") > 0, "{seen:?}");
    assert!(errors("an error, and as before") > 0 && errors("done") > 100, "{seen:?}");
}
