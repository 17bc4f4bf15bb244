//! Finding one request in a buffer: its end, and the positions of its arguments.
//!
//! The rules, limits and error texts are those of Redis's `processMultibulkBuffer` and
//! `processInlineBuffer`: lengths are strict decimal numbers; a line ends at its first CR, and the
//! byte behind it is not checked, nor are the two bytes behind an argument. Requests are forwarded
//! as they are, so the node must read them the same way.

use memchr::memchr;

use super::args::ArgRange;

/// Limits on the size of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Maximum length of an argument in bytes (Redis: `proto-max-bulk-len`, 512 MiB).
    pub bulk: u64,
    /// Maximum length in bytes of an inline command and of a line that holds a length (Redis: 64
    /// KiB).
    pub inline: usize,
    /// Maximum number of arguments (Redis: 2,147,483,647).
    pub multibulk: u64,
    /// The limits are for clients that have not authenticated, and the errors say so.
    pub unauthenticated: bool,
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits {
            bulk: 512 << 20,
            inline: 64 << 10,
            multibulk: i32::MAX as u64,
            unauthenticated: false,
        }
    }
}

impl RequestLimits {
    /// The limits before authentication, as in Redis: enough for AUTH and HELLO.
    pub fn before_login(self) -> Self {
        RequestLimits {
            bulk: self.bulk.min(16 << 10),
            multibulk: self.multibulk.min(10),
            unauthenticated: true,
            ..self
        }
    }
}

/// Why a request is malformed, with Redis's error texts. The connection is closed after the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProtocolError {
    #[error("Protocol error: too big inline request")]
    BigInline,
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("Protocol error: too big mbulk count string")]
    BigCountLine,
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    #[error("Protocol error: too big bulk count string")]
    BigBulkLine,
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    #[error("Protocol error: the whole command is larger than 4 GiB")]
    BigRequest,
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulk,
}

impl ProtocolError {
    /// Whether the request would be allowed after authentication.
    pub fn is_unauthenticated(self) -> bool {
        matches!(self, ProtocolError::UnauthenticatedMultibulk | ProtocolError::UnauthenticatedBulk)
    }
}

/// The request at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// An array of arguments, whose positions were collected.
    Array {
        /// Length of the request in bytes.
        len: usize,
    },
    /// An inline command.
    Inline {
        /// Length in bytes without the line end.
        line: usize,
        /// Length in bytes with the line end.
        len: usize,
    },
    /// An empty array, which is not answered.
    Empty {
        /// Number of bytes to skip.
        len: usize,
    },
    /// An incomplete request.
    Incomplete {
        /// Minimum length of the buffer, in bytes, for the next attempt to get further.
        need: usize,
    },
}

/// Progress within an unfinished request, so that the next attempt continues there: a 512 MiB
/// argument that arrives in pieces is not scanned from its start again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestProgress {
    /// Start of the unfinished argument; 0: the first line of the request.
    pos: usize,
    /// Number of outstanding arguments, including the one at `pos`.
    left: u32,
    /// Total number of arguments.
    count: u32,
}

impl RequestProgress {
    /// Number of complete arguments of an unfinished request.
    pub fn arguments(&self) -> usize {
        (self.count - self.left) as usize
    }
}

/// Scans the request at the start of `buf` and collects the positions of its arguments in `ranges`.
/// `progress` is the default for a new request. After `Incomplete` it must be passed again
/// unchanged, with the same bytes and more behind them.
///
/// # Errors
/// The request is malformed, by Redis's rules.
#[inline]
pub fn scan_request(
    buf: &[u8],
    limits: &RequestLimits,
    progress: &mut RequestProgress,
    ranges: &mut Vec<ArgRange>,
) -> Result<Request, ProtocolError> {
    match buf.first() {
        None => return Ok(Request::Incomplete { need: 1 }),
        Some(b'*') => {}
        Some(_) => return scan_inline(buf, limits),
    }
    if progress.pos == 0 {
        return scan_array::<true>(buf, limits, progress, ranges);
    }
    // Until the request is complete only its end is searched; then one pass collects the arguments.
    match scan_array::<false>(buf, limits, progress, ranges)? {
        Request::Array { .. } => {
            *progress = RequestProgress::default();
            scan_array::<true>(buf, limits, progress, ranges)
        }
        other => Ok(other),
    }
}

