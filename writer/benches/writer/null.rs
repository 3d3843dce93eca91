//! Streams that take everything: one does nothing with it, one keeps what it hands on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use headworks_record::{HashRange, Lane, LaneCount, Shard, ShardId};
use headworks_writer::{CallError, Entry, EntryError, ListedShard, Stored, Stream};

#[derive(Debug)]
pub struct NullStream {
    shards: Vec<Shard>,
    sequence: AtomicU64,
    /// The sizes of the Kinesis records that were put.
    pub sizes: Arc<Mutex<Vec<usize>>>,
}

pub fn shards(count: u128) -> Vec<Shard> {
    let width = u128::MAX / count;
    let end = |i| if i + 1 == count { u128::MAX } else { (i + 1) * width - 1 };
    let shard =
        |i| Shard { id: ShardId::new(format!("shardId-{i:012}")), range: HashRange::new(i * width, end(i)) };
    (0..count).map(shard).collect()
}

impl NullStream {
    pub fn new(count: u128) -> Self {
        Self { shards: shards(count), sequence: AtomicU64::new(0), sizes: Arc::default() }
    }
}

#[async_trait]
impl Stream for NullStream {
    fn name(&self) -> &str {
        "null"
    }

    async fn list_shards(&self) -> Result<Vec<ListedShard>, CallError> {
        Ok(self.shards.iter().map(|shard| ListedShard { shard: shard.clone(), closed: false }).collect())
    }

    async fn lanes(&self) -> Result<LaneCount, CallError> {
        Ok(LaneCount::ONE)
    }

    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<Result<Stored, EntryError>>, CallError> {
        self.sizes.lock().unwrap().extend(entries.iter().map(Entry::bytes));
        let stored = |entry: &Entry| {
            let shard = Lane::shard_of(&entry.partition_key).unwrap().into();
            let number = self.sequence.fetch_add(1, Ordering::Relaxed);
            Ok(Stored { shard, sequence_number: number.to_string().into() })
        };
        Ok(entries.iter().map(stored).collect())
    }
}

/// Keeps the aggregates that go to another stream.
#[derive(Debug)]
pub struct Recording<S> {
    inner: S,
    pub entries: Arc<Mutex<Vec<Bytes>>>,
}

impl<S> Recording<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, entries: Arc::default() }
    }
}

#[async_trait]
impl<S: Stream> Stream for Recording<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn list_shards(&self) -> Result<Vec<ListedShard>, CallError> {
        self.inner.list_shards().await
    }

    async fn lanes(&self) -> Result<LaneCount, CallError> {
        self.inner.lanes().await
    }

    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<Result<Stored, EntryError>>, CallError> {
        self.entries.lock().unwrap().extend(entries.iter().map(|entry| entry.data.clone()));
        self.inner.put_records(entries).await
    }
}
