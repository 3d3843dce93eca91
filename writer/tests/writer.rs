//! What the writer promises, one promise at a time, in paused time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{MemoryStream, Misbehaviour, Rule, first_occurrences, numbered};
use headworks_record::aggregate::looks_aggregated;
use headworks_record::{HashKey, Record};
use headworks_writer::{Config, Failure, Fault, Handle, Put, Refused, Writer};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct Running {
    stream: MemoryStream,
    writer: Handle,
    shutdown: CancellationToken,
    service: JoinHandle<headworks_writer::Report>,
}

async fn start(shards: u128, config: Config) -> Running {
    let stream = MemoryStream::new(shards, 1);
    let (service, writer) = Writer::start(config, stream.clone(), Default::default()).await.unwrap();
    let shutdown = CancellationToken::new();
    let service = tokio::spawn(service.run(shutdown.clone()));
    Running { stream, writer, shutdown, service }
}

fn puts(key: &str, numbers: std::ops::Range<u32>) -> Vec<Put> {
    numbers.map(|n| Put::new(numbered(key, n))).collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_lane_sends_at_once_and_a_busy_one_lingers() {
    let running = start(1, Config { linger_ms: 1000, ..Config::default() }).await;
    let begin = Instant::now();
    running.writer.put(puts("k", 0..1)).await.unwrap().await;
    assert!(begin.elapsed() < Duration::from_millis(10), "{:?}", begin.elapsed());
    let first = running.writer.put(puts("k", 1..2)).await.unwrap();
    let second = running.writer.put(puts("k", 2..3)).await.unwrap();
    let (first, second) = (first.await, second.await);
    assert!(begin.elapsed() >= Duration::from_millis(1000));
    let (first, second) = (first[0].as_ref().unwrap(), second[0].as_ref().unwrap());
    assert_eq!(first.sequence_number, second.sequence_number, "both in one aggregate");
    assert_eq!((first.sub_sequence_number, second.sub_sequence_number), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn one_call_carries_many_lanes() {
    let running = start(40, Config::default()).await;
    let batch = (0..400u32)
        .map(|n| {
            let mut record = numbered("k", n);
            record.explicit_hash_key = Some(HashKey(u128::MAX / 400 * u128::from(n)));
            Put::new(record)
        })
        .collect();
    for outcome in running.writer.put(batch).await.unwrap().await {
        outcome.unwrap();
    }
    assert_eq!(running.stream.with(|state| state.calls.clone()), [40]);
    assert_eq!(running.writer.stats().entries, 40);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_lane_holds_nobody_else() {
    let running = start(2, Config::default()).await;
    running.stream.with(|state| state.throttle_label = Some("shardId-000000000000".into()));
    let low = Record::builder("k").unwrap().header("a", "b").unwrap().explicit_hash_key(HashKey(0)).build();
    let high = Record { explicit_hash_key: Some(HashKey::MAX), ..low.clone() };
    let stuck = running.writer.put(vec![Put::new(low)]).await.unwrap();
    for _ in 0..10 {
        let outcomes = running.writer.put(vec![Put::new(high.clone())]).await.unwrap().await;
        assert_eq!(outcomes[0].as_ref().unwrap().attempts, 1);
    }
    running.stream.with(|state| state.throttle_label = None);
    let outcome = stuck.await.remove(0).unwrap();
    assert!(outcome.attempts > 1, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_holds_its_own_lanes_alone() {
    let patient = Config { attempt_timeout_ms: 300_000, deadline_ms: 600_000, ..Config::default() };
    let running = start(3, patient).await;
    running.stream.with(|state| state.straggling_label = Some("shardId-000000000000".into()));
    let of = |hash, n| {
        let mut record = numbered("k", n);
        record.explicit_hash_key = Some(HashKey(hash));
        vec![Put::new(record)]
    };
    let begin = Instant::now();
    let straggler = running.writer.put(of(0, 0)).await.unwrap();
    while running.stream.with(|state| state.calls.is_empty()) {
        tokio::task::yield_now().await;
    }
    let behind = running.writer.put(of(1, 1)).await.unwrap();
    for n in 0..20 {
        for hash in [u128::MAX / 2, u128::MAX] {
            assert!(running.writer.put(of(hash, n)).await.unwrap().await[0].is_ok());
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert_eq!(running.writer.stats().stored, 40);
    let first = straggler.await.remove(0).unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(60));
    // What was given after it in its lane went after it.
    let second = behind.await.remove(0).unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(120));
    assert!(first.sequence_number.parse::<u64>().unwrap() < second.sequence_number.parse().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_says_whether_the_record_may_be_stored() {
    let running = start(1, Config { deadline_ms: 500, ..Config::default() }).await;
    running.stream.with(|state| state.misbehaviour = Misbehaviour { refuse_call: 1.0, ..Default::default() });
    let failure = running.writer.put(puts("k", 0..1)).await.unwrap().await.remove(0).unwrap_err();
    assert!(matches!(failure, Failure::DeadlineExceeded { attempts: 2.., .. }), "{failure:?}");
    assert!(failure.is_retryable() && !failure.outcome_unknown());

    running.stream.with(|state| {
        state.misbehaviour = Misbehaviour { commit_without_answer: 1.0, ..Default::default() };
    });
    let failure = running.writer.put(puts("k", 1..2)).await.unwrap().await.remove(0).unwrap_err();
    assert!(failure.outcome_unknown(), "{failure:?}");
    assert!(!running.stream.read(Rule::Ours)["k"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_pause_of_an_expired_record_is_not_its_successors() {
    let config = Config { deadline_ms: 300, backoff_ms: 60_000, max_backoff_ms: 60_000, ..Config::default() };
    let running = start(1, config).await;
    running.stream.with(|state| state.misbehaviour.refuse_call = 1.0);
    for number in 0..20 {
        let failure =
            running.writer.put(puts("k", number..number + 1)).await.unwrap().await.remove(0).unwrap_err();
        assert!(matches!(failure, Failure::DeadlineExceeded { attempts: 1.., .. }), "{number}: {failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_record_leaves_its_neighbours_in_place() {
    let running = start(1, Config::default()).await;
    running.stream.with(|state| state.misbehaviour.refuse_call = 1.0);
    let mut batch = puts("k", 0..3);
    batch[1].deadline = Some(Instant::now() + Duration::from_millis(300));
    let ticket = running.writer.put(batch).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.stream.with(|state| state.misbehaviour.refuse_call = 0.0);
    let outcomes = ticket.await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    assert_eq!(outcomes[1].as_ref().unwrap_err().code(), "deadline-exceeded");
    assert_eq!(first_occurrences(&running.stream.read(Rule::Ours)["k"]), [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_fails_at_once_and_access_trouble_is_tried() {
    let running = start(1, Config { deadline_ms: 3_000, ..Config::default() }).await;
    running.stream.with(|state| state.refuse_all = Some((Fault::Permanent, "ResourceNotFoundException")));
    let failure = running.writer.put(puts("k", 0..1)).await.unwrap().await.remove(0).unwrap_err();
    assert_eq!(failure.code(), "stream-refused");
    assert!(!failure.is_retryable());
    running.stream.with(|state| state.refuse_all = Some((Fault::Access, "AccessDeniedException")));
    let failure = running.writer.put(puts("k", 0..1)).await.unwrap().await.remove(0).unwrap_err();
    assert_eq!(failure.code(), "deadline-exceeded");
    assert!(failure.to_string().contains("AccessDeniedException"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn the_byte_budget_bounds_what_is_taken() {
    let config = Config { max_buffered_bytes: 2 << 20, ..Config::default() };
    let running = start(1, config).await;
    running.stream.with(|state| state.misbehaviour.refuse_call = 1.0);
    let big = || vec![Put::new(Record::builder("k").unwrap().data(vec![0; 900 << 10]).build())];
    let first = running.writer.try_put(big()).await.unwrap();
    let _second = running.writer.try_put(big()).await.unwrap();
    let refused = running.writer.try_put(big()).await.unwrap_err();
    assert!(matches!(refused, Refused::Full { limit, .. } if limit == 2 << 20), "{refused:?}");
    assert!(running.writer.buffered_bytes() <= 2 << 20);
    running.stream.with(|state| state.misbehaviour.refuse_call = 0.0);
    first.await.remove(0).unwrap();
    running.writer.put(big()).await.unwrap().await.remove(0).unwrap();
    let batch: Vec<Put> = big().into_iter().chain(big()).chain(big()).collect();
    assert_eq!(running.writer.put(batch).await.unwrap_err().code(), "batch-too-large");
}

#[tokio::test(start_paused = true)]
async fn both_sides_of_the_record_limit() {
    let running = start(1, Config { max_record_bytes: 100_000, ..Config::default() }).await;
    let sized = |bytes: usize| vec![Put::new(Record::builder("k").unwrap().data(vec![1; bytes]).build())];
    running.writer.put(sized(99_000)).await.unwrap().await.remove(0).unwrap();
    let failure = running.writer.put(sized(100_000)).await.unwrap().await.remove(0).unwrap_err();
    assert_eq!(failure.code(), "record-too-large");
    assert!(failure.to_string().contains("the limit is 100000"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_lone_record_is_wrapped_whatever_it_holds() {
    let running = start(1, Config::default()).await;
    for data in [&b"plain"[..], b"", &[0xF3, 0x89, 0x9A, 0xC2, 1]] {
        let record = Record::builder("k").unwrap().data(data).build();
        running.writer.put(vec![Put::new(record)]).await.unwrap().await.remove(0).unwrap();
    }
    running.stream.with(|state| {
        for entry in &state.shards[0].entries {
            assert_eq!(&*entry.partition_key, "hw/shardId-000000000000/0");
            assert!(looks_aggregated(&entry.data));
        }
    });
    let read: Vec<Vec<u8>> = running.stream.read(Rule::Ours)["k"].iter().map(|r| r.data.to_vec()).collect();
    assert_eq!(read, [b"plain".to_vec(), vec![], vec![0xF3, 0x89, 0x9A, 0xC2, 1]]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_drains_and_says_what_remains() {
    let running = start(1, Config { linger_ms: 5_000, drain_ms: 2_000, ..Config::default() }).await;
    let ticket = running.writer.put(puts("k", 0..5)).await.unwrap();
    running.shutdown.cancel();
    assert!(ticket.await.iter().all(Result::is_ok));
    assert_eq!(running.service.await.unwrap().unanswered, 0);
    assert_eq!(running.writer.put(puts("k", 5..6)).await.unwrap_err().code(), "writer-stopped");

    let running = start(1, Config { drain_ms: 2_000, ..Config::default() }).await;
    running.stream.with(|state| state.misbehaviour.refuse_call = 1.0);
    let ticket = running.writer.put(puts("k", 0..5)).await.unwrap();
    running.shutdown.cancel();
    assert!(ticket.await.iter().all(|outcome| matches!(outcome, Err(Failure::Stopped))));
    assert_eq!(running.service.await.unwrap().unanswered, 5);
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_everything_and_does_not_linger() {
    let running = start(1, Config { linger_ms: 10_000, ..Config::default() }).await;
    running.writer.put(puts("k", 0..1)).await.unwrap().await;
    let begin = Instant::now();
    let ticket = running.writer.put(puts("k", 1..9)).await.unwrap();
    running.writer.drain().await;
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(ticket.await.len(), 8);
    assert_eq!(running.writer.stats().stored, 9);
}
