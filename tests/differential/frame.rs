//! Reads raw RESP replies for the differential test: finds frames, takes them apart, prints them.
//! Written apart from slotway's own scanner on purpose, so that one mistake cannot hide in both.

use std::io::{self, Read};
use std::net::TcpStream;

/// A socket whose replies are read frame by frame, as raw bytes.
pub struct Reader {
    stream: TcpStream,
    buf: Vec<u8>,
    at: usize,
}

impl Reader {
    pub fn new(stream: TcpStream) -> Self {
        Reader { stream, buf: Vec::new(), at: 0 }
    }

    /// The bytes of the next whole reply.
    pub fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(len) = frame_len(&self.buf[self.at..]) {
                let frame = self.buf[self.at..self.at + len].to_vec();
                self.at += len;
                return Ok(frame);
            }
            self.buf.drain(..self.at);
            self.at = 0;
            let mut chunk = [0; 64 * 1024];
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("closed; unread: {}", show(&self.buf)),
                ));
            }
            self.buf.extend_from_slice(&chunk[..n]);
        }
    }
}

/// The first line of `b` without its CRLF.
fn line(b: &[u8]) -> Option<&[u8]> {
    let end = b.windows(2).position(|w| w == b"\r\n")?;
    Some(&b[..end])
}

/// The number after the type byte of `head`; -1 for RESP2's nulls.
fn number(head: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(&head[1..]).into_owned();
    text.parse().unwrap_or_else(|_| panic!("no length in frame head {:?}", show(head)))
}

/// How long the frame at the start of `b` is, if it is all there.
fn frame_len(b: &[u8]) -> Option<usize> {
    let head = line(b)?;
    let mut len = head.len() + 2;
    match head.first() {
        Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => Some(len),
        Some(b'$' | b'=' | b'!') => {
            let n = number(head);
            if n >= 0 {
                len += n as usize + 2;
            }
            (b.len() >= len).then_some(len)
        }
        Some(t @ (b'*' | b'~' | b'>' | b'%' | b'|')) => {
            let mut parts = number(head).max(0);
            parts *= if matches!(t, b'%' | b'|') { 2 } else { 1 };
            // an attribute stands before the reply it belongs to
            parts += i64::from(*t == b'|');
            for _ in 0..parts {
                len += frame_len(&b[len..])?;
            }
            Some(len)
        }
        other => panic!("no RESP type: {other:?} in {}", show(b)),
    }
}

/// An aggregate's elements as raw frames (a map's keys and values in turn); `None` for scalars.
pub fn parts(frame: &[u8]) -> Option<Vec<&[u8]>> {
    let head = line(frame)?;
    let count = match head.first()? {
        b'*' | b'~' | b'>' => number(head).max(0),
        b'%' => number(head) * 2,
        _ => return None,
    };
    let mut at = head.len() + 2;
    let mut out = Vec::new();
    for _ in 0..count {
        let len = frame_len(&frame[at..])?;
        out.push(&frame[at..at + len]);
        at += len;
    }
    Some(out)
}

/// Type byte and announced length of a frame, the length only where it counts elements or is null.
pub fn shape(frame: &[u8]) -> String {
    let head = line(frame).unwrap_or_default();
    match head.first() {
        Some(b'*' | b'~' | b'>' | b'%') => show(head),
        Some(b'$') if number(head) < 0 => show(head),
        Some(t) => char::from(*t).to_string(),
        None => String::new(),
    }
}

/// The text of a string, or the digits of a number.
pub fn text(frame: &[u8]) -> Option<&[u8]> {
    let head = line(frame)?;
    match head.first()? {
        b'+' | b':' | b'-' | b',' => head.get(1..),
        b'$' => frame.get(head.len() + 2..frame.len().checked_sub(2)?),
        // the format and a colon stand before a verbatim string's text
        b'=' => frame.get(head.len() + 6..frame.len().checked_sub(2)?),
        _ => None,
    }
}

/// The integer of a `:` frame.
pub fn integer(frame: &[u8]) -> Option<i64> {
    let head = line(frame)?;
    (head.first() == Some(&b':')).then(|| number(head))
}

/// Whether the frame is an error.
pub fn is_error(frame: &[u8]) -> bool {
    matches!(frame.first(), Some(b'-' | b'!'))
}

/// Bytes for people, cut where they get long.
pub fn show(b: &[u8]) -> String {
    const MOST: usize = 600;
    let mut s = b[..b.len().min(MOST)].escape_ascii().to_string();
    if b.len() > MOST {
        s += &format!("… ({} bytes)", b.len());
    }
    s
}
