//! Finding the end of a reply without decoding it, and reading simple replies.

use memchr::memchr;

/// Maximum length of a line that holds a length, including type byte and line end, in bytes.
const MAX_LENGTH_LINE: usize = 32;

/// Errors of a server's bytes that are not RESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReplyError {
    #[error("a reply starts with byte 0x{0:02x}, which is no RESP type")]
    UnknownType(u8),
    #[error("a reply has a length that is not a number")]
    BadLength,
    #[error("a reply announces more elements than can be counted")]
    TooLarge,
}

/// Result of [`ReplyScan::advance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyProgress {
    /// The reply ends after this many more bytes.
    Complete(usize),
    /// The reply is incomplete. This many bytes were scanned; the next call continues behind them.
    Partial(usize),
}

/// Finds the end of one reply that arrives in any number of pieces, in time linear in their size.
///
/// Nesting needs no stack: counting the outstanding elements is enough. A reply of a million
/// elements, or nested a million deep, takes the same few bytes of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyScan {
    /// Number of outstanding elements.
    need: u64,
    /// Number of outstanding bytes of a bulk, including its line end.
    skip: u64,
    /// Inside a line, whose end is not found yet.
    in_line: bool,
}

impl Default for ReplyScan {
    fn default() -> Self {
        ReplyScan { need: 1, skip: 0, in_line: false }
    }
}

impl ReplyScan {
    /// Continues the scan in `buf`. After `Complete` the scan is reset for the next reply.
    ///
    /// # Errors
    /// The bytes are not RESP; the connection is unusable.
    #[inline]
    pub fn advance(&mut self, buf: &[u8]) -> Result<ReplyProgress, ReplyError> {
        let mut pos = 0usize;
        loop {
            if self.skip > 0 {
                let here = self.skip.min((buf.len() - pos) as u64);
                pos += here as usize;
                self.skip -= here;
                if self.skip > 0 {
                    return Ok(ReplyProgress::Partial(pos));
                }
                self.need -= 1;
            } else if self.in_line {
                match buf.get(pos..).and_then(|rest| memchr(b'\n', rest)) {
                    Some(end) => pos += end + 1,
                    None => return Ok(ReplyProgress::Partial(buf.len())),
                }
                self.in_line = false;
                self.need -= 1;
            }
            if self.need == 0 {
                *self = ReplyScan::default();
                return Ok(ReplyProgress::Complete(pos));
            }
            let Some(&kind) = buf.get(pos) else { return Ok(ReplyProgress::Partial(pos)) };
            match kind {
                b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => {
                    self.in_line = true;
                    pos += 1;
                }
                b'$' | b'=' | b'!' => match length(buf, pos)? {
                    None => return Ok(ReplyProgress::Partial(pos)),
                    Some((n, after)) => {
                        pos = after;
                        match n {
                            -1 => self.need -= 1,
                            n if n >= 0 => self.skip = n as u64 + 2,
                            _ => return Err(ReplyError::BadLength),
                        }
                    }
                },
                b'*' | b'~' | b'>' | b'%' | b'|' => match length(buf, pos)? {
                    None => return Ok(ReplyProgress::Partial(pos)),
                    Some((n, after)) => {
                        pos = after;
                        let per = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                        let inner = match n {
                            -1 => 0,
                            n if n >= 0 => {
                                (n as u64).checked_mul(per).ok_or(ReplyError::TooLarge)?
                            }
                            _ => return Err(ReplyError::BadLength),
                        };
                        // An attribute precedes an element and is not one itself.
                        let own = u64::from(kind != b'|');
                        self.need =
                            (self.need - own).checked_add(inner).ok_or(ReplyError::TooLarge)?;
                    }
                },
                other => return Err(ReplyError::UnknownType(other)),
            }
        }
    }
}

