//! Spans with exact ids.
//!
//! The SDK's span builder always draws a new span id, but the span of a record's creation must have the id
//! that travels in the record. So spans are built here and handed to the span processor directly.

use std::borrow::{Borrow, Cow};
use std::sync::Arc;
use std::time::SystemTime;

use headworks_record::{Creation, SpanId, TraceId};
use opentelemetry::trace::{Link, SpanContext, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks, SpanProcessor};

use crate::step::kind_of;
use crate::{Outcome, Parent, Step, names};

/// How many records a batch span links to by default.
pub const MAX_LINKS: usize = 128;

/// Emits the spans of records and batches. Clones are cheap and share one queue.
///
/// Nothing here blocks or fails: a full queue drops the span and counts it.
#[derive(Debug, Clone, Default)]
pub struct RecordTracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    processor: Box<dyn SpanProcessor>,
    scope: InstrumentationScope,
    max_links: usize,
}

impl RecordTracer {
    /// Emits nothing.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Hands its spans to this processor.
    pub fn new(processor: impl SpanProcessor + 'static) -> Self {
        Self::with_max_links(processor, MAX_LINKS)
    }

    /// Hands its spans to this processor; a batch span links to at most `max_links` records.
    pub fn with_max_links(processor: impl SpanProcessor + 'static, max_links: usize) -> Self {
        let scope =
            InstrumentationScope::builder("headworks").with_version(env!("CARGO_PKG_VERSION")).build();
        Self(Some(Arc::new(Inner { processor: Box::new(processor), scope, max_links })))
    }

    /// Whether any span can be emitted at all.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Whether spans of this record are emitted: worth asking before reading a clock for one.
    #[inline]
    pub fn wants(&self, creation: &Creation) -> bool {
        creation.is_sampled() && self.0.is_some()
    }

    /// The span of the record's creation, `create {stream}`, whose id is the record's own span id.
    ///
    /// `parent` is the span that the record was created in, in the same trace.
    #[inline]
    pub fn create(
        &self,
        creation: &Creation,
        parent: Option<SpanId>,
        stream: &str,
        start: SystemTime,
        end: SystemTime,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) {
        if let Some(inner) = self.sampling(creation) {
            inner.create(creation, parent, &[], Step::create(stream, start, end), attributes());
        }
    }

    /// As [`create`](Self::create), for a record whose identity was derived from the sender's own id:
    /// the caller's context is in another trace and becomes a link.
    #[inline]
    pub fn create_linked(
        &self,
        creation: &Creation,
        link: Parent,
        stream: &str,
        start: SystemTime,
        end: SystemTime,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) {
        if let Some(inner) = self.sampling(creation) {
            let links = match link {
                Parent::None => None,
                Parent::Remote { trace_id, span_id, flags } => {
                    Some(link_to(trace_id, span_id, TraceFlags::new(flags)))
                }
            };
            inner.create(creation, None, links.as_slice(), Step::create(stream, start, end), attributes());
        }
    }

    /// A step of one record, child of its creation context. Returns the span's id, or `None` where
    /// the record is not sampled: then [`failed`](Self::failed) is what reports a final failure.
    #[inline]
    pub fn child(
        &self,
        creation: &Creation,
        step: Step<'_>,
        attributes: impl FnOnce() -> Vec<KeyValue>,
        outcome: Outcome<'_>,
    ) -> Option<SpanId> {
        let inner = self.sampling(creation)?;
        Some(inner.child(creation, step, attributes(), outcome))
    }

    /// A step of a batch, in a trace of its own, linked to the batch's sampled records.
    ///
    /// Emitted if at least one of them is sampled, or if the step failed. Beyond the bound of links
    /// their number is kept as an attribute. Returns the ids of the span.
    pub fn batch(
        &self,
        step: Step<'_>,
        records: impl IntoIterator<Item: Borrow<Creation>>,
        message_count: usize,
        attributes: impl FnOnce() -> Vec<KeyValue>,
        outcome: Outcome<'_>,
    ) -> Option<(TraceId, SpanId)> {
        let inner = self.0.as_deref()?;
        let mut links = Vec::new();
        let mut dropped = 0usize;
        for creation in records {
            let creation: &Creation = creation.borrow();
            if !creation.is_sampled() {
                continue;
            }
            if links.len() < inner.max_links {
                links.push(link_to(creation.trace_id, creation.span_id, TraceFlags::new(creation.flags)));
            } else {
                dropped += 1;
            }
        }
        if links.is_empty() && dropped == 0 && !outcome.is_failed() {
            return None;
        }
        let mut attributes = attributes();
        attributes.push(KeyValue::new(names::MESSAGING_BATCH_MESSAGE_COUNT, message_count as i64));
        if dropped > 0 {
            attributes.push(KeyValue::new(names::LINKS_DROPPED, dropped as i64));
        }
        let ids = (new_trace_id(), new_span_id());
        let root = Place { trace_id: ids.0, span_id: ids.1, flags: TraceFlags::SAMPLED, parent: None };
        inner.emit(root, step, attributes, span_links(links, dropped), outcome);
        Some(ids)
    }

