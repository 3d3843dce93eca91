//! The boundary to Kinesis: a stream, or several, as a consumer sees them.

mod aws;
mod identifier;
mod limits;
mod several;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::stream::BoxStream;
use headworks_record::{HashRange, ShardId};

pub use aws::Kinesis;
pub(crate) use aws::{classify, describe};
pub use identifier::{NotAnIdentifier, StreamIdentifier, StreamShard};
pub use several::Several;

use crate::position::SequenceNumber;

/// One shard as the stream lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// The shard's name.
    pub id: ShardId,
    /// The shards that it came from.
    pub parents: Vec<ShardId>,
    /// The hash keys that it takes.
    pub range: HashRange,
    /// Whether it still takes records.
    pub open: bool,
    /// The sequence number with which the shard begins, which is no record's; `None` where it is not known.
    pub begins: Option<SequenceNumber>,
}

/// Which shards to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardFilter {
    /// Every shard that has not expired.
    All,
    /// Those that were open at the trim horizon.
    AtTrimHorizon,
    /// Those that are open.
    AtLatest,
    /// Those that were open at this time.
    AtTimestamp(SystemTime),
}

/// Where to begin to read a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the oldest record.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// At the first record that arrived at this time or later.
    AtTimestamp(SystemTime),
    /// At the record with this sequence number.
    At(SequenceNumber),
    /// After the record with this sequence number.
    After(SequenceNumber),
}

/// One Kinesis record as it was read, aggregated or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Its place in the shard.
    pub sequence_number: SequenceNumber,
    /// The partition key under which it was put.
    pub partition_key: ByteString,
    /// When it arrived, in milliseconds since the Unix epoch.
    pub arrival_ms: u64,
    /// The data as it was put.
    pub data: Bytes,
}

/// What a subscription or a read brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The records in order; often none.
    pub records: Vec<RawRecord>,
    /// Everything up to here was seen, records or none; reading goes on after it.
    pub continuation: Option<SequenceNumber>,
    /// How far the reader is behind the newest record, in milliseconds.
    pub millis_behind: u64,
    /// At the shard's end: the shards that it became.
    pub end: Option<Vec<ShardInfo>>,
}

impl Event {
    /// Bytes of data and keys.
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.data.len() + record.partition_key.len()).sum()
    }
}

/// The events of one subscription, until it ends or fails.
pub type Subscription = BoxStream<'static, Result<Event, Error>>;

/// One page of records read without a subscription.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What was read.
    pub event: Event,
    /// The iterator of the next page; `None` at the shard's end.
    pub next: Option<String>,
}

/// Who reads: a registered consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerId {
    /// Registered under this name with the stream, now if it is not yet.
    Name(String),
    /// Registered by somebody else, with this ARN.
    Arn(String),
}

impl std::fmt::Display for ConsumerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConsumerId::Name(text) | ConsumerId::Arn(text) => f.write_str(text),
        }
    }
}

/// The state of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Not usable yet.
    Creating,
    /// Usable.
    Active,
    /// Going away.
    Deleting,
}

/// A registered consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its ARN.
    pub arn: String,
    /// Its state.
    pub state: Registration,
}

/// One stream. The calls are single attempts: the caller decides about time limits and retries.
#[async_trait]
pub trait Streams: std::fmt::Debug + Send + Sync + 'static {
    /// The stream's ARN, once it can be read.
    async fn arn(&self) -> Result<String, Error>;

    /// What tells this stream from the others of an application that reads several; refused by a source that
    /// cannot be one of several.
    async fn identifier(&self) -> Result<StreamIdentifier, Error> {
        let message =
            "it does not tell when it was created, so it cannot be one of several streams".to_owned();
        Err(Error::Refused { operation: "DescribeStreamSummary", message })
    }

    /// How long this shard's records are kept; `None` where that is not known.
    async fn retention(&self, shard: &ShardId) -> Result<Option<Duration>, Error> {
        let _ = shard;
        Ok(None)
    }

    /// Whether a lease with this key is about a shard that is read here.
    fn has(&self, key: &ShardId) -> bool {
        StreamShard::of(key).stream.is_none()
    }

    /// The shards, all pages of them.
    async fn shards(&self, filter: ShardFilter) -> Result<Vec<ShardInfo>, Error>;

    /// The consumer's registration, if there is one.
    async fn consumer(&self, stream_arn: &str, id: &ConsumerId) -> Result<Option<Registered>, Error>;

    /// Registers a consumer.
    async fn register(&self, stream_arn: &str, name: &str) -> Result<Registered, Error>;

    /// Begins a subscription of a registered consumer to a shard.
    async fn subscribe(
        &self,
        consumer_arn: &str,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<Subscription, Error>;

    /// An iterator for [`Streams::records`].
    async fn iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String, Error>;

    /// Reads one page of at most this many Kinesis records; the service allows 1 to 10,000.
    async fn records(&self, iterator: &str, most: usize) -> Result<Page, Error>;
}

/// Why Kinesis did not do what was asked, as narrow as a reader needs it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The consumer or the shard is not free: another subscription is younger than five seconds or has
    /// taken over, or the consumer is being created.
    #[error("{operation}: in use: {message}")]
    InUse {
        /// The API operation.
        operation: &'static str,
        /// The service's message.
        message: String,
    },
    /// The stream, the shard or the consumer does not exist.
    #[error("{operation}: not found: {message}; check the stream's name, the region and the endpoint")]
    NotFound {
        /// The API operation.
        operation: &'static str,
        /// The service's message.
        message: String,
    },
    /// The account's or the shard's limit is reached for the moment.
    #[error("{operation}: throttled: {message}")]
    Throttled {
        /// The API operation.
        operation: &'static str,
        /// The service's message.
        message: String,
    },
    /// The iterator is too old.
    #[error("{operation}: the iterator has expired")]
    ExpiredIterator {
        /// The API operation.
        operation: &'static str,
    },
    /// The service cannot be reached, did not answer in time, or had a failure of its own.
    #[error("{operation}: unavailable: {message}")]
    Unavailable {
        /// The API operation.
        operation: &'static str,
        /// The service's message, or what broke on the way.
        message: String,
    },
    /// The service refuses the request for good.
    #[error("{operation} was refused: {message}; check the role's permissions and the configuration")]
    Refused {
        /// The API operation.
        operation: &'static str,
        /// The service's code and message.
        message: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InUse { .. } => "kinesis-in-use",
            Error::NotFound { .. } => "kinesis-not-found",
            Error::Throttled { .. } => "kinesis-throttled",
            Error::ExpiredIterator { .. } => "kinesis-iterator-expired",
            Error::Unavailable { .. } => "kinesis-unavailable",
            Error::Refused { .. } => "kinesis-refused",
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Error::InUse { .. }
                | Error::Throttled { .. }
                | Error::ExpiredIterator { .. }
                | Error::Unavailable { .. }
        )
    }
}
