//! Records that the mapping gives up, on the whole stack: put over the wire, found in S3 over the wire.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic, its helpers included"
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headworks_local::Stack;
use headworks_local::kinesis::{CreateStream, PutEntry};
use headworks_local::lambda::{Config, Destination, Function, FunctionError, Mapping};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn payloads(event: &Value) -> Vec<String> {
    let records = event["Records"].as_array().unwrap().iter();
    let decode = |record: &Value| STANDARD.decode(record["kinesis"]["data"].as_str().unwrap()).unwrap();
    records.map(|record| String::from_utf8(decode(record)).unwrap()).collect()
}

async fn stack() -> Stack {
    let stack = headworks_local::start().await.unwrap();
    let stream = CreateStream { name: "inbound".to_owned(), shards: 1, ..CreateStream::default() };
    stack.engine().create_stream(stream).unwrap();
    stack
}

/// Keeps what it processed; one record is poison.
fn fussy(poison: &'static str) -> (Function, Arc<Mutex<Vec<String>>>) {
    let processed = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&processed);
    let function = Function::from_fn("fussy", move |event: Bytes| {
        let payloads = payloads(&serde_json::from_slice(&event).unwrap());
        let outcome = if payloads.iter().any(|payload| payload == poison) {
            Err(FunctionError::reported("Poison", "cannot read it"))
        } else {
            kept.lock().unwrap().extend(payloads);
            Ok(Bytes::new())
        };
        async move { outcome }
    });
    (function.unwrap(), processed)
}

fn config(stack: &Stack) -> Config {
    Config {
        max_retries: Some(2),
        bisect_on_error: true,
        retry_backoff: Duration::from_millis(1),
        retry_backoff_max: Duration::from_millis(5),
        on_failure: Some(Destination::s3(stack.s3(), "failures")),
        ..Config::new("inbound")
    }
}

#[tokio::test]
async fn a_poison_record_ends_up_alone_in_s3() {
    let stack = stack().await;
    stack.s3().create_bucket().bucket("failures").send().await.unwrap();
    let mut poison_sequence = String::new();
    for index in 0..20 {
        let data = if index == 13 { "poison".to_owned() } else { index.to_string() };
        let put = stack
            .kinesis()
            .put_record()
            .stream_name("inbound")
            .partition_key(format!("key-{index}"))
            .data(aws_sdk_kinesis::primitives::Blob::new(data))
            .send()
            .await
            .unwrap();
        if index == 13 {
            poison_sequence = put.sequence_number;
        }
    }
    let (function, processed) = fussy("poison");
    let mapping = Mapping::start(Arc::clone(stack.engine()), function, config(&stack)).unwrap();
    tokio::time::timeout(PATIENCE, mapping.wait_idle()).await.unwrap().unwrap();
    let expected: Vec<_> = (0..20).filter(|index| *index != 13).map(|index| index.to_string()).collect();
    assert_eq!(*processed.lock().unwrap(), expected);
    assert_eq!((mapping.counters().records, mapping.counters().discarded), (19, 1));

    let prefix = format!("aws/lambda/{}/shardId-000000000000/", mapping.id());
    let listed = stack.s3().list_objects_v2().bucket("failures").prefix(prefix).send().await.unwrap();
    let [object] = listed.contents() else { panic!("{listed:?}") };
    let object = stack.s3().get_object().bucket("failures").key(object.key().unwrap()).send().await.unwrap();
    let document: Value = serde_json::from_slice(&object.body.collect().await.unwrap().into_bytes()).unwrap();
    assert_eq!(document["requestContext"]["condition"], "RetryAttemptsExhausted");
    assert_eq!(document["KinesisBatchInfo"]["batchSize"], 1);
    assert_eq!(document["KinesisBatchInfo"]["startSequenceNumber"], *poison_sequence);
    assert_eq!(document["KinesisBatchInfo"]["endSequenceNumber"], *poison_sequence);
    let event: Value = serde_json::from_str(document["payload"].as_str().unwrap()).unwrap();
    assert_eq!(payloads(&event), ["poison"]);
    mapping.shutdown().await;
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_shard_waits_until_the_destination_takes_the_record() {
    let stack = stack().await;
    stack.s3().create_bucket().bucket("failures").send().await.unwrap();
    for data in ["poison", "after"] {
        stack.engine().put("inbound", PutEntry::new("key", data)).unwrap();
    }
    let (function, processed) = fussy("poison");
    let open = Arc::new(AtomicBool::new(false));
    let refusals = Arc::new(AtomicUsize::new(0));
    let destination = {
        let (s3, open, refusals) = (stack.s3(), Arc::clone(&open), Arc::clone(&refusals));
        Destination::from_fn("failures", move |key, body: Bytes| {
            let put = open
                .load(Ordering::SeqCst)
                .then(|| s3.put_object().bucket("failures").key(key).body(body.into()));
            let refusals = Arc::clone(&refusals);
            async move {
                let Some(put) = put else {
                    refusals.fetch_add(1, Ordering::SeqCst);
                    return Err("access denied".to_owned());
                };
                put.send().await.map(drop).map_err(|error| error.to_string())
            }
        })
    };
    let config = Config { on_failure: Some(destination), ..config(&stack) };
    let mapping = Mapping::start(Arc::clone(stack.engine()), function, config).unwrap();
    let wait_for_refusals = async {
        while refusals.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait_for_refusals).await.unwrap();
    assert!(processed.lock().unwrap().is_empty(), "the record behind the poison has to wait");
    assert_eq!(mapping.counters().discarded, 0);
    open.store(true, Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, mapping.wait_idle()).await.unwrap().unwrap();
    assert_eq!(*processed.lock().unwrap(), ["after"]);
    assert_eq!(mapping.counters().discarded, 1);
    let listed = stack.s3().list_objects_v2().bucket("failures").send().await.unwrap();
    assert_eq!(listed.contents().len(), 1, "one object, however often it was tried");
    mapping.shutdown().await;
    stack.shutdown().await.unwrap();
}
