//! `slotway sandbox`: a local cluster, and slotway in front of it.

use super::cluster::{Cluster, ClusterOptions};
use super::conn::Conn;
use super::ports::free_port;
use super::progress::{Printer, Progress};
use super::replica_set::{ReplicaSet, ReplicaSetOptions};
use super::{Error, Result};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a sandbox consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxKind {
    /// A Redis Cluster.
    Cluster,
    /// One server with replicas.
    Standalone,
    /// One server with replicas, and three Sentinels.
    Sentinel,
}

/// The servers of a running sandbox.
enum Running {
    Cluster(Cluster),
    ReplicaSet(ReplicaSet),
}

/// Options of `slotway sandbox`.
#[derive(Debug, Clone)]
pub struct Options {
    /// What it consists of (`--kind`).
    pub kind: SandboxKind,
    /// Primaries of a cluster (`--primaries`).
    pub primaries: usize,
    /// Replicas in total (`--replicas`).
    pub replicas: usize,
    /// Slotway's address for clients (`--port`, `--listen`); port 0 stands for a free port.
    pub listen: SocketAddr,
    /// Slotway's address for admin HTTP (`--admin`), if any; port 0 stands for a free port.
    pub admin: Option<SocketAddr>,
    /// The server program: a name in `PATH` or a path.
    pub program: PathBuf,
    /// Further lines of the greeting.
    pub notes: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            kind: SandboxKind::Cluster,
            primaries: 3,
            replicas: 3,
            listen: (Ipv4Addr::LOCALHOST, 6380).into(),
            admin: Some((Ipv4Addr::LOCALHOST, 9121).into()),
            program: "redis-server".into(),
            notes: Vec::new(),
        }
    }
}

/// The addresses that [`run`] passes to the function that runs slotway.
#[derive(Debug, Clone)]
pub struct ProxyAddrs {
    /// [`Options::listen`], with a real port.
    pub listen: SocketAddr,
    /// [`Options::admin`], with a real port.
    pub admin: Option<SocketAddr>,
    /// All nodes of the cluster, all servers, or all Sentinels.
    pub seeds: Vec<SocketAddr>,
}

/// Starts the servers, then calls `serve`, which runs slotway in front of it until it has been
/// stopped by SIGINT or SIGTERM and has drained. Then stops them and removes their folder.
///
/// A signal before `serve` is called stops them too, and is not an error. `serve` must
/// handle signals from its beginning.
pub fn run<E>(
    options: Options,
    serve: impl FnOnce(ProxyAddrs) -> std::result::Result<(), E>,
) -> Result<()>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(Arc::clone(&stop))?;
    let mut printer = Printer::new(stop);
    let started = start(&options, &mut printer);
    let (servers, addrs) = match started {
        Err(Error::Interrupted) => {
            drop(printer);
            eprintln!("stopped while starting; nothing is left");
            return Ok(());
        }
        other => other?,
    };
    printer.done();

    let over = Arc::new(AtomicBool::new(false));
    let greeter = {
        let (addrs, over) = (addrs.clone(), Arc::clone(&over));
        let text = greeting(&servers, &addrs, &options)?;
        std::thread::spawn(move || greet(&addrs, &text, &over))
    };
    let served = serve(addrs);
    over.store(true, Ordering::Relaxed);
    let _ = greeter.join();
    drop(servers);
    eprintln!("all servers are stopped, their folder removed");
    served.map_err(|e| Error::Proxy(e.into()))
}

/// Chooses slotway's addresses and starts the servers.
fn start(options: &Options, progress: &mut dyn Progress) -> Result<(Running, ProxyAddrs)> {
    // Before any server is started, so that a port in use is reported at once.
    let listen = free_address(
        options.listen,
        "Give another with `--port`, or `--port 0` for any free one.",
    )?;
    let remedy = "Give another with `--admin`, or `--admin 127.0.0.1:0` for any free one.";
    let admin = options.admin.map(|admin| free_address(admin, remedy)).transpose()?;
    let (servers, seeds) = match options.kind {
        SandboxKind::Cluster => {
            let options = ClusterOptions {
                primaries: options.primaries,
                replicas: options.replicas,
                program: options.program.clone(),
                ..Default::default()
            };
            let cluster = Cluster::start_with_progress(options, progress)?;
            let seeds = cluster.addrs();
            (Running::Cluster(cluster), seeds)
        }
        kind => {
            let sentinels = if kind == SandboxKind::Sentinel { 3 } else { 0 };
            let replicas = options.replicas;
            progress
                .step(&format!("starting a server, {replicas} replicas and {sentinels} Sentinels"));
            let set = ReplicaSet::start(ReplicaSetOptions {
                replicas,
                sentinels,
                program: options.program.clone(),
                ..Default::default()
            })?;
            let seeds = match kind {
                SandboxKind::Sentinel => set.sentinel_addrs(),
                _ => set.addrs(),
            };
            (Running::ReplicaSet(set), seeds)
        }
    };
    if progress.cancelled() {
        return Err(Error::Interrupted);
    }
    Ok((servers, ProxyAddrs { listen, admin, seeds }))
}

