//! The stream of a client that connects with TLS.

use crate::common::shared::Shared;
use crate::stream::Stream;

impl Shared {
    /// The stream of a client that connects with TLS.
    pub(crate) fn secured(&self, socket: std::net::TcpStream) -> Option<Stream> {
        let socket = mio::net::TcpStream::from_std(socket);
        match self.tls.accept(socket)? {
            Ok(stream) => Some(Stream::Tls(Box::new(stream))),
            Err(error) => {
                tracing::error!(%error, "a client cannot be served with TLS");
                None
            }
        }
    }
}
