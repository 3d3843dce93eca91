//! Repeats: dropped within the window, across restarts, hand-overs and reshards, and never a first
//! occurrence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use headworks_consumer::lease::Lease;
use headworks_consumer::streams::Error;
use headworks_consumer::{Batch, Builder, Checkpoint, Consumer, Handler, HandlerError, Position};
use headworks_record::aggregate;
use headworks_record::{Creation, Record};
use support::{FakeStore, FakeStreams, Journal, Running, eventually, seq};

/// Longer than the default window.
const LATER_MS: u64 = 61_000;

fn consumer(worker: &str, streams: &FakeStreams, store: &FakeStore) -> Builder {
    Consumer::builder("app", "orders")
        .worker_id(worker)
        .streams(Arc::new(streams.clone()))
        .lease_store(Arc::new(store.clone()))
}

fn start(worker: &str, streams: &FakeStreams, store: &FakeStore, journal: &Journal) -> Running {
    Running::recording(consumer(worker, streams, store).build().unwrap(), journal)
}

/// Records whose key, payload and identity say the same.
fn records(names: &[&str]) -> Bytes {
    let mut builder = aggregate::Builder::new();
    for name in names {
        let mut random = [0; 18];
        random[..name.len()].copy_from_slice(name.as_bytes());
        // A span id of zeroes is none.
        random[17] = 1;
        let record = Record::builder(*name).unwrap().creation(Creation::mint(7, random));
        builder.push(&record.data((*name).to_owned()).build());
    }
    builder.finish()
}

