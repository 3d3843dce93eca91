//! What the writer needs of a stream. The real one is [`KinesisStream`](crate::KinesisStream).

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use headworks_record::{HashKey, LaneCount, Shard, ShardId};
use serde::{Deserialize, Serialize};

/// A stream that records can be put on.
#[async_trait]
pub trait Stream: Send + Sync + 'static {
    /// The stream's name, for errors and spans.
    fn name(&self) -> &str;

    /// Every shard that the service still knows, closed ones included.
    async fn list_shards(&self) -> Result<Vec<ListedShard>, CallError>;

    /// How many lanes a shard of this stream has; all writers of the stream must see the same number.
    async fn lanes(&self) -> Result<LaneCount, CallError>;

    /// By what the service bills this stream: it decides at which sizes aggregates are sealed.
    async fn capacity(&self) -> Result<Capacity, CallError> {
        Ok(Capacity::Provisioned)
    }

    /// One `PutRecords` call: one answer per entry, in order.
    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<Result<Stored, EntryError>>, CallError>;
}

/// A stream's capacity mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Capacity {
    /// Billed by shard hours and by PUT payload units of 25 KiB.
    Provisioned,
    /// Billed by the volume of data, each Kinesis record rounded up to a whole KiB.
    OnDemand,
}

impl Capacity {
    /// What each Kinesis record is rounded up to on the bill, in bytes (Amazon Kinesis Data Streams pricing).
    pub fn unit(self) -> usize {
        match self {
            Capacity::Provisioned => 25 * 1024,
            Capacity::OnDemand => 1024,
        }
    }
}

/// A shard as the service lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedShard {
    /// Its name and range.
    pub shard: Shard,
    /// Whether it takes no more records.
    pub closed: bool,
}

/// One Kinesis record to put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The Kinesis partition key: a lane's label.
    pub partition_key: ByteString,
    /// Decides the shard.
    pub explicit_hash_key: Option<HashKey>,
    /// An aggregate.
    pub data: Bytes,
}

impl Entry {
    /// What the service counts: data and partition key.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// Where the service put an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The shard that took it.
    pub shard: ShardId,
    /// Its sequence number there.
    pub sequence_number: ByteString,
}

/// What kind of trouble an error is: it decides what the writer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The service has no room now. Nothing was stored.
    Throttled,
    /// The service or the way to it is in trouble. Nothing was stored.
    Unavailable,
    /// No answer: what was sent may be stored.
    Ambiguous,
    /// Credentials, permissions or keys: an operator can mend it, so it is tried until the deadline.
    Access,
    /// KMS has no room for calls about the stream's key now. Nothing was stored.
    KeyThrottled,
    /// The service will never take it: the stream is gone, or the request is invalid.
    Permanent,
}

impl Fault {
    /// Whether the same call may succeed later.
    pub fn is_retryable(self) -> bool {
        self != Fault::Permanent
    }

    /// Whether credentials, permissions or keys stand in the way, KMS's throttling included: it says nothing of the
    /// stream, which is neither under pressure nor out of reach.
    pub fn is_access(self) -> bool {
        matches!(self, Fault::Access | Fault::KeyThrottled)
    }
}

/// Why a whole call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CallError {
    /// What kind of trouble it is.
    pub fault: Fault,
    /// The service's error code, or ours for trouble on the way to it.
    pub code: String,
    /// The service's message.
    pub message: String,
}

/// Why one entry of a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct EntryError {
    /// What kind of trouble it is.
    pub fault: Fault,
    /// The service's error code.
    pub code: String,
    /// The service's message.
    pub message: String,
}
