//! A small blocking Redis client, for the sandbox's own commands and for tests.
//!
//! It is not used by the proxy: `resp` scans replies without decoding them, this decodes them into
//! trees.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Default time limit for connecting, reading and writing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A reply, RESP2 or RESP3.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-ERR …`, RESP3's `!` too
    Error(String),
    /// `:1`
    Int(i64),
    /// `$…`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` and RESP3's `_`
    Nil,
    /// `*…`
    Array(Vec<Reply>),
    /// `%…`
    Map(Vec<(Reply, Reply)>),
    /// `~…`
    Set(Vec<Reply>),
    /// `>…`
    Push(Vec<Reply>),
    /// `,3.14`
    Double(f64),
    /// `#t`
    Bool(bool),
    /// `(123…`, its digits
    BigNumber(String),
    /// `=…`: the three-letter format and the text
    Verbatim(String, Vec<u8>),
}

impl Reply {
    /// The text of a simple string, bulk string, verbatim string or error, lossily decoded.
    pub fn text(&self) -> Option<String> {
        match self {
            Reply::Simple(s) | Reply::Error(s) => Some(s.clone()),
            Reply::Bulk(b) | Reply::Verbatim(_, b) => Some(String::from_utf8_lossy(b).into_owned()),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn int(&self) -> Option<i64> {
        if let Reply::Int(n) = self { Some(*n) } else { None }
    }

    /// The elements of an array, set or push.
    pub fn items(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The text of an error.
    pub fn error(&self) -> Option<&str> {
        if let Reply::Error(e) = self { Some(e) } else { None }
    }

    /// Whether it is `+OK`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Reply::Simple(s) if s == "OK")
    }

    /// Decodes a frame; `None` if `bytes` is not exactly one.
    pub fn decode(bytes: &[u8]) -> Option<Reply> {
        match decode(bytes)? {
            (reply, []) => Some(reply),
            _ => None,
        }
    }
}

/// The command's name and its arguments as a RESP array.
pub(super) fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A blocking connection over TCP or a unix socket. Its time limit is 10 s unless changed by
/// [`Conn::set_timeout`].
#[derive(Debug)]
pub struct Conn {
    stream: BufReader<Stream>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buf),
            Stream::Unix(s) => s.read(buf),
        }
    }
}

impl Conn {
    /// Connects over TCP.
    pub fn tcp(addr: SocketAddr) -> io::Result<Conn> {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        stream.set_nodelay(true)?;
        Self::new(Stream::Tcp(stream))
    }

    /// Connects to a unix socket.
    pub fn unix(path: &Path) -> io::Result<Conn> {
        Self::new(Stream::Unix(UnixStream::connect(path)?))
    }

    fn new(stream: Stream) -> io::Result<Conn> {
        let mut conn = Conn { stream: BufReader::new(stream) };
        conn.set_timeout(Some(TIMEOUT))?;
        Ok(conn)
    }

    /// Sets the time limit of a read or a write; `None` stands for no limit.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.stream.get_ref() {
            Stream::Tcp(s) => s.set_read_timeout(timeout).and(s.set_write_timeout(timeout)),
            Stream::Unix(s) => s.set_read_timeout(timeout).and(s.set_write_timeout(timeout)),
        }
    }

    /// Sends one command and waits for its reply. An error reply is a [`Reply::Error`].
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        self.send(args)?;
        self.receive()
    }

    /// Sends several commands at once, then reads all their replies. For more than fits into the
    /// sockets' buffers, send in one thread and receive in another (see [`Conn::try_clone`]).
    pub fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> io::Result<Vec<Reply>> {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        self.send_raw(&bytes)?;
        commands.iter().map(|_| self.receive()).collect()
    }

    /// Sends one command without waiting for its reply.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<()> {
        self.send_raw(&encode(args))
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stream.get_mut() {
            Stream::Tcp(s) => s.write_all(bytes),
            Stream::Unix(s) => s.write_all(bytes),
        }
    }

    /// Waits for the next reply.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let frame = self.receive_raw()?;
        Reply::decode(&frame).ok_or_else(|| not_resp(&frame))
    }

    /// Waits for the next reply and returns its bytes, a preceding RESP3 attribute included.
    pub fn receive_raw(&mut self) -> io::Result<Vec<u8>> {
        let mut frame = Vec::new();
        let mut missing = 1usize;
        while missing > 0 {
            missing -= 1;
            let start = frame.len();
            self.stream.read_until(b'\n', &mut frame)?;
            let line = frame.get(start..).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r\n") else {
                return Err(if line.is_empty() {
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")
                } else {
                    not_resp(line)
                });
            };
            let Some((&kind, rest)) = line.split_first() else { return Err(not_resp(line)) };
            let length = || number(rest).ok_or_else(|| not_resp(line));
            match kind {
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
                b'$' | b'!' | b'=' => {
                    if let Ok(length) = u64::try_from(length()?) {
                        let wanted = length + 2;
                        let got = (&mut self.stream).take(wanted).read_to_end(&mut frame)?;
                        if got as u64 != wanted {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                }
                b'*' | b'~' | b'>' => missing += usize::try_from(length()?).unwrap_or(0),
                b'%' => missing += 2 * usize::try_from(length()?).unwrap_or(0),
                // An attribute precedes its reply.
                b'|' => missing += 2 * usize::try_from(length()?).unwrap_or(0) + 1,
                _ => return Err(not_resp(line)),
            }
        }
        Ok(frame)
    }

    /// A second handle on the same connection, for sending in one thread and receiving in another.
    /// Only one of the two may receive.
    pub fn try_clone(&self) -> io::Result<Conn> {
        let stream = match self.stream.get_ref() {
            Stream::Tcp(s) => Stream::Tcp(s.try_clone()?),
            Stream::Unix(s) => Stream::Unix(s.try_clone()?),
        };
        Ok(Conn { stream: BufReader::new(stream) })
    }
}

