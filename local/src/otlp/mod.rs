//! An in-memory OTLP collector for development and tests: gRPC on loopback, bounded, queryable.
//!
//! [`Collector::start`] listens on a loopback port and keeps the spans that any OpenTelemetry exporter sends
//! it. Tests ask it for one record's trace; the demo draws its waterfall from it. Metrics exports are accepted
//! and counted, so that an exporter configured for both signals does not log errors, but their points are not
//! kept.

mod collector;
mod service;
mod span;
mod store;

pub use collector::{Collector, Config, ConfigError, StartError};
pub use span::{Link, Span, SpanId, SpanKind, Status, TraceId};
pub use store::{Counts, Timeout};
