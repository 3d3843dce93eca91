//! Traces of records: who mints a record's context, which spans tell its journey, where they go.
//!
//! A record's trace is made of few spans, each emitted with exact ids by [`RecordTracer`]:
//!
//! - `create {stream}` (PRODUCER): its span id is the record's creation context, so every later hop
//!   can be its child without anything but the record's own headers.
//! - `route {stream}` and `process {stream}` (CONSUMER): children of the creation context.
//! - `send`, `receive` and `invoke` (CLIENT, CONSUMER): one per batch, in a trace of their own,
//!   LINKED to the sampled records of the batch, bounded in number.
//! - a record that fails without being sampled emits one sampled root span that is linked to its
//!   creation context: errors are never orphans and never missing.
//!
//! Sampling is decided once, at the head, by [`Sampler`], and travels in the creation context's
//! flags. For a record that is not sampled every method of [`RecordTracer`] returns after one test
//! of a bit; attributes are closures and are never built.
//!
//! [`Telemetry`] is the one-time set-up of a process: OTLP over gRPC, logs on stderr.
//!
//! ```
//! use headworks_telemetry::{Minter, Outcome, Parent, RecordTracer, Sampler, SpanStore, Step, time_of};
//! use std::time::SystemTime;
//!
//! let minter = Minter::new(Sampler::always());
//! let spans = SpanStore::new(100);
//! let tracer = RecordTracer::new(spans.clone());
//!
//! let creation = minter.mint(Parent::None);
//! let start = time_of(creation.created_ms);
//! tracer.create(&creation, None, "inbound", start, SystemTime::now(), Vec::new);
//! let step = Step::process("orders", start, SystemTime::now());
//! tracer.child(&creation, step, Vec::new, Outcome::Ok);
//!
//! let spans = spans.spans();
//! assert_eq!(spans[0].name, "create inbound");
//! assert_eq!(spans[0].span_context.span_id().to_bytes(), creation.span_id.0);
//! assert_eq!(spans[1].name, "process orders");
//! assert_eq!(spans[1].parent_span_id.to_bytes(), creation.span_id.0);
//! ```

pub mod config;
mod minter;
pub mod names;
mod pipeline;
pub mod sampler;
pub mod setup;
mod step;
mod store;
mod tracer;

pub use config::{Config, LogFormat};
pub use minter::{Minter, Parent, now_ms};
pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;
pub use pipeline::Report;
pub use sampler::Sampler;
pub use setup::Telemetry;
pub use step::{Outcome, Step, time_of};
pub use store::SpanStore;
pub use tracer::{MAX_LINKS, RecordTracer};
