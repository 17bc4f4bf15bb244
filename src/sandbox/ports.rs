//! Free ports for servers that will be killed and come back.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Where ports are taken from: below the range the kernel gives to outgoing connections. Were a
/// killed server's port inside that range, a client that keeps reconnecting could be given this very
/// port as its own, connect to itself, and keep the server from coming back.
const RANGE: Range<u16> = 10_000..32_000;

/// The claims of the ports that this process has handed out, held until it ends.
static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// `count` different ports that nobody listens on at 127.0.0.1 and that no call, in this process or
/// in another that runs now, has returned before: whoever is given a port needs time to listen on it.
/// Other programs may still take one; whoever binds it must be ready to ask again.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut ports = Vec::with_capacity(count);
    let mut attempts = 0;
    while ports.len() < count {
        attempts += 1;
        if attempts > count + 1_000 {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "found no free ports"));
        }
        // The standard library's seed for hash maps: random enough to keep two sandboxes apart.
        let random = RandomState::new().hash_one(attempts);
        let port = RANGE.start + (random % u64::from(RANGE.end - RANGE.start)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && let Some(claim) = claim(port)?
        {
            CLAIMS.lock().unwrap_or_else(PoisonError::into_inner).push(claim);
            ports.push(port);
        }
    }
    Ok(ports)
}

/// A claim to `port`, or `None` if it is claimed already: a socket of this name in the abstract
/// namespace, which the system keeps to one process and frees when that ends, however it ends.
/// `tests/python/servers.py` makes the same claims.
fn claim(port: u16) -> io::Result<Option<UnixListener>> {
    let name = SocketAddr::from_abstract_name(format!("slotway-port-{port}"))?;
    match UnixListener::bind_addr(&name) {
        Ok(listener) => Ok(Some(listener)),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(e) => Err(e),
    }
}

/// One port that nobody listens on at 127.0.0.1; see [`free_ports`].
pub fn free_port() -> io::Result<u16> {
    free_ports(1)?.pop().ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        // So many that repetitions would be expected: 500²/2 pairs among 22,000 ports.
        let mut ports: Vec<u16> = (0..500).map(|_| free_port().unwrap()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 500);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).is_ok());
    }

    #[test]
    fn a_claimed_port_is_claimed_once() {
        let port = free_port().unwrap();
        assert!(claim(port).unwrap().is_none());
    }
}
