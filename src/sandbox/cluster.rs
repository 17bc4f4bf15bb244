//! A cluster of local servers: its nodes, and operations on their processes.
//!
//! `form` creates the cluster; `settle` waits until its nodes agree; `operate` has the operations on
//! slots and roles; `members` are the processes.

use super::conn::{Conn, Reply};
use super::members::{Members, no_such};
use super::progress::Progress;
use super::server::{self, PAUSE, Server, Setup};
use super::unmet::Unmet;
use super::view::{self, Node};
use super::watchdog::{SandboxDir, guarded};
use super::{Error, Result};
use crate::cluster::{Role, Slot};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Time limit for what the nodes have to agree on.
pub(super) const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How to start a [`Cluster`].
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Primaries; they share the slots evenly.
    pub primaries: usize,
    /// Replicas in total, assigned to the primaries in turn.
    pub replicas: usize,
    /// Silence after which a node counts as failed (`cluster-node-timeout`).
    pub node_timeout: Duration,
    /// The server program: a name in `PATH` or a path.
    pub program: PathBuf,
    /// The nodes' password (`requirepass`), if any.
    pub password: Option<String>,
    /// Further lines of every node's redis.conf; `{tls-port}` stands for a free port of the node.
    pub conf: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            primaries: 3,
            replicas: 3,
            node_timeout: Duration::from_secs(2),
            program: "redis-server".into(),
            password: None,
            conf: Vec::new(),
        }
    }
}

/// A running cluster. Dropping it kills the processes and removes their folder.
///
/// All operations take `&self`: a test breaks the cluster in one thread while clients use it in
/// others.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the processes before their folder.
    pub(super) members: Members,
    pub(super) setup: Setup,
    pub(super) dir: SandboxDir,
    /// Whether nodes run different programs, see [`Cluster::upgrade`].
    pub(super) mixed: AtomicBool,
}

impl Cluster {
    /// Starts the servers, makes a cluster of them and waits until it is settled (see
    /// [`Cluster::settle`]).
    pub fn start(options: ClusterOptions) -> Result<Cluster> {
        Self::start_with_progress(options, &mut ())
    }

    /// The same, with progress reports.
    pub(super) fn start_with_progress(
        options: ClusterOptions,
        progress: &mut dyn Progress,
    ) -> Result<Cluster> {
        let ClusterOptions { primaries, replicas, node_timeout, program, password, mut conf } =
            options;
        if !(1..=100).contains(&primaries) || replicas > 400 {
            return Err(Error::Size { primaries, replicas });
        }
        conf.insert(0, format!("cluster-node-timeout {}", node_timeout.as_millis()));
        let setup = Setup { program, password, conf };
        setup.check()?;
        let cluster = Cluster {
            members: Members::default(),
            setup,
            dir: SandboxDir::new()?,
            mixed: AtomicBool::new(false),
        };
        progress.step(&format!("starting {} redis-servers", primaries + replicas));
        cluster.spawn(primaries + replicas, progress)?;
        progress.step(&format!("making a cluster: {primaries} primaries, {replicas} replicas"));
        cluster.form(primaries, progress)?;
        Ok(cluster)
    }