fn scan_inline(buf: &[u8], limits: &RequestLimits) -> Result<Request, ProtocolError> {
    let Some(end) = memchr(b'\n', buf) else {
        if buf.len() > limits.inline {
            return Err(ProtocolError::BigInline);
        }
        return Ok(Request::Incomplete { need: buf.len() + 1 });
    };
    if end > limits.inline {
        return Err(ProtocolError::BigInline);
    }
    let line = match end.checked_sub(1).and_then(|i| buf.get(i)) {
        Some(b'\r') => end - 1,
        _ => end,
    };
    Ok(Request::Inline { line, len: end + 1 })
}

#[inline]
fn scan_array<const COLLECT: bool>(
    buf: &[u8],
    limits: &RequestLimits,
    progress: &mut RequestProgress,
    ranges: &mut Vec<ArgRange>,
) -> Result<Request, ProtocolError> {
    let mut pos = progress.pos;
    let (mut left, mut all) = (progress.left, progress.count);
    if COLLECT {
        ranges.clear();
    }
    if pos == 0 {
        let Some((count, after)) = length_line(buf, 1, limits, ProtocolError::BigCountLine)? else {
            return Ok(Request::Incomplete { need: buf.len() + 1 });
        };
        let count = count.ok_or(ProtocolError::MultibulkLength)?;
        if count > limits.multibulk.min(i32::MAX as u64) as i64 {
            let before_login = limits.unauthenticated && count <= i64::from(i32::MAX);
            return Err(match before_login {
                true => ProtocolError::UnauthenticatedMultibulk,
                false => ProtocolError::MultibulkLength,
            });
        }
        if count <= 0 {
            return Ok(Request::Empty { len: after });
        }
        pos = after;
        left = count as u32;
        all = left;
    }
    while left > 0 {
        let start = pos;
        let unfinished = |need: usize, progress: &mut RequestProgress| {
            *progress = RequestProgress { pos: start, left, count: all };
            Ok(Request::Incomplete { need })
        };
        let Some((size, body)) = length_line(buf, pos + 1, limits, ProtocolError::BigBulkLine)?
        else {
            return unfinished(buf.len() + 1, progress);
        };
        match buf.get(pos) {
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
            None => return unfinished(buf.len() + 1, progress),
        }
        let size = size.filter(|&s| s >= 0).ok_or(ProtocolError::BulkLength)? as u64;
        if size > limits.bulk {
            return Err(match limits.unauthenticated {
                true => ProtocolError::UnauthenticatedBulk,
                false => ProtocolError::BulkLength,
            });
        }
        let end = body as u64 + size;
        if end + 2 > u32::MAX as u64 {
            return Err(ProtocolError::BigRequest);
        }
        let end = end as usize;
        if buf.len() < end + 2 {
            return unfinished(end + 2, progress);
        }
        if COLLECT {
            ranges.push(ArgRange { start: body as u32, end: end as u32 });
        }
        pos = end + 2;
        left -= 1;
    }
    Ok(Request::Array { len: pos })
}

/// Reads the number between `from` and the next CR. Returns the number (`None` if it is not one)
/// and the start of the next line; `None` if the line is incomplete.
#[inline]
fn length_line(
    buf: &[u8],
    from: usize,
    limits: &RequestLimits,
    too_long: ProtocolError,
) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    let Some(line) = buf.get(from..) else { return Ok(None) };
    // Common lines have one to four digits, which need no search for the CR.
    let mut value: i64 = 0;
    for (i, &byte) in line.iter().enumerate().take(8) {
        if byte.is_ascii_digit() && (i == 0 || value != 0) {
            value = value * 10 + i64::from(byte - b'0');
        } else if byte == b'\r' && i > 0 {
            if line.len() < i + 2 {
                return Ok(None);
            }
            return Ok(Some((Some(value), from + i + 2)));
        } else {
            break;
        }
    }
    let Some(cr) = memchr(b'\r', line) else {
        if line.len() + 1 > limits.inline {
            return Err(too_long);
        }
        return Ok(None);
    };
    if line.len() < cr + 2 {
        return Ok(None);
    }
    Ok(Some((line.get(..cr).and_then(strict_i64), from + cr + 2)))
}

