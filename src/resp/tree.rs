//! Decoding a whole reply into a tree, for replies to slotway's own questions about the cluster, a
//! few times a minute. Clients' replies are never decoded ([`super::reply`] finds their end).
//!
//! The input is not trusted: depth, size and announced counts are bounded, and malformed input is
//! an error, never a panic.

use thiserror::Error;

/// Maximum nesting depth. CLUSTER SHARDS has 4 levels, COMMAND has 8.
const MAX_DEPTH: usize = 32;

/// Why bytes cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TreeError {
    /// The bytes end before the reply does.
    #[error("the reply is cut off")]
    Incomplete,
    /// Not RESP.
    #[error("not a RESP reply (byte {0})")]
    Malformed(usize),
    /// Nested deeper than any reply that slotway requests.
    #[error("the reply is nested too deep")]
    TooDeep,
}

/// A reply, borrowed from its bytes. RESP2 and RESP3 forms of the same value are equal: all nulls
/// are [`Value::Null`], sets and pushes are arrays.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// The bytes of a simple, bulk or verbatim string, big number, double or boolean.
    Text(&'a [u8]),
    /// The text of an error, starting with its code.
    Error(&'a [u8]),
    /// An integer.
    Int(i64),
    /// Null.
    Null,
    /// Array, set or push.
    Array(Vec<Value<'a>>),
    /// Map.
    Map(Vec<(Value<'a>, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// The text of a string, if it is UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The value of an integer, or of a string that holds one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            _ => self.text()?.parse().ok(),
        }
    }

    /// The elements of an array; empty for other types.
    pub fn items(&self) -> &[Value<'a>] {
        match self {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    /// The value of `key` in a map, or in a flat array of keys and values, its form in RESP2.
    pub fn field(&self, key: &str) -> Option<&Value<'a>> {
        let is_key = |v: &Value<'a>| v.text() == Some(key);
        match self {
            Value::Map(pairs) => pairs.iter().find(|(k, _)| is_key(k)).map(|(_, v)| v),
            Value::Array(items) => items.chunks_exact(2).find_map(|pair| match pair {
                [k, v] if is_key(k) => Some(v),
                _ => None,
            }),
            _ => None,
        }
    }
}

/// Decodes the reply at the start of `bytes`.
///
/// # Errors
/// The bytes are not a reply, or an incomplete one.
pub fn decode(bytes: &[u8]) -> Result<Value<'_>, TreeError> {
    Reader { bytes, pos: 0 }.value(0)
}

/// Decodes `bytes`, which must be exactly one reply.
///
/// # Errors
/// As [`decode`], and if anything follows the reply.
pub fn decode_whole(bytes: &[u8]) -> Result<Value<'_>, TreeError> {
    let mut reader = Reader { bytes, pos: 0 };
    let value = reader.value(0)?;
    if reader.pos < bytes.len() { Err(TreeError::Malformed(reader.pos)) } else { Ok(value) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, TreeError> {
        if depth > MAX_DEPTH {
            return Err(TreeError::TooDeep);
        }
        let at = self.pos;
        let (kind, rest) = header(self.bytes, &mut self.pos)?;
        let number = || int(rest).ok_or(TreeError::Malformed(at));
        Ok(match kind {
            b'+' | b',' | b'#' | b'(' => Value::Text(rest),
            b'-' => Value::Error(rest),
            b':' => Value::Int(number()?),
            b'_' => Value::Null,
            b'$' | b'!' | b'=' => match number()? {
                -1 => Value::Null,
                len => {
                    let text = self.bulk(at, len)?;
                    match kind {
                        b'!' => Value::Error(text),
                        // A verbatim string starts with its format: "txt:".
                        b'=' => Value::Text(text.get(4..).unwrap_or_default()),
                        _ => Value::Text(text),
                    }
                }
            },
            b'*' | b'~' | b'>' => match number()? {
                -1 => Value::Null,
                count => {
                    let mut items = Vec::with_capacity(self.room_for(at, count)?);
                    for _ in 0..count {
                        items.push(self.value(depth + 1)?);
                    }
                    Value::Array(items)
                }
            },
            b'%' => {
                let count = number()?;
                let mut pairs = Vec::with_capacity(self.room_for(at, count)?);
                for _ in 0..count {
                    pairs.push((self.value(depth + 1)?, self.value(depth + 1)?));
                }
                Value::Map(pairs)
            }
            // An attribute precedes the value that it describes; it is skipped.
            b'|' => {
                let count = number()?;
                self.room_for(at, count)?;
                for _ in 0..count {
                    self.value(depth + 1)?;
                    self.value(depth + 1)?;
                }
                self.value(depth + 1)?
            }
            _ => return Err(TreeError::Malformed(at)),
        })
    }

    fn bulk(&mut self, at: usize, len: i64) -> Result<&'a [u8], TreeError> {
        let len = usize::try_from(len).map_err(|_| TreeError::Malformed(at))?;
        let end = self.pos.checked_add(len).ok_or(TreeError::Malformed(at))?;
        let text = self.bytes.get(self.pos..end).ok_or(TreeError::Incomplete)?;
        match self.bytes.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(TreeError::Malformed(end)),
            None => return Err(TreeError::Incomplete),
        }
        self.pos = end + 2;
        Ok(text)
    }

    /// Capacity to reserve for an announced count: no more values than the remaining bytes can
    /// hold, at three bytes for the smallest.
    fn room_for(&self, at: usize, count: i64) -> Result<usize, TreeError> {
        let count = usize::try_from(count).map_err(|_| TreeError::Malformed(at))?;
        Ok(count.min(self.bytes.len().saturating_sub(self.pos) / 3))
    }
}

