//! The PROXY protocol header (v1, v2), with which a load balancer announces its client. No I/O.
//!
//! The header precedes all other bytes, TLS included, and is not part of them: [`parse`] returns
//! how many bytes may be read without reading past the header, so that the rest stays in the
//! socket. Additional fields (TLV) of version 2 are skipped.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header accepted, in bytes. TLV fields of version 2 may take up to 64 KiB; those in
/// use (names, certificate subjects, cloud endpoints) take a few hundred bytes.
pub const MAX_LEN: usize = 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
/// The longest header of version 1, in bytes, CR LF included.
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// Both ends of the connection between the client and the load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// The client's address.
    pub client: SocketAddr,
    /// The load balancer's address.
    pub local: SocketAddr,
}

/// The state of a header that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The header is not complete yet.
    Incomplete {
        /// Number of bytes to read next; never reaches past the end of the header.
        more: usize,
    },
    /// The whole header has been read.
    Complete {
        /// The addresses in the header. `None` if the load balancer connects on its own account
        /// (LOCAL, a health check), or the client is unknown or has no IP address.
        endpoints: Option<Endpoints>,
    },
}

/// A reason for refusing a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// The first bytes are not those of a header.
    Missing,
    /// The header is longer than [`MAX_LEN`], or a version 1 header than 107 bytes.
    TooLong,
    /// The header starts correctly but is invalid, for this reason.
    Malformed(&'static str),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderError::Missing => f.write_str("no PROXY protocol header"),
            HeaderError::TooLong => {
                write!(
                    f,
                    "a PROXY protocol header of more than {V1_MAX} (v1) or {MAX_LEN} (v2) bytes"
                )
            }
            HeaderError::Malformed(what) => write!(f, "an invalid PROXY protocol header: {what}"),
        }
    }
}

/// Parses the header at the start of `bytes`, which are all bytes read from the connection so far:
/// never more than the last [`Header::Incomplete`] asked for.
///
/// # Errors
/// There is no header or it is invalid; the bytes that follow cannot be interpreted.
pub fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    if starts_alike(bytes, V2_SIGNATURE) && !bytes.is_empty() {
        return parse_v2(bytes);
    }
    if !starts_alike(bytes, V1_PREFIX) {
        return Err(HeaderError::Missing);
    }
    parse_v1(bytes)
}

/// Whether `line`, an inline command without its line end, is the first line of a PROXY header that
/// was sent to a listener for plain clients.
pub fn is_header_line(line: &[u8]) -> bool {
    // Version 2 starts with CR LF, CR LF, NUL CR LF; empty lines are skipped as inline commands.
    let v1 = |family: &[u8]| line.starts_with(family);
    line == b"\0" || v1(b"PROXY TCP4 ") || v1(b"PROXY TCP6 ") || v1(b"PROXY UNKNOWN")
}

/// Whether one slice is a prefix of the other.
fn starts_alike(bytes: &[u8], wanted: &[u8]) -> bool {
    let len = bytes.len().min(wanted.len());
    bytes.get(..len) == wanted.get(..len)
}