    /// The final failure of one record, at one moment.
    ///
    /// A sampled record gets an error span as a child. For a record that is not sampled one SAMPLED
    /// root span is emitted that links to its creation context: errors are never missing.
    pub fn failed(
        &self,
        creation: &Creation,
        operation: &'static str,
        destination: &str,
        at: SystemTime,
        error_code: &str,
        message: &str,
    ) {
        let Some(inner) = self.0.as_deref() else { return };
        let step = Step::new(operation, destination, kind_of(operation), at, at);
        let outcome = Outcome::Failed { code: error_code, message };
        if creation.is_sampled() {
            inner.child(creation, step, Vec::new(), outcome);
            return;
        }
        // Few tools follow a link into a trace that they do not have: the text can be searched for.
        let attributes = vec![KeyValue::new(names::CREATION, creation.traceparent())];
        let link = link_to(creation.trace_id, creation.span_id, TraceFlags::new(creation.flags));
        let root = Place {
            trace_id: new_trace_id(),
            span_id: new_span_id(),
            flags: TraceFlags::SAMPLED,
            parent: None,
        };
        inner.emit(root, step, attributes, span_links(vec![link], 0), outcome);
    }

    #[inline]
    fn sampling(&self, creation: &Creation) -> Option<&Inner> {
        if creation.is_sampled() { self.0.as_deref() } else { None }
    }
}

/// A span's ids.
struct Place {
    trace_id: TraceId,
    span_id: SpanId,
    flags: TraceFlags,
    parent: Option<SpanId>,
}

impl Inner {
    fn create(
        &self,
        creation: &Creation,
        parent: Option<SpanId>,
        links: &[Link],
        step: Step<'_>,
        attributes: Vec<KeyValue>,
    ) {
        let place = Place {
            trace_id: creation.trace_id,
            span_id: creation.span_id,
            flags: TraceFlags::new(creation.flags),
            parent,
        };
        self.emit(place, step, attributes, span_links(links.to_vec(), 0), Outcome::Ok);
    }

    fn child(
        &self,
        creation: &Creation,
        step: Step<'_>,
        attributes: Vec<KeyValue>,
        outcome: Outcome<'_>,
    ) -> SpanId {
        let span_id = new_span_id();
        let place = Place {
            trace_id: creation.trace_id,
            span_id,
            flags: TraceFlags::new(creation.flags),
            parent: Some(creation.span_id),
        };
        self.emit(place, step, attributes, SpanLinks::default(), outcome);
        span_id
    }

    fn emit(
        &self,
        place: Place,
        step: Step<'_>,
        mut attributes: Vec<KeyValue>,
        links: SpanLinks,
        outcome: Outcome<'_>,
    ) {
        step.push_attributes(&mut attributes);
        let status = outcome.status(&mut attributes);
        let span_context = SpanContext::new(
            opentelemetry::TraceId::from_bytes(place.trace_id.0),
            opentelemetry::SpanId::from_bytes(place.span_id.0),
            place.flags,
            false,
            TraceState::NONE,
        );
        let parent = place
            .parent
            .map_or(opentelemetry::SpanId::INVALID, |parent| opentelemetry::SpanId::from_bytes(parent.0));
        self.processor.on_end(SpanData {
            span_context,
            parent_span_id: parent,
            parent_span_is_remote: place.parent.is_some(),
            name: Cow::Owned(step.name()),
            span_kind: step.kind,
            start_time: step.start,
            // A wall clock may step back between the two readings.
            end_time: step.end.max(step.start),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status,
            instrumentation_scope: self.scope.clone(),
        });
    }
}

fn link_to(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> Link {
    let context = SpanContext::new(
        opentelemetry::TraceId::from_bytes(trace_id.0),
        opentelemetry::SpanId::from_bytes(span_id.0),
        flags,
        true,
        TraceState::NONE,
    );
    Link::new(context, Vec::new(), 0)
}

fn span_links(links: Vec<Link>, dropped: usize) -> SpanLinks {
    let mut kept = SpanLinks::default();
    kept.links = links;
    kept.dropped_count = u32::try_from(dropped).unwrap_or(u32::MAX);
    kept
}

// Zero is the invalid id: one in 2^64 draws is drawn again as one.
fn new_span_id() -> SpanId {
    SpanId(rand::random::<u64>().max(1).to_be_bytes())
}

fn new_trace_id() -> TraceId {
    TraceId(rand::random::<u128>().max(1).to_be_bytes())
}
