//! The event source mapping over the engine: batches, order, retries, resharding, give-ups.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic, its helpers included"
)]

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headworks_local::kinesis::{CreateStream, PutEntry};
use headworks_local::lambda::{
    Config, Destination, Function, FunctionError, Handle, Mapping, MappingError, StartingPosition,
};
use headworks_local::{Engine, Settings};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

fn engine(shards: u32) -> Arc<Engine> {
    let engine = Engine::new(Settings::default());
    engine
        .create_stream(CreateStream { name: "inbound".to_owned(), shards, ..CreateStream::default() })
        .unwrap();
    Arc::new(engine)
}

fn put(engine: &Engine, entries: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let entries = entries.into_iter().map(|(key, data)| PutEntry::new(key, data)).collect();
    let answers = engine.put_batch("inbound", entries).unwrap();
    answers.into_iter().map(|answer| answer.unwrap().sequence.to_string()).collect()
}

fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = (String, String)> {
    range.map(|index| (format!("key-{}", index % 7), index.to_string()))
}

/// One record as a function sees it.
#[derive(Debug, Clone)]
struct Seen {
    shard: String,
    sequence: String,
    key: String,
    data: String,
}

fn records(event: &[u8]) -> Vec<Seen> {
    let event: Value = serde_json::from_slice(event).unwrap();
    let records = event["Records"].as_array().unwrap().iter().map(|record| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (shard, sequence) = record["eventID"].as_str().unwrap().split_once(':').unwrap();
        assert_eq!(sequence, text(&record["kinesis"]["sequenceNumber"]));
        Seen {
            shard: shard.to_owned(),
            sequence: sequence.to_owned(),
            key: text(&record["kinesis"]["partitionKey"]),
            data: String::from_utf8(STANDARD.decode(text(&record["kinesis"]["data"])).unwrap()).unwrap(),
        }
    });
    records.collect()
}

fn failures<'a>(sequences: impl IntoIterator<Item = &'a str>) -> Bytes {
    let items: Vec<_> = sequences.into_iter().map(|sequence| json!({ "itemIdentifier": sequence })).collect();
    Bytes::from(json!({ "batchItemFailures": items }).to_string())
}

/// A function that notes every event it is handed and answers as `answer` says.
fn function(
    answer: impl Fn(&[Seen]) -> Result<Bytes, FunctionError> + Send + Sync + 'static,
) -> (Function, Arc<Mutex<Vec<Vec<Seen>>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&events);
    let function = Function::from_fn("test", move |event: Bytes| {
        let records = records(&event);
        let outcome = answer(&records);
        noted.lock().unwrap().push(records);
        async move { outcome }
    });
    (function.unwrap(), events)
}

fn quick(stream: &str) -> Config {
    Config {
        retry_backoff: Duration::from_millis(1),
        retry_backoff_max: Duration::from_millis(4),
        report_batch_item_failures: true,
        ..Config::new(stream)
    }
}

async fn idle(mapping: &Handle) {
    tokio::time::timeout(PATIENCE, mapping.wait_idle())
        .await
        .unwrap_or_else(|_| panic!("not idle: {:?} {:?}", mapping.counters(), mapping.shards()))
        .unwrap();
}

fn data(events: &Mutex<Vec<Vec<Seen>>>) -> Vec<Vec<String>> {
    let events = events.lock().unwrap();
    events.iter().map(|event| event.iter().map(|record| record.data.clone()).collect()).collect()
}

#[tokio::test]
async fn records_put_before_and_after_the_start_are_handed_over_in_order() {
    let engine = engine(1);
    put(&engine, numbered(0..250));
    let (function, events) = function(|_| Ok(Bytes::new()));
    let mapping = Mapping::start(Arc::clone(&engine), function, quick("inbound")).unwrap();
    idle(&mapping).await;
    put(&engine, numbered(250..260));
    idle(&mapping).await;
    let seen = data(&events);
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50, 10]);
    let expected: Vec<_> = (0..260).map(|index| index.to_string()).collect();
    assert_eq!(seen.concat(), expected);
    let counters = mapping.counters();
    assert_eq!((counters.records, counters.invocations, counters.failures), (260, 4, 0));
    assert_eq!((counters.retries, counters.iterator_age_ms), (0, 0));
    mapping.shutdown().await;
    put(&engine, numbered(260..261));
    assert!(matches!(mapping.wait_idle().await, Err(MappingError::Stopped)));
}

