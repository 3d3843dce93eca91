//! The records that are not answered, in the order in which they were sent.
//!
//! Pure: no I/O and no clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use headworks_proto::v1::{self, put_stream_response::Credit};
use headworks_proto::{MAX_MESSAGE_BYTES, convert};
use headworks_record::{Creation, Record, SpanId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::answer::{self, Answer};
use crate::error::Error;

/// What the answer has to wait for beyond the record's time: the gateway knows better than this
/// producer what became of the record, and its clock started later.
pub(crate) const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// A bound on what a record takes in a message beside its key, headers and data: field tags and
/// lengths, the creation context, an explicit hash key.
const WIRE_OVERHEAD: usize = 160;
const WIRE_OVERHEAD_PER_HEADER: usize = 12;
/// The same for the message itself.
const MESSAGE_OVERHEAD: usize = 32;

/// What is told of a record when it is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Birth {
    /// Its parent, if it was created in a span.
    pub(crate) parent: Option<SpanId>,
    /// When it was sent.
    pub(crate) start: SystemTime,
}

/// A record that is not answered.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    /// Only of a record that this producer minted for.
    pub(crate) birth: Option<Birth>,
    pub(crate) deadline: Instant,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// Room in the buffer, given back with the answer.
    pub(crate) permit: OwnedSemaphorePermit,
    /// Whether it has left the producer.
    pub(crate) sent: bool,
    /// Its place among all records of the producer.
    pub(crate) place: u64,
}

impl Entry {
    pub(crate) fn creation(&self) -> Option<&Creation> {
        self.record.headers.creation()
    }
}

/// What a record takes at most in a message.
pub(crate) fn wire_bytes(record: &Record) -> usize {
    record.user_bytes() + WIRE_OVERHEAD + WIRE_OVERHEAD_PER_HEADER * record.headers.len()
}

/// The most that a record may take in a message.
pub(crate) const MAX_WIRE_BYTES: usize = MAX_MESSAGE_BYTES - MESSAGE_OVERHEAD;

/// An answered record.
pub(crate) type Settled = (Entry, Answer);

#[derive(Debug)]
struct Sent {
    /// `None` where the record's time passed before the answer came.
    entries: Vec<Option<Entry>>,
    records: u64,
    bytes: u64,
}

/// The records that are not answered.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// In order of their places.
    unsent: VecDeque<Entry>,
    /// By batch number, which grows.
    sent: BTreeMap<u64, Sent>,
    next_batch: u64,
    /// What the gateway holds against the credit.
    records: u64,
    bytes: u64,
}

