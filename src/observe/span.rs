//! One traced command: what is told of it to whoever collects spans. Never its keys and values.

use std::sync::atomic::AtomicU64;

use crate::dest::Dest;

/// One try at a node, by the worker's clock in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempt {
    /// Host of the node.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// When the command began to wait for this try.
    pub begun: u64,
    /// When it was sent.
    pub sent: u64,
    /// When the reply came.
    pub replied: u64,
    /// The first word of an error.
    pub error: Option<String>,
    /// The error sent the command elsewhere, or made it wait: it was tried again.
    pub followed: bool,
}

/// Tries of one command that are told.
const MOST_ATTEMPTS: usize = 32;

/// A traced command that is under way.
#[derive(Debug)]
pub struct TracedCommand {
    /// Where its reply goes.
    pub to: Dest,
    /// The name, as spans have it: `GET`, `CONFIG SET`.
    pub operation: String,
    /// The client's address.
    pub client: String,
    /// When it was read.
    pub started: u64,
    attempts: Vec<Attempt>,
}

impl TracedCommand {
    /// One that was just read.
    pub fn new(to: Dest, operation: String, client: String, started: u64) -> Self {
        TracedCommand { to, operation, client, started, attempts: Vec::new() }
    }

    /// One more try, which began where the one before ended if that was followed.
    pub fn attempt(&mut self, mut attempt: Attempt) {
        let before = self.attempts.iter().rfind(|a| a.followed).map(|a| a.replied);
        attempt.begun = before.unwrap_or(self.started);
        attempt.sent = attempt.sent.max(attempt.begun);
        if self.attempts.len() < MOST_ATTEMPTS {
            self.attempts.push(attempt);
        }
    }

    /// The reply was written at `end`; `wall` is then, in nanoseconds since 1970.
    pub fn spans(self, end: u64, wall: u64) -> Trace {
        let at = |micros: u64| wall.saturating_sub(end.saturating_sub(micros) * 1000);
        let trace = fastrand::u128(1..);
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
        Trace { trace, spans }
    }
}

/// What OTLP calls the kind of a span; its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Inside slotway.
    Internal = 1,
    /// What a client has asked of slotway.
    Server = 2,
    /// What slotway has asked of a node.
    Client = 3,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AttributeValue {
    Text(String),
    Number(i64),
    Bool(bool),
}

/// One span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its number in its trace.
    pub id: u64,
    /// Within which.
    pub parent: Option<u64>,
    /// What was done.
    pub name: String,
    /// For whom.
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// By OpenTelemetry's names.
    pub(super) attributes: Vec<(&'static str, AttributeValue)>,
    /// The first word of an error.
    pub error: Option<String>,
}

/// The spans of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace's number.
    pub trace: u128,
    /// The first one is the whole, the others are parts of it.
    pub spans: Vec<Span>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// A collector has taken them.
    pub exported: AtomicU64,
    /// There was no room for them.
    pub dropped: AtomicU64,
    /// The collector could not be told.
    pub failed: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirected_command_has_a_span_for_each_try() {
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
        let Trace { spans, .. } = traced.spans(2000, 5_000_000);
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

    /// The parts of a split command begin together, and an error of one is the whole's.
    #[test]
    fn parts_are_beside_one_another() {
        let mut traced = TracedCommand::new(Dest::Discard, "MGET".into(), String::new(), 0);
        for (port, error) in [(1, None), (2, Some("WRONGTYPE"))] {
            let (sent, replied, error) = (10, 20 + u64::from(port), error.map(str::to_owned));
            traced.attempt(Attempt { port, sent, replied, error, ..Attempt::default() });
        }
        let Trace { spans, .. } = traced.spans(50, 50_000);
        let starts: Vec<u64> = spans.iter().map(|s| s.start / 1000).collect();
        assert_eq!(starts, [0, 0, 10, 0, 10, 22]);
        assert_eq!(spans[0].error.as_deref(), Some("WRONGTYPE"));
    }
}
