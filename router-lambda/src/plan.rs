//! From a batch's bytes to puts: de-aggregation, identity, routing. Nothing is sent here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use headworks_record::aggregate::{self, Aggregate, Decoded, Member, Origin, decode};
use headworks_record::{Creation, PartitionKey, Record};
use headworks_telemetry::{RecordTracer, Sampler};
use headworks_writer::Put;
use tokio::time::Instant;

use crate::dead_letter::{LETTER_VERSION, Letter, Position, Reason};
use crate::event::{Event, KinesisRecord};
use crate::lookup::{self, Answers};
use crate::outbound::{Load, Members};
use crate::progress::track::Known;
use crate::report::Counts;
use crate::table::{Destinations, OnSlow, RouteTable, Subject, route_pairs, route_subject};
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
    pub(crate) loads: Vec<Load>,
    /// Where each record in them came from.
    pub(crate) sent: Vec<Sent>,
}

/// A put's place in a batch, and from when on its failure means the dead letters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) slot: Slot,
    /// In milliseconds since the Unix epoch; `None` means never.
    pub(crate) spills_at: Option<u64>,
}

impl Batch {
    fn push_member(&mut self, encoded: Encoded<'_>, slot: Slot, origin: &Arc<Origin>, deadline: Instant) {
        let place = slot.member.unwrap_or(0);
        if let Some(Load::Members(last)) = self.loads.last_mut()
            && Arc::ptr_eq(&last.aggregate, encoded.aggregate)
            && last.deadline == deadline
        {
            last.places.push(place);
            return;
        }
        let (aggregate, origin) = (Arc::clone(encoded.aggregate), Arc::clone(origin));
        self.loads.push(Load::Members(Members { aggregate, places: vec![place], origin, deadline }));
    }
}

/// A member as it is encoded in the aggregate that it was found in.
#[derive(Clone, Copy)]
struct Encoded<'m> {
    aggregate: &'m Arc<Aggregate>,
    member: &'m Member<'m>,
}

/// What there is of a record while it is routed.
enum Found<'m> {
    /// It was not decoded so far, and perhaps need not be.
    Encoded(Encoded<'m>),
    /// It was decoded, and is as it was found.
    Both(Encoded<'m>, Record),
    /// It is only in this form.
    Record(Record),
}

impl<'m> Found<'m> {
    fn encoded(&self) -> Option<Encoded<'m>> {
        match self {
            Found::Encoded(encoded) | Found::Both(encoded, _) => Some(*encoded),
            Found::Record(_) => None,
        }
    }

    fn record(&self) -> Result<Record, aggregate::Error> {
        match self {
            Found::Encoded(encoded) => encoded.member.to_record(),
            Found::Both(_, record) | Found::Record(record) => Ok(record.clone()),
        }
    }

    fn into_record(self) -> Result<Record, aggregate::Error> {
        match self {
            Found::Encoded(encoded) => encoded.member.to_record(),
            Found::Both(_, record) | Found::Record(record) => Ok(record),
        }
    }
}

/// What became of a put.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The destination, by its place in the table.
    pub(crate) stream: usize,
    pub(crate) slot: Slot,
    pub(crate) outcome: Result<(), Trouble>,
}

/// A record that may spill is tried for at least this long in every batch.
const LEAST_TRY: Duration = Duration::from_secs(1);

/// A sampled record, remembered for its span.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) slot: Slot,
    pub(crate) creation: Creation,
    pub(crate) rule: Option<usize>,
    pub(crate) destinations: String,
}

/// One moment on two clocks, and when puts end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) now: Instant,
    /// In milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    pub(crate) deadline: Instant,
}

