//! Why a whole call fails. What concerns single records is in their results instead.

use std::time::Duration;

use headworks_proto::{MAX_BATCH_RECORDS, MAX_MESSAGE_BYTES};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::auth;
use crate::auth::quota::Exceeded;
use crate::config::{MAX_TIMEOUT, MIN_TIMEOUT};
use crate::principal::Principal;

/// Trailing metadata: the delay in milliseconds after which a call may be tried again.
pub const RETRY_AFTER_MS: &str = "retry-after-ms";
/// Trailing metadata: the error's stable code.
pub const ERROR_CODE: &str = "headworks-code";

/// Why a call fails; nothing of the batch that it names was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The gateway does not serve the stream.
    #[error("this gateway does not serve the stream {name:?}; it serves {served}")]
    UnknownStream {
        /// The name that was given.
        name: String,
        /// The streams that it serves.
        served: String,
    },
    /// No records.
    #[error("the batch has no records; send 1 to {MAX_BATCH_RECORDS}")]
    EmptyBatch,
    /// Too many records.
    #[error("the batch has {records} records, the limit is {MAX_BATCH_RECORDS}; split it")]
    TooManyRecords {
        /// How many it has.
        records: usize,
    },
    /// Too many bytes in one message.
    #[error(
        "the message is larger than {MAX_MESSAGE_BYTES} bytes, which is the limit of one batch; split it ({detail})"
    )]
    MessageTooLarge {
        /// What the transport said.
        detail: String,
    },
    /// A message that stops on its way.
    #[error(
        "the message did not arrive within {patience:?}; send smaller batches, or over a faster connection"
    )]
    Slow {
        /// How long it was waited for.
        patience: Duration,
    },
    /// More than the writer can hold at all.
    #[error(
        "the batch has {bytes} bytes, the gateway holds {limit} for this stream; split it, or raise writer.max_buffered_bytes"
    )]
    BatchTooLarge {
        /// Its bytes.
        bytes: usize,
        /// The writer's limit.
        limit: usize,
    },
    /// The timeout is out of bounds.
    #[error(
        "the timeout {given} is not from {MIN_TIMEOUT:?} to {MAX_TIMEOUT:?}; leave it out for the gateway's default"
    )]
    Timeout {
        /// What was given.
        given: String,
    },
    /// A stream of batches that does not begin with `open`.
    #[error("the first message of PutStream must be `open`; send it once, before any batch")]
    NotOpened,
    /// A second `open`.
    #[error("PutStream was opened twice; send `open` once, and use another call for another stream")]
    OpenedTwice,
    /// A message with nothing in it.
    #[error(
        "a PutStream message holds neither `open` nor `batch`; the client may be newer than this gateway"
    )]
    EmptyMessage,
    /// A message that is not of the contract.
    #[error("a PutStream message cannot be read ({detail}); check that the client speaks headworks.v1")]
    Unreadable {
        /// What the transport said.
        detail: String,
    },
    /// A batch number that is still unanswered.
    #[error(
        "the batch number {number} is still unanswered; numbers must be unique among unanswered batches, count upwards"
    )]
    BatchNumber {
        /// The number.
        number: u64,
    },
    /// More unanswered than was granted.
    #[error(
        "batch {number} makes {records} records and {bytes} bytes unanswered, the credit is {credit_records} records and {credit_bytes} bytes; wait for answers before sending more"
    )]
    CreditExceeded {
        /// The batch's number.
        number: u64,
        /// Unanswered records with this batch.
        records: u64,
        /// Unanswered bytes with this batch.
        bytes: u64,
        /// The credit in records.
        credit_records: u32,
        /// The credit in bytes.
        credit_bytes: u64,
    },
    /// No room.
    #[error("no room for the batch: {limit} bytes of records wait for the stream {stream:?}; try again in {} ms", retry_after.as_millis())]
    Full {
        /// The stream's name.
        stream: String,
        /// The writer's limit in bytes.
        limit: usize,
        /// When room is likely.
        retry_after: Duration,
    },
    /// No room on the spool's disk.
    #[error("no room for the batch: the spool of the stream {stream:?} has {limit} bytes on disk, which is spool.max_bytes, because the stream takes nothing; try again in {} ms", retry_after.as_millis())]
    SpoolFull {
        /// The stream's name.
        stream: String,
        /// The spool's limit in bytes.
        limit: u64,
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller is not let in.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// The caller may not write to the stream.
    #[error(
        "{principal:?} may not write to the stream {stream:?}; add it to streams in the [[principals]] entry, or use another stream"
    )]
    StreamNotAllowed {
        /// The principal.
        principal: String,
        /// The stream.
        stream: String,
    },
    /// The caller sends more than it may.
    #[error(
        "{principal:?} has reached its limit {name} of {limit}; try again in {} ms, or raise {name} in the [[principals]] entry",
        retry_after.as_millis()
    )]
    Quota {
        /// The principal.
        principal: String,
        /// The limit's name.
        name: &'static str,
        /// The limit.
        limit: u64,
        /// When there is room.
        retry_after: Duration,
    },
    /// The gateway is stopping.
    #[error("the gateway is draining and takes no more records; use another one")]
    Draining,
    /// A defect of the gateway.
    #[error("the gateway lost the call: {reason}; what became of its records is unknown")]
    Lost {
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::UnknownStream { .. } => "stream-unknown",
            Error::EmptyBatch => "batch-empty",
            Error::TooManyRecords { .. } => "batch-too-many-records",
            Error::MessageTooLarge { .. } => "message-too-large",
            Error::Slow { .. } => "request-too-slow",
            Error::BatchTooLarge { .. } => "batch-too-large",
            Error::Timeout { .. } => "timeout-invalid",
            Error::NotOpened | Error::OpenedTwice | Error::EmptyMessage | Error::Unreadable { .. } => {
                "put-stream-protocol"
            }
            Error::BatchNumber { .. } => "batch-number-repeated",
            Error::CreditExceeded { .. } => "credit-exceeded",
            Error::Full { .. } => "writer-full",
            Error::SpoolFull { .. } => "spool-full",
            Error::Auth(error) => error.code(),
            Error::StreamNotAllowed { .. } => "stream-not-allowed",
            Error::Quota { .. } => "quota-exceeded",
            Error::Draining => "gateway-draining",
            Error::Lost { .. } => "internal",
        }
    }

    /// Whether the same call may succeed later, here or at another gateway.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Auth(error) => error.is_retryable(),
            Error::Full { .. }
            | Error::SpoolFull { .. }
            | Error::Quota { .. }
            | Error::Slow { .. }
            | Error::Draining => true,
            _ => false,
        }
    }

    /// How long to wait before the call is tried again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Auth(error) => error.retry_after(),
            Error::Full { retry_after, .. }
            | Error::SpoolFull { retry_after, .. }
            | Error::Quota { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// The gRPC status code.
    pub fn grpc(&self) -> Code {
        match self {
            Error::UnknownStream { .. } => Code::NotFound,
            Error::Auth(error) => error.grpc(),
            Error::StreamNotAllowed { .. } => Code::PermissionDenied,
            Error::Full { .. } | Error::SpoolFull { .. } | Error::Quota { .. } => Code::ResourceExhausted,
            Error::Slow { .. } => Code::DeadlineExceeded,
            Error::Draining => Code::Unavailable,
            Error::Lost { .. } => Code::Internal,
            _ => Code::InvalidArgument,
        }
    }
}

impl Error {
    /// What a limit that was reached means for the call.
    pub(crate) fn of_quota(principal: &Principal, exceeded: Exceeded) -> Self {
        let Exceeded { name, limit, retry_after } = exceeded;
        Self::Quota { principal: principal.name.to_string(), name, limit, retry_after }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Status::new(error.grpc(), error.to_string());
        let metadata = status.metadata_mut();
        metadata.insert(ERROR_CODE, MetadataValue::from_static(error.code()));
        if let Some(retry_after) = error.retry_after() {
            metadata.insert(RETRY_AFTER_MS, MetadataValue::from(retry_after.as_millis() as u64));
        }
        status
    }
}