impl Outbox {
    /// Takes a record, whose place is higher than those of all that were pushed before.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.unsent.push_back(entry);
    }

    /// Takes records of another outbox, in the order of their places, each where its place puts it
    /// among what is not sent.
    pub(crate) fn absorb(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let mut unsent: Vec<Entry> = std::mem::take(&mut self.unsent).into();
        unsent.extend(entries);
        // Stable and quick: two runs that are sorted already.
        unsent.sort_by_key(|entry| entry.place);
        self.unsent = unsent.into();
    }

    /// Whether every record before this place is answered.
    pub(crate) fn is_settled(&self, end: u64) -> bool {
        // What came from another outbox may have gone out after records of higher places.
        let mut in_flight = self.sent.values().filter_map(|sent| sent.entries.iter().flatten().next());
        let is_after = |entry: &Entry| entry.place >= end;
        self.unsent.front().is_none_or(is_after) && in_flight.all(is_after)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unsent.is_empty() && self.first_in_flight().is_none()
    }

    fn first_in_flight(&self) -> Option<&Entry> {
        self.sent.values().flat_map(|sent| &sent.entries).flatten().next()
    }

    /// Whether a record waits that the credit has room for, or that it can never have room for.
    pub(crate) fn can_send(&self, credit: &Credit) -> bool {
        self.unsent.front().is_some_and(|entry| {
            let bytes = entry.record.user_bytes() as u64;
            bytes > credit.bytes || self.fits(credit, 0, 0, bytes)
        })
    }

    fn fits(&self, credit: &Credit, records: u64, bytes: u64, more: u64) -> bool {
        self.records + records < credit.records.into() && self.bytes + bytes + more <= credit.bytes
    }

    /// The next batch, as large as the limits and the credit allow; `None` if nothing can be sent.
    pub(crate) fn next_batch(
        &mut self,
        credit: &Credit,
        max_records: usize,
        max_bytes: usize,
        settled: &mut Vec<Settled>,
    ) -> Option<(u64, Vec<v1::Record>)> {
        // What the gateway will never take must not stand in the way of the others.
        while let Some(entry) = self.unsent.pop_front_if(|e| e.record.user_bytes() as u64 > credit.bytes) {
            let bytes = entry.record.user_bytes();
            let setting = "the gateway's credit, credit_bytes";
            settled.push((entry, Err(Error::TooLarge { bytes, limit: credit.bytes as usize, setting })));
        }
        let (mut wire, mut entries) = (Vec::new(), Vec::new());
        let (mut bytes, mut wire_total) = (0, 0);
        while entries.len() < max_records {
            let Some(front) = self.unsent.front() else { break };
            let (user, on_wire) = (front.record.user_bytes() as u64, wire_bytes(&front.record));
            let too_long = wire_total + on_wire > max_bytes && !entries.is_empty();
            if too_long || !self.fits(credit, entries.len() as u64, bytes, user) {
                break;
            }
            let Some(mut entry) = self.unsent.pop_front() else { break };
            bytes += user;
            wire_total += on_wire;
            wire.push(convert::to_wire(&entry.record));
            entry.sent = true;
            entries.push(Some(entry));
        }
        if entries.is_empty() {
            return None;
        }
        let records = entries.len() as u64;
        self.records += records;
        self.bytes += bytes;
        let number = self.next_batch;
        self.next_batch += 1;
        self.sent.insert(number, Sent { entries, records, bytes });
        Some((number, wire))
    }

    /// Takes the answers to a batch; `false` if there is no such batch.
    pub(crate) fn answered(&mut self, number: u64, answers: Vec<Answer>, settled: &mut Vec<Settled>) -> bool {
        let Some(sent) = self.sent.remove(&number) else { return false };
        self.records -= sent.records;
        self.bytes -= sent.bytes;
        let mut answers = answers.into_iter();
        for entry in sent.entries {
            let answer = answers.next();
            if let Some(entry) = entry {
                settled.push((entry, answer.unwrap_or_else(answer::missing)));
            }
        }
        true
    }

    /// Puts what was sent and not answered before everything that was not sent, in order.
    pub(crate) fn disconnected(&mut self) {
        for (_, sent) in std::mem::take(&mut self.sent).into_iter().rev() {
            for entry in sent.entries.into_iter().rev().flatten() {
                self.unsent.push_front(entry);
            }
        }
        (self.records, self.bytes) = (0, 0);
    }

    /// Settles what has passed its time; `timeout` says how, by whether the record was sent.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        timeout: impl Fn(bool) -> Error,
        settled: &mut Vec<Settled>,
    ) {
        for sent in self.sent.values_mut() {
            for slot in &mut sent.entries {
                // Times grow with places, and batches mostly with them: the first that is left ends the
                // search. What came from another outbox may be found later than its time.
                match slot {
                    Some(entry) if entry.deadline + ANSWER_GRACE > now => {
                        return self.expire_unsent(now, timeout, settled);
                    }
                    Some(_) => settled.extend(slot.take().map(|entry| (entry, Err(timeout(true))))),
                    None => {}
                }
            }
        }
        self.expire_unsent(now, timeout, settled);
    }

    fn expire_unsent(&mut self, now: Instant, timeout: impl Fn(bool) -> Error, settled: &mut Vec<Settled>) {
        while let Some(entry) = self.unsent.pop_front_if(|entry| entry.deadline <= now) {
            let error = timeout(entry.sent);
            settled.push((entry, Err(error)));
        }
    }

    /// When something will have passed its time.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let in_flight = self.first_in_flight().map(|entry| entry.deadline + ANSWER_GRACE);
        let unsent = self.unsent.front().map(|entry| entry.deadline);
        in_flight.into_iter().chain(unsent).min()
    }

    /// Gives every record time until `deadline` at least.
    pub(crate) fn extend(&mut self, deadline: Instant) {
        let in_flight = self.sent.values_mut().flat_map(|sent| sent.entries.iter_mut().flatten());
        for entry in self.unsent.iter_mut().chain(in_flight) {
            entry.deadline = entry.deadline.max(deadline);
        }
    }

    /// Everything that is left.
    pub(crate) fn take_all(&mut self) -> Vec<Entry> {
        self.disconnected();
        std::mem::take(&mut self.unsent).into()
    }
}

#[cfg(test)]
mod tests;
