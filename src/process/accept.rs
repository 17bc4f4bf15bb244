//! Client listeners: binding, accepting, and handing each new connection to a worker.
//!
//! - TCP: a DNS name listens on all its addresses; `[::]` is IPv6 only, as in Redis: list `0.0.0.0`
//!   beside it for both.
//! - Unix sockets: mode 0660, for the owner and the group; access by others is up to the
//!   permissions of the folder. A stale file of a dead process is replaced, a socket that another
//!   process listens on is not. The file is removed at shutdown.
//!
//! [`crate::descriptors`] keeps the process below its limit on open files, but that limit can be
//! lowered, and the machine has one of its own. When accepting fails for want of a descriptor, a
//! spare one is used to accept the client and send it an error, rather than leave it in the
//! backlog.
//!
//! Sockets of an address that another slotway or systemd holds: [`super::sockets`].

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::debug;

use super::arrival::{self, HeaderRefusal};
use super::error::RunError;
use super::sockets::{self, Ownership, SocketSource};
use crate::config::{Address, Config, Listen};
use crate::control::Pool;
use crate::control::Status;
use crate::descriptors::{SpareDescriptors, is_exhausted};
use crate::errors::Failure;
use crate::lines::LogLimit;
use crate::mailbox::{Arrival, Downstream};
use crate::metrics::ProxyHeaderOutcome;
use crate::sparsely;
use crate::stream::keep_alive;

/// Length of the accept queue; the kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Pause between attempts to accept while no file descriptor is left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is bound and not accepted from yet.
#[derive(Debug)]
pub(super) struct BoundSocket {
    socket: Socket,
    ownership: Ownership,
    /// Whether its clients speak TLS.
    tls: bool,
    /// The bound address, with the actual port.
    pub bound: Listen,
    file: Option<SocketFile>,
}

impl BoundSocket {
    /// Turns it into a listener. A shared socket takes over from the slotway that listened before.
    pub fn open(mut self) -> io::Result<Listener> {
        if self.ownership == Ownership::Shared {
            sockets::open_shared(&self.socket)?;
            if let (Listen::Unix(path), Some(file)) = (&self.bound, &mut self.file) {
                file.rename(path)?;
            }
        }
        let socket = match self.bound {
            Listen::Tcp(_) if self.tls => Bound::Tls(TcpListener::from_std(self.socket.into())?),
            Listen::Tcp(_) => Bound::Tcp(TcpListener::from_std(self.socket.into())?),
            Listen::Unix(_) => Bound::Unix(UnixListener::from_std(self.socket.into())?),
        };
        Ok(Listener { socket, ownership: self.ownership, bound: self.bound, _file: self.file })
    }

    /// A second handle to the same socket. `None` if no file descriptor is left, or if the socket
    /// has a file, which can have only one owner.
    pub fn try_clone(&self) -> Option<BoundSocket> {
        let socket = self.file.is_none().then(|| self.socket.try_clone().ok()).flatten()?;
        let (ownership, tls, bound) = (self.ownership, self.tls, self.bound.clone());
        Some(BoundSocket { socket, ownership, tls, bound, file: None })
    }

    /// The socket with TLS switched on or off.
    pub fn with_tls(mut self, tls: bool) -> BoundSocket {
        self.tls = tls;
        self
    }

    /// Whether no other process has the socket.
    pub(super) fn is_exclusive(&self) -> bool {
        self.ownership == Ownership::Exclusive
    }
}

/// A socket that clients are accepted from.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Bound,
    ownership: Ownership,
    /// The bound address, with the actual port.
    pub bound: Listen,
    /// Removes the file of a Unix socket when dropped.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
    Tls(TcpListener),
}

impl Listener {
    /// Waits for the next connection.
    async fn accept(&self, keepalive: Option<Duration>) -> io::Result<Downstream> {
        match &self.socket {
            Bound::Tcp(listener) | Bound::Tls(listener) => {
                let stream = listener.accept().await?.0.into_std()?;
                prepare(&stream, keepalive)?;
                Ok(self.downstream(stream))
            }
            Bound::Unix(listener) => Ok(Downstream::Unix(listener.accept().await?.0.into_std()?)),
        }
    }

    fn downstream(&self, stream: std::net::TcpStream) -> Downstream {
        match &self.socket {
            Bound::Tls(_) => Downstream::Tls(stream),
            _ => Downstream::Tcp(stream),
        }
    }

