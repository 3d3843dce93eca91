//! From Kinesis records to records: takes aggregates apart, applies the hash-range rule, drops what was
//! done before.

use std::time::SystemTime;

use bytestring::ByteString;
use headworks_record::aggregate::{self, Aggregate, Decoded};
use headworks_record::ownership::{self, Foreign, Verdict};
use headworks_record::{HashRange, Headers, PartitionKey, Record, ShardId, key};

use crate::config::Undecodable;
use crate::delivered::Delivered;
use crate::position::{Position, SequenceNumber};
use crate::streams::{Event, RawRecord};

/// Why a Kinesis record cannot be delivered. The consumer stops in front of it: nothing is skipped.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The record is whole and cannot be taken apart.
    #[error(
        "the Kinesis record {sequence_number} of {shard} cannot be taken apart: {source}; deploy a newer consumer, or choose `Undecodable::DeliverRaw` to get it as it is"
    )]
    Undecodable {
        /// The shard.
        shard: ShardId,
        /// The Kinesis record.
        sequence_number: SequenceNumber,
        /// What is wrong with it.
        source: aggregate::Error,
    },
    /// The record's partition key is not one.
    #[error("the Kinesis record {sequence_number} of {shard} has no usable partition key: {source}")]
    Key {
        /// The shard.
        shard: ShardId,
        /// The Kinesis record.
        sequence_number: SequenceNumber,
        /// What is wrong with it.
        source: key::Error,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Undecodable { source, .. } => source.code(),
            Error::Key { source, .. } => source.code(),
        }
    }

    /// Whether the same record may be readable later: only by a newer consumer.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// What a reader left out or delivered otherwise than it should have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Records that were done before.
    pub(crate) duplicates: u64,
    /// Aggregates skipped whole, because their writer puts them again.
    pub(crate) misplaced: u64,
    /// Kinesis records delivered raw because an aggregate was damaged or could not be taken apart.
    pub(crate) damaged: u64,
}

/// A Kinesis record that goes to the dead letters whole.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) whole: Delivered,
    pub(crate) error: Error,
}

/// What one event held.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) records: Vec<Delivered>,
    /// Everything up to here is in `records`, was done before, or is rightly left out.
    pub(crate) end: Option<Position>,
    pub(crate) counts: Counts,
    /// Kinesis records that are to be written to the dead letters before the position moves.
    pub(crate) rejected: Vec<Rejected>,
    /// The record in front of which the reader stopped.
    pub(crate) stopped: Option<Error>,
}

/// Kinesis records that are decoded together, which is quicker than one by one: more hold memory for nothing.
const TOGETHER: usize = 16;

/// Reads one shard in order.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: ByteString,
    shard: ShardId,
    range: HashRange,
    foreign: Foreign,
    undecodable: Undecodable,
    // Everything up to here was read: what a new subscription brings again is dropped.
    done: Option<Position>,
}

impl Reader {
    pub(crate) fn new(
        stream: ByteString,
        shard: ShardId,
        range: HashRange,
        foreign: Foreign,
        undecodable: Undecodable,
        done: Option<Position>,
    ) -> Self {
        Self { stream, shard, range, foreign, undecodable, done }
    }

    pub(crate) fn read(&mut self, event: &Event, received: SystemTime) -> Read {
        let mut read = Read::default();
        for together in event.records.chunks(TOGETHER) {
            let decoded = aggregate::decode_all(together.iter().map(|raw| &raw.data));
            for (raw, decoded) in together.iter().zip(decoded) {
                if self.done.as_ref().is_some_and(|done| done.sequence > raw.sequence_number) {
                    read.counts.duplicates += 1;
                    continue;
                }
                match self.take_apart(raw, decoded, received, &mut read) {
                    Ok(last) => {
                        let end = Position::new(raw.sequence_number.clone(), last);
                        // A position in the middle of this record may lie further than its last member.
                        if self.done.as_ref().is_none_or(|done| *done < end) {
                            self.done = Some(end);
                        }
                        read.end = self.done.clone();
                    }
                    Err(error) => {
                        read.stopped = Some(error);
                        return read;
                    }
                }
            }
        }
        read
    }

