//! What a handler gets: records with where they were found.

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
    records: Arc<[Delivered]>,
    end: Position,
    millis_behind: u64,
}

impl Batch {
    pub(crate) fn new(shard: ShardId, records: Vec<Delivered>, end: Position, millis_behind: u64) -> Self {
        Self { shard, records: records.into(), end, millis_behind }
    }

    /// The two halves of a batch of at least two records.
    pub(crate) fn halves(&self) -> Option<(Self, Self)> {
        let (left, right) = self.records.split_at(self.records.len() / 2);
        let middle = left.last()?.position();
        let part = |records: &[Delivered], end: Position| Self {
            shard: self.shard.clone(),
            records: records.into(),
            end,
            millis_behind: self.millis_behind,
        };
        Some((part(left, middle), part(right, self.end.clone())))
    }

    /// The shard.
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// The records, at least one.
    pub fn records(&self) -> &[Delivered] {
        &self.records
    }

    /// The records in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Delivered> {
        self.records.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none; handlers never see such a batch.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
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
