//! Workers around one lease table and one stream, in paused time: claims, take-over, fencing, reshards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headworks_consumer::lease::Lease;
use headworks_consumer::{
    Batch, Checkpoint, Consumer, Handler, HandlerError, HandlerRetry, Position, SequenceNumber, Start,
};
use headworks_record::Record;
use headworks_record::aggregate::Builder;
use support::{FakeStore, FakeStreams, Journal, Running, eventually, seq};
use tokio::time::Instant;

fn consumer(worker: &str, streams: &FakeStreams, store: &FakeStore) -> headworks_consumer::Builder {
    Consumer::builder("app", "orders")
        .worker_id(worker)
        .streams(Arc::new(streams.clone()))
        .lease_store(Arc::new(store.clone()))
}

fn start(worker: &str, streams: &FakeStreams, store: &FakeStore, journal: &Journal) -> Running {
    Running::recording(consumer(worker, streams, store).build().unwrap(), journal)
}

fn owners(store: &FakeStore) -> Vec<Option<String>> {
    store.owners().into_values().collect()
}

fn at(n: u64, sub: i64) -> Checkpoint {
    Checkpoint::At(Position::new(seq(n), sub))
}

fn aggregate(keys: &[&str]) -> bytes::Bytes {
    let mut builder = Builder::new();
    for key in keys {
        builder.push(&Record::builder(*key).unwrap().data((*key).to_owned()).build());
    }
    builder.finish()
}

#[tokio::test(start_paused = true)]
async fn one_worker_reads_all_checkpoints_and_releases() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    for i in 0..25 {
        streams.put(["s0", "s1"][i % 2], "k", format!("r{i}"));
    }
    let running = start("a", &streams, &store, &journal);
    running.until(|status| status.delivered == 25).await.unwrap();
    running.until(|status| status.is_caught_up()).await.unwrap();
    streams.put("s0", "k", "late");
    let status = running.until(|status| status.delivered == 26).await.unwrap();
    assert_eq!(status.leases_held(), 2);
    let summary = running.stop().await;
    assert!(summary.unreleased.is_empty());
    assert_eq!(store.get("s0").unwrap().checkpoint, at(126, 0));
    assert_eq!(store.get("s1").unwrap().checkpoint, at(124, 0));
    assert_eq!(owners(&store), [None, None]);
    assert!(store.beats_now().is_empty(), "a worker that says goodbye leaves no heartbeat");
    // 26 records, and a checkpoint a second at most.
    assert!(summary.status.checkpoints < 10, "{}", summary.status.checkpoints);
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_inside_an_aggregate() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let n = streams.put("s0", "hw/s0/0", aggregate(&["a", "b", "c", "d"]));
    let mut lease = Lease::new("s0".into(), at(n, 1));
    lease.counter = 7;
    store.put(lease);
    let running = start("a", &streams, &store, &journal);
    let status = running.until(|status| status.delivered == 2).await.unwrap();
    assert_eq!(status.duplicates_skipped, 2);
    running.stop().await;
    assert_eq!(journal.data(), ["c", "d"]);
    assert_eq!(store.get("s0").unwrap().checkpoint, at(n, 3));
}

/// Handles the first batch and then blocks for ever.
struct Stuck {
    journal: Journal,
    batches: usize,
}

impl Handler for Stuck {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        self.batches += 1;
        if self.batches > 1 {
            std::future::pending::<()>().await;
        }
        self.journal.add("stuck", &batch);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_checkpointed_to_the_member() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let n = streams.put("s0", "hw/s0/0", aggregate(&["a", "b", "c", "d"]));
    let first = consumer("a", &streams, &store).max_batch_records(3).build().unwrap();
    let running = Running::start(first, {
        let journal = journal.clone();
        move |_| Stuck { journal: journal.clone(), batches: 0 }
    });
    eventually("the checkpoint", || store.get("s0").is_some_and(|lease| lease.checkpoint == at(n, 2))).await;
    running.kill().await;
    let running = start("b", &streams, &store, &journal);
    running.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!(journal.data(), ["a", "b", "c", "d"]);
    running.stop().await;
}

