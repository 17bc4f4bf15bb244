//! Tests of `buf`.

use super::*;
use proptest::prelude::*;

/// A socket that takes `room` bytes and is then full until it is given more.
struct Socket {
    room: usize,
    got: Vec<u8>,
    calls: usize,
}

impl Socket {
    fn with(room: usize) -> Self {
        Socket { room, got: Vec::new(), calls: 0 }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls += 1;
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = self.got.len();
        for buf in bufs {
            assert!(!buf.is_empty(), "nothing is asked to be written");
            let n = buf.len().min(self.room);
            self.room -= n;
            self.got.extend_from_slice(&buf[..n]);
        }
        Ok(self.got.len() - before)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn frames_are_found_where_they_lie() {
    let (mut queue, mut pool) = (SendQueue::default(), Pool::default());
    let frames: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; 1 + usize::from(i) * 400]).collect();
    frames.iter().for_each(|frame| queue.push(frame, &mut pool));
    queue.release(frames[0].len() + frames[1].len(), &mut pool);
    let mut offset = 0;
    for frame in &frames[2..] {
        assert_eq!(queue.at(offset, frame.len()), Some(&frame[..]));
        offset += frame.len();
    }
    assert_eq!(queue.at(offset, 1), None);
}

#[test]
fn no_more_is_written_than_is_wanted() {
    let (mut queue, mut pool) = (SendQueue::default(), Pool::default());
    let frames: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; 1 + usize::from(i) * 400]).collect();
    frames.iter().for_each(|frame| queue.push(frame, &mut pool));
    queue.release(1, &mut pool);
    let all = frames.concat();
    let mut socket = Socket::with(usize::MAX);
    for end in [0, 10, 10, 30_000, 50_000, 50_001] {
        let before = queue.sent();
        assert_eq!(queue.write_until(end, &mut socket).unwrap(), end - before);
        assert!(socket.got == all[1..=end], "{end}");
    }
    let mut full = Socket::with(7);
    assert_eq!(queue.write_until(60_000, &mut full).unwrap(), 7);
    assert_eq!(queue.write_until(usize::MAX, &mut socket).unwrap(), all.len() - 1 - 50_008);
    assert_eq!(queue.unsent(), 0);
}

/// A shared message is held once: neither queue copies it, and both release it once written.
#[test]
fn shared_bytes_are_held_once() {
    let (mut pool, mut queues) = (Pool::default(), [SendQueue::default(), SendQueue::default()]);
    let message = Bytes::from(vec![b'm'; 100]);
    for queue in &mut queues {
        queue.push(b"before", &mut pool);
        queue.push_shared(message.clone(), 3);
        queue.push(b"behind", &mut pool);
        assert_eq!((queue.len(), queue.items()), (112, 3));
        assert_eq!(queue.memory(), queue.capacity() + queue.closed.capacity() * size_of::<Chunk>());
    }
    assert!(!message.is_unique());
    for (i, queue) in queues.iter_mut().enumerate() {
        let mut socket = Socket::with(56);
        queue.write_to(&mut socket).unwrap();
        queue.release_sent(&mut pool);
        assert_eq!((queue.len(), queue.items()), (56, 3), "half of it is written");
        assert_eq!(queue.memory(), queue.capacity() + queue.closed.capacity() * size_of::<Chunk>());
        if i == 0 {
            socket.room = 100;
            queue.write_to(&mut socket).unwrap();
            assert_eq!(socket.got, [b"before", &message[..], b"behind"].concat());
            queue.release_sent(&mut pool);
        } else {
            queue.clear(&mut pool);
        }
        assert_eq!((queue.len(), queue.items()), (0, 0));
        assert_eq!(queue.memory(), queue.capacity() + queue.closed.capacity() * size_of::<Chunk>());
    }
    assert!(message.is_unique());
    assert_eq!(&message[..], [b'm'; 100]);
}

#[test]
fn many_small_shared_chunks_are_few_writes() {
    let (mut pool, mut queue) = (Pool::default(), SendQueue::default());
    let message = Bytes::from_static(b"a small message");
    for _ in 0..10 * MAX_SLICES {
        queue.push_shared(message.clone(), 1);
    }
    let mut socket = Socket::with(usize::MAX);
    queue.write_to(&mut socket).unwrap();
    assert_eq!(socket.calls, 10);
    assert_eq!(socket.got, message.repeat(10 * MAX_SLICES));
    queue.release_sent(&mut pool);
    assert!(queue.is_empty() && queue.closed.capacity() <= SendQueue::KEEP_ENTRIES);
}

