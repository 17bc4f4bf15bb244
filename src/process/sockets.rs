//! Whose listening sockets are: slotway's own, shared with the slotway that comes after it
//! (`hand_over`), or systemd's (socket activation).
//!
//! - **Shared**, TCP: both processes bind with SO_REUSEPORT. Left alone, the kernel would spread new
//!   connections over both, and those that it gave to the old one at its last moment would be reset
//!   when that closes its socket. So the new one, when it begins to listen, makes the kernel give
//!   every new connection to it, and the old one has a queue to empty that does not grow any more.
//! - **Shared**, Unix: the new one binds aside and renames the file over that of the old one.
//! - **Inherited**: found by its address in what systemd has handed over. The queue is the socket's,
//!   not the process's: connections wait there from one process to the next.

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

/// How long a connection may be in the middle of its handshake with the old process when the new
/// one takes over.
pub(super) const HANDSHAKE_GRACE: Duration = Duration::from_millis(200);
const BACKLOG: i32 = 4096;

/// Whose a listening socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This process's alone.
    Exclusive,
    /// Another slotway may bind the same address.
    Shared,
    /// Handed over by whoever started this process, who keeps it.
    Inherited,
}

/// How sockets are had.
#[derive(Debug, Default)]
pub(super) struct SocketSource {
    hand_over: bool,
    inherited: Vec<Inherited>,
    /// Of those, what was taken.
    taken: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Inherited {
    socket: Socket,
    address: Listen,
}

impl SocketSource {
    /// As `config` says, with what systemd has handed over. Once per process.
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
                Err(error) => warn!(index, %error, "a socket that was handed over is of no use"),
            }
        }
        sockets
    }

    /// As `config` says; nothing was handed over.
    pub fn new(config: &Config) -> Self {
        SocketSource { hand_over: config.hand_over == HandOver::On, ..SocketSource::default() }
    }

    /// Of sockets that this process makes.
    pub(super) fn ownership(&self) -> Ownership {
        if self.hand_over { Ownership::Shared } else { Ownership::Exclusive }
    }

    /// The socket that was handed over for `wanted`.
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
        info!(address = %local, "a socket that was handed over is used");
        Some((inherited.socket, local))
    }

    /// One that was taken serves `wanted` as well: `[::]` that is for IPv4, too.
    pub(super) fn has_inherited(&self, wanted: SocketAddr) -> bool {
        self.taken.iter().any(|taken| covers(*taken, true, wanted))
    }

    /// The same for a path.
    pub(super) fn inherit_unix(&mut self, path: &Path) -> Option<Socket> {
        let serves = |i: &Inherited| matches!(&i.address, Listen::Unix(has) if has == path);
        let found = self.inherited.iter().position(serves)?;
        info!(path = %path.display(), "a socket that was handed over is used");
        Some(self.inherited.swap_remove(found).socket)
    }

    /// What is left belongs to nothing in the configuration.
    pub fn warn_of_unused(&mut self) {
        for inherited in self.inherited.drain(..) {
            let address = inherited.address.to_string();
            warn!(
                address,
                "a socket that was handed over is not used: neither listen, tls.downstream.listen \
                 nor admin has this address"
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

    /// IPv6, and IPv4 by the same socket: what `ListenStream=6379` makes.
    fn is_for_both(&self) -> bool {
        self.tcp().is_some_and(|a| a.is_ipv6()) && !self.socket.only_v6().unwrap_or(true)
    }
}

/// A socket at `has` is what `wanted` asks for.
fn covers(has: SocketAddr, for_both: bool, wanted: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    has == wanted || (has.port() == wanted.port() && for_both && any(has.ip()) && any(wanted.ip()))
}

/// Listens on a shared socket, and has all new connections from then on.
///
/// # Errors
/// The operating system's.
pub(super) fn open_shared(socket: &Socket) -> io::Result<()> {
    socket.listen(BACKLOG)?;
    if socket.local_addr()?.is_unix() {
        return Ok(());
    }
    if let Err(error) = take_over(socket) {
        debug!(%error, "new connections cannot be led here, the kernel spreads them");
    }
    Ok(())
}

/// "The second socket of the group", whatever arrives: the first one is that of the old process, in
/// the order in which they began to listen. Where there is no second one, because there is no old
/// process (any more), the kernel takes the one that there is.
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

    /// How many of so many new connections it gets.
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
