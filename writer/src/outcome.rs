//! What goes in, and what comes out for each record.

use std::sync::Arc;

use bytestring::ByteString;
use headworks_record::aggregate::Origin;
use headworks_record::{Record, ShardId};
use tokio::time::Instant;

use crate::stream::Fault;

/// A record to put.
#[derive(Debug, Clone)]
pub struct Put {
    /// The record.
    pub record: Record,
    /// Where a router found it.
    pub origin: Option<Arc<Origin>>,
    /// How long it is tried; `None` takes the writer's default.
    pub deadline: Option<Instant>,
}

impl Put {
    /// A record without an origin, tried as long as the writer's default says.
    pub fn new(record: Record) -> Self {
        Self { record, origin: None, deadline: None }
    }
}

/// What became of one record.
pub type Outcome = Result<Placed, Failure>;

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The shard that has it.
    pub shard: ShardId,
    /// The sequence number of the Kinesis record that holds it.
    pub sequence_number: ByteString,
    /// Its place in that Kinesis record, from 0.
    pub sub_sequence_number: u32,
    /// How often it was put; 1 unless something went wrong.
    pub attempts: u32,
}

/// Why a record is not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// It does not fit into a Kinesis record.
    #[error(
        "the record takes {bytes} bytes on the stream, the limit is {limit}; shrink its data, or raise the stream's maximum record size and max_record_bytes"
    )]
    TooLarge {
        /// Its size with key, headers and envelope.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Its deadline passed, and it is not stored.
    #[error("not stored within its deadline, after {attempts} attempts; the last trouble: {last}")]
    DeadlineExceeded {
        /// How often it was put.
        attempts: u32,
        /// What went wrong last.
        last: String,
        /// Trouble with access ([`Fault::is_access`]) if there was any, else what kind of trouble the last was; `None`
        /// if it never came to be put.
        fault: Option<Fault>,
    },
    /// Its deadline passed, and it may be stored.
    #[error(
        "its deadline passed after {attempts} attempts, and it may be stored: a put was not answered ({last})"
    )]
    OutcomeUnknown {
        /// How often it was put.
        attempts: u32,
        /// What went wrong last.
        last: String,
        /// As of [`Failure::DeadlineExceeded`]; `None` if the writer ended before it was answered.
        fault: Option<Fault>,
    },
    /// The service will never take it.
    #[error("the stream refused it: {code}: {message}")]
    Refused {
        /// The service's error code.
        code: String,
        /// The service's message.
        message: String,
    },
    /// The writer stopped before it was stored.
    #[error("the writer stopped before the record was stored; send it again")]
    Stopped,
}

impl Failure {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Failure::TooLarge { .. } => "record-too-large",
            Failure::DeadlineExceeded { .. } => "deadline-exceeded",
            Failure::OutcomeUnknown { .. } => "outcome-unknown",
            Failure::Refused { .. } => "stream-refused",
            Failure::Stopped => "writer-stopped",
        }
    }

    /// Whether the same record may be stored later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Failure::TooLarge { .. } | Failure::Refused { .. })
    }

    /// Whether credentials, permissions or keys stood in its way, or in the way of what it waited behind. Then what
    /// follows it in its batch with the same key has not overtaken it, whatever its deadline.
    pub fn is_access(&self) -> bool {
        match self {
            Failure::DeadlineExceeded { fault, .. } | Failure::OutcomeUnknown { fault, .. } => {
                fault.is_some_and(Fault::is_access)
            }
            _ => false,
        }
    }

    /// Whether the record may be stored: sending it again can repeat it.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Failure::OutcomeUnknown { .. })
    }
}