#[tokio::test]
async fn a_partial_failure_is_retried_from_the_lowest_sequence_number() {
    let engine = engine(1);
    let sequences = put(&engine, numbered(0..6));
    let calls = AtomicUsize::new(0);
    let (function, events) = function(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(failures([sequences[4].as_str(), &sequences[2]])),
        1 => Err(FunctionError::reported("Later", "not now")),
        2 => Ok(failures(["4961"])),
        3 => Ok(Bytes::from_static(b"[\"no batch response\"]")),
        _ => Ok(Bytes::from_static(b"{\"batchItemFailures\":null}")),
    });
    let mapping = Mapping::start(engine, function, quick("inbound")).unwrap();
    idle(&mapping).await;
    let all: Vec<_> = (0..6).map(|index| index.to_string()).collect();
    let rest = all[2..].to_vec();
    assert_eq!(data(&events), [all, rest.clone(), rest.clone(), rest.clone(), rest]);
    let counters = mapping.counters();
    assert_eq!((counters.records, counters.invocations), (6, 5));
    assert_eq!((counters.failures, counters.retries, counters.discarded), (4, 4, 0));
    mapping.shutdown().await;
}

#[tokio::test]
async fn without_partial_responses_any_answer_means_success() {
    let engine = engine(1);
    let sequences = put(&engine, numbered(0..3));
    let (function, events) = function(move |_| Ok(failures([sequences[0].as_str()])));
    let config = Config { report_batch_item_failures: false, ..quick("inbound") };
    let mapping = Mapping::start(engine, function, config).unwrap();
    idle(&mapping).await;
    assert_eq!(events.lock().unwrap().len(), 1);
    mapping.shutdown().await;
}

#[tokio::test]
async fn parents_are_finished_before_their_children_over_splits_and_merges() {
    let engine = engine(2);
    // The first parent fails for a while: its children, and the merge's child, have to wait for it.
    let failing = AtomicUsize::new(5);
    let (function, events) = function(move |records| {
        let first = records[0].shard == "shardId-000000000000";
        if first
            && failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            return Err(FunctionError::reported("Later", "not now"));
        }
        Ok(Bytes::new())
    });
    let mapping = Mapping::start(Arc::clone(&engine), function, quick("inbound")).unwrap();
    let mut total = 0;
    let mut put_some = || {
        put(&engine, (total..total + 400).map(|index| (format!("key-{}", index % 50), index.to_string())));
        total += 400;
    };
    put_some();
    engine.split_shard("inbound", "shardId-000000000000", 1 << 126).unwrap();
    put_some();
    // The right child of the split and the second shard, which are neighbours.
    engine.merge_shards("inbound", "shardId-000000000003", "shardId-000000000001").unwrap();
    put_some();
    idle(&mapping).await;

    let events = events.lock().unwrap().clone();
    let mut done = HashSet::new();
    let mut order: Vec<&str> = Vec::new();
    let mut newest: HashMap<&str, usize> = HashMap::new();
    // The failed attempts come first: they are repeats of what follows them.
    for record in events[..].iter().flatten() {
        if order.last() != Some(&record.shard.as_str()) {
            order.push(&record.shard);
        }
        done.insert(record.data.clone());
    }
    assert_eq!(done.len(), 1200);
    let last = |shard: &str| order.iter().rposition(|seen| *seen == shard).unwrap();
    let first = |shard: &str| order.iter().position(|seen| *seen == shard).unwrap();
    let id = |index: u32| format!("shardId-{index:012}");
    for (parent, child) in [(0, 2), (0, 3), (3, 4), (1, 4)] {
        assert!(last(&id(parent)) < first(&id(child)), "{parent} before {child}: {order:?}");
    }
    // Per key, first occurrences are in order across the generations.
    let mut met = HashSet::new();
    for record in events.iter().flatten().filter(|record| met.insert(record.data.clone())) {
        let index: usize = record.data.parse().unwrap();
        if let Some(before) = newest.insert(&record.key, index) {
            assert!(before < index, "key {}: {before} before {index}", record.key);
        }
    }
    let finished: Vec<_> = mapping.shards().into_iter().map(|shard| shard.finished).collect();
    assert_eq!(finished, [true, true, false, true, false]);
    mapping.shutdown().await;
}