fn parse_v1(bytes: &[u8]) -> Result<Header, HeaderError> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        // The shortest header of this family, or the missing CR LF.
        let shortest = match bytes.get(V1_PREFIX.len()..) {
            Some(rest) if rest.starts_with(b"TCP4 ") => "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".len(),
            Some(rest) if rest.starts_with(b"TCP6 ") => "PROXY TCP6 :: :: 0 0\r\n".len(),
            _ => "PROXY UNKNOWN\r\n".len(),
        };
        let rest = if bytes.last() == Some(&b'\r') { 1 } else { 2 };
        let more = shortest.saturating_sub(bytes.len()).max(rest);
        if bytes.len() + rest > V1_MAX {
            return Err(HeaderError::TooLong);
        }
        return Ok(Header::Incomplete { more });
    };
    if end >= V1_MAX {
        return Err(HeaderError::TooLong);
    }
    let line = bytes.get(V1_PREFIX.len()..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.ok_or(HeaderError::Malformed("its line does not end in CR LF"))?;
    let text = std::str::from_utf8(line);
    let text = text.map_err(|_| HeaderError::Malformed("it is not ASCII"))?;
    let mut words = text.split(' ');
    let v4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        // The protocol says to ignore the rest of the line.
        Some("UNKNOWN") => return Ok(Header::Complete { endpoints: None }),
        _ => return Err(HeaderError::Malformed("neither TCP4 nor TCP6 nor UNKNOWN")),
    };
    let mut ip = || -> Option<IpAddr> {
        let word = words.next()?;
        match v4 {
            true => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            false => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        }
    };
    let (client, local) = (ip(), ip());
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let is_number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let is_padded = word.len() > 1 && word.starts_with('0');
        word.parse().ok().filter(|_| is_number && !is_padded)
    };
    let (client_port, local_port) = (port(), port());
    let bad_address = HeaderError::Malformed("an address is none of its family");
    let bad_port = HeaderError::Malformed("a port is not a number from 0 to 65535");
    let endpoints = Endpoints {
        client: SocketAddr::new(client.ok_or(bad_address)?, client_port.ok_or(bad_port)?),
        local: SocketAddr::new(local.ok_or(bad_address)?, local_port.ok_or(bad_port)?),
    };
    match words.next() {
        None => Ok(Header::Complete { endpoints: Some(endpoints) }),
        Some(_) => Err(HeaderError::Malformed("there is more than two addresses and two ports")),
    }
}

fn parse_v2(bytes: &[u8]) -> Result<Header, HeaderError> {
    let Some(fixed) = bytes.get(V2_SIGNATURE.len()..V2_FIXED) else {
        return Ok(Header::Incomplete { more: V2_FIXED - bytes.len() });
    };
    let &[version_command, family, high, low] = fixed else {
        return Err(HeaderError::Missing);
    };
    if version_command >> 4 != 2 {
        return Err(HeaderError::Malformed("its version is not 2"));
    }
    let is_local = match version_command & 15 {
        0 => true,
        1 => false,
        _ => return Err(HeaderError::Malformed("its command is neither LOCAL nor PROXY")),
    };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_LEN {
        return Err(HeaderError::TooLong);
    }
    if bytes.len() < len {
        return Ok(Header::Incomplete { more: len - bytes.len() });
    }
    if is_local {
        return Ok(Header::Complete { endpoints: None });
    }
    let body = bytes.get(V2_FIXED..len).unwrap_or_default();
    let short = HeaderError::Malformed("it is too short for its addresses");
    let endpoints = match family {
        // TCP over IPv4, then over IPv6.
        0x11 => Some(addresses_v2::<4>(body).ok_or(short)?),
        0x21 => Some(addresses_v2::<16>(body).ok_or(short)?),
        // Unspecified, or datagrams.
        0x00 | 0x12 | 0x22 => None,
        // Unix sockets: two paths of 108 bytes.
        0x31 | 0x32 => match body.len() {
            216.. => None,
            _ => return Err(short),
        },
        _ => return Err(HeaderError::Malformed("its address family is not known")),
    };
    Ok(Header::Complete { endpoints })
}

