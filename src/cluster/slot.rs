//! Hash slots, and the CRC16 that they are computed with.

use std::sync::LazyLock;

use super::UpstreamId;

/// Number of hash slots of a cluster.
pub const SLOTS: u16 = 16384;

/// A hash slot: 0 to 16383 in a cluster. The slots of several upstreams are numbered one upstream
/// after the other (`SlotMap`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u16);

impl Slot {
    /// Stands for the slot of a command without keys for the first upstream.
    pub const NONE: Slot = Slot(u16::MAX);
    /// What stands for the slot of a command without keys is no less than this.
    const FIRST_KEYLESS: u16 = u16::MAX - UpstreamId::MAX as u16 + 1;

    /// Stands for the slot of a command without keys for this upstream: such commands wait for
    /// their own upstream only.
    pub const fn keyless(upstream: UpstreamId) -> Slot {
        Slot(u16::MAX - upstream.0 as u16)
    }

    /// Whether it stands for the slot of a command without keys.
    #[inline]
    pub fn is_keyless(self) -> bool {
        self.0 >= Self::FIRST_KEYLESS
    }

    /// The upstream, if it stands for the slot of a command without keys.
    pub fn keyless_of(self) -> Option<UpstreamId> {
        self.is_keyless().then_some(UpstreamId((u16::MAX - self.0) as u8))
    }

    /// The first `count` slots, in ascending order.
    pub fn first(
        count: usize,
    ) -> impl ExactSizeIterator<Item = Slot> + DoubleEndedIterator + Clone {
        (0..count.min(usize::from(Self::FIRST_KEYLESS)) as u16).map(Slot)
    }

    /// All slots of a cluster, in ascending order.
    pub fn all() -> impl ExactSizeIterator<Item = Slot> + DoubleEndedIterator {
        (0..SLOTS).map(Slot)
    }

    /// The slot's index in a table of all slots. Outside of it for [`Slot::NONE`].
    #[inline]
    pub fn at(self) -> usize {
        usize::from(self.0)
    }

    /// The slot; `None` for what stands for none.
    #[inline]
    pub fn known(self) -> Option<Slot> {
        (!self.is_keyless()).then_some(self)
    }
}

impl Default for Slot {
    fn default() -> Self {
        Slot::NONE
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The slot of `key`: the CRC16 (XMODEM), modulo 16384, of its hash tag ([`hash_tag`]).
///
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags>
#[inline]
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(crc16(hash_tag(key)) % SLOTS)
}

/// How the keys of an upstream become slots: a cluster has [`SLOTS`] of them, a single server has
/// one, so that all its keys may be used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotSpace {
    /// The bits of the checksum that make the slot. A mask rather than a choice: a key becomes a
    /// slot in the same way whatever is behind it.
    mask: u16,
    /// The first slot: those of other upstreams come before it.
    first: u16,
}

impl SlotSpace {
    /// The slots of a cluster.
    pub const CLUSTER: SlotSpace = SlotSpace { mask: SLOTS - 1, first: 0 };
    /// The one slot of a single server: slot 0.
    pub const ONE: SlotSpace = SlotSpace { mask: 0, first: 0 };

    /// As many slots, of which the first is `first`.
    pub fn from(self, first: u16) -> SlotSpace {
        SlotSpace { first, ..self }
    }

    /// The slot of `key`.
    #[inline]
    pub fn slot_of(self, key: &[u8]) -> Slot {
        Slot((crc16(hash_tag(key)) & self.mask).wrapping_add(self.first))
    }

    /// The first slot.
    pub fn first(self) -> Slot {
        Slot(self.first)
    }

    /// Number of slots.
    #[allow(clippy::len_without_is_empty)] // it never is
    pub fn len(self) -> u16 {
        self.mask + 1
    }

    /// The slot that the upstream itself calls `own`.
    pub fn slot(self, own: u16) -> Slot {
        Slot(self.first.saturating_add(own.min(self.mask)))
    }

    /// The number by which the upstream itself calls the slot.
    pub fn own(self, slot: Slot) -> u16 {
        slot.0.saturating_sub(self.first)
    }

    /// Whether all keys are in one slot.
    pub fn is_one(self) -> bool {
        self.mask == 0
    }
}

/// A key in `slot`. The first call searches for keys of all slots, which takes some milliseconds.
pub fn key_in_slot(slot: Slot) -> [u8; 3] {
    static KEYS: LazyLock<Vec<[u8; 3]>> = LazyLock::new(|| {
        let mut keys = vec![None; usize::from(SLOTS)];
        let mut missing = keys.len();
        for key in short_keys() {
            if missing == 0 {
                break;
            }
            if let Some(place @ None) = keys.get_mut(slot_of(&key).at()) {
                *place = Some(key);
                missing -= 1;
            }
        }
        keys.into_iter().map(Option::unwrap_or_default).collect()
    });
    KEYS.get(slot.at()).copied().unwrap_or_default()
}

