//! Why a consumer stopped.

use headworks_record::ShardId;

use crate::config::ConfigError;
use crate::position::SequenceNumber;
use crate::{dead_letter, lease, reader, streams};

/// Why a consumer stopped other than by being told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream, its shards or the consumer's registration could not be used.
    #[error("cannot read the stream {stream:?}: {source}")]
    Stream {
        /// The stream.
        stream: String,
        /// What Kinesis said.
        source: streams::Error,
    },
    /// The registered consumer did not become usable.
    #[error(
        "the fan-out consumer {consumer:?} of stream {stream:?} did not become ACTIVE within {waited_s} s; it is {state}"
    )]
    Registration {
        /// The consumer's name or ARN.
        consumer: String,
        /// The stream.
        stream: String,
        /// How long the consumer was waited for, in seconds.
        waited_s: u64,
        /// Its last state.
        state: &'static str,
    },
    /// Leases or heartbeats could not be used.
    #[error(transparent)]
    Lease(#[from] lease::Error),
    /// A Kinesis record cannot be delivered.
    #[error(transparent)]
    Record(#[from] reader::Error),
    /// What was asked for needs something that the consumer was built without, or with other values.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A dead letter cannot be written.
    #[error(transparent)]
    DeadLetter(#[from] dead_letter::Error),
    /// A handler failed every attempt.
    #[error(
        "the handler of {shard} failed {attempts} time(s) on the batch that begins at {sequence_number}: {source}; its position is kept, the batch comes again at the next start"
    )]
    Handler {
        /// The shard.
        shard: ShardId,
        /// The first record of the batch.
        sequence_number: SequenceNumber,
        /// How often it was tried.
        attempts: u32,
        /// The handler's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A handler failed to close at its shard's end.
    #[error(
        "the handler of {shard} failed {attempts} time(s) to close at the shard's end, after {}: {source}; the end is not checkpointed, its last records come again at the next start",
        sequence_number.as_ref().map_or("no checkpoint", SequenceNumber::as_str)
    )]
    Close {
        /// The shard.
        shard: ShardId,
        /// The last checkpoint.
        sequence_number: Option<SequenceNumber>,
        /// How often it was tried.
        attempts: u32,
        /// The handler's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Records were dropped without being acknowledged, so the shard cannot be checkpointed any further.
    #[error(
        "{count} record(s) of {shard} were dropped without being acknowledged; acknowledge each one when it is done. They come again at the next start"
    )]
    Unacknowledged {
        /// The shard.
        shard: ShardId,
        /// How many.
        count: usize,
    },
    /// A task of this consumer ended in a way that it should not.
    #[error("the reader of {shard} broke off: {reason}; this is a fault of the consumer, please report it")]
    Internal {
        /// The shard.
        shard: ShardId,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Stream { source, .. } => source.code(),
            Error::Registration { .. } => "consumer-not-active",
            Error::Lease(source) => source.code(),
            Error::Record(source) => source.code(),
            Error::Config(source) => source.code(),
            Error::DeadLetter(source) => source.code(),
            Error::Handler { .. } | Error::Close { .. } => "handler-failed",
            Error::Unacknowledged { .. } => "records-unacknowledged",
            Error::Internal { .. } => "consumer-internal",
        }
    }

    /// Whether starting again may help without anything being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Stream { source, .. } => source.is_retryable(),
            Error::Registration { .. }
            | Error::Handler { .. }
            | Error::Close { .. }
            | Error::Unacknowledged { .. } => true,
            Error::Lease(source) => source.is_retryable(),
            Error::Record(source) => source.is_retryable(),
            Error::Config(source) => source.is_retryable(),
            Error::DeadLetter(source) => source.is_retryable(),
            Error::Internal { .. } => false,
        }
    }
}
