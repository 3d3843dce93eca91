//! The event source mapping's filters, its refusal of tumbling windows, and faults of its own reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic, its helpers included"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use headworks_local::Stack;
use headworks_local::faults::Fault;
use headworks_local::lambda::{Config, FilterCriteria, Function, Handle, Mapping};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

async fn stack() -> Stack {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("inbound").shard_count(1).send().await.unwrap();
    stack
}

async fn put(stack: &Stack, records: &[(&str, &[u8])]) {
    let entries = records.iter().map(|(key, data)| {
        PutRecordsRequestEntry::builder().partition_key(*key).data(Blob::new(*data)).build().unwrap()
    });
    let call = stack.kinesis().put_records().stream_name("inbound").set_records(Some(entries.collect()));
    assert_eq!(call.send().await.unwrap().failed_record_count, Some(0));
}

/// Starts a mapping; the payloads that its function has seen are noted.
fn start(stack: &Stack, config: Config) -> (Handle, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let function = Function::from_fn("note", move |event| {
        let noted = Arc::clone(&noted);
        async move {
            let event: Value = serde_json::from_slice(&event).unwrap();
            for record in event["Records"].as_array().unwrap() {
                let data = STANDARD.decode(record["kinesis"]["data"].as_str().unwrap()).unwrap();
                noted.lock().unwrap().push(String::from_utf8_lossy(&data).into_owned());
            }
            Ok(bytes::Bytes::from_static(b"{}"))
        }
    });
    (Mapping::start(Arc::clone(stack.engine()), function.unwrap(), config).unwrap(), seen)
}

async fn idle(mapping: &Handle) {
    tokio::time::timeout(PATIENCE, mapping.wait_idle()).await.expect("idle in time").unwrap();
}

#[tokio::test]
async fn records_that_no_filter_lets_through_are_passed_over() {
    let stack = stack().await;
    put(
        &stack,
        &[
            ("a", br#"{"order":{"type":"buy","quantity":1000}}"#),
            ("b", br#"{"order":{"type":"sell","quantity":1}}"#),
            ("c", b"not JSON"),
            ("vip-1", br#"{"order":{"type":"sell"}}"#),
            ("d", br#"{"order":{"type":"buy","quantity":5}}"#),
        ],
    )
    .await;
    let filters = FilterCriteria::new([
        r#"{"data": {"order": {"type": ["buy"], "quantity": [{"numeric": [">", 10]}]}}}"#,
        r#"{"partitionKey": [{"prefix": "vip-"}]}"#,
    ])
    .unwrap();
    let (mapping, seen) = start(&stack, Config { filters, ..Config::new("inbound") });
    idle(&mapping).await;
    let expected = [r#"{"order":{"type":"buy","quantity":1000}}"#, r#"{"order":{"type":"sell"}}"#];
    assert_eq!(*seen.lock().unwrap(), expected);
    let counters = mapping.counters();
    assert_eq!((counters.records, counters.filtered, counters.invocations), (2, 3, 1));

    // The position moves past a tail that nobody gets.
    put(&stack, &[("e", b"{}"), ("f", b"plain")]).await;
    idle(&mapping).await;
    assert_eq!(mapping.counters().filtered, 5);
    assert_eq!(mapping.shards()[0].unfinished, None);
    mapping.shutdown().await;
}

#[tokio::test]
async fn a_pattern_of_plain_text_matches_plain_payloads_only() {
    let stack = stack().await;
    put(&stack, &[("a", b"hello"), ("b", b"hello world"), ("c", br#"{"hello":1}"#)]).await;
    let filters = FilterCriteria::from_json(r#"{"Filters":[{"Pattern":"{\"data\":[\"hello\"]}"}]}"#).unwrap();
    let (mapping, seen) = start(&stack, Config { filters, ..Config::new("inbound") });
    idle(&mapping).await;
    assert_eq!(*seen.lock().unwrap(), ["hello"]);
}

#[tokio::test]
async fn tumbling_windows_are_refused_with_the_remedy() {
    let stack = stack().await;
    let config = Config { tumbling_window: Duration::from_secs(30), ..Config::new("inbound") };
    let function = Function::from_fn("never", |_| async { Ok(bytes::Bytes::new()) });
    let error = Mapping::start(Arc::clone(stack.engine()), function.unwrap(), config).unwrap_err();
    assert_eq!(error.code(), "lambda-config-invalid");
    let message = error.to_string();
    assert!(
        message.contains("tumbling_window is 30s") && message.contains("state in the function"),
        "{message}"
    );
}

#[tokio::test]
async fn reads_of_the_mapping_fail_and_are_tried_again() {
    let stack = stack().await;
    let fault = |text: &str| stack.faults().add(Fault::parse(text).unwrap()).unwrap();
    let throttled = fault("get-records throttle stream=inbound times=2");
    let expired = fault("get-records expire-iterator stream=inbound times=1");
    let lost = fault("get-records lost stream=inbound times=1");
    let elsewhere = fault("get-records throttle stream=other");
    put(&stack, &[("a", b"1"), ("b", b"2")]).await;
    let config = Config { retry_backoff: Duration::from_millis(1), ..Config::new("inbound") };
    let (mapping, seen) = start(&stack, config);
    idle(&mapping).await;
    assert_eq!(*seen.lock().unwrap(), ["1", "2"]);
    assert_eq!(mapping.counters().read_failures, 2, "of several faults on one read there is one failure");
    let fired = [throttled, expired, lost, elsewhere].map(|id| stack.faults().fired(id));
    assert_eq!(fired, [2, 1, 1, 0]);
}

#[tokio::test]
async fn an_outage_holds_the_mapping_up_and_a_delay_slows_it_down() {
    let stack = stack().await;
    let config = Config {
        retry_backoff: Duration::from_millis(1),
        retry_backoff_max: Duration::from_millis(5),
        ..Config::new("inbound")
    };
    let (mapping, seen) = start(&stack, config);
    put(&stack, &[("a", b"1")]).await;
    idle(&mapping).await;
    // Of reads only: puts go on.
    let outage = Fault::parse("get-records outage stream=inbound shard=shardId-000000000000").unwrap();
    let outage = stack.faults().add(outage).unwrap();
    put(&stack, &[("b", b"2")]).await;
    let failing = async {
        while mapping.counters().read_failures < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, failing).await.expect("reads fail while there is an outage");
    assert_eq!(*seen.lock().unwrap(), ["1"]);
    stack.faults().remove(outage);
    idle(&mapping).await;
    assert_eq!(*seen.lock().unwrap(), ["1", "2"]);

    stack.faults().add(Fault::parse("get-records delay=150ms stream=inbound").unwrap()).unwrap();
    let started = Instant::now();
    put(&stack, &[("c", b"3")]).await;
    idle(&mapping).await;
    assert_eq!(*seen.lock().unwrap(), ["1", "2", "3"]);
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
}
