//! Export of traces to an OpenTelemetry collector: OTLP/JSON over HTTP, in batches.
//!
//! An unavailable collector delays no command: traces that find the queue full are dropped, batches
//! that the collector does not accept are not sent again. Both are counted.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::Tracing;
use crate::lines::LogLimit;
use crate::observe::{Endpoint, SpanCounts, Trace, otlp};
use crate::sparsely;

/// Traces in a full batch.
const BATCH: usize = 512;
/// Time after which a batch is sent although it is not full.
const INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of a request, including its connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The exporter: takes traces from a queue and sends them.
#[derive(Debug)]
pub struct Exporter {
    endpoint: Endpoint,
    service: String,
    counts: Arc<SpanCounts>,
    /// Read by [`Exporter::run`] only; the lock lets a restarted task continue with it.
    queue: Mutex<mpsc::Receiver<Trace>>,
}

impl Exporter {
    /// An exporter for the traces of `queue`; `None` if no endpoint is configured.
    pub fn new(
        config: &Tracing,
        queue: mpsc::Receiver<Trace>,
        counts: Arc<SpanCounts>,
    ) -> Option<Exporter> {
        // An invalid endpoint was refused when the configuration was read.
        let endpoint = Endpoint::parse(&config.endpoint).ok()??;
        let service = config.service_name.clone();
        Some(Exporter { endpoint, service, counts, queue: Mutex::new(queue) })
    }

    /// Exports traces until the queue is closed.
    pub async fn run(self: Arc<Self>) {
        let mut queue = self.queue.lock().await;
        let mut lines = LogLimit::default();
        while let Some(first) = queue.recv().await {
            let mut batch = vec![first];
            let due = Instant::now() + INTERVAL;
            while batch.len() < BATCH
                && let Ok(Some(next)) = timeout_at(due, queue.recv()).await
            {
                batch.push(next);
            }
            let count: usize = batch.iter().map(|trace| trace.spans.len()).sum();
            match self.export(batch).await {
                Ok(()) => self.counts.exported.fetch_add(count as u64, Relaxed),
                Err(why) => {
                    let endpoint = &self.endpoint.uri;
                    sparsely!(lines, warn, %endpoint, %why, "spans are lost: the collector does not take them");
                    self.counts.failed.fetch_add(count as u64, Relaxed)
                }
            };
        }
    }
}

/// Failure to export a batch.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// The connection could not be made, or was lost.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// TLS is not available, or the endpoint's host is no valid server name.
    #[error("{0}")]
    Tls(String),
    /// The response is not valid HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request could not be built.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    /// The collector answered with an HTTP error.
    #[error("it answers {0}")]
    Refused(hyper::StatusCode),
    /// The request timed out.
    #[error("no answer within {REQUEST_TIMEOUT:?}")]
    Timeout,
    /// The traces could not be encoded.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl Exporter {
    async fn export(&self, batch: Vec<Trace>) -> Result<(), ExportError> {
        let body = otlp::request(&self.service, &batch)?;
        // Do not keep the spans twice while the collector takes its time.
        drop(batch);
        timeout(REQUEST_TIMEOUT, self.post(body)).await.unwrap_or(Err(ExportError::Timeout))
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), ExportError> {
        let host = self.endpoint.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.endpoint.port)).await?;
        // The connection carries one request: there is nothing to merge its packets with.
        let _ = stream.set_nodelay(true);
        if !self.endpoint.tls {
            return self.send(stream, body).await;
        }
        let config = crate::tls::public_client().map_err(|fault| ExportError::Tls(fault.reason))?;
        let name = rustls::pki_types::ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| ExportError::Tls(error.to_string()))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        self.send(stream?, body).await
    }

    async fn send(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: Vec<u8>,
    ) -> Result<(), ExportError> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let path = self.endpoint.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(HOST, format!("{}:{}", self.endpoint.host, self.endpoint.port))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        // Drives the connection; dropped on return, as each batch has a connection of its own.
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let response = sender.send_request(request).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(ExportError::Refused(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dest::Dest;
    use crate::observe::{Attempt, TracedCommand};

    /// Default of the OpenTelemetry collector's `max_request_body_size`.
    const COLLECTOR_LIMIT: usize = 20 << 20;

    #[test]
    fn a_collector_takes_the_largest_batch() {
        let client = "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:65535".to_owned();
        let mut traced = TracedCommand::new(Dest::Discard, "CLIENT NO-EVICT".into(), client, 0);
        for _ in 0..1000 {
            traced.attempt(Attempt {
                host: "redis-cluster-15.redis-headless.namespace.svc.cluster.local".into(),
                port: 65535,
                error: Some("CLUSTERDOWN".into()),
                followed: true,
                ..Attempt::default()
            });
        }
        let trace = traced.finish(10_000_000, 1_800_000_000_000_000_000);
        let body = otlp::request("slotway", &[trace]).expect("JSON");
        assert!(body.len() * BATCH <= COLLECTOR_LIMIT, "{} bytes each", body.len());
    }
}
