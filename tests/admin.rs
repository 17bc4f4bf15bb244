//! What an operator sees on the admin listener while slotway runs against real servers: health,
//! readiness, metrics; and how listeners behave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slotway::config::{Address, Config, Listen, Secret, Workers};
use slotway::errors::Failure;
use slotway::process::{BoundAddrs, RunError, run_until};
use tempfile::TempDir;

/// Long enough for anything that is going to happen; nothing is asserted about time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A real server in cluster mode, alone in its cluster until it meets others.
struct Server {
    port: u16,
    folder: TempDir,
    options: Vec<String>,
    process: Child,
}

impl Server {
    fn start(options: &[&str]) -> Server {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            // The cluster bus takes the port plus 10,000.
            let Some(bus) = port.checked_add(10_000) else { continue };
            if TcpListener::bind(("127.0.0.1", bus)).is_err() {
                continue;
            }
            drop(free);
            let process = Server::spawn(port, folder.path(), &options);
            let mut server = Server { port, folder, options, process };
            // Another test may have been given the port in between.
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server does not start with {options:?}");
    }

    fn spawn(port: u16, folder: &Path, options: &[String]) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"])
            .arg("--dir")
            .arg(folder)
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    fn answers(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return false;
            }
            let info = self.command("--no-auth-warning -a secret INFO server");
            if info.contains(&format!("process_id:{}\r", self.process.id())) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn restart(&mut self) {
        self.process = Server::spawn(self.port, self.folder.path(), &self.options);
        assert!(self.answers());
    }

    fn cli(&self, command: &str) -> String {
        let text = self.command(command);
        assert!(!text.is_empty() && !text.contains("ERR"), "{command}: {text}");
        text
    }

