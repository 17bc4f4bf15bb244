//! Decodes a whole reply into a tree. Only for the `COMMAND` reply, once per topology change;
//! the replies of clients are never decoded.

use super::parse::TableError;

/// Deepest nesting that is followed. A command's key specs in a container's subcommand stand at 8.
const MAX_DEPTH: usize = 24;

/// One decoded value; maps are lists of their keys and values in turn, as in RESP2.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(&'a [u8]),
    Int(i64),
    List(Vec<Value<'a>>),
    Null,
}

impl<'a> Value<'a> {
    /// Text, if it is UTF-8 text.
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Value::Text(t) => std::str::from_utf8(t).ok(),
            _ => None,
        }
    }

    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The elements of a list, set or map; nothing of anything else.
    pub fn items(&self) -> &[Value<'a>] {
        match self {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The value of `key` in a map.
    pub fn field(&self, key: &str) -> Option<&Value<'a>> {
        let pair = self.items().chunks_exact(2).find(|pair| pair[0].text() == Some(key))?;
        pair.get(1)
    }
}

/// Decodes `bytes`, which must be one reply and nothing behind it.
pub(super) fn decode(bytes: &[u8]) -> Result<Value<'_>, TableError> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if !reader.rest.is_empty() {
        return Err(TableError::Malformed("bytes behind the reply"));
    }
    Ok(value)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, TableError> {
        if depth > MAX_DEPTH {
            return Err(TableError::Malformed("nested too deep"));
        }
        let line = self.line()?;
        let (kind, rest) = line.split_first().ok_or(TableError::Malformed("an empty line"))?;
        match kind {
            b'+' | b',' | b'#' | b'(' => Ok(Value::Text(rest)),
            b'-' if depth == 0 => {
                Err(TableError::Refused(String::from_utf8_lossy(rest).into_owned()))
            }
            b'-' => Ok(Value::Null),
            b'_' => Ok(Value::Null),
            b':' => Ok(Value::Int(int(rest)?)),
            b'$' | b'=' | b'!' => match int(rest)? {
                -1 => Ok(Value::Null),
                n => Ok(Value::Text(self.bulk(n)?)),
            },
            b'*' | b'~' | b'>' => self.list(int(rest)?, 1, depth),
            b'%' => self.list(int(rest)?, 2, depth),
            // An attribute says something of the value behind it that is of no use here.
            b'|' => {
                self.list(int(rest)?, 2, depth)?;
                self.value(depth + 1)
            }
            _ => Err(TableError::Malformed("an unknown type byte")),
        }
    }

    fn list(&mut self, count: i64, per: usize, depth: usize) -> Result<Value<'a>, TableError> {
        if count == -1 {
            return Ok(Value::Null);
        }
        let count = usize::try_from(count)
            .ok()
            .and_then(|n| n.checked_mul(per))
            .ok_or(TableError::Malformed("a length"))?;
        // The count is not believed before its elements have been seen.
        let mut items = Vec::with_capacity(count.min(256));
        for _ in 0..count {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn line(&mut self) -> Result<&'a [u8], TableError> {
        let end = memchr::memmem::find(self.rest, b"\r\n").ok_or(TableError::Truncated)?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(2..).unwrap_or_default();
        Ok(line)
    }

    fn bulk(&mut self, len: i64) -> Result<&'a [u8], TableError> {
        let len = usize::try_from(len).map_err(|_| TableError::Malformed("a length"))?;
        let text = self.rest.get(..len).ok_or(TableError::Truncated)?;
        match self.rest.get(len..).unwrap_or_default() {
            [b'\r', b'\n', rest @ ..] => {
                self.rest = rest;
                Ok(text)
            }
            [] | [b'\r'] => Err(TableError::Truncated),
            _ => Err(TableError::Malformed("the end of a string")),
        }
    }
}

fn int(text: &[u8]) -> Result<i64, TableError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|t| t.parse().ok())
        .ok_or(TableError::Malformed("a number"))
}
