//! Published messages on their way to subscribers, who share the bytes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::resp::Protocol;

/// One or more messages of one topic, as RESP3 pushes. In RESP2 only the first byte of each
/// differs.
#[derive(Debug)]
pub struct Frames {
    resp3: Box<[u8]>,
    resp2: OnceLock<Box<[u8]>>,
    /// Offset of each message.
    starts: Box<[u32]>,
    held: Arc<AtomicUsize>,
}

impl Frames {
    /// Messages concatenated in `resp3`, beginning at the offsets `starts`. `held` counts their
    /// bytes until the last reference is dropped.
    pub fn new(resp3: &[u8], starts: &[u32], held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(resp3.len(), Relaxed);
        Frames {
            resp3: resp3.into(),
            resp2: OnceLock::new(),
            starts: starts.into(),
            held: Arc::clone(held),
        }
    }

    /// Size in bytes, in either protocol.
    pub fn len(&self) -> usize {
        self.resp3.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.resp3.is_empty()
    }

    /// Number of messages.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The bytes for a client that uses `protocol`.
    pub fn bytes(&self, protocol: Protocol) -> &[u8] {
        match protocol {
            Protocol::Resp3 => &self.resp3,
            Protocol::Resp2 => self.resp2.get_or_init(|| {
                self.held.fetch_add(self.resp3.len(), Relaxed);
                let mut bytes = self.resp3.clone();
                for &start in &self.starts {
                    if let Some(first) = bytes.get_mut(start as usize) {
                        *first = b'*';
                    }
                }
                bytes
            }),
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let copies = 1 + usize::from(self.resp2.get().is_some());
        self.held.fetch_sub(copies * self.resp3.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_once_per_protocol() {
        let held = Arc::new(AtomicUsize::new(0));
        let frames = Frames::new(b">1\r\n+a\r\n>1\r\n+>\r\n", &[0, 8], &held);
        assert_eq!(frames.bytes(Protocol::Resp2), b"*1\r\n+a\r\n*1\r\n+>\r\n");
        assert_eq!(frames.bytes(Protocol::Resp3), b">1\r\n+a\r\n>1\r\n+>\r\n");
        assert_eq!((frames.count(), frames.len()), (2, 16));
        assert_eq!(held.load(Relaxed), 32);
        drop(frames);
        assert_eq!(held.load(Relaxed), 0);
    }
}
