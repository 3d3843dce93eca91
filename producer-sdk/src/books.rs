//! Who is told of a record's answer: its ticket, the counters, its trace.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use headworks_telemetry::{KeyValue, RecordTracer, names};

use crate::answer::Answer;
use crate::error::Error;
use crate::outbox::{Entry, Settled};
use crate::report::Counters;
use crate::ticket::Receipt;

/// Tells of answers.
#[derive(Debug, Clone)]
pub(crate) struct Books {
    /// The stream's name, as spans have it.
    pub(crate) stream: Arc<str>,
    pub(crate) tracer: RecordTracer,
    pub(crate) counters: Arc<Counters>,
}

impl Books {
    pub(crate) fn settle_all(&self, settled: &mut Vec<Settled>) {
        settled.drain(..).for_each(|(entry, answer)| self.settle(entry, answer));
    }

    pub(crate) fn settle(&self, entry: Entry, answer: Answer) {
        self.counters.count(&answer);
        self.trace(&entry, &answer);
        let Entry { answer: waiting, permit, .. } = entry;
        drop(permit);
        // Nobody may be left to hear it.
        let _ = waiting.send(answer);
    }

    /// A record that the producer has no more time for.
    pub(crate) fn abandon(&self, entry: Entry) {
        self.counters.abandoned.fetch_add(1, Ordering::Relaxed);
        let error = match entry.sent {
            true => {
                Error::OutcomeUnknown { message: "the producer was closed before the answer came".to_owned() }
            }
            false => Error::Closed,
        };
        self.settle(entry, Err(error));
    }

    fn trace(&self, entry: &Entry, answer: &Answer) {
        let Some(creation) = entry.creation() else { return };
        let (stream, now) = (&*self.stream, SystemTime::now);
        if let Some(birth) = entry.birth {
            let attributes = || answer.as_ref().map_or_else(|_| Vec::new(), place);
            self.tracer.create(creation, birth.parent, stream, birth.start, now(), attributes);
        }
        match answer {
            // The gateway has told of what it answers.
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(error) => {
                self.tracer.failed(creation, names::SEND, stream, now(), error.code(), &error.to_string());
            }
        }
    }
}

fn place(receipt: &Receipt) -> Vec<KeyValue> {
    let Receipt::Stored(stored) = receipt else { return Vec::new() };
    vec![
        KeyValue::new(names::MESSAGING_DESTINATION_PARTITION_ID, stored.shard_id.to_string()),
        KeyValue::new(names::SEQUENCE_NUMBER, stored.sequence_number.to_string()),
        KeyValue::new(names::SUB_SEQUENCE_NUMBER, i64::from(stored.sub_sequence_number)),
        KeyValue::new(names::ATTEMPTS, i64::from(stored.attempts)),
    ]
}
