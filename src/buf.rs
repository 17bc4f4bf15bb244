//! Byte queues: what waits to be written to a socket, in chunks that are reused.
//! Not here: what the bytes mean, and the sockets.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;

/// A chunk is filled up to this many bytes; a larger frame gets a chunk of its own.
pub const CHUNK: usize = 64 << 10;
/// How many slices one vectored write is given at most. Of 60 bytes each, 64 at once cost 35 ns a
/// slice, 256 cost 22, 1024 cost 18.
const SLICES: usize = 256;
/// How many it is given where that is enough: an array less to fill in.
const FEW: usize = 8;

/// No socket is written to again after this many bytes in one turn of the event loop.
pub const WRITE_LIMIT: usize = 512 << 10;

/// Reserves what the content of a buffer announces (`need` bytes in all), and a little for what
/// follows it, once a sixteenth of it has come. Growing by doubling alone would copy a large buffer
/// while the old one is still there; and reserving at once would let an announcement of a few bytes
/// take hundreds of megabytes of address space.
pub fn reserve_announced(buffer: &mut Vec<u8>, need: usize) {
    const MUCH: usize = 1 << 20;
    const PART: usize = 16;
    if need > buffer.capacity() && need >= MUCH && buffer.len() >= need / PART {
        buffer.reserve_exact(need + 2 * CHUNK - buffer.len());
    }
}

/// What a buffer occupies: a small one its capacity, a large one, whose pages are resident only when
/// they have been written to, its content.
#[inline]
pub fn resident(buffer: &Vec<u8>) -> usize {
    if buffer.capacity() <= 2 * CHUNK { buffer.capacity() } else { buffer.len() + PAGE }
}

const PAGE: usize = 4 << 10;

/// What a collection that grows by doubling occupies, with what growing takes for a moment: the
/// content is there twice until it is copied. So growing needs no check of its own, which the hot
/// path would pay for. Small ones occupy their capacity.
#[inline]
pub fn with_copy(capacity: usize, used: usize) -> usize {
    if capacity <= 2 * CHUNK { capacity } else { capacity + used }
}

/// Chunks that are not in use, kept so that the steady state allocates nothing.
#[derive(Debug)]
pub struct Pool {
    chunks: Vec<Vec<u8>>,
    bytes: usize,
    /// Bytes that it keeps at most.
    keep: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Pool::keeping(Self::KEEP)
    }
}

impl Pool {
    /// Bytes that the pools of all workers keep at most.
    const KEEP: usize = 16 << 20;

    fn keeping(keep: usize) -> Pool {
        Pool { chunks: Vec::new(), bytes: 0, keep }
    }

    /// The pool of one of so many workers.
    pub fn of_one(workers: usize) -> Pool {
        Pool::keeping((Self::KEEP / workers.max(2)).max(4 * CHUNK))
    }

    /// Frees what it keeps.
    pub fn clear(&mut self) {
        self.chunks = Vec::new();
        self.bytes = 0;
    }

    /// An empty chunk, of whatever capacity.
    pub fn take(&mut self) -> Vec<u8> {
        let chunk = self.chunks.pop().unwrap_or_default();
        self.bytes -= chunk.capacity();
        chunk
    }

