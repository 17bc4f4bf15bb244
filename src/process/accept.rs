//! Listeners, and the way of a new connection to its worker.
//!
//! - TCP: a DNS name listens on all its addresses; `[::]` is IPv6 only, as Redis has it: list
//!   `0.0.0.0` beside it for both.
//! - Unix sockets: mode 0660, so that the owner and the group may connect; who else may is said by
//!   the folder. A file left behind by a dead process is replaced, one that is listened on is not.
//!   The file is removed at the end.
//!
//! Where the file descriptors are used up (which [`super::descriptors`] is to prevent, but a limit
//! can be lowered, and the machine has one of its own) clients are told so rather than left in the
//! backlog: one descriptor is kept for that.
//!
//! How sockets are had when another slotway, or systemd, has the address: [`super::sockets`].

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
use crate::descriptors::{Spare, is_exhausted};
use crate::errors::Failure;
use crate::lines::Lines;
use crate::mailbox::{Arrival, Downstream};
use crate::metrics::ProxyHeader;
use crate::sparsely;
use crate::stream::keep_alive;

/// Connections that may wait to be accepted; the kernel makes it `net.core.somaxconn` if that is
/// less.
const BACKLOG: i32 = 4096;
/// Between two attempts while the machine has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is bound, and not accepted from yet.
#[derive(Debug)]
pub(super) struct BoundSocket {
    socket: Socket,
    ownership: Ownership,
    /// Clients speak TLS there.
    tls: bool,
    /// What it is bound to, the port filled in.
    pub bound: Listen,
    file: Option<SocketFile>,
}

impl BoundSocket {
    /// Listens, if it does not already, and takes over from whoever listened there before.
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

    /// The same socket once more. `None`: the process has no more file descriptors, or there is a
    /// file to it, which is one's only.
    pub fn try_clone(&self) -> Option<BoundSocket> {
        let socket = self.file.is_none().then(|| self.socket.try_clone().ok()).flatten()?;
        let (ownership, tls, bound) = (self.ownership, self.tls, self.bound.clone());
        Some(BoundSocket { socket, ownership, tls, bound, file: None })
    }

    /// For clients with TLS, or without.
    pub fn with_tls(mut self, tls: bool) -> BoundSocket {
        self.tls = tls;
        self
    }

    /// Nobody else has it.
    pub(super) fn is_exclusive(&self) -> bool {
        self.ownership == Ownership::Exclusive
    }
}

/// A listener.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Bound,
    ownership: Ownership,
    /// What it is bound to, the port filled in.
    pub bound: Listen,
    /// Removes the file of a Unix socket.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
    Tls(TcpListener),
}

impl Listener {
    /// The next connection, ready to be handed over.
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