#[tokio::test]
async fn a_parallelization_factor_overlaps_batches_and_keeps_the_order_of_every_key() {
    let engine = engine(1);
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let gate = Arc::new(tokio::sync::Barrier::new(2));
    let function = {
        let (running, most, seen) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&seen));
        let turns = AtomicUsize::new(0);
        Function::from_fn("test", move |event: Bytes| {
            let (running, most, seen, gate) =
                (Arc::clone(&running), Arc::clone(&most), Arc::clone(&seen), Arc::clone(&gate));
            let turn = turns.fetch_add(1, Ordering::SeqCst);
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                if turn < 2 {
                    // Passed only when two batches are in flight together.
                    gate.wait().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                let records = records(&event);
                // Now and then the second half fails.
                if turn % 5 == 3 {
                    let half = records.len() / 2;
                    seen.lock().unwrap().extend(records[..half].to_vec());
                    return Ok(failures([records[half].sequence.as_str()]));
                }
                seen.lock().unwrap().extend(records);
                Ok(Bytes::new())
            }
        })
    };
    put(&engine, (0..3000).map(|index| (format!("key-{}", index % 40), index.to_string())));
    let config = Config { parallelization_factor: 4, batch_size: 50, ..quick("inbound") };
    let mapping = Mapping::start(Arc::clone(&engine), function.unwrap(), config).unwrap();
    idle(&mapping).await;
    assert!((2..=4).contains(&most.load(Ordering::SeqCst)));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 3000, "every record once");
    let mut newest: HashMap<&str, usize> = HashMap::new();
    for record in seen.iter() {
        let index: usize = record.data.parse().unwrap();
        if let Some(before) = newest.insert(&record.key, index) {
            assert!(before < index, "{before} before {index}");
        }
    }
    assert!(mapping.counters().failures > 0);
    mapping.shutdown().await;
}

#[tokio::test]
async fn the_position_is_the_lowest_unfinished_record_while_another_lane_is_ahead() {
    let engine = engine(1);
    let (release, held) = tokio::sync::watch::channel(false);
    let function = Function::from_fn("test", move |event: Bytes| {
        let mut held = held.clone();
        let hold = records(&event).iter().any(|record| record.data == "0");
        async move {
            if hold {
                held.wait_for(|released| *released).await.unwrap();
            }
            Ok(Bytes::new())
        }
    });
    let sequences = put(&engine, (0..40).map(|index| (format!("key-{index}"), index.to_string())));
    let config = Config { parallelization_factor: 10, batch_size: 1, ..quick("inbound") };
    let mapping = Mapping::start(Arc::clone(&engine), function.unwrap(), config).unwrap();
    // All lanes but the held one run dry.
    let progress = async {
        while mapping.counters().records < 25 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, progress).await.unwrap();
    assert_eq!(mapping.shards()[0].unfinished.unwrap().to_string(), sequences[0]);
    assert!(tokio::time::timeout(Duration::from_millis(20), mapping.wait_idle()).await.is_err());
    release.send(true).unwrap();
    idle(&mapping).await;
    assert_eq!((mapping.shards()[0].unfinished, mapping.counters().records), (None, 40));
    mapping.shutdown().await;
}

