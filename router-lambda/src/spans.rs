//! The spans of a batch: one per sampled record, one per record that ends here, one for the call.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use headworks_record::Creation;
use headworks_telemetry::{KeyValue, Outcome, RecordTracer, Step, names};

use crate::dead_letter::Reason;
use crate::event::Event;
use crate::handler::Invocation;
use crate::plan::{Plan, Slot};
use crate::report::Report;
use crate::table::RouteTable;
use crate::trouble::Trouble;

/// Dead letters that were written: whose, and the first reason.
#[derive(Debug, Default)]
pub(crate) struct Graves(pub(crate) BTreeMap<Slot, (Creation, Reason)>);

/// One call of the function.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) event: &'a Event,
    pub(crate) invocation: &'a Invocation,
    pub(crate) started: SystemTime,
    pub(crate) ended: SystemTime,
    /// Whether it was the first of its process.
    pub(crate) cold: bool,
}

pub(crate) fn emit(
    tracer: &RecordTracer,
    table: &RouteTable,
    call: &Call<'_>,
    plan: &Plan<'_>,
    troubles: &HashMap<Slot, Trouble>,
    graves: &Graves,
    report: &Report,
) {
    let Call { event, invocation, started, ended, cold } = *call;
    let stream = &*event.stream;
    let mut marked = BTreeSet::new();
    for mark in &plan.marks {
        marked.insert(mark.slot);
        let found = &event.records[mark.slot.record];
        let outcome = match (graves.0.get(&mark.slot), troubles.get(&mark.slot)) {
            (Some((_, reason)), _) => Outcome::Failed { code: &reason.code, message: &reason.message },
            (None, Some(trouble)) => Outcome::Failed { code: &trouble.code, message: &trouble.message },
            (None, None) => Outcome::Ok,
        };
        let attributes = || {
            let rule = mark.rule.map_or_else(|| "default".to_owned(), |number| table.rule_name(number));
            vec![
                KeyValue::new(names::MESSAGING_DESTINATION_PARTITION_ID, found.shard.to_string()),
                KeyValue::new(names::SEQUENCE_NUMBER, found.sequence_number.to_string()),
                KeyValue::new(names::SUB_SEQUENCE_NUMBER, i64::from(mark.slot.member.unwrap_or(0))),
                KeyValue::new(names::RULE, rule),
                KeyValue::new(names::DESTINATIONS, mark.destinations.clone()),
            ]
        };
        tracer.child(&mark.creation, Step::route(stream, started, ended), attributes, outcome);
    }
    // A record that ends in the dead letters without being sampled: errors are never missing.
    for (slot, (creation, reason)) in &graves.0 {
        if !marked.contains(slot) {
            tracer.failed(creation, names::ROUTE, stream, ended, &reason.code, &reason.message);
        }
    }
    let outcome = match &report.failed {
        Some(failed) => Outcome::Failed { code: &failed.trouble.code, message: &failed.trouble.message },
        None => Outcome::Ok,
    };
    let attributes = || {
        let mut attributes = vec![
            KeyValue::new(names::AGGREGATES, event.records.len() as i64),
            KeyValue::new(names::FAAS_COLDSTART, cold),
        ];
        if let Some(id) = &invocation.request_id {
            attributes.push(KeyValue::new(names::FAAS_INVOCATION_ID, id.clone()));
        }
        attributes
    };
    let creations = plan.marks.iter().map(|mark| &mark.creation);
    tracer.batch(
        Step::invoke(stream, started, ended),
        creations,
        report.counts.records as usize,
        attributes,
        outcome,
    );
}
