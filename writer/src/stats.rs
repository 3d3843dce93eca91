//! Counters of a writer.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) entry_bytes: AtomicU64,
    pub(crate) user_bytes: AtomicU64,
    pub(crate) entry_failures: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) hot_keys: AtomicU64,
    pub(crate) misplaced: AtomicU64,
    pub(crate) map_changes: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What a writer has done so far. Counts only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records taken.
    pub records: u64,
    /// Records answered with a place.
    pub stored: u64,
    /// Records answered with a failure.
    pub failed: u64,
    /// `PutRecords` calls made.
    pub calls: u64,
    /// Kinesis records put, retries included.
    pub entries: u64,
    /// Bytes of those, partition keys included.
    pub entry_bytes: u64,
    /// Bytes of keys, headers and data of stored records, once each.
    pub user_bytes: u64,
    /// Entries that the service refused for the moment.
    pub entry_failures: u64,
    /// Of those, the ones that it throttled: the shard's limit, or this writer's part of it, was met.
    pub throttled: u64,
    /// How often a key was found to bring more than its shard takes; [`Handle::hot_keys`](crate::Handle::hot_keys)
    /// names those that do so now.
    pub hot_keys: u64,
    /// Aggregates put again because another shard answered than the one that was predicted.
    pub misplaced: u64,
    /// How often a fresh shard map replaced the old one.
    pub map_changes: u64,
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            records: get(&self.records),
            stored: get(&self.stored),
            failed: get(&self.failed),
            calls: get(&self.calls),
            entries: get(&self.entries),
            entry_bytes: get(&self.entry_bytes),
            user_bytes: get(&self.user_bytes),
            entry_failures: get(&self.entry_failures),
            throttled: get(&self.throttled),
            hot_keys: get(&self.hot_keys),
            misplaced: get(&self.misplaced),
            map_changes: get(&self.map_changes),
        }
    }
}
