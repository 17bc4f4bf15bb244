//! Messages on their way to subscribers: their bytes are held once, whoever gets them.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::resp::Protocol;

/// One or several messages of one topic, as the node sent them (RESP3 pushes); for RESP2 they are
/// the same but for the first byte of each.
#[derive(Debug)]
pub struct Frames {
    resp3: Box<[u8]>,
    resp2: OnceLock<Box<[u8]>>,
    /// Where each message begins.
    starts: Box<[u32]>,
    held: Arc<AtomicUsize>,
}

impl Frames {
    /// Messages in `resp3`, one after the other, that begin at `starts`. Their bytes are on the
    /// account `held` for as long as anybody has them.
    pub fn new(resp3: &[u8], starts: &[u32], held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(resp3.len(), Relaxed);
        Frames {
            resp3: resp3.into(),
            resp2: OnceLock::new(),
            starts: starts.into(),
            held: Arc::clone(held),
        }
    }

    /// Bytes in one protocol.
    pub fn len(&self) -> usize {
        self.resp3.len()
    }

    /// No message at all.
    pub fn is_empty(&self) -> bool {
        self.resp3.is_empty()
    }

    /// How many messages.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The bytes for a client that speaks `protocol`.
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
    fn held_once_per_protocol() {
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
