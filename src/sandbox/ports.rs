//! Free ports for servers that will be killed and come back.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Where ports are taken from: below the range the kernel gives to outgoing connections. Were a
/// killed server's port inside that range, a client that keeps reconnecting could be given this very
/// port as its own, connect to itself, and keep the server from coming back.
const RANGE: Range<u16> = 10_000..32_000;

/// `count` different ports that nobody listens on at 127.0.0.1. They are free when this returns, not
/// for ever: whoever binds one must be ready to ask again.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    // The listeners are held until all ports are found, so that they differ.
    let mut held: Vec<TcpListener> = Vec::with_capacity(count);
    let mut attempts = 0;
    while held.len() < count {
        attempts += 1;
        if attempts > count + 1_000 {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "found no free ports"));
        }
        // The standard library's seed for hash maps: random enough to keep two sandboxes apart.
        let random = RandomState::new().hash_one(attempts);
        let port = RANGE.start + (random % u64::from(RANGE.end - RANGE.start)) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
        }
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
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
        let mut ports = free_ports(50).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }
}
