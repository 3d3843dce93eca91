//! What a mapping has done so far: counters, and per shard how far it got.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::mapping::MappingError;
use crate::kinesis::{Position, SequenceNumber};

/// Counters since the mapping started, and its age now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Kinesis records that the function has processed.
    pub records: u64,
    /// Events handed to the function.
    pub invocations: u64,
    /// Events that failed, in whole or in part.
    pub failures: u64,
    /// Events that contained records which had been handed over before.
    pub retries: u64,
    /// Records given up: sent to the on-failure destination or, without one, dropped.
    pub discarded: u64,
    /// Records that no filter let through: finished without being handed over.
    pub filtered: u64,
    /// Reads of a shard that failed, and were tried again. Only faults make them fail.
    pub read_failures: u64,
    /// Records that retention took from the stream before the mapping had read them.
    pub trimmed: u64,
    /// The age of the oldest record that was read and is not finished, in milliseconds; 0 when there is none.
    pub iterator_age_ms: u64,
}

/// How far a mapping got in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardProgress {
    /// The shard.
    pub shard_id: String,
    /// The oldest record that was read and is not finished: everything before it is.
    pub unfinished: Option<SequenceNumber>,
    /// Whether the shard was read to its end and every record of it is finished.
    pub finished: bool,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) records: AtomicU64,
    pub(super) invocations: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) discarded: AtomicU64,
    pub(super) filtered: AtomicU64,
    pub(super) read_failures: AtomicU64,
    pub(super) trimmed: AtomicU64,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<String, Shard>,
    ended: Option<MappingError>,
}

/// Where one shard stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shard {
    /// Everything before this position is finished.
    pub(super) reached: Position,
    pub(super) unfinished: Option<SequenceNumber>,
    pub(super) oldest_arrival_ms: Option<i64>,
    pub(super) finished: bool,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }

    pub(super) fn publish(&self, shard_id: &str, shard: Shard) {
        {
            let mut state = self.lock();
            match state.shards.get_mut(shard_id) {
                Some(known) => *known = shard,
                None => {
                    state.shards.insert(shard_id.to_owned(), shard);
                }
            }
        }
        self.changed.notify_waiters();
    }

    /// The mapping reads no more, and why. The first reason counts.
    pub(super) fn end(&self, reason: MappingError) {
        self.lock().ended.get_or_insert(reason);
        self.changed.notify_waiters();
    }

    /// Waits until everything before these positions is finished.
    pub(super) async fn wait_for(&self, mut tips: Vec<(String, Position)>) -> Result<(), MappingError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            {
                let state = self.lock();
                tips.retain(|(shard_id, tip)| {
                    state.shards.get(shard_id).is_none_or(|shard| !shard.finished && shard.reached < *tip)
                });
                if tips.is_empty() {
                    return Ok(());
                }
                if let Some(reason) = &state.ended {
                    return Err(reason.clone());
                }
            }
            changed.await;
        }
    }

    pub(super) fn counters(&self, now_ms: i64) -> Counters {
        let oldest = self.lock().shards.values().filter_map(|shard| shard.oldest_arrival_ms).min();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            records: get(&self.records),
            invocations: get(&self.invocations),
            failures: get(&self.failures),
            retries: get(&self.retries),
            discarded: get(&self.discarded),
            filtered: get(&self.filtered),
            read_failures: get(&self.read_failures),
            trimmed: get(&self.trimmed),
            iterator_age_ms: oldest.map_or(0, |arrival| u64::try_from(now_ms - arrival).unwrap_or(0)),
        }
    }

    pub(super) fn shards(&self) -> Vec<ShardProgress> {
        let state = self.lock();
        let shards = state.shards.iter().map(|(shard_id, shard)| ShardProgress {
            shard_id: shard_id.clone(),
            unfinished: shard.unfinished,
            finished: shard.finished,
        });
        shards.collect()
    }
}
