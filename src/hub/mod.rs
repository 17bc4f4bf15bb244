//! The pub/sub hub: the thread whose event loop carries events and actions between sockets, workers
//! and the book ([`crate::pubsub::book`]), which holds the logic.
//!
//! In each turn the book gets the messages of workers and control, the frames of nodes and the
//! time; its actions are performed, commands are written (one write per node), and every worker
//! gets its news in one batch.
//!
//! After a panic the thread goes on with an empty book: workers are told, and subscribe again to
//! all they need.

mod conn;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use tokio::sync::mpsc::UnboundedSender;

use self::conn::{Conn, ConnState, Due, ReadError};
use crate::backoff::Backoff;
use crate::buf::Pool;
use crate::cluster::{NodeAddr, Snapshot, UpstreamId};
use crate::config::Config;
use crate::hash::IntMap;
use crate::lines::LogLimit;
use crate::mailbox::{Batch, HubHandle, ToHub};
use crate::mailbox::{ToControl, ToWorker, WorkerHandle, WrongNode};
use crate::pubsub::book::{Action, Book, Pace, Run};
use crate::pubsub::{GapReason, HubEvent, HubStats};
use crate::sparsely;
use crate::tls::Tls;
use crate::upstream::ConnectionEnd;

/// Size of one read from a socket, bytes.
const READ_SIZE: usize = 256 << 10;
/// Limit on consecutive reads from one socket: a node may fill it as fast as it is read.
const MAX_READS: usize = 64;
/// Bytes of messages on their way to one worker above which nodes are not read.
const MAX_IN_TRANSIT: usize = 64 << 20;
/// How long a topic without listeners stays subscribed, microseconds.
const LINGER: u64 = 1_000_000;
/// Pause before a restart where the hub has failed sooner than this.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// The pub/sub hub.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Sends it messages.
    pub handle: HubHandle,
    /// Its counters.
    pub stats: Arc<HubStats>,
}

/// Starts the hub's thread.
///
/// # Errors
/// The operating system gives no event loop or no thread.
pub fn spawn(
    config: Arc<Config>,
    tls: Arc<Tls>,
    control: UnboundedSender<ToControl>,
) -> io::Result<Hub> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (sender, inbox) = mpsc::channel();
    let stats = Arc::new(HubStats::default());
    let mut hub = HubState {
        config,
        tls,
        control,
        poll,
        inbox,
        stats: Arc::clone(&stats),
        workers: IntMap::default(),
        topology: None,
        epoch: Instant::now(),
    };
    std::thread::Builder::new().name("pubsub".into()).spawn(move || hub.run())?;
    Ok(Hub { handle: HubHandle::new(sender, waker), stats })
}

const WAKER: Token = Token(0);

/// The way to one worker.
struct WorkerLink {
    handle: WorkerHandle,
    /// Bytes of messages that it was sent and has not processed.
    transit: Arc<AtomicUsize>,
}

/// The part of the hub that survives a panic.
struct HubState {
    config: Arc<Config>,
    tls: Arc<Tls>,
    control: UnboundedSender<ToControl>,
    poll: Poll,
    inbox: mpsc::Receiver<ToHub>,
    stats: Arc<HubStats>,
    workers: IntMap<usize, WorkerLink>,
    topology: Option<Arc<Snapshot>>,
    epoch: Instant,
}

impl HubState {
    fn run(&mut self) {
        tracing::debug!("pub/sub hub runs");
        loop {
            let begun = Instant::now();
            let mut session = HubSession::new(self);
            if let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| session.run())) {
                if let Err(error) = outcome {
                    tracing::error!(%error, "the pub/sub hub's event loop failed");
                }
                return;
            }
            drop(session);
            self.failed();
            if begun.elapsed() < RESTART_PAUSE {
                std::thread::sleep(RESTART_PAUSE);
            }
        }
    }

    fn failed(&mut self) {
        let stats = &self.stats;
        stats.restarts.fetch_add(1, Relaxed);
        let topics: u64 = stats.topics.iter().map(|n| n.swap(0, Relaxed)).sum();
        stats.gaps[GapReason::HubFailed as usize].fetch_add(topics, Relaxed);
        for gauge in &stats.upstream {
            gauge.store(0, Relaxed);
        }
        stats.connections.store(0, Relaxed);
        tracing::error!(topics, "the pub/sub hub failed (a bug in slotway), and begins anew");
        for worker in self.workers.values() {
            worker.tell(vec![HubEvent::Restarted]);
        }
    }
}