/// The type byte and the rest of the line at `pos`, which is moved behind the line.
fn header<'a>(bytes: &'a [u8], pos: &mut usize) -> Result<(u8, &'a [u8]), TreeError> {
    let line = bytes.get(*pos..).ok_or(TreeError::Incomplete)?;
    let end = memchr::memchr(b'\n', line).ok_or(TreeError::Incomplete)?;
    match line.get(..end) {
        Some([kind, rest @ .., b'\r']) => {
            *pos += end + 1;
            Ok((*kind, rest))
        }
        _ => Err(TreeError::Malformed(*pos)),
    }
}

/// Reads a number as the scan for a reply's end does: no plus sign, bounded length.
fn int(text: &[u8]) -> Option<i64> {
    const MAX_NUMBER: usize = 24;
    if text.first() == Some(&b'+') || text.len() > MAX_NUMBER {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARDS: &[u8] = include_bytes!("../cluster/captured/shards.resp3");

    #[test]
    fn both_protocols_spell_one_thing() {
        assert_eq!(decode(b"$-1\r\n"), Ok(Value::Null));
        assert_eq!(decode(b"*-1\r\n"), Ok(Value::Null));
        assert_eq!(decode(b"_\r\n"), Ok(Value::Null));
        assert!(decode(b"$+1\r\na\r\n").is_err() && decode(b"*+0\r\n").is_err());
        assert_eq!(decode(b"=8\r\ntxt:a:ok\r\n"), Ok(Value::Text(b"a:ok")));
        assert_eq!(decode(b"!5\r\nERR x\r\n"), Ok(Value::Error(b"ERR x")));
        let flat = decode(b"*2\r\n+port\r\n:7000\r\n").unwrap();
        let map = decode(b"%1\r\n$4\r\nport\r\n:7000\r\n").unwrap();
        assert_eq!(flat.field("port").and_then(Value::int), Some(7000));
        assert_eq!(map.field("port").and_then(Value::int), Some(7000));
        assert_eq!(map.field("ip"), None);
    }

    #[test]
    fn garbage_is_an_error_and_reserves_nothing() {
        for garbage in [
            &b"\r\n"[..],
            b"\n",
            b"?1\r\n",
            b":x\r\n",
            b"*-2\r\n",
            b"$5\r\nhelloXX",
            b"$-7\r\n",
            b"%x\r\n",
        ] {
            assert!(matches!(decode(garbage), Err(TreeError::Malformed(_))), "{garbage:?}");
        }
        assert_eq!(decode(b"*9223372036854775807\r\n:1\r\n"), Err(TreeError::Incomplete));
        assert_eq!(decode(b"%9223372036854775807\r\n"), Err(TreeError::Incomplete));
        assert_eq!(decode(b"$9223372036854775807\r\n"), Err(TreeError::Incomplete));
        assert_eq!(decode(&b"*1\r\n".repeat(100_000)), Err(TreeError::TooDeep));
    }

    #[test]
    fn no_cut_and_no_flipped_byte_panics() {
        for at in 0..SHARDS.len() {
            assert_eq!(decode(&SHARDS[..at]), Err(TreeError::Incomplete));
            for with in [0, b'\r', b'9', b'*', b'-', 0xff] {
                let mut broken = SHARDS.to_vec();
                broken[at] = with;
                let _ = decode(&broken);
            }
        }
    }
}