/// Reads two addresses of `N` bytes and two ports.
fn addresses_v2<const N: usize>(body: &[u8]) -> Option<Endpoints>
where
    IpAddr: From<[u8; N]>,
{
    let ip = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; N] = body.get(at..at + N)?.try_into().ok()?;
        Some(bytes.into())
    };
    let port = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?))
    };
    Some(Endpoints {
        client: SocketAddr::new(ip(0)?, port(2 * N)?),
        local: SocketAddr::new(ip(N)?, port(2 * N + 2)?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a header from `stream` in pieces of at most `piece` bytes, as from a connection.
    /// Returns the header and the number of bytes read.
    fn read(stream: &[u8], piece: usize) -> (Result<Header, HeaderError>, usize) {
        let mut taken = 0;
        loop {
            match parse(&stream[..taken]) {
                Ok(Header::Incomplete { more }) => {
                    assert!(more > 0);
                    let next = (taken + more.min(piece)).min(stream.len());
                    if next == taken {
                        return (Ok(Header::Incomplete { more }), taken);
                    }
                    taken = next;
                }
                other => return (other, taken),
            }
        }
    }

    fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([version_command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    fn body(endpoints: &Endpoints) -> Vec<u8> {
        let mut body = Vec::new();
        for ip in [endpoints.client.ip(), endpoints.local.ip()] {
            match ip {
                IpAddr::V4(ip) => body.extend(ip.octets()),
                IpAddr::V6(ip) => body.extend(ip.octets()),
            }
        }
        body.extend(endpoints.client.port().to_be_bytes());
        body.extend(endpoints.local.port().to_be_bytes());
        body
    }

    fn endpoints(client: &str, local: &str) -> Endpoints {
        Endpoints { client: client.parse().unwrap(), local: local.parse().unwrap() }
    }

    fn complete(header: &[u8]) -> Option<Endpoints> {
        match read(header, usize::MAX) {
            (Ok(Header::Complete { endpoints }), taken) => {
                assert_eq!(taken, header.len());
                endpoints
            }
            other => panic!("{:?}: {other:?}", header.escape_ascii().to_string()),
        }
    }

    fn error(header: &[u8]) -> HeaderError {
        let (result, _) = read(header, usize::MAX);
        result.expect_err(&header.escape_ascii().to_string())
    }

    #[test]
    fn parses_version_1() {
        let v4 = endpoints("192.168.0.1:56324", "192.168.0.11:443");
        assert_eq!(complete(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"), Some(v4));
        let v6 = endpoints("[2001:db8::1]:65535", "[::1]:0");
        assert_eq!(complete(b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n"), Some(v6));
        assert_eq!(complete(b"PROXY UNKNOWN\r\n"), None);
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
        assert_eq!((longest.len(), complete(longest.as_bytes())), (107, None));
        for malformed in [
            "PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 01\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n",
            "PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWN\u{20ac}\r\n",
        ] {
            assert!(
                matches!(error(malformed.as_bytes()), HeaderError::Malformed(_)),
                "{malformed}"
            );
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(200));
        assert_eq!(error(long.as_bytes()), HeaderError::TooLong);
    }

    #[test]
    fn parses_version_2() {
        let v4 = endpoints("10.0.0.7:40000", "10.0.0.1:6379");
        assert_eq!(complete(&v2(0x21, 0x11, &body(&v4))), Some(v4));
        let v6 = endpoints("[2001:db8::7]:40000", "[2001:db8::1]:6379");
        assert_eq!(complete(&v2(0x21, 0x21, &body(&v6))), Some(v6));
        // TLV fields of any content.
        let more = [body(&v4), vec![0xEA; 300]].concat();
        assert_eq!(complete(&v2(0x21, 0x11, &more)), Some(v4));
        // LOCAL: the rest of the header is ignored.
        assert_eq!(complete(&v2(0x20, 0x00, b"")), None);
        assert_eq!(complete(&v2(0x20, 0x11, &body(&v4))), None);
        assert_eq!(complete(&v2(0x20, 0xFF, b"x")), None);
        assert_eq!(complete(&v2(0x21, 0x00, b"whatever")), None, "UNSPEC");
        assert_eq!(complete(&v2(0x21, 0x12, &body(&v4))), None, "UDP");
        assert_eq!(complete(&v2(0x21, 0x31, &[0; 216])), None, "UNIX");
        for (version_command, family, body) in [
            (0x11, 0x11, body(&v4)),
            (0x22, 0x11, body(&v4)),
            (0x21, 0x11, vec![0; 11]),
            (0x21, 0x21, vec![0; 35]),
            (0x21, 0x31, vec![0; 215]),
            (0x21, 0x41, vec![0; 216]),
            (0x21, 0x13, body(&v4)),
        ] {
            let header = v2(version_command, family, &body);
            assert!(matches!(error(&header), HeaderError::Malformed(_)), "{header:?}");
        }
        complete(&v2(0x21, 0x11, &vec![0; MAX_LEN - V2_FIXED]));
        assert_eq!(error(&v2(0x21, 0x11, &vec![0; MAX_LEN - V2_FIXED + 1])), HeaderError::TooLong);
    }

    #[test]
    fn other_first_bytes_are_rejected_at_once() {
        for start in ["PING\r\n", "*1\r\n$4\r\nPING\r\n", "\x16\x03\x01", "\r\n\r\nPING", "PROXX"] {
            assert_eq!(error(start.as_bytes()), HeaderError::Missing, "{start:?}");
        }
        assert!(matches!(parse(b""), Ok(Header::Incomplete { .. })));
        assert!(matches!(parse(b"P"), Ok(Header::Incomplete { .. })));
        assert!(matches!(parse(b"\r"), Ok(Header::Incomplete { .. })));
    }

    #[test]
    fn recognizes_header_lines_among_inline_commands() {
        for line in
            ["\0", "PROXY TCP4 1.1.1.1 1.1.1.1 1 1", "PROXY TCP6 :: :: 1 1", "PROXY UNKNOWN"]
        {
            assert!(is_header_line(line.as_bytes()), "{line:?}");
        }
        for line in ["PROXY HOTKEYS", "proxy tcp4", "", "PING", "\0\0"] {
            assert!(!is_header_line(line.as_bytes()), "{line:?}");
        }
    }

    fn any_endpoints() -> impl Strategy<Value = Endpoints> {
        let ends = |v4: bool| {
            let ip = move || match v4 {
                true => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
                false => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
            };
            (ip(), ip(), any::<(u16, u16)>()).prop_map(|(client, local, ports)| Endpoints {
                client: SocketAddr::new(client, ports.0),
                local: SocketAddr::new(local, ports.1),
            })
        };
        any::<bool>().prop_flat_map(ends)
    }

    fn v1(endpoints: &Endpoints) -> Vec<u8> {
        let Endpoints { client, local } = endpoints;
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (client.ip(), local.ip());
        format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), local.port()).into_bytes()
    }

    proptest! {
        #[test]
        fn never_reads_past_the_header(
            ends in any_endpoints(),
            second in any::<bool>(),
            tlv in proptest::collection::vec(any::<u8>(), 0..64),
            rest in proptest::collection::vec(any::<u8>(), 0..64),
            piece in 1usize..200,
        ) {
            let header = match second {
                false => v1(&ends),
                true => {
                    let family = if ends.client.is_ipv4() { 0x11 } else { 0x21 };
                    v2(0x21, family, &[body(&ends), tlv].concat())
                }
            };
            let stream = [header.clone(), rest].concat();
            let (read, taken) = read(&stream, piece);
            prop_assert_eq!(read, Ok(Header::Complete { endpoints: Some(ends) }));
            prop_assert_eq!(taken, header.len());
            for cut in 0..header.len() {
                let incomplete = matches!(parse(&header[..cut]), Ok(Header::Incomplete { more })
                    if cut + more <= header.len());
                prop_assert!(incomplete, "cut at {}", cut);
            }
        }

        #[test]
        fn reads_at_most_the_longest_header(
            start in prop_oneof![
                Just(Vec::new()),
                Just(V1_PREFIX.to_vec()),
                Just(b"PROXY TCP4 ".to_vec()),
                Just(V2_SIGNATURE.to_vec()),
                Just([V2_SIGNATURE, b"\x21\x11"].concat()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..300),
            piece in 1usize..50,
        ) {
            let stream = [start, rest].concat();
            let whole = read(&stream, usize::MAX);
            prop_assert!(whole.1 <= MAX_LEN);
            // The result does not depend on how the bytes arrive.
            let (in_pieces, taken) = read(&stream, piece);
            if whole.0.is_ok() {
                prop_assert_eq!(whole.0, in_pieces);
                prop_assert_eq!(whole.1, taken);
            } else {
                prop_assert!(in_pieces.is_err());
            }
        }
    }
}
