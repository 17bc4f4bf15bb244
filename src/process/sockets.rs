//! Ownership of listening sockets: exclusive, shared with the next slotway (`hand_over`), or
//! inherited from systemd (socket activation).
//!
//! - **Shared**, TCP: both processes bind with SO_REUSEPORT. By default the kernel spreads new
//!   connections over both, and those in the accept queue of the old process are reset when it
//!   closes its socket. So the new process, when it begins to listen, has the kernel give all new
//!   connections to it; the accept queue of the old one no longer grows and can be emptied.
//! - **Shared**, Unix: the new process binds to another name and renames the file over the old one.
//! - **Inherited**: found by its address among the sockets that systemd has passed on. The accept
//!   queue belongs to the socket, so connections wait in it from one process to the next.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use listenfd::ListenFd;
use nix::libc::{BPF_K, BPF_RET, sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};
use socket2::Socket;
use tracing::{debug, info, warn};

use crate::config::{Config, HandOver, Listen};

/// How long a connection whose TCP handshake was under way at a take-over may still reach the old
/// process.
pub(super) const HANDSHAKE_GRACE: Duration = Duration::from_millis(200);
const BACKLOG: i32 = 4096;

/// The ownership of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Only this process has it.
    Exclusive,
    /// Another slotway may bind the same address.
    Shared,
    /// The service manager passed it on, and keeps it open.
    Inherited,
}

/// The source of listening sockets: inherited ones, and rules for new ones.
#[derive(Debug, Default)]
pub(super) struct SocketSource {
    hand_over: bool,
    /// Inherited sockets that are not used yet.
    inherited: Vec<Inherited>,
    /// Addresses of used inherited sockets that serve both IPv6 and IPv4.
    taken: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Inherited {
    socket: Socket,
    address: Listen,
}

impl SocketSource {
    /// The source of sockets at the start: takes what systemd has passed on. Call it once per
    /// process.
    pub(super) fn from_environment(config: &Config) -> Self {
        let mut sockets = SocketSource::new(config);
        let mut given = ListenFd::from_env();
        for index in 0..given.len() {
            let socket = match given.take_unix_listener(index) {
                Ok(Some(listener)) => Ok(Socket::from(listener)),
                _ => match given.take_tcp_listener(index) {
                    Ok(Some(listener)) => Ok(Socket::from(listener)),
                    Ok(None) => continue,
                    Err(error) => Err(error),
                },
            };
            match socket.and_then(Inherited::new) {
                Ok(inherited) => sockets.inherited.push(inherited),
                Err(error) => warn!(index, %error, "an inherited socket cannot be used"),
            }
        }
        sockets
    }

    /// A source of sockets without inherited ones.
    pub fn new(config: &Config) -> Self {
        SocketSource { hand_over: config.hand_over == HandOver::On, ..SocketSource::default() }
    }

    /// The ownership of new sockets.
    pub(super) fn ownership(&self) -> Ownership {
        if self.hand_over { Ownership::Shared } else { Ownership::Exclusive }
    }

    /// Takes the inherited socket for `wanted`, if there is one.
    pub(super) fn inherit_tcp(&mut self, wanted: SocketAddr) -> Option<(Socket, SocketAddr)> {
        let serves = |inherited: &Inherited| {
            inherited.tcp().is_some_and(|has| covers(has, inherited.is_for_both(), wanted))
        };
        let found = self.inherited.iter().position(serves)?;
        let inherited = self.inherited.swap_remove(found);
        let local = inherited.tcp()?;
        if inherited.is_for_both() {
            self.taken.push(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), local.port()));
        }
        info!(address = %local, "an inherited socket is used");
        Some((inherited.socket, local))
    }

    /// Whether an inherited socket in use serves `wanted` as well: one for `[::]` and IPv4.
    pub(super) fn has_inherited(&self, wanted: SocketAddr) -> bool {
        self.taken.iter().any(|taken| covers(*taken, true, wanted))
    }

    /// Takes the inherited Unix socket for `path`, if there is one.
    pub(super) fn inherit_unix(&mut self, path: &Path) -> Option<Socket> {
        let serves = |i: &Inherited| matches!(&i.address, Listen::Unix(has) if has == path);
        let found = self.inherited.iter().position(serves)?;
        info!(path = %path.display(), "an inherited socket is used");
        Some(self.inherited.swap_remove(found).socket)
    }

    /// Logs and closes the inherited sockets that no configured address has used.
    pub fn warn_of_unused(&mut self) {
        for inherited in self.inherited.drain(..) {
            let address = inherited.address.to_string();
            warn!(
                address,
                "an inherited socket is not used: neither listen, tls.downstream.listen nor admin \
                 has this address"
            );
        }
        self.taken.clear();
    }
}

