//! From a batch's bytes to puts: de-aggregation, identity, routing. Nothing is sent here.

use std::collections::BTreeMap;
use std::sync::Arc;

use headworks_record::aggregate::{Aggregate, Decoded, Member, Origin, decode};
use headworks_record::{Creation, PartitionKey, Record};
use headworks_telemetry::{RecordTracer, Sampler};
use headworks_writer::Put;
use tokio::time::Instant;

use crate::dead_letter::{LETTER_VERSION, Letter, Position, Reason};
use crate::event::{Event, KinesisRecord};
use crate::progress::track::Known;
use crate::report::Counts;
use crate::table::{RouteTable, route};
use crate::trouble::Trouble;

/// A record's place in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot {
    /// The Kinesis record, by its place in the event.
    pub(crate) record: usize,
    /// The member; `None` is the Kinesis record as a whole.
    pub(crate) member: Option<u32>,
}

/// What goes to one outbound stream.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) puts: Vec<Put>,
    /// Where each of them came from.
    pub(crate) slots: Vec<Slot>,
}

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
    deadline: Instant,
    known: &'a Known,
    /// Destinations that have a record already, by the stream's place in the table.
    pub(crate) skipped: Vec<(usize, Slot)>,
    /// By the stream's place in the table.
    pub(crate) batches: Vec<Batch>,
    pub(crate) rejected: BTreeMap<Slot, Vec<Reason>>,
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
        deadline: Instant,
        known: &'a Known,
    ) -> Self {
        let mut batches = Vec::new();
        batches.resize_with(table.streams().len(), Batch::default);
        let (skipped, rejected, marks, blocked, counts) = Default::default();
        Self {
            event,
            table,
            tracer,
            sampler,
            deadline,
            known,
            skipped,
            batches,
            rejected,
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
                self.add(slot, record, &origin);
            }
            Err(trouble) => self.reject(slot, trouble, None),
        }
    }

    /// The members of an aggregate.
    pub(crate) fn add_members(&mut self, index: usize, aggregate: &Aggregate) {
        let origin = self.origin(index);
        for (place, member) in aggregate.members().enumerate() {
            let slot = Slot { record: index, member: Some(place as u32) };
            self.counts.records += 1;
            match member.to_record() {
                Ok(record) => self.add(slot, record, &origin),
                Err(error) => self.reject(slot, Trouble::poison(error.code(), error), None),
            }
        }
    }

    fn add(&mut self, slot: Slot, mut record: Record, origin: &Arc<Origin>) {
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
        if let Err(error) = self.table.derive(&mut record.headers, &record.data) {
            return self.reject(slot, Trouble::poison(error.code(), error), None);
        }
        let destinations = route(&record.headers, self.table);
        if self.tracer.wants(&creation) {
            let destinations_text = destinations.streams().collect::<Vec<_>>().join(" ");
            let rule = destinations.rule();
            self.marks.push(Mark { slot, creation, rule, destinations: destinations_text });
        }
        if let Some(rule) = destinations.dead_letter() {
            let message = format!("{rule} of the route table sends it to the dead letters");
            self.reject(slot, Trouble::poison("dead-letter-by-rule", message), None);
        }
        let mut left = destinations.len();
        self.counts.dropped += u64::from(destinations.is_dropped());
        let mut record = Some(record);
        for destination in destinations.iter() {
            left -= 1;
            // The last one takes the record itself; most records have one destination.
            let taken = if left == 0 { record.take() } else { record.clone() };
            let Some(mut record) = taken else { return };
            if !destination.transform.is_identity()
                && let Err(error) = destination.transform.apply(&mut record.headers, &mut record.data)
            {
                let trouble = Trouble::poison(error.code(), error);
                self.reject(slot, trouble, Some(destination.stream.to_string()));
                continue;
            }
            // Only now: what cannot be transformed is rejected each time, so that its dead letter names every reason.
            if self.known.has(&self.event.records[slot.record], destination.stream_index) {
                self.skipped.push((destination.stream_index, slot));
                continue;
            }
            let batch = &mut self.batches[destination.stream_index];
            let origin = Some(Arc::clone(origin));
            batch.puts.push(Put { record, origin, deadline: Some(self.deadline) });
            batch.slots.push(slot);
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
            let kept = batch.slots.partition_point(|slot| slot.record < index);
            batch.slots.truncate(kept);
            batch.puts.truncate(kept);
        }
        self.marks.retain(|mark| mark.slot.record < index);
        self.skipped.retain(|(_, slot)| slot.record < index);
        self.blocked = Some((index, trouble));
    }

    pub(crate) fn event(&self) -> &'a Event {
        self.event
    }

    /// By destination and Kinesis record, whether all of it that is for the destination has arrived.
    ///
    /// A dead letter has arrived if it is written, and if its record has no other destination: a later letter
    /// of the same record takes its place, and must name every reason.
    pub(crate) fn done(
        &self,
        outcomes: &[(usize, Slot, Result<(), Trouble>)],
        buried: impl Fn(Slot) -> bool,
    ) -> BTreeMap<(usize, usize), bool> {
        // How many destinations each poisoned record has; only those are counted.
        let mut poisoned: BTreeMap<Slot, usize> = BTreeMap::new();
        let bad = outcomes.iter().filter(|(_, _, outcome)| matches!(outcome, Err(t) if t.is_poison()));
        poisoned.extend(bad.map(|(_, slot, _)| (*slot, 0)));
        let stored = outcomes.iter().map(|(_, slot, _)| slot);
        for slot in self.skipped.iter().map(|(_, slot)| slot).chain(stored) {
            if let Some(count) = poisoned.get_mut(slot) {
                *count += 1;
            }
        }
        let mut done = BTreeMap::new();
        for (stream, slot) in &self.skipped {
            done.insert((*stream, slot.record), true);
        }
        for (stream, slot, outcome) in outcomes {
            let arrived = match outcome {
                Ok(()) => true,
                Err(trouble) => {
                    let reasons = self.rejected.get(slot).map_or(0, Vec::len);
                    trouble.is_poison() && buried(*slot) && reasons == 1 && poisoned.get(slot) == Some(&1)
                }
            };
            *done.entry((*stream, slot.record)).or_insert(true) &= arrived;
        }
        done
    }

    /// The dead letter of a record, and the record's creation context.
    ///
    /// The batch is taken apart once more: that costs nothing where nothing is poison.
    pub(crate) fn letter(&self, slot: Slot, reasons: &[Reason]) -> (Letter, Creation) {
        let found = &self.event.records[slot.record];
        let mut letter = Letter {
            version: LETTER_VERSION,
            reasons: reasons.to_vec(),
            origin: Position {
                stream: self.event.stream.to_string(),
                shard: found.shard.to_string(),
                sequence_number: found.sequence_number.to_string(),
                sub_sequence_number: slot.member,
                arrival_ms: found.arrival_ms,
            },
            partition_key: found.partition_key.to_string(),
            explicit_hash_key: None,
            traceparent: String::new(),
            created_ms: 0,
            headers: Vec::new(),
            data: found.data.clone(),
        };
        let mut creation = None;
        if let (Some(place), Ok(Decoded::Aggregate(aggregate))) = (slot.member, decode(&found.data))
            && let Some(member) = aggregate.members().nth(place as usize)
        {
            creation = describe(&member, &mut letter);
        }
        let creation = creation.unwrap_or_else(|| self.identity(slot));
        letter.traceparent = creation.traceparent();
        letter.created_ms = creation.created_ms;
        (letter, creation)
    }

    /// The identity of a record that has none: the same whenever the record is handed over again.
    fn identity(&self, slot: Slot) -> Creation {
        let found = &self.event.records[slot.record];
        let place = slot.member.unwrap_or(0).to_be_bytes();
        let parts: [&[u8]; 4] = [
            self.event.stream.as_bytes(),
            found.shard.as_str().as_bytes(),
            found.sequence_number.as_bytes(),
            &place,
        ];
        let creation = Creation::derive(&parts, found.arrival_ms);
        creation.with_sampled(self.sampler.samples(creation.trace_id))
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

/// Copies a member into a letter; its creation context, if it has a readable one.
fn describe(member: &Member<'_>, letter: &mut Letter) -> Option<Creation> {
    letter.partition_key = member.key().to_owned();
    letter.explicit_hash_key = member.explicit_hash_key().map(str::to_owned);
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    match member.to_record() {
        Ok(record) => {
            letter.headers = record.headers.iter().map(owned).collect();
            letter.data = record.data;
            record.headers.creation().copied()
        }
        Err(_) => {
            letter.headers = member.tags().map(owned).collect();
            letter.data = bytes::Bytes::copy_from_slice(member.data());
            None
        }
    }
}
