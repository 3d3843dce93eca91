//! From the writer's outcomes to the results of a call.

use std::sync::Arc;
use std::time::SystemTime;

use headworks_proto::compact;
use headworks_proto::v1::{self, record_result};
use headworks_record::Creation;
use headworks_telemetry::{KeyValue, Parent, RecordTracer, names};
use headworks_writer::{Failure, Landed};

use crate::hand_over::{Fate, Fates};
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

/// What is special about a record of a batch; about most nothing is.
#[derive(Debug)]
pub(crate) enum Special {
    /// It was refused.
    Refused(v1::Error),
    /// It was taken, and the gateway minted its context.
    Minted(Minted),
}

/// A batch that waits for what becomes of its records.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) records: usize,
    /// By place, in their order.
    pub(crate) special: Vec<(usize, Special)>,
    pub(crate) arrived: SystemTime,
}

impl Pending {
    /// One result per record of the batch, in its order; `fates` are those of the taken ones.
    pub(crate) fn answer(
        self,
        fates: &Fates,
        inbound: &Inbound,
        tracer: &RecordTracer,
    ) -> Vec<v1::RecordResult> {
        let mut results = Vec::with_capacity(self.records);
        let landed = fates.landed();
        self.each(fates, inbound, tracer, |fate| {
            results.push(match fate {
                Fate::Stored(at, sub_sequence_number) => stored(&landed[at], sub_sequence_number),
                Fate::Spooled => result(record_result::Outcome::Spooled(v1::Spooled {})),
                Fate::Failed(error) => result(record_result::Outcome::Error(error)),
            });
        });
        results
    }

    /// The same, with what the members of an aggregate have in common written once.
    pub(crate) fn answer_compact(
        self,
        fates: &Fates,
        inbound: &Inbound,
        tracer: &RecordTracer,
    ) -> v1::CompactResults {
        let place = |landed: &Arc<Landed>| v1::Place {
            shard_id: landed.shard.as_str().to_owned(),
            sequence_number: landed.sequence_number.to_string(),
            attempts: landed.attempts,
        };
        let places = fates.landed().iter().map(place).collect();
        let mut results = compact::Builder::new(places, self.records);
        self.each(fates, inbound, tracer, |fate| match fate {
            Fate::Stored(at, sub_sequence_number) => results.stored(at, sub_sequence_number),
            Fate::Spooled => results.other(result(record_result::Outcome::Spooled(v1::Spooled {}))),
            Fate::Failed(error) => results.other(result(record_result::Outcome::Error(error))),
        });
        results.finish()
    }

    /// Tells of each record, in the order of the batch: its span, its count, and `told`.
    fn each(self, fates: &Fates, inbound: &Inbound, tracer: &RecordTracer, mut told: impl FnMut(Fate)) {
        let Self { records, special, arrived } = self;
        let (stream, landed) = (&*inbound.name, fates.landed());
        let answered = SystemTime::now();
        let mut fates = fates.each();
        let mut special = special.into_iter().peekable();
        let mut failed = Vec::new();
        for place in 0..records {
            // Every record is answered for; a missing outcome is a defect, told as such.
            let mut taken = || {
                fates.next().unwrap_or_else(|| {
                    let last = "the writer gave no outcome".to_owned();
                    Fate::from(&Failure::OutcomeUnknown { attempts: 0, last, fault: None })
                })
            };
            let fate = match special.next_if(|(at, _)| *at == place) {
                None => taken(),
                Some((_, Special::Refused(error))) => Fate::Failed(error),
                Some((_, Special::Minted(Minted { creation, kin }))) => {
                    let fate = taken();
                    let attributes = || match &fate {
                        Fate::Stored(at, sub_sequence_number) => {
                            attributes(&landed[*at], *sub_sequence_number)
                        }
                        _ => Vec::new(),
                    };
                    match kin {
                        Kin::Child(parent) => {
                            tracer.create(&creation, parent.span_id(), stream, arrived, answered, attributes);
                        }
                        Kin::Linked(link) => {
                            tracer.create_linked(&creation, link, stream, arrived, answered, attributes);
                        }
                    }
                    fate
                }
            };
            if let Fate::Failed(error) = &fate {
                failed.push(error.code.clone());
            }
            told(fate);
        }
        inbound.failures.count_all(failed.iter().map(String::as_str));
    }
}

fn attributes(landed: &Landed, sub_sequence_number: u32) -> Vec<KeyValue> {
    vec![
        KeyValue::new(names::MESSAGING_DESTINATION_PARTITION_ID, landed.shard.to_string()),
        KeyValue::new(names::SEQUENCE_NUMBER, landed.sequence_number.to_string()),
        KeyValue::new(names::SUB_SEQUENCE_NUMBER, i64::from(sub_sequence_number)),
        KeyValue::new(names::ATTEMPTS, i64::from(landed.attempts)),
    ]
}

fn stored(landed: &Landed, sub_sequence_number: u32) -> v1::RecordResult {
    result(record_result::Outcome::Stored(v1::Stored {
        shard_id: landed.shard.as_str().to_owned(),
        sequence_number: landed.sequence_number.to_string(),
        sub_sequence_number,
        attempts: landed.attempts,
    }))
}

fn result(outcome: record_result::Outcome) -> v1::RecordResult {
    v1::RecordResult { outcome: Some(outcome) }
}