    /// Delivers what one Kinesis record holds; returns its last member's sub-sequence number.
    fn take_apart(
        &self,
        raw: &RawRecord,
        decoded: Result<Decoded, aggregate::Error>,
        received: SystemTime,
        read: &mut Read,
    ) -> Result<i64, Error> {
        let undecodable = |source| Error::Undecodable {
            shard: self.shard.clone(),
            sequence_number: raw.sequence_number.clone(),
            source,
        };
        match decoded.and_then(|decoded| self.judge(raw, decoded)) {
            Ok(Content::Members(aggregate)) => {
                // Half an aggregate is never delivered.
                let (records, counts) = (read.records.len(), read.counts);
                match self.members(raw, &aggregate, received, read) {
                    Ok(()) => return Ok(aggregate.len().saturating_sub(1) as i64),
                    Err(error) => {
                        read.records.truncate(records);
                        read.counts = counts;
                        self.unreadable(raw, undecodable(error), received, read)?;
                    }
                }
            }
            Ok(Content::Misplaced { members }) => {
                read.counts.misplaced += 1;
                return Ok(members.saturating_sub(1) as i64);
            }
            Ok(Content::Raw { damaged }) => read.counts.damaged += u64::from(damaged),
            Err(error) => self.unreadable(raw, undecodable(error), received, read)?,
        }
        let rejected =
            read.rejected.last().is_some_and(|last| last.whole.sequence_number == raw.sequence_number);
        if rejected {
            return Ok(0);
        }
        if self.done_of(raw) >= Some(0) {
            read.counts.duplicates += 1;
            return Ok(0);
        }
        if let Err(source) = PartitionKey::new(raw.partition_key.clone()) {
            let (shard, sequence_number) = (self.shard.clone(), raw.sequence_number.clone());
            self.unreadable(raw, Error::Key { shard, sequence_number, source }, received, read)?;
            if self.undecodable == Undecodable::DeadLetter {
                return Ok(0);
            }
        }
        let whole = self.whole(raw, received);
        read.records.extend(whole);
        Ok(0)
    }

    /// Does with a record that cannot be taken apart what is configured: an error stops the reader.
    fn unreadable(
        &self,
        raw: &RawRecord,
        error: Error,
        received: SystemTime,
        read: &mut Read,
    ) -> Result<(), Error> {
        match self.undecodable {
            Undecodable::Stop => Err(error),
            Undecodable::DeliverRaw => {
                read.counts.damaged += 1;
                Ok(())
            }
            Undecodable::DeadLetter => {
                let whole = self.whole(raw, received).filter(|_| self.done_of(raw) < Some(0));
                read.rejected.extend(whole.map(|whole| Rejected { whole, error }));
                Ok(())
            }
        }
    }

    /// The Kinesis record as one record without headers. A key that is none is replaced by the sequence
    /// number, which always is one.
    fn whole(&self, raw: &RawRecord, received: SystemTime) -> Option<Delivered> {
        let key = PartitionKey::new(raw.partition_key.clone())
            .or_else(|_| PartitionKey::new(raw.sequence_number.as_str().to_owned()))
            .ok()?;
        let record = Record { key, explicit_hash_key: None, headers: Headers::new(), data: raw.data.clone() };
        Some(self.delivered(raw, record, 0, received, None))
    }

    fn judge(&self, raw: &RawRecord, decoded: Decoded) -> Result<Content, aggregate::Error> {
        let aggregate = match decoded {
            Decoded::Aggregate(aggregate) => aggregate,
            Decoded::Plain => return Ok(Content::Raw { damaged: false }),
            Decoded::Damaged(damage) => {
                tracing::warn!(shard = %self.shard, sequence_number = %raw.sequence_number, %damage,
                    "a damaged aggregate is delivered raw");
                return Ok(Content::Raw { damaged: true });
            }
        };
        let label = &raw.partition_key;
        match ownership::verdict(&aggregate, label, &self.shard, &self.range, self.foreign)? {
            Verdict::Deliver => Ok(Content::Members(aggregate)),
            Verdict::Misplaced { .. } => Ok(Content::Misplaced { members: aggregate.len() }),
        }
    }

    fn members(
        &self,
        raw: &RawRecord,
        aggregate: &Aggregate,
        received: SystemTime,
        read: &mut Read,
    ) -> Result<(), aggregate::Error> {
        // Members up to here were read before.
        let done = self.done_of(raw).map_or(0, |sub| usize::try_from(sub.saturating_add(1)).unwrap_or(0));
        let done = done.min(aggregate.len());
        read.counts.duplicates += done as u64;
        read.records.reserve(aggregate.len() - done);
        let mut origins = aggregate.origins().skip(done);
        for (sub, member) in aggregate.members().enumerate().skip(done) {
            let record = member.to_record()?;
            read.records.push(self.delivered(raw, record, sub as u64, received, origins.next().cloned()));
        }
        Ok(())
    }

    /// The last member of this Kinesis record that was read before, if reading has come so far.
    fn done_of(&self, raw: &RawRecord) -> Option<i64> {
        self.done.as_ref().filter(|done| done.sequence == raw.sequence_number).map(|done| done.sub)
    }