/// By default, wherever between two heartbeats it happens.
#[tokio::test(start_paused = true)]
async fn a_killed_workers_shards_are_delivered_by_another_within_three_seconds() {
    for phase in (0..500).step_by(25) {
        let (streams, store, journal) = (FakeStreams::new(4), FakeStore::default(), Journal::default());
        let a = start("a", &streams, &store, &journal);
        let b = start("b", &streams, &store.another(), &journal);
        a.until(|status| status.leases_held() == 2).await.unwrap();
        b.until(|status| status.leases_held() == 2).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20_000 + phase)).await;
        let killed = Instant::now();
        a.kill().await;
        for shard in ["s0", "s1", "s2", "s3"] {
            streams.put(shard, "k", format!("after {shard}"));
        }
        b.until(|status| status.delivered == 4).await.unwrap();
        let took = killed.elapsed();
        let delivers_for = b.deliver_for;
        assert!(took > delivers_for && took < Duration::from_secs(3), "{took:?}, {phase} ms");
        assert!(owners(&store).iter().all(|owner| owner.as_deref() == Some("b")));
        b.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_killed_just_after_it_subscribed_is_bridged() {
    for alive_ms in [0, 1000] {
        let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
        // a subscribes again after seven seconds, when b is long there.
        let seven = Duration::from_secs(7);
        let built = consumer("a", &streams, &store).configure(|config| config.resubscribe_after = seven);
        let a = Running::recording(built.build().unwrap(), &journal);
        a.until(|status| status.is_caught_up()).await.unwrap();
        let b = start("b", &streams, &store.another(), &journal);
        let subscribed = streams.subscribed.load(Ordering::SeqCst);
        eventually("a renewal", || streams.subscribed.load(Ordering::SeqCst) > subscribed).await;
        tokio::time::sleep(Duration::from_millis(alive_ms)).await;
        let read = streams.read.load(Ordering::SeqCst);
        let subscribed = streams.subscribed.load(Ordering::SeqCst);
        let killed = Instant::now();
        a.kill().await;
        streams.put("s0", "k", "x");
        b.until(|status| status.delivered == 1).await.unwrap();
        assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
        assert_eq!(streams.subscribed.load(Ordering::SeqCst), subscribed, "b was not accepted yet");
        assert!(streams.read.load(Ordering::SeqCst) > read);
        eventually("a subscription again", || streams.subscribed.load(Ordering::SeqCst) > subscribed).await;
        streams.put("s0", "k", "y");
        b.until(|status| status.delivered == 2).await.unwrap();
        assert_eq!(journal.data(), ["x", "y"]);
        b.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_under_its_id_goes_on_at_once() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.is_caught_up()).await.unwrap();
    a.kill().await;
    let subscribed = streams.subscribed.load(Ordering::SeqCst);
    streams.put("s0", "k", "x");
    let back = Instant::now();
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.delivered == 1).await.unwrap();
    assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    assert_eq!(streams.subscribed.load(Ordering::SeqCst), subscribed, "it was not accepted yet");
    assert!(streams.read.load(Ordering::SeqCst) > 0);
    eventually("a subscription again", || streams.subscribed.load(Ordering::SeqCst) > subscribed).await;
    streams.put("s0", "k", "y");
    a.until(|status| status.delivered == 2).await.unwrap();
    assert_eq!(journal.data(), ["x", "y"]);
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_cut_off_stops_delivering_before_another_starts() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.is_caught_up()).await.unwrap();
    let line_of_b = store.another();
    let b = start("b", &streams, &line_of_b, &journal);
    let flow = tokio::spawn({
        let streams = streams.clone();
        async move {
            for i in 0..2000 {
                streams.put("s0", "k", format!("{i}"));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    eventually("a delivers", || journal.by("a").len() > 100).await;
    store.cut(true);
    eventually("b delivers", || journal.by("b").len() > 100).await;
    let (by_a, by_b) = (journal.by("a"), journal.by("b"));
    let (last, first) = (by_a.last().unwrap().at, by_b[0].at);
    assert!(last + Duration::from_millis(500) < first, "a until {last:?}, b from {first:?}");

    // When a comes back it neither delivers nor writes: its lease is gone.
    let before = journal.by("a").len();
    store.cut(false);
    flow.await.unwrap();
    eventually("all is delivered", || journal.data().contains(&"1999".to_owned())).await;
    assert_eq!(journal.by("a").len(), before);
    let mut all: Vec<u32> = journal.data().iter().map(|data| data.parse().unwrap()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..2000).collect::<Vec<u32>>(), "nothing was lost");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn checkpoints_are_fenced_and_never_move_back() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.is_caught_up()).await.unwrap();
    let line_of_b = store.another();
    let b = start("b", &streams, &line_of_b, &journal);
    for round in 0..12u64 {
        for shard in ["s0", "s1"] {
            streams.put(shard, "k", format!("{round}"));
        }
        store.cut(round % 4 == 1);
        line_of_b.cut(round % 4 == 3);
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    store.cut(false);
    line_of_b.cut(false);
    eventually("all is delivered", || {
        ["s0", "s1"].iter().all(|shard| {
            let seen = journal.all();
            let seen = seen.iter().filter(|seen| seen.shard.as_str() == *shard);
            seen.map(|seen| &seen.data).collect::<std::collections::BTreeSet<_>>().len() == 12
        })
    })
    .await;
    a.stop().await;
    b.stop().await;
    for shard in ["s0", "s1"] {
        let written = store.written();
        let positions: Vec<Position> = written
            .iter()
            .filter(|(id, _, _)| id.as_str() == shard)
            .filter_map(|(_, _, checkpoint)| match checkpoint {
                Checkpoint::At(position) => Some(position.clone()),
                _ => None,
            })
            .collect();
        assert!(positions.is_sorted(), "{shard}: {positions:?}");
        let owners: std::collections::BTreeSet<_> =
            written.iter().filter(|w| w.0.as_str() == shard).map(|w| &w.1).collect();
        assert!(!owners.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_worker_gets_its_share_without_gap_or_repeat() {
    let (streams, store, journal) = (FakeStreams::new(4), FakeStore::default(), Journal::default());
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.leases_held() == 4).await.unwrap();
    let put = |from: u32, to: u32| {
        for i in from..to {
            streams.put(&format!("s{}", i % 4), "k", format!("{i}"));
        }
    };
    put(0, 100);
    let b = start("b", &streams, &store.another(), &journal);
    b.until(|status| status.leases_held() == 2).await.unwrap();
    put(100, 200);
    eventually("all is delivered", || journal.len() >= 200).await;
    a.until(|status| status.leases_held() == 2).await.unwrap();
    assert_eq!(journal.len(), 200, "a graceful hand-over repeats nothing");
    a.stop().await;
    b.until(|status| status.leases_held() == 4).await.unwrap();
    put(200, 300);
    eventually("all is delivered", || journal.len() >= 300).await;
    assert_eq!(journal.len(), 300);
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn children_come_after_their_parents_and_merges_after_both() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    let put = |shard: &str, from: u32, to: u32| {
        for i in from..to {
            streams.put(shard, "k", format!("{i}"));
        }
    };
    put("s0", 0, 50);
    put("s1", 0, 50);
    streams.split("s0", "s2", "s3");
    put("s2", 50, 80);
    put("s3", 50, 80);
    streams.merge("s3", "s1", "s4");
    put("s4", 100, 150);
    let a = start("a", &streams, &store, &journal);
    let b = start("b", &streams, &store.another(), &journal);
    eventually("all is delivered", || journal.len() >= 210).await;
    assert_eq!(journal.len(), 210);
    let seen = journal.all();
    let place = |shard: &str| {
        let places = || seen.iter().enumerate().filter(|(_, seen)| seen.shard.as_str() == shard);
        (places().map(|(i, _)| i).min().unwrap(), places().map(|(i, _)| i).max().unwrap())
    };
    assert!(place("s0").1 < place("s2").0 && place("s0").1 < place("s3").0);
    assert!(place("s3").1 < place("s4").0 && place("s1").1 < place("s4").0);
    eventually("the ends are written", || {
        ["s0", "s1", "s3"].iter().all(|shard| store.get(shard).unwrap().checkpoint == Checkpoint::ShardEnd)
    })
    .await;
    assert_eq!(store.get("s0").unwrap().children, ["s2".into(), "s3".into()]);
    assert_eq!(store.get("s4").unwrap().parents, ["s1".into(), "s3".into()]);
    // And a reshard while it runs.
    streams.split("s4", "s5", "s6");
    put("s5", 150, 160);
    eventually("the new children are read", || journal.len() >= 220).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn latest_is_durable_before_anything_arrives() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let old = streams.put("s0", "hw/s0/0", aggregate(&["old", "older"]));
    let latest = || consumer("a", &streams, &store).start(Start::Latest).build().unwrap();
    let a = Running::recording(latest(), &journal);
    eventually("the start is written", || {
        store.get("s0").is_some_and(|lease| matches!(lease.checkpoint, Checkpoint::At(_)))
    })
    .await;
    let written = store.get("s0").unwrap().checkpoint;
    assert_eq!(written, Checkpoint::At(Position::past(seq(old))));
    a.kill().await;
    // What comes while nobody reads is not skipped.
    streams.put("s0", "k", "new");
    let a = Running::recording(latest(), &journal);
    a.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!(journal.data(), ["new"]);
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_begins_at_the_first_record_from_then_on() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    for i in 0..4 {
        streams.put("s0", "k", format!("{i}"));
    }
    // The fake's records arrive at 1,000,000 ms plus their sequence number, which begin at 101.
    let time = std::time::UNIX_EPOCH + Duration::from_millis(1_000_103);
    let config = consumer("a", &streams, &store).start(Start::AtTimestamp(time));
    let a = Running::recording(config.build().unwrap(), &journal);
    a.until(|status| status.delivered == 2).await.unwrap();
    assert_eq!(journal.data(), ["2", "3"]);
    let first = store.written().first().unwrap().2.clone();
    assert_eq!(first, Checkpoint::At(Position::before(seq(103))), "durable before it is delivered");
    a.stop().await;
}

/// Fails, or panics, as often as it is told.
struct Failing {
    left: Arc<std::sync::atomic::AtomicU32>,
    panics: bool,
    journal: Journal,
}

impl Handler for Failing {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        let fails = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        match (fails, self.panics) {
            (false, _) => self.journal.add("a", &batch),
            (true, true) => panic!("out of luck"),
            (true, false) => return Err(std::io::Error::other("the database is away").into()),
        }
        Ok(())
    }
}

async fn fail(times: u32, panics: bool) -> (Result<u64, headworks_consumer::Error>, Journal, FakeStore) {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "k", "x");
    let left = Arc::new(std::sync::atomic::AtomicU32::new(times));
    let retry = HandlerRetry { attempts: 4, ..HandlerRetry::default() };
    let built = consumer("a", &streams, &store).handler_retry(retry).build().unwrap();
    let running = Running::start(built, {
        let journal = journal.clone();
        move |_| Failing { left: left.clone(), panics, journal: journal.clone() }
    });
    let result = match running.until(|status| status.delivered == 1).await {
        Ok(_) => Ok(running.stop().await.status.handler_failures),
        Err(_) => running.task.await.unwrap().map(|_| 0),
    };
    (result, journal, store)
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_or_panics_is_asked_again() {
    for panics in [false, true] {
        let (result, journal, _) = fail(3, panics).await;
        assert_eq!(result.unwrap(), 3);
        assert_eq!(journal.data(), ["x"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_for_good_stops_the_consumer_in_front_of_its_batch() {
    let (result, journal, store) = fail(1000, true).await;
    let error = result.unwrap_err();
    assert_eq!(error.code(), "handler-failed");
    assert!(error.to_string().contains("4 time(s)"), "{error}");
    assert!(error.to_string().contains("out of luck"), "{error}");
    assert!(journal.data().is_empty());
    assert_eq!(store.get("s0").unwrap().checkpoint, Checkpoint::At(Position::before(seq(101))));
    assert_eq!(store.get("s0").unwrap().owner, None, "another worker may try");
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_record_stops_the_consumer_with_its_place() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "k", "before");
    let mut builder = Builder::new();
    builder.push(&Record::builder("k").unwrap().build());
    streams.put("s0", "k", future_version(&builder.finish()));
    let running = start("a", &streams, &store, &journal);
    let error = running.task.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "aggregate-version-unsupported");
    assert!(error.to_string().contains("record 102 of s0"), "{error}");
    assert_eq!(journal.data(), ["before"]);
    assert_eq!(store.get("s0").unwrap().checkpoint, at(101, 0));
}

/// The same aggregate with an envelope that says version 9.
fn future_version(blob: &[u8]) -> bytes::Bytes {
    let body = &blob[4..blob.len() - 16];
    // The envelope is field 15, two bytes long: version 1.
    let place = body.windows(4).position(|w| w == [0x7a, 2, 8, 1]).unwrap();
    let mut body = body.to_vec();
    body[place + 3] = 9;
    let text = String::from_utf8(body.clone()).unwrap();
    let digest = headworks_record::key::hash_of(&text).0.to_be_bytes();
    [&blob[..4], &body, &digest].concat().into()
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_renewed_without_gap_or_repeat() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let built = consumer("a", &streams, &store).configure(|c| c.resubscribe_after = Duration::from_secs(7));
    let a = Running::recording(built.build().unwrap(), &journal);
    a.until(|status| status.is_caught_up()).await.unwrap();
    for i in 0..1000 {
        streams.put("s0", "k", format!("{i}"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    a.until(|status| status.delivered >= 1000).await.unwrap();
    assert_eq!(journal.data(), (0..1000).map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(streams.subscribed.load(Ordering::SeqCst) >= 6);
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_subscription_is_given_up() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "k", "x");
    streams.stalled.store(2, Ordering::SeqCst);
    let a = start("a", &streams, &store, &journal);
    let began = Instant::now();
    a.until(|status| status.delivered == 1).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(80), "{:?}", began.elapsed());
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_shard_is_a_loss_that_is_told_and_its_children_are_read() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    store.put(Lease::new("s0".into(), at(50, 0)));
    streams.split("s0", "s1", "s2");
    streams.put("s1", "k", "child");
    streams.expire("s0");
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.delivered == 1).await.unwrap();
    let summary = a.stop().await;
    assert_eq!(summary.status.shards_expired, 1);
    assert_eq!(store.get("s0").unwrap().checkpoint, Checkpoint::ShardEnd);
}

#[tokio::test(start_paused = true)]
async fn two_processes_under_one_id_end_with_one() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    let first = start("same", &streams, &store, &journal);
    first.until(|status| status.leases_held() == 2).await.unwrap();
    let second = start("same", &streams, &store.another(), &journal);
    let error = first.task.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "worker-id-taken");
    second.until(|status| status.leases_held() == 2).await.unwrap();
    streams.put("s0", "k", "x");
    second.until(|status| status.delivered == 1).await.unwrap();
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn idle_shards_cost_no_writes() {
    let (streams, store, journal) = (FakeStreams::new(100), FakeStore::default(), Journal::default());
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.leases_held() == 100 && status.is_caught_up()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = store.writes();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let per_second = (store.writes() - before) as f64 / 100.0;
    assert!(per_second < 2.5, "{per_second} writes/s");
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_ever_for_a_handler() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "k", "x");
    let built = consumer("a", &streams, &store).max_batch_records(1);
    let running =
        Running::start(built.build().unwrap(), move |_| Stuck { journal: journal.clone(), batches: 1 });
    running.until(|status| status.leases_held() == 1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let summary = running.stop().await;
    assert_eq!(summary.unreleased, ["s0".into()]);
}

#[test]
fn what_is_missing_is_named() {
    let error = Consumer::builder("app", "orders").build().unwrap_err();
    assert!(error.to_string().contains("`kinesis`"), "{error}");
    assert!(SequenceNumber::new("12a").is_none());
}
