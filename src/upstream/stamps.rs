//! Times of the writes to a node: one mark per write instead of one per command.

use std::collections::VecDeque;

/// Maximum number of marks; further writes without an answer share the last one.
const MARKS: usize = 256;

/// Times of writes. Positions count bytes since the connection was first established.
#[derive(Debug, Default)]
pub struct Stamps {
    written: u64,
    /// Position behind each write, and its time in microseconds.
    marks: VecDeque<(u64, u64)>,
}

impl Stamps {
    /// Records a write of `n` bytes at `now`, after which `open` bytes of commands are unanswered.
    #[inline]
    pub fn wrote(&mut self, n: usize, open: usize, now: u64) {
        self.written += n as u64;
        let answered = self.written.saturating_sub(open as u64);
        while self.marks.front().is_some_and(|mark| mark.0 <= answered) {
            self.marks.pop_front();
        }
        let full = self.marks.len() >= MARKS;
        match self.marks.back_mut().filter(|_| full) {
            Some(last) => last.0 = self.written,
            None => self.marks.push_back((self.written, now)),
        }
    }

    /// When the last byte of the oldest unanswered command was written, which has `len` bytes.
    /// `None`: it was not, or the time is not known. `open`: as for [`Stamps::wrote`].
    pub fn sent_at(&self, open: usize, len: usize) -> Option<u64> {
        let end = (self.written + len as u64).saturating_sub(open as u64);
        if end > self.written {
            return None;
        }
        self.marks.iter().find(|mark| mark.0 >= end).map(|mark| mark.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_knows_its_write() {
        let mut stamps = Stamps::default();
        // Three commands of 10 bytes: one and a half in the first write, the rest in the second.
        stamps.wrote(15, 15, 100);
        stamps.wrote(15, 30, 200);
        assert_eq!(stamps.sent_at(30, 10), Some(100));
        assert_eq!(stamps.sent_at(20, 10), Some(200), "whole only with the second write");
        assert_eq!(stamps.sent_at(10, 10), Some(200));
        // All are answered; the next write drops the marks.
        stamps.wrote(5, 5, 300);
        assert_eq!((stamps.sent_at(5, 5), stamps.marks.len()), (Some(300), 1));
        assert_eq!(stamps.sent_at(5, 9), None, "not written whole");
    }

    #[test]
    fn a_node_that_answers_nothing_fills_nothing() {
        let mut stamps = Stamps::default();
        (1..=1000).for_each(|i| stamps.wrote(1, i, i as u64));
        assert_eq!(stamps.marks.len(), MARKS);
        assert_eq!(stamps.sent_at(1000, 1), Some(1));
        assert_eq!(stamps.sent_at(1, 1), Some(MARKS as u64));
    }
}