    fn delivered(
        &self,
        raw: &RawRecord,
        record: Record,
        sub: u64,
        received: SystemTime,
        origin: Option<aggregate::Origin>,
    ) -> Delivered {
        Delivered {
            record,
            stream: self.stream.clone(),
            shard: self.shard.clone(),
            sequence_number: raw.sequence_number.clone(),
            sub_sequence_number: sub,
            arrival_ms: raw.arrival_ms,
            received,
            origin,
        }
    }
}

#[allow(clippy::large_enum_variant)] // short-lived: a box would be an allocation for each aggregate
enum Content {
    Members(Aggregate),
    Misplaced { members: usize },
    Raw { damaged: bool },
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headworks_record::HashKey;
    use headworks_record::aggregate::{Builder, MAGIC, Origin};

    use super::*;

    fn seq(n: u64) -> SequenceNumber {
        SequenceNumber::new(n.to_string()).unwrap()
    }

    fn raw(n: u64, key: &str, data: impl Into<Bytes>) -> RawRecord {
        RawRecord {
            sequence_number: seq(n),
            partition_key: key.to_owned().into(),
            arrival_ms: 1000 + n,
            data: data.into(),
        }
    }

    fn aggregate(keys: &[&str]) -> Bytes {
        let mut builder = Builder::new();
        for key in keys {
            builder.push(&Record::builder(*key).unwrap().data((*key).to_owned()).build());
        }
        builder.finish()
    }

    fn foreign(bytes: &[u8]) -> Bytes {
        use md5_of::md5;
        let mut blob = MAGIC.to_vec();
        blob.extend_from_slice(bytes);
        blob.extend_from_slice(&md5(bytes));
        blob.into()
    }

    /// The MD5 of a partition key is the hash key: no other MD5 is needed here.
    mod md5_of {
        pub(super) fn md5(bytes: &[u8]) -> [u8; 16] {
            let text = std::str::from_utf8(bytes).unwrap();
            headworks_record::key::hash_of(text).0.to_be_bytes()
        }
    }

    fn reader(undecodable: Undecodable, done: Option<Position>) -> Reader {
        // md5("a") begins 0x0c, md5("b") begins 0x92.
        let low = HashRange { start: HashKey::MIN, end: HashKey(u128::MAX / 2) };
        Reader::new("orders".into(), "s-1".into(), low, Foreign::default(), undecodable, done)
    }

    fn read(reader: &mut Reader, records: Vec<RawRecord>) -> Read {
        reader.read(&Event { records, ..Event::default() }, SystemTime::now())
    }

    fn found(read: &Read) -> Vec<(String, u64, String)> {
        let line = |d: &Delivered| {
            let data = String::from_utf8_lossy(&d.record.data).into_owned();
            (d.sequence_number.to_string(), d.sub_sequence_number, data)
        };
        read.records.iter().map(line).collect()
    }

    fn at(n: u64, sub: i64) -> Option<Position> {
        Some(Position::new(seq(n), sub))
    }

    fn line(n: u64, sub: u64, data: &str) -> (String, u64, String) {
        (n.to_string(), sub, data.to_owned())
    }

    #[test]
    fn plain_and_aggregated_records_are_delivered_in_order() {
        let mut reader = reader(Undecodable::Stop, None);
        let records =
            vec![raw(7, "k", "plain"), raw(9, "hw/s-1/0", aggregate(&["a", "b"])), raw(10, "k", "last")];
        let read = read(&mut reader, records);
        assert_eq!(
            found(&read),
            [line(7, 0, "plain"), line(9, 0, "a"), line(9, 1, "b"), line(10, 0, "last")]
        );
        assert_eq!(read.end, at(10, 0));
        assert_eq!(read.counts, Counts::default());
        let first = &read.records[0];
        assert_eq!((first.record.key.as_str(), first.arrival_ms), ("k", 1007));
        assert!(first.record.headers.is_empty() && first.origin.is_none());
    }

    #[test]
    fn reading_goes_on_inside_an_aggregate() {
        let mut reader = reader(Undecodable::Stop, at(9, 1));
        let records = vec![raw(9, "hw/s-1/0", aggregate(&["a", "b", "c"])), raw(10, "k", "next")];
        let again = records.clone();
        let first = read(&mut reader, records);
        assert_eq!(found(&first), [line(9, 2, "c"), line(10, 0, "next")]);
        assert_eq!(first.counts.duplicates, 2);
        let second = read(&mut reader, again);
        assert_eq!(found(&second), [], "a new subscription may bring the same again");
        assert_eq!(second.end, at(10, 0));
    }

    #[test]
    fn a_start_before_a_record_delivers_all_of_it_and_one_past_it_nothing() {
        for (done, expected) in [(Position::before(seq(9)), 2), (Position::past(seq(9)), 0)] {
            let mut reader = reader(Undecodable::Stop, Some(done));
            let read = read(&mut reader, vec![raw(9, "hw/s-1/0", aggregate(&["a", "b"]))]);
            assert_eq!(read.records.len(), expected);
        }
    }

