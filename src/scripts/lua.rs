//! Detection of calls in a Lua source, by reading its text.

/// Commands about all keys. Called from a script, they act on the keys of the script's node only.
pub(super) const WHOLE_KEYSPACE: [&str; 6] =
    ["KEYS", "SCAN", "DBSIZE", "RANDOMKEY", "FLUSHALL", "FLUSHDB"];

/// Length in bytes to which a source is read.
const MAX_READ: usize = 1 << 20;

/// The first command of [`WHOLE_KEYSPACE`] that the source calls by a literal name:
/// `redis.call('keys', …)`, `pcall "SCAN"`, `redis['call']([[dbsize]])`, or by an alias whose name
/// ends in `call`. Names that the script computes are not detected.
pub(super) fn whole_keyspace_call(source: &[u8]) -> Option<&'static str> {
    let mut rest = source.get(..MAX_READ).unwrap_or(source);
    // Whether the text before `rest` ends in a function that calls commands.
    let mut calls = false;
    while let Some(&byte) = rest.first() {
        if byte.is_ascii_whitespace() {
            rest = skip(rest, 1);
        } else if let Some(comment) = rest.strip_prefix(b"--") {
            rest = match long_string(comment) {
                Some((_, after)) => after,
                None => skip(comment, memchr::memchr(b'\n', comment).unwrap_or(comment.len())),
            };
        } else if let Some((text, after)) = quoted(rest).or_else(|| long_string(rest)) {
            let is_one = |name: &&&str| text.eq_ignore_ascii_case(name.as_bytes());
            if calls && let Some(name) = WHOLE_KEYSPACE.iter().find(is_one) {
                return Some(*name);
            }
            // The string may be the name of that function, as in redis['call'].
            calls = text.ends_with(b"call");
            rest = after;
        } else if is_name(byte) {
            let end = rest.iter().position(|&b| !is_name(b)).unwrap_or(rest.len());
            calls = rest.get(..end).is_some_and(|name| name.ends_with(b"call"));
            rest = skip(rest, end);
        } else {
            calls &= matches!(byte, b'(' | b']');
            rest = skip(rest, 1);
        }
    }
    None
}

fn skip(text: &[u8], bytes: usize) -> &[u8] {
    text.get(bytes..).unwrap_or_default()
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The content of the quoted string at the beginning of `text`, and the rest of the text behind it.
/// Both are empty if the string does not end: such a source does not compile.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quote = text.first().copied().filter(|b| matches!(b, b'\'' | b'"'))?;
    let body = skip(text, 1);
    let mut end = 0;
    while let Some(&byte) = body.get(end) {
        match byte {
            b'\\' => end += 2,
            _ if byte == quote => return Some((body.get(..end)?, skip(body, end + 1))),
            _ => end += 1,
        }
    }
    Some((&[], &[]))
}

/// Like [`quoted`], for a string in long brackets: `[[…]]`, `[=[…]=]`.
fn long_string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let level = text.strip_prefix(b"[")?.iter().take_while(|&&b| b == b'=').count();
    let body = skip(text, 1 + level).strip_prefix(b"[")?;
    let close = [b"]".as_slice(), &vec![b'='; level], b"]"].concat();
    match memchr::memmem::find(body, &close) {
        Some(end) => Some((body.get(..end)?, skip(body, end + close.len()))),
        None => Some((&[], &[])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Option<&'static str> {
        whole_keyspace_call(source.as_bytes())
    }

    #[test]
    fn calls_by_a_literal_name() {
        for (source, name) in [
            ("return redis.call('keys', '*')", "KEYS"),
            (
                "for _, k in ipairs(redis.call(\"KEYS\", ARGV[1])) do redis.call('del', k) end",
                "KEYS",
            ),
            ("local r = redis.pcall ( 'Scan', 0)", "SCAN"),
            ("return redis.call([[dbsize]])", "DBSIZE"),
            ("return redis.call([==[RANDOMKEY]==])", "RANDOMKEY"),
            ("return server.call'flushall'", "FLUSHALL"),
            ("redis['call'](\n  'flushdb')", "FLUSHDB"),
            ("local rcall = redis.call\nreturn rcall(\"keys\", \"*\")", "KEYS"),
            ("redis.call('get', 'a') -- first\nredis.call('dbsize')", "DBSIZE"),
            ("redis.call(--[[ which? ]] 'keys', '*')", "KEYS"),
            ("local s = 'it\\'s' return redis.call('keys', s)", "KEYS"),
        ] {
            assert_eq!(found(source), Some(name), "{source}");
        }
    }

    #[test]
    fn other_sources() {
        for source in [
            "",
            "return redis.call('get', KEYS[1])",
            "return redis.call('hscan', KEYS[1], 0)",
            "-- redis.call('keys', '*')\nreturn 1",
            "--[==[ redis.call('keys', '*')\n]] ]==] return 1",
            "return \"redis.call('keys', '*')\"",
            "return cjson.encode({keys = 'keys', scan = x['scan']})",
            "return redis.call(ARGV[1], 'keys')",
            "return redis.call('get', 'keys')",
            "redis.call('unfinished",
            "redis.call([==[keys",
            "redis.call([==keys",
            "redis.call('keys\\",
            "\u{e4}\u{f6} redis.call",
        ] {
            assert_eq!(found(source), None, "{source}");
        }
    }

    #[test]
    fn what_is_read_is_bounded() {
        let late = format!("{} redis.call('keys', '*')", " ".repeat(MAX_READ));
        assert_eq!(found(&late), None);
        // Reading takes linear time, whatever the source consists of.
        for piece in ["[", "[=", "[[", "'", "--[", "call(", "\\"] {
            found(&piece.repeat(MAX_READ / piece.len()));
        }
    }
}
