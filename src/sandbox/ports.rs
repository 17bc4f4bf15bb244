//! Free ports for servers that will be killed and restarted.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// The range of ports: below the kernel's range for outgoing connections. If a killed server's port
/// were in that range, a client that keeps reconnecting could be given this very port as its own,
/// connect to itself, and keep the server from restarting.
const RANGE: Range<u16> = 10_000..32_000;

/// Claims on the ports that this process has handed out, held until it ends.
static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// `count` different ports on 127.0.0.1 that are not listened on and that no call, in this process
/// or in another running one, has returned before: a caller needs time to listen on its port. Other
/// programs may still take a port, so a caller that cannot bind it must ask for another.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut ports = Vec::with_capacity(count);
    let mut attempts = 0;
    while ports.len() < count {
        attempts += 1;
        if attempts > count + 1_000 {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "found no free ports"));
        }
        // The standard library's seed for hash maps is random enough to keep two sandboxes apart.
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

/// A claim on `port`, or `None` if it is claimed already. It is a socket of this name in the
/// abstract namespace: only one process can have it, and the system frees it however that process
/// ends. `tests/python/servers.py` makes the same claims.
fn claim(port: u16) -> io::Result<Option<UnixListener>> {
    let name = SocketAddr::from_abstract_name(format!("slotway-port-{port}"))?;
    match UnixListener::bind_addr(&name) {
        Ok(listener) => Ok(Some(listener)),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(e) => Err(e),
    }
}

/// One port on 127.0.0.1 that is not listened on; see [`free_ports`].
pub fn free_port() -> io::Result<u16> {
    free_ports(1)?.pop().ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_can_be_bound() {
        // Enough for repetitions to be expected: 500²/2 pairs among 22,000 ports.
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
