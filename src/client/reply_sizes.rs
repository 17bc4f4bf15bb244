//! Estimate of the size of one client's next reply, and how many bytes it has asked for. In KiB, as
//! each idle client keeps this.

/// Estimate for a client that has had no reply yet: a pipeline of many commands whose replies may
/// be of any size starts slowly.
const UNKNOWN: u16 = 64;

/// Sizes of one client's replies.
#[derive(Debug)]
pub struct ReplySizes {
    /// Expected size of the next reply, KiB.
    expected: u16,
    /// KiB asked for since the client's last turn; negative: what is left of that turn.
    asked: i16,
}

impl Default for ReplySizes {
    fn default() -> Self {
        ReplySizes { expected: UNKNOWN, asked: 0 }
    }
}

impl ReplySizes {
    /// What a client may ask for in its turn, KiB; a larger reply if it is one.
    const TURN: i16 = 256;

    /// Expected size of the reply to the next command, bytes; at most 64 MiB.
    #[inline]
    pub fn expected(&self) -> u32 {
        u32::from(self.expected) << 10
    }

    /// There is nothing yet that the estimate could follow.
    pub fn is_unknown(&self) -> bool {
        self.expected == UNKNOWN
    }

    /// Records a complete reply of `len` bytes. The estimate rises at once, as an estimate that is
    /// too low costs the other clients time; it falls by an eighth of the difference per reply.
    #[inline]
    pub fn record(&mut self, len: usize) {
        let len = kib(len);
        self.expected = match self.expected.checked_sub(len) {
            Some(above) => self.expected - above.div_ceil(8),
            None => len,
        };
    }

    /// Records that the reply that is arriving has `len` bytes or more.
    pub fn at_least(&mut self, len: usize) {
        self.expected = self.expected.max(kib(len));
    }

    /// One more reply is asked for.
    #[inline]
    pub fn ask(&mut self) {
        self.asked = self.asked.saturating_add_unsigned(self.expected);
    }

    /// The client's turn is not over.
    #[inline]
    pub fn has_turn(&self) -> bool {
        self.asked < 0
    }

    /// The client's turn begins.
    pub fn begin_turn(&mut self) {
        self.asked = -Self::TURN;
    }

    /// The client begins to wait for its turn; gives the bytes that it has asked for since the last
    /// one began, at most 32 MiB. One that has had no turn counts as if it had used one.
    pub fn wait_for_turn(&mut self) -> u64 {
        let asked = i64::from(std::mem::take(&mut self.asked)) + i64::from(Self::TURN);
        asked.max(0).unsigned_abs() << 10
    }
}

/// `len` bytes in KiB, to the nearest.
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
        let mut sizes = ReplySizes::default();
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
        let mut sizes = ReplySizes::default();
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
}
