//! The spans of records and batches, looked at as the span processor gets them.
#![allow(clippy::panic, reason = "helpers of tests fail by panicking")]

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use headworks_record::{Creation, SpanId, TraceId};
use headworks_telemetry::{
    KeyValue, Minter, Outcome, Parent, RecordTracer, Sampler, SpanKind, SpanStore, Step, names, time_of,
};
use opentelemetry::Value;
use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::SpanData;

fn traced() -> (RecordTracer, SpanStore) {
    let store = SpanStore::new(1_000);
    (RecordTracer::new(store.clone()), store)
}

fn sampled() -> Creation {
    Minter::new(Sampler::always()).mint(Parent::None)
}

fn unsampled() -> Creation {
    Minter::new(Sampler::never()).mint(Parent::None)
}

fn at(ms: u64) -> SystemTime {
    time_of(1_790_000_000_000 + ms)
}

fn only(store: &SpanStore) -> SpanData {
    let mut spans = store.take();
    assert_eq!(spans.len(), 1, "{spans:?}");
    spans.remove(0)
}

fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| &pair.value)
}

fn text(span: &SpanData, key: &str) -> String {
    attribute(span, key).unwrap_or_else(|| panic!("no {key} in {span:?}")).as_str().into_owned()
}

fn trace_of(span: &SpanData) -> TraceId {
    TraceId(span.span_context.trace_id().to_bytes())
}

fn id_of(span: &SpanData) -> SpanId {
    SpanId(span.span_context.span_id().to_bytes())
}

#[test]
fn creation_is_a_span_with_the_records_own_ids() {
    let (tracer, store) = traced();
    let creation = sampled();
    let parent = SpanId([4; 8]);
    tracer.create(&creation, Some(parent), "inbound", at(0), at(5), || {
        vec![KeyValue::new(names::MESSAGING_MESSAGE_BODY_SIZE, 12)]
    });
    let span = only(&store);
    assert_eq!(span.name, "create inbound");
    assert_eq!(span.span_kind, SpanKind::Producer);
    assert_eq!((trace_of(&span), id_of(&span)), (creation.trace_id, creation.span_id));
    assert_eq!(span.parent_span_id.to_bytes(), parent.0);
    assert!(span.span_context.is_sampled() && !span.span_context.is_remote());
    assert_eq!((span.start_time, span.end_time), (at(0), at(5)));
    assert_eq!(span.status, Status::Unset);
    assert_eq!(text(&span, "messaging.system"), "aws.kinesis");
    assert_eq!(text(&span, "messaging.destination.name"), "inbound");
    assert_eq!(text(&span, "aws.kinesis.stream_name"), "inbound");
    assert_eq!(text(&span, "messaging.operation.name"), "create");
    assert_eq!(text(&span, "messaging.operation.type"), "create");
    assert_eq!(attribute(&span, "messaging.message.body.size"), Some(&Value::I64(12)));
    assert_eq!(span.instrumentation_scope.name(), "headworks");

    tracer.create(&creation, None, "inbound", at(0), at(5), Vec::new);
    let root = only(&store);
    assert_eq!(root.parent_span_id, opentelemetry::SpanId::INVALID);
    assert!(!root.parent_span_is_remote);
}

#[test]
fn a_derived_identity_links_to_the_callers_context() {
    let (tracer, store) = traced();
    let creation = Minter::new(Sampler::always()).mint_for_id("shop", "inbound", "order-7");
    let caller = Parent::Remote { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), flags: 1 };
    tracer.create_linked(&creation, caller, "inbound", at(0), at(1), Vec::new);
    let span = only(&store);
    assert_eq!((trace_of(&span), id_of(&span)), (creation.trace_id, creation.span_id));
    assert_eq!(span.parent_span_id, opentelemetry::SpanId::INVALID);
    let link = &span.links[0].span_context;
    assert_eq!(link.trace_id().to_bytes(), [1; 16]);
    assert_eq!(link.span_id().to_bytes(), [2; 8]);
    assert!(link.is_sampled() && link.is_remote());

    tracer.create_linked(&creation, Parent::None, "inbound", at(0), at(1), Vec::new);
    assert!(only(&store).links.is_empty());
}

