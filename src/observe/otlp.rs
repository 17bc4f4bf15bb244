//! Traces as the body of an OTLP/HTTP export request in OTLP's JSON encoding
//! (`application/json`).
//!
//! The encoding is protobuf's JSON mapping (names in lowerCamelCase, 64-bit integers as decimal
//! strings), except that ids are hexadecimal and enum values are integers.
//!
//! - <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>
//! - <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto>

use std::fmt::Display;

use serde::{Serialize, Serializer};

use super::span::{AttributeValue, Span, Trace};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// `STATUS_CODE_ERROR`
const STATUS_CODE_ERROR: u8 = 2;

/// Encodes an export request with the spans of `traces`, emitted by the service named `service`.
///
/// # Errors
/// None is known: every type below can be written as JSON.
pub fn request(service: &str, traces: &[Trace]) -> serde_json::Result<Vec<u8>> {
    let spans = traces.iter().flat_map(|Trace { id, spans }| {
        spans.iter().map(|span| EncodedSpan::new(TraceId(*id), span))
    });
    let text = |key, value| KeyValue { key, value: AnyValue::String(value) };
    serde_json::to_vec(&ExportTraceServiceRequest {
        resource_spans: [ResourceSpans {
            resource: Resource {
                attributes: [text("service.name", service), text("service.version", VERSION)],
            },
            scope_spans: [ScopeSpans {
                scope: InstrumentationScope { name: "slotway", version: VERSION },
                spans: spans.collect(),
            }],
        }],
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportTraceServiceRequest<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: [KeyValue<'a>; 2],
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: InstrumentationScope,
    spans: Vec<EncodedSpan<'a>>,
}

#[derive(Serialize)]
struct InstrumentationScope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncodedSpan<'a> {
    trace_id: TraceId,
    span_id: SpanId,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<SpanId>,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: Decimal<u64>,
    end_time_unix_nano: Decimal<u64>,
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

impl<'a> EncodedSpan<'a> {
    fn new(trace_id: TraceId, span: &'a Span) -> Self {
        let attributes = span.attributes.iter().map(|(key, value)| {
            let value = match value {
                AttributeValue::Text(text) => AnyValue::String(text),
                AttributeValue::Number(n) => AnyValue::Int(Decimal(*n)),
                AttributeValue::Bool(on) => AnyValue::Bool(*on),
            };
            KeyValue { key, value }
        });
        EncodedSpan {
            trace_id,
            span_id: SpanId(span.id),
            parent_span_id: span.parent.map(SpanId),
            name: &span.name,
            kind: span.kind as u8,
            start_time_unix_nano: Decimal(span.start),
            end_time_unix_nano: Decimal(span.end),
            attributes: attributes.collect(),
            status: span
                .error
                .as_deref()
                .map(|message| Status { message, code: STATUS_CODE_ERROR }),
        }
    }
}

#[derive(Serialize)]
struct Status<'a> {
    message: &'a str,
    code: u8,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
enum AnyValue<'a> {
    #[serde(rename = "stringValue")]
    String(&'a str),
    #[serde(rename = "boolValue")]
    Bool(bool),
    #[serde(rename = "intValue")]
    Int(Decimal<i64>),
}

struct TraceId(u128);

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

struct SpanId(u64);

impl Serialize for SpanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

/// A 64-bit integer as a decimal string: a JSON number would lose bits above 2^53 in many readers.
struct Decimal<T>(T);

impl<T: Display> Serialize for Decimal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::span::SpanKind;
    use super::*;

    /// That these are the fields of OpenTelemetry's schema is shown by tests/python/test_seen.py.
    #[test]
    fn a_request_is_encoded_as_otlp_json() {
        let root = Span {
            id: 0xa,
            parent: None,
            name: "GET".into(),
            kind: SpanKind::Server,
            start: 1_700_000_000_000_000_001,
            end: 1_700_000_000_000_000_002,
            attributes: Vec::new(),
            error: None,
        };
        let child = Span {
            id: u64::MAX,
            parent: Some(0xa),
            kind: SpanKind::Client,
            attributes: vec![
                ("db.system.name", AttributeValue::Text("redis".into())),
                ("server.port", AttributeValue::Number(6379)),
                ("slotway.followed", AttributeValue::Bool(true)),
            ],
            error: Some("MOVED".into()),
            ..root.clone()
        };
        let body = request("cache", &[Trace { id: 0xbeef, spans: vec![root, child] }]);
        let body: serde_json::Value = serde_json::from_slice(&body.expect("a body")).expect("JSON");
        let want = json!({"resourceSpans": [{
            "resource": {"attributes": [
                {"key": "service.name", "value": {"stringValue": "cache"}},
                {"key": "service.version", "value": {"stringValue": VERSION}},
            ]},
            "scopeSpans": [{
                "scope": {"name": "slotway", "version": VERSION},
                "spans": [
                    {
                        "traceId": "0000000000000000000000000000beef",
                        "spanId": "000000000000000a",
                        "name": "GET",
                        "kind": 2,
                        "startTimeUnixNano": "1700000000000000001",
                        "endTimeUnixNano": "1700000000000000002",
                        "attributes": [],
                    },
                    {
                        "traceId": "0000000000000000000000000000beef",
                        "spanId": "ffffffffffffffff",
                        "parentSpanId": "000000000000000a",
                        "name": "GET",
                        "kind": 3,
                        "startTimeUnixNano": "1700000000000000001",
                        "endTimeUnixNano": "1700000000000000002",
                        "attributes": [
                            {"key": "db.system.name", "value": {"stringValue": "redis"}},
                            {"key": "server.port", "value": {"intValue": "6379"}},
                            {"key": "slotway.followed", "value": {"boolValue": true}},
                        ],
                        "status": {"message": "MOVED", "code": 2},
                    },
                ],
            }],
        }]});
        assert_eq!(body, want);
    }
}