impl WorkerLink {
    fn tell(&self, news: Vec<HubEvent>) {
        // The end of a worker is reported by control.
        let _ = self.handle.send(ToWorker::PubSub(Batch::new(news, &self.transit)));
    }
}

fn pace(config: &Config) -> Pace {
    let backoff = Backoff::new(config.reconnect.min, config.reconnect.max);
    Pace { backoff, linger: LINGER, per_second: config.retries.min_per_second }
}

/// The part of the hub that begins anew after a panic.
struct HubSession<'a> {
    hub: &'a mut HubState,
    book: Book,
    conns: Vec<Option<Conn>>,
    /// Due times of reconnections, with their nodes.
    retries: Vec<(u64, usize)>,
    now: u64,
    stopped: bool,
    /// Nodes are not read: a worker exceeds [`MAX_IN_TRANSIT`].
    held_back: bool,
    /// Limits the log lines about lost connections.
    lines: LogLimit,
    // Kept for their capacity.
    scratch: Vec<u8>,
    line: Vec<u8>,
    run: Run,
    pool: Pool,
}

impl<'a> HubSession<'a> {
    fn new(hub: &'a mut HubState) -> Self {
        let mut book = Book::new(Arc::clone(&hub.stats), pace(&hub.config));
        book.set_map(hub.config.slot_map());
        for &index in hub.workers.keys() {
            book.worker(index);
        }
        HubSession {
            book,
            conns: Vec::new(),
            retries: Vec::new(),
            now: 0,
            stopped: false,
            held_back: false,
            lines: LogLimit::default(),
            scratch: vec![0; READ_SIZE],
            line: Vec::new(),
            run: Run::default(),
            pool: Pool::default(),
            hub,
        }
    }

    fn run(&mut self) -> io::Result<()> {
        self.tick_clock();
        if let Some(topology) = self.hub.topology.clone() {
            self.book.topology(topology);
        }
        let mut events = Events::with_capacity(256);
        while !self.stopped {
            // Before the first poll: messages may have arrived while the book was made anew.
            self.read_inbox();
            self.run_timers();
            self.read_nodes();
            self.book.end_turn();
            self.perform_actions();
            self.write_nodes();
            self.tell_workers();
            let timeout = self.poll_timeout();
            match self.hub.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.tick_clock();
            for event in &events {
                if event.token() != WAKER {
                    self.node_event(event.token().0 - 1, event);
                }
            }
        }
        Ok(())
    }

    fn tick_clock(&mut self) {
        self.now = self.hub.epoch.elapsed().as_micros() as u64;
        self.book.now = self.now;
    }

    fn read_inbox(&mut self) {
        loop {
            let message = match self.hub.inbox.try_recv() {
                Ok(message) => message,
                Err(mpsc::TryRecvError::Empty) => return,
                // All senders are gone, so nobody is left to send Stop.
                Err(mpsc::TryRecvError::Disconnected) => ToHub::Stop,
            };
            match message {
                ToHub::Worker { index, handle } => {
                    let worker = WorkerLink { handle, transit: Arc::default() };
                    self.hub.workers.insert(index, worker);
                    self.book.worker(index);
                }
                ToHub::WorkerGone { index } => {
                    self.hub.workers.remove(&index);
                    self.book.worker_gone(index);
                }
                ToHub::Topology(snapshot) => {
                    self.hub.topology = Some(Arc::clone(&snapshot));
                    self.book.topology(snapshot);
                }
                ToHub::Follows { worker, generation } => {
                    self.book.worker_follows(worker, generation);
                }
                ToHub::WrongNode(wrong) => self.wrong_node_answers(&wrong),
                ToHub::Wishes { worker, wishes } => {
                    for wish in wishes {
                        self.book.wish(worker, wish);
                    }
                }
                ToHub::Config(config) => {
                    self.book.set_pace(pace(&config));
                    self.hub.config = config;
                }
                ToHub::Stop => return self.stopped = true,
                #[cfg(test)]
                ToHub::Fail => panic!("as the test wants it"),
            }
        }
    }

