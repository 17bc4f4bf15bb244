//! The outstanding replies of one client, in order.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::buf::{CHUNK, Pool, SendQueue, with_copy};

/// Minimum length in bytes of a waiting reply that gets a buffer of its own, to avoid a copy.
const MIN_OWN_BUFFER: usize = 16 << 10;

/// An outstanding reply. Large variants are boxed, as there may be a million of them.
#[derive(Debug)]
#[allow(clippy::box_collection)]
enum Slot {
    /// Not arrived.
    Waiting,
    /// Arrived, stored in the stash, waiting for earlier replies.
    Stashed { start: usize, len: u32 },
    /// Arrived, in a buffer of its own, waiting for earlier replies.
    Own(Box<Vec<u8>>),
    /// Arriving, and waiting for earlier replies.
    Arriving(Box<SendQueue>),
    /// Arrived in pieces, waiting for earlier replies.
    Arrived(Box<SendQueue>),
    /// Arriving; its beginning is in `out`.
    Direct,
    /// Not arrived, and muted (CLIENT REPLY).
    Muted,
    /// The connection is closed in its place.
    End,
}

/// How much of an incomplete reply the client may have received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing: another reply can take its place.
    Undelivered,
    /// A part: the connection has to be closed.
    Partial,
}

/// The reply queue of a client. The reply at the head goes straight to `out`; a later one waits in
/// its place. Small waiting replies share one buffer, so that nothing is allocated for them.
///
/// Push messages of pub/sub are not replies and have no place in the queue: they go to `out` at
/// once, or behind the reply that is being written in pieces.
#[derive(Debug, Default)]
pub struct Replies {
    /// Bytes ready to be written.
    pub out: SendQueue,
    slots: VecDeque<Slot>,
    stash: Vec<u8>,
    /// Number of bytes in the stash that are still needed.
    live: usize,
    /// Number of bytes in separate buffers.
    own: usize,
    /// Pushes that wait for the end of the reply at the head, with their numbers of messages.
    behind: Vec<(Bytes, u32)>,
    /// Number of bytes of those.
    behind_bytes: usize,
    /// Number of [`Slot::Muted`] entries.
    muted: u32,
    /// Further replies are muted.
    mute: bool,
    /// See [`Replies::wait_for_half`].
    enough: usize,
}

impl Replies {
    /// Adds an outstanding reply and returns the number of those before it.
    #[inline]
    pub fn expect(&mut self) -> u32 {
        self.slots.push_back(if self.mute { Slot::Muted } else { Slot::Waiting });
        self.muted += u32::from(self.mute);
        (self.slots.len() - 1) as u32
    }

    /// Adds an outstanding reply that is not muted.
    pub fn expect_heard(&mut self) -> u32 {
        self.slots.push_back(Slot::Waiting);
        (self.slots.len() - 1) as u32
    }

    /// Mutes further replies (`true`), or stops doing so. `CLIENT REPLY`.
    pub fn mute(&mut self, on: bool) {
        self.mute = on;
    }

    /// Whether no reply is outstanding.
    pub fn is_drained(&self) -> bool {
        self.slots.is_empty()
    }

    /// Number of outstanding replies.
    pub fn waiting(&self) -> usize {
        self.slots.len()
    }

    /// Makes [`Replies::has_half`] true once half of the outstanding replies have arrived.
    pub fn wait_for_half(&mut self) {
        self.enough = self.slots.len() / 2;
    }

    /// Whether half of the replies outstanding at [`Replies::wait_for_half`] have arrived.
    pub fn has_half(&self) -> bool {
        self.slots.len() <= self.enough
    }

    /// Number of bytes of replies and pushes that have arrived and are not written.
    pub fn output(&self) -> usize {
        self.out.len() + self.behind_bytes + self.live + self.own
    }

    /// Number of push messages that are not written.
    pub fn items(&self) -> usize {
        self.out.items() + self.behind.iter().map(|(_, items)| *items as usize).sum::<usize>()
    }