    /// The next connection in the accept queue; `WouldBlock` if it is empty. Asks the kernel rather
    /// than the event loop, whose readiness may be out of date.
    fn accept_waiting(&self, keepalive: Option<Duration>) -> io::Result<Downstream> {
        let accept = |listener: SockRef<'_>| -> io::Result<Socket> {
            let socket = listener.accept()?.0;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match &self.socket {
            Bound::Tcp(listener) | Bound::Tls(listener) => {
                let stream = accept(listener.into())?.into();
                // Fails for a client that has gone already; those behind it must be reached.
                let _ = prepare(&stream, keepalive);
                Ok(self.downstream(stream))
            }
            Bound::Unix(listener) => {
                accept(listener.into()).map(|socket| Downstream::Unix(socket.into()))
            }
        }
    }
}

fn prepare(stream: &std::net::TcpStream, keepalive: Option<Duration>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match keepalive {
        Some(idle) => keep_alive(stream, idle, Duration::ZERO),
        None => Ok(()),
    }
}

/// An entry of `listen` or `tls.downstream.listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address as configured.
    pub listen: Listen,
    /// Whether clients speak TLS there.
    pub tls: bool,
}

impl ListenAddress {
    /// All listen addresses of a configuration.
    pub fn all(config: &Config) -> Vec<ListenAddress> {
        let plain = config.listen.iter().map(|l| ListenAddress { listen: l.clone(), tls: false });
        let secured = config.tls.downstream.listen.iter();
        let secured = secured.map(|a| ListenAddress { listen: Listen::Tcp(a.clone()), tls: true });
        plain.chain(secured).collect()
    }
}

/// Binds `address`: several sockets where its DNS name has several addresses.
pub async fn bind(
    address: &ListenAddress,
    sockets: &mut SocketSource,
) -> Result<Vec<BoundSocket>, RunError> {
    let ListenAddress { listen, tls } = address;
    let (tls, key) = (*tls, if *tls { "tls.downstream.listen" } else { "listen" });
    let told = |error| RunError::bind(key, &listen.to_string(), error);
    match listen {
        Listen::Tcp(address) => {
            let all = bind_tcp(address, key, sockets).await?.into_iter();
            let unopened = all.map(|(socket, local, ownership)| {
                let bound = Address { host: local.ip().to_string(), port: local.port() };
                BoundSocket { socket, ownership, tls, bound: Listen::Tcp(bound), file: None }
            });
            Ok(unopened.collect())
        }
        Listen::Unix(path) => {
            let bound = listen.clone();
            if let Some(socket) = sockets.inherit_unix(path) {
                let ownership = Ownership::Inherited;
                return Ok(vec![BoundSocket { socket, ownership, tls, bound, file: None }]);
            }
            let ownership = sockets.ownership();
            let bind = if ownership == Ownership::Shared { bind_unix_aside } else { bind_unix };
            let (socket, file) = bind(path).map_err(told)?;
            Ok(vec![BoundSocket { socket, ownership, tls, bound, file: Some(file) }])
        }
    }
}

/// Binds all addresses that `address` resolves to; `key` is its configuration key, for errors.
pub(super) async fn bind_tcp(
    address: &Address,
    key: &'static str,
    sockets: &mut SocketSource,
) -> Result<Vec<(Socket, SocketAddr, Ownership)>, RunError> {
    let told = |error| RunError::bind(key, &address.to_string(), error);
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    let mut port = address.port;
    let mut bound = Vec::new();
    let (mut failed, mut served) = (None, false);
    for mut addr in found.map_err(told)? {
        // With port 0 all addresses get the port that the kernel gives the first one.
        addr.set_port(port);
        if let Some((socket, local)) = sockets.inherit_tcp(addr) {
            bound.push((socket, local, Ownership::Inherited));
            continue;
        }
        if sockets.has_inherited(addr) {
            served = true;
            continue;
        }
        let ownership = sockets.ownership();
        match bind_one(addr, ownership) {
            Ok((socket, local)) => {
                port = local.port();
                bound.push((socket, local, ownership));
            }
            // localhost resolves to an IPv6 address even on a machine without IPv6.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => failed = Some(error),
            Err(error) => return Err(told(error)),
        }
    }
    if bound.is_empty() && !served {
        return Err(told(failed.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into())));
    }
    Ok(bound)
}

fn bind_one(addr: SocketAddr, ownership: Ownership) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    if ownership == Ownership::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    if ownership == Ownership::Exclusive {
        socket.listen(BACKLOG)?;
    }
    let local = socket.local_addr()?.as_socket().unwrap_or(addr);
    Ok((socket, local))
}

