//! What handlers are promised: dead letters, handlers side by side by key, checkpoints by hand, in paused
//! time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on panics

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headworks_consumer::dead_letter::{self, DeadLetter, DeadLetters};
use headworks_consumer::{
    Batch, Checkpoint, CheckpointError, Checkpointing, Closing, Consumer, Handler, HandlerError,
    HandlerRetry, OnFailure, Opening, Position, Undecodable,
};
use support::{FakeStore, FakeStreams, Journal, Running, eventually, seq};

fn consumer(streams: &FakeStreams, store: &FakeStore) -> headworks_consumer::Builder {
    Consumer::builder("app", "orders")
        .worker_id("a")
        .streams(Arc::new(streams.clone()))
        .lease_store(Arc::new(store.clone()))
}

fn at(n: u64, sub: i64) -> Checkpoint {
    Checkpoint::At(Position::new(seq(n), sub))
}

/// Keeps letters, unless it is told to be away.
#[derive(Debug, Clone, Default)]
struct Letters {
    kept: Arc<Mutex<Vec<DeadLetter>>>,
    away: Arc<AtomicBool>,
    refuses: bool,
}

#[async_trait]
impl DeadLetters for Letters {
    async fn write(&self, letter: &DeadLetter) -> Result<(), dead_letter::Error> {
        let (target, origin, reason) = ("a box".to_owned(), letter.origin(), "away".to_owned());
        if self.refuses {
            return Err(dead_letter::Error::Refused { target, origin, reason });
        }
        if self.away.load(Ordering::SeqCst) {
            return Err(dead_letter::Error::Unavailable { target, origin, reason });
        }
        self.kept.lock().unwrap().push(letter.clone());
        Ok(())
    }
}

impl Letters {
    fn data(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        kept.iter().map(|l| String::from_utf8_lossy(&l.delivered.record.data).into_owned()).collect()
    }
}

/// Fails on records that begin with `bad`, panics on those that begin with `worse`.
struct Picky {
    journal: Journal,
    attempts: Arc<AtomicUsize>,
}

impl Handler for Picky {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        for delivered in &batch {
            let data = &delivered.record.data;
            assert!(!data.starts_with(b"worse"), "out of luck");
            if data.starts_with(b"bad") {
                return Err(std::io::Error::other("cannot be read").into());
            }
        }
        self.journal.add("a", &batch);
        Ok(())
    }
}

fn picky(built: headworks_consumer::Builder, journal: &Journal) -> (Running, Arc<AtomicUsize>) {
    let (journal, attempts) = (journal.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = attempts.clone();
    let retry = HandlerRetry { attempts: 3, ..HandlerRetry::default() };
    let built = built.handler_retry(retry).build().unwrap();
    let factory = move |_: &_| Picky { journal: journal.clone(), attempts: counted.clone() };
    (Running::start(built, factory), attempts)
}

#[tokio::test(start_paused = true)]
async fn only_the_records_that_fail_become_dead_letters() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    for i in 0..10 {
        let data = match i {
            3 => "bad".to_owned(),
            7 => "worse".to_owned(),
            i => i.to_string(),
        };
        streams.put("s0", "k", data);
    }
    let letters = Letters::default();
    let built = consumer(&streams, &store).on_failure(OnFailure::DeadLetter);
    let (running, _) = picky(built.dead_letters(Arc::new(letters.clone())), &journal);
    let status = running.until(|status| status.delivered == 8).await.unwrap();
    assert_eq!(journal.data(), ["0", "1", "2", "4", "5", "6", "8", "9"], "each once, in order");
    assert_eq!(letters.data(), ["bad", "worse"]);
    assert_eq!(status.dead_letters, 2);
    let kept = letters.kept.lock().unwrap().clone();
    assert_eq!((kept[0].code.as_str(), kept[0].attempts), ("handler-failed", 3));
    assert!(kept[0].message.contains("cannot be read") && kept[1].message.contains("panicked: out of luck"));
    assert_eq!(kept[1].origin(), "orders/s0/108-0");
    running.stop().await;
    assert_eq!(store.get("s0").unwrap().checkpoint, at(110, 0));
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_waits_for_the_letter() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "k", "bad");
    streams.put("s0", "k", "good");
    let letters = Letters::default();
    letters.away.store(true, Ordering::SeqCst);
    let built = consumer(&streams, &store).on_failure(OnFailure::DeadLetter).max_batch_records(1);
    let (running, _) = picky(built.dead_letters(Arc::new(letters.clone())), &journal);
    running.until(|status| status.handler_failures >= 3).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(store.get("s0").unwrap().checkpoint, Checkpoint::At(Position::before(seq(101))));
    assert!(journal.data().is_empty(), "the shard waits");
    letters.away.store(false, Ordering::SeqCst);
    running.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!((letters.data(), journal.data()), (vec!["bad".to_owned()], vec!["good".to_owned()]));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_refused_stops_the_consumer_in_front_of_its_record() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "k", "bad");
    let letters = Letters { refuses: true, ..Letters::default() };
    let built = consumer(&streams, &store).on_failure(OnFailure::DeadLetter);
    let (running, _) = picky(built.dead_letters(Arc::new(letters)), &journal);
    let error = running.task.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "dead-letter-not-written");
    assert!(error.to_string().contains("orders/s0/101-0"), "{error}");
    assert_eq!(store.get("s0").unwrap().checkpoint, Checkpoint::At(Position::before(seq(101))));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_apart_becomes_a_letter_and_reading_goes_on() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "k", "before");
    streams.put("s0", "", "no key");
    streams.put("s0", "k", "after");
    let letters = Letters::default();
    let built = consumer(&streams, &store).configure(|c| c.undecodable = Undecodable::DeadLetter);
    let (running, _) = picky(built.dead_letters(Arc::new(letters.clone())), &journal);
    running.until(|status| status.delivered == 2 && status.dead_letters == 1).await.unwrap();
    assert_eq!(letters.data(), ["no key"]);
    let letter = letters.kept.lock().unwrap()[0].clone();
    assert_eq!((letter.code.as_str(), letter.whole, letter.attempts), ("key-empty", true, 0));
    running.stop().await;
    assert_eq!(store.get("s0").unwrap().checkpoint, at(103, 0));
}