    fn command(&self, command: &str) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(command.split(' '))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn seed(&self) -> Address {
        Address { host: "127.0.0.1".into(), port: self.port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// slotway in a thread of this process.
struct Slotway {
    bound: BoundAddrs,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

fn config(seeds: &[&Server]) -> Config {
    Config {
        listen: vec![Listen::Tcp(Address { host: "127.0.0.1".into(), port: 0 })],
        admin: Some(Address { host: "127.0.0.1".into(), port: 0 }),
        seeds: seeds.iter().map(|s| s.seed()).collect(),
        workers: Workers::Count(2.try_into().unwrap()),
        ..Config::default()
    }
}

impl Slotway {
    fn start(config: Config) -> Slotway {
        let (ready, bound) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            run_until(config, move |bound| ready.send(bound).unwrap(), async move {
                let _ = stopped.await;
            })
        });
        let bound = bound.recv_timeout(PATIENCE).expect("slotway starts");
        Slotway { bound, stop: Some(stop), thread: Some(thread) }
    }

    fn get(&self, path: &str) -> (u16, String) {
        request(self.bound.admin.unwrap(), "GET", path)
    }

    fn metric(&self, series: &str) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let line = text.lines().find(|l| l.rsplit_once(' ').is_some_and(|(s, _)| s == series));
        let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits for `/readyz` to answer `status` with `text` in it.
    fn wait_ready(&self, status: u16, text: &str) {
        wait(|| self.get("/readyz"), |(s, body)| *s == status && body.contains(text));
    }

    fn client(&self) -> TcpStream {
        let Listen::Tcp(addr) = &self.bound.listen[0] else { panic!("not TCP") };
        TcpStream::connect((addr.host.as_str(), addr.port)).unwrap()
    }

    fn stop(mut self) -> Result<(), RunError> {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap()
    }
}

fn wait<T: std::fmt::Debug>(mut look: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        let seen = look();
        if done(&seen) {
            return seen;
        }
        assert!(Instant::now() < until, "it stays {seen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn request(admin: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

fn read_all(mut stream: impl Read) -> String {
    let mut text = String::new();
    // A refused client that had not sent anything gets the text and then the end.
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn readiness_says_which_slots_are_missing() {
    let server = Server::start(&[]);
    let slotway = Slotway::start(config(&[&server]));
    slotway.wait_ready(503, r#""missing_slots":["0-16383"]"#);

    server.cli("CLUSTER ADDSLOTSRANGE 0 99 200 16383");
    slotway.wait_ready(503, r#""missing_slots":["100-199"]"#);
    assert_eq!(slotway.metric(r#"slotway_slots_covered{upstream="main"}"#), 16284.0);

    server.cli("CLUSTER ADDSLOTSRANGE 100 199");
    slotway.wait_ready(200, r#""ready":true"#);
    assert_eq!(slotway.metric(r#"slotway_slots_covered{upstream="main"}"#), 16384.0);
    assert!(slotway.metric(r#"slotway_topology_generation{upstream="main"}"#) >= 2.0);
    assert!(
        slotway.metric(r#"slotway_topology_refreshes_total{upstream="main",result="ok"}"#) >= 3.0
    );
    slotway.stop().unwrap();
}

#[test]
fn pages() {
    let server = Server::start(&[]);
    server.cli("CLUSTER ADDSLOTSRANGE 0 16383");
    let mut config = config(&[&server]);
    // So many that any machine has the descriptors for them.
    config.limits.clients = 1234;
    let slotway = Slotway::start(config);
    assert_eq!(slotway.get("/healthz"), (200, "ok\n".to_owned()));
    let (status, index) = slotway.get("/");
    assert_eq!(status, 200);
    for path in ["/metrics", "/healthz", "/readyz", "/status.json", "/clients.json", "/config.json"]
    {
        assert!(index.contains(&format!("\n{path} ")), "{index}");
        assert_eq!(slotway.get(path).0, 200, "{path}");
    }
    // A second's state, which may be from before the topology was known.
    let status =
        || -> serde_json::Value { serde_json::from_str(&slotway.get("/status.json").1).unwrap() };
    let status = wait(status, |status| !status["shards"][0].is_null());
    assert_eq!(status["shards"][0]["slots"], serde_json::json!([[0, 16383]]));
    assert_eq!(status["shards"][0]["nodes"][0]["addr"], format!("127.0.0.1:{}", server.port));
    assert_eq!(slotway.get("/nothing").0, 404);
    let admin = slotway.bound.admin.unwrap();
    assert_eq!(request(admin, "POST", "/readyz").0, 405);
    assert_eq!(request(admin, "HEAD", "/healthz"), (200, String::new()));
    assert_eq!(slotway.metric("slotway_workers"), 2.0);
    assert_eq!(slotway.metric(r#"slotway_limit{limit="clients"}"#), 1234.0);
    assert!(slotway.metric("process_resident_memory_bytes") > 1e6);
    // The client's name is on slotway's own connection, too.
    assert!(server.cli("CLIENT LIST").contains("name=slotway"));
    slotway.stop().unwrap();
}

/// Who takes all places and does not read, or does not speak, keeps nobody out.
#[test]
fn probes_get_through() {
    let slotway = Slotway::start(config(&[&Server::start(&[])]));
    let admin = slotway.bound.admin.unwrap();
    let mut held = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(admin).unwrap();
        if n % 2 == 0 {
            let pages = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".repeat(400);
            // It may have lost its place before it has said everything.
            let _ = stream.write_all(pages.as_bytes());
        }
        held.push(stream);
    }
    assert_eq!(slotway.get("/healthz"), (200, "ok\n".to_owned()));
    drop(held);
    slotway.stop().unwrap();
}

/// A browser that was led to 127.0.0.1 by a name of somebody else's is shown nothing.
#[test]
fn on_loopback_pages_have_no_foreign_name() {
    let slotway = Slotway::start(config(&[&Server::start(&[])]));
    let status = |host: &str| {
        let mut stream = TcpStream::connect(slotway.bound.admin.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\n{host}Connection: close\r\n\r\n").unwrap();
        let response = read_all(stream);
        response.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok()).unwrap()
    };
    for name in ["127.0.0.1:9400", "localhost:9400", "[::1]:9400", "redis.LOCALHOST", "slotway"] {
        assert_eq!(status(&format!("Host: {name}\r\n")), 200, "{name}");
    }
    for name in ["evil.example", "127.0.0.1.evil.example:9400", "localhost.evil.example", "a@b.c"] {
        assert_eq!(status(&format!("Host: {name}\r\n")), 421, "{name}");
    }
    assert_eq!(status(""), 200);
    slotway.stop().unwrap();
}

#[test]
fn readiness_says_which_primary_is_lost_and_sees_it_come_back() {
    let mut servers = [Server::start(&[]), Server::start(&[]), Server::start(&[])];
    for (server, range) in servers.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        server.cli(&format!("CLUSTER ADDSLOTSRANGE {range}"));
    }
    for server in &servers[1..] {
        server.cli(&format!("CLUSTER MEET 127.0.0.1 {}", servers[0].port));
    }
    for server in &servers {
        wait(
            || server.cli("CLUSTER INFO"),
            |info| info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3"),
        );
    }
    // One seed is enough to find all, and a seed that is dead is passed over.
    let mut config = config(&[&servers[0]]);
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.seeds.insert(0, Address { host: "localhost".into(), port: dead.port() });
    config.topology.refresh = Duration::from_millis(500);
    let slotway = Slotway::start(config);
    slotway.wait_ready(200, r#""ready":true"#);

    // First it cannot be reached, then the cluster says that it has failed.
    servers[1].kill();
    slotway.wait_ready(503, &format!("\"127.0.0.1:{}\"", servers[1].port));
    slotway.wait_ready(503, r#""missing_slots":["5461-10922"]"#);
    assert_eq!(slotway.metric(r#"slotway_slots_covered{upstream="main"}"#), 10922.0);

    servers[1].restart();
    slotway.wait_ready(200, r#""ready":true"#);

    // The seeds are not needed any more.
    servers[0].kill();
    slotway.wait_ready(503, r#""missing_slots":["0-5460"]"#);
    servers[0].restart();
    slotway.wait_ready(200, r#""ready":true"#);
    slotway.stop().unwrap();
}

#[test]
fn a_wrong_password_is_told_and_a_right_one_works() {
    let server = Server::start(&["--requirepass", "secret"]);
    let add = "--no-auth-warning -a secret CLUSTER ADDSLOTSRANGE 0 16383";
    server.cli(add);
    let mut wrong = config(&[&server]);
    wrong.upstream.password = Secret::new("wrong");
    let slotway = Slotway::start(wrong);
    slotway.wait_ready(503, "upstream.password");
    assert!(!slotway.get("/readyz").1.contains("secret"));
    assert_eq!(slotway.get("/healthz").0, 200, "slotway itself is fine");
    slotway.stop().unwrap();

    let mut right = config(&[&server]);
    right.upstream.password = Secret::new("secret");
    right.upstream.user = "default".into();
    let slotway = Slotway::start(right);
    slotway.wait_ready(200, r#""ready":true"#);
    slotway.stop().unwrap();
}

#[test]
fn nodes_announced_by_name_by_nothing_and_by_an_acl_that_hides_shards() {
    let endpoint = "--cluster-preferred-endpoint-type";
    let by_name = ["--cluster-announce-hostname", "localhost", endpoint, "hostname"];
    let no_name = [endpoint, "hostname"];
    let unknown = [endpoint, "unknown-endpoint"];
    let hidden = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-cluster|shards"];
    for options in [&by_name[..], &no_name[..], &unknown[..], &hidden[..]] {
        let server = Server::start(options);
        server.cli("CLUSTER ADDSLOTSRANGE 0 16383");
        let slotway = Slotway::start(config(&[&server]));
        slotway.wait_ready(200, r#""ready":true"#);
        slotway.stop().unwrap();
    }
    let options = ["--cluster-announce-hostname", "nowhere.invalid", endpoint, "hostname"];
    let server = Server::start(&options);
    server.cli("CLUSTER ADDSLOTSRANGE 0 16383");
    let slotway = Slotway::start(config(&[&server]));
    slotway.wait_ready(503, "its name does not resolve");
    // The operator mends it, and slotway needs no restart.
    server.cli("CONFIG SET cluster-announce-hostname localhost");
    slotway.wait_ready(200, r#""ready":true"#);
    slotway.stop().unwrap();
}

#[test]
fn clients_beyond_the_limit_are_told_so_and_counted() {
    let server = Server::start(&[]);
    server.cli("CLUSTER ADDSLOTSRANGE 0 16383");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slotway.sock");
    let mut config = config(&[&server]);
    config.listen.push(Listen::Unix(path.clone()));
    config.limits.clients = 3;
    let slotway = Slotway::start(config);

    let kept = (slotway.client(), UnixStream::connect(&path).unwrap(), slotway.client());
    wait(|| slotway.metric("slotway_clients_accepted_total"), |&n| n == 3.0);
    let mut refusal = Vec::new();
    Failure::TooManyClients { limit: 3 }.write(&mut refusal);
    let refusal = String::from_utf8(refusal).unwrap();
    assert_eq!(read_all(slotway.client()), refusal);
    assert_eq!(read_all(UnixStream::connect(&path).unwrap()), refusal);
    assert_eq!(slotway.metric("slotway_clients_rejected_total"), 2.0);
    assert_eq!(slotway.metric(r#"slotway_limits_hit_total{limit="clients"}"#), 2.0);
    assert_eq!(slotway.metric(r#"slotway_clients{protocol="resp2"}"#), 3.0);
    drop(kept);
    slotway.stop().unwrap();
    assert!(!path.exists(), "the socket's file is removed at the end");
}

#[test]
fn a_taken_address_is_an_error_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address { host: "127.0.0.1".into(), port: taken.local_addr().unwrap().port() };
    let mut listen = config(&[]);
    listen.listen = vec![Listen::Tcp(address.clone())];
    let mut admin = config(&[]);
    admin.admin = Some(address.clone());
    for (config, key) in [(listen, "--listen"), (admin, "--admin")] {
        let error = run_until(config, |_| panic!("ready"), std::future::pending()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("is taken") && text.contains(key), "{text}");
    }
}

#[test]
fn a_socket_file_is_replaced_only_if_nobody_listens_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("slotway.sock");
    let mut config = config(&[]);
    config.listen = vec![Listen::Unix(path.clone())];

    let live = UnixListener::bind(&path).unwrap();
    let error = run_until(config.clone(), |_| panic!("ready"), std::future::pending()).unwrap_err();
    assert!(error.to_string().contains("is taken"), "{error}");
    assert!(path.exists(), "and it is left alone");

    // What a killed process leaves behind.
    drop(live);
    assert!(path.exists());
    let slotway = Slotway::start(config.clone());
    UnixStream::connect(&path).unwrap();
    slotway.stop().unwrap();
    assert!(!path.exists());

    std::fs::write(&path, "something of the user's").unwrap();
    let error = run_until(config, |_| panic!("ready"), std::future::pending()).unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert!(path.exists());
}

#[test]
fn every_address_of_every_listener() {
    let mut config = config(&[]);
    let tcp = |host: &str| Listen::Tcp(Address { host: host.into(), port: 0 });
    config.listen = vec![tcp("127.0.0.1"), tcp("::1"), tcp("localhost")];
    let slotway = Slotway::start(config);
    assert!(slotway.bound.listen.len() >= 3);
    for listen in &slotway.bound.listen {
        let Listen::Tcp(addr) = listen else { panic!("not TCP") };
        TcpStream::connect((addr.host.as_str(), addr.port)).unwrap();
    }
    let all = slotway.bound.listen.len() as f64;
    wait(|| slotway.metric("slotway_clients_accepted_total"), |&n| n == all);
    slotway.stop().unwrap();
}
