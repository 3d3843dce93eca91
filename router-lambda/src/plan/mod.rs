//! From a batch's bytes to puts: de-aggregation, identity, routing. Nothing is sent here.

mod batch;
mod clocks;
mod found;
mod letter;
mod lookups;
mod settled;

use std::collections::BTreeMap;
use std::sync::Arc;

use headworks_record::aggregate::{Aggregate, Origin};
use headworks_record::{Creation, PartitionKey, Record};
use headworks_telemetry::{RecordTracer, Sampler};
use headworks_writer::Put;

pub(crate) use self::batch::{Batch, Sent, Slot};
pub(crate) use self::clocks::Clocks;
use self::found::{Encoded, Found};
pub(crate) use self::letter::identity;
pub(crate) use self::settled::Settled;
use crate::dead_letter::Reason;
use crate::event::{Event, KinesisRecord};
use crate::lookup::Answers;
use crate::outbound::Load;
use crate::progress::track::Known;
use crate::report::Counts;
use crate::table::{Destinations, Memo, RouteTable, Subject, route_subject};
use crate::trouble::Trouble;

/// A sampled record, remembered for its span.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) slot: Slot,
    pub(crate) creation: Creation,
    pub(crate) rule: Option<usize>,
    pub(crate) destinations: String,
}

