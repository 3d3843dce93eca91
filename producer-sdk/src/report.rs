//! What a producer did.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::ticket::Stored;

/// What became of the records of a producer, from its first to its last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Records that their stream has.
    pub stored: u64,
    /// Records that it has not.
    pub failed: u64,
    /// Records of which nobody knows.
    pub unknown: u64,
    /// How many of the failed and unknown ones were given up because the time to close was over.
    pub abandoned: u64,
}

impl Report {
    /// Whether every record is stored.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && self.unknown == 0
    }
}

/// Counts, as records are answered.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) stored: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) abandoned: AtomicU64,
}

impl Counters {
    pub(crate) fn count(&self, outcome: &Result<Stored, Error>) {
        let counter = match outcome {
            Ok(_) => &self.stored,
            Err(error) if error.outcome_unknown() => &self.unknown,
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Report {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            stored: get(&self.stored),
            failed: get(&self.failed),
            unknown: get(&self.unknown),
            abandoned: get(&self.abandoned),
        }
    }
}
