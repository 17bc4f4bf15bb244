//! Estimates how many bytes one client's next command moves over a connection to a node, and counts
//! how many bytes the client has requested. A large command occupies a connection as a large reply
//! does, so the size of a transfer is the larger of the two: the command's is known, the reply's is
//! estimated from the last ones. In KiB, to save memory per idle client.

/// Estimate for a client that has had no reply yet, in KiB: a pipeline of many commands with
/// replies of unknown size starts slowly.
const UNKNOWN: u16 = 64;
/// Minimum length of a command that counts, in bytes. Smaller ones are limited by the queue's
/// length.
const LARGE_COMMAND: usize = 16 << 10;

/// Sizes of one client's commands and replies.
#[derive(Debug)]
pub struct TransferSizes {
    /// Expected size of the next reply, KiB.
    reply: u16,
    /// Size of the command that is being dispatched or waits for its turn, KiB.
    command: u16,
    /// KiB asked for since the client's last turn; negative: what is left of that turn.
    asked: i16,
}

impl Default for TransferSizes {
    fn default() -> Self {
        TransferSizes { reply: UNKNOWN, command: 0, asked: 0 }
    }
}

impl TransferSizes {
    /// Amount that a client may request in its turn, in KiB; a single transfer may be larger.
    const TURN: i16 = 256;
    /// Minimum size in bytes of transfers that use connections of their own. Larger than the
    /// estimate for a client without replies.
    pub const LARGE: u32 = 128 << 10;

    /// Starts the transfer of a command of `len` bytes.
    #[inline]
    pub fn begin(&mut self, len: usize) {
        self.command = if len < LARGE_COMMAND { 0 } else { kib(len) };
    }

    /// Expected size of the next transfer, in bytes; at most 64 MiB.
    #[inline]
    pub fn expected(&self) -> u32 {
        u32::from(self.reply.max(self.command)) << 10
    }

    /// Whether there is no reply yet to base the estimate on.
    pub fn is_unknown(&self) -> bool {
        self.reply == UNKNOWN
    }

    /// Records a complete reply of `len` bytes. The estimate rises at once, as an estimate that is
    /// too low costs the other clients time; it falls by an eighth of the difference per reply.
    #[inline]
    pub fn record(&mut self, len: usize) {
        let len = kib(len);
        self.reply = match self.reply.checked_sub(len) {
            Some(above) => self.reply - above.div_ceil(8),
            None => len,
        };
    }

    /// Records that the arriving reply has at least `len` bytes.
    pub fn at_least(&mut self, len: usize) {
        self.reply = self.reply.max(kib(len));
    }

    /// Counts the transfer as requested.
    #[inline]
    pub fn ask(&mut self) {
        self.asked = self.asked.saturating_add_unsigned(self.reply.max(self.command));
    }

    /// Whether the client's turn is not over.
    #[inline]
    pub fn has_turn(&self) -> bool {
        self.asked < 0
    }

    /// Starts the client's turn.
    pub fn begin_turn(&mut self) {
        self.asked = -Self::TURN;
    }

    /// Starts to wait for a turn. Returns the bytes requested since the last turn began, at most 32
    /// MiB. A client that has had no turn counts as if it had used one.
    pub fn wait_for_turn(&mut self) -> u64 {
        let asked = i64::from(std::mem::take(&mut self.asked)) + i64::from(Self::TURN);
        asked.max(0).unsigned_abs() << 10
    }
}

/// `len` bytes in KiB, rounded.
#[inline]
fn kib(len: usize) -> u16 {
    u16::try_from((len >> 10) + (len >> 9 & 1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn the_estimate_rises_at_once_and_falls_slowly_but_wholly() {
        let mut sizes = TransferSizes::default();
        assert_eq!(sizes.expected(), 64 << 10);
        assert!(sizes.is_unknown());
        sizes.record(MIB);
        assert_eq!(sizes.expected(), 1 << 20);
        assert!(!sizes.is_unknown());
        sizes.record(MIB / 2);
        assert_eq!(sizes.expected(), 960 << 10);
        sizes.at_least(100);
        assert_eq!(sizes.expected(), 960 << 10);
        sizes.at_least(2 * MIB);
        assert_eq!(sizes.expected(), 2 << 20);
        (0..60).for_each(|_| sizes.record(5));
        assert_eq!(sizes.expected(), 0, "less than half a KiB");
        sizes.record(usize::MAX);
        assert_eq!(sizes.expected(), (64 << 20) - 1024);
    }

    #[test]
    fn what_is_asked_for_is_counted_from_turn_to_turn() {
        let mut sizes = TransferSizes::default();
        sizes.record(MIB);
        assert!(!sizes.has_turn(), "nobody gave it one");
        sizes.ask();
        sizes.ask();
        assert_eq!(sizes.wait_for_turn(), (2 << 20) + (256 << 10));
        sizes.begin_turn();
        assert!(sizes.has_turn());
        sizes.ask();
        assert!(!sizes.has_turn(), "a single command may be larger than a turn");
        assert_eq!(sizes.wait_for_turn(), 1 << 20);
        (0..1000).for_each(|_| sizes.ask());
        assert_eq!(sizes.wait_for_turn(), (32767 + 256) << 10);
    }

    #[test]
    fn a_large_command_counts_by_itself_and_a_small_one_behind_it_does_not() {
        let mut sizes = TransferSizes::default();
        sizes.record(1024);
        sizes.begin(MIB);
        assert_eq!(sizes.expected(), 1 << 20);
        sizes.ask();
        sizes.record(5);
        sizes.begin(LARGE_COMMAND - 1);
        assert_eq!(sizes.expected(), 49 << 10, "of replies");
        sizes.ask();
        assert_eq!(sizes.wait_for_turn(), (1 << 20) + (49 << 10) + (256 << 10));
        sizes.begin(LARGE_COMMAND);
        (0..60).for_each(|_| sizes.record(5));
        assert_eq!(sizes.expected(), 16 << 10);
    }
}
