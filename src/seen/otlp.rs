//! Spans as OTLP's `ExportTraceServiceRequest`, in protobuf.
//!
//! Written by hand: it is five messages of a stable format, for which the crates would bring some
//! thirty others.
//!
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto>

use super::span::{Span, Spans, Value};

/// `STATUS_CODE_ERROR`
const STATUS_ERROR: u64 = 2;

/// The body of one request: all these commands' spans of the service called `service`.
pub fn request(service: &str, all: &[Spans]) -> Vec<u8> {
    let mut resource = Vec::new();
    text_attribute(&mut resource, 1, "service.name", service);
    text_attribute(&mut resource, 1, "service.version", env!("CARGO_PKG_VERSION"));
    let mut scope = Vec::new();
    bytes(&mut scope, 1, b"slotway");
    bytes(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
    let mut scope_spans = Vec::new();
    bytes(&mut scope_spans, 1, &scope);
    let mut message = Vec::new();
    for Spans { trace, spans } in all {
        for span in spans {
            message.clear();
            write_span(&mut message, *trace, span);
            bytes(&mut scope_spans, 2, &message);
        }
    }
    let mut resource_spans = Vec::new();
    bytes(&mut resource_spans, 1, &resource);
    bytes(&mut resource_spans, 2, &scope_spans);
    let mut request = Vec::new();
    bytes(&mut request, 1, &resource_spans);
    request
}

fn write_span(out: &mut Vec<u8>, trace: u128, span: &Span) {
    bytes(out, 1, &trace.to_be_bytes());
    bytes(out, 2, &span.id.to_be_bytes());
    if let Some(parent) = span.parent {
        bytes(out, 4, &parent.to_be_bytes());
    }
    bytes(out, 5, span.name.as_bytes());
    number(out, 6, span.kind as u64);
    fixed64(out, 7, span.start);
    fixed64(out, 8, span.end);
    for (name, value) in &span.attributes {
        attribute(out, 9, name, value);
    }
    if let Some(error) = &span.error {
        let mut status = Vec::new();
        bytes(&mut status, 2, error.as_bytes());
        number(&mut status, 3, STATUS_ERROR);
        bytes(out, 15, &status);
    }
}

fn text_attribute(out: &mut Vec<u8>, field: u64, name: &str, value: &str) {
    attribute(out, field, name, &Value::Text(value.to_owned()));
}

/// A `KeyValue` with its `AnyValue`.
fn attribute(out: &mut Vec<u8>, field: u64, name: &str, value: &Value) {
    let mut any = Vec::new();
    match value {
        Value::Text(text) => bytes(&mut any, 1, text.as_bytes()),
        Value::Switch(on) => number(&mut any, 2, u64::from(*on)),
        Value::Number(n) => number(&mut any, 3, *n as u64),
    }
    let mut pair = Vec::new();
    bytes(&mut pair, 1, name.as_bytes());
    bytes(&mut pair, 2, &any);
    bytes(out, field, &pair);
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A field of a message, string or bytes.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A field of an integer, enum or bool.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn fixed64(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a decoder makes of it is shown by tests/python/test_seen.py, with OpenTelemetry's own.
    #[test]
    fn fields_are_written_as_protobuf_wants_them() {
        let mut out = Vec::new();
        number(&mut out, 1, 150);
        bytes(&mut out, 2, b"testing");
        fixed64(&mut out, 16, 1);
        let want = b"\x08\x96\x01\x12\x07testing\x81\x01\x01\0\0\0\0\0\0\0";
        assert_eq!(out, want);
    }
}
