//! What became of a batch.

use std::collections::BTreeMap;
use std::time::Duration;

use bytestring::ByteString;
use serde::{Serialize, Serializer};

use crate::trouble::Trouble;

/// What became of a batch.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// From where Lambda hands the batch over again; `None` if all of it is done.
    pub failed: Option<Failed>,
    /// What was counted.
    pub counts: Counts,
    /// Destinations that did not take everything, by name.
    pub pressure: BTreeMap<String, Pressure>,
}

/// What a destination did not take of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pressure {
    /// Puts that failed and are handed over again.
    pub failed: u64,
    /// Puts that went to the dead letters because the rule's `spill-after` had passed.
    pub spilled: u64,
    /// How long the oldest of these records has been on the inbound stream.
    pub waiting: Duration,
}

/// The first record that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The sequence number of its Kinesis record.
    pub sequence_number: ByteString,
    /// Why.
    pub trouble: Trouble,
}

/// What was counted while a batch was handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Kinesis records.
    pub kinesis_records: u64,
    /// Records in them that were routed, those that the table drops included.
    pub records: u64,
    /// Puts that were stored: one per record and destination.
    pub stored: u64,
    /// Puts that were left out, because the destination has them from an earlier attempt.
    pub skipped: u64,
    /// Records that the table drops.
    pub dropped: u64,
    /// Records of other writers, which have no creation context: the router gives them one.
    pub foreign: u64,
    /// Kinesis records that begin like an aggregate but are none; delivered raw.
    pub damaged: u64,
    /// Aggregates of ours that their writer puts again elsewhere; skipped.
    pub misplaced: u64,
    /// Dead letters written, the spilled ones included.
    pub dead_letters: u64,
    /// Puts given up because the rule's `spill-after` had passed.
    pub spilled: u64,
    /// Puts that went on without the headers of a look-up, because that was slow.
    pub unenriched: u64,
    /// Puts that failed and are handed over again.
    pub failed: u64,
}

/// The answer that Lambda understands. With one item it hands over again everything from that sequence
/// number on, so the lowest is all that it needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Response {
    /// At most one item.
    #[serde(rename = "batchItemFailures")]
    pub batch_item_failures: Vec<ItemFailure>,
}

/// A record that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemFailure {
    /// Its sequence number.
    #[serde(rename = "itemIdentifier", serialize_with = "as_str")]
    pub item_identifier: ByteString,
}

fn as_str<S: Serializer>(text: &ByteString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl Report {
    /// The answer for Lambda.
    pub fn response(&self) -> Response {
        let items =
            self.failed.iter().map(|failed| ItemFailure { item_identifier: failed.sequence_number.clone() });
        Response { batch_item_failures: items.collect() }
    }
}