/// Printable keys without braces, with at least one in each slot.
fn short_keys() -> impl Iterator<Item = [u8; 3]> {
    let letters = b'0'..=b'y';
    letters.clone().flat_map(move |a| {
        let last = letters.clone();
        letters.clone().flat_map(move |b| last.clone().map(move |c| [a, b, c]))
    })
}

/// The part of a key that determines its slot: what is between the first `{` and the next `}` if it
/// is not empty, otherwise the whole key.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    if let Some(open) = memchr::memchr(b'{', key) {
        let rest = key.get(open + 1..).unwrap_or_default();
        if let Some(close) = memchr::memchr(b'}', rest)
            && close > 0
        {
            return rest.get(..close).unwrap_or_default();
        }
    }
    key
}

/// The polynomial of the CRC16 of Redis Cluster, XMODEM.
const POLYNOMIAL: u16 = 0x1021;
/// Number of bytes that [`crc16`] takes at a time.
const SLICE: usize = 8;

/// `TABLES[n][byte]` is the CRC of `byte` followed by `n` zero bytes.
static TABLES: [[u16; 256]; SLICE] = tables();

const fn tables() -> [[u16; 256]; SLICE] {
    let mut tables = [[0; 256]; SLICE];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut slice = 0;
        while slice < SLICE {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ POLYNOMIAL };
                bit += 1;
            }
            tables[slice][byte] = crc;
            slice += 1;
        }
        byte += 1;
    }
    tables
}

/// The CRC of `byte` followed by `zeros` zero bytes.
#[inline]
fn behind(byte: u8, zeros: usize) -> u16 {
    TABLES[zeros][usize::from(byte)]
}

/// The CRC16 (XMODEM, initial value 0) of `bytes`.
///
/// Computed by slicing: several bytes at a time, with one table each, because lookups within a
/// slice do not depend on one another. Tested against the crate `crc16`.
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc: u16 = 0;
    let (slices, rest) = bytes.as_chunks::<SLICE>();
    for [a, b, c, d, e, f, g, h] in slices {
        let [high, low] = crc.to_be_bytes();
        crc = behind(a ^ high, 7)
            ^ behind(b ^ low, 6)
            ^ behind(*c, 5)
            ^ behind(*d, 4)
            ^ behind(*e, 3)
            ^ behind(*f, 2)
            ^ behind(*g, 1)
            ^ behind(*h, 0);
    }
    let (slices, rest) = rest.as_chunks::<4>();
    for [a, b, c, d] in slices {
        let [high, low] = crc.to_be_bytes();
        crc = behind(a ^ high, 3) ^ behind(b ^ low, 2) ^ behind(*c, 1) ^ behind(*d, 0);
    }
    for byte in rest {
        let [high, _] = crc.to_be_bytes();
        crc = crc << 8 ^ behind(byte ^ high, 0);
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_as_the_specification_gives_them() {
        assert_eq!(slot_of(b"123456789"), Slot(0x31C3 % SLOTS));
        assert_eq!(slot_of(b"foo"), Slot(12182));
        assert_eq!(slot_of(b""), Slot(0));
    }

    #[test]
    fn a_single_server_has_one_slot() {
        for key in ["", "foo", "{user1000}.following", "123456789"] {
            assert_eq!(SlotSpace::CLUSTER.slot_of(key.as_bytes()), slot_of(key.as_bytes()));
            assert_eq!(SlotSpace::ONE.slot_of(key.as_bytes()), Slot(0));
        }
        assert!(SlotSpace::ONE.is_one() && !SlotSpace::CLUSTER.is_one());
    }

    #[test]
    fn every_slot_has_a_short_key() {
        let slots: std::collections::HashSet<u16> = short_keys().map(|k| slot_of(&k).0).collect();
        assert_eq!(slots.len(), usize::from(SLOTS));
        for slot in 0..SLOTS {
            assert_eq!(slot_of(&key_in_slot(Slot(slot))), Slot(slot));
        }
    }

    #[test]
    fn hash_tags_as_the_specification_gives_them() {
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
    }

    fn reference(bytes: &[u8]) -> u16 {
        crc16::State::<crc16::XMODEM>::calculate(bytes)
    }

    #[test]
    fn checksums_as_the_specification_gives_them() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn every_byte_at_every_place_counts_as_in_the_reference() {
        for len in 1..=20 {
            for at in 0..len {
                for byte in 0..=255 {
                    let mut bytes = vec![b'x'; len];
                    bytes[at] = byte;
                    assert_eq!(crc16(&bytes), reference(&bytes), "{len} {at} {byte}");
                }
            }
        }
    }

    #[test]
    fn checksums_of_long_keys_are_as_in_the_reference() {
        let bytes: Vec<u8> = (0..5_000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for len in [64, 65, 100, 1_023, 4_096, 4_999] {
            assert_eq!(crc16(&bytes[..len]), reference(&bytes[..len]), "{len}");
        }
    }
}