/// The number on the line at `pos`, behind its type byte, and the start of the next line. `None`:
/// the line is incomplete.
#[inline]
fn length(buf: &[u8], pos: usize) -> Result<Option<(i64, usize)>, ReplyError> {
    let mut value: i64 = 0;
    let mut negative = false;
    let line = buf.get(pos + 1..).unwrap_or_default();
    for (i, &byte) in line.iter().enumerate().take(MAX_LENGTH_LINE) {
        match byte {
            b'0'..=b'9' => {
                value = value
                    .checked_mul(10)
                    .and_then(|v| v.checked_add(i64::from(byte - b'0')))
                    .ok_or(ReplyError::BadLength)?;
            }
            b'-' if i == 0 => negative = true,
            b'\r' if i > usize::from(negative) => {
                return match line.get(i + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some((if negative { -value } else { value }, pos + i + 3))),
                    Some(_) => Err(ReplyError::BadLength),
                };
            }
            _ => return Err(ReplyError::BadLength),
        }
    }
    if line.len() >= MAX_LENGTH_LINE { Err(ReplyError::BadLength) } else { Ok(None) }
}

/// The elements of a complete array, set or push, or the alternating keys and values of a map, each
/// as its own bytes. Empty for null and other types.
pub fn elements(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut left, mut pos) = match (frame.first(), length(frame, 0)) {
        (Some(b'*' | b'~' | b'>'), Ok(Some((n, after)))) if n > 0 => (n as u64, after),
        (Some(b'%'), Ok(Some((n, after)))) if n > 0 => ((n as u64).saturating_mul(2), after),
        _ => (0, 0),
    };
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let rest = frame.get(pos..)?;
        match ReplyScan::default().advance(rest) {
            Ok(ReplyProgress::Complete(len)) => {
                left -= 1;
                pos += len;
                rest.get(..len)
            }
            _ => None,
        }
    })
}

/// Number of elements (or pairs of a map) that an aggregate announces; `None` for null and other
/// types.
pub fn element_count(frame: &[u8]) -> Option<u64> {
    match (frame.first()?, length(frame, 0)) {
        (b'*' | b'~' | b'>' | b'%', Ok(Some((n, _)))) => u64::try_from(n).ok(),
        _ => None,
    }
}

/// The value of an integer reply.
pub fn integer(frame: &[u8]) -> Option<i64> {
    match frame {
        [b':', rest @ ..] => std::str::from_utf8(rest).ok()?.trim_end().parse().ok(),
        _ => None,
    }
}

/// The text of a bulk, verbatim (without its format) or simple string.
pub fn text(frame: &[u8]) -> Option<&[u8]> {
    match frame.first()? {
        b'+' => frame.get(1..frame.len().checked_sub(2)?),
        b'$' | b'=' => {
            let (n, after) = length(frame, 0).ok()??;
            let body = frame.get(after..after.checked_add(usize::try_from(n).ok()?)?)?;
            if frame.first() == Some(&b'=') { body.get(4..) } else { Some(body) }
        }
        _ => None,
    }
}

