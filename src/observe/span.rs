//! Traces of single commands: their spans and attributes. A trace never contains keys or values.
//!
//! Names of attributes follow OpenTelemetry's conventions for databases:
//! <https://opentelemetry.io/docs/specs/semconv/database/redis/>

use std::sync::atomic::AtomicU64;

use crate::dest::Dest;

/// An attempt: a command sent once to one node. Times are the worker's clock in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempt {
    /// Host of the node.
    pub host: String,
    /// Port of the node.
    pub port: u16,
    /// Start of the wait for this attempt; set by [`TracedCommand::attempt`].
    pub begun: u64,
    /// Time of sending.
    pub sent: u64,
    /// Time of the node's reply.
    pub replied: u64,
    /// First word of an error reply.
    pub error: Option<String>,
    /// Whether another attempt followed: the error was a redirection or a request to wait.
    pub followed: bool,
}

/// Most attempts in a trace; further ones are left out.
const MAX_ATTEMPTS: usize = 32;

/// A traced command in progress.
#[derive(Debug)]
pub struct TracedCommand {
    /// Destination of the command's reply.
    pub to: Dest,
    /// Name of the operation: `GET`, `CONFIG SET`.
    pub operation: String,
    /// Address of the client.
    pub client: String,
    /// Time at which the command was read.
    pub started: u64,
    attempts: Vec<Attempt>,
}

impl TracedCommand {
    /// A command that was read at `started`.
    pub fn new(to: Dest, operation: String, client: String, started: u64) -> Self {
        TracedCommand { to, operation, client, started, attempts: Vec::new() }
    }

    /// Adds an attempt. Its wait begins at the reply of the last attempt that was followed, or when
    /// the command was read.
    pub fn attempt(&mut self, mut attempt: Attempt) {
        let before = self.attempts.iter().rfind(|a| a.followed).map(|a| a.replied);
        attempt.begun = before.unwrap_or(self.started);
        attempt.sent = attempt.sent.max(attempt.begun);
        if self.attempts.len() < MAX_ATTEMPTS {
            self.attempts.push(attempt);
        }
    }

    /// The trace of the command, whose reply was written at `end` by the worker's clock: at `wall`,
    /// in nanoseconds since 1970.
    pub fn finish(self, end: u64, wall: u64) -> Trace {
        let at = |micros: u64| wall.saturating_sub(end.saturating_sub(micros) * 1000);
        let id = fastrand::u128(1..);
        let root = fastrand::u64(1..);
        let span = |name: &str, kind, start: u64, end: u64| Span {
            id: fastrand::u64(1..),
            parent: Some(root),
            name: name.to_owned(),
            kind,
            start: at(start),
            end: at(end.max(start)),
            attributes: Vec::new(),
            error: None,
        };
        let operation = &self.operation;
        let mut spans = Vec::with_capacity(2 + 2 * self.attempts.len());
        let failed = self.attempts.iter().find(|a| a.error.is_some() && !a.followed);
        spans.push(Span {
            id: root,
            parent: None,
            attributes: vec![
                ("db.system.name", AttributeValue::Text("redis".into())),
                ("db.operation.name", AttributeValue::Text(operation.clone())),
                ("client.address", AttributeValue::Text(self.client)),
            ],
            error: failed.and_then(|a| a.error.clone()),
            ..span(operation, SpanKind::Server, self.started, end)
        });
        for attempt in &self.attempts {
            let mut attributes = vec![
                ("db.system.name", AttributeValue::Text("redis".into())),
                ("db.operation.name", AttributeValue::Text(operation.clone())),
                ("server.address", AttributeValue::Text(attempt.host.clone())),
                ("server.port", AttributeValue::Number(attempt.port.into())),
            ];
            if let Some(error) = &attempt.error {
                attributes.push(("db.response.status_code", AttributeValue::Text(error.clone())));
                attributes.push(("error.type", AttributeValue::Text(error.clone())));
            }
            if attempt.followed {
                attributes.push(("slotway.followed", AttributeValue::Bool(true)));
            }
            spans.push(span("queue", SpanKind::Internal, attempt.begun, attempt.sent));
            spans.push(Span {
                attributes,
                error: attempt.error.clone(),
                ..span(operation, SpanKind::Client, attempt.sent, attempt.replied)
            });
        }
        if let Some(last) = self.attempts.iter().map(|a| a.replied).max() {
            spans.push(span("reply", SpanKind::Internal, last, end));
        }
        Trace { id, spans }
    }
}

