//! The stream of a client that connects with TLS.

use crate::common::Core;
use crate::stream::Stream;

impl Core {
    /// The stream of a client that connects with TLS.
    pub(crate) fn secured(&self, socket: std::net::TcpStream) -> Option<Stream> {
        let socket = mio::net::TcpStream::from_std(socket);
        match self.shared.tls.accept(socket)? {
            Ok(stream) => Some(Stream::Tls(Box::new(stream))),
            Err(error) => {
                tracing::error!(%error, "a client cannot be served with TLS");
                None
            }
        }
    }
}