impl Inherited {
    fn new(socket: Socket) -> io::Result<Self> {
        if !socket.is_listener()? {
            return Err(io::Error::other("it does not listen (ListenStream=, Accept=no)"));
        }
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let address = match (local.as_socket(), local.as_pathname()) {
            (Some(tcp), _) => {
                Listen::Tcp(crate::config::Address { host: tcp.ip().to_string(), port: tcp.port() })
            }
            (None, Some(path)) => Listen::Unix(path.to_owned()),
            (None, None) => return Err(io::Error::other("it has neither an address nor a path")),
        };
        Ok(Inherited { socket, address })
    }

    fn tcp(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Whether the socket serves both IPv6 and IPv4, as that of `ListenStream=6379`.
    fn is_for_both(&self) -> bool {
        self.tcp().is_some_and(|a| a.is_ipv6()) && !self.socket.only_v6().unwrap_or(true)
    }
}

/// Whether a socket bound to `has` serves `wanted`; `for_both`: the socket is for IPv6 and IPv4.
fn covers(has: SocketAddr, for_both: bool, wanted: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    has == wanted || (has.port() == wanted.port() && for_both && any(has.ip()) && any(wanted.ip()))
}

/// Listens on a shared socket, and takes over all new connections of its address.
///
/// # Errors
/// The operating system's.
pub(super) fn open_shared(socket: &Socket) -> io::Result<()> {
    socket.listen(BACKLOG)?;
    if socket.local_addr()?.is_unix() {
        return Ok(());
    }
    if let Err(error) = take_over(socket) {
        debug!(%error, "cannot take over all new connections, the kernel spreads them");
    }
    Ok(())
}

/// Attaches a BPF program to the SO_REUSEPORT group that always selects socket 1. Sockets are
/// numbered in the order in which they began to listen: 0 is the old process's. If there is no
/// socket 1, because no old process is left, the kernel selects the only one.
fn take_over(socket: &impl AsFd) -> nix::Result<()> {
    let mut program = [sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: 1 }];
    let program = sock_fprog { len: 1, filter: program.as_mut_ptr() };
    setsockopt(socket, AttachReusePortCbpf, &program)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(addr: SocketAddr) -> Socket {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.bind(&addr.into()).unwrap();
        open_shared(&socket).unwrap();
        socket
    }

    /// The number of connections that `socket` gets of `of` new ones.
    fn gets(socket: &Socket, of: usize) -> usize {
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let clients: Vec<_> =
            (0..of).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        let got = std::iter::from_fn(|| socket.accept().ok()).count();
        drop(clients);
        got
    }

    #[test]
    fn the_one_that_comes_later_gets_all_new_connections() {
        let first = shared("127.0.0.1:0".parse().unwrap());
        let addr = first.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(gets(&first, 20), 20);
        let second = shared(addr);
        assert_eq!(gets(&second, 50), 50, "the kernel would spread them");
        drop(first);
        assert_eq!(gets(&second, 20), 20);
        let third = shared(addr);
        assert_eq!(gets(&third, 50), 50);
        drop(third);
        assert_eq!(gets(&second, 20), 20, "the new one has failed, the old one goes on");
    }

    #[test]
    fn a_socket_is_known_by_its_address() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (has, both, wanted, fits) in [
            ("127.0.0.1:6379", false, "127.0.0.1:6379", true),
            ("127.0.0.1:6379", false, "127.0.0.1:6380", false),
            ("127.0.0.1:6379", false, "0.0.0.0:6379", false),
            ("[::]:6379", false, "[::]:6379", true),
            ("[::]:6379", false, "0.0.0.0:6379", false),
            ("[::]:6379", true, "0.0.0.0:6379", true),
            ("[::]:6379", true, "127.0.0.1:6379", false),
            ("[::]:6379", true, "0.0.0.0:6380", false),
        ] {
            assert_eq!(covers(addr(has), both, addr(wanted)), fits, "{has} for {wanted}");
        }
    }
}