proptest! {
    #[test]
    fn what_goes_in_comes_out_in_order(
        steps in proptest::collection::vec((0..6u8, 1..40_000usize), 1..80)
    ) {
        let (mut pool, mut queue) = (Pool::default(), SendQueue::default());
        let mut socket = Socket::with(0);
        let mut all: Vec<u8> = Vec::new();
        // The expected unreleased bytes: their number, and that of shared messages.
        let mut frames: VecDeque<(usize, u32)> = VecDeque::new();
        let mut shared: Vec<Bytes> = Vec::new();
        let mut released = 0;
        for (i, (what, n)) in steps.into_iter().enumerate() {
            let n = if what == 3 { 1 + n % 100 } else { n };
            let frame = vec![i as u8; n];
            match what {
                0 => {
                    queue.push(&frame, &mut pool);
                    all.extend_from_slice(&frame);
                    frames.push_back((n, 0));
                }
                1 => {
                    all.extend_from_slice(&frame);
                    frames.push_back((n, 0));
                    queue.push_owned(frame, &mut pool);
                }
                2 | 3 => {
                    let bytes = Bytes::from(frame);
                    all.extend_from_slice(&bytes);
                    let items = 1 + i as u32 % 3;
                    frames.push_back((n, items));
                    shared.push(bytes.clone());
                    queue.push_shared(bytes, items);
                }
                4 => {
                    socket.room = n;
                    queue.write_to(&mut socket).unwrap();
                }
                _ => {
                    if let Some(&(len, _)) = frames.front() && queue.sent() >= len {
                        prop_assert_eq!(queue.front(len), Some(&all[released..released + len]));
                        queue.release(len, &mut pool);
                        released += len;
                        frames.pop_front();
                    }
                }
            }
            let items = frames.iter().map(|f| f.1 as usize).sum::<usize>();
            prop_assert_eq!(queue.len(), all.len() - released);
            prop_assert_eq!(queue.items(), items);
            let entries = queue.closed.capacity() * size_of::<Chunk>();
            prop_assert_eq!(queue.memory(), queue.capacity() + entries);
            prop_assert_eq!(&socket.got[..], &all[..socket.got.len()]);
        }
        let rest = queue.take_frames(frames.iter().map(|f| f.0), &mut pool);
        prop_assert_eq!(rest.concat(), &all[released..]);
        prop_assert!(queue.is_empty());
        prop_assert_eq!((queue.items(), queue.capacity()), (0, queue.last.capacity()));
        prop_assert!(shared.iter().all(Bytes::is_unique), "all are let go");
    }

    /// For clients: written bytes are released at once, wherever the write ends.
    #[test]
    fn what_is_released_as_it_is_written_is_whole(
        steps in proptest::collection::vec((0..4u8, 1..3000usize), 1..80)
    ) {
        let (mut pool, mut queue) = (Pool::default(), SendQueue::default());
        let mut socket = Socket::with(0);
        let mut all: Vec<u8> = Vec::new();
        let mut ends: Vec<usize> = Vec::new();
        for (i, (what, n)) in steps.into_iter().enumerate() {
            let frame = vec![i as u8; n];
            match what {
                0 => {
                    queue.push(&frame, &mut pool);
                    all.extend_from_slice(&frame);
                }
                1 => {
                    all.extend_from_slice(&frame);
                    ends.push(all.len());
                    queue.push_shared(frame.into(), 1);
                }
                _ => {
                    socket.room = n;
                    let wrote = queue.write_to(&mut socket).unwrap();
                    prop_assert_eq!(wrote, n - socket.room);
                    queue.release_sent(&mut pool);
                }
            }
            let got = socket.got.len();
            prop_assert_eq!(&socket.got[..], &all[..got]);
            prop_assert_eq!((queue.len(), queue.sent()), (all.len() - got, 0));
            prop_assert_eq!(queue.items(), ends.iter().filter(|end| **end > got).count());
            let entries = queue.closed.capacity() * size_of::<Chunk>();
            prop_assert_eq!(queue.memory(), queue.capacity() + entries);
        }
    }
}