impl Clocks {
    /// Until when a put is tried whose failure means the dead letters from `spills_at` on.
    fn patience(&self, spills_at: Option<u64>) -> Instant {
        let Some(at) = spills_at else { return self.deadline };
        let left = Duration::from_millis(at.saturating_sub(self.now_ms));
        self.deadline.min(self.now + left.max(LEAST_TRY))
    }
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
        let by_headers_alone = self.table.by_headers_alone();
        for (place, member) in aggregate.members().enumerate() {
            let slot = Slot { record: index, member: Some(place as u32) };
            self.counts.records += 1;
            let encoded = Encoded { aggregate, member: &member };
            if by_headers_alone && let Some(creation) = member.known_creation() {
                let destinations = route_pairs(member.tags(), creation, self.table);
                self.send(slot, *creation, &destinations, Found::Encoded(encoded), &origin);
                continue;
            }
            match member.to_record() {
                Ok(record) => self.add(slot, record, Some(encoded), &origin),
                Err(error) => self.reject(slot, Trouble::poison(error.code(), error), None),
            }
        }
    }

    /// The keys that the batch's look-ups ask for: per look-up of the table, each once.
    pub(crate) fn wanted(&self, index: usize, aggregate: Option<&Aggregate>, keys: &mut [BTreeSet<String>]) {
        let mut look = |place: usize, mut record: Record| {
            // As it is routed: a sample looks at the identity.
            if record.headers.creation().is_none() {
                let slot = Slot { record: index, member: Some(place as u32) };
                record.headers.set_creation(self.identity(slot));
            }
            if self.table.derive(&mut record.headers, &record.data).is_err() {
                return;
            }
            let subject = Subject::from(&record);
            for destination in route_subject(&subject, self.table).iter() {
                if let Some(lookup) = destination.lookup
                    && !self.known.has(&self.event.records[index], destination.stream_index)
                    && let Some(key) = self.table.lookups()[lookup].key_of(&subject)
                {
                    keys[lookup].insert(key);
                }
            }
        };
        match aggregate {
            None => whole(&self.event.records[index]).into_iter().for_each(|record| look(0, record)),
            Some(aggregate) => {
                let members = aggregate.members().enumerate();
                members
                    .filter_map(|(place, member)| Some((place, member.to_record().ok()?)))
                    .for_each(|(place, record)| look(place, record));
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

    /// Adds the headers of a look-up.
    fn enrich(&mut self, lookup: usize, record: &mut Record) -> Result<(), Trouble> {
        let enrich = &self.table.lookups()[lookup];
        let Some(key) = enrich.key_of(&Subject::from(&*record)) else { return Ok(()) };
        match (self.answers.of(lookup, &key), enrich.on_slow) {
            (Some(Ok(found)), _) => {
                enrich.apply(found, &mut record.headers).map_err(|error| Trouble::poison(error.code(), error))
            }
            (None, OnSlow::Skip) | (Some(Err(_)), OnSlow::Skip) => {
                self.counts.unenriched += 1;
                Ok(())
            }
            (Some(Err(error)), OnSlow::DeadLetter) => Err(Trouble::poison(error.code(), error)),
            (Some(Err(error)), OnSlow::Wait) => Err(Trouble::retryable(error.code(), error)),
            (None, _) => {
                let error = lookup::Error::Slow { table: enrich.table.clone(), after: Duration::ZERO };
                Err(Trouble::retryable(error.code(), error))
            }
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
            let kept = batch.sent.partition_point(|sent| sent.slot.record < index);
            batch.sent.truncate(kept);
            // A load holds records of one Kinesis record only, so it is kept or left out as a whole.
            let mut records = 0;
            let loads = batch.loads.iter().take_while(|load| {
                records += load.len();
                records <= kept
            });
            let loads = loads.count();
            batch.loads.truncate(loads);
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

    /// By destination and Kinesis record, whether all of it that is for the destination has arrived.
    ///
    /// A dead letter has arrived if it is written, and if its record has no other destination: a later letter
    /// of the same record takes its place, and must name every reason.
    pub(crate) fn done(
        &self,
        settled: &[Settled],
        buried: impl Fn(Slot) -> bool,
    ) -> BTreeMap<(usize, usize), bool> {
        // How many destinations each poisoned record has; only those are counted.
        let mut poisoned: BTreeMap<Slot, usize> = BTreeMap::new();
        let bad = settled.iter().filter(|put| matches!(&put.outcome, Err(t) if t.is_poison()));
        poisoned.extend(bad.map(|put| (put.slot, 0)));
        let stored = settled.iter().map(|put| &put.slot);
        for slot in self.skipped.iter().map(|(_, slot)| slot).chain(stored) {
            if let Some(count) = poisoned.get_mut(slot) {
                *count += 1;
            }
        }
        let mut done = BTreeMap::new();
        for (stream, slot) in &self.skipped {
            done.insert((*stream, slot.record), true);
        }
        for Settled { stream, slot, outcome } in settled {
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

    /// The identity of a record that has none.
    fn identity(&self, slot: Slot) -> Creation {
        let found = &self.event.records[slot.record];
        let creation = identity(
            &self.event.stream,
            found.shard.as_str(),
            &found.sequence_number,
            slot.member.unwrap_or(0),
            found.arrival_ms,
        );
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

/// The identity of a record that has none: the same whenever the record is handed over again.
pub(crate) fn identity(
    stream: &str,
    shard: &str,
    sequence_number: &str,
    place: u32,
    arrival_ms: u64,
) -> Creation {
    let place = place.to_be_bytes();
    let parts: [&[u8]; 4] = [stream.as_bytes(), shard.as_bytes(), sequence_number.as_bytes(), &place];
    Creation::derive(&parts, arrival_ms)
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