#[tokio::test(start_paused = true)]
async fn repeats_within_the_window_are_dropped_and_counted() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let a = start("a", &streams, &store, &journal);
    streams.put("s0", "hw/s0/0", records(&["a", "b"]));
    streams.put("s0", "hw/s0/0", records(&["b", "c", "a"]));
    // Nothing tells these two apart from two records that are alike.
    streams.put("s0", "k", "plain");
    let last = streams.put("s0", "k", "plain");
    let status = a.until(|status| status.delivered == 5).await.unwrap();
    assert_eq!(status.repeats_dropped, 2);
    assert_eq!(journal.data(), ["a", "b", "c", "plain", "plain"]);
    // From its latest occurrence on, the window has to pass.
    streams.put_later("s0", "hw/s0/0", records(&["a", "d"]), LATER_MS);
    let status = a.until(|status| status.delivered == 7).await.unwrap();
    assert_eq!((status.repeats_dropped, journal.data()[5].as_str()), (2, "a"));
    let repeat = streams.put_later("s0", "hw/s0/0", records(&["d"]), LATER_MS);
    let summary = a.stop().await;
    assert_eq!(summary.status.identities_forgotten, 0);
    assert!(repeat > last);
    // Dropped repeats move the checkpoint, or they would be read for ever.
    let b = start("b", &streams, &store, &journal);
    b.until(|status| status.is_caught_up()).await.unwrap();
    b.stop().await;
    assert_eq!(store.get("s0").unwrap().checkpoint, Checkpoint::At(Position::new(seq(repeat), 0)));
    assert_eq!(journal.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_turned_off_and_bounded() {
    let (streams, journal) = (FakeStreams::new(1), Journal::default());
    streams.put("s0", "hw/s0/0", records(&["a", "a", "b", "c", "d", "a"]));
    let off = consumer("a", &streams, &FakeStore::default()).dedup_window(Duration::ZERO);
    let a = Running::recording(off.build().unwrap(), &journal);
    let status = a.until(|status| status.delivered == 6).await.unwrap();
    assert_eq!(status.repeats_dropped, 0);
    a.stop().await;
    let store = FakeStore::default();
    let small = consumer("b", &streams, &store).configure(|config| config.dedup_max_identities = 2);
    let b = Running::recording(small.build().unwrap(), &journal);
    let status = b.until(|status| status.delivered == 5).await.unwrap();
    assert_eq!((status.repeats_dropped, status.identities_forgotten), (1, 3));
    b.stop().await;
}

/// Handles some batches and then blocks for ever.
struct Stuck {
    journal: Journal,
    left: usize,
}

impl Handler for Stuck {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        if self.left == 0 {
            std::future::pending::<()>().await;
        }
        self.left -= 1;
        self.journal.add("stuck", &batch);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_the_unfinished_comes_again_and_the_finished_does_not() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "hw/s0/0", records(&["a", "b"]));
    // The checkpoint will lie between d and e.
    let n = streams.put("s0", "hw/s0/0", records(&["c", "d", "e", "f"]));
    streams.put("s0", "hw/s0/0", records(&["g", "b"]));
    let first = consumer("a", &streams, &store).max_batch_records(2).build().unwrap();
    let a = Running::start(first, {
        let journal = journal.clone();
        move |_| Stuck { journal: journal.clone(), left: 2 }
    });
    let between = Checkpoint::At(Position::new(seq(n), 1));
    eventually("the checkpoint", || store.get("s0").is_some_and(|lease| lease.checkpoint == between)).await;
    a.kill().await;
    assert_eq!(journal.data(), ["a", "b", "c", "d"]);
    streams.put("s0", "hw/s0/0", records(&["e", "c", "h"]));
    let b = start("b", &streams, &store, &journal);
    let status = b.until(|status| status.delivered == 4).await.unwrap();
    assert_eq!(journal.data()[4..], ["e", "f", "g", "h"]);
    // b was delivered by the worker before; so was c. And e has come since.
    eventually("the repeats", || b.handle.status().repeats_dropped == 3).await;
    assert_eq!(status.duplicates_skipped, 2, "c and d were done");
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_window_is_rebuilt_over_many_pages_and_no_further_back_than_it_reaches() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "hw/s0/0", records(&["old"]));
    let names: Vec<String> = (0..35).map(|i| format!("r{i}")).collect();
    for name in &names {
        streams.put_later("s0", "hw/s0/0", records(&[name.as_str()]), LATER_MS);
    }
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.delivered == 36).await.unwrap();
    a.stop().await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    streams.put_later("s0", "hw/s0/0", records(&names), LATER_MS);
    streams.put_later("s0", "hw/s0/0", records(&["old"]), LATER_MS);
    // Large pages make the service refuse the next read: that must not begin everything again.
    streams.throttles.store(true, Ordering::SeqCst);
    let b = start("b", &streams, &store, &journal);
    let status = b.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!((status.repeats_dropped, journal.data()[36].as_str()), (35, "old"));
    b.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_writers_second_copy_after_an_aligned_reshard_is_dropped() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "hw/s0/0", records(&["a", "b"]));
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.delivered == 2).await.unwrap();
    streams.split("s0", "s1", "s2");
    // md5("a") begins with 0x0c, md5("b") with 0x92: all members of the first lie inside of s1.
    streams.put("s1", "hw/s0/0", records(&["a", "a"]));
    streams.put("s1", "hw/s1/0", records(&["a"]));
    streams.put("s2", "hw/s2/0", records(&["b"]));
    // This one is left out whole, so what is put again is no repeat of it.
    streams.put("s1", "hw/s0/0", records(&["x", "y", "z"]));
    streams.put("s1", "hw/s1/0", records(&["x", "y", "z"]));
    eventually("what was put again", || journal.len() >= 5).await;
    let status = a.until(|status| status.repeats_dropped == 4).await.unwrap();
    assert_eq!((status.misplaced_skipped, status.delivered), (1, 5));
    assert_eq!(streams.read.load(Ordering::SeqCst), 0, "the parent's window was handed over");
    assert_eq!(journal.data(), ["a", "b", "x", "y", "z"]);
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn children_know_what_their_ancestors_brought_also_in_another_worker() {
    let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
    streams.put("s0", "hw/s0/0", records(&["a"]));
    streams.put("s1", "hw/s1/0", records(&["b"]));
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.delivered == 2).await.unwrap();
    streams.split("s0", "s2", "s3");
    streams.put("s3", "hw/s3/0", records(&["c"]));
    a.until(|status| status.delivered == 3).await.unwrap();
    streams.merge("s3", "s1", "s4");
    // One generation that brought nothing does not hide those before it.
    streams.split("s4", "s5", "s6");
    eventually("they are claimed", || store.get("s6").is_some_and(|lease| lease.owner.is_some())).await;
    a.stop().await;
    streams.put("s5", "hw/s5/0", records(&["a", "b", "c", "d"]));
    let b = start("b", &streams, &store, &journal);
    let status = b.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!((status.repeats_dropped, journal.data()[3].as_str()), (3, "d"));
    // And what the child brought itself, once it has a checkpoint of its own.
    b.stop().await;
    streams.put("s5", "hw/s5/0", records(&["d", "a", "e"]));
    let c = start("c", &streams, &store, &journal);
    let status = c.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!((status.repeats_dropped, journal.data()[4].as_str()), (2, "e"));
    c.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ancestors_that_are_too_old_are_not_asked() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "hw/s0/0", records(&["a"]));
    streams.split("s0", "s1", "s2");
    streams.put("s1", "hw/s1/0", records(&["b"]));
    let a = start("a", &streams, &store, &journal);
    a.until(|status| status.delivered == 2).await.unwrap();
    a.stop().await;
    streams.put_later("s1", "hw/s1/0", records(&["a", "b"]), LATER_MS);
    let before = streams.read.load(Ordering::SeqCst);
    let b = start("b", &streams, &store, &journal);
    let status = b.until(|status| status.delivered == 2).await.unwrap();
    assert_eq!(status.repeats_dropped, 0);
    b.stop().await;
    let read = streams.read.load(Ordering::SeqCst) - before;
    // One page of its own: its first event begins at the checkpoint's record, so does the window.
    assert!(read <= 6, "{read}");
}

