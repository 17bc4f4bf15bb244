//! Queues of bytes to be written to sockets, in reusable chunks. Not here: the meaning of the
//! bytes, and the sockets.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;

/// Capacity of a chunk, in bytes. A larger frame gets a chunk of its own.
pub const CHUNK: usize = 64 << 10;
/// Maximum number of slices in one vectored write. With slices of 60 bytes a slice costs 35 ns in a
/// write of 64, 22 ns in one of 256, 18 ns in one of 1024.
const MAX_SLICES: usize = 256;
/// Maximum number of slices for short queues: a smaller array to fill in.
const FEW_SLICES: usize = 8;

/// Bytes after which a socket is not written to again in the same turn of the event loop.
pub const WRITE_LIMIT: usize = 512 << 10;

/// Reserves room for the announced size of a buffer's content (`need` bytes in all) and a little
/// for what follows, once a sixteenth of it has arrived. Doubling alone would copy a large buffer
/// while the old one still exists; reserving at once would let an announcement of a few bytes take
/// hundreds of megabytes of address space.
pub fn reserve_announced(buffer: &mut Vec<u8>, need: usize) {
    const MIN_RESERVED: usize = 1 << 20;
    const MIN_ARRIVED_PART: usize = 16;
    if need > buffer.capacity() && need >= MIN_RESERVED && buffer.len() >= need / MIN_ARRIVED_PART {
        buffer.reserve_exact(need + 2 * CHUNK - buffer.len());
    }
}

/// Resident memory of a buffer in bytes: the capacity of a small one; the content of a large one,
/// whose pages become resident only when written to.
#[inline]
pub fn resident(buffer: &Vec<u8>) -> usize {
    if buffer.capacity() <= 2 * CHUNK { buffer.capacity() } else { buffer.len() + PAGE }
}

const PAGE: usize = 4 << 10;

/// Memory of a collection that grows by doubling, including the copy that exists while it grows, in
/// bytes. So growing needs no check of its own on the hot path.
#[inline]
pub fn with_copy(capacity: usize, used: usize) -> usize {
    if capacity <= 2 * CHUNK { capacity } else { capacity + used }
}

/// A pool of unused chunks, so that the steady state allocates nothing.
#[derive(Debug)]
pub struct Pool {
    chunks: Vec<Vec<u8>>,
    bytes: usize,
    /// Maximum number of bytes kept.
    keep: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Pool::keeping(Self::KEEP)
    }
}

impl Pool {
    /// Maximum number of bytes kept by the pools of all workers.
    const KEEP: usize = 16 << 20;

    fn keeping(keep: usize) -> Pool {
        Pool { chunks: Vec::new(), bytes: 0, keep }
    }

    /// The pool of one of `workers` workers.
    pub fn of_one(workers: usize) -> Pool {
        Pool::keeping((Self::KEEP / workers.max(2)).max(4 * CHUNK))
    }

    /// Frees all chunks.
    pub fn clear(&mut self) {
        self.chunks = Vec::new();
        self.bytes = 0;
    }

    /// An empty chunk of any capacity.
    pub fn take(&mut self) -> Vec<u8> {
        let chunk = self.chunks.pop().unwrap_or_default();
        self.bytes -= chunk.capacity();
        chunk
    }

    /// Returns a chunk to the pool; frees it if it is oversized or the pool is full.
    fn give(&mut self, mut chunk: Vec<u8>) {
        let capacity = chunk.capacity();
        if capacity == 0 || capacity > CHUNK || self.bytes + capacity > self.keep {
            return;
        }
        chunk.clear();
        self.bytes += capacity;
        self.chunks.push(chunk);
    }

    /// Number of bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A closed chunk, to which nothing is appended.
#[derive(Debug)]
enum Chunk {
    /// A chunk that is full or followed by shared bytes.
    Own(Vec<u8>),
    /// Bytes shared with other queues, and the number of messages in them.
    Shared(Bytes, u32),
}

impl Chunk {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(bytes, _) => bytes,
        }
    }
}