/// Kind of a span; the discriminants are OTLP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within slotway.
    Internal = 1,
    /// A request of a client to slotway.
    Server = 2,
    /// A request of slotway to a node.
    Client = 3,
}

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AttributeValue {
    Text(String),
    Number(i64),
    Bool(bool),
}

/// A span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Id of the span.
    pub id: u64,
    /// Id of its parent; `None` for the root.
    pub parent: Option<u64>,
    /// Name of the operation or of the phase.
    pub name: String,
    /// Kind.
    pub kind: SpanKind,
    /// Start, in nanoseconds since 1970.
    pub start: u64,
    /// End, in nanoseconds since 1970.
    pub end: u64,
    /// Attributes by name.
    pub(super) attributes: Vec<(&'static str, AttributeValue)>,
    /// First word of an error reply.
    pub error: Option<String>,
}

/// The trace of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Id of the trace.
    pub id: u128,
    /// The root span, followed by its children.
    pub spans: Vec<Span>,
}

/// Numbers of spans by outcome.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// Spans that a collector has accepted.
    pub exported: AtomicU64,
    /// Spans that found the queue full.
    pub dropped: AtomicU64,
    /// Spans that the collector did not accept, or that could not be sent to it.
    pub failed: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirected_command_has_a_span_for_each_attempt() {
        let mut traced = TracedCommand::new(Dest::Discard, "GET".into(), "c:1".into(), 1000);
        let attempt = |sent, replied, error: Option<&str>, followed| Attempt {
            host: "h".into(),
            port: 1,
            begun: 0,
            sent,
            replied,
            error: error.map(str::to_owned),
            followed,
        };
        traced.attempt(attempt(1100, 1200, Some("MOVED"), true));
        traced.attempt(attempt(1250, 1900, None, false));
        let Trace { spans, .. } = traced.finish(2000, 5_000_000);
        let shape: Vec<_> = spans
            .iter()
            .map(|s| (s.name.as_str(), s.kind, s.start / 1000, s.end / 1000, s.error.as_deref()))
            .collect();
        assert_eq!(
            shape,
            [
                ("GET", SpanKind::Server, 4000, 5000, None),
                ("queue", SpanKind::Internal, 4000, 4100, None),
                ("GET", SpanKind::Client, 4100, 4200, Some("MOVED")),
                ("queue", SpanKind::Internal, 4200, 4250, None),
                ("GET", SpanKind::Client, 4250, 4900, None),
                ("reply", SpanKind::Internal, 4900, 5000, None),
            ]
        );
        assert!(spans[1..].iter().all(|s| s.parent == Some(spans[0].id)));
    }

    /// The parts of a split command begin together, and the error of a part is the command's.
    #[test]
    fn parts_are_beside_one_another() {
        let mut traced = TracedCommand::new(Dest::Discard, "MGET".into(), String::new(), 0);
        for (port, error) in [(1, None), (2, Some("WRONGTYPE"))] {
            let (sent, replied, error) = (10, 20 + u64::from(port), error.map(str::to_owned));
            traced.attempt(Attempt { port, sent, replied, error, ..Attempt::default() });
        }
        let Trace { spans, .. } = traced.finish(50, 50_000);
        let starts: Vec<u64> = spans.iter().map(|s| s.start / 1000).collect();
        assert_eq!(starts, [0, 0, 10, 0, 10, 22]);
        assert_eq!(spans[0].error.as_deref(), Some("WRONGTYPE"));
    }
}