#[test]
fn later_steps_are_children_of_the_creation() {
    let (tracer, store) = traced();
    let creation = sampled();
    let route = tracer.child(&creation, Step::route("inbound", at(1), at(2)), Vec::new, Outcome::Ok);
    let process = tracer.child(&creation, Step::process("orders", at(3), at(4)), Vec::new, Outcome::Ok);
    let spans = store.take();
    assert_eq!(spans.len(), 2);
    for (span, name, id) in [(&spans[0], "route inbound", route), (&spans[1], "process orders", process)] {
        assert_eq!(span.name, name);
        assert_eq!(span.span_kind, SpanKind::Consumer);
        assert_eq!(trace_of(span), creation.trace_id);
        assert_eq!(Some(id_of(span)), id);
        assert_eq!(span.parent_span_id.to_bytes(), creation.span_id.0);
        assert!(span.parent_span_is_remote);
        assert_eq!(text(span, "messaging.operation.type"), "process");
    }
    assert_ne!(route, process);
    assert_ne!(route, Some(creation.span_id));
}

#[test]
fn a_failed_step_says_its_code_and_message() {
    let (tracer, store) = traced();
    let outcome = Outcome::Failed { code: "handler-failed", message: "no such order" };
    tracer.child(&sampled(), Step::process("orders", at(0), at(1)), Vec::new, outcome);
    let span = only(&store);
    assert_eq!(span.status, Status::error("no such order"));
    assert_eq!(text(&span, "error.type"), "handler-failed");
}

#[test]
fn a_clock_that_steps_back_gives_no_negative_span() {
    let (tracer, store) = traced();
    tracer.child(&sampled(), Step::process("orders", at(9), at(1)), Vec::new, Outcome::Ok);
    let span = only(&store);
    assert_eq!((span.start_time, span.end_time), (at(9), at(9)));
}

#[test]
fn a_batch_links_to_its_sampled_records_only() {
    let (tracer, store) = traced();
    let records = [sampled(), unsampled(), sampled()];
    let ids = tracer
        .batch(
            Step::send("inbound", at(0), at(7)),
            records,
            3,
            || vec![KeyValue::new(names::ATTEMPTS, 2)],
            Outcome::Ok,
        )
        .unwrap();
    let span = only(&store);
    assert_eq!(span.name, "send inbound");
    assert_eq!(span.span_kind, SpanKind::Client);
    assert_eq!((trace_of(&span), id_of(&span)), ids);
    assert!(records.iter().all(|record| record.trace_id != ids.0), "a trace of its own");
    assert_eq!(span.parent_span_id, opentelemetry::SpanId::INVALID);
    assert!(span.span_context.is_sampled());
    let links: Vec<_> = span.links.iter().map(|link| link.span_context.span_id().to_bytes()).collect();
    assert_eq!(links, [records[0].span_id.0, records[2].span_id.0]);
    assert_eq!(span.links[0].span_context.trace_id().to_bytes(), records[0].trace_id.0);
    assert_eq!(attribute(&span, "messaging.batch.message_count"), Some(&Value::I64(3)));
    assert_eq!(attribute(&span, "headworks.attempts"), Some(&Value::I64(2)));
    assert_eq!(attribute(&span, "headworks.links.dropped"), None);
}

#[test]
fn links_are_bounded_and_the_rest_is_counted() {
    let store = SpanStore::new(10);
    for (tracer, bound) in
        [(RecordTracer::new(store.clone()), 128), (RecordTracer::with_max_links(store.clone(), 3), 3)]
    {
        let records: Vec<_> = (0..500).map(|i| if i % 2 == 0 { sampled() } else { unsampled() }).collect();
        tracer.batch(Step::receive("orders", at(0), at(1)), &records, 500, Vec::new, Outcome::Ok);
        let span = only(&store);
        assert_eq!(span.links.len(), bound);
        assert_eq!(span.links.dropped_count as usize, 250 - bound);
        assert_eq!(attribute(&span, "headworks.links.dropped"), Some(&Value::I64(250 - bound as i64)));
    }
}

