//! What a handler gets: records with where they were found.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytestring::ByteString;
use headworks_record::aggregate::Origin;
use headworks_record::{Record, ShardId};

use crate::position::{Position, SequenceNumber};

/// A record, and where and when it was found. Clones share the memory of the Kinesis record.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// The record itself.
    pub record: Record,
    /// The stream's name.
    pub stream: ByteString,
    /// The shard.
    pub shard: ShardId,
    /// The Kinesis record's sequence number.
    pub sequence_number: SequenceNumber,
    /// The record's place in its aggregate, from 0; 0 for a Kinesis record that is no aggregate.
    pub sub_sequence_number: u64,
    /// When the Kinesis record arrived at the stream, in milliseconds since the Unix epoch.
    pub arrival_ms: u64,
    /// When this consumer received it.
    pub received: SystemTime,
    /// Where a router found the record; `None` if none did.
    pub origin: Option<Origin>,
}

impl Delivered {
    /// The record's place in its shard.
    pub fn position(&self) -> Position {
        let sub = i64::try_from(self.sub_sequence_number).unwrap_or(i64::MAX);
        Position::new(self.sequence_number.clone(), sub)
    }
}

/// Some records of one shard, in order. Clones share the records.
#[derive(Debug, Clone)]
pub struct Batch {
    shard: ShardId,
    // What one event held, or more of it: batches share it, and each shows its part.
    records: Arc<Vec<Delivered>>,
    part: Range<usize>,
    end: Position,
    millis_behind: u64,
}

impl Batch {
    pub(crate) fn new(shard: ShardId, records: Vec<Delivered>, end: Position, millis_behind: u64) -> Self {
        let part = 0..records.len();
        Self { shard, records: Arc::new(records), part, end, millis_behind }
    }

    /// A batch of some of these records; the part has to lie within them.
    pub(crate) fn part_of(
        shard: ShardId,
        records: Arc<Vec<Delivered>>,
        part: Range<usize>,
        end: Position,
        millis_behind: u64,
    ) -> Self {
        Self { shard, records, part, end, millis_behind }
    }

    /// The two halves of a batch of at least two records.
    pub(crate) fn halves(&self) -> Option<(Self, Self)> {
        let middle = self.part.start + self.len() / 2;
        let last = self.records().get(..self.len() / 2)?.last()?.position();
        let part = |part: Range<usize>, end: Position| Self { part, end, ..self.clone() };
        Some((part(self.part.start..middle, last), part(middle..self.part.end, self.end.clone())))
    }

    /// How far the shard is done with each of the records: the last one's is [`Batch::end`].
    pub(crate) fn positions(&self) -> impl Iterator<Item = Position> {
        let last = self.len().saturating_sub(1);
        let end = move |i: usize| (i == last).then(|| self.end.clone());
        self.iter().enumerate().map(move |(i, delivered)| end(i).unwrap_or_else(|| delivered.position()))
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        self.records().first().map_or("", |first| &first.stream)
    }

    /// The shard.
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// The records, at least one.
    pub fn records(&self) -> &[Delivered] {
        &self.records[self.part.clone()]
    }

    /// The records in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Delivered> {
        self.records().iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.part.len()
    }

    /// Whether there are none; handlers never see such a batch.
    pub fn is_empty(&self) -> bool {
        self.part.is_empty()
    }

    /// How far the reader was behind the newest record of the shard, in milliseconds.
    pub fn millis_behind(&self) -> u64 {
        self.millis_behind
    }

    /// How far the shard is done when all of the batch is.
    pub fn end(&self) -> &Position {
        &self.end
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Delivered;
    type IntoIter = std::slice::Iter<'a, Delivered>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