#[tokio::test(start_paused = true)]
async fn an_application_that_begins_in_the_middle_is_given_its_first_records() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "hw/s0/0", records(&["a"]));
    let latest = consumer("a", &streams, &store).start(headworks_consumer::Start::Latest);
    let a = Running::recording(latest.build().unwrap(), &journal);
    a.until(|status| status.is_caught_up()).await.unwrap();
    streams.put("s0", "hw/s0/0", records(&["a"]));
    let status = a.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!(status.repeats_dropped, 0);
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn looking_back_waits_for_what_passes_and_stops_at_what_does_not() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    let n = streams.put("s0", "hw/s0/0", records(&["a"]));
    store.put(Lease::new("s0".into(), Checkpoint::At(Position::new(seq(n), 0))));
    streams.put("s0", "hw/s0/0", records(&["a", "b"]));
    let operation = "GetRecords";
    let throttled = Error::Throttled { operation, message: "slow down".to_owned() };
    *streams.read_fails.lock().unwrap() = Some(throttled);
    let a = start("a", &streams, &store, &journal);
    eventually("several attempts", || streams.read.load(Ordering::SeqCst) > 5).await;
    assert_eq!(journal.len(), 0, "nothing is delivered unchecked");
    *streams.read_fails.lock().unwrap() = None;
    let status = a.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!((status.repeats_dropped, journal.data()), (1, vec!["b".to_owned()]));
    a.stop().await;

    let refused = Error::Refused { operation, message: "AccessDeniedException: no".to_owned() };
    *streams.read_fails.lock().unwrap() = Some(refused);
    streams.put("s0", "hw/s0/0", records(&["c"]));
    let b = start("b", &streams, &store, &journal);
    let error = b.task.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "kinesis-refused");
    assert!(error.to_string().contains("GetRecords"), "{error}");
    assert_eq!(journal.len(), 1);
}

