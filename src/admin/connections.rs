//! Connections of the admin listener, of which there are only so many: who comes gets a place, and
//! somebody else loses his. Pure but for the handles.

use std::net::IpAddr;

use tokio::task::AbortHandle;

/// Who has one.
#[derive(Debug, Default)]
pub(super) struct ConnectionLimit {
    /// The oldest first.
    taken: Vec<(IpAddr, AbortHandle)>,
}

impl ConnectionLimit {
    /// One for a connection that was accepted from `ip`. Where there is none the oldest connection
    /// of the address that has the most is ended: one that fills them all does not keep others out.
    /// There are `most`: nobody but a scraper and a prober is expected.
    pub fn admit(&mut self, ip: IpAddr, connection: AbortHandle, most: usize) {
        self.taken.retain(|(_, connection)| !connection.is_finished());
        self.taken.push((ip.to_canonical(), connection));
        while self.taken.len() > most {
            let count = |ip: IpAddr| self.taken.iter().filter(|(of, _)| *of == ip).count();
            let mut all: Vec<(usize, usize)> =
                self.taken.iter().enumerate().map(|(at, (ip, _))| (count(*ip), at)).collect();
            // Not the newest one, which is last.
            all.pop();
            let greediest = all.into_iter().max_by_key(|(count, at)| (*count, usize::MAX - at));
            let Some((_, at)) = greediest else { return };
            let (_, connection) = self.taken.remove(at);
            connection.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 64;

    #[tokio::test]
    async fn who_has_the_most_loses_the_oldest() {
        let mut limit = ConnectionLimit::default();
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut all = Vec::new();
        let mut come = |from: u8| {
            let task = tokio::spawn(std::future::pending::<()>());
            limit.admit(ip(from), task.abort_handle(), MOST);
            all.push((from, task));
        };
        come(1);
        (1..MOST).for_each(|_| come(2));
        // Full: a third one takes the place of the second one's oldest, not of the first one.
        come(3);
        (0..10).for_each(|_| come(2));
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