#[test]
fn dead_letters_without_a_place_are_refused_at_once() {
    for built in [
        consumer(&FakeStreams::new(1), &FakeStore::default()).on_failure(OnFailure::DeadLetter),
        consumer(&FakeStreams::new(1), &FakeStore::default())
            .configure(|c| c.undecodable = Undecodable::DeadLetter),
    ] {
        let error = built.build().unwrap_err();
        assert!(error.to_string().contains("`dead_letters`"), "{error}");
    }
}

/// Takes a second for each record; counts how many work at once.
struct Slow {
    journal: Journal,
    working: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    held: Arc<AtomicBool>,
}

impl Handler for Slow {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        let now = self.working.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        for delivered in &batch {
            while self.held.load(Ordering::SeqCst) && delivered.record.data == "held" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.journal.add("a", &batch);
        self.working.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_worked_on_side_by_side_each_in_order() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    for i in 0..200 {
        streams.put("s0", &format!("key-{}", i % 20), i.to_string());
    }
    let (working, most, held) = (Arc::default(), Arc::new(AtomicUsize::new(0)), Arc::default());
    let built = consumer(&streams, &store).parallelism(8).configure(|c| c.max_unacknowledged = 60);
    let running = Running::start(built.build().unwrap(), {
        let (journal, most) = (journal.clone(), most.clone());
        move |_| Slow {
            journal: journal.clone(),
            working: Arc::clone(&working),
            most: most.clone(),
            held: Arc::clone(&held),
        }
    });
    running.until(|status| status.delivered == 200).await.unwrap();
    assert!(most.load(Ordering::SeqCst) > 4, "{most:?} handlers at once");
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for seen in journal.all() {
        found.entry(seen.key).or_default().push(seen.data.parse().unwrap());
    }
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), 200);
    for (key, order) in found {
        assert!(order.is_sorted(), "{key}: {order:?}");
    }
    running.stop().await;
    assert_eq!(store.get("s0").unwrap().checkpoint, at(300, 0));
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_stays_in_front_of_the_slowest_key() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    streams.put("s0", "key-0", "first");
    streams.put("s0", "key-1", "held");
    for i in 2..40 {
        streams.put("s0", &format!("key-{i}"), i.to_string());
    }
    let held = Arc::new(AtomicBool::new(true));
    let begin = || {
        let built = consumer(&streams, &store).parallelism(8).build().unwrap();
        let (journal, held) = (journal.clone(), held.clone());
        Running::start(built, move |_| Slow {
            journal: journal.clone(),
            working: Arc::default(),
            most: Arc::default(),
            held: held.clone(),
        })
    };
    let running = begin();
    // All that does not share the held record's lane gets through.
    eventually("the others", || journal.len() >= 30).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.get("s0").unwrap().checkpoint, at(101, 0));
    running.kill().await;
    held.store(false, Ordering::SeqCst);
    let running = begin();
    eventually("the held one", || journal.data().contains(&"held".to_owned())).await;
    eventually("its checkpoint", || store.get("s0").unwrap().checkpoint == at(140, 0)).await;
    let distinct: BTreeSet<String> = journal.data().into_iter().collect();
    assert_eq!(distinct.len(), 40, "nothing is lost");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_fails_stops_the_consumer_with_its_record() {
    let (streams, store, journal) = (FakeStreams::new(1), FakeStore::default(), Journal::default());
    for i in 0..30 {
        let data = if i == 17 { "bad".to_owned() } else { i.to_string() };
        streams.put("s0", &format!("key-{i}"), data);
    }
    let (running, _) = picky(consumer(&streams, &store).parallelism(4).max_batch_records(1), &journal);
    let error = running.task.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "handler-failed");
    assert!(error.to_string().contains("begins at 118"), "{error}");
    let Checkpoint::At(position) = store.get("s0").unwrap().checkpoint else { panic!("a position") };
    assert!(position < Position::new(seq(118), 0));
}

