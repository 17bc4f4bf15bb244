//! Parser of the frames that a node sends on a subscription connection.

use crate::resp::reply;

use crate::channel::TopicKind;

/// A parsed frame.
#[derive(Debug, PartialEq, Eq)]
pub enum NodeFrame<'a> {
    /// A published message: `message`, `pmessage` or `smessage`.
    Message {
        /// The kind of subscription.
        kind: TopicKind,
        /// The subscribed channel or pattern.
        name: &'a [u8],
        /// The channel to which the message was published.
        channel: &'a [u8],
        /// Offset of the channel's bulk string in the frame.
        at: usize,
        /// The published bytes.
        payload: &'a [u8],
    },
    /// A confirmation: `subscribe`, `unsubscribe` and their variants.
    Changed {
        /// The kind of subscription.
        kind: TopicKind,
        /// `true` for a subscription, `false` for its end.
        subscribed: bool,
        /// The channel or pattern.
        name: &'a [u8],
    },
    /// An error reply.
    Error(&'a [u8]),
    /// Any other reply.
    Reply,
    /// A push of another kind.
    Other,
}

/// Parses a complete frame. `None` if it is malformed.
pub fn read(frame: &[u8]) -> Option<NodeFrame<'_>> {
    match frame.first()? {
        b'>' => {}
        b'-' | b'!' => return Some(NodeFrame::Error(reply::error_text(frame)?)),
        _ => return Some(NodeFrame::Reply),
    }
    let (count, at) = number(frame, 1)?;
    let (word, at) = match bulk(frame, at) {
        Some(found) => found,
        None => return Some(NodeFrame::Other),
    };
    let (kind, subscribed) = match (word, count) {
        (b"message", 3) => return message(frame, TopicKind::Channel, at),
        (b"pmessage", 4) => return message(frame, TopicKind::Pattern, at),
        (b"smessage", 3) => return message(frame, TopicKind::Shard, at),
        (b"subscribe", 3) => (TopicKind::Channel, true),
        (b"unsubscribe", 3) => (TopicKind::Channel, false),
        (b"psubscribe", 3) => (TopicKind::Pattern, true),
        (b"punsubscribe", 3) => (TopicKind::Pattern, false),
        (b"ssubscribe", 3) => (TopicKind::Shard, true),
        (b"sunsubscribe", 3) => (TopicKind::Shard, false),
        (b"message" | b"pmessage" | b"smessage", _) => return None,
        _ => return Some(NodeFrame::Other),
    };
    let (name, _) = bulk(frame, at)?;
    Some(NodeFrame::Changed { kind, subscribed, name })
}

#[inline]
fn message(frame: &[u8], kind: TopicKind, at: usize) -> Option<NodeFrame<'_>> {
    let (name, behind) = bulk(frame, at)?;
    let (channel, at, behind) = if kind == TopicKind::Pattern {
        let (channel, after) = bulk(frame, behind)?;
        (channel, behind, after)
    } else {
        (name, at, behind)
    };
    let (payload, _) = bulk(frame, behind)?;
    Some(NodeFrame::Message { kind, name, channel, at, payload })
}

/// The bulk string at `at`, and the offset behind it.
#[inline]
fn bulk(frame: &[u8], at: usize) -> Option<(&[u8], usize)> {
    if frame.get(at) != Some(&b'$') {
        return None;
    }
    let (len, start) = number(frame, at + 1)?;
    let end = start.checked_add(len)?;
    Some((frame.get(start..end)?, end.checked_add(2)?))
}

/// The number at `at`, and the offset behind its line end.
#[inline]
fn number(frame: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (i, &byte) in frame.get(at..)?.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value.checked_mul(10)?.checked_add(usize::from(byte - b'0'))?,
            b'\r' if i > 0 => return Some((value, at + i + 2)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_frames() {
        let message = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n";
        let (kind, name, channel) = (TopicKind::Channel, b"c".as_slice(), b"c".as_slice());
        let payload = b"hi".as_slice();
        assert_eq!(
            read(message),
            Some(NodeFrame::Message { kind, name, channel, at: 17, payload })
        );
        let pmessage = b">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\ncd\r\n$0\r\n\r\n";
        let Some(NodeFrame::Message { name, channel, at, payload, .. }) = read(pmessage) else {
            panic!("a message");
        };
        assert_eq!((name, channel, payload), (b"c*".as_slice(), b"cd".as_slice(), b"".as_slice()));
        assert_eq!(&pmessage[at..at + 4], b"$2\r\n");
        let name = b"x".as_slice();
        let gone = b">3\r\n$12\r\nsunsubscribe\r\n$1\r\nx\r\n:0\r\n";
        assert_eq!(
            read(gone),
            Some(NodeFrame::Changed { kind: TopicKind::Shard, subscribed: false, name })
        );
        assert_eq!(read(b"-ERR no\r\n"), Some(NodeFrame::Error(b"ERR no")));
        assert_eq!(read(b"+PONG\r\n"), Some(NodeFrame::Reply));
        assert_eq!(read(b">2\r\n$10\r\ninvalidate\r\n_\r\n"), Some(NodeFrame::Other));
        assert_eq!(read(b">2\r\n$7\r\nmessage\r\n$1\r\nc\r\n"), None);
        assert_eq!(read(b">3\r\n$7\r\nmessage\r\n:1\r\n$1\r\nc\r\n"), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&bytes);
            let _ = read(&[b">3\r\n$7\r\nmessage\r\n".as_slice(), &bytes].concat());
        }
    }
}