/// A queue of bytes for a socket: appended at the end, written from the `sent` mark on, released
/// from the front. Bytes for a client are released once written; a command for a node stays until
/// its reply has arrived, so that it can be resent elsewhere.
///
/// A frame that is appended in one call never spans two chunks.
#[derive(Debug, Default)]
pub struct SendQueue {
    /// Chunks that are followed by others, none of them empty. Usually there are none.
    closed: VecDeque<Chunk>,
    /// The last chunk, to which bytes are appended. It may be empty.
    last: Vec<u8>,
    /// Number of released bytes in the first chunk.
    head: usize,
    /// Number of bytes behind `head` that are written.
    sent: usize,
    /// Number of bytes behind `head`.
    len: usize,
    /// Number of messages in the shared chunks.
    items: usize,
    /// Memory of the closed chunks that are not shared, in bytes.
    closed_own: usize,
}

impl SendQueue {
    /// Capacity of `closed` that is kept when it is empty: a slow subscriber's queue may have been
    /// much longer.
    const KEEP_ENTRIES: usize = 1024;

    /// Number of bytes not released.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether all bytes are released.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of bytes written and not released.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Number of bytes not written.
    pub fn unsent(&self) -> usize {
        self.len - self.sent
    }

    /// Memory of the queue in bytes, used or not. Shared bytes are accounted elsewhere; only the
    /// references to them count.
    pub fn memory(&self) -> usize {
        let entries = self.closed.capacity() * size_of::<Chunk>();
        let used = self.closed.len() * size_of::<Chunk>();
        self.closed_own + self.last.capacity() + with_copy(entries, used)
    }

    /// Number of messages in the shared chunks that are not fully released.
    pub fn items(&self) -> usize {
        self.items
    }

    /// A chunk with room for `n` more bytes, to write a frame in place. The caller then reports the
    /// written bytes with [`SendQueue::added`].
    #[inline]
    pub fn room(&mut self, n: usize, pool: &mut Pool) -> &mut Vec<u8> {
        if self.last.len() + n > CHUNK && !self.last.is_empty() {
            self.close_last();
        }
        if self.last.len() + n > self.last.capacity() {
            self.grow(n, pool);
        }
        &mut self.last
    }

    /// Closes the last chunk, so that the next bytes start a new one.
    fn close_last(&mut self) {
        if !self.last.is_empty() {
            self.closed_own += self.last.capacity();
            self.closed.push_back(Chunk::Own(std::mem::take(&mut self.last)));
        }
    }

    fn grow(&mut self, n: usize, pool: &mut Pool) {
        if self.last.capacity() == 0 {
            self.last = pool.take();
        }
        // Doubling alone would exceed the size that the pool takes back.
        let need = self.last.len() + n;
        if need > self.last.capacity() {
            let grown = (2 * self.last.capacity()).max(need).min(CHUNK.max(need));
            self.last.reserve_exact(grown - self.last.len());
        }
    }

    /// Records that `n` bytes were appended to the chunk that [`SendQueue::room`] returned.
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

    /// Appends bytes that may span chunks, so that the pool takes all chunks back.
    #[inline]
    pub fn push_pieces(&mut self, bytes: &[u8], pool: &mut Pool) {
        if bytes.len() <= CHUNK / 2 {
            return self.push(bytes, pool);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = match CHUNK.saturating_sub(self.last.len()) {
                0 => CHUNK,
                room => room,
            };
            let (piece, behind) = rest.split_at(room.min(rest.len()));
            self.push(piece, pool);
            rest = behind;
        }
    }

    /// Appends the content of another queue without copying. Nothing of it may have been written.
    pub fn append(&mut self, mut other: SendQueue) {
        debug_assert!(other.head == 0 && other.sent == 0);
        self.close_last();
        self.len += other.len;
        self.items += other.items;
        self.closed_own += other.closed_own;
        self.closed.append(&mut other.closed);
        self.last = other.last;
    }

