//! The timeout of a blocking command, and the same command with the remaining time.

use crate::resp::{Args, write};

/// The timeout of a blocking command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitTime {
    /// Index of the argument.
    at: usize,
    unit: Unit,
    /// The timeout in microseconds; `None` for no limit.
    pub micros: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A decimal fraction.
    Seconds,
    Milliseconds,
}

/// The timeout of the blocking command `args`. `None` if it is invalid, which the node will report.
pub fn wait_time(args: &Args) -> Option<WaitTime> {
    let last = args.len().checked_sub(1)?;
    let (at, unit) = if args.is(0, "blmpop") || args.is(0, "bzmpop") {
        (1, Unit::Seconds)
    } else if args.is(0, "xread") || args.is(0, "xreadgroup") {
        let block = (1..last).filter(|&i| args.is(i, "block"));
        // The names after GROUP may be any words.
        let first = if args.is(0, "xreadgroup") { 4 } else { 1 };
        (block.filter(|&i| i >= first).min()? + 1, Unit::Milliseconds)
    } else if args.is(0, "wait") {
        (2, Unit::Milliseconds)
    } else if args.is(0, "waitaof") {
        (3, Unit::Milliseconds)
    } else {
        (last, Unit::Seconds)
    };
    let text = std::str::from_utf8(args.get(at)?).ok()?;
    let micros = match unit {
        Unit::Milliseconds => text.parse::<u64>().ok()?.checked_mul(1000)?,
        Unit::Seconds => {
            let seconds: f64 = text.parse().ok()?;
            if !(0.0..1e12).contains(&seconds) {
                return None;
            }
            // Redis counts milliseconds, rounded up.
            (seconds * 1000.0).ceil() as u64 * 1000
        }
    };
    Some(WaitTime { at, unit, micros: (micros > 0).then_some(micros) })
}

/// The request with `left` microseconds as its timeout; at least 1 millisecond, since 0 means no
/// limit. The node reports the timeout in its own words.
pub fn with_time_left(args: &Args, time: WaitTime, left: u64) -> Vec<u8> {
    let millis = left.div_ceil(1000).max(1);
    let text = match time.unit {
        Unit::Milliseconds => millis.to_string(),
        Unit::Seconds => format!("{}.{:03}", millis / 1000, millis % 1000),
    };
    let mut out = Vec::new();
    write::array_header(&mut out, args.len());
    for (i, arg) in args.iter().enumerate() {
        write::bulk(&mut out, if i == time.at { text.as_bytes() } else { arg });
    }
    out
}

/// Whether a request is XREAD or XREADGROUP with BLOCK.
pub fn asks_to_block(args: &Args) -> bool {
    (args.is(0, "xread") || args.is(0, "xreadgroup")) && blocks(args)
}

/// Whether BLOCK is an option of XREAD or XREADGROUP: before STREAMS and not a name after GROUP.
pub(super) fn blocks(args: &Args) -> bool {
    let first = if args.is(0, "xreadgroup") { 4 } else { 1 };
    (first..args.len()).take_while(|&i| !args.is(i, "streams")).any(|i| args.is(i, "block"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str, f: impl FnOnce(&Args)) {
        f(&Args::new(line.as_bytes(), &crate::resp::words(line)));
    }

    #[test]
    fn timeouts_and_remaining_time() {
        let cases = [
            ("BLPOP a b 1.5", Some(Some(1_500_000)), "BLPOP a b 0.250"),
            ("BLPOP a 0", Some(None), ""),
            ("BLMPOP 2 1 k LEFT", Some(Some(2_000_000)), "BLMPOP 0.250 1 k LEFT"),
            (
                "XREAD COUNT 1 BLOCK 900 STREAMS s $",
                Some(Some(900_000)),
                "XREAD COUNT 1 BLOCK 250 STREAMS s $",
            ),
            (
                "XREADGROUP GROUP block c BLOCK 7 STREAMS s >",
                Some(Some(7_000)),
                "XREADGROUP GROUP block c BLOCK 250 STREAMS s >",
            ),
            ("BLPOP a x", None, ""),
            ("BLPOP a -1", None, ""),
            ("BLPOP a nan", None, ""),
        ];
        for (line, micros, left) in cases {
            with(line, |args| {
                let time = wait_time(args);
                assert_eq!(time.map(|t| t.micros), micros, "{line}");
                if let (Some(time), false) = (time, left.is_empty()) {
                    let words: Vec<&[u8]> = left.split(' ').map(str::as_bytes).collect();
                    let mut expected = Vec::new();
                    write::request(&mut expected, &words);
                    assert_eq!(with_time_left(args, time, 249_900), expected);
                }
            });
        }
    }
}
