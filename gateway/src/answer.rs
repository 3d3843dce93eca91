//! From the writer's outcomes to the results of a call.

use std::time::SystemTime;

use headworks_proto::v1::{self, record_result};
use headworks_record::Creation;
use headworks_telemetry::{KeyValue, Parent, RecordTracer, names};
use headworks_writer::{Failure, Outcome, Placed};

use crate::shared::Inbound;

/// How a record that the gateway minted for stands to the client's own trace.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kin {
    /// The client's span is the parent, if there is one.
    Child(Parent),
    /// The identity is derived from an id: the client's span, if any, is linked.
    Linked(Parent),
}

/// A creation that is to be told as a span when the record is answered.
#[derive(Debug)]
pub(crate) struct Minted {
    pub(crate) creation: Creation,
    pub(crate) kin: Kin,
}

/// What stands where a record of the batch stood.
#[derive(Debug)]
pub(crate) enum Slot {
    /// The record was refused.
    Refused(v1::Error),
    /// The record is with the writer, and nobody wants a span of it from here.
    Taken,
    /// The same, and the gateway minted its context.
    Minted(Box<Minted>),
}

/// A batch that waits for the writer's outcomes.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) slots: Vec<Slot>,
    pub(crate) arrived: SystemTime,
}

impl Pending {
    /// One result per record of the batch, in its order; `outcomes` are those of the taken ones.
    pub(crate) fn answer(
        self,
        outcomes: Vec<Outcome>,
        inbound: &Inbound,
        tracer: &RecordTracer,
    ) -> Vec<v1::RecordResult> {
        let stream = &*inbound.name;
        let answered = SystemTime::now();
        let mut outcomes = outcomes.into_iter();
        // The writer answers for every record; a missing outcome is a defect, told as such.
        let mut next = || {
            outcomes.next().unwrap_or_else(|| {
                Err(Failure::OutcomeUnknown { attempts: 0, last: "the writer gave no outcome".to_owned() })
            })
        };
        let results = self.slots.into_iter().map(|slot| match slot {
            Slot::Refused(error) => result(record_result::Outcome::Error(error)),
            Slot::Taken => result_of(next()),
            Slot::Minted(minted) => {
                let outcome = next();
                let Minted { creation, kin } = *minted;
                let attributes = || outcome.as_ref().map_or_else(|_| Vec::new(), place);
                let (start, end) = (self.arrived, answered);
                match kin {
                    Kin::Child(parent) => {
                        tracer.create(&creation, parent.span_id(), stream, start, end, attributes);
                    }
                    Kin::Linked(link) => {
                        tracer.create_linked(&creation, link, stream, start, end, attributes)
                    }
                }
                result_of(outcome)
            }
        });
        let results: Vec<v1::RecordResult> = results.collect();
        inbound.failures.count_all(results.iter().filter_map(|result| match &result.outcome {
            Some(record_result::Outcome::Error(error)) => Some(&*error.code),
            _ => None,
        }));
        results
    }
}

fn place(placed: &Placed) -> Vec<KeyValue> {
    vec![
        KeyValue::new(names::MESSAGING_DESTINATION_PARTITION_ID, placed.shard.to_string()),
        KeyValue::new(names::SEQUENCE_NUMBER, placed.sequence_number.to_string()),
        KeyValue::new(names::SUB_SEQUENCE_NUMBER, i64::from(placed.sub_sequence_number)),
        KeyValue::new(names::ATTEMPTS, i64::from(placed.attempts)),
    ]
}

fn result_of(outcome: Outcome) -> v1::RecordResult {
    result(match outcome {
        Ok(placed) => record_result::Outcome::Stored(v1::Stored {
            shard_id: placed.shard.as_str().to_owned(),
            sequence_number: placed.sequence_number.into(),
            sub_sequence_number: placed.sub_sequence_number,
            attempts: placed.attempts,
        }),
        Err(failure) => record_result::Outcome::Error(v1::Error {
            code: failure.code().to_owned(),
            message: failure.to_string(),
            retryable: failure.is_retryable(),
            outcome_unknown: failure.outcome_unknown(),
        }),
    })
}

fn result(outcome: record_result::Outcome) -> v1::RecordResult {
    v1::RecordResult { outcome: Some(outcome) }
}