    /// Appends a frame with its own buffer; a large one is not copied.
    pub fn push_owned(&mut self, frame: Vec<u8>, pool: &mut Pool) {
        if frame.len() < CHUNK / 2 {
            self.push(&frame, pool);
            pool.give(frame);
            return;
        }
        self.close_last();
        self.len += frame.len();
        pool.give(std::mem::replace(&mut self.last, frame));
    }

    /// Appends `items` messages that are shared with other queues, without copying.
    pub fn push_shared(&mut self, bytes: Bytes, items: u32) {
        if bytes.is_empty() {
            return;
        }
        self.close_last();
        self.len += bytes.len();
        self.items += items as usize;
        self.closed.push_back(Chunk::Shared(bytes, items));
    }

    /// The first `n` unreleased bytes, if they lie in one chunk (a frame does).
    #[inline]
    pub fn front(&self, n: usize) -> Option<&[u8]> {
        let first = self.closed.front().map_or(&self.last[..], Chunk::bytes);
        first.get(self.head..self.head + n)
    }

    /// The `n` bytes at `offset` from the first unreleased byte, if they lie in one chunk. Linear
    /// in the number of chunks before them.
    pub fn at(&self, offset: usize, n: usize) -> Option<&[u8]> {
        let mut offset = self.head + offset;
        for chunk in self.closed.iter().map(Chunk::bytes).chain([&self.last[..]]) {
            if offset < chunk.len() {
                return chunk.get(offset..offset + n);
            }
            offset -= chunk.len();
        }
        None
    }

    /// Releases `n` bytes from the front, written or not.
    #[inline]
    pub fn release(&mut self, n: usize, pool: &mut Pool) {
        let n = n.min(self.len);
        self.len -= n;
        self.sent = self.sent.saturating_sub(n);
        self.head += n;
        if !self.closed.is_empty() {
            self.release_closed(pool);
        }
        // Bytes are left, in a closed chunk or in the last one.
        if self.len > 0 {
            return;
        }
        // The last chunk is kept for the next frame unless it has grown too large.
        self.head = 0;
        if self.last.capacity() > CHUNK {
            self.last = Vec::new();
        }
        self.last.clear();
    }

    fn release_closed(&mut self, pool: &mut Pool) {
        while let Some(first) = self.closed.front() {
            let len = first.bytes().len();
            if self.head < len {
                return;
            }
            self.head -= len;
            match self.closed.pop_front() {
                Some(Chunk::Own(done)) => {
                    self.closed_own -= done.capacity();
                    pool.give(done);
                }
                Some(Chunk::Shared(_, items)) => self.items -= items as usize,
                None => {}
            }
        }
        if self.closed.capacity() > Self::KEEP_ENTRIES {
            self.closed = VecDeque::new();
        }
    }