fn bind_unix(path: &Path) -> io::Result<(Socket, SocketFile)> {
    let addr = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match socket.bind(&addr) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path, &addr)?;
            socket.bind(&addr)?;
        }
        other => other?,
    }
    let file = SocketFile::new(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

/// Binds to a temporary name in the same folder, which [`BoundSocket::open`] renames to `path`, so
/// that a client finds a listener at `path` at every moment of a hand-over.
fn bind_unix_aside(path: &Path) -> io::Result<(Socket, SocketFile)> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(not_a_socket());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    // Left behind by a killed process with the same PID.
    let _ = fs::remove_file(&aside);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&aside)?)?;
    let file = SocketFile::new(&aside)?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o660))?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

fn not_a_socket() -> io::Error {
    let what = "there is a file of that name which is not a socket";
    io::Error::new(ErrorKind::AlreadyExists, what)
}

/// Removes the file of a socket that no process listens on; anything else at `path` is an error.
fn remove_stale(path: &Path, addr: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(not_a_socket());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full backlog blocks a connect; it too means that a process listens.
    probe.set_nonblocking(true)?;
    match probe.connect(addr) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

/// The file of a Unix socket; removed on drop, unless another process has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(SocketFile { path: path.to_owned(), inode: inode(path)? })
    }

    /// Renames the file to `path`, replacing what is there.
    fn rename(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.path = path.to_owned();
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|now| now == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Accepts clients and hands them to workers.
#[derive(Debug, Clone)]
pub(super) struct Acceptor {
    /// The workers.
    pub pool: Arc<Pool>,
    /// Counters of accepted and refused clients.
    pub status: Arc<Status>,
}

/// The state of one listener's accept loop.
#[derive(Debug, Default)]
struct AcceptState {
    /// A descriptor for a connection that is accepted only to be refused.
    spare: SpareDescriptors,
    /// Connections whose PROXY protocol header is being read.
    arriving: JoinSet<()>,
    refusals: LogLimit,
    errors: LogLimit,
}

impl Acceptor {
    /// Accepts the clients of `listener` until `close` is true or its sender is gone, and then
    /// those left in its accept queue, which the kernel would reset. `listen` is the configured
    /// address.
    pub async fn run(
        self,
        listener: Arc<Listener>,
        listen: Listen,
        mut close: watch::Receiver<bool>,
    ) {
        let mut accepting =
            AcceptState { spare: SpareDescriptors::new(1), ..AcceptState::default() };
        loop {
            let keepalive = self.pool.config().timeouts.keepalive;
            let accepted = tokio::select! {
                accepted = listener.accept(keepalive) => accepted,
                () = async { _ = close.wait_for(|close| *close).await } => {
                    return self.drain_backlog(&listener, &listen, &mut accepting).await;
                }
            };
            let error = match accepted {
                Ok(client) => {
                    self.admit(client, &listen, &mut accepting);
                    continue;
                }
                Err(error) => error,
            };
            // The client has gone before it was accepted.
            if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
                continue;
            }
            self.cannot_accept(&listener, &error, &mut accepting.errors);
            if !is_exhausted(&error) || !self.refuse_waiting(&listener, &mut accepting) {
                // The connection stays in the accept queue and keeps the listener readable: without
                // a pause this would be a busy loop.
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }

    fn cannot_accept(&self, listener: &Listener, error: &io::Error, lines: &mut LogLimit) {
        self.status.accept_errors.fetch_add(1, Relaxed);
        let (listen, clients) = (&listener.bound, self.pool.clients());
        if is_exhausted(error) {
            sparsely!(lines, error, %listen, %error, clients, "cannot accept: raise the limit on \
                open files (ulimit -n, LimitNOFILE) or lower limits.clients");
        } else {
            sparsely!(lines, error, %listen, %error, clients, "cannot accept");
        }
    }

    /// Accepts the next client with the spare descriptor, only to send it an error. `false` if the
    /// spare descriptor is missing or did not help.
    fn refuse_waiting(&self, listener: &Listener, accepting: &mut AcceptState) -> bool {
        if !accepting.spare.free() {
            return false;
        }
        let refused = listener.accept_waiting(None).map(|client| {
            self.refuse(&client, &Failure::NoDescriptor, &mut accepting.refusals);
        });
        accepting.spare.fill() && refused.is_ok()
    }

    /// Accepts what is left in the accept queue of a listener that is being closed.
    async fn drain_backlog(
        &self,
        listener: &Listener,
        listen: &Listen,
        accepting: &mut AcceptState,
    ) {
        if listener.ownership == Ownership::Inherited {
            // The socket stays open in systemd, and the next process accepts from it.
            return self.end_arrivals(accepting).await;
        }
        let keepalive = self.pool.config().timeouts.keepalive;
        let rest = |accepting: &mut AcceptState| {
            loop {
                match listener.accept_waiting(keepalive) {
                    Ok(client) => self.admit(client, listen, accepting),
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if is_exhausted(&error) => {
                        self.cannot_accept(listener, &error, &mut accepting.errors);
                        if !self.refuse_waiting(listener, accepting) {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        };
        rest(accepting);
        if listener.ownership == Ownership::Shared {
            // Clients whose TCP handshake was under way when another slotway took over.
            tokio::time::sleep(sockets::HANDSHAKE_GRACE).await;
            rest(accepting);
        }
        self.end_arrivals(accepting).await;
    }

    /// Waits briefly for outstanding PROXY protocol headers, which load balancers send at once, and
    /// closes the connections that have not sent theirs.
    async fn end_arrivals(&self, accepting: &mut AcceptState) {
        let ended = async { while accepting.arriving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(sockets::HANDSHAKE_GRACE, ended).await;
        accepting.arriving.shutdown().await;
    }

    /// Hands an accepted connection to a worker or refuses it. Where `listen` is one of
    /// `proxy_protocol.listen` its header is read first.
    fn admit(&self, client: Downstream, listen: &Listen, accepting: &mut AcceptState) {
        self.pool.descriptors().check();
        let budget = self.pool.descriptors().budget();
        if self.pool.clients() + self.pool.arriving.load(Relaxed) >= budget.clients {
            let why = budget.refusal(self.pool.config().limits.clients);
            return self.refuse(&client, &why, &mut accepting.refusals);
        }
        let config = self.pool.config();
        if !config.proxy_protocol.listen.contains(listen) {
            return self.serve(client.into(), listen, &mut accepting.refusals);
        }
        while accepting.arriving.try_join_next().is_some() {}
        // The client has gone.
        let Ok(peer) = arrival::peer(&client) else { return };
        if !arrival::is_trusted(peer, &config.proxy_protocol.trusted) {
            self.count_header(ProxyHeaderOutcome::Untrusted);
            let ip = peer.map(|ip| ip.to_string());
            sparsely!(accepting.refusals, warn, %listen, ip, "a connection is closed: it comes \
                from none of proxy_protocol.trusted");
            return send_error(&client, &Failure::ProxyUntrusted);
        }
        let (acceptor, listen) = (self.clone(), listen.clone());
        let pending = arrival::PendingClient::take(&self.pool);
        accepting.arriving.spawn(async move {
            let limit = config.proxy_protocol.timeout;
            let read = arrival::read_header(client, limit).await;
            drop(pending);
            let why = match read {
                Ok(Ok(client)) => {
                    acceptor.count_header(match client.endpoints {
                        Some(_) => ProxyHeaderOutcome::Ok,
                        None => ProxyHeaderOutcome::Local,
                    });
                    return acceptor.serve(client, &listen, &mut LogLimit::default());
                }
                Ok(Err(why)) => why,
                Err(_) => HeaderRefusal::Cut,
            };
            acceptor.count_header(why.metric());
            let ip = peer.map(|ip| ip.to_string());
            match why {
                HeaderRefusal::Silent => debug!(%listen, ip, why = %why, "a connection was closed"),
                _ => acceptor.status.header_lines(|lines| {
                    sparsely!(lines, warn, %listen, ip, why = %why, "a connection is closed");
                }),
            }
        });
    }

    fn count_header(&self, outcome: ProxyHeaderOutcome) {
        if let Some(count) = self.status.proxy_headers.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn serve(&self, mut client: Arrival, listen: &Listen, refusals: &mut LogLimit) {
        client.upstream = self.pool.config().upstream_of_listener(listen);
        if let Err(client) = self.pool.hand_over(client) {
            self.refuse(&client.socket, &Failure::NoWorker, refusals);
        }
    }

    fn refuse(&self, client: &Downstream, why: &Failure, refusals: &mut LogLimit) {
        self.status.clients_rejected.fetch_add(1, Relaxed);
        let limit = self.pool.descriptors().budget().clients;
        sparsely!(refusals, warn, limit, answer = %why, "a client is refused");
        send_error(client, why);
    }
}

fn send_error(client: &Downstream, why: &Failure) {
    match client {
        Downstream::Tcp(stream) => refuse(stream, &why.frame()),
        Downstream::Unix(stream) => refuse(stream, &why.frame()),
        // A plain-text error would be no TLS record.
        Downstream::Tls(_) => {}
    }
}

/// Writes an error without waiting: it always fits into the buffer of a new socket.
fn refuse(socket: &impl AsFd, why: &[u8]) {
    if let Err(error) = SockRef::from(socket).send(why) {
        debug!(%error, "a refused client has gone before it got its error");
    }
}
