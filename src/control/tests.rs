//! The refresher and the pool against real servers and real workers.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::node::{Access, NodeConn};
use super::pool::Pool;
use super::requests::{AllRequests, Requests};
use super::round::{Candidate, NoTopology, Round};
use super::status::Status;
use super::topology::Refresher;
use crate::cluster::trust::{InUse, RejectReason};
use crate::cluster::{NodeAddr, Slot, Snapshot, UpstreamId};
use crate::command::CommandTable;
use crate::config::{Address, Config, NamedUpstream};
use crate::mailbox::ToControl;
use crate::tls::Tls;

/// Limit on waiting for anything.
const PATIENCE: Duration = Duration::from_secs(30);

fn no_tls() -> Arc<Tls> {
    Arc::new(Tls::load(&Config::default()).unwrap())
}

fn access(config: Config) -> Access {
    Access { upstream: UpstreamId::FIRST, config: Arc::new(config), tls: no_tls() }
}

fn candidate(addr: SocketAddr) -> Candidate {
    Candidate::Node(addr, addr.ip().to_string())
}

/// A real server that is a cluster by itself.
struct Server {
    addr: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start(epoch: u32) -> Server {
        let server = std::iter::repeat_with(Server::spawn).take(20).flatten().next();
        let server = server.expect("redis-server starts");
        if epoch > 0 {
            assert_eq!(server.ask(&format!("CLUSTER SET-CONFIG-EPOCH {epoch}")), "+OK");
        }
        assert_eq!(server.ask("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
        server.wait_for("cluster_state:ok");
        server
    }

    fn spawn() -> Option<Server> {
        let folder = tempfile::tempdir().unwrap();
        let port = std::iter::repeat_with(|| {
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
        })
        .find(|p| p.checked_add(10_000).is_some())
        .unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--cluster-enabled", "yes", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Server { addr, process, _folder: folder };
        let until = Instant::now() + PATIENCE;
        let own = format!("process_id:{}\r", server.process.id());
        // Another test may have been given the port in between.
        while server.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            if TcpStream::connect(addr).is_ok() && server.ask("INFO server").contains(&own) {
                return Some(server);
            }
            assert!(Instant::now() < until, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn wait_for(&self, state: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.ask("CLUSTER INFO").contains(state) {
            assert!(Instant::now() < until, "it never says {state}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends an inline command and returns its reply.
    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        write!(stream, "{command}\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().strip_prefix('$') {
            Some(len) => {
                let mut text = vec![0; len.parse().unwrap()];
                reader.read_exact(&mut text).unwrap();
                String::from_utf8(text).unwrap()
            }
            None => line.trim_end().to_owned(),
        }
    }

    /// How often the server has executed a command.
    fn calls(&self, command: &str) -> u64 {
        let stats = self.ask("INFO commandstats");
        let prefix = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|l| l.strip_prefix(&prefix));
        line.map_or(0, |l| l.split(',').next().unwrap().parse().unwrap())
    }

    fn name(&self) -> Candidate {
        Candidate::Name("localhost".into(), self.addr.port())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A round while this view is in use.
async fn ask_with(
    (snapshot, epoch): (&Snapshot, u64),
    candidates: Vec<Candidate>,
) -> Result<(SocketAddr, u64), NoTopology> {
    let access = access(Config::default());
    let mut connections = HashMap::new();
    let round = Round {
        access: &access,
        connections: &mut connections,
        in_use: InUse { snapshot, epoch },
        patience_over: false,
        refused: &mut [0; RejectReason::LABELS],
    };
    let found = round.ask(candidates).await?;
    Ok((found.socket, found.answer.info.epoch))
}

/// The first round.
async fn ask(candidates: Vec<Candidate>) -> Result<(SocketAddr, u64), NoTopology> {
    ask_with((&Snapshot::empty(), 0), candidates).await
}

async fn view_of(server: &Server) -> Snapshot {
    let access = access(Config::default());
    let conn = NodeConn::connect(server.addr, "localhost", "", &access).await;
    conn.unwrap().topology().await.unwrap().snapshot
}

#[test]
fn seeds_of_two_clusters_are_refused_and_named() {
    let (a, b) = (Server::start(3), Server::start(7));
    block_on(async {
        let error = ask(vec![a.name(), b.name()]).await.unwrap_err().to_string();
        for who in [a.addr, b.addr] {
            assert!(error.contains(&who.to_string()), "{who} in {error}");
        }
        assert!(error.contains("two clusters"), "{error}");
    });
}

#[test]
fn an_older_view_or_one_of_another_cluster_is_not_taken() {
    let (ours, other) = (Server::start(3), Server::start(7));
    block_on(async {
        let view = view_of(&ours).await;
        let ours_only = || vec![candidate(ours.addr)];
        let both = || vec![candidate(other.addr), candidate(ours.addr)];
        assert_eq!(ask_with((&view, 3), both()).await, Ok((ours.addr, 3)));
        let error = ask_with((&view, 9), ours_only()).await.unwrap_err().to_string();
        assert!(error.contains("older"), "{error}");
        let error = ask_with((&view, 9), both()).await.unwrap_err().to_string();
        assert!(error.contains("another cluster"), "{error}");
    });
}

#[test]
fn a_view_of_a_node_in_state_fail_is_the_last_choice() {
    let failed = Server::start(7);
    block_on(async {
        assert_eq!(failed.ask("CLUSTER DELSLOTS 5"), "+OK");
        failed.wait_for("cluster_state:fail");
        let view = view_of(&failed).await;
        let alone = || vec![candidate(failed.addr)];
        assert_eq!(ask_with((&view, 7), alone()).await, Ok((failed.addr, 7)));
        // A node that was reset knows nothing; that is no view to replace one with.
        assert_eq!(failed.ask("CLUSTER FLUSHSLOTS"), "+OK");
        let error = ask_with((&view, 7), alone()).await.unwrap_err().to_string();
        assert!(error.contains("knows no slots"), "{error}");
    });
}

#[test]
fn who_does_not_answer_is_passed_over_and_named() {
    let server = Server::start(0);
    // Accepts connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_addr = silent.local_addr().unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    block_on(async {
        let in_vain = || {
            vec![
                candidate(silent_addr),
                candidate(dead),
                Candidate::Name("nowhere.invalid".into(), 7000),
            ]
        };
        let mut candidates = in_vain();
        candidates.push(server.name());
        assert_eq!(ask(candidates).await.map(|found| found.0), Ok(server.addr));
        let error = ask(in_vain()).await.unwrap_err().to_string();
        for who in [silent_addr.to_string(), dead.to_string(), "nowhere.invalid".into()] {
            assert!(error.contains(&who), "{who} in {error}");
        }
        assert!(error.contains("timeouts.connect"), "{error}");
        assert_eq!(ask(Vec::new()).await.unwrap_err(), NoTopology::NoSeeds);
    });
}

#[test]
fn a_connection_whose_reply_was_not_waited_for_is_not_used_again() {
    let server = Server::start(0);
    block_on(async {
        let mut config = Config::default();
        config.timeouts.connect = Duration::from_millis(200);
        let access = access(config);
        let mut conn = NodeConn::connect(server.addr, "127.0.0.1", "", &access).await.unwrap();
        assert_eq!(conn.ask(&["PING"]).await.unwrap(), &b"+PONG\r\n"[..]);
        assert!(conn.is_usable());
        conn.ask(&["BLPOP", "list", "5"]).await.unwrap_err();
        assert!(!conn.is_usable());
    });
}

#[test]
fn any_number_of_requests_is_no_stampede() {
    let server = Server::start(0);
    block_on(async {
        let config = Arc::new(Config {
            seeds: vec![Address { host: "127.0.0.1".into(), port: server.addr.port() }],
            ..Config::default()
        });
        let commands = Arc::new(CommandTable::builtin());
        let status = Arc::new(Status::new(&["main"], Arc::clone(&commands)));
        let (to_control, _from_workers) = mpsc::unbounded_channel();
        let pool =
            Arc::new(Pool::new(Arc::clone(&config), no_tls(), commands, to_control).unwrap());
        let requests = Arc::new(Requests::default());
        let (main, refresher_requests) = (UpstreamId::FIRST, Arc::clone(&requests));
        let refresher = Refresher::new(main, pool, Arc::clone(&status), refresher_requests);
        let first = Arc::new(Notify::new());
        let started = Instant::now();
        let task = tokio::spawn(refresher.run(Arc::clone(&first)));
        first.notified().await;
        let host = "127.0.0.1".into();
        for i in 0..500 {
            let hint = NodeAddr { host: Box::clone(&host), port: server.addr.port() };
            requests.topology((i % 2 == 0).then_some(hint));
            requests.commands();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        task.abort();
        let _ = task.await;
        let calls = server.calls("cluster|shards");
        let most = started.elapsed().as_millis() / config.topology.min_interval.as_millis() + 2;
        assert!(calls >= 2, "requests are heard");
        assert!(u128::from(calls) <= most, "{calls} refreshes where {most} are allowed");
        assert!(server.calls("command") <= 1 + started.elapsed().as_secs() / 5);
        assert_eq!(status.upstream(main).changes, 1);
        assert!(status.upstream(main).snapshot.covered());
    });
}

#[test]
fn several_upstreams_are_known_as_one_topology_and_one_that_is_not_leaves_the_others_alone() {
    let (main, queues) = (Server::start(0), Server::start(0));
    block_on(async {
        let seed = |port| vec![Address { host: "127.0.0.1".into(), port }];
        let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = Config { seeds: seed(main.addr.port()), ..Config::default() };
        for (name, port) in [("queues", queues.addr.port()), ("dead", dead.port())] {
            config.upstreams.push(NamedUpstream {
                name: name.into(),
                seeds: seed(port),
                upstream: config.upstream.clone(),
                read_from: config.read_from,
                tls: config.tls.upstream.clone(),
                optional: false,
            });
        }
        let config = Arc::new(config);
        let commands = Arc::new(CommandTable::builtin());
        let status = Arc::new(Status::new(&config.upstream_names(), Arc::clone(&commands)));
        let (to_control, _from_workers) = mpsc::unbounded_channel();
        let pool = Arc::new(Pool::new(config, no_tls(), commands, to_control).unwrap());
        let all = AllRequests::new(pool.upstreams().count());
        let mut tasks = tokio::task::JoinSet::new();
        for (id, requests) in all.each() {
            let (pool, status, first) =
                (Arc::clone(&pool), Arc::clone(&status), Arc::new(Notify::new()));
            let refresher = Refresher::new(id, pool, status, Arc::clone(requests));
            tasks.spawn(refresher.run(Arc::clone(&first)));
            first.notified().await;
        }
        let whole = pool.topology();
        assert_eq!((whole.generation, whole.slots.len()), (2, 3 * 16384));
        let at = |slot| whole.primary_of(Slot(slot)).map(|n| (n.upstream.0, n.addr.port));
        assert_eq!(at(0), Some((0, main.addr.port())));
        assert_eq!(at(16384), Some((1, queues.addr.port())));
        assert_eq!(at(32768), None);
        assert_eq!(pool.upstream_of(queues.addr), Some(UpstreamId(1)));
        assert_eq!(pool.upstream_of(dead), None);
        assert!(pool.shared().trouble().is_none(), "others are known");
        let topology = status.topology();
        assert!(topology.upstreams[1].snapshot.covered());
        assert!(topology.error().is_some_and(|error| error.starts_with("upstream dead: ")));
        assert_eq!((topology.generation(), topology.answered()), (2, None));

        // Who is not concerned is not asked.
        let refreshes = |id| status.upstream(UpstreamId(id)).refreshes_ok;
        let before = refreshes(0);
        all.topology(Some(UpstreamId(1)), None);
        while refreshes(1) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(refreshes(0), before);
    });
}

#[test]
fn an_ended_worker_is_replaced_and_its_counters_stay() {
    block_on(async {
        let config = Arc::new(Config::default());
        let (to_control, mut from_workers) = mpsc::unbounded_channel();
        let commands = Arc::new(CommandTable::builtin());
        let pool = Pool::new(config, no_tls(), commands, to_control).unwrap();
        pool.start_one().unwrap();
        let limit = PATIENCE;
        let before = pool.survey().scrape(limit).await;
        assert_eq!((before.running, before.answered), (1, 1));
        assert!(before.totals.rest.turns > 0);

        pool.drain(Instant::now());
        let Some(ToControl::Exited { worker: 0 }) = from_workers.recv().await else {
            panic!("the worker says that it has ended")
        };
        assert!(pool.remove(0).is_some());
        assert!(pool.remove(0).is_none(), "once");
        assert_eq!(pool.running(), 0);
        assert_eq!(pool.survey().scrape(limit).await.totals.rest.turns, before.totals.rest.turns);

        pool.start_one().unwrap();
        assert!(pool.remove(0).is_none(), "a late word of the first is not about the second");
        let after = pool.survey().scrape(limit).await;
        assert_eq!((after.running, after.answered), (1, 1));
        assert!(after.totals.rest.turns > before.totals.rest.turns);
        assert_eq!(after.totals.rest.clients, 0);
        pool.drain(Instant::now());
        assert!(matches!(from_workers.recv().await, Some(ToControl::Exited { worker: 1 })));
    });
}