#[tokio::test]
async fn bisecting_isolates_a_poison_record_and_the_shard_waits_for_the_destination() {
    let engine = engine(1);
    let sequences = put(&engine, numbered(0..64));
    let (function, events) = function(|records| {
        if records.iter().any(|record| record.data == "37") {
            return Err(FunctionError::reported("Poison", "cannot read record 37"));
        }
        Ok(Bytes::new())
    });
    let written = Arc::new(Mutex::new(Vec::new()));
    let destination = {
        let (written, refusals) = (Arc::clone(&written), AtomicUsize::new(0));
        Destination::from_fn("test", move |key, body: Bytes| {
            let refused = refusals.fetch_add(1, Ordering::SeqCst) < 3;
            if !refused {
                written.lock().unwrap().push((key, body));
            }
            async move { if refused { Err("no room".to_owned()) } else { Ok(()) } }
        })
    };
    let config = Config {
        max_retries: Some(1),
        bisect_on_error: true,
        on_failure: Some(destination),
        ..quick("inbound")
    };
    let mapping = Mapping::start(Arc::clone(&engine), function, config).unwrap();
    idle(&mapping).await;
    let counters = mapping.counters();
    assert_eq!((counters.records, counters.discarded), (63, 1));
    let alone =
        events.lock().unwrap().iter().filter(|event| event.len() == 1 && event[0].data == "37").count();
    assert_eq!(alone, 2, "the first attempt alone and one retry");

    let written = written.lock().unwrap().clone();
    let [(key, body)] = written.as_slice() else { panic!("{} objects", written.len()) };
    let prefix = format!("aws/lambda/{}/shardId-000000000000/20", mapping.id());
    assert!(key.starts_with(&prefix), "{key}");
    let document: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(document["requestContext"]["condition"], "RetryAttemptsExhausted");
    assert_eq!(
        document["requestContext"]["functionArn"],
        "arn:aws:lambda:us-east-1:000000000000:function:test"
    );
    let batch = &document["KinesisBatchInfo"];
    assert_eq!(batch["shardId"], "shardId-000000000000");
    assert_eq!(batch["startSequenceNumber"], *sequences[37]);
    assert_eq!(batch["endSequenceNumber"], *sequences[37]);
    assert_eq!(batch["batchSize"], 1);
    assert_eq!(batch["streamArn"], "arn:aws:kinesis:us-east-1:000000000000:stream/inbound");
    let payload = records(document["payload"].as_str().unwrap().as_bytes());
    assert_eq!(payload[0].data, "37");
    mapping.shutdown().await;
}

#[tokio::test]
async fn a_record_too_large_for_any_event_fails_alone() {
    let engine = engine(1);
    put(&engine, numbered(0..3));
    put(&engine, [("big".to_owned(), "x".repeat(4000))]);
    put(&engine, numbered(3..6));
    let (function, events) = function(|_| Ok(Bytes::new()));
    let config = Config { max_event_bytes: 4096, max_retries: Some(1), ..quick("inbound") };
    let mapping = Mapping::start(engine, function, config).unwrap();
    idle(&mapping).await;
    assert_eq!(data(&events).concat(), ["0", "1", "2", "3", "4", "5"]);
    let counters = mapping.counters();
    assert_eq!((counters.records, counters.discarded, counters.failures), (6, 1, 2));
    mapping.shutdown().await;
}

#[tokio::test]
async fn starting_positions() {
    let engine = engine(1);
    put(&engine, numbered(0..2));
    engine.update_shard_count("inbound", 2).unwrap();
    put(&engine, numbered(2..4));
    let mut mappings = Vec::new();
    let now = engine.now_ms();
    for position in
        [StartingPosition::TrimHorizon, StartingPosition::Latest, StartingPosition::AtTimestamp(now - 60_000)]
    {
        let (function, events) = function(|_| Ok(Bytes::new()));
        let config = Config { starting_position: position, ..quick("inbound") };
        mappings.push((Mapping::start(Arc::clone(&engine), function, config).unwrap(), events));
    }
    put(&engine, numbered(4..6));
    for ((mapping, events), expected) in mappings.into_iter().zip([0..6, 4..6, 0..6]) {
        idle(&mapping).await;
        let mut seen: Vec<usize> = data(&events).concat().iter().map(|data| data.parse().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, expected.collect::<Vec<_>>());
        mapping.shutdown().await;
    }
}