/// Checkpoints by hand: announces each batch, notes what it found at its opening.
struct ByHand {
    seen: Arc<Mutex<Vec<String>>>,
    opening: Option<Opening>,
    commits: bool,
}

impl Handler for ByHand {
    async fn open(&mut self, opening: Opening) -> Result<(), HandlerError> {
        let pending = opening.pending.as_ref().map(|pending| {
            let state = pending.state.as_deref().unwrap_or_default();
            format!("{}:{}", pending.position.sequence, String::from_utf8_lossy(state))
        });
        self.seen.lock().unwrap().push(format!("open {}", pending.unwrap_or_default()));
        self.opening = Some(opening);
        Ok(())
    }

    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        let checkpoints = &self.opening.as_ref().unwrap().checkpoints;
        let beyond = Position::new(seq(999), 0);
        let error = checkpoints.write(beyond).await.unwrap_err();
        assert!(matches!(error, CheckpointError::NotDelivered { .. }), "{error}");
        let file = Bytes::from(format!("file-{}", batch.end().sequence));
        let prepared = checkpoints.prepare(batch.end().clone(), Some(file)).await?;
        if self.commits {
            prepared.commit().await?;
        }
        let data = batch.iter().map(|d| String::from_utf8_lossy(&d.record.data).into_owned());
        self.seen.lock().unwrap().extend(data);
        Ok(())
    }

    async fn close(&mut self, closing: Closing) -> Result<(), HandlerError> {
        self.seen.lock().unwrap().push(format!("close {closing:?}"));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn checkpoints_by_hand_are_announced_and_committed() {
    let (streams, store) = (FakeStreams::new(1), FakeStore::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let begin = |commits| {
        let built = consumer(&streams, &store).configure(|c| c.checkpointing = Checkpointing::Manual);
        let seen = seen.clone();
        Running::start(built.build().unwrap(), move |_| ByHand { seen: seen.clone(), opening: None, commits })
    };
    let one = begin(true);
    streams.put("s0", "k", "0");
    one.until(|status| status.delivered == 1).await.unwrap();
    assert_eq!((store.get("s0").unwrap().checkpoint, store.get("s0").unwrap().pending), (at(101, 0), None));
    one.stop().await;
    // One that announces and dies: its successor is told, and gets the records again.
    let two = begin(false);
    streams.put("s0", "k", "1");
    two.until(|status| status.delivered == 1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.get("s0").unwrap().checkpoint, at(101, 0), "nobody else writes it");
    two.kill().await;
    let three = begin(true);
    three.until(|status| status.delivered == 1).await.unwrap();
    streams.split("s0", "s1", "s2");
    eventually("the end", || store.get("s0").unwrap().checkpoint == Checkpoint::ShardEnd).await;
    three.stop().await;
    let seen = seen.lock().unwrap().clone();
    let expected = ["open ", "0", "close Released", "open ", "1", "open 102:file-102", "1", "close ShardEnd"];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn per_batch_checkpoints_are_written_before_the_next_batch() {
    struct Looks {
        store: FakeStore,
        before: Option<Position>,
    }
    impl Handler for Looks {
        async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
            if let Some(before) = self.before.replace(batch.end().clone()) {
                assert_eq!(self.store.get("s0").unwrap().checkpoint, Checkpoint::At(before));
            }
            Ok(())
        }
    }
    let (streams, store) = (FakeStreams::new(1), FakeStore::default());
    for i in 0..20 {
        streams.put("s0", "k", i.to_string());
    }
    let built = consumer(&streams, &store).max_batch_records(3).configure(|c| {
        c.checkpointing = Checkpointing::PerBatch;
        c.checkpoint_interval = Duration::from_secs(3600);
    });
    let looks = store.clone();
    let running =
        Running::start(built.build().unwrap(), move |_| Looks { store: looks.clone(), before: None });
    let status = running.until(|status| status.delivered == 20).await.unwrap();
    assert_eq!(status.handler_failures, 0);
    running.stop().await;
}
