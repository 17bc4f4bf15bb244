//! A socket of the control thread to a node: TLS where the configuration says so, replies as
//! frames.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{Decoder, FramedRead};
use tokio_util::either::Either;

use crate::cluster::UpstreamId;
use crate::resp::{ReplyError, ReplyProgress, ReplyScan};
use crate::tls::{HandshakeOutcome, Side, Tls};

/// Limit on one reply, bytes. COMMAND has some 100 KiB, CLUSTER SHARDS of 1,000 nodes some 300 KiB.
const MAX_REPLY: usize = 32 << 20;
/// Free space in the buffer for each read, bytes.
const READ: usize = 4 << 10;

/// Why no reply was received.
#[derive(Debug, Error)]
pub(super) enum WireError {
    /// The connection was lost.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The reply exceeds [`MAX_REPLY`].
    #[error("a reply of more than {MAX_REPLY} bytes")]
    TooLarge,
    /// The node does not speak RESP.
    #[error(transparent)]
    NotResp(#[from] ReplyError),
}

/// A connection to one node, its TLS handshake over.
#[derive(Debug)]
pub(super) struct Wire {
    replies: FramedRead<Socket, ReplyDecoder>,
    tls: Arc<Tls>,
    upstream: UpstreamId,
    /// The node's name.
    name: String,
}

type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Wire {
    /// A connection over `stream` to the node of `upstream` called `name`.
    ///
    /// # Errors
    /// The TLS handshake has failed.
    pub async fn over(
        stream: TcpStream,
        name: &str,
        upstream: UpstreamId,
        tls: &Arc<Tls>,
    ) -> io::Result<Wire> {
        let socket = match tls.client(upstream) {
            None => Either::Left(stream),
            Some(config) => {
                let server = tls.server_name(upstream, name)?;
                let mut counted = Counted { tls, outcome: HandshakeOutcome::Timeout };
                let outcome = TlsConnector::from(config).connect(server, stream).await;
                counted.outcome =
                    outcome.as_ref().err().map_or(HandshakeOutcome::Ok, crate::tls::outcome);
                drop(counted);
                let explained = |error: io::Error| {
                    io::Error::new(error.kind(), tls.why(upstream, &error, name))
                };
                Either::Right(Box::new(outcome.map_err(explained)?))
            }
        };
        let replies = FramedRead::with_capacity(socket, ReplyDecoder::default(), READ);
        Ok(Wire { replies, tls: Arc::clone(tls), upstream, name: name.to_owned() })
    }

    /// Writes commands.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn write_all(&mut self, commands: &[u8]) -> io::Result<()> {
        let socket = self.replies.get_mut();
        let mut written = socket.write_all(commands).await;
        if written.is_ok() {
            // Encrypted bytes may wait in the TLS stream otherwise.
            written = socket.flush().await;
        }
        written.map_err(|error| self.explained(error))
    }

    /// The next reply, whole.
    ///
    /// # Errors
    /// The connection is lost, or what it carries is not usable.
    pub async fn reply(&mut self) -> Result<Bytes, WireError> {
        let error = match self.replies.next().await {
            Some(Ok(reply)) => return Ok(reply),
            // Redis ends TLS connections without close_notify.
            Some(Err(WireError::Io(e))) if e.kind() != io::ErrorKind::UnexpectedEof => {
                self.explained(e)
            }
            Some(Err(WireError::Io(_))) | None => {
                io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection")
            }
            Some(Err(other)) => return Err(other),
        };
        Err(error.into())
    }

    fn explained(&self, error: io::Error) -> io::Error {
        match self.replies.get_ref() {
            Either::Left(_) => error,
            Either::Right(_) => {
                let why = self.tls.why(self.upstream, &error, &self.name);
                io::Error::new(error.kind(), why)
            }
        }
    }
}

/// Finds the ends of replies.
#[derive(Debug, Default)]
struct ReplyDecoder {
    scan: ReplyScan,
    /// Bytes of the unfinished reply that are scanned.
    scanned: usize,
}

impl Decoder for ReplyDecoder {
    type Item = Bytes;
    type Error = WireError;

    fn decode(&mut self, received: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
        match self.scan.advance(received.get(self.scanned..).unwrap_or_default())? {
            ReplyProgress::Complete(n) => {
                let end = std::mem::take(&mut self.scanned) + n;
                // The buffer goes with the reply: a connection that is kept holds no memory.
                let reply = match end == received.len() {
                    true => std::mem::take(received),
                    false => received.split_to(end),
                };
                Ok(Some(reply.freeze()))
            }
            ReplyProgress::Partial(n) => {
                self.scanned += n;
                if received.len() > MAX_REPLY {
                    return Err(WireError::TooLarge);
                }
                received.reserve(READ);
                Ok(None)
            }
        }
    }

    /// An unfinished reply at the end of the stream is none.
    fn decode_eof(&mut self, received: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
        self.decode(received)
    }
}

/// A TLS handshake that is counted when it is over, also when it is abandoned.
struct Counted<'a> {
    tls: &'a Tls,
    outcome: HandshakeOutcome,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.tls.stats().count(Side::Upstream, self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is decoded when `bytes` come in pieces of `size`, and what is left of them.
    fn decode(bytes: &[u8], size: usize) -> Result<(Vec<Bytes>, BytesMut), WireError> {
        let (mut decoder, mut received) = (ReplyDecoder::default(), BytesMut::new());
        let mut replies = Vec::new();
        for piece in bytes.chunks(size) {
            received.extend_from_slice(piece);
            while let Some(reply) = decoder.decode(&mut received)? {
                replies.push(reply);
            }
        }
        replies.extend(decoder.decode_eof(&mut received)?);
        Ok((replies, received))
    }

    #[test]
    fn replies_are_found_however_they_arrive() {
        let all = [&b"+OK\r\n"[..], b"*2\r\n$3\r\na\r\n\r\n:1\r\n", b"$-1\r\n"];
        let mut bytes = all.concat();
        bytes.extend_from_slice(b"$5\r\nhal");
        for size in 1..=bytes.len() {
            let (replies, rest) = decode(&bytes, size).unwrap();
            assert_eq!(replies, all, "pieces of {size}");
            assert_eq!(rest, &b"$5\r\nhal"[..], "pieces of {size}");
        }
    }

    #[test]
    fn a_reply_takes_its_buffer_with_it() {
        let reply = [b"$100000\r\n".as_slice(), &[b'x'; 100_000], b"\r\n"].concat();
        let (replies, rest) = decode(&reply, 4096).unwrap();
        assert_eq!(replies, [reply]);
        assert!(rest.capacity() <= READ, "{}", rest.capacity());
    }

    #[test]
    fn what_is_no_reply_or_too_large_is_an_error() {
        assert!(matches!(decode(b"HTTP/1.1 400\r\n", 99), Err(WireError::NotResp(_))));
        let endless = [b"$99999999\r\n".as_slice(), &vec![b'x'; MAX_REPLY]].concat();
        assert!(matches!(decode(&endless, 1 << 20), Err(WireError::TooLarge)));
    }
}