#[test]
fn a_batch_of_unsampled_records_is_seen_only_when_it_fails() {
    let (tracer, store) = traced();
    let records = [unsampled(), unsampled()];
    let step = || Step::send("inbound", at(0), at(1));
    assert_eq!(tracer.batch(step(), records, 2, Vec::new, Outcome::Ok), None);
    assert!(store.take().is_empty());
    let failed = Outcome::Failed { code: "stream-not-found", message: "inbound" };
    assert!(tracer.batch(step(), records, 2, Vec::new, failed).is_some());
    let span = only(&store);
    assert!(span.links.is_empty());
    assert!(span.span_context.is_sampled());
    assert_eq!(text(&span, "error.type"), "stream-not-found");
}

#[test]
fn an_unsampled_record_costs_no_span_and_no_attribute() {
    let (tracer, store) = traced();
    let creation = unsampled();
    let built = Cell::new(0);
    let attributes = || {
        built.set(built.get() + 1);
        Vec::new()
    };
    assert!(!tracer.wants(&creation));
    tracer.create(&creation, None, "inbound", at(0), at(1), attributes);
    tracer.create_linked(&creation, Parent::None, "inbound", at(0), at(1), attributes);
    let step = Step::process("orders", at(0), at(1));
    assert_eq!(tracer.child(&creation, step, attributes, Outcome::Ok), None);
    tracer.batch(Step::send("inbound", at(0), at(1)), [&creation], 1, attributes, Outcome::Ok);
    assert_eq!(built.get(), 0);
    assert!(store.take().is_empty());
}

#[test]
fn an_unsampled_failure_emits_one_sampled_root_that_links_to_the_record() {
    let (tracer, store) = traced();
    let creation = unsampled();
    tracer.failed(&creation, names::PROCESS, "orders", at(3), "handler-failed", "boom");
    let span = only(&store);
    assert_eq!(span.name, "process orders");
    assert_eq!(span.span_kind, SpanKind::Consumer);
    assert!(span.span_context.is_sampled());
    assert_ne!(trace_of(&span), creation.trace_id);
    assert_eq!(span.parent_span_id, opentelemetry::SpanId::INVALID);
    assert_eq!(span.links.len(), 1);
    let link = &span.links[0].span_context;
    assert_eq!(link.trace_id().to_bytes(), creation.trace_id.0);
    assert_eq!(link.span_id().to_bytes(), creation.span_id.0);
    assert!(!link.is_sampled());
    assert_eq!(text(&span, "headworks.creation"), creation.traceparent());
    assert_eq!(text(&span, "error.type"), "handler-failed");
    assert_eq!(span.status, Status::error("boom"));
    assert_eq!((span.start_time, span.end_time), (at(3), at(3)));
}

#[test]
fn a_sampled_failure_is_a_child() {
    let (tracer, store) = traced();
    let creation = sampled();
    tracer.failed(&creation, names::ROUTE, "inbound", at(3), "dead-lettered", "boom");
    let span = only(&store);
    assert_eq!(trace_of(&span), creation.trace_id);
    assert_eq!(span.parent_span_id.to_bytes(), creation.span_id.0);
    assert!(span.links.is_empty());
    assert_eq!(text(&span, "error.type"), "dead-lettered");
}

#[test]
fn a_disabled_tracer_emits_nothing() {
    let tracer = RecordTracer::disabled();
    let creation = sampled();
    assert!(!tracer.is_enabled() && !tracer.wants(&creation));
    tracer.create(&creation, None, "inbound", at(0), at(1), || panic!("built"));
    let step = Step::process("orders", at(0), at(1));
    assert_eq!(tracer.child(&creation, step, || panic!("built"), Outcome::Ok), None);
    tracer.failed(&creation, names::ROUTE, "inbound", at(0), "code", "message");
    let failed = Outcome::Failed { code: "code", message: "message" };
    let step = Step::send("inbound", at(0), at(1));
    assert_eq!(tracer.batch(step, [&creation], 1, || panic!("built"), failed), None);
}

#[test]
fn a_store_keeps_the_newest() {
    let store = SpanStore::new(2);
    let tracer = RecordTracer::new(store.clone());
    let creation = sampled();
    for i in 0..5 {
        let end = at(0) + Duration::from_millis(i);
        tracer.child(&creation, Step::process("orders", at(0), end), Vec::new, Outcome::Ok);
    }
    let ends: Vec<_> = store.spans().iter().map(|span| span.end_time).collect();
    assert_eq!(ends, [at(3), at(4)]);
    assert_eq!(store.take().len(), 2);
    assert!(store.spans().is_empty());
}
