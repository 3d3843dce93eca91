//! Reading a shard in process: positions, batches and waiting for more.

use std::sync::Arc;

use super::error::Error;
use super::hash::HashRange;
use super::record::Record;
use super::sequence::SequenceNumber;
use super::shard::Shard;
use super::stream::Stream;

/// Where to start reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPosition {
    /// At the oldest record kept.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// At the record with this number.
    AtSequence(SequenceNumber),
    /// After the record with this number.
    AfterSequence(SequenceNumber),
    /// At the first record that arrived at this time or later, in milliseconds since the Unix epoch.
    AtTimestamp(i64),
}

/// A place between two records of one shard. Ordered; durable through the sequence number it stands after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub(crate) u64);

impl Position {
    /// Before everything that the shard has or had.
    pub const TRIM_HORIZON: Self = Self(1);
}

/// How much one read returns at most; the first record is returned whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadLimits {
    /// Records.
    pub records: usize,
    /// Payload and partition key bytes.
    pub bytes: usize,
}

impl Default for ReadLimits {
    /// The limits of `GetRecords`: 10,000 records, 10 MiB.
    fn default() -> Self {
        Self { records: 10_000, bytes: 10 << 20 }
    }
}

/// A shard that continues one that was split or merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildShard {
    /// Its name.
    pub shard_id: String,
    /// The names of its parents: one after a split, two after a merge.
    pub parent_shards: Vec<String>,
    /// The hash keys it takes.
    pub range: HashRange,
}

/// What a read found.
#[derive(Debug, Clone)]
pub struct ReadBatch {
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: Position,
    /// The number to resume after: that of the last record before `next`, or the shard's own starting number.
    pub continuation: SequenceNumber,
    /// How far the reader is behind now; 0 when no record is left to read.
    pub millis_behind_latest: i64,
    /// The children of the shard, once it is closed and everything in it has been read.
    pub end: Option<Vec<ChildShard>>,
    /// How many records between the position asked for and the first one returned were trimmed by retention.
    pub trimmed: u64,
}

/// A reader of one shard. Cheap to clone; holds no position.
#[derive(Debug, Clone)]
pub struct ShardReader {
    pub(crate) stream: Arc<Stream>,
    pub(crate) shard: Arc<Shard>,
    pub(crate) clock: Arc<dyn super::Clock>,
}

impl ShardReader {
    /// The name of the shard.
    #[must_use]
    pub fn shard_id(&self) -> String {
        self.shard.id()
    }

    /// Turns a start position into a place in the shard.
    ///
    /// # Errors
    /// `InvalidArgument` for a sequence number of another shard or stream, or a time in the future.
    pub fn position(&self, start: StartPosition) -> Result<Position, Error> {
        self.shard.position(start, &self.stream, self.clock.now_ms())
    }

    /// Reads from `position`, without waiting.
    ///
    /// # Errors
    /// `ResourceNotFound` once the stream is deleted.
    pub fn read(&self, position: Position, limits: ReadLimits) -> Result<ReadBatch, Error> {
        if self.stream.is_deleted() {
            return Err(self.stream.not_found());
        }
        let now_ms = self.clock.now_ms();
        Ok(self.shard.read(position, limits, now_ms, self.stream.horizon(now_ms)))
    }

    /// Waits until a read at `position` would return records or the shard's end. Returns at once when it would
    /// already. Safe to drop at any time.
    ///
    /// # Errors
    /// `ResourceNotFound` once the stream is deleted.
    pub async fn wait_for_more(&self, position: Position) -> Result<(), Error> {
        loop {
            let notified = self.shard.changed().notified();
            let mut notified = std::pin::pin!(notified);
            // Registered before the look, so that a put in between is not missed.
            notified.as_mut().enable();
            if self.stream.is_deleted() {
                return Err(self.stream.not_found());
            }
            if self.shard.has_more(position) {
                return Ok(());
            }
            notified.await;
        }
    }
}
