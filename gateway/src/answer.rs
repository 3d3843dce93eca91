//! From the writer's outcomes to the results of a call.

use std::time::SystemTime;

use headworks_proto::compact;
use headworks_proto::v1::{self, record_result};
use headworks_record::Creation;
use headworks_telemetry::{KeyValue, Parent, RecordTracer, names};
use headworks_writer::{Failure, Placed};

use crate::hand_over::Fate;
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

/// A batch that waits for what becomes of its records.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) slots: Vec<Slot>,
    pub(crate) arrived: SystemTime,
}

impl Pending {
    /// One result per record of the batch, in its order; `fates` are those of the taken ones.
    pub(crate) fn answer(
        self,
        fates: Vec<Fate>,
        inbound: &Inbound,
        tracer: &RecordTracer,
    ) -> Vec<v1::RecordResult> {
        let mut results = Vec::with_capacity(self.slots.len());
        self.each(fates, inbound, tracer, |fate| results.push(result_of(fate)));
        results
    }

    /// The same, with what the members of an aggregate have in common written once.
    pub(crate) fn answer_compact(
        self,
        fates: Vec<Fate>,
        inbound: &Inbound,
        tracer: &RecordTracer,
    ) -> v1::CompactResults {
        let mut results = compact::Builder::with_capacity(self.slots.len());
        self.each(fates, inbound, tracer, |fate| match fate {
            Fate::Stored(placed) => {
                let Placed { sub_sequence_number, attempts, .. } = placed;
                results.stored(placed.shard.as_str(), &placed.sequence_number, sub_sequence_number, attempts);
            }
            other => results.other(result_of(other)),
        });
        results.finish()
    }

    /// Tells of each record, in the order of the batch: its span, its count, and `told`.
    fn each(self, fates: Vec<Fate>, inbound: &Inbound, tracer: &RecordTracer, mut told: impl FnMut(Fate)) {
        let stream = &*inbound.name;
        let answered = SystemTime::now();
        let mut fates = fates.into_iter();
        // Every record is answered for; a missing outcome is a defect, told as such.
        let mut next = || {
            fates.next().unwrap_or_else(|| {
                Err(Failure::OutcomeUnknown { attempts: 0, last: "the writer gave no outcome".to_owned() })
                    .into()
            })
        };
        let fates = self.slots.into_iter().map(|slot| match slot {
            Slot::Refused(error) => Fate::Failed(error),
            Slot::Taken => next(),
            Slot::Minted(minted) => {
                let fate = next();
                let Minted { creation, kin } = *minted;
                let attributes = || match &fate {
                    Fate::Stored(placed) => place(placed),
                    _ => Vec::new(),
                };
                let (start, end) = (self.arrived, answered);
                match kin {
                    Kin::Child(parent) => {
                        tracer.create(&creation, parent.span_id(), stream, start, end, attributes);
                    }
                    Kin::Linked(link) => {
                        tracer.create_linked(&creation, link, stream, start, end, attributes)
                    }
                }
                fate
            }
        });
        let mut failed = Vec::new();
        for fate in fates {
            if let Fate::Failed(error) = &fate {
                failed.push(error.code.clone());
            }
            told(fate);
        }
        inbound.failures.count_all(failed.iter().map(String::as_str));
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

fn result_of(fate: Fate) -> v1::RecordResult {
    let outcome = match fate {
        Fate::Stored(placed) => record_result::Outcome::Stored(v1::Stored {
            shard_id: placed.shard.as_str().to_owned(),
            sequence_number: placed.sequence_number.into(),
            sub_sequence_number: placed.sub_sequence_number,
            attempts: placed.attempts,
        }),
        Fate::Spooled => record_result::Outcome::Spooled(v1::Spooled {}),
        Fate::Failed(error) => record_result::Outcome::Error(error),
    };
    v1::RecordResult { outcome: Some(outcome) }
}
