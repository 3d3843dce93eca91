//! [`Span`]: one finished span, in plain types, with the resource it came from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as wire;

/// A W3C trace id, 16 bytes.
pub type TraceId = [u8; 16];

/// A W3C span id, 8 bytes.
pub type SpanId = [u8; 8];

/// One finished span.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span it is a child of; `None` for a root.
    pub parent_span_id: Option<SpanId>,
    /// Its name, such as `process orders`.
    pub name: String,
    /// Its role.
    pub kind: SpanKind,
    /// Start, in nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// End, in nanoseconds since the Unix epoch.
    pub end_unix_nanos: u64,
    /// Its attributes, every value as text (arrays and maps in JSON's manner).
    pub attributes: BTreeMap<String, String>,
    /// The spans it links to.
    pub links: Vec<Link>,
    /// How it ended.
    pub status: Status,
    /// `service.name` of the resource; empty when the exporter sent none.
    pub service_name: Arc<str>,
    /// All attributes of the resource, shared by the spans of one export.
    pub resource: Arc<BTreeMap<String, String>>,
    /// The instrumentation scope's name.
    pub scope: Arc<str>,
}

impl Span {
    /// The trace id as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        hex(&self.trace_id)
    }

    /// The span id as 16 hexadecimal digits.
    #[must_use]
    pub fn span_id_hex(&self) -> String {
        hex(&self.span_id)
    }

    /// How long it lasted, in nanoseconds; zero when the clock went backwards.
    #[must_use]
    pub fn duration_nanos(&self) -> u64 {
        self.end_unix_nanos.saturating_sub(self.start_unix_nanos)
    }

    /// One attribute's value.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }
}

/// A link from a span to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link {
    /// The other span's trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
}

/// A span's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpanKind {
    /// Not stated by the exporter.
    Unspecified,
    /// An operation inside one service.
    Internal,
    /// The receiving side of a request.
    Server,
    /// The requesting side.
    Client,
    /// A message's creation or sending.
    Producer,
    /// A message's receipt or processing.
    Consumer,
}

/// How a span ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Nothing was said.
    Unset,
    /// Success, said explicitly.
    Ok,
    /// Failure, with the exporter's description (possibly empty).
    Error(String),
}

/// The resource of one export, converted once for all of its spans.
pub(super) struct Origin {
    service_name: Arc<str>,
    resource: Arc<BTreeMap<String, String>>,
}

impl Origin {
    pub(super) fn new(resource: Option<Resource>) -> Self {
        let resource = attributes(resource.map(|resource| resource.attributes).unwrap_or_default());
        let service_name = resource.get("service.name").map_or("", String::as_str).into();
        Self { service_name, resource: Arc::new(resource) }
    }

    /// `None` when the trace or span id is missing or all zeroes: OTLP calls such a span invalid.
    pub(super) fn span(&self, scope: &Arc<str>, span: wire::Span) -> Option<Span> {
        let kind = match span.kind() {
            wire::span::SpanKind::Unspecified => SpanKind::Unspecified,
            wire::span::SpanKind::Internal => SpanKind::Internal,
            wire::span::SpanKind::Server => SpanKind::Server,
            wire::span::SpanKind::Client => SpanKind::Client,
            wire::span::SpanKind::Producer => SpanKind::Producer,
            wire::span::SpanKind::Consumer => SpanKind::Consumer,
        };
        let status = match span.status {
            None => Status::Unset,
            Some(status) => match status.code() {
                wire::status::StatusCode::Unset => Status::Unset,
                wire::status::StatusCode::Ok => Status::Ok,
                wire::status::StatusCode::Error => Status::Error(status.message),
            },
        };
        Some(Span {
            trace_id: id(&span.trace_id)?,
            span_id: id(&span.span_id)?,
            parent_span_id: id(&span.parent_span_id),
            name: span.name,
            kind,
            start_unix_nanos: span.start_time_unix_nano,
            end_unix_nanos: span.end_time_unix_nano,
            attributes: attributes(span.attributes),
            links: span
                .links
                .iter()
                .filter_map(|link| Some(Link { trace_id: id(&link.trace_id)?, span_id: id(&link.span_id)? }))
                .collect(),
            status,
            service_name: Arc::clone(&self.service_name),
            resource: Arc::clone(&self.resource),
            scope: Arc::clone(scope),
        })
    }
}

fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    <[u8; N]>::try_from(bytes).ok().filter(|id| id.iter().any(|byte| *byte != 0))
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, pair.value.map(text).unwrap_or_default())).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(value)) => value,
        Some(Value::BytesValue(value)) => hex(&value),
        value => {
            let mut out = String::new();
            write_value(&mut out, value.as_ref());
            out
        }
    }
}

fn write_value(out: &mut String, value: Option<&Value>) {
    // Writing into a String cannot fail.
    let _ = match value {
        Some(Value::StringValue(value)) => write!(out, "{value:?}"),
        Some(Value::BoolValue(value)) => write!(out, "{value}"),
        Some(Value::IntValue(value)) => write!(out, "{value}"),
        Some(Value::DoubleValue(value)) => write!(out, "{value}"),
        Some(Value::BytesValue(value)) => write!(out, "\"{}\"", hex(value)),
        Some(Value::ArrayValue(array)) => {
            out.push('[');
            for (index, value) in array.values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, value.value.as_ref());
            }
            out.push(']');
            Ok(())
        }
        Some(Value::KvlistValue(list)) => {
            out.push('{');
            for (index, pair) in list.values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{:?}:", pair.key);
                write_value(out, pair.value.as_ref().and_then(|value| value.value.as_ref()));
            }
            out.push('}');
            Ok(())
        }
        _ => Ok(()),
    };
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
