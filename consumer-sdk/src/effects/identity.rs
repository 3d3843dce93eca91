//! Identity items: which records had their effects.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{AttributeValue, Put};

use crate::config::ConfigError;
use crate::delivered::Delivered;

/// The key attribute of the identity table.
pub(crate) const IDENTITY: &str = "identity";
/// When an item may go: the table's TTL attribute, in seconds since the Unix epoch.
const EXPIRES: &str = "expires";

/// Where identities are kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identities {
    /// The table; made if it is missing. One per application.
    pub table: String,
    /// How long a record is remembered after its effects: at least the stream's retention, so that nothing
    /// that the stream can still bring is forgotten. Default 8 days, from one day to a year.
    pub keep: Duration,
}

impl Identities {
    /// Remembers for eight days: the default retention of a day, or a week's, with a day to spare.
    pub fn new(table: impl Into<String>) -> Self {
        Self { table: table.into(), keep: Duration::from_secs(8 * 86_400) }
    }

    /// Remembers for as long.
    #[must_use]
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }
}

/// A record's identity as text: that of its creation context, or its place where it has none.
pub(crate) fn identity(delivered: &Delivered) -> String {
    match delivered.record.headers.creation() {
        Some(creation) => format!("t#{}#{}", creation.trace_id, creation.span_id),
        None => {
            let Delivered { stream, shard, sequence_number, sub_sequence_number, .. } = delivered;
            format!("p#{stream}/{shard}/{sequence_number}/{sub_sequence_number}")
        }
    }
}

impl Identities {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        crate::config::name("identity table", &self.table, 3, 255)?;
        let day = Duration::from_secs(86_400);
        crate::config::span("identities' time to be kept", self.keep, day, day * 366)
    }

    /// The item that says that a record had its effects; refused if it is there already.
    pub(crate) fn action(&self, delivered: &Delivered) -> Result<Put, BuildError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires = (now + self.keep).as_secs().to_string();
        Put::builder()
            .table_name(&self.table)
            .item(IDENTITY, AttributeValue::S(identity(delivered)))
            .item(EXPIRES, AttributeValue::N(expires))
            .condition_expression("attribute_not_exists(#identity)")
            .expression_attribute_names("#identity", IDENTITY)
            .build()
    }
}
