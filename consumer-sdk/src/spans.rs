//! Spans of a consumer: one per event received, one per record processed.

use std::time::SystemTime;

use headworks_telemetry::{KeyValue, Outcome, RecordTracer, Step, names};

use crate::delivered::{Batch, Delivered};
use crate::streams::Event;

/// The stable code of a failed handler, as in `docs/errors/`.
const HANDLER_FAILED: &str = "handler-failed";

/// An event was received and taken apart.
pub(crate) fn received(tracer: &RecordTracer, event: &Event, records: &[Delivered], started: SystemTime) {
    let Some(first) = records.first().filter(|_| tracer.is_enabled()) else { return };
    let step = Step::receive(&first.stream, started, SystemTime::now());
    let creations = records.iter().filter_map(|delivered| delivered.record.headers.creation());
    let attributes = || {
        vec![
            KeyValue::new(names::MESSAGING_DESTINATION_PARTITION_ID, first.shard.to_string()),
            KeyValue::new(names::AGGREGATES, event.records.len() as i64),
            KeyValue::new(names::BYTES, event.bytes() as i64),
        ]
    };
    tracer.batch(step, creations, records.len(), attributes, Outcome::Ok);
}

/// A handler is done with a batch: every sampled record gets the batch's times, because only the handler
/// knows when it worked on which.
pub(crate) fn processed(tracer: &RecordTracer, batch: &Batch, started: SystemTime) {
    if tracer.is_enabled() {
        let ended = SystemTime::now();
        batch.iter().for_each(|delivered| process(tracer, delivered, started, ended, Outcome::Ok));
    }
}

/// The caller acknowledged a record.
pub(crate) fn processed_one(tracer: &RecordTracer, delivered: &Delivered, started: SystemTime) {
    process(tracer, delivered, started, SystemTime::now(), Outcome::Ok);
}

/// A handler failed on a batch; if for the last time, also records that are not sampled leave a trace.
pub(crate) fn failed(tracer: &RecordTracer, batch: &Batch, started: SystemTime, message: &str, last: bool) {
    if !tracer.is_enabled() {
        return;
    }
    let ended = SystemTime::now();
    for delivered in batch {
        let Some(creation) = delivered.record.headers.creation() else { continue };
        if tracer.wants(creation) {
            process(tracer, delivered, started, ended, Outcome::Failed { code: HANDLER_FAILED, message });
        } else if last {
            let stream = &delivered.stream;
            tracer.failed(creation, names::PROCESS, stream, ended, HANDLER_FAILED, message);
        }
    }
}

fn process(
    tracer: &RecordTracer,
    delivered: &Delivered,
    started: SystemTime,
    ended: SystemTime,
    outcome: Outcome<'_>,
) {
    let Some(creation) = delivered.record.headers.creation() else { return };
    let step = Step::process(&delivered.stream, started, ended);
    let attributes = || {
        vec![
            KeyValue::new(names::MESSAGING_DESTINATION_PARTITION_ID, delivered.shard.to_string()),
            KeyValue::new(names::SEQUENCE_NUMBER, delivered.sequence_number.to_string()),
            KeyValue::new(names::SUB_SEQUENCE_NUMBER, delivered.sub_sequence_number as i64),
            KeyValue::new(names::MESSAGING_MESSAGE_BODY_SIZE, delivered.record.data.len() as i64),
        ]
    };
    tracer.child(creation, step, attributes, outcome);
}
