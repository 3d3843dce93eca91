//! The largest event into the smallest function, and the largest records that streams take.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headworks_local::Stack;
use headworks_local::faults::{Action, Fault};
use headworks_record::Record;
use headworks_router::{Bucket, RouteTable, Router, Writers, writer_config};
use headworks_telemetry::RecordTracer;
use tokio::time::timeout;

use crate::bootstrap::{Api, PATIENCE, create, create_with, read};
use crate::common::{Shards, aggregate, event, invocation, record};

/// The largest event that Lambda hands over, in bytes (AWS Lambda Developer Guide, quotas).
const LARGEST_EVENT: usize = 6 * 1024 * 1024;

/// An event of that size, of aggregates of 100 KiB, and how many records are in it.
fn largest_event(payload: usize) -> (Bytes, usize) {
    use base64::Engine as _;
    let (mut text, mut count) = (r#"{"Records":["#.to_owned(), 0);
    let data = "x".repeat(payload);
    loop {
        let per = (100 * 1024 / (payload + 90)).max(1);
        let records: Vec<Record> = (0..per)
            .map(|i| record(&format!("session-{}", (count + i) % 1000), ["click", "other"][i % 2], &data))
            .collect();
        let blob = base64::engine::general_purpose::STANDARD.encode(aggregate(&records));
        let found = serde_json::json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0", "partitionKey": "hw/shardId-000000000000/0",
                "sequenceNumber": format!("{}", 1000 + count), "data": blob,
                "approximateArrivalTimestamp": 1_790_000_000.5,
            },
            "eventSource": "aws:kinesis", "eventVersion": "1.0", "eventID": "shardId-000000000000:7",
            "eventName": "aws:kinesis:record", "invokeIdentityArn": "arn:aws:iam::0:role/r",
            "awsRegion": "us-east-1", "eventSourceARN": "arn:aws:kinesis:us-east-1:000000000000:stream/inbound",
        });
        let found = found.to_string();
        if text.len() + found.len() + 3 > LARGEST_EVENT {
            text.push_str("]}");
            return (text.into(), count);
        }
        if count > 0 {
            text.push(',');
        }
        text.push_str(&found);
        count += per;
    }
}