/// The address `wanted`, with a free port in place of port 0.
///
/// # Errors
/// Another process listens there.
fn free_address(mut wanted: SocketAddr, remedy: &'static str) -> Result<SocketAddr> {
    if wanted.port() == 0 {
        wanted.set_port(free_port().map_err(Error::io("looking for a free port"))?);
    }
    match TcpListener::bind(wanted) {
        Ok(_) => Ok(wanted),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            Err(Error::AddressTaken { addr: wanted, remedy })
        }
        Err(source) => Err(Error::Io { what: format!("listening on {wanted}"), source }),
    }
}

/// Sets `stop` on SIGINT or SIGTERM, which no longer end the process: while the cluster starts, the
/// flag stops it; later, slotway drains.
fn watch_signals(stop: Arc<AtomicBool>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("watching for signals"))?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(Error::io("watching for SIGINT"))?,
            signal(SignalKind::terminate()).map_err(Error::io("watching for SIGTERM"))?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Prints the greeting `text` once slotway is ready, unless it has ended before.
fn greet(addrs: &ProxyAddrs, text: &str, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if addrs.admin.map_or_else(|| answers(addrs.listen), ready) {
            let mut stdout = std::io::stdout().lock();
            let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether /readyz answers 200.
fn ready(admin: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    ask().is_ok_and(|head| head.ends_with(" 200"))
}

/// Whether slotway answers PING: asked if there is no admin listener.
fn answers(listen: SocketAddr) -> bool {
    Conn::tcp(listen).and_then(|mut conn| conn.command(&["PING"])).is_ok()
}

/// The text that is printed when slotway is ready: what to try, and the nodes.
fn greeting(servers: &Running, addrs: &ProxyAddrs, options: &Options) -> Result<String> {
    let set: String = options.notes.iter().map(|note| format!("    {note}\n")).collect();
    let set = if set.is_empty() { set } else { format!("  Set\n{set}") };
    let port = addrs.listen.port();
    let pages = match addrs.admin {
        Some(admin) => format!(
            "  Look\n    http://{admin}/metrics  what it does\n    \
             http://{admin}/readyz   whether it can\n"
        ),
        None => String::new(),
    };
    let listed = |addrs: &mut dyn Iterator<Item = SocketAddr>| {
        let all: Vec<String> = addrs.map(|addr| addr.to_string()).collect();
        if all.is_empty() { "none".into() } else { all.join(", ") }
    };
    let mut nodes = String::new();
    let (what, dir) = match servers {
        Running::Cluster(cluster) => {
            for primary in cluster.primaries()? {
                let replicas = cluster.replicas_of(&primary)?;
                let replicas = listed(&mut replicas.iter().map(|node| node.addr));
                let slots = primary.slot_count();
                nodes += &format!("    {}  {slots} slots, replicas: {replicas}\n", primary.addr);
            }
            ("cluster", cluster.dir())
        }
        Running::ReplicaSet(set) => {
            let mut all = set.addrs().into_iter();
            let primary = listed(&mut all.by_ref().take(1));
            nodes += &format!("    {primary}  primary, replicas: {}\n", listed(&mut all));
            if options.kind == SandboxKind::Sentinel {
                nodes +=
                    &format!("    Sentinels: {}\n", listed(&mut set.sentinel_addrs().into_iter()));
            }
            ("server", set.dir())
        }
    };
    let behind = match options.kind {
        SandboxKind::Cluster => "a Redis Cluster",
        SandboxKind::Standalone => "a Redis server",
        SandboxKind::Sentinel => "a Redis server that Sentinels watch",
    };
    Ok(format!(
        "\nslotway is ready: {behind} behind one address, {listen}\n\n  \
           Try\n    \
             redis-cli -p {port}\n    \
             python3 -c 'import redis; r = redis.Redis(port={port}); r.mset({{\"a\": 1, \"b\": 2}}); \
             print(r.mget(\"a\", \"b\"))'\n    \
             redis-benchmark -p {port} -t get,set -P 16\n\
         {set}{pages}  The {what}, in {dir}\n{nodes}\n\
         Ctrl-C stops everything.\n",
        listen = addrs.listen,
        dir = dir.display(),
    ))
}