    /// All nodes that were started and not removed, in the order of their start. Roles and slots
    /// are as one running node sees them, preferably one that calls the cluster ok.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        let lines = self.view()?;
        let members = self.members.lock();
        let nodes = members.iter().map(|member| {
            let line = lines.iter().find(|line| line.id == member.id);
            Node {
                id: member.id.clone(),
                addr: member.server.addr(),
                bus_port: member.server.bus_port(),
                pid: member.server.pid(),
                role: line.map_or(Role::Primary, |line| line.role),
                primary: line.and_then(|line| line.primary.clone()),
                slots: line.map(|line| line.slots.clone()).unwrap_or_default(),
            }
        });
        Ok(nodes.collect())
    }

    /// The primaries among [`Cluster::nodes`], dead ones included.
    pub fn primaries(&self) -> Result<Vec<Node>> {
        Ok(self.nodes()?.into_iter().filter(Node::is_primary).collect())
    }

    /// The replicas of `primary`.
    pub fn replicas_of(&self, primary: &Node) -> Result<Vec<Node>> {
        let nodes = self.nodes()?.into_iter();
        Ok(nodes.filter(|node| node.primary.as_ref() == Some(&primary.id)).collect())
    }

    /// The primary that owns `slot`.
    pub fn owner_of(&self, slot: Slot) -> Result<Node> {
        let mut nodes = self.nodes()?.into_iter();
        nodes
            .find(|node| node.slots.iter().any(|range| range.contains(&slot.0)))
            .ok_or(Error::NoOwner { slot })
    }

    /// The node with this ID, as it is now.
    pub fn node(&self, id: &str) -> Result<Node> {
        let mut nodes = self.nodes()?.into_iter();
        nodes.find(|node| node.id == id).ok_or_else(|| no_such(id))
    }

    /// The addresses of all nodes, for a proxy's seeds.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.members.lock().iter().map(|member| member.server.addr()).collect()
    }

    /// The nodes' password.
    pub fn password(&self) -> Option<&str> {
        self.setup.password.as_deref()
    }

    /// The sandbox's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command that runs `program`, and the folder `name` in the sandbox's folder, created if
    /// missing. The watchdog kills the program too, should this process end without dropping the
    /// sandbox. The folder is not the program's working directory.
    pub fn command(&self, name: &str, program: &Path) -> Result<(Command, PathBuf)> {
        let dir = self.dir.subdir(name)?;
        Ok((guarded(&dir, program), dir))
    }

    /// An authenticated connection to `node`.
    pub fn connect(&self, node: &Node) -> Result<Conn> {
        server::connect(node.addr, self.password())
    }

    /// Kills the node's process (SIGKILL). The cluster notices after its node timeout.
    pub fn kill(&self, node: &Node) -> Result<()> {
        self.members.with(node, |server| {
            server.kill();
            Ok(())
        })
    }

    /// Starts the node again, without its data, with the same ports and the same node ID. Kills the
    /// process first if it still runs. Returns when the node answers; [`Cluster::settle`] waits
    /// until the cluster is ok.
    pub fn restart(&self, node: &Node) -> Result<()> {
        self.members.with(node, Server::restart)
    }

    /// Restarts the node, without its data, with another server program, as an in-place upgrade
    /// does.
    pub fn upgrade(&self, node: &Node, program: &Path) -> Result<()> {
        self.mixed.store(true, Relaxed);
        self.members.with(node, |server| server.restart_with(program))
    }

    /// Pauses the node's process (SIGSTOP): it keeps its connections and does not answer.
    pub fn pause(&self, node: &Node) -> Result<()> {
        self.members.with(node, Server::pause)
    }

    /// Resumes the node's process (SIGCONT).
    pub fn resume(&self, node: &Node) -> Result<()> {
        self.members.with(node, Server::resume)
    }

    /// CLUSTER NODES of a running node, preferably of one that calls the cluster ok.
    pub(super) fn view(&self) -> Result<Vec<view::Line>> {
        let mut fallback = None;
        for (_, addr) in self.members.running() {
            let Ok(lines) = self.ask(addr, &["CLUSTER", "NODES"]) else { continue };
            let lines = view::parse(&lines.text().unwrap_or_default());
            let info = self.ask(addr, &["CLUSTER", "INFO"])?.text().unwrap_or_default();
            if server::info_field(&info, "cluster_state") == Some("ok") {
                return Ok(lines);
            }
            fallback.get_or_insert(lines);
        }
        fallback.ok_or(Error::NoAnswer)
    }

    /// Sends a command to a server and returns its reply. An error reply is an error.
    pub(super) fn ask<A: AsRef<[u8]>>(&self, addr: SocketAddr, args: &[A]) -> Result<Reply> {
        let mut conn = server::connect(addr, self.password())?;
        let text = || {
            let words: Vec<_> = args.iter().map(|a| String::from_utf8_lossy(a.as_ref())).collect();
            words.join(" ")
        };
        match conn.command(args) {
            Ok(Reply::Error(error)) => Err(Error::Refused { addr, command: text(), error }),
            Ok(reply) => Ok(reply),
            Err(e) => Err(Error::io(format!("{} to {addr}", text()))(e)),
        }
    }

    /// Waits until `check` succeeds. Until then its error is shown as progress; when the time is
    /// up, it is the reason in [`Error::Deadline`].
    pub(super) fn wait(
        &self,
        what: &str,
        progress: &mut dyn Progress,
        mut check: impl FnMut() -> std::result::Result<(), Unmet>,
    ) -> Result<()> {
        let since = Instant::now();
        loop {
            let Err(reason) = check() else { return Ok(()) };
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            if since.elapsed() > SETTLE_TIMEOUT {
                let log = self.members.lock().iter().map(|member| member.server.log()).collect();
                return Err(Error::Deadline {
                    what: what.to_owned(),
                    within: SETTLE_TIMEOUT,
                    reason: Box::new(reason),
                    log,
                });
            }
            progress.detail(&reason.to_string());
            std::thread::sleep(PAUSE);
        }
    }
}
