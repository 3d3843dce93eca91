//! How far each destination got, when a batch comes again.
//!
//! Lambda hands over again everything from the lowest failed sequence number on. Were that all, every
//! destination would get its records again for as long as one of them fails. So on a partial failure, and
//! only then, the router writes down per lane of the inbound shard and destination what is done, and leaves
//! it out when the batch comes again.
//!
//! What is written down is a fact that stays true: this destination has everything of this lane from here
//! to there, by this route table. Losing it, or being unable to read it, costs repeats and nothing else; an
//! entry of another table is ignored, and so is an old one, lest it stand in the way of a replay. A lane is
//! what Lambda never works on twice at a time: the Kinesis records of one partition key.

mod dynamo;
mod memory;
mod recall;
pub(crate) mod track;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytestring::ByteString;

pub use dynamo::Dynamo;
pub use memory::Memory;

/// The most lanes of one batch of which the progress is kept; the others' records may come again.
pub const MAX_LANES: usize = 100;
/// How long an entry counts. Every further failure renews it.
pub const LIFETIME: Duration = Duration::from_secs(3600);
/// How old a batch's oldest record must be for the store to be asked: younger batches hardly are retries, and
/// the usual case then costs nothing.
pub const DEFAULT_READ_AFTER: Duration = Duration::from_secs(1);

/// How long the store may hold up a batch, once before it and once after.
pub const STORE_LIMIT: Duration = Duration::from_secs(2);

/// Sequence numbers from one to another, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub from: ByteString,
    /// The last one.
    pub to: ByteString,
}

/// What the destinations have of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The partition key of its Kinesis records.
    pub lane: ByteString,
    /// The fingerprint of the route table by which they were routed.
    pub table: String,
    /// Destination stream to what it has.
    pub has: BTreeMap<String, Span>,
    /// Until when the entry counts, in seconds since the Unix epoch.
    pub expires: u64,
}

/// Why the store did not answer. The batch goes on, and may put records again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The table refused or did not answer.
    #[error(
        "the progress table {table:?} cannot be used: {reason}; check that it exists, with the hash key \"lane\" (a string), and the permissions dynamodb:BatchGetItem and dynamodb:BatchWriteItem"
    )]
    Unavailable {
        /// The table.
        table: String,
        /// What was said.
        reason: String,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unavailable { .. } => "progress-unavailable",
        }
    }

    /// Whether it may work later.
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// Keeps entries, by inbound shard (`{stream}/{shard}`) and lane.
#[async_trait]
pub trait Progress: Send + Sync + 'static {
    /// The entries of these lanes, as they were last written; expired ones may be among them.
    async fn read(&self, shard: &str, lanes: &[ByteString]) -> Result<Vec<Entry>, Error>;

    /// Puts entries in the place of those of the same lanes.
    async fn write(&self, shard: &str, entries: Vec<Entry>) -> Result<(), Error>;

    /// Removes the entries of these lanes.
    async fn forget(&self, shard: &str, lanes: Vec<ByteString>) -> Result<(), Error>;
}
