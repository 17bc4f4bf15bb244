//! Redis's HyperLogLog strings, dense and sparse: merging their registers, and estimating the
//! cardinality. <https://redis.io/docs/latest/develop/data-types/probabilistic/hyperloglogs/>

use crate::errors::Failure;

const REGISTERS: usize = 16384;
const BITS: usize = 6;
const HEADER: usize = 16;
const DENSE: usize = HEADER + (REGISTERS * BITS).div_ceil(8);
/// Bits of the 64-bit hash in which leading zeros are counted (`HLL_Q`).
const Q: usize = 50;
const ALPHA_INF: f64 = 0.721_347_520_444_481_7;

/// Merged registers: the maximum of each register over all added HyperLogLogs.
#[derive(Debug, Clone)]
pub(super) struct MergedRegisters(Vec<u8>);

impl Default for MergedRegisters {
    fn default() -> Self {
        MergedRegisters(vec![0; REGISTERS])
    }
}

impl MergedRegisters {
    /// Merges a HyperLogLog string.
    ///
    /// # Errors
    /// Redis's error for a string that is not a valid HyperLogLog.
    pub fn add(&mut self, string: &[u8]) -> Result<(), Failure> {
        let (Some(b"HYLL"), Some(&encoding), Some(registers)) =
            (string.get(..4), string.get(4), string.get(HEADER..))
        else {
            return Err(Failure::NotAHyperLogLog);
        };
        match encoding {
            0 if string.len() == DENSE => {
                self.dense(registers);
                Ok(())
            }
            1 => self.sparse(registers).ok_or(Failure::CorruptedHyperLogLog),
            _ => Err(Failure::NotAHyperLogLog),
        }
    }

    fn dense(&mut self, packed: &[u8]) {
        for (i, register) in self.0.iter_mut().enumerate() {
            let (byte, bit) = (i * BITS / 8, i * BITS % 8);
            let at = |i: usize| u16::from(packed.get(i).copied().unwrap_or(0));
            let value = (at(byte) | at(byte + 1) << 8) >> bit & 63;
            *register = (*register).max(value as u8);
        }
    }

    fn sparse(&mut self, mut runs: &[u8]) -> Option<()> {
        let mut at = 0;
        while let Some((&code, rest)) = runs.split_first() {
            runs = rest;
            let (length, value) = match code >> 6 {
                0 => (usize::from(code & 63) + 1, 0),
                1 => {
                    let (&low, rest) = runs.split_first()?;
                    runs = rest;
                    ((usize::from(code & 63) << 8 | usize::from(low)) + 1, 0)
                }
                _ => (usize::from(code & 3) + 1, (code >> 2 & 31) + 1),
            };
            for register in self.0.get_mut(at..at + length)? {
                *register = (*register).max(value);
            }
            at += length;
        }
        (at == REGISTERS).then_some(())
    }

    /// Estimated number of distinct elements (Ertl, arXiv:1702.01284, as in Redis).
    pub fn count(&self) -> u64 {
        let mut histogram = [0u32; 64];
        for &register in &self.0 {
            if let Some(count) = histogram.get_mut(usize::from(register)) {
                *count += 1;
            }
        }
        let of = |i: usize| f64::from(histogram.get(i).copied().unwrap_or(0));
        let m = REGISTERS as f64;
        let mut z = m * tau((m - of(Q + 1)) / m);
        for j in (1..=Q).rev() {
            z += of(j);
            z *= 0.5;
        }
        z += m * sigma(of(0) / m);
        (ALPHA_INF * m * m / z).round() as u64
    }
}

#[allow(clippy::float_cmp)] // the series ends when its value no longer changes
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

#[allow(clippy::float_cmp)] // as above
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hll(encoding: u8, registers: &[u8]) -> Vec<u8> {
        let mut string = b"HYLL".to_vec();
        string.extend([encoding, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
        string.extend_from_slice(registers);
        string
    }

    #[test]
    fn counts_empty_and_small_hyperloglogs() {
        let mut merged = MergedRegisters::default();
        assert_eq!(merged.count(), 0);
        // XZERO opcode for all registers.
        merged.add(&hll(1, &[0x7f, 0xff])).unwrap();
        assert_eq!(merged.count(), 0);
        // One register is 1.
        merged.add(&hll(1, &[0x80, 0x7f, 0xfe])).unwrap();
        assert_eq!(merged.count(), 1);
        let mut dense = vec![0; DENSE - HEADER];
        dense[0] = 1;
        merged.add(&hll(0, &dense)).unwrap();
        assert_eq!(merged.count(), 1, "the same register");
        dense[1] = 0x10;
        merged.add(&hll(0, &dense)).unwrap();
        assert_eq!(merged.count(), 2);
    }

    #[test]
    fn rejects_invalid_hyperloglogs() {
        let mut merged = MergedRegisters::default();
        let (none, corrupted) = (Failure::NotAHyperLogLog, Failure::CorruptedHyperLogLog);
        assert_eq!(merged.add(b"text"), Err(none.clone()));
        assert_eq!(merged.add(&hll(2, &[])), Err(none.clone()));
        assert_eq!(merged.add(&hll(0, &[0; 10])), Err(none));
        assert_eq!(merged.add(&hll(1, &[0x7f])), Err(corrupted.clone()));
        assert_eq!(merged.add(&hll(1, &[0x80])), Err(corrupted.clone()));
        assert_eq!(merged.add(&hll(1, &[0x7f, 0xff, 0x80])), Err(corrupted));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(encoding in 0..3u8, bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let mut merged = MergedRegisters::default();
            let _ = merged.add(&hll(encoding, &bytes));
            let _ = merged.count();
        }
    }
}
