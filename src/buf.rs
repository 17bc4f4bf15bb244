//! Byte queues: what waits to be written to a socket, in chunks that are reused.
//! Not here: what the bytes mean, and the sockets.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

/// A chunk is filled up to this many bytes; a larger frame gets a chunk of its own.
pub const CHUNK: usize = 64 << 10;
/// How many slices one vectored write is given at most.
const SLICES: usize = 64;

/// Chunks that are not in use, kept so that the steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Pool {
    chunks: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Bytes that the pool keeps at most.
    const KEEP: usize = 8 << 20;

    /// An empty chunk, of whatever capacity.
    pub fn take(&mut self) -> Vec<u8> {
        let chunk = self.chunks.pop().unwrap_or_default();
        self.bytes -= chunk.capacity();
        chunk
    }

    /// Takes a chunk back; an oversized one, or one too many, is freed.
    pub fn give(&mut self, mut chunk: Vec<u8>) {
        let capacity = chunk.capacity();
        if capacity == 0 || capacity > CHUNK || self.bytes + capacity > Self::KEEP {
            return;
        }
        chunk.clear();
        self.bytes += capacity;
        self.chunks.push(chunk);
    }

    /// Bytes that the pool keeps now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bytes on their way to a socket: appended at the end, written from the `sent` mark on, released
/// from the front. Towards a client, what is written is released at once; towards a node, a
/// command's bytes stay until its reply has come, so that it can be sent again elsewhere.
///
/// A frame that is appended whole never lies across two chunks.
#[derive(Debug, Default)]
pub struct SendQueue {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are released.
    head: usize,
    /// Bytes behind `head` that are written.
    sent: usize,
    /// Bytes behind `head` in all.
    len: usize,
}

impl SendQueue {
    /// Bytes that are not released.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left to release.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes written and not released.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Bytes not written.
    pub fn unsent(&self) -> usize {
        self.len - self.sent
    }

    /// The chunk that has room for `n` bytes more: the way to write a frame in place. Whoever
    /// writes says how much by [`SendQueue::added`].
    #[inline]
    pub fn room(&mut self, n: usize, pool: &mut Pool) -> &mut Vec<u8> {
        let fits =
            self.chunks.back().is_some_and(|last| last.is_empty() || last.len() + n <= CHUNK);
        if !fits {
            let chunk = pool.take();
            self.chunks.push_back(chunk);
        }
        let at = self.chunks.len().saturating_sub(1);
        // The queue is not empty here: `fits` or the push above.
        let chunk = &mut self.chunks[at];
        // Doubling by itself would grow it beyond what the pool takes back.
        let need = chunk.len() + n;
        if need > chunk.capacity() {
            let grown = (2 * chunk.capacity()).max(need).min(CHUNK.max(need));
            chunk.reserve_exact(grown - chunk.len());
        }
        chunk
    }

    /// `n` bytes were appended to the chunk that [`SendQueue::room`] gave.
    #[inline]
    pub fn added(&mut self, n: usize) {
        self.len += n;
    }

    /// Appends a frame.
    #[inline]
    pub fn push(&mut self, frame: &[u8], pool: &mut Pool) {
        self.room(frame.len(), pool).extend_from_slice(frame);
        self.len += frame.len();
    }

    /// Appends a frame that has a buffer of its own; a large one is not copied.
    pub fn push_owned(&mut self, frame: Vec<u8>, pool: &mut Pool) {
        if frame.len() < CHUNK / 2 {
            self.push(&frame, pool);
            pool.give(frame);
            return;
        }
        if self.chunks.back().is_some_and(Vec::is_empty)
            && let Some(empty) = self.chunks.pop_back()
        {
            pool.give(empty);
        }
        self.len += frame.len();
        self.chunks.push_back(frame);
    }

    /// The first `n` bytes that are not released, where they lie in one chunk (a frame does).
    pub fn front(&self, n: usize) -> Option<&[u8]> {
        self.chunks.front()?.get(self.head..self.head + n)
    }

    /// Releases `n` bytes from the front, written or not.
    #[inline]
    pub fn release(&mut self, n: usize, pool: &mut Pool) {
        let n = n.min(self.len);
        self.len -= n;
        self.sent = self.sent.saturating_sub(n);
        self.head += n;
        let mut left = self.chunks.len();
        while let Some(first) = self.chunks.front_mut() {
            if self.head < first.len() {
                return;
            }
            self.head -= first.len();
            if left == 1 {
                // Kept for the next frame, unless it grew beyond what is worth keeping.
                if first.capacity() > CHUNK {
                    *first = Vec::new();
                }
                first.clear();
                return;
            }
            left -= 1;
            if let Some(done) = self.chunks.pop_front() {
                pool.give(done);
            }
        }
    }