    /// Writes until the socket is full and returns the number of bytes. Fewer than were unsent
    /// means that the socket is full.
    ///
    /// # Errors
    /// Those of the socket, except "would block", which gives a short count.
    pub fn write_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        self.write_up_to(usize::MAX, socket)
    }

    /// Like [`SendQueue::write_to`], but stops after [`WRITE_LIMIT`] bytes, which the last write
    /// may exceed: one turn's share for a peer that reads as fast as the bytes are written. Fewer
    /// than the limit, with bytes left, means that the socket is full.
    ///
    /// # Errors
    /// As [`SendQueue::write_to`].
    pub fn write_share_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        self.write_up_to(WRITE_LIMIT, socket)
    }

    /// Like [`SendQueue::write_to`], but only up to the first `end` unreleased bytes.
    ///
    /// # Errors
    /// As [`SendQueue::write_to`].
    pub fn write_until(&mut self, end: usize, socket: &mut impl Write) -> io::Result<usize> {
        let (mut total, end) = (0, end.min(self.len));
        while self.sent < end {
            let mut offset = self.head + self.sent;
            let mut chunks = self.closed.iter().map(Chunk::bytes).chain([&self.last[..]]);
            let chunk = chunks.find_map(|chunk| match chunk.get(offset..) {
                Some(rest) if !rest.is_empty() => Some(rest),
                _ => {
                    offset -= chunk.len();
                    None
                }
            });
            let chunk = chunk.unwrap_or_default();
            let some = chunk.get(..end - self.sent).unwrap_or(chunk);
            match socket.write(some) {
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

    fn write_up_to(&mut self, limit: usize, socket: &mut impl Write) -> io::Result<usize> {
        let mut total = 0;
        // The chunk that is written next, and how much of it is written or released.
        let (mut at, mut offset) = (0, self.head + self.sent);
        while self.sent < self.len && total < limit {
            while let Some(chunk) = self.closed.get(at)
                && offset >= chunk.bytes().len()
            {
                offset -= chunk.bytes().len();
                at += 1;
            }
            let wrote = match self.closed.len() - at {
                0 => socket.write(self.last.get(offset..).unwrap_or_default()),
                1..FEW_SLICES => self.write_some::<FEW_SLICES>(at, offset, socket),
                _ => self.write_some::<MAX_SLICES>(at, offset, socket),
            };
            match wrote {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.sent += n;
                    total += n;
                    offset += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(total)
    }

    /// One vectored write of up to `N` slices, starting at byte `offset` of closed chunk `at`.
    fn write_some<const N: usize>(
        &self,
        at: usize,
        offset: usize,
        socket: &mut impl Write,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); N];
        let mut used = 0;
        let closed = self.closed.range(at..).map(Chunk::bytes);
        let last = (!self.last.is_empty()).then_some(&self.last[..]);
        for (slice, chunk) in slices.iter_mut().zip(closed.chain(last)) {
            *slice = IoSlice::new(chunk);
            used += 1;
        }
        if let Some(first) = slices.first_mut() {
            first.advance(offset);
        }
        match slices.get(..used) {
            // One message for an otherwise empty queue: the cheaper system call.
            Some([only]) => socket.write(only),
            some => socket.write_vectored(some.unwrap_or_default()),
        }
    }

    /// Releases all written bytes. For clients, whose replies are never resent.
    pub fn release_sent(&mut self, pool: &mut Pool) {
        self.release(self.sent, pool);
    }

    /// Marks the first `n` bytes as written, as they were before the queue was rebuilt.
    pub fn mark_sent(&mut self, n: usize) {
        self.sent = n.min(self.len);
    }

    /// Takes out all frames, given their lengths in order.
    pub fn take_frames(
        &mut self,
        lens: impl Iterator<Item = usize>,
        pool: &mut Pool,
    ) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for len in lens {
            frames.push(self.take_front(len, pool));
        }
        frames
    }

    /// Takes out the first `len` bytes: a large frame together with its buffer.
    pub fn take_front(&mut self, len: usize, pool: &mut Pool) -> Vec<u8> {
        self.take_chunk(len).unwrap_or_else(|| {
            let frame = self.front(len).unwrap_or_default().to_vec();
            self.release(len, pool);
            frame
        })
    }

    /// Takes out the first chunk if it consists of one large frame of `len` bytes , not shared.
    fn take_chunk(&mut self, len: usize) -> Option<Vec<u8>> {
        if len < CHUNK / 2 || self.head > 0 {
            return None;
        }
        let chunk = match self.closed.front_mut() {
            None if self.last.len() == len => std::mem::take(&mut self.last),
            Some(Chunk::Own(bytes)) if bytes.len() == len => {
                let chunk = std::mem::take(bytes);
                self.closed_own -= chunk.capacity();
                self.closed.pop_front();
                chunk
            }
            _ => return None,
        };
        self.len -= len;
        self.sent = self.sent.saturating_sub(len);
        Some(chunk)
    }

    /// Releases all bytes and returns all chunks to the pool.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.release(self.len, pool);
        pool.give(std::mem::take(&mut self.last));
    }

    /// Memory of the chunks that are not shared, in bytes, used or not.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        let closed = self.closed.iter().map(|chunk| match chunk {
            Chunk::Own(bytes) => bytes.capacity(),
            Chunk::Shared(..) => 0,
        });
        self.last.capacity() + closed.sum::<usize>()
    }
}

#[cfg(test)]
#[path = "buf_tests.rs"]
mod tests;