/// The text of an error reply, without its type byte and line end.
pub fn error_text(frame: &[u8]) -> Option<&[u8]> {
    match frame.first()? {
        b'-' => frame.get(1..frame.len().checked_sub(2)?),
        b'!' => {
            let (n, after) = length(frame, 0).ok()??;
            frame.get(after..after.checked_add(usize::try_from(n).ok()?)?)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end(buf: &[u8]) -> Result<ReplyProgress, ReplyError> {
        ReplyScan::default().advance(buf)
    }

    #[test]
    fn every_type_has_its_end() {
        for whole in [
            "+OK\r\n",
            "-ERR x\r\n",
            ":1\r\n",
            "$3\r\nabc\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n:1\r\n$1\r\na\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "(123\r\n",
            "=6\r\ntxt:ab\r\n",
            "!3\r\nERR\r\n",
            "~1\r\n+a\r\n",
            "%1\r\n+a\r\n*1\r\n:1\r\n",
            ">2\r\n+a\r\n+b\r\n",
            "|1\r\n+k\r\n+v\r\n:5\r\n",
            "*1\r\n*1\r\n*1\r\n*0\r\n",
        ] {
            let followed = format!("{whole}+NEXT\r\n");
            assert_eq!(
                end(followed.as_bytes()),
                Ok(ReplyProgress::Complete(whole.len())),
                "{whole}"
            );
            for cut in 0..whole.len() {
                let mut scan = ReplyScan::default();
                let Ok(ReplyProgress::Partial(n)) = scan.advance(&whole.as_bytes()[..cut]) else {
                    panic!("{whole} cut at {cut} is taken for complete");
                };
                let rest = scan.advance(&followed.as_bytes()[n..]);
                assert_eq!(rest, Ok(ReplyProgress::Complete(whole.len() - n)), "{whole} at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_reply() {
        assert_eq!(end(b"HTTP/1.1"), Err(ReplyError::UnknownType(b'H')));
        assert_eq!(end(b"$x\r\n"), Err(ReplyError::BadLength));
        assert_eq!(end(b"$-2\r\n"), Err(ReplyError::BadLength));
        assert_eq!(end(b"*99999999999999999999\r\n"), Err(ReplyError::BadLength));
        assert_eq!(
            end(b"%9223372036854775807\r\n%9223372036854775807\r\n"),
            Err(ReplyError::TooLarge)
        );
        assert_eq!(end(&[b"$".as_slice(), &[b'0'; 40]].concat()), Err(ReplyError::BadLength));
    }

    #[test]
    fn parts_of_a_reply() {
        let frame = b"*3\r\n$1\r\na\r\n*1\r\n:1\r\n$-1\r\n";
        let all: Vec<_> = elements(frame).collect();
        assert_eq!(all, [b"$1\r\na\r\n".as_slice(), b"*1\r\n:1\r\n", b"$-1\r\n"]);
        assert_eq!(element_count(frame), Some(3));
        assert_eq!(integer(b":-12\r\n"), Some(-12));
        assert_eq!(text(b"=6\r\ntxt:ab\r\n"), Some(b"ab".as_slice()));
        assert_eq!(error_text(b"-ERR no\r\n"), Some(b"ERR no".as_slice()));
    }

    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            "[a-z ]{0,12}".prop_map(|s| format!("+{s}\r\n").into_bytes()),
            any::<i64>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"_\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..30)
                .prop_map(|b| { [format!("${}\r\n", b.len()).as_bytes(), &b, b"\r\n"].concat() }),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            (proptest::collection::vec(inner, 0..6), 0..4usize).prop_map(|(parts, kind)| {
                let (byte, n) = match kind {
                    0 => ('*', parts.len()),
                    1 => ('~', parts.len()),
                    2 => ('>', parts.len()),
                    _ => ('%', parts.len() / 2),
                };
                let used = if byte == '%' { n * 2 } else { n };
                [format!("{byte}{n}\r\n").into_bytes(), parts[..used].concat()].concat()
            })
        })
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_replies(
            replies in proptest::collection::vec(reply(), 1..6),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let input = replies.concat();
            let mut ends: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).collect();
            ends.push(input.len());
            ends.sort_unstable();
            let (mut scan, mut pos, mut start, mut found) = (ReplyScan::default(), 0, 0, Vec::new());
            for end in ends {
                while let ReplyProgress::Complete(n) = {
                    let step = scan.advance(&input[pos..end]).unwrap();
                    let (ReplyProgress::Complete(n) | ReplyProgress::Partial(n)) = step;
                    pos += n;
                    step
                } {
                    let _ = n;
                    found.push(input[start..pos].to_vec());
                    start = pos;
                }
            }
            prop_assert_eq!(found, replies);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = end(&bytes);
            let _ = elements(&bytes).count();
            let _ = (integer(&bytes), text(&bytes), error_text(&bytes), element_count(&bytes));
        }
    }
}