/// A reproducible source of small numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Workers come and go, shards split, and most records come more than once: each is handled exactly once.
#[tokio::test(start_paused = true)]
async fn each_identity_is_handled_once_whatever_workers_and_shards_do() {
    for seed in 0..12 {
        let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
        let mut dice = Dice(seed);
        let mut open = vec!["s0".to_owned()];
        let mut homes: BTreeMap<String, String> = BTreeMap::new();
        let mut worker = start("w0", &streams, &store, &journal);
        for step in 0..60 {
            match dice.below(10) {
                0 => {
                    worker.stop().await;
                    worker = start(&format!("w{step}"), &streams, &store, &journal);
                }
                1 if open.len() < 8 => {
                    let parent = open.swap_remove(dice.below(open.len() as u64) as usize);
                    let (left, right) = (format!("{parent}l"), format!("{parent}r"));
                    streams.split(&parent, &left, &right);
                    // All of a parent's records go on in one of its children, as a key's do.
                    let heir = [&left, &right][dice.below(2) as usize].clone();
                    homes.values_mut().filter(|home| **home == parent).for_each(|home| *home = heir.clone());
                    open.extend([left, right]);
                }
                2 => tokio::time::sleep(Duration::from_millis(dice.below(3000))).await,
                _ => {
                    let name = format!("n{}", dice.below(40));
                    let home = open[dice.below(open.len() as u64) as usize].clone();
                    let home = homes.entry(name.clone()).or_insert(home);
                    streams.put(home, &format!("hw/{home}/0"), records(&[name.as_str()]));
                }
            }
        }
        eventually("every identity", || journal.len() >= homes.len()).await;
        let caught_up = worker.until(|status| status.is_caught_up()).await;
        caught_up.unwrap();
        worker.stop().await;
        let mut data = journal.data();
        data.sort();
        assert_eq!(data.len(), homes.len(), "seed {seed}: {data:?}");
        data.dedup();
        assert_eq!(data.len(), homes.len(), "seed {seed}");
    }
}

/// Workers are killed with records read ahead of their checkpoints, while most records come more than once:
/// what was not finished comes again, so that nothing is lost, and what was finished does not.
#[tokio::test(start_paused = true)]
async fn a_first_occurrence_is_never_dropped_whoever_is_killed() {
    for seed in 0..12 {
        let (streams, store, journal) = (FakeStreams::new(2), FakeStore::default(), Journal::default());
        let mut dice = Dice(seed);
        let (mut put, mut kills) = (BTreeMap::new(), 0);
        let begin = |step: u64| {
            let built = consumer(&format!("w{step}"), &streams, &store).max_batch_records(2);
            Running::recording(built.take_over_after(Duration::from_secs(1)).build().unwrap(), &journal)
        };
        let mut worker = begin(0);
        for step in 1..150 {
            match dice.below(12) {
                0 => {
                    kills += 1;
                    worker.kill().await;
                    worker = begin(step);
                }
                1 | 2 => tokio::time::sleep(Duration::from_millis(dice.below(4000))).await,
                _ => {
                    let name = format!("n{}", dice.below(120));
                    let shard = if name.len() == 2 { "s0" } else { "s1" };
                    put.insert(name.clone(), shard);
                    streams.put(shard, &format!("hw/{shard}/0"), records(&[name.as_str(), name.as_str()]));
                }
            }
        }
        let handled = || journal.data().into_iter().collect::<BTreeSet<_>>();
        eventually("every identity", || handled().len() == put.len()).await;
        worker.until(|status| status.is_caught_up()).await.unwrap();
        worker.stop().await;
        // Only what a killed worker had handled since its last checkpoint is handled again.
        assert!(kills > 0 && journal.len() - put.len() <= put.len() / 2, "seed {seed}: {}", journal.len());
    }
}