    /// The next of those that wait already. What the kernel says counts here, not what the event
    /// loop has heard of by now.
    fn accept_waiting(&self, keepalive: Option<Duration>) -> io::Result<Downstream> {
        let accept = |listener: SockRef<'_>| -> io::Result<Socket> {
            let socket = listener.accept()?.0;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match &self.socket {
            Bound::Tcp(listener) | Bound::Tls(listener) => {
                let stream = accept(listener.into())?.into();
                // One that has gone again does not stand in the way of those behind it.
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

/// An address that clients connect to, as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub listen: Listen,
    /// They speak TLS there.
    pub tls: bool,
}

impl ListenAddress {
    /// All of a configuration: `listen` and `tls.downstream.listen`.
    pub fn all(config: &Config) -> Vec<ListenAddress> {
        let plain = config.listen.iter().map(|l| ListenAddress { listen: l.clone(), tls: false });
        let secured = config.tls.downstream.listen.iter();
        let secured = secured.map(|a| ListenAddress { listen: Listen::Tcp(a.clone()), tls: true });
        plain.chain(secured).collect()
    }
}

/// Binds one of them: several sockets where a name has several addresses.
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

/// Binds all addresses of `address`; `key` is the configuration key that it comes from.
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
        // With port 0 the first address chooses for all of them.
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
            // localhost has an IPv6 address also where the machine has none.
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

/// Binds to another name in the same folder, to be renamed when it is listened on: at no moment is
/// there nobody at `path`.
fn bind_unix_aside(path: &Path) -> io::Result<(Socket, SocketFile)> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(not_a_socket());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    // Left behind by a process of the same number that was killed.
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

/// Removes a socket file that nobody listens on. Anything else at that path stays.
fn remove_stale(path: &Path, addr: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(not_a_socket());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full backlog must not keep slotway from starting: it means that somebody listens.
    probe.set_nonblocking(true)?;
    match probe.connect(addr) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

/// The file of a Unix socket; removed with this, unless somebody has put another in its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(SocketFile { path: path.to_owned(), inode: inode(path)? })
    }

    /// It has this name from now on, whatever had it before.
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

/// What accepting needs to know.
#[derive(Debug, Clone)]
pub(super) struct Acceptor {
    /// Where clients go.
    pub pool: Arc<Pool>,
    /// Where they are counted.
    pub status: Arc<Status>,
}

/// What one listener remembers while it accepts.
#[derive(Debug, Default)]
struct AcceptState {
    /// For a connection that can only be refused.
    spare: Spare,
    /// Connections whose header is being read.
    arriving: JoinSet<()>,
    refusals: Lines,
    errors: Lines,
}

impl Acceptor {
    /// Accepts the clients of `listen`, as the configuration calls `listener`, until `close` says
    /// so; then nobody waits any more whom the kernel has given to this listener, and would turn
    /// away with it.
    pub async fn run(
        self,
        listener: Arc<Listener>,
        listen: Listen,
        mut close: watch::Receiver<bool>,
    ) {
        let mut accepting = AcceptState { spare: Spare::new(1), ..AcceptState::default() };
        loop {
            let keepalive = self.pool.config().timeouts.keepalive;
            let accepted = tokio::select! {
                accepted = listener.accept(keepalive) => accepted,
                // Its sender gone is an end as well.
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
            // The client went away again before its turn.
            if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
                continue;
            }
            self.cannot_accept(&listener, &error, &mut accepting.errors);
            if !is_exhausted(&error) || !self.refuse_waiting(&listener, &mut accepting) {
                // The connection stays in the backlog and keeps the listener readable: without a
                // pause this would be a busy loop.
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }

    fn cannot_accept(&self, listener: &Listener, error: &io::Error, lines: &mut Lines) {
        self.status.accept_errors.fetch_add(1, Relaxed);
        let (listen, clients) = (&listener.bound, self.pool.clients());
        if is_exhausted(error) {
            sparsely!(lines, error, %listen, %error, clients, "cannot accept: raise the limit on \
                open files (ulimit -n, LimitNOFILE) or lower limits.clients");
        } else {
            sparsely!(lines, error, %listen, %error, clients, "cannot accept");
        }
    }

    /// No descriptor is left: tells whoever waits so with the one that was kept for it. `false`:
    /// that one is not there, or of no use.
    fn refuse_waiting(&self, listener: &Listener, accepting: &mut AcceptState) -> bool {
        if !accepting.spare.free() {
            return false;
        }
        let refused = listener.accept_waiting(None).map(|client| {
            self.refuse(&client, &Failure::NoDescriptor, &mut accepting.refusals);
        });
        accepting.spare.fill() && refused.is_ok()
    }

    /// Accepts who waits.
    async fn drain_backlog(
        &self,
        listener: &Listener,
        listen: &Listen,
        accepting: &mut AcceptState,
    ) {
        if listener.ownership == Ownership::Inherited {
            // The socket lives on, and the next process accepts from it.
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
            // Whoever was in the middle of connecting when another slotway took over.
            tokio::time::sleep(sockets::HANDSHAKE_GRACE).await;
            rest(accepting);
        }
        self.end_arrivals(accepting).await;
    }

    /// Load balancers send their header at once: whoever has not sent it by now is closed.
    async fn end_arrivals(&self, accepting: &mut AcceptState) {
        let ended = async { while accepting.arriving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(sockets::HANDSHAKE_GRACE, ended).await;
        accepting.arriving.shutdown().await;
    }

    /// A connection was accepted; where the listener expects a header it is read first.
    fn admit(&self, client: Downstream, listen: &Listen, accepting: &mut AcceptState) {
        self.pool.look_at_descriptors();
        let budget = self.pool.budget();
        if self.pool.clients() + self.pool.arriving.load(Relaxed) >= budget.clients {
            let why = budget.refusal(self.pool.config().limits.clients);
            return self.refuse(&client, &why, &mut accepting.refusals);
        }
        let config = self.pool.config();
        if !config.proxy_protocol.listen.contains(listen) {
            return self.serve(client.into(), &mut accepting.refusals);
        }
        while accepting.arriving.try_join_next().is_some() {}
        // It has gone again.
        let Ok(peer) = arrival::peer(&client) else { return };
        if !arrival::is_trusted(peer, &config.proxy_protocol.trusted) {
            self.count_header(ProxyHeader::Untrusted);
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
                        Some(_) => ProxyHeader::Ok,
                        None => ProxyHeader::Local,
                    });
                    return acceptor.serve(client, &mut Lines::default());
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

    fn count_header(&self, outcome: ProxyHeader) {
        if let Some(count) = self.status.proxy_headers.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn serve(&self, client: Arrival, refusals: &mut Lines) {
        if let Err(client) = self.pool.hand_over(client) {
            self.refuse(&client.socket, &Failure::NoWorker, refusals);
        }
    }

    fn refuse(&self, client: &Downstream, why: &Failure, refusals: &mut Lines) {
        self.status.clients_rejected.fetch_add(1, Relaxed);
        let limit = self.pool.budget().clients;
        sparsely!(refusals, warn, limit, answer = %why, "a client is refused");
        send_error(client, why);
    }
}

fn send_error(client: &Downstream, why: &Failure) {
    match client {
        Downstream::Tcp(stream) => refuse(stream, &why.frame()),
        Downstream::Unix(stream) => refuse(stream, &why.frame()),
        // It would not understand it: the error would have to be encrypted.
        Downstream::Tls(_) => {}
    }
}

/// Says why, as far as a fresh socket's buffer takes it, which is always; closing follows.
fn refuse(socket: &impl AsFd, why: &[u8]) {
    if let Err(error) = SockRef::from(socket).send(why) {
        debug!(%error, "a refused client went away first");
    }
}