#[tokio::test]
async fn a_deleted_stream_ends_the_mapping_with_a_reason() {
    let engine = engine(1);
    let (function, _) = function(|_| Err(FunctionError::reported("Never", "never")));
    let mapping = Mapping::start(Arc::clone(&engine), function, quick("inbound")).unwrap();
    put(&engine, numbered(0..1));
    let waiting = {
        let mapping = mapping.clone();
        tokio::spawn(async move { mapping.wait_idle().await })
    };
    while mapping.counters().failures == 0 {
        tokio::task::yield_now().await;
    }
    engine.delete_stream("inbound", true).unwrap();
    let error = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.code(), "mapping-stream-unreadable", "{error}");
    mapping.shutdown().await;
}

#[tokio::test]
async fn shutting_down_lets_an_invocation_finish_and_starts_no_other() {
    let engine = engine(1);
    put(&engine, numbered(0..10));
    let (started, mut begun) = tokio::sync::mpsc::channel(8);
    let (release, held) = tokio::sync::watch::channel(false);
    let function = Function::from_fn("test", move |_| {
        let (started, mut held) = (started.clone(), held.clone());
        async move {
            started.send(()).await.unwrap();
            held.wait_for(|released| *released).await.unwrap();
            Ok(Bytes::new())
        }
    });
    let config = Config { batch_size: 5, ..quick("inbound") };
    let mapping = Mapping::start(Arc::clone(&engine), function.unwrap(), config).unwrap();
    begun.recv().await.unwrap();
    let stopping = {
        let mapping = mapping.clone();
        tokio::spawn(async move { mapping.shutdown().await })
    };
    tokio::task::yield_now().await;
    assert!(!stopping.is_finished());
    release.send(true).unwrap();
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    assert_eq!((mapping.counters().records, mapping.counters().invocations), (5, 1));
    assert!(mapping.shards()[0].unfinished.is_some());
}

#[tokio::test]
async fn a_hundred_thousand_records_pass() {
    let engine = engine(4);
    let payload = "x".repeat(200);
    let (count, function) = {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        // Counts the records without parsing: the mapping is under test here, not the JSON reader.
        let function = Function::from_fn("test", move |event: Bytes| {
            let records = event.windows(10).filter(|window| *window == b"\"eventID\":").count();
            counted.fetch_add(records, Ordering::Relaxed);
            async { Ok(Bytes::new()) }
        });
        (count, function.unwrap())
    };
    let config = Config { batch_size: 10_000, parallelization_factor: 2, ..quick("inbound") };
    let mapping = Mapping::start(Arc::clone(&engine), function, config).unwrap();
    for call in 0..200 {
        put(&engine, (0..500).map(|index| (format!("key-{}", call * 500 + index), payload.clone())));
        tokio::task::yield_now().await;
    }
    idle(&mapping).await;
    assert_eq!(count.load(Ordering::Relaxed), 100_000);
    assert_eq!(mapping.counters().records, 100_000);
    mapping.shutdown().await;
}

#[tokio::test]
async fn bad_configuration_and_a_missing_stream_are_named() {
    let engine = engine(1);
    let (function, _) = function(|_| Ok(Bytes::new()));
    let start = |config| Mapping::start(Arc::clone(&engine), function.clone(), config).unwrap_err();
    let base = || Config::new("inbound");
    for (field, config) in [
        ("batch_size", Config { batch_size: 0, ..base() }),
        ("batch_size", Config { batch_size: 10_001, ..base() }),
        ("batching_window", Config { batching_window: Duration::from_secs(301), ..base() }),
        ("parallelization_factor", Config { parallelization_factor: 11, ..base() }),
        ("max_retries", Config { max_retries: Some(10_001), ..base() }),
        ("max_record_age", Config { max_record_age: Some(Duration::from_secs(59)), ..base() }),
        ("retry_backoff", Config { retry_backoff: Duration::from_secs(31), ..base() }),
        ("stream", Config::new("")),
    ] {
        let MappingError::Config(error) = start(config) else { panic!("{field}") };
        assert_eq!(error.field, field, "{error}");
    }
    let error = start(Config::new("nowhere"));
    assert_eq!(error.code(), "mapping-stream-unreadable");
    assert!(error.to_string().contains("nowhere"), "{error}");
}