    /// Memory in bytes. The shared bytes of pushes are accounted elsewhere.
    pub fn memory(&self) -> usize {
        self.out.memory()
            + self.behind.capacity() * size_of::<(Bytes, u32)>()
            + with_copy(self.stash.capacity(), self.stash.len())
            + self.own
            + with_copy(
                self.slots.capacity() * size_of::<Slot>(),
                self.slots.len() * size_of::<Slot>(),
            )
    }

    /// Ends the connection in place of the reply `at` places behind the head: neither that reply
    /// nor later ones are sent.
    pub fn end(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        match std::mem::replace(slot, Slot::End) {
            Slot::Muted => self.muted -= 1,
            Slot::Arriving(frame) => self.own -= frame.len(),
            _ => {}
        }
    }

    /// Whether everything before the end ([`Replies::end`]) is written.
    pub fn is_over(&self) -> bool {
        matches!(self.slots.front(), Some(Slot::End)) && self.out.is_empty()
    }

    /// Queues `items` push messages, between two replies. Muting does not apply to them.
    pub fn push(&mut self, bytes: Bytes, items: u32) {
        if matches!(self.slots.front(), Some(Slot::End)) {
            return;
        }
        if matches!(self.slots.front(), Some(Slot::Direct)) {
            self.behind_bytes += bytes.len();
            self.behind.push((bytes, items));
        } else {
            self.out.push_shared(bytes, items);
        }
    }

    /// Releases the pushes that waited for the reply that is now complete.
    #[cold]
    fn push_behind(&mut self) {
        for (bytes, items) in std::mem::take(&mut self.behind) {
            self.out.push_shared(bytes, items);
        }
        self.behind_bytes = 0;
    }

    /// Completes the reply `at` places behind the head with `frame`. Returns the number of replies
    /// that left the queue.
    #[inline]
    pub fn complete(&mut self, at: usize, frame: &[u8], pool: &mut Pool) -> u32 {
        if self.muted != 0 && self.is_muted(at) {
            return self.drop_muted(at, pool);
        }
        if at == 0 {
            self.out.push_pieces(frame, pool);
            self.slots.pop_front();
            return 1 + self.advance(pool);
        }
        self.put_aside(at, frame);
        0
    }