/// Parses a decimal number exactly as Redis's `string2ll`: no plus sign, leading zero or space.
pub fn strict_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    match digits {
        [] => return None,
        [b'0'] => return if negative { None } else { Some(0) },
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value: i64 = 0;
    for &d in digits {
        if !d.is_ascii_digit() {
            return None;
        }
        // Accumulated as a negative number, so that `i64::MIN` fits.
        value = value.checked_mul(10)?.checked_sub(i64::from(d - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Rewrites an inline command as a RESP array in `out`, which is cleared first. Splits arguments
/// like Redis's `sdssplitargs` and returns their number; 0 for a blank line.
///
/// # Errors
/// [`ProtocolError::UnbalancedQuotes`].
pub fn inline_to_array(line: &[u8], out: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let mut args: Vec<Vec<u8>> = Vec::new();
    let mut rest = line.split(|&b| b == 0).next().unwrap_or_default();
    loop {
        while let [b, tail @ ..] = rest
            && is_space(*b)
        {
            rest = tail;
        }
        if rest.is_empty() {
            break;
        }
        let mut arg = Vec::new();
        rest = inline_argument(rest, &mut arg).ok_or(ProtocolError::UnbalancedQuotes)?;
        args.push(arg);
    }
    out.clear();
    super::write::array_header(out, args.len());
    for arg in &args {
        super::write::bulk(out, arg);
    }
    Ok(args.len())
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Reads one argument from the front of `rest` and returns what follows. `None`: a quote is not
/// closed or not followed by a space.
fn inline_argument<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [b, ..] if is_space(*b) => return Some(rest),
            [b'"', tail @ ..] => {
                rest = double_quoted(tail, arg)?;
                return rest.first().is_none_or(|b| is_space(*b)).then_some(rest);
            }
            [b'\'', tail @ ..] => {
                rest = single_quoted(tail, arg)?;
                return rest.first().is_none_or(|b| is_space(*b)).then_some(rest);
            }
            [b, tail @ ..] => {
                arg.push(*b);
                rest = tail;
            }
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', h, l, tail @ ..] if h.is_ascii_hexdigit() && l.is_ascii_hexdigit() => {
                let digit = |b: u8| char::from(b).to_digit(16).unwrap_or_default() as u8;
                arg.push(digit(*h) << 4 | digit(*l));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = tail;
            }
            [b, tail @ ..] => {
                arg.push(*b);
                rest = tail;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => {
                arg.push(b'\'');
                rest = tail;
            }
            [b, tail @ ..] => {
                arg.push(*b);
                rest = tail;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(buf: &[u8]) -> Result<(Request, Vec<Vec<u8>>), ProtocolError> {
        let mut ranges = Vec::new();
        let request = scan_request(
            buf,
            &RequestLimits::default(),
            &mut RequestProgress::default(),
            &mut ranges,
        )?;
        let args = crate::resp::Args::new(buf, &ranges).iter().map(<[u8]>::to_vec).collect();
        Ok((request, args))
    }

    #[test]
    fn an_array_gives_its_arguments() {
        let (request, args) = scan(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nrest").unwrap();
        assert_eq!(request, Request::Array { len: 20 });
        assert_eq!(args, [b"GET".to_vec(), b"k".to_vec()]);
    }

    #[test]
    fn empty_arrays_are_passed_over() {
        assert_eq!(scan(b"*0\r\nX").unwrap().0, Request::Empty { len: 4 });
        assert_eq!(scan(b"*-1\r\nX").unwrap().0, Request::Empty { len: 5 });
    }

    #[test]
    fn redis_texts_for_what_is_wrong() {
        let text = |b: &[u8]| scan(b).unwrap_err().to_string();
        assert_eq!(text(b"*x\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(text(b"*01\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(text(b"*2147483648\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(text(b"*1\r\n$-1\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(text(b"*1\r\n$536870913\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(text(b"*1\r\n:1\r\n"), "Protocol error: expected '$', got ':'");
        assert_eq!(text(&[b'x'; 70_000]), "Protocol error: too big inline request");
        let long = [b"*".as_slice(), &[b'1'; 70_000]].concat();
        assert_eq!(text(&long), "Protocol error: too big mbulk count string");
        let long = [b"*1\r\n$".as_slice(), &[b'1'; 70_000]].concat();
        assert_eq!(text(&long), "Protocol error: too big bulk count string");
    }

    #[test]
    fn inline_commands_split_as_redis_splits_them() {
        let split = |line: &[u8]| {
            let mut out = Vec::new();
            inline_to_array(line, &mut out).map(|_| scan(&out).map(|s| s.1).unwrap_or_default())
        };
        assert_eq!(split(b"  SET  k v ").unwrap(), [b"SET".to_vec(), b"k".to_vec(), b"v".to_vec()]);
        assert_eq!(
            split(br#"a "b\x41\n\"" 'c\'d'"#).unwrap(),
            [b"a".to_vec(), b"bA\n\"".to_vec(), b"c'd".to_vec()]
        );
        assert_eq!(split(b"").unwrap(), Vec::<Vec<u8>>::new());
        assert!(split(b"a \"b").is_err());
        assert!(split(b"a \"b\"c").is_err());
        assert!(split(b"a 'b").is_err());
    }

    #[test]
    fn a_large_argument_says_how_much_it_needs() {
        let mut progress = RequestProgress::default();
        let mut ranges = Vec::new();
        let head = b"*2\r\n$3\r\nGET\r\n$1000\r\nabc";
        let got = scan_request(head, &RequestLimits::default(), &mut progress, &mut ranges);
        assert_eq!(got, Ok(Request::Incomplete { need: 13 + 7 + 1000 + 2 }));
    }

    /// Feeds `input` in pieces cut at `cuts`; returns all frames, and the error at the end if any.
    fn frames(input: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let limits =
            RequestLimits { bulk: 1 << 20, inline: 64, multibulk: 1 << 20, unauthenticated: false };
        let mut ends: Vec<usize> = cuts.iter().map(|c| c % (input.len() + 1)).collect();
        ends.push(input.len());
        ends.sort_unstable();
        let (mut start, mut progress, mut ranges, mut found) =
            (0, RequestProgress::default(), Vec::new(), Vec::new());
        for end in ends {
            loop {
                let buf = &input[start..end];
                match scan_request(buf, &limits, &mut progress, &mut ranges) {
                    Ok(Request::Array { len }) => {
                        let args = crate::resp::Args::new(buf, &ranges);
                        found.push(args.iter().map(<[u8]>::to_vec).collect());
                        start += len;
                    }
                    Ok(Request::Inline { line, len }) => {
                        found.push(vec![buf[..line].to_vec()]);
                        start += len;
                    }
                    Ok(Request::Empty { len }) => start += len,
                    Ok(Request::Incomplete { need }) => {
                        assert!(need > buf.len());
                        break;
                    }
                    Err(error) => return (found, Some(error)),
                }
                progress = RequestProgress::default();
            }
        }
        (found, None)
    }

    fn request_bytes() -> impl Strategy<Value = Vec<u8>> {
        let arg = proptest::collection::vec(any::<u8>(), 0..20);
        let array = proptest::collection::vec(arg, 0..6).prop_map(|args| {
            let mut out = format!("*{}\r\n", args.len()).into_bytes();
            for a in args {
                out.extend(format!("${}\r\n", a.len()).bytes());
                out.extend(a);
                out.extend(b"\r\n");
            }
            out
        });
        prop_oneof![
            5 => array,
            1 => Just(b"PING\r\n".to_vec()),
            1 => proptest::collection::vec(prop_oneof![
                Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'-'), any::<u8>()
            ], 0..30),
        ]
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(
            parts in proptest::collection::vec(request_bytes(), 1..8),
            cuts in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let input = parts.concat();
            let whole = frames(&input, &[]);
            let cut = frames(&input, &cuts);
            // A line that is too long is refused as soon as that is known, which depends on the
            // cuts; everything before it must be the same.
            if whole.1.is_none() && cut.1.is_none() || whole.1 == cut.1 {
                prop_assert_eq!(whole.0, cut.0);
            } else {
                let n = whole.0.len().min(cut.0.len());
                prop_assert_eq!(&whole.0[..n], &cut.0[..n]);
            }
        }

        #[test]
        fn strict_numbers(n in any::<i64>()) {
            prop_assert_eq!(strict_i64(n.to_string().as_bytes()), Some(n));
        }
    }
}
