//! What a consumer tells of itself, and how much it reads ahead of a handler that does not keep up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use headworks_consumer::streams::{
    ConsumerId, Error, Page, ReadFrom, Registered, ShardFilter, ShardInfo, Streams, Subscription,
};
use headworks_consumer::{Batch, Consumer, Handler, HandlerError};
use headworks_record::ShardId;
use support::{FakeStore, FakeStreams, Journal, Running, eventually};
use tokio::sync::Semaphore;

fn built(worker: &str, streams: Arc<dyn Streams>, store: &FakeStore) -> headworks_consumer::Builder {
    let built = Consumer::builder("app", "orders").worker_id(worker).streams(streams);
    built.lease_store(Arc::new(store.another()))
}

/// Handles a batch for each permit.
struct Gated(Arc<Semaphore>, Journal);

impl Handler for Gated {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        self.0.acquire().await?.forget();
        self.1.add("a", &batch);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_handler_does_not_end_is_told_as_stuck_until_it_moves() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    let gate = Arc::new(Semaphore::new(0));
    let (opened, seen) = (gate.clone(), journal.clone());
    let consumer = built("a", Arc::new(streams.clone()), &store).build().unwrap();
    let a = Running::start(consumer, move |_| Gated(opened.clone(), seen.clone()));
    a.until(|status| status.is_caught_up()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(a.handle.status().shards.iter().all(|shard| !shard.stuck), "nothing is to be done");
    streams.put("s0", "k", "x");
    let status = a.until(|status| status.shards.iter().any(|shard| shard.stuck)).await.unwrap();
    assert_eq!(status.shards.iter().map(|shard| shard.stuck).collect::<Vec<_>>(), [true, false]);
    let line = |page: &str, value: u32| {
        let of_shard =
            |line: &&str| line.starts_with("headworks_consumer_shard_stuck{") && line.contains("\"s0\"");
        page.lines().find(of_shard).is_some_and(|line| line.ends_with(&format!(" {value}")))
    };
    assert!(line(&a.handle.metrics(), 1));
    gate.add_permits(1);
    a.until(|status| status.delivered == 1 && status.shards.iter().all(|shard| !shard.stuck)).await.unwrap();
    assert!(line(&a.handle.metrics(), 0));
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leases_that_were_not_released_count_as_taken_over() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    let start = |worker: &str| {
        let consumer = built(worker, Arc::new(streams.clone()), &store).build().unwrap();
        Running::recording(consumer, &journal)
    };
    let a = start("a");
    a.until(|status| status.leases_held() == 2).await.unwrap();
    a.kill().await;
    let b = start("b");
    let status = b.until(|status| status.leases_held() == 2).await.unwrap();
    assert_eq!(status.take_overs, 2);
    b.stop().await;
    let c = start("c");
    let status = c.until(|status| status.leases_held() == 2).await.unwrap();
    assert_eq!(status.take_overs, 0, "b released them");
    c.stop().await;
}

/// Counts what subscriptions bring.
#[derive(Debug)]
struct Counted {
    streams: FakeStreams,
    bytes: Arc<AtomicUsize>,
}

#[async_trait]
impl Streams for Counted {
    async fn arn(&self) -> Result<String, Error> {
        self.streams.arn().await
    }

    async fn shards(&self, filter: ShardFilter) -> Result<Vec<ShardInfo>, Error> {
        self.streams.shards(filter).await
    }

    async fn consumer(&self, arn: &str, id: &ConsumerId) -> Result<Option<Registered>, Error> {
        self.streams.consumer(arn, id).await
    }

    async fn register(&self, arn: &str, name: &str) -> Result<Registered, Error> {
        self.streams.register(arn, name).await
    }

    async fn subscribe(&self, arn: &str, shard: &ShardId, from: &ReadFrom) -> Result<Subscription, Error> {
        let bytes = self.bytes.clone();
        let count = move |event: &Result<headworks_consumer::streams::Event, Error>| {
            bytes.fetch_add(event.as_ref().map_or(0, |event| event.bytes()), Ordering::SeqCst);
        };
        Ok(self.streams.subscribe(arn, shard, from).await?.inspect(count).boxed())
    }

    async fn iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String, Error> {
        self.streams.iterator(shard, from).await
    }

    async fn records(&self, iterator: &str, most: usize) -> Result<Page, Error> {
        self.streams.records(iterator, most).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_ahead_of_a_slow_handler_is_bounded_and_the_lease_is_kept() {
    const BOUND: usize = 64 << 10;
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    // Two megabytes; an event of this stream holds ten records, 10 KB.
    (0..2_000).for_each(|_| {
        streams.put("s0", "k", vec![7; 1_000]);
    });
    let (gate, bytes) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = Counted { streams: streams.clone(), bytes: bytes.clone() };
    let consumer = built("a", Arc::new(counted), &store).configure(|c| c.read_ahead_bytes = BOUND);
    let (opened, seen) = (gate.clone(), journal.clone());
    let a = Running::start(consumer.build().unwrap(), move |_| Gated(opened.clone(), seen.clone()));
    a.until(|status| status.leases_held() == 1).await.unwrap();
    let b = Running::recording(built("b", Arc::new(streams.clone()), &store).build().unwrap(), &journal);
    eventually("something is read", || bytes.load(Ordering::SeqCst) > 0).await;
    // Long enough for many take-overs.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let ahead = bytes.load(Ordering::SeqCst);
    // One event waits for room.
    assert!(ahead <= BOUND + 2 * 10 * 1_001, "{ahead} bytes were read ahead");
    assert_eq!((a.handle.status().leases_held(), b.handle.status().leases_held()), (1, 0));
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    eventually("all is handled", || journal.len() == 2_000).await;
    assert_eq!(bytes.load(Ordering::SeqCst), 2_000 * 1_001, "each record was read once");
    assert!(journal.by("b").is_empty());
    a.stop().await;
    b.stop().await;
}
