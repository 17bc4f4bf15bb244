//! A cluster of local servers: what it is made of, and what can be done to its processes.
//!
//! How it is put together stands in `form`, what is done with slots and roles in `operate`.

use super::conn::{Conn, Reply};
use super::progress::Watcher;
use super::server::{self, PAUSE, Server, Setup, State};
use super::unmet::Unmet;
use super::view::{self, Node};
use super::watchdog::{Home, guarded};
use super::{Error, Result};
use crate::cluster::{Role, Slot};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the cluster may take to come to an agreement.
pub(super) const AGREEMENT: Duration = Duration::from_secs(60);

/// How to start a [`Cluster`].
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Primaries; they share the slots evenly.
    pub primaries: usize,
    /// Replicas in total, dealt out to the primaries in turn.
    pub replicas: usize,
    /// How long a node may be silent until it counts as failed (`cluster-node-timeout`).
    pub node_timeout: Duration,
    /// The server to run: a name in `PATH` or a path.
    pub program: PathBuf,
    /// Asked of every connection, if set.
    pub password: Option<String>,
    /// More lines for every node's redis.conf; `{tls-port}` in one is a free port of the node's.
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
    members: Mutex<Vec<Member>>,
    pub(super) setup: Setup,
    pub(super) home: Home,
    /// Nodes run different programs, see [`Cluster::upgrade`].
    pub(super) mixed: AtomicBool,
}

/// A server and the name the cluster knows it by.
#[derive(Debug)]
pub(super) struct Member {
    pub id: String,
    pub server: Server,
}

impl Cluster {
    /// Starts the servers, makes a cluster of them and waits until it is settled (see
    /// [`Cluster::settle`]).
    pub fn start(options: ClusterOptions) -> Result<Cluster> {
        Self::start_watched(options, &mut ())
    }

    /// The same, with somebody watching.
    pub(super) fn start_watched(
        options: ClusterOptions,
        watcher: &mut dyn Watcher,
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
            members: Mutex::default(),
            setup,
            home: Home::new()?,
            mixed: AtomicBool::new(false),
        };
        watcher.step(&format!("starting {} redis-servers", primaries + replicas));
        cluster.spawn(primaries + replicas, watcher)?;
        watcher.step(&format!("making a cluster: {primaries} primaries, {replicas} replicas"));
        cluster.form(primaries, watcher)?;
        Ok(cluster)
    }

    /// All nodes ever started and not removed, in the order of their start, with the roles and
    /// slots that the first living node gives them (one that says the cluster is ok, if there is).
    pub fn nodes(&self) -> Result<Vec<Node>> {
        let lines = self.view()?;
        let members = self.members();
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
        self.members().iter().map(|member| member.server.addr()).collect()
    }

    /// The password all nodes ask for.
    pub fn password(&self) -> Option<&str> {
        self.setup.password.as_deref()
    }

    /// The folder everything lies in.
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// A command that runs `program` with the sandbox's folder `name` (made if need be) to itself:
    /// the watchdog kills it too, should this process end without dropping the sandbox. Returns the
    /// folder as well; it is not the command's working directory.
    pub fn command(&self, name: &str, program: &Path) -> Result<(Command, PathBuf)> {
        let room = self.home.room(name)?;
        Ok((guarded(&room, program), room))
    }

    /// An authenticated connection to `node`.
    pub fn connect(&self, node: &Node) -> Result<Conn> {
        server::connect(node.addr, self.password())
    }

    /// SIGKILL. The cluster notices after its node timeout.
    pub fn kill(&self, node: &Node) -> Result<()> {
        self.with(node, |server| {
            server.kill();
            Ok(())
        })
    }

    /// Kills the process if it still lives and starts it again, empty, with its ports and its place
    /// in the cluster. Returns when it answers; for the cluster to be ok again see
    /// [`Cluster::settle`].
    pub fn restart(&self, node: &Node) -> Result<()> {
        self.with(node, Server::restart)
    }

    /// Restarts the node, empty, with another server program, as an in-place upgrade does.
    pub fn upgrade(&self, node: &Node, program: &Path) -> Result<()> {
        self.mixed.store(true, Relaxed);
        self.with(node, |server| server.restart_with(program))
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&self, node: &Node) -> Result<()> {
        self.with(node, Server::pause)
    }

    /// SIGCONT.
    pub fn resume(&self, node: &Node) -> Result<()> {
        self.with(node, Server::resume)
    }

    fn with<T>(&self, node: &Node, act: impl FnOnce(&mut Server) -> Result<T>) -> Result<T> {
        let mut members = self.members();
        let member = members.iter_mut().find(|member| member.id == node.id);
        act(&mut member.ok_or_else(|| no_such(&node.id))?.server)
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ID and address of those that neither died nor stand still.
    pub(super) fn running(&self) -> Vec<(String, SocketAddr)> {
        let members = self.members();
        let running = members.iter().filter(|member| member.server.state() == State::Running);
        running.map(|member| (member.id.clone(), member.server.addr())).collect()
    }

    /// CLUSTER NODES of a running node; preferably of one that says the cluster is ok.
    pub(super) fn view(&self) -> Result<Vec<view::Line>> {
        let mut second_best = None;
        for (_, addr) in self.running() {
            let Ok(lines) = self.ask(addr, &["CLUSTER", "NODES"]) else { continue };
            let lines = view::parse(&lines.text().unwrap_or_default());
            let info = self.ask(addr, &["CLUSTER", "INFO"])?.text().unwrap_or_default();
            if server::info_field(&info, "cluster_state") == Some("ok") {
                return Ok(lines);
            }
            second_best.get_or_insert(lines);
        }
        second_best.ok_or(Error::NoAnswer)
    }

    /// One command to one server; a refusal is an error.
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

    /// Looks again and again until `look` finds nothing missing any more. What it says is missing
    /// is shown to the watcher, and in the error when time is up.
    pub(super) fn wait(
        &self,
        what: &str,
        watcher: &mut dyn Watcher,
        mut look: impl FnMut() -> std::result::Result<(), Unmet>,
    ) -> Result<()> {
        let since = Instant::now();
        loop {
            let Err(reason) = look() else { return Ok(()) };
            if watcher.cancelled() {
                return Err(Error::Interrupted);
            }
            if since.elapsed() > AGREEMENT {
                let log = self.members().iter().map(|member| member.server.log()).collect();
                return Err(Error::Deadline {
                    what: what.to_owned(),
                    within: AGREEMENT,
                    reason: Box::new(reason),
                    log,
                });
            }
            watcher.detail(&reason.to_string());
            std::thread::sleep(PAUSE);
        }
    }
}

fn no_such(id: &str) -> Error {
    Error::NoSuchNode(id.to_owned())
}