    /// Takes a chunk back; an oversized one, or one too many, is freed.
    fn give(&mut self, mut chunk: Vec<u8>) {
        let capacity = chunk.capacity();
        if capacity == 0 || capacity > CHUNK || self.bytes + capacity > self.keep {
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

/// A chunk that nothing is appended to any more.
#[derive(Debug)]
enum Chunk {
    /// Filled, or followed by shared bytes.
    Own(Vec<u8>),
    /// Bytes that other queues have, too, and how many messages they are.
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

/// Bytes on their way to a socket: appended at the end, written from the `sent` mark on, released
/// from the front. Towards a client, what is written is released at once; towards a node, a
/// command's bytes stay until its reply has come, so that it can be sent again elsewhere.
///
/// A frame that is appended whole never lies across two chunks.
#[derive(Debug, Default)]
pub struct SendQueue {
    /// Chunks that are followed by others; none of them is empty. Mostly there are none.
    closed: VecDeque<Chunk>,
    /// The last chunk, which is appended to. It may be empty.
    last: Vec<u8>,
    /// Bytes of the first chunk that are released.
    head: usize,
    /// Bytes behind `head` that are written.
    sent: usize,
    /// Bytes behind `head` in all.
    len: usize,
    /// Messages in the shared chunks.
    items: usize,
    /// What the closed chunks that are not shared occupy.
    closed_own: usize,
}

impl SendQueue {
    /// What is left of `closed` when it is empty has room for this many chunks at most: a slow
    /// subscriber's queue may have been much longer.
    const KEEP_ENTRIES: usize = 1024;

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

    /// Bytes that this queue occupies, used or not. Shared bytes are on somebody else's account,
    /// here is only what it takes to point to them.
    pub fn held(&self) -> usize {
        let entries = self.closed.capacity() * size_of::<Chunk>();
        let used = self.closed.len() * size_of::<Chunk>();
        self.closed_own + self.last.capacity() + with_copy(entries, used)
    }

    /// Messages in the shared chunks that are not wholly released.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The chunk that has room for `n` bytes more: the way to write a frame in place. Whoever
    /// writes says how much by [`SendQueue::added`].
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

    /// What comes next goes to a chunk of its own.
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
        // Doubling by itself would grow it beyond what the pool takes back.
        let need = self.last.len() + n;
        if need > self.last.capacity() {
            let grown = (2 * self.last.capacity()).max(need).min(CHUNK.max(need));
            self.last.reserve_exact(grown - self.last.len());
        }
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

    /// Appends bytes that need not lie in one chunk: all chunks stay of a size that the pool takes
    /// back.
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

    /// Appends what another queue holds, chunk by chunk. Nothing of it may have been written.
    pub fn append(&mut self, mut other: SendQueue) {
        debug_assert!(other.head == 0 && other.sent == 0);
        self.close_last();
        self.len += other.len;
        self.items += other.items;
        self.closed_own += other.closed_own;
        self.closed.append(&mut other.closed);
        self.last = other.last;
    }

    /// Appends a frame that has a buffer of its own; a large one is not copied.
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

    /// Appends `items` messages that other queues get, too: they are never copied.
    pub fn push_shared(&mut self, bytes: Bytes, items: u32) {
        if bytes.is_empty() {
            return;
        }
        self.close_last();
        self.len += bytes.len();
        self.items += items as usize;
        self.closed.push_back(Chunk::Shared(bytes, items));
    }

    /// The first `n` bytes that are not released, where they lie in one chunk (a frame does).
    #[inline]
    pub fn front(&self, n: usize) -> Option<&[u8]> {
        let first = self.closed.front().map_or(&self.last[..], Chunk::bytes);
        first.get(self.head..self.head + n)
    }

    /// The `n` bytes that lie `offset` behind the first one that is not released, where they lie in
    /// one chunk. Goes through all chunks before.
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
        // Bytes are left: of a closed chunk, or of the last one.
        if self.len > 0 {
            return;
        }
        // Kept for the next frame, unless it grew beyond what is worth keeping.
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

    /// Writes what is not written, as far as the socket takes it. Gives how much that was; less
    /// than asked for means that the socket is full.
    ///
    /// # Errors
    /// The socket's own, except "would block", which is 0 bytes or a short count.
    pub fn write_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        self.write_up_to(usize::MAX, socket)
    }

    /// The same for [`WRITE_LIMIT`] bytes, and what the last call to the socket takes beyond that:
    /// one turn's share of a socket whose peer takes the bytes as fast as they are written. Less
    /// than the limit, and something left, means that the socket is full.
    ///
    /// # Errors
    /// As [`SendQueue::write_to`].
    pub fn write_share_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        self.write_up_to(WRITE_LIMIT, socket)
    }

    /// Writes until the first `end` bytes that are not released are written, and none beyond them.
    /// As [`SendQueue::write_to`] otherwise.
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
        // The chunk that is written from, and how much of it is written or released.
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
                1..FEW => self.write_some::<FEW>(at, offset, socket),
                _ => self.write_some::<SLICES>(at, offset, socket),
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

    /// One write of up to `N` chunks, from `offset` bytes into the closed chunk `at` on.
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
            // One message for a client that had nothing to take: the cheaper call.
            Some([only]) => socket.write(only),
            some => socket.write_vectored(some.unwrap_or_default()),
        }
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
            frames.push(self.take_front(len, pool));
        }
        frames
    }

    /// Takes the first `len` bytes out: a large frame with the buffer that it lies in.
    pub fn take_front(&mut self, len: usize, pool: &mut Pool) -> Vec<u8> {
        self.take_chunk(len).unwrap_or_else(|| {
            let frame = self.front(len).unwrap_or_default().to_vec();
            self.release(len, pool);
            frame
        })
    }

    /// Takes the first chunk out, if it is one large frame of `len` bytes and nothing else, and is
    /// the queue's own.
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

    /// Gives all chunks back.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.release(self.len, pool);
        pool.give(std::mem::take(&mut self.last));
    }

    /// Bytes that its own chunks occupy, used or not.
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