fn not_resp(bytes: &[u8]) -> io::Error {
    let start = bytes.get(..bytes.len().min(80)).unwrap_or_default();
    let text = format!("not a RESP reply: {}", start.escape_ascii());
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The first frame of `bytes`, and the bytes after it. Attributes are skipped.
fn decode(bytes: &[u8]) -> Option<(Reply, &[u8])> {
    let end = memchr::memmem::find(bytes, b"\r\n")?;
    let (&kind, line) = bytes.get(..end)?.split_first()?;
    let rest = bytes.get(end + 2..)?;
    let text = || String::from_utf8_lossy(line).into_owned();
    let reply = match kind {
        b'+' => Reply::Simple(text()),
        b'-' => Reply::Error(text()),
        b':' => Reply::Int(number(line)?),
        b'_' => Reply::Nil,
        b',' => Reply::Double(text().parse().ok()?),
        b'#' => Reply::Bool(line == b"t"),
        b'(' => Reply::BigNumber(text()),
        b'$' | b'!' | b'=' | b'*' if line == b"-1" => Reply::Nil,
        b'$' | b'!' | b'=' => {
            let length = usize::try_from(number(line)?).ok()?;
            let value = rest.get(..length)?.to_vec();
            let rest = rest.get(length..)?.strip_prefix(b"\r\n")?;
            let reply = match kind {
                b'$' => Reply::Bulk(value),
                b'!' => Reply::Error(String::from_utf8_lossy(&value).into_owned()),
                _ => {
                    let format = String::from_utf8_lossy(value.get(..3)?).into_owned();
                    Reply::Verbatim(format, value.get(4..)?.to_vec())
                }
            };
            return Some((reply, rest));
        }
        b'*' | b'~' | b'>' => {
            let (items, rest) = decode_many(usize::try_from(number(line)?).ok()?, rest)?;
            let reply = match kind {
                b'*' => Reply::Array(items),
                b'~' => Reply::Set(items),
                _ => Reply::Push(items),
            };
            return Some((reply, rest));
        }
        b'%' | b'|' => {
            let pairs = usize::try_from(number(line)?).ok()?;
            let (items, rest) = decode_many(pairs.checked_mul(2)?, rest)?;
            if kind == b'|' {
                return decode(rest);
            }
            let mut items = items.into_iter();
            let pairs = std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect();
            return Some((Reply::Map(pairs), rest));
        }
        _ => return None,
    };
    Some((reply, rest))
}

fn decode_many(count: usize, mut rest: &[u8]) -> Option<(Vec<Reply>, &[u8])> {
    let mut items = Vec::new();
    for _ in 0..count {
        let (item, remaining) = decode(rest)?;
        items.push(item);
        rest = remaining;
    }
    Some((items, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        assert_eq!(encode(&["GET", "kéy"]), "*2\r\n$3\r\nGET\r\n$4\r\nkéy\r\n".as_bytes());
    }

    #[test]
    fn every_type_is_decoded() {
        let cases: Vec<(&str, Reply)> = vec![
            ("+OK\r\n", Reply::Simple("OK".into())),
            ("-ERR no\r\n", Reply::Error("ERR no".into())),
            ("!6\r\nERR no\r\n", Reply::Error("ERR no".into())),
            (":-7\r\n", Reply::Int(-7)),
            ("$4\r\na\r\nb\r\n", Reply::Bulk(b"a\r\nb".to_vec())),
            ("$-1\r\n", Reply::Nil),
            ("*-1\r\n", Reply::Nil),
            ("_\r\n", Reply::Nil),
            (",inf\r\n", Reply::Double(f64::INFINITY)),
            ("#f\r\n", Reply::Bool(false)),
            ("(12345678901234567890\r\n", Reply::BigNumber("12345678901234567890".into())),
            ("=7\r\ntxt:a b\r\n", Reply::Verbatim("txt".into(), b"a b".to_vec())),
            ("*2\r\n:1\r\n*0\r\n", Reply::Array(vec![Reply::Int(1), Reply::Array(vec![])])),
            ("~1\r\n:1\r\n", Reply::Set(vec![Reply::Int(1)])),
            (">1\r\n:1\r\n", Reply::Push(vec![Reply::Int(1)])),
            ("%1\r\n:1\r\n:2\r\n", Reply::Map(vec![(Reply::Int(1), Reply::Int(2))])),
            ("|1\r\n+ttl\r\n:9\r\n:3\r\n", Reply::Int(3)),
        ];
        for (bytes, reply) in cases {
            assert_eq!(Reply::decode(bytes.as_bytes()), Some(reply), "{bytes:?}");
            let cut = &bytes.as_bytes()[..bytes.len() - 1];
            assert_eq!(Reply::decode(cut), None, "cut: {bytes:?}");
        }
        assert_eq!(Reply::decode(b":1\r\n:2\r\n"), None, "two frames are not one");
    }

    #[test]
    fn frames_are_read_as_they_were_sent() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut conn = Conn::new(Stream::Unix(near)).unwrap();
        let frames =
            ["*2\r\n$2\r\nab\r\n%1\r\n+k\r\n_\r\n", "|1\r\n+ttl\r\n:9\r\n:3\r\n", "+OK\r\n"];
        far.write_all(frames.concat().as_bytes()).unwrap();
        for frame in frames {
            assert_eq!(conn.receive_raw().unwrap(), frame.as_bytes());
        }
        far.write_all(b"$5\r\nab").unwrap();
        drop(far);
        assert_eq!(conn.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
