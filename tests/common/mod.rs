//! What the integration tests share: a cluster, the real slotway in front of it, connections.
//!
//! Most tests use [`shared`]: one cluster and one slotway for the whole process, as a start costs
//! seconds. Tests that break something start their own: [`cluster`] and [`Proxy::start`].

pub mod errors;
pub mod load;
pub mod pubsub;
pub mod session;
pub mod tls;
pub mod transactions;

use rustix::process::{Pid, Signal, kill_process};
use slotway::sandbox::{Cluster, ClusterOptions, Conn, Reply, free_port};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster and slotway in front of it.
pub struct Setting {
    // Dropped in this order.
    pub proxy: Proxy,
    pub cluster: Cluster,
}

/// The setting all tests of a process share. Tests that use it clean up nothing and use keys of
/// their own. It ends with the process, by the sandbox's watchdog.
pub fn shared() -> &'static Setting {
    static SHARED: OnceLock<Setting> = OnceLock::new();
    SHARED.get_or_init(|| {
        let setting = setting(&[]);
        // The proxy is never dropped, so a failing test has to be shown its log in another way.
        let log = setting.proxy.log.clone();
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            default(info);
            eprintln!("the shared slotway's last log lines:\n{}", tail(&log));
        }));
        setting
    })
}

/// A cluster of one's own (3 primaries, 3 replicas) and slotway, with more flags for it.
pub fn setting(args: &[&str]) -> Setting {
    let cluster = cluster();
    let proxy = Proxy::start(&cluster, args);
    Setting { proxy, cluster }
}

/// A cluster of one's own: 3 primaries, 3 replicas.
pub fn cluster() -> Cluster {
    Cluster::start(ClusterOptions::default()).expect("a cluster")
}

/// The same, with more lines for every node's redis.conf.
pub fn cluster_with(conf: &[&str]) -> Cluster {
    let conf = conf.iter().map(|line| (*line).to_owned()).collect();
    Cluster::start(ClusterOptions { conf, ..ClusterOptions::default() }).expect("a cluster")
}

/// A running `slotway run`. Dropping it sends SIGTERM and wants to see exit code 0.
pub struct Proxy {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    log: PathBuf,
    stopped: bool,
    /// How it was started, for [`Proxy::restart`].
    command: Command,
}

impl Proxy {
    /// Starts slotway in front of `cluster` and waits until it is ready.
    pub fn start(cluster: &Cluster, args: &[&str]) -> Proxy {
        let seeds: Vec<String> = cluster.addrs().iter().map(SocketAddr::to_string).collect();
        Self::start_with_seeds(cluster, &seeds.join(","), args)
    }

    /// The same with other seeds than all nodes.
    pub fn start_with_seeds(cluster: &Cluster, seeds: &str, args: &[&str]) -> Proxy {
        let mut proxy = Self::spawn(cluster, seeds, args);
        proxy.until_ready();
        proxy
    }

    /// Waits until it is ready.
    pub fn until_ready(&mut self) {
        eventually("slotway is ready", || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("slotway ended by itself ({status}):\n{}", tail(&self.log));
            }
            self.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
    }

    /// The same without waiting.
    pub fn spawn(cluster: &Cluster, seeds: &str, args: &[&str]) -> Proxy {
        Self::launch(|name, program| cluster.command(name, program), seeds, args)
    }

    /// The same in whatever folder `make` gives.
    pub fn launch(
        make: impl FnOnce(&str, &Path) -> slotway::sandbox::Result<(Command, PathBuf)>,
        seeds: &str,
        args: &[&str],
    ) -> Proxy {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("slotway-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        // `make faults` and `make soak` measure the release build.
        let program = std::env::var_os("FAULTS_PROGRAM").map(PathBuf::from);
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_slotway").into());
        let (mut command, room) = make(&name, &program).expect("a folder for slotway");
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listen = local(free_port().expect("a free port"));
        let admin = local(free_port().expect("a free port"));
        let log = room.join("log");
        let file = std::fs::File::create(&log).expect("slotway's log");
        // Another `--listen` is beside its own.
        let more = args.windows(2).find_map(|pair| match pair {
            ["--listen", more] => Some(format!(",{more}")),
            _ => None,
        });
        let listens = format!("{listen}{}", more.as_deref().unwrap_or_default());
        let is_other = |arg: &&&str| {
            **arg != "--listen" && Some(**arg) != more.as_deref().and_then(|more| more.get(1..))
        };
        command
            .args(["run", "--listen", &listens, "--admin", &admin.to_string()])
            .args(["--seeds", seeds])
            .args(args.iter().filter(is_other))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("slotway's log"))
            .stderr(file);
        let child = command.spawn().expect("slotway");
        Proxy { listen, admin, child, log, stopped: false, command }
    }

    /// Ends it as an operator does, and starts it again on the same ports.
    #[allow(dead_code)] // only tests/faults does it, which is a program of its own
    pub fn restart(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "slotway after SIGTERM: {status}\n{}", tail(&self.log));
        self.child = self.command.spawn().expect("slotway");
        self.stopped = false;
        self.until_ready();
    }

    /// A connection as a client opens it; RESP2.
    pub fn connect(&self) -> Conn {
        Conn::tcp(self.listen).expect("a connection to slotway")
    }

    /// A connection after HELLO 3.
    pub fn connect3(&self) -> Conn {
        let mut conn = self.connect();
        let hello = conn.command(&["HELLO", "3"]).expect("HELLO 3");
        assert!(matches!(hello, Reply::Map(_)), "HELLO 3: {hello:?}");
        conn
    }

    /// Status and body of an admin page; `None` while nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http_get(self.admin, path)
    }

    /// The sum of all samples of a metric whose labels contain `labels` (as written: `kind="ask"`).
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.get("/metrics").expect("/metrics");
        let samples = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| {
            rest.starts_with(['{', ' ']) && (labels.is_empty() || rest.contains(labels))
        });
        samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits for the process's end.
    pub fn wait(&mut self) -> ExitStatus {
        self.stopped = true;
        wait(&mut self.child, "slotway ends")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        if std::thread::panicking() {
            eprintln!("slotway's last log lines:\n{}", tail(&self.log));
            let _ = self.child.kill();
            let _ = self.child.wait();
            return;
        }
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "slotway after SIGTERM: {status}\n{}", tail(&self.log));
    }
}

/// Waits until `look` says yes.
#[track_caller]
pub fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let since = Instant::now();
    while !look() {
        assert!(since.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same; what is still missing is said when patience is over.
#[track_caller]
pub fn eventually_ok(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let since = Instant::now();
    while let Err(missing) = look() {
        let patience = PATIENCE.as_secs();
        assert!(since.elapsed() < PATIENCE, "not within {patience} s: {what}: {missing}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process ID");
    kill_process(pid, signal).expect("to send a signal");
}

/// Waits for the child's end; kills it when patience is over.
#[track_caller]
pub fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("to wait for a child") {
            return status;
        }
        if since.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("not within {} s: {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A newer server than Debian's, `redis` or `valkey`, that `scripts/setup.sh test` has installed.
pub fn newer(server: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/python/newer_servers.py");
    let found = Command::new(root.join(".venv/bin/python")).arg(script).arg(server).output();
    let found = found.expect(".venv: run scripts/setup.sh test");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8_lossy(&found.stdout).trim().into()
}

/// Status and body of an HTTP page; `None` if nobody answers.
pub fn http_get(addr: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
