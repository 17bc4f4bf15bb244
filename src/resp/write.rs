//! Functions that append RESP values to a buffer: replies, and slotway's own requests.

use super::Protocol;

/// Maximum length of a header and a line end, in bytes.
pub const HEADER: usize = 32;

/// Appends a simple string, `+text`.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends an error, `-text`. The text starts with its code (`ERR …`). Line ends in it, which would
/// break the stream, become spaces.
pub fn error(out: &mut Vec<u8>, text: &(impl AsRef<[u8]> + ?Sized)) {
    out.push(b'-');
    out.extend(
        text.as_ref().iter().copied().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }),
    );
    out.extend_from_slice(b"\r\n");
}

/// Appends an integer, `:n`.
pub fn integer(out: &mut Vec<u8>, n: i64) {
    out.push(b':');
    if n < 0 {
        out.push(b'-');
    }
    number(out, n.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// Appends a double: `,x` in RESP3, a bulk string in RESP2.
pub fn double(out: &mut Vec<u8>, protocol: Protocol, x: f64) {
    let digits = x.to_string();
    match protocol {
        Protocol::Resp2 => bulk(out, digits.as_bytes()),
        Protocol::Resp3 => {
            out.push(b',');
            out.extend_from_slice(digits.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends a bulk string: `$length` and the bytes.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    // Reserve once: growing for the last two bytes would copy a large value and double its buffer.
    out.reserve(bytes.len() + HEADER);
    out.push(b'$');
    number(out, bytes.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a verbatim string of format `txt`: `=length` in RESP3, a bulk string in RESP2.
pub fn verbatim(out: &mut Vec<u8>, protocol: Protocol, bytes: &[u8]) {
    match protocol {
        Protocol::Resp2 => bulk(out, bytes),
        Protocol::Resp3 => {
            out.push(b'=');
            number(out, bytes.len() as u64 + 4);
            out.extend_from_slice(b"\r\ntxt:");
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends the header of an array, `*n`; the elements follow.
#[inline]
pub fn array_header(out: &mut Vec<u8>, n: usize) {
    header(out, b'*', n);
}

/// Appends the header of a map: `%n` in RESP3, `*2n` in RESP2; the pairs follow.
pub fn map_header(out: &mut Vec<u8>, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs * 2),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// Appends the header of a push (a message, not a reply): `>n` in RESP3, `*n` in RESP2; the
/// elements follow.
pub fn push_header(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    header(out, if protocol == Protocol::Resp3 { b'>' } else { b'*' }, n);
}

/// Appends the header of an aggregate of type `kind` with `n` elements.
#[inline]
pub fn header(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.push(kind);
    number(out, n as u64);
    out.extend_from_slice(b"\r\n");
}

/// Appends a null: `_` in RESP3, `$-1` in RESP2.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Appends a whole request.
pub fn request(out: &mut Vec<u8>, args: &[&[u8]]) {
    array_header(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

#[inline]
fn number(out: &mut Vec<u8>, mut n: u64) {
    if n < 10 {
        out.push(b'0' + n as u8);
        return;
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    while n > 0 {
        at -= 1;
        if let Some(d) = digits.get_mut(at) {
            *d = b'0' + (n % 10) as u8;
        }
        n /= 10;
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written() {
        let mut out = Vec::new();
        integer(&mut out, i64::MIN);
        integer(&mut out, 0);
        bulk(&mut out, b"0123456789");
        error(&mut out, "ERR a\r\nb");
        map_header(&mut out, Protocol::Resp2, 2);
        map_header(&mut out, Protocol::Resp3, 2);
        verbatim(&mut out, Protocol::Resp3, b"hi");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            ":-9223372036854775808\r\n:0\r\n$10\r\n0123456789\r\n-ERR a  b\r\n*4\r\n%2\r\n=6\r\ntxt:hi\r\n"
        );
    }
}