    fn node_event(&mut self, node: usize, event: &mio::event::Event) {
        let Some(Some(conn)) = self.conns.get_mut(node) else { return };
        match conn.event(event, self.hub.poll.registry()) {
            Ok(false) => {}
            Ok(true) => {
                let Some(place) = self.book.nodes.get(node) else { return };
                conn.begin_handshake(self.hub.config.upstream_of(place.upstream), &place.id);
            }
            Err(error) => self.lost_to_error(node, &error),
        }
    }

    fn read_failed(&mut self, node: usize, why: &ReadError) {
        match why {
            ReadError::Socket(error) => self.lost_to_error(node, error),
            ReadError::Talk(why) => self.lost(node, why.clone()),
        }
    }

    /// Handles an error of the socket or of TLS.
    fn lost_to_error(&mut self, node: usize, error: &io::Error) {
        let Some(place) = self.book.nodes.get(node) else { return };
        let why = self.hub.tls.why(place.upstream, error, &place.name);
        self.lost(node, ConnectionEnd::Tls(why));
    }

    fn name(&self, node: usize) -> String {
        self.book.nodes.get(node).map(|n| n.addr.to_string()).unwrap_or_default()
    }

    /// Handles a connection that was closed or could not be made.
    fn lost(&mut self, node: usize, why: ConnectionEnd) {
        self.drop_connection(node, &why, true);
    }

    /// Closes the connection to an address at which another node answers now.
    fn wrong_node_answers(&mut self, wrong: &WrongNode) {
        for node in 0..self.conns.len() {
            let ready =
                matches!(self.conns.get(node), Some(Some(c)) if c.state == ConnState::Ready);
            let place = self.book.nodes.get(node);
            if ready
                && place.is_some_and(|place| {
                    place.socket == Some(wrong.socket) && place.id == wrong.expected
                })
            {
                self.drop_connection(node, &wrong.why().into(), false);
            }
        }
    }

    /// Drops a connection. If the node has closed it (`closed`) after it was ready, the next
    /// attempt may follow at once; otherwise it backs off.
    fn drop_connection(&mut self, node: usize, why: &ConnectionEnd, closed: bool) {
        let was_ready = self.close(node);
        self.hub.stats.failures.fetch_add(1, Relaxed);
        let topics = self.book.nodes.get(node).map_or(0, |n| n.load);
        // One line per outage: attempts that fail again are logged at debug level.
        if was_ready || self.book.nodes.get(node).is_some_and(|n| n.failures == 0) {
            let node = self.name(node);
            sparsely!(self.lines, warn, node, error = %why, topics, "subscription connection lost");
        } else {
            tracing::debug!(node = self.name(node), error = %why, topics, "node not reached");
        }
        if let Some(due) = self.book.links().lost(node, closed && was_ready) {
            self.retries.push((due, node));
        }
    }

    /// Closes the connection to `node`. `true`: it was ready.
    fn close(&mut self, node: usize) -> bool {
        let Some(conn) = self.conns.get_mut(node).and_then(Option::take) else { return false };
        let ready = conn.state == ConnState::Ready;
        if ready {
            self.hub.stats.connections.fetch_sub(1, Relaxed);
        }
        conn.close(self.hub.poll.registry(), &mut self.pool);
        ready
    }

    fn run_timers(&mut self) {
        self.book.tick();
        let now = self.now;
        let due: Vec<usize> =
            self.retries.extract_if(.., |(due, _)| *due <= now).map(|(_, node)| node).collect();
        for node in due {
            self.book.nodes.retry(node);
        }
        let timeout = self.hub.config.timeouts.connect.as_micros() as u64;
        for node in 0..self.conns.len() {
            let Some(Some(conn)) = self.conns.get_mut(node) else { continue };
            match conn.due(now, !self.book.nodes.is_unused(node), timeout) {
                Due::Not(_) => {}
                // Its answer may be in the socket, unread.
                Due::Silent(_) if conn.readable => {}
                Due::Silent(why) => self.drop_connection(node, &ConnectionEnd::Silent(why), false),
                Due::Unused => {
                    tracing::debug!(node = self.name(node), "subscription connection not needed");
                    self.close(node);
                    self.book.links().closed(node);
                }
                Due::Ping => {
                    conn.ping(now);
                    self.book.nodes.ping(node);
                }
            }
        }
    }