/// Hands the largest event to the real program, which stays within the least memory that Lambda gives: its answer, and
/// how many records there were.
async fn handle_largest(stack: &Stack, payload: usize, limit: Duration) -> (Bytes, usize) {
    let (event, count) = largest_event(payload);
    assert!(event.len() > LARGEST_EVENT - 150 * 1024, "{}", event.len());
    let api = Api::start_with(Some(event), limit).await;
    let vars = [
        ("AWS_ENDPOINT_URL_S3", &*stack.s3_endpoint()),
        ("HEADWORKS_S3_PATH_STYLE", "true"),
        ("HEADWORKS_DEAD_LETTER_BUCKET", "letters"),
        ("AWS_ENDPOINT_URL_DYNAMODB", &stack.dynamodb_endpoint()),
        ("HEADWORKS_PROGRESS_TABLE", "progress"),
    ];
    let mut child = api.spawn_with(&stack.kinesis_endpoint(), &vars);
    timeout(PATIENCE, api.answered.notified()).await.unwrap();
    let response = api.response.lock().unwrap().take().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    child.kill().await.unwrap();
    eprintln!("{count} records of {payload} bytes: peak {} MiB", kib / 1024);
    assert!(kib <= 128 * 1024, "{kib} KiB at its peak");
    (response, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_event_fits_into_the_smallest_function() {
    for payload in [1000, 60] {
        let stack = headworks_local::start().await.unwrap();
        create(&stack, &["orders", "payments", "clicks", "default"]).await;
        let (response, count) = handle_largest(&stack, payload, PATIENCE).await;
        assert_eq!(response, r#"{"batchItemFailures":[]}"#);
        assert_eq!(read(&stack, "clicks").await.len() + read(&stack, "default").await.len(), count);
        stack.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fits_also_when_a_destination_takes_nothing_or_is_missing() {
    let stack = headworks_local::start().await.unwrap();
    create(&stack, &["clicks", "default"]).await;
    crate::progress::create_table(&stack.dynamodb()).await;
    let stall = Fault::on("PutRecords", Action::Delay(Duration::from_secs(3600))).resource("clicks");
    stack.faults().add(stall).unwrap();
    let (response, count) = handle_largest(&stack, 60, Duration::from_secs(10)).await;
    assert_eq!(response, r#"{"batchItemFailures":[{"itemIdentifier":"1000"}]}"#);
    assert_eq!(read(&stack, "default").await.len(), count / 2, "the other one has all that is its");
    assert!(read(&stack, "clicks").await.is_empty());
    stack.shutdown().await.unwrap();

    let stack = headworks_local::start().await.unwrap();
    create(&stack, &["default"]).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let (response, count) = handle_largest(&stack, 1000, PATIENCE).await;
    assert_eq!(response, r#"{"batchItemFailures":[]}"#);
    let stored = read(&stack, "default").await.len();
    let (mut letters, mut next) = (0, None);
    loop {
        let page =
            stack.s3().list_objects_v2().bucket("letters").set_continuation_token(next).send().await.unwrap();
        letters += page.contents().len();
        next = page.next_continuation_token;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(stored + letters, count, "each of the others is a dead letter of its own");
    assert!(stored > count / 3 && letters > count / 3, "{stored} stored, {letters} letters");
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_record_that_an_event_holds_fits_as_well() {
    /// As base64 it leaves room for little else.
    const PAYLOAD: usize = 4_700_000;
    let stack = headworks_local::start().await.unwrap();
    let wide = stack.kinesis().create_stream().stream_name("clicks").shard_count(1);
    wide.max_record_size_in_kib(10_240).send().await.unwrap();
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let (response, count) = handle_largest(&stack, PAYLOAD, PATIENCE).await;
    assert_eq!((&response[..], count), (&br#"{"batchItemFailures":[]}"#[..], 1));
    let stored: Vec<usize> = read(&stack, "clicks").await.iter().map(|record| record.data.len()).collect();
    assert_eq!(stored, [PAYLOAD]);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_may_be_as_large_as_its_destination_takes() {
    let stack = headworks_local::start().await.unwrap();
    let wide = stack.kinesis().create_stream().stream_name("orders").shard_count(1);
    wide.max_record_size_in_kib(4096).send().await.unwrap();
    create_with(&stack, &["clicks"], 1).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    let writers = Writers::new(stack.kinesis(), writer_config(), RecordTracer::disabled()).unwrap();
    let table = "[default]\nto = [\"orders\", \"clicks\"]\n";
    let bucket = Arc::new(Bucket::new(stack.s3(), "letters"));
    let table = Arc::new(RouteTable::from_toml(table).unwrap());
    let router = Router::new(table, Arc::new(writers), bucket.clone(), Arc::new(Shards::default()));

    let large = "x".repeat(3 << 20);
    let batch = ["a", &large, "b"].map(|data| aggregate(&[record("k", "order", data)]));
    let report = router.handle(&event(batch.to_vec()), &invocation()).await.unwrap();
    assert_eq!((report.failed, report.counts.stored, report.counts.dead_letters), (None, 5, 1));
    let sizes = async |stream: &str| -> Vec<usize> {
        read(&stack, stream).await.iter().map(|record| record.data.len()).collect()
    };
    assert_eq!(sizes("orders").await, [1, large.len(), 1]);
    assert_eq!(sizes("clicks").await, [1, 1]);
    let key = "dead-letters/inbound/shardId-000000000001/101-0.json";
    let letter = headworks_router::dead_letter::show(&bucket, key).await.unwrap();
    let reasons: Vec<_> = letter.reasons.iter().map(|r| (&*r.code, r.destination.as_deref())).collect();
    assert_eq!(reasons, [("record-too-large", Some("clicks"))]);
    stack.shutdown().await.unwrap();
}