    #[test]
    fn no_members_and_misplaced_members_move_the_position() {
        let mut reader = reader(Undecodable::Stop, None);
        let empty = read(&mut reader, vec![raw(5, "x", aggregate(&[]))]);
        assert_eq!((found(&empty), empty.end), (vec![], at(5, 0)));
        let misplaced = read(&mut reader, vec![raw(6, "hw/parent/0", aggregate(&["a", "b"]))]);
        assert_eq!((found(&misplaced), misplaced.end), (vec![], at(6, 1)));
        assert_eq!(misplaced.counts.misplaced, 1);
        let inside = read(&mut reader, vec![raw(7, "hw/parent/0", aggregate(&["a"]))]);
        assert_eq!(found(&inside), [line(7, 0, "a")]);
    }

    #[test]
    fn a_damaged_aggregate_is_delivered_raw_and_counted() {
        let mut damaged = aggregate(&["a"]).to_vec();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let mut reader = reader(Undecodable::Stop, None);
        let read = read(&mut reader, vec![raw(3, "k", damaged.clone()), raw(4, "k", "next")]);
        assert_eq!(read.counts.damaged, 1);
        assert_eq!(read.records[0].record.data, damaged);
        assert_eq!(read.records.len(), 2);
    }

    /// A member that names key 5 of a table with one key.
    fn out_of_range() -> Bytes {
        foreign(b"\x0a\x01k\x1a\x05\x08\x05\x1a\x01x")
    }

    #[test]
    fn an_index_out_of_range_stops_the_reader_in_front_of_the_record() {
        let mut reader = reader(Undecodable::Stop, None);
        let records = vec![raw(3, "k", "before"), raw(4, "k", out_of_range()), raw(5, "k", "after")];
        let read = read(&mut reader, records);
        assert_eq!(found(&read), [line(3, 0, "before")]);
        assert_eq!(read.end, at(3, 0));
        let error = read.stopped.unwrap();
        assert_eq!(error.code(), "aggregate-index-out-of-range");
        assert!(error.to_string().contains("record 4 of s-1"), "{error}");
    }

    #[test]
    fn or_it_is_put_away_whole_and_reading_goes_on() {
        let mut reader = reader(Undecodable::DeadLetter, None);
        let records = vec![raw(4, "k", out_of_range()), raw(5, "", "no key"), raw(6, "k", "after")];
        let read = read(&mut reader, records);
        assert_eq!(found(&read), [line(6, 0, "after")]);
        assert_eq!((read.end, read.rejected.len()), (at(6, 0), 2));
        assert_eq!(read.rejected[0].whole.record.data, out_of_range());
        assert_eq!(read.rejected[0].error.code(), "aggregate-index-out-of-range");
        assert_eq!(read.rejected[1].error.code(), "key-empty");
        assert_eq!(read.rejected[1].whole.record.key.as_str(), "5");
    }

    #[test]
    fn a_record_without_a_key_stops_the_reader_or_gets_its_number_as_the_key() {
        let mut stops = reader(Undecodable::Stop, None);
        assert_eq!(read(&mut stops, vec![raw(5, "", "x")]).stopped.unwrap().code(), "key-empty");
        let mut goes_on = reader(Undecodable::DeliverRaw, None);
        let read = read(&mut goes_on, vec![raw(5, "", "x")]);
        assert_eq!(read.records[0].record.key.as_str(), "5");
        assert_eq!(read.counts.damaged, 1);
    }

    #[test]
    fn or_it_is_delivered_raw_where_that_was_asked_for() {
        let mut reader = reader(Undecodable::DeliverRaw, None);
        let read = read(&mut reader, vec![raw(4, "k", out_of_range()), raw(5, "k", "after")]);
        assert_eq!(read.records[0].record.data, out_of_range());
        assert_eq!((read.records.len(), read.counts.damaged), (2, 1));
        assert!(read.stopped.is_none());
    }

    #[test]
    fn origins_go_to_their_members() {
        let origin =
            |n: u64| Origin { shard: "in-1".into(), sequence_number: n.to_string().into(), arrival_ms: n };
        let record = |key: &str| Record::builder(key).unwrap().build();
        let mut builder = Builder::new();
        builder.push_from(&record("a"), Some(&origin(1)));
        builder.push_from(&record("b"), Some(&origin(1)));
        builder.push_from(&record("c"), Some(&origin(2)));
        let mut reader = reader(Undecodable::Stop, at(9, 0));
        let read = read(&mut reader, vec![raw(9, "hw/s-1/0", builder.finish())]);
        let origins: Vec<_> = read.records.iter().map(|d| d.origin.clone().unwrap()).collect();
        assert_eq!(origins, [origin(1), origin(2)], "the first was done before");
    }
}
