//! The bound on what all shards hold: over it the oldest records go, and it is said.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::engine::Engine;
use super::sync::lock;

/// The bound is looked after whenever a 32nd of it has been put, and kept by as much: so nothing is counted on the
/// way of each put.
const SHARE: u64 = 32;
/// Warnings are at least this far apart.
const QUIET_MS: i64 = 1_000;

/// What has been put since the last look, and what has been lost.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    unseen: AtomicU64,
    trimmed: AtomicU64,
    /// Also lets only one look at a time.
    unsaid: Mutex<Unsaid>,
}

#[derive(Debug, Default)]
struct Unsaid {
    records: u64,
    bytes: u64,
    said_ms: i64,
}

impl Memory {
    /// Counts what a call has put, and trims when it is time.
    pub(crate) fn put(&self, engine: &Engine, bytes: u64, max: u64) {
        let share = max / SHARE;
        if self.unseen.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) < share {
            return;
        }
        let mut unsaid = lock(&self.unsaid);
        self.unseen.store(0, Ordering::Relaxed);
        let (freed, count) = trim(engine, max - share);
        if count == 0 {
            return;
        }
        self.trimmed.fetch_add(count, Ordering::Relaxed);
        unsaid.records += count;
        unsaid.bytes += freed;
        unsaid.say(engine.now_ms(), max);
    }

    /// Says what has not been said yet.
    pub(crate) fn report(&self, now_ms: i64, max: Option<u64>) {
        if let Some(max) = max {
            lock(&self.unsaid).say(now_ms, max);
        }
    }

    pub(crate) fn trimmed(&self) -> u64 {
        self.trimmed.load(Ordering::Relaxed)
    }
}

impl Unsaid {
    fn say(&mut self, now_ms: i64, max: u64) {
        if self.records == 0 || now_ms.saturating_sub(self.said_ms) < QUIET_MS {
            return;
        }
        tracing::warn!(
            records = self.records,
            bytes = self.bytes,
            max_held_bytes = max,
            "the oldest records were trimmed before their retention was over, to keep the bound on memory; raise \
             max_held_bytes, or read sooner"
        );
        *self = Self { said_ms: now_ms, ..Self::default() };
    }
}

/// Drops the oldest records of all shards until they cost `target` together. What retention takes goes first and is
/// no loss.
fn trim(engine: &Engine, target: u64) -> (u64, u64) {
    let now_ms = engine.now_ms();
    let mut shards = Vec::new();
    for stream in engine.streams() {
        let horizon_ms = stream.horizon(now_ms);
        for shard in stream.map().all() {
            shard.trim(horizon_ms);
            shards.push(std::sync::Arc::clone(shard));
        }
    }
    let held: u64 = shards.iter().map(|shard| shard.cost()).sum();
    let mut need = held.saturating_sub(target);
    let (mut freed, mut count) = (0, 0);
    let mut oldest: BinaryHeap<_> = (0..)
        .zip(&shards)
        .filter_map(|(at, shard): (usize, _)| Some(Reverse((shard.oldest_ms()?, at))))
        .collect();
    while need > 0
        && let Some(Reverse((_, at))) = oldest.pop()
        && let Some(shard) = shards.get(at)
    {
        let until_ms = oldest.peek().map_or(i64::MAX, |Reverse((next_ms, _))| *next_ms);
        let (more, records) = shard.drop_oldest(until_ms, need);
        need = need.saturating_sub(more);
        freed += more;
        count += records;
        if let Some(oldest_ms) = shard.oldest_ms() {
            oldest.push(Reverse((oldest_ms, at)));
        }
    }
    (freed, count)
}
