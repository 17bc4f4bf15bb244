//! A connection of the control thread's own to a node, with TLS where the configuration says so.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{Outcome, Side, Tls};

/// See the module.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    tls: Arc<Tls>,
    /// The node's name.
    name: String,
}

#[derive(Debug)]
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Over a TCP connection to the node called `name`.
    ///
    /// # Errors
    /// Why the handshake failed.
    pub async fn over(stream: TcpStream, name: &str, tls: &Arc<Tls>) -> io::Result<Wire> {
        let (tls, name) = (Arc::clone(tls), name.to_owned());
        let Some(config) = tls.client() else {
            return Ok(Wire { socket: Socket::Plain(stream), tls, name });
        };
        let server = tls.server_name(&name)?;
        let mut counted = Counted { tls: &tls, outcome: Outcome::Timeout };
        let outcome = TlsConnector::from(config).connect(server, stream).await;
        counted.outcome = outcome.as_ref().err().map_or(Outcome::Ok, crate::tls::outcome);
        drop(counted);
        match outcome {
            Ok(stream) => Ok(Wire { socket: Socket::Tls(Box::new(stream)), tls, name }),
            Err(error) => Err(io::Error::new(error.kind(), tls.why(&error, &name))),
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let outcome = match &mut self.socket {
            Socket::Plain(stream) => stream.write_all(bytes).await,
            // What is encrypted may wait in it otherwise.
            Socket::Tls(stream) => match stream.write_all(bytes).await {
                Ok(()) => stream.flush().await,
                other => other,
            },
        };
        outcome.map_err(|error| self.explained(error))
    }

    /// Appends what came; 0 is the end.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn read_buf(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let outcome = match &mut self.socket {
            Socket::Plain(stream) => stream.read_buf(buf).await,
            Socket::Tls(stream) => match stream.read_buf(buf).await {
                // Redis closes without a farewell.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                other => other,
            },
        };
        outcome.map_err(|error| self.explained(error))
    }

    fn explained(&self, error: io::Error) -> io::Error {
        match self.socket {
            Socket::Plain(_) => error,
            Socket::Tls(_) => io::Error::new(error.kind(), self.tls.why(&error, &self.name)),
        }
    }
}

/// A handshake that is counted when it is over, also when nobody waits for it any more.
struct Counted<'a> {
    tls: &'a Tls,
    outcome: Outcome,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.tls.stats().count(Side::Upstream, self.outcome);
    }
}