    /// Performs the book's actions.
    fn perform_actions(&mut self) {
        loop {
            let actions = self.book.nodes.take_actions();
            if actions.is_empty() {
                return;
            }
            let mut refresh = BTreeMap::<UpstreamId, Option<NodeAddr>>::new();
            for action in actions {
                match action {
                    Action::Connect(node) => self.connect(node),
                    Action::Close(node) => {
                        tracing::info!(node = self.name(node), "node left by the pub/sub hub");
                        self.close(node);
                    }
                    Action::Subscribe(node, topic) => {
                        self.send_command(node, &[topic.kind.subscribe().as_bytes(), &topic.name]);
                    }
                    Action::Unsubscribe(node, topic) => {
                        self.send_command(
                            node,
                            &[topic.kind.unsubscribe().as_bytes(), &topic.name],
                        );
                    }
                    Action::Ping(node) => self.send_command(node, &[b"PING"]),
                    Action::Refresh(upstream, hint) => {
                        let known = refresh.entry(upstream).or_default();
                        *known = hint.or(known.take());
                    }
                }
            }
            for (upstream, hint) in refresh {
                let upstream = Some(upstream);
                // During shutdown control may have ended.
                let _ = self.hub.control.send(ToControl::RefreshTopology { hint, upstream });
            }
        }
    }

    fn send_command(&mut self, node: usize, args: &[&[u8]]) {
        // The book may have ordered it before it learned that the connection is lost.
        if let Some(Some(conn)) = self.conns.get_mut(node)
            && conn.state == ConnState::Ready
        {
            conn.push_command(args, &mut self.line, &mut self.pool);
        }
    }

    fn connect(&mut self, node: usize) {
        let Some(place) = self.book.nodes.get(node) else { return };
        let Some(socket) = place.socket else {
            let host = place.addr.host.to_string();
            return self.lost(node, ConnectionEnd::Unresolved { host });
        };
        let (name, upstream) = (place.name.clone(), place.upstream);
        let until = self.now + self.hub.config.timeouts.connect.as_micros() as u64;
        self.close(node);
        let (registry, stats) = (self.hub.poll.registry(), &*self.hub.stats);
        let secured = (socket, &*name, upstream, &*self.hub.tls);
        match Conn::connect(secured, registry, Token(node + 1), until, stats) {
            Ok(conn) => {
                if self.conns.len() <= node {
                    self.conns.resize_with(node + 1, || None);
                }
                if let Some(place) = self.conns.get_mut(node) {
                    *place = Some(conn);
                }
            }
            Err(error) => self.lost_to_error(node, &error),
        }
    }

    fn write_nodes(&mut self) {
        // If a connection is lost here, its topics move to other nodes, which are then written
        // again.
        let mut again = true;
        while std::mem::take(&mut again) {
            for node in 0..self.conns.len() {
                let Some(Some(conn)) = self.conns.get_mut(node) else { continue };
                if let Err(error) = conn.flush(self.hub.poll.registry(), &mut self.pool) {
                    self.lost_to_error(node, &error);
                    self.perform_actions();
                    again = true;
                }
            }
        }
    }

    fn tell_workers(&mut self) {
        for (index, news) in self.book.workers.take_news() {
            if let Some(worker) = self.hub.workers.get(&index) {
                worker.tell(news);
            }
        }
    }

    /// How long the event loop may sleep; `None`: until an event.
    fn poll_timeout(&mut self) -> Option<Duration> {
        let readable = self.conns.iter().flatten().any(|c| c.readable);
        if self.stopped || (readable && !self.held_back) {
            return Some(Duration::ZERO);
        }
        if self.held_back {
            return Some(Duration::from_millis(1));
        }
        let timeout = self.hub.config.timeouts.connect.as_micros() as u64;
        let mut next = self.book.next_due().unwrap_or(u64::MAX);
        for (due, _) in &self.retries {
            next = next.min(*due);
        }
        for (node, conn) in self.conns.iter_mut().enumerate() {
            let Some(conn) = conn else { continue };
            next = next.min(match conn.due(self.now, !self.book.nodes.is_unused(node), timeout) {
                Due::Not(until) => until,
                _ => self.now,
            });
        }
        if next == u64::MAX {
            return None;
        }
        let now = self.hub.epoch.elapsed().as_micros() as u64;
        // Polls have a resolution of a millisecond: rounding down would spin.
        Some(Duration::from_millis(next.saturating_sub(now).div_ceil(1000)))
    }
}
