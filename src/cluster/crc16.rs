//! The CRC16 of Redis Cluster: XMODEM, polynomial 0x1021, initial value 0.
//!
//! Computed by slicing: several bytes at a time, with one table each, because lookups within a
//! slice do not depend on one another. Tested against the crate `crc16`.

const POLYNOMIAL: u16 = 0x1021;
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

/// The CRC of `bytes`.
#[inline]
pub(super) fn crc16(bytes: &[u8]) -> u16 {
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

    fn reference(bytes: &[u8]) -> u16 {
        crc16::State::<crc16::XMODEM>::calculate(bytes)
    }

    #[test]
    fn as_the_specification_gives_it() {
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
    fn long_keys_are_as_in_the_reference() {
        let bytes: Vec<u8> = (0..5_000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for len in [64, 65, 100, 1_023, 4_096, 4_999] {
            assert_eq!(crc16(&bytes[..len]), reference(&bytes[..len]), "{len}");
        }
    }
}
