//! Writing replies (and the few requests of slotway's own) at the end of a buffer.

use super::Protocol;

/// Bytes of a header and a line end, at most.
pub const HEADER: usize = 32;

/// `+text`.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    out.push(b'+');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `-text`: the text starts with its code (`ERR …`). A line end in it, which would break the
/// stream, becomes a space.
pub fn error(out: &mut Vec<u8>, text: &(impl AsRef<[u8]> + ?Sized)) {
    out.push(b'-');
    out.extend(
        text.as_ref().iter().copied().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }),
    );
    out.extend_from_slice(b"\r\n");
}

/// `:n`.
pub fn integer(out: &mut Vec<u8>, n: i64) {
    out.push(b':');
    if n < 0 {
        out.push(b'-');
    }
    number(out, n.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// `,x` (RESP3), or its digits in a bulk (RESP2).
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

/// `$length` and the bytes.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    // At once: growing for the last two bytes would copy a large value, and double its buffer.
    out.reserve(bytes.len() + HEADER);
    out.push(b'$');
    number(out, bytes.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// `=length`, a text (RESP3), or its bulk (RESP2).
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

/// `*n`; the elements follow.
#[inline]
pub fn array_header(out: &mut Vec<u8>, n: usize) {
    header(out, b'*', n);
}

/// `%n` (RESP3) or `*2n` (RESP2); the pairs follow.
pub fn map_header(out: &mut Vec<u8>, protocol: Protocol, pairs: usize) {
    match protocol {
        Protocol::Resp2 => header(out, b'*', pairs * 2),
        Protocol::Resp3 => header(out, b'%', pairs),
    }
}

/// `>n` (RESP3) or `*n` (RESP2): something that nobody asked for, or that is no reply; the elements
/// follow.
pub fn push_header(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    header(out, if protocol == Protocol::Resp3 { b'>' } else { b'*' }, n);
}

/// An aggregate's first line.
#[inline]
pub fn header(out: &mut Vec<u8>, kind: u8, n: usize) {
    out.push(kind);
    number(out, n as u64);
    out.extend_from_slice(b"\r\n");
}

/// Null.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// A whole request.
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