    /// Writes what is not written, as far as the socket takes it. Gives how much that was; less
    /// than asked for means that the socket is full.
    ///
    /// # Errors
    /// The socket's own, except "would block", which is 0 bytes or a short count.
    pub fn write_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        let mut total = 0;
        while self.sent < self.len {
            let wrote = if let [only] = self.chunks.make_contiguous() {
                socket.write(only.get(self.head + self.sent..).unwrap_or_default())
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let mut offset = self.head + self.sent;
                let mut used = 0;
                for chunk in &self.chunks {
                    if offset >= chunk.len() {
                        offset -= chunk.len();
                        continue;
                    }
                    let Some(slot) = slices.get_mut(used) else { break };
                    *slot = IoSlice::new(chunk.get(offset..).unwrap_or_default());
                    offset = 0;
                    used += 1;
                }
                socket.write_vectored(slices.get(..used).unwrap_or_default())
            };
            match wrote {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    total += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(total)
    }

    /// Releases what is written: a client's side has no use for it any more.
    pub fn release_sent(&mut self, pool: &mut Pool) {
        self.release(self.sent, pool);
    }

    /// The first `n` bytes count as written (they were, before the queue was put together anew).
    pub fn mark_sent(&mut self, n: usize) {
        self.sent = n.min(self.len);
    }

    /// Takes all frames out, given their lengths in order.
    pub fn take_frames(
        &mut self,
        lens: impl Iterator<Item = usize>,
        pool: &mut Pool,
    ) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for len in lens {
            let own_chunk = self.head == 0 && self.chunks.front().is_some_and(|c| c.len() == len);
            if own_chunk && len >= CHUNK / 2 {
                let frame = self.chunks.pop_front().unwrap_or_default();
                self.len -= frame.len();
                self.sent = self.sent.saturating_sub(frame.len());
                frames.push(frame);
            } else {
                frames.push(self.front(len).unwrap_or_default().to_vec());
                self.release(len, pool);
            }
        }
        frames
    }

    /// Gives all chunks back.
    pub fn clear(&mut self, pool: &mut Pool) {
        for chunk in self.chunks.drain(..) {
            pool.give(chunk);
        }
        (self.head, self.sent, self.len) = (0, 0, 0);
    }

    /// Bytes that the chunks occupy, used or not.
    pub fn capacity(&self) -> usize {
        self.chunks.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes `room` bytes, then is full until it is given more.
    struct Socket {
        room: usize,
        got: Vec<u8>,
    }

    impl Write for Socket {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let n = buf.len().min(self.room);
            if n == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= n;
            self.got.extend_from_slice(&buf[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            steps in proptest::collection::vec((0..4u8, 1..40_000usize), 1..60)
        ) {
            let (mut pool, mut queue) = (Pool::default(), SendQueue::default());
            let mut socket = Socket { room: 0, got: Vec::new() };
            let mut all: Vec<u8> = Vec::new();
            let mut frames: VecDeque<usize> = VecDeque::new();
            let mut released = 0;
            for (i, (what, n)) in steps.into_iter().enumerate() {
                let frame = vec![i as u8; n];
                match what {
                    0 => {
                        queue.push(&frame, &mut pool);
                        all.extend_from_slice(&frame);
                        frames.push_back(n);
                    }
                    1 => {
                        all.extend_from_slice(&frame);
                        frames.push_back(n);
                        queue.push_owned(frame, &mut pool);
                    }
                    2 => {
                        socket.room = n;
                        queue.write_to(&mut socket).unwrap();
                    }
                    _ => {
                        if let Some(&len) = frames.front() && queue.sent() >= len {
                            prop_assert_eq!(queue.front(len), Some(&all[released..released + len]));
                            queue.release(len, &mut pool);
                            released += len;
                            frames.pop_front();
                        }
                    }
                }
                prop_assert_eq!(queue.len(), all.len() - released);
                prop_assert_eq!(&socket.got[..], &all[..socket.got.len()]);
            }
            let rest = queue.take_frames(frames.into_iter(), &mut pool);
            prop_assert_eq!(rest.concat(), &all[released..]);
            prop_assert!(queue.is_empty());
        }
    }
}
