//! Reading without fan-out, from elsewhere and again, in paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use headworks_consumer::admin::{self, Estimate, Target};
use headworks_consumer::lease::{Beat, LeaseStore};
use headworks_consumer::replay::{Replay, Token};
use headworks_consumer::streams::Error;
use headworks_consumer::{Checkpoint, Consumer, Position, Reading, Start};
use support::{FakeStore, FakeStreams, Journal, Running, eventually, seq};
use tokio_util::sync::CancellationToken;

fn consumer(streams: &FakeStreams, store: &FakeStore) -> headworks_consumer::Builder {
    Consumer::builder("app", "orders")
        .worker_id("a")
        .streams(Arc::new(streams.clone()))
        .lease_store(Arc::new(store.clone()))
}

fn start(streams: &FakeStreams, store: &FakeStore, reading: Reading, journal: &Journal) -> Running {
    let built = consumer(streams, store).configure(|c| c.reading = reading);
    Running::recording(built.build().unwrap(), journal)
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

fn put(streams: &FakeStreams, shard: &str, range: std::ops::Range<u32>) {
    range.for_each(|i| {
        streams.put(shard, "k", i.to_string());
    });
}

fn refused() -> Error {
    Error::Refused { operation: "a call", message: "AccessDeniedException".to_owned() }
}

fn throttled() -> Error {
    Error::Throttled { operation: "a call", message: "LimitExceededException".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn polling_reads_on_through_expired_iterators_throttles_and_a_split() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    put(&streams, "s0", 0..25);
    let a = start(&streams, &store, Reading::Polling, &journal);
    let status = a.until(|status| status.delivered == 25).await.unwrap();
    assert!(status.shards[0].polled);
    streams.expires.store(2, Ordering::SeqCst);
    streams.throttles.store(true, Ordering::SeqCst);
    put(&streams, "s0", 25..50);
    a.until(|status| status.delivered == 50).await.unwrap();
    streams.split("s0", "s1", "s2");
    put(&streams, "s1", 50..60);
    a.until(|status| status.delivered == 60).await.unwrap();
    assert_eq!(journal.data(), numbers(0..60));
    a.stop().await;
    assert_eq!(streams.subscribed.load(Ordering::SeqCst), 0);
    assert_eq!(store.get("s0").unwrap().checkpoint, Checkpoint::ShardEnd);
}

#[tokio::test(start_paused = true)]
async fn polling_costs_a_read_per_interval_when_nothing_comes() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let a = start(&streams, &store, Reading::Polling, &journal);
    a.until(|status| status.is_caught_up()).await.unwrap();
    let before = streams.read.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let reads = streams.read.load(Ordering::SeqCst) - before;
    assert!((95..=101).contains(&reads), "{reads} reads");
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_fan_out_shards_are_polled() {
    for (register, subscribe) in [(Some(refused()), None), (Some(throttled()), None), (None, Some(refused()))]
    {
        let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
        *streams.register_fails.lock().unwrap() = register;
        *streams.subscribe_fails.lock().unwrap() = subscribe;
        put(&streams, "s0", 0..5);
        let a = start(&streams, &store, Reading::default(), &journal);
        let status = a.until(|status| status.delivered == 5).await.unwrap();
        assert!(status.shards.iter().any(|shard| shard.polled));
        a.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_being_deleted_or_made_is_waited_for() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let began = tokio::time::Instant::now();
    *streams.deleted_at.lock().unwrap() = Some(began + Duration::from_secs(10));
    put(&streams, "s0", 0..5);
    let a = start(&streams, &store, Reading::FanOut, &journal);
    eventually("all", || journal.len() == 5).await;
    // It is registered anew when it is gone, and takes two seconds to become active.
    assert!(began.elapsed() >= Duration::from_secs(12), "{:?}", began.elapsed());
    assert!(!a.handle.status().shards[0].polled);
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_stays_in_its_deletion_is_told() {
    let (streams, store) = (FakeStreams::new(1), FakeStore::default());
    *streams.deleted_at.lock().unwrap() = Some(tokio::time::Instant::now() + Duration::from_secs(3_600));
    let a = start(&streams, &store, Reading::FanOut, &Journal::default());
    let error = a.task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("DELETING"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn fan_out_only_stops_where_there_is_none() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    *streams.subscribe_fails.lock().unwrap() = Some(refused());
    let a = start(&streams, &store, Reading::FanOut, &journal);
    assert_eq!(a.task.await.unwrap().unwrap_err().code(), "kinesis-refused");
}

#[tokio::test(start_paused = true)]
async fn polling_after_the_newest_record_survives_an_expired_iterator() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    put(&streams, "s0", 0..3);
    let built = consumer(&streams, &store).start(Start::Latest).configure(|c| c.reading = Reading::Polling);
    let a = Running::recording(built.build().unwrap(), &journal);
    a.until(|status| status.is_caught_up()).await.unwrap();
    // Later than the wall clock, as the fake's records are at the beginning of time otherwise.
    let far = 10_000_000_000_000;
    streams.expires.store(1, Ordering::SeqCst);
    for i in 3..6 {
        streams.put_later("s0", "k", i.to_string(), far);
    }
    a.until(|status| status.delivered == 3).await.unwrap();
    assert_eq!(journal.data(), numbers(3..6));
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_running_consumer_is_moved_back_and_forth() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    put(&streams, "s0", 0..20);
    let a = start(&streams, &store, Reading::default(), &journal);
    a.until(|status| status.delivered == 20).await.unwrap();
    // The fake's records arrive at 1,000,000 ms plus their sequence number, which begin at 101.
    let time = UNIX_EPOCH + Duration::from_millis(1_000_116);
    let moved = a.handle.seek(Target::Timestamp(time)).await.unwrap();
    assert_eq!(moved, [("s0".into(), Checkpoint::At(Position::before(seq(116))))]);
    eventually("the last five again", || journal.len() == 25).await;
    assert_eq!(journal.data()[20..], numbers(15..20));
    // To where nothing is yet: what comes from now on.
    let future = UNIX_EPOCH + Duration::from_millis(2_000_000);
    let moved = a.handle.seek(Target::Timestamp(future)).await.unwrap();
    assert_eq!(moved, [("s0".into(), Checkpoint::At(Position::past(seq(120))))]);
    put(&streams, "s0", 20..21);
    eventually("the new one", || journal.len() == 26).await;
    assert_eq!(journal.data()[25], "20");
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_range_is_read_again_and_goes_on_from_its_token() {
    let streams = FakeStreams::new(2);
    put(&streams, "s0", 0..30);
    put(&streams, "s1", 30..60);
    streams.split("s0", "s2", "s3");
    put(&streams, "s2", 60..80);
    let from = UNIX_EPOCH + Duration::from_millis(1_000_111);
    let to = UNIX_EPOCH + Duration::from_millis(1_000_172);
    let seen = Arc::new(Mutex::new(Vec::<u32>::new()));
    let stop = CancellationToken::new();
    let handle = |batch: headworks_consumer::Batch| {
        let (seen, stop) = (seen.clone(), stop.clone());
        async move {
            let mut seen = seen.lock().unwrap();
            for delivered in &batch {
                seen.push(std::str::from_utf8(&delivered.record.data)?.parse()?);
            }
            if seen.len() > 20 {
                stop.cancel();
            }
            Ok(())
        }
    };
    let tokens = Mutex::new(Vec::<String>::new());
    let note = |token: &Token| tokens.lock().unwrap().push(token.to_string());
    let replay = Replay::new(Arc::new(streams.clone()), "orders", from, to).max_batch_records(4);
    let first = replay.run(handle, note, stop.clone()).await.unwrap();
    assert!(!first.is_done() && first.records() < 60, "{first}");
    let token: Token = tokens.lock().unwrap().last().unwrap().parse().unwrap();
    assert_eq!(token, first);
    let replay = Replay::resume(Arc::new(streams.clone()), token);
    let second = replay.run(handle, note, CancellationToken::new()).await.unwrap();
    assert!(second.is_done());
    let seen = seen.lock().unwrap().clone();
    let distinct: BTreeSet<u32> = seen.iter().copied().collect();
    // The split takes a number of its own, so the last are 70 of the child's.
    assert_eq!((seen.len() as u64, distinct.len()), (second.records(), seen.len()), "each once");
    assert_eq!((distinct.first(), distinct.last()), (Some(&10), Some(&69)));
    assert_eq!(distinct.len(), 60);
    let place = |n: u32| seen.iter().position(|seen| *seen == n).unwrap();
    assert!(place(29) < place(60), "the child comes after its parent");
}

#[tokio::test]
async fn a_range_that_ends_before_it_begins_is_refused() {
    let (from, to) = (UNIX_EPOCH + Duration::from_secs(2), UNIX_EPOCH + Duration::from_secs(1));
    let replay = Replay::new(Arc::new(FakeStreams::new(1)), "orders", from, to);
    let error = replay.run(|_| async { Ok(()) }, |_| {}, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code(), "replay-range-invalid");
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_told_for_each_shard_and_checkpoints_are_reset() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    put(&streams, "s0", 0..8);
    put(&streams, "s1", 8..10);
    let a = start(&streams, &store, Reading::default(), &journal);
    a.until(|status| status.delivered == 10).await.unwrap();
    let shared: Arc<dyn LeaseStore> = Arc::new(store.clone());
    let target = Target::Sequence(seq(103));
    let plan = admin::plan_reset(&streams, shared.clone(), &target, &["s0".into()]).await.unwrap();
    let error = plan.clone().apply(false).await.unwrap_err();
    assert_eq!(error.code(), "workers-alive");
    assert!(error.to_string().contains("worker(s) a are alive"), "{error}");
    let dead = Beat { worker: "x".into(), ..store.beats_now()[0].clone() };
    a.stop().await;
    put(&streams, "s0", 10..15);

    let lags = admin::lag(&streams, &store).await.unwrap();
    assert_eq!(lags[0].records, Some(Estimate::Exact(5)));
    assert_eq!(lags[0].behind, Some(Duration::from_millis(4)));
    assert_eq!((lags[1].records, lags[1].behind), (Some(Estimate::Exact(0)), Some(Duration::ZERO)));

    // A heartbeat that does not move any more is no sign of life.
    store.beat(&dead, true).await.unwrap();
    let plan = admin::plan_reset(&streams, shared, &target, &["s0".into()]).await.unwrap();
    let at = |n| Checkpoint::At(Position::new(seq(n), 0));
    assert_eq!(plan.changes().len(), 1);
    assert_eq!(plan.changes()[0].before, at(108));
    let changed = plan.apply(false).await.unwrap();
    assert_eq!(changed[0].after, Checkpoint::At(Position::before(seq(103))));
    let lease = store.get("s0").unwrap();
    assert_eq!((lease.checkpoint, lease.owner), (Checkpoint::At(Position::before(seq(103))), None));
    let a = start(&streams, &store, Reading::default(), &journal);
    eventually("from there on", || journal.len() == 10 + 11).await;
    assert_eq!(journal.data()[10], "2");
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_forced_reset_takes_the_leases_away() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    put(&streams, "s0", 0..8);
    let a = start(&streams, &store, Reading::default(), &journal);
    a.until(|status| status.delivered == 8).await.unwrap();
    let shared: Arc<dyn LeaseStore> = Arc::new(store.clone());
    let plan = admin::plan_reset(&streams, shared, &Target::TrimHorizon, &[]).await.unwrap();
    assert_eq!(plan.apply(true).await.unwrap().len(), 1);
    eventually("all again", || journal.len() == 16).await;
    a.stop().await;
    assert_eq!(store.get("s0").unwrap().checkpoint, Checkpoint::At(Position::new(seq(108), 0)));
}