    /// Like [`Replies::complete`], for a frame with its own buffer: a large one is taken instead of
    /// copied.
    pub fn complete_owned(&mut self, at: usize, frame: &mut Vec<u8>, pool: &mut Pool) -> u32 {
        if frame.len() < CHUNK || (self.muted != 0 && self.is_muted(at)) || at >= self.slots.len() {
            return self.complete(at, frame, pool);
        }
        let frame = std::mem::take(frame);
        if at == 0 {
            self.out.push_owned(frame, pool);
            self.slots.pop_front();
            return 1 + self.advance(pool);
        }
        self.own += frame.len();
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot::Own(Box::new(frame));
        }
        0
    }

    fn is_muted(&self, at: usize) -> bool {
        matches!(self.slots.get(at), Some(Slot::Muted))
    }

    /// Drops a muted reply that has arrived. Its place is kept until the earlier ones are gone.
    #[cold]
    fn drop_muted(&mut self, at: usize, pool: &mut Pool) -> u32 {
        self.muted -= 1;
        if at == 0 {
            self.slots.pop_front();
            return 1 + self.advance(pool);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot::Stashed { start: 0, len: 0 };
        }
        0
    }

    fn put_aside(&mut self, at: usize, frame: &[u8]) {
        if at >= self.slots.len() {
            return; // answered already, at its deadline
        }
        let placed = if frame.len() >= MIN_OWN_BUFFER {
            self.own += frame.len();
            Slot::Own(Box::new(frame.to_vec()))
        } else {
            if self.stash.len() > 2 * self.live + CHUNK {
                self.compact();
            }
            let start = self.stash.len();
            self.stash.extend_from_slice(frame);
            self.live += frame.len();
            Slot::Stashed { start, len: frame.len() as u32 }
        };
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = placed;
        }
    }

    /// Moves the replies that have become the head to `out`.
    #[inline]
    fn advance(&mut self, pool: &mut Pool) -> u32 {
        let mut gone = 0;
        loop {
            match self.slots.front_mut() {
                Some(Slot::Stashed { start, len }) => {
                    let (start, len) = (*start, *len as usize);
                    let frame = self.stash.get(start..start + len).unwrap_or_default();
                    self.out.push(frame, pool);
                    self.live -= len;
                    if self.live == 0 {
                        self.stash.clear();
                    }
                }
                Some(Slot::Own(frame)) => {
                    let frame = std::mem::take(&mut **frame);
                    self.own -= frame.len();
                    self.out.push_owned(frame, pool);
                }
                Some(Slot::Arrived(frame)) => {
                    let frame = std::mem::take(&mut **frame);
                    self.own -= frame.len();
                    self.out.append(frame);
                }
                Some(slot @ Slot::Arriving(_)) => {
                    if let Slot::Arriving(frame) = std::mem::replace(slot, Slot::Direct) {
                        self.own -= frame.len();
                        self.out.append(*frame);
                    }
                    return gone;
                }
                _ => return gone,
            }
            self.slots.pop_front();
            gone += 1;
        }
    }

    /// Moves the bytes that are still needed to the front of the stash.
    fn compact(&mut self) {
        let mut packed = Vec::with_capacity(self.live + CHUNK);
        for slot in &mut self.slots {
            if let Slot::Stashed { start, len } = slot {
                let from = *start;
                *start = packed.len();
                let frame = self.stash.get(from..from + *len as usize).unwrap_or_default();
                packed.extend_from_slice(frame);
            }
        }
        self.stash = packed;
    }

    /// Appends a piece to the reply `at` places behind the head. Returns the number of replies that
    /// left the queue.
    pub fn stream(&mut self, at: usize, piece: &[u8], last: bool, pool: &mut Pool) -> u32 {
        if self.muted != 0 && self.is_muted(at) {
            return if last { self.drop_muted(at, pool) } else { 0 };
        }
        let Some(slot) = self.slots.get_mut(at) else { return 0 };
        if at == 0 {
            self.out.push_pieces(piece, pool);
            if !last {
                *slot = Slot::Direct;
                return 0;
            }
            self.slots.pop_front();
            if !self.behind.is_empty() {
                self.push_behind();
            }
            return 1 + self.advance(pool);
        }
        self.own += piece.len();
        let mut frame = match std::mem::replace(slot, Slot::Waiting) {
            Slot::Arriving(frame) => frame,
            _ => Box::default(),
        };
        frame.push_pieces(piece, pool);
        *slot = if last { Slot::Arrived(frame) } else { Slot::Arriving(frame) };
        0
    }

    /// Gives up the rest of an arriving reply and drops what is here of it, if possible.
    pub fn abandon(&mut self, at: usize) -> Delivery {
        match self.slots.get_mut(at) {
            Some(Slot::Direct) => Delivery::Partial,
            Some(slot) => {
                if let Slot::Arriving(frame) = slot {
                    self.own -= frame.len();
                    *slot = Slot::Waiting;
                }
                Delivery::Undelivered
            }
            None => Delivery::Undelivered,
        }
    }

    /// Empties the queue for the next client; large buffers are freed.
    pub fn reset(&mut self, pool: &mut Pool) {
        self.out.clear(pool);
        self.slots.clear();
        if self.slots.capacity() > 1024 {
            self.slots = VecDeque::new();
        }
        self.stash.clear();
        if self.stash.capacity() > MIN_OWN_BUFFER {
            self.stash = Vec::new();
        }
        self.behind = Vec::new();
        self.behind_bytes = 0;
        self.live = 0;
        self.own = 0;
        self.muted = 0;
        self.mute = false;
        self.enough = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(replies: &mut Replies) -> Vec<u8> {
        let mut out = Vec::new();
        replies.out.write_to(&mut out).unwrap();
        out
    }

    #[test]
    fn nothing_goes_out_behind_the_end() {
        let (mut r, mut pool) = (Replies::default(), Pool::default());
        (0..3).for_each(|_| {
            r.expect();
        });
        r.mute(true);
        r.expect();
        r.end(3);
        r.end(1);
        assert_eq!(r.muted, 0);
        assert!(!r.is_over(), "the first is still to come");
        r.push(Bytes::from_static(b"message;"), 1);
        assert_eq!(r.complete(2, b"third", &mut pool), 0);
        assert_eq!(r.complete(0, b"first", &mut pool), 1);
        r.push(Bytes::from_static(b"late"), 1);
        assert!(!r.is_over(), "the first is to be written");
        assert_eq!(written(&mut r), b"message;first");
        r.out.release_sent(&mut pool);
        assert!(r.is_over());
    }

    #[test]
    fn a_partly_seen_reply_is_known_as_such() {
        let (mut r, mut pool) = (Replies::default(), Pool::default());
        r.expect();
        r.expect();
        r.stream(1, b"later", false, &mut pool);
        assert_eq!(r.abandon(1), Delivery::Undelivered);
        r.stream(0, b"now", false, &mut pool);
        assert_eq!(r.abandon(0), Delivery::Partial);
        assert_eq!(written(&mut r), b"now");
    }

    /// CLIENT REPLY: a muted reply keeps its place until it arrives, and leaves nothing.
    #[test]
    fn muted_replies_are_dropped_in_their_place() {
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]] {
            for streamed in [false, true] {
                let (mut r, mut pool) = (Replies::default(), Pool::default());
                for mute in [false, true, true, false] {
                    r.mute(mute);
                    r.expect();
                }
                let mut base = 0;
                for i in order {
                    let at = i - base as usize;
                    if streamed {
                        base += r.stream(at, &[b'a' + i as u8], false, &mut pool);
                        base += r.stream(i - base as usize, b".", true, &mut pool);
                    } else {
                        base += r.complete(at, &[b'a' + i as u8, b'.'], &mut pool);
                    }
                }
                assert_eq!((base, r.muted, r.live, r.own), (4, 0, 0, 0));
                assert_eq!(written(&mut r), b"a.d.", "{order:?} {streamed}");
            }
        }
    }

    #[test]
    fn a_muted_reply_that_breaks_off_was_not_seen() {
        let (mut r, mut pool) = (Replies::default(), Pool::default());
        r.mute(true);
        r.expect();
        assert_eq!(r.stream(0, b"half", false, &mut pool), 0);
        assert_eq!(r.abandon(0), Delivery::Undelivered);
        assert_eq!(r.complete(0, b"an error instead", &mut pool), 1);
        assert!(r.is_drained() && r.out.is_empty());
    }

    /// A push waits only for the end of a reply that is being written, and then precedes the next
    /// one, even if that has arrived already.
    #[test]
    fn pushes_go_out_at_once_but_not_inside_a_reply() {
        let (mut r, mut pool) = (Replies::default(), Pool::default());
        r.push(Bytes::from_static(b"0,"), 1);
        (0..3).for_each(|_| {
            r.expect();
        });
        r.push(Bytes::from_static(b"1,"), 1);
        r.stream(0, b"begin ", false, &mut pool);
        r.push(Bytes::from_static(b"2,"), 2);
        r.stream(1, b"next ", false, &mut pool);
        r.push(Bytes::from_static(b"3,"), 1);
        assert_eq!((r.output(), r.out.len(), r.items()), (19, 10, 5));
        assert_eq!(r.stream(0, b"end,", true, &mut pool), 1);
        r.push(Bytes::from_static(b"4,"), 1);
        assert_eq!(r.stream(1 - 1, b"done,", true, &mut pool), 1);
        r.push(Bytes::from_static(b"5,"), 1);
        assert_eq!(r.complete(0, b"last,", &mut pool), 1);
        assert_eq!(written(&mut r), b"0,1,begin end,2,3,next done,4,5,last,");
        assert_eq!((r.behind_bytes, r.items()), (0, 7));
        r.expect();
        r.stream(0, b"begin", false, &mut pool);
        r.push(Bytes::from_static(b"never,"), 1);
        r.reset(&mut pool);
        assert_eq!((r.output(), r.items()), (0, 0));
    }

    proptest! {
        #[test]
        fn replies_come_out_in_the_order_of_the_commands(
            order in proptest::collection::vec(any::<u32>(), 1..40),
            pieces in any::<u64>(),
        ) {
            let (mut r, mut pool) = (Replies::default(), Pool::default());
            let n = order.len();
            (0..n).for_each(|_| { r.expect(); });
            let mut arrivals: Vec<usize> = (0..n).collect();
            arrivals.sort_by_key(|&i| order[i]);
            let mut base = 0u32;
            for i in arrivals {
                let frame = vec![i as u8; 1 + i * 37];
                let at = |base: u32| i - base as usize;
                if pieces >> (i % 64) & 1 == 1 {
                    let (a, b) = frame.split_at(frame.len() / 2);
                    base += r.stream(at(base), a, false, &mut pool);
                    base += r.stream(at(base), b, true, &mut pool);
                } else {
                    base += r.complete(at(base), &frame, &mut pool);
                }
            }
            prop_assert_eq!(base as usize, n);
            let want: Vec<u8> = (0..n).flat_map(|i| vec![i as u8; 1 + i * 37]).collect();
            prop_assert_eq!(written(&mut r), want);
            prop_assert_eq!((r.live, r.own), (0, 0));
        }

        /// Each reply is complete and in its place, and pushes are complete and in order, whatever
        /// the order of arrival. A push waits only for the end of a reply that is being written.
        /// Muted replies leave nothing, and muting does not affect pushes.
        #[test]
        fn pushes_lie_between_replies(
            steps in proptest::collection::vec((0..5u8, any::<u16>()), 1..150),
        ) {
            const PUSH: u8 = 255;
            let (mut r, mut pool) = (Replies::default(), Pool::default());
            let large = |i: usize| if i % 7 == 3 { MIN_OWN_BUFFER } else { 0 };
            let frame = |i: usize| vec![i as u8; 2 + i * 37 + large(i)];
            // Per reply: number of arrived bytes, and whether it is muted.
            let mut owed: Vec<(usize, bool)> = Vec::new();
            let (mut base, mut pushes) = (0, 0u8);
            let last = std::iter::repeat_n((4, u16::MAX), 150);
            for (what, n) in steps.into_iter().chain(last) {
                let open: Vec<usize> =
                    (base..owed.len()).filter(|&i| owed[i].0 < frame(i).len()).collect();
                let begun = owed.get(base).is_some_and(|(here, muted)| *here > 0 && !muted);
                match what {
                    0 => {
                        let muted = n % 4 == 0;
                        r.mute(muted);
                        prop_assert_eq!(r.expect() as usize, owed.len() - base);
                        owed.push((0, muted));
                    }
                    1 => {
                        let before = r.out.len();
                        r.push(Bytes::from(vec![PUSH, pushes, pushes]), 1);
                        pushes += 1;
                        prop_assert_eq!(r.out.len(), if begun { before } else { before + 3 });
                    }
                    _ => {
                        let Some(&i) = open.get(n as usize % open.len().max(1)) else { continue };
                        let whole = frame(i);
                        let rest = &whole[owed[i].0..];
                        let piece = &rest[..if what == 2 { 1 + rest.len() / 3 } else { rest.len() }];
                        let last = piece.len() == rest.len();
                        base += if what == 3 && owed[i].0 == 0 {
                            r.complete(i - base, &whole, &mut pool) as usize
                        } else {
                            r.stream(i - base, piece, last, &mut pool) as usize
                        };
                        owed[i].0 += piece.len();
                    }
                }
            }
            prop_assert!(r.is_drained() && r.output() == r.out.len());
            prop_assert_eq!(r.items(), pushes as usize);
            let mut replies = (0..owed.len()).filter(|&i| !owed[i].1);
            let all = written(&mut r);
            let (mut rest, mut seen) = (&all[..], 0);
            while let Some(&first) = rest.first() {
                let want = if first == PUSH {
                    seen += 1;
                    vec![PUSH, seen - 1, seen - 1]
                } else {
                    frame(replies.next().unwrap())
                };
                prop_assert!(rest.starts_with(&want), "{rest:?} begins with {want:?}");
                rest = &rest[want.len()..];
            }
            prop_assert_eq!((seen, replies.next()), (pushes, None));
        }
    }
}
