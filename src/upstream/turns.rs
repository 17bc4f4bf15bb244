//! The queue of clients with large replies that wait for their turn on a connection: fair queueing
//! by bytes.
//!
//! Each waiting client has a place on a virtual clock that counts reply bytes: the time when it
//! began to wait, plus the bytes that it has requested since its last turn. The lowest place is
//! served first, and the clock moves to it. So a client that requested 10 MB waits until each of
//! the others has requested as much, and a newcomer does not wait for anybody's past.

use crate::dest::ClientId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

type Waiter = ClientId;

/// Number of entries from which entries of closed clients are removed.
const PURGE_FROM: usize = 256;

/// The waiting clients, ordered by place.
#[derive(Debug, Default)]
pub struct Turns {
    /// Place, order of arrival, client.
    waiting: BinaryHeap<Reverse<(u64, u64, Waiter)>>,
    clock: u64,
    arrivals: u64,
    purge_at: usize,
}

impl Turns {
    /// Whether no client waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Appends `client`, which has requested `bytes` since its last turn. `is_here` tells whether a
    /// client is still waiting or was closed; closed ones are at most half of the entries.
    pub fn push(&mut self, client: Waiter, bytes: u64, is_here: impl Fn(Waiter) -> bool) {
        if self.waiting.len() >= self.purge_at.max(PURGE_FROM) {
            self.waiting.retain(|Reverse((_, _, client))| is_here(*client));
            self.purge_at = 2 * self.waiting.len();
        }
        self.arrivals += 1;
        self.waiting.push(Reverse((self.clock.saturating_add(bytes), self.arrivals, client)));
    }

    /// The client whose turn is next.
    pub fn peek(&self) -> Option<Waiter> {
        self.waiting.peek().map(|Reverse((_, _, client))| *client)
    }

    /// Takes out the client whose turn is next.
    pub fn pop(&mut self) -> Option<Waiter> {
        let Reverse((place, _, client)) = self.waiting.pop()?;
        self.clock = self.clock.max(place);
        Some(client)
    }

    /// Takes out all clients, in no particular order.
    pub fn drain(&mut self) -> impl Iterator<Item = Waiter> + '_ {
        self.waiting.drain().map(|Reverse((_, _, client))| client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: fn(Waiter) -> bool = |_| true;

    fn id(index: u32, generation: u32) -> ClientId {
        ClientId { index, generation }
    }

    /// Each client requests `sizes[i]` bytes per turn; returns the bytes of each after `turns`.
    fn served(sizes: &[u64], turns: usize) -> Vec<u64> {
        let mut queue = Turns::default();
        let mut bytes = vec![0; sizes.len()];
        (0..sizes.len()).for_each(|i| queue.push(id(i as u32, 1), 0, HERE));
        for _ in 0..turns {
            let client = queue.pop().expect("all wait");
            let i = client.at();
            bytes[i] += sizes[i];
            queue.push(client, sizes[i], HERE);
        }
        bytes
    }

    #[test]
    fn turns_are_fair_by_bytes_and_not_by_commands() {
        let bytes = served(&[64, 1, 16, 1], 10_000);
        let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
        assert!(most - least <= 2 * 64, "{bytes:?}");
    }

    #[test]
    fn equals_take_turns_in_the_order_in_which_they_came() {
        let mut queue = Turns::default();
        (0..3).for_each(|i| queue.push(id(i, 7), 5, HERE));
        assert_eq!(queue.peek(), Some(id(0, 7)));
        assert_eq!(
            [(); 4].map(|()| queue.pop()),
            [Some(id(0, 7)), Some(id(1, 7)), Some(id(2, 7)), None]
        );
    }

    #[test]
    fn who_comes_anew_is_not_behind_and_does_not_catch_up() {
        let mut queue = Turns::default();
        queue.push(id(0, 1), 1_000_000, HERE);
        assert_eq!(queue.pop(), Some(id(0, 1)));
        queue.push(id(0, 1), 10, HERE);
        queue.push(id(1, 1), 0, HERE);
        assert_eq!(queue.pop(), Some(id(1, 1)));
        queue.push(id(1, 1), 20, HERE);
        assert_eq!(queue.pop(), Some(id(0, 1)), "it waited for 10 bytes and not for its past");
    }

    #[test]
    fn closed_clients_do_not_pile_up() {
        let mut queue = Turns::default();
        for i in 0..100_000 {
            queue.push(id(i, 1), 0, |id| id.index % 1000 == 0);
        }
        assert!(queue.waiting.len() < 2 * PURGE_FROM, "{}", queue.waiting.len());
        assert!(queue.drain().count() > 0 && queue.is_empty());
    }
}