/// What is to be done with a batch.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    event: &'a Event,
    table: &'a RouteTable,
    tracer: &'a RecordTracer,
    sampler: Sampler,
    clock: Clocks,
    known: &'a Known,
    answers: &'a Answers,
    /// Destinations that have a record already, by the stream's place in the table.
    pub(crate) skipped: Vec<(usize, Slot)>,
    /// By the stream's place in the table.
    pub(crate) batches: Vec<Batch>,
    pub(crate) rejected: BTreeMap<Slot, Vec<Reason>>,
    /// Puts that are not tried, because they are for the dead letters.
    pub(crate) refused: Vec<Settled>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) blocked: Option<(usize, Trouble)>,
    pub(crate) counts: Counts,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        event: &'a Event,
        table: &'a RouteTable,
        tracer: &'a RecordTracer,
        sampler: Sampler,
        clock: Clocks,
        known: &'a Known,
        answers: &'a Answers,
    ) -> Self {
        let mut batches = Vec::new();
        batches.resize_with(table.streams().len(), Batch::default);
        let (skipped, rejected, refused, marks, blocked, counts) = Default::default();
        Self {
            event,
            table,
            tracer,
            sampler,
            clock,
            known,
            answers,
            skipped,
            batches,
            rejected,
            refused,
            marks,
            blocked,
            counts,
        }
    }

    /// A Kinesis record that is one record: it has no headers, its key is the Kinesis partition key.
    pub(crate) fn add_whole(&mut self, index: usize) {
        let slot = Slot { record: index, member: Some(0) };
        self.counts.records += 1;
        match whole(&self.event.records[index]) {
            Ok(record) => {
                let origin = self.origin(index);
                self.add(slot, record, None, &origin);
            }
            Err(trouble) => self.reject(slot, trouble, None),
        }
    }

    /// The members of an aggregate. Those that go on as they are stay encoded.
    pub(crate) fn add_members(&mut self, index: usize, aggregate: &Arc<Aggregate>) {
        let origin = self.origin(index);
        let mut memo = self.table.by_headers_alone().then(|| Memo::new(self.table));
        for (place, member) in aggregate.members().enumerate() {
            let slot = Slot { record: index, member: Some(place as u32) };
            self.counts.records += 1;
            let encoded = Encoded { aggregate, member: &member };
            if let (Some(memo), Some(creation)) = (&mut memo, member.known_creation()) {
                let destinations = memo.route(&member, creation);
                self.send(slot, *creation, &destinations, Found::Encoded(encoded), &origin);
                continue;
            }
            match member.to_record() {
                Ok(record) => self.add(slot, record, Some(encoded), &origin),
                Err(error) => self.reject(slot, Trouble::poison(error.code(), error), None),
            }
        }
    }

    /// A record; `encoded` is what it was read from, if that may go on in its place.
    fn add(&mut self, slot: Slot, mut record: Record, encoded: Option<Encoded<'_>>, origin: &Arc<Origin>) {
        if self.blocked.is_some() {
            return;
        }
        // What came without a context was given one: the encoded member lacks it.
        let mut encoded = encoded.filter(|_| record.headers.creation().is_some());
        let creation = match record.headers.creation() {
            Some(creation) => *creation,
            None => {
                self.counts.foreign += 1;
                let creation = self.identity(slot);
                record.headers.set_creation(creation);
                // Nobody else emits the span that all later ones are children of.
                let arrival = headworks_telemetry::time_of(creation.created_ms);
                self.tracer.create(&creation, None, &self.event.stream, arrival, arrival, Vec::new);
                creation
            }
        };
        let given = record.headers.len();
        if let Err(error) = self.table.derive(&mut record.headers, &record.data) {
            return self.reject(slot, Trouble::poison(error.code(), error), None);
        }
        encoded = encoded
            .filter(|encoded| record.headers.len() == given && encoded.member.known_creation().is_some());
        let destinations = route_subject(&Subject::from(&record), self.table);
        let found = match encoded {
            Some(encoded) => Found::Both(encoded, record),
            None => Found::Record(record),
        };
        self.send(slot, creation, &destinations, found, origin);
    }

    fn send(
        &mut self,
        slot: Slot,
        creation: Creation,
        destinations: &Destinations<'_>,
        found: Found<'_>,
        origin: &Arc<Origin>,
    ) {
        if self.blocked.is_some() {
            return;
        }
        if self.tracer.wants(&creation) {
            let destinations_text = destinations.streams().collect::<Vec<_>>().join(" ");
            let rule = destinations.rule();
            self.marks.push(Mark { slot, creation, rule, destinations: destinations_text });
        }
        if let Some(rule) = destinations.dead_letter() {
            let message = format!("{rule} of the route table sends it to the dead letters");
            self.reject(slot, Trouble::poison("dead-letter-by-rule", message), None);
        }
        let mut found = Some(found);
        let mut left = destinations.len();
        self.counts.dropped += u64::from(destinations.is_dropped());
        for destination in destinations.iter() {
            left -= 1;
            let stream = destination.stream_index;
            let arrival_ms = self.event.records[slot.record].arrival_ms;
            let spills_at = destination.spill_after.map(|after| arrival_ms + after.as_millis() as u64);
            let deadline = self.clock.patience(spills_at);
            let known = self.known.has(&self.event.records[slot.record], stream);
            if let Some(encoded) = found.as_ref().and_then(Found::encoded)
                && destination.transform.is_identity()
                && destination.lookup.is_none()
            {
                if known {
                    self.skipped.push((stream, slot));
                    continue;
                }
                self.batches[stream].push_member(encoded, slot, origin, deadline);
                self.batches[stream].sent.push(Sent { slot, spills_at });
                continue;
            }
            // The last one takes the record itself; most records have one destination.
            let taken = match left {
                0 => found.take().map(Found::into_record),
                _ => found.as_ref().map(Found::record),
            };
            let mut record = match taken {
                None => return,
                Some(Ok(record)) => record,
                Some(Err(error)) => return self.reject(slot, Trouble::poison(error.code(), error), None),
            };
            if let Some(lookup) = destination.lookup {
                if known {
                    self.skipped.push((stream, slot));
                    continue;
                }
                match self.enrich(lookup, &mut record) {
                    Ok(()) => {}
                    // A look-up may be quicker next time, so this counts as an outcome: what is rejected must be so
                    // each time, lest a later dead letter of the record leaves a reason out.
                    Err(trouble) if trouble.is_poison() => {
                        self.refused.push(Settled { stream, slot, outcome: Err(trouble) });
                        continue;
                    }
                    Err(trouble) => return self.block(slot.record, trouble),
                }
            }
            if !destination.transform.is_identity()
                && let Err(error) = destination.transform.apply(&mut record.headers, &mut record.data)
            {
                let trouble = Trouble::poison(error.code(), error);
                self.reject(slot, trouble, Some(destination.stream.to_string()));
                continue;
            }
            // Only now: what cannot be transformed is rejected each time, so that its dead letter names every reason.
            if known {
                self.skipped.push((stream, slot));
                continue;
            }
            let batch = &mut self.batches[stream];
            let put = Put { record, origin: Some(Arc::clone(origin)), deadline: Some(deadline) };
            batch.loads.push(Load::Record(put));
            batch.sent.push(Sent { slot, spills_at });
        }
    }

    /// This record, or this destination of it, is for the dead letters.
    pub(crate) fn reject(&mut self, slot: Slot, trouble: Trouble, destination: Option<String>) {
        let reason = Reason { code: trouble.code.into_owned(), message: trouble.message, destination };
        self.rejected.entry(slot).or_default().push(reason);
    }

    /// Nothing from this Kinesis record on is sent: it comes again, and must not be overtaken.
    pub(crate) fn block(&mut self, index: usize, trouble: Trouble) {
        if self.blocked.as_ref().is_some_and(|(earlier, _)| *earlier <= index) {
            return;
        }
        for batch in &mut self.batches {
            batch.cut(index);
        }
        self.marks.retain(|mark| mark.slot.record < index);
        self.skipped.retain(|(_, slot)| slot.record < index);
        self.refused.retain(|put| put.slot.record < index);
        self.blocked = Some((index, trouble));
    }

    pub(crate) fn event(&self) -> &'a Event {
        self.event
    }

    pub(crate) fn table(&self) -> &'a RouteTable {
        self.table
    }

    fn origin(&self, index: usize) -> Arc<Origin> {
        let found = &self.event.records[index];
        Arc::new(Origin {
            shard: found.shard.clone(),
            sequence_number: found.sequence_number.clone(),
            arrival_ms: found.arrival_ms,
        })
    }
}

fn whole(found: &KinesisRecord) -> Result<Record, Trouble> {
    let key = PartitionKey::new(found.partition_key.clone())
        .map_err(|error| Trouble::poison(error.code(), error))?;
    Ok(Record { key, explicit_hash_key: None, headers: Default::default(), data: found.data.clone() })
}
