//! What the router leans on hangs instead of failing: it answers before its deadline, and with what can be done.

use std::sync::Arc;
use std::time::Duration;

use headworks_local::Stack;
use headworks_local::faults::{Action, Fault, Service};
use headworks_router::progress::Dynamo;
use headworks_router::{
    Bucket, Event, Invocation, KinesisShards, Report, RouteTable, Router, Writers, writer_config,
};
use headworks_telemetry::RecordTracer;
use tokio::time::Instant;

use crate::bootstrap::{create_with, read};
use crate::common::{SHARD, aggregate, labelled, record, seal};

async fn stack() -> Stack {
    let stack = headworks_local::start().await.unwrap();
    create_with(&stack, &["inbound"], 2).await;
    create_with(&stack, &["orders"], 1).await;
    crate::progress::create_table(&stack.dynamodb()).await;
    stack.s3().create_bucket().bucket("letters").send().await.unwrap();
    stack
}

fn router(stack: &Stack) -> Router {
    let writers = Writers::new(stack.kinesis(), writer_config(), RecordTracer::disabled()).unwrap();
    let table = "[[rules]]\nwhen.type = \"lost\"\nto = \"gone\"\n[default]\nto = \"orders\"\n";
    Router::new(
        Arc::new(RouteTable::from_toml(table).unwrap()),
        Arc::new(writers),
        Arc::new(Bucket::new(stack.s3(), "letters")),
        Arc::new(KinesisShards::new(stack.kinesis())),
    )
    .with_progress(Arc::new(Dynamo::new(stack.dynamodb(), "progress", "router")))
    .with_read_after(Duration::ZERO)
}

/// Longer than any test runs.
fn hang(service: Service, operation: &str) -> Fault {
    Fault::of(service, Action::Delay(Duration::from_secs(3600))).operations([operation])
}

/// Handles the batch in what little time Lambda gives.
async fn handle(router: &Router, event: &Event) -> Report {
    let deadline = Instant::now() + Duration::from_secs(6);
    let report = router.handle(event, &Invocation { deadline, request_id: None }).await.unwrap();
    assert!(Instant::now() < deadline);
    report
}

fn failed(report: &Report) -> Option<(&str, &str)> {
    report.failed.as_ref().map(|failed| (&*failed.sequence_number, failed.trouble.code()))
}

async fn stored(stack: &Stack) -> Vec<bytes::Bytes> {
    read(stack, "orders").await.into_iter().map(|record| record.data).collect()
}

fn order(data: &str) -> bytes::Bytes {
    aggregate(&[record("k", "order", data)])
}

fn here(data: bytes::Bytes) -> (String, bytes::Bytes) {
    (format!("hw/{SHARD}/0"), data)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_progress_table_that_hangs_costs_nothing_but_time() {
    let stack = stack().await;
    let router = router(&stack);
    stack.faults().add(hang(Service::DynamoDb, "BatchGetItem")).unwrap();
    stack.faults().add(hang(Service::DynamoDb, "BatchWriteItem")).unwrap();
    let event = labelled(vec![here(order("a")), here(order("b"))]);
    let report = handle(&router, &event).await;
    assert_eq!((failed(&report), report.counts.stored), (None, 2));

    // What was done of a batch of which a part fails cannot be written down.
    stack.faults().add(hang(Service::S3, "PutObject")).unwrap();
    let event = labelled(vec![here(aggregate(&[record("k", "lost", "c")])), here(order("d"))]);
    let report = handle(&router, &event).await;
    assert_eq!(failed(&report), Some(("100", "dead-letter-deadline")));
    assert_eq!(stored(&stack).await, ["a", "b", "d"]);
    assert!(stack.faults().list().iter().all(|fault| fault.fired > 0));
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_before_a_letter_that_is_not_written_goes_on() {
    let stack = stack().await;
    let router = router(&stack);
    let hanging = stack.faults().add(hang(Service::S3, "PutObject")).unwrap();
    let broken = seal(&[0x0a, 1, b'k', 0x1a, 5, 0x08, 1, 0x1a, 1, b'y']);
    let mut event = labelled([order("a"), broken, order("b")].map(here).to_vec());
    assert_eq!(failed(&handle(&router, &event).await), Some(("101", "dead-letter-deadline")));
    assert_eq!(stored(&stack).await, ["a"], "and nothing overtakes it");

    stack.faults().remove(hanging).unwrap();
    event.records.remove(0);
    let report = handle(&router, &event).await;
    assert_eq!((failed(&report), report.counts.dead_letters), (None, 1));
    assert_eq!(stored(&stack).await, ["a", "b"]);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_before_an_aggregate_of_another_shard_goes_on() {
    let stack = stack().await;
    let router = router(&stack);
    let hanging = stack.faults().add(hang(Service::Kinesis, "ListShards").resource("inbound")).unwrap();
    // md5("k") begins 0x8c: in the upper half of the hash space, which this shard has.
    let labels = [SHARD, "shardId-000000000007", SHARD].map(|shard| format!("hw/{shard}/0"));
    let mut event = labelled(labels.into_iter().zip(["a", "b", "c"].map(order)).collect());
    assert_eq!(failed(&handle(&router, &event).await), Some(("101", "shards-not-listed")));
    assert_eq!(stored(&stack).await, ["a"], "and nothing overtakes it");

    stack.faults().remove(hanging).unwrap();
    event.records.remove(0);
    assert_eq!(failed(&handle(&router, &event).await), None);
    assert_eq!(stored(&stack).await, ["a", "b", "c"]);
    stack.shutdown().await.unwrap();
}
