//! Limit of the admin listener's connections: a new connection is always admitted, and closes an
//! older one if there are too many. Pure but for the handles of tasks.

use std::net::IpAddr;

use tokio::task::AbortHandle;

/// The open connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionLimit {
    /// Peer addresses and tasks of the connections, oldest first.
    open: Vec<(IpAddr, AbortHandle)>,
}

impl ConnectionLimit {
    /// Admits a connection from `ip`. Beyond `max` connections, the oldest one of the address that
    /// has the most is closed, so that a single address cannot keep others out.
    pub fn admit(&mut self, ip: IpAddr, connection: AbortHandle, max: usize) {
        self.open.retain(|(_, connection)| !connection.is_finished());
        self.open.push((ip.to_canonical(), connection));
        while self.open.len() > max {
            let count = |ip: IpAddr| self.open.iter().filter(|(of, _)| *of == ip).count();
            let mut all: Vec<(usize, usize)> =
                self.open.iter().enumerate().map(|(at, (ip, _))| (count(*ip), at)).collect();
            // Spare the newest one, which is last.
            all.pop();
            let greediest = all.into_iter().max_by_key(|(count, at)| (*count, usize::MAX - at));
            let Some((_, at)) = greediest else { return };
            let (_, connection) = self.open.remove(at);
            connection.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    #[tokio::test]
    async fn the_address_with_the_most_connections_loses_its_oldest() {
        let mut limit = ConnectionLimit::default();
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut all = Vec::new();
        let mut connect = |from: u8| {
            let task = tokio::spawn(std::future::pending::<()>());
            limit.admit(ip(from), task.abort_handle(), MAX);
            all.push((from, task));
        };
        connect(1);
        (1..MAX).for_each(|_| connect(2));
        // Full: a third address displaces the oldest connection of the second, not of the first.
        connect(3);
        (0..10).for_each(|_| connect(2));
        let mut ended = Vec::new();
        for (at, (from, task)) in all.into_iter().enumerate() {
            tokio::task::yield_now().await;
            match task.is_finished() {
                true => ended.push((at, from)),
                false => task.abort(),
            }
        }
        assert_eq!(ended, (1..12).map(|at| (at, 2)).collect::<Vec<_>>());
    }
}
