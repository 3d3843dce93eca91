//! Reading streams of the embedded stack.

use aws_sdk_kinesis::primitives::Blob;
use headworks_local::Stack;
use headworks_record::Record;
use headworks_record::aggregate::Builder;

use crate::support::{Ran, command, finish};

async fn tail(stack: &Stack, arguments: &[&str]) -> Ran {
    let endpoint = stack.kinesis_endpoint();
    let all = [&["tail", "--endpoint-url", &endpoint], arguments].concat();
    let child = command(&all).spawn().unwrap();
    tokio::task::spawn_blocking(move || finish(child)).await.unwrap()
}

async fn stack_with(stream: &str, shards: i32) -> Stack {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
    active(&stack, stream).await;
    stack
}

/// Waits until the stream may be changed again.
async fn active(stack: &Stack, stream: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let described = stack.kinesis().describe_stream_summary().stream_name(stream).send().await.unwrap();
        let status = described.stream_description_summary.unwrap().stream_status;
        if status == aws_sdk_kinesis::types::StreamStatus::Active {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn put(stack: &Stack, stream: &str, key: &str, data: impl Into<Vec<u8>>) {
    let put = stack.kinesis().put_record().stream_name(stream).partition_key(key).data(Blob::new(data));
    put.send().await.unwrap();
}

fn aggregate(records: &[(&str, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new();
    for (key, kind, data) in records {
        let record = Record::builder((*key).to_owned()).unwrap().header("type", (*kind).to_owned()).unwrap();
        builder.push(&record.data((*data).to_owned()).build());
    }
    builder.finish().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_stream_is_named_with_those_there_are() {
    let stack = stack_with("orders", 1).await;
    let ran = tail(&stack, &["ordres"]).await;
    ran.fails(3, &["\"ordres\"", &stack.kinesis_endpoint(), "orders", "[stream-not-found]"]);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_aggregates_and_plain_records_are_shown() {
    let stack = stack_with("events", 1).await;
    put(&stack, "events", "a", aggregate(&[("k1", "page.view", "{\"n\":1}"), ("k2", "order.placed", "two")]))
        .await;
    put(&stack, "events", "plain", "three").await;

    let ran = tail(&stack, &["events", "--json"]).await.succeeds();
    let lines = ran.json();
    let shown: Vec<_> =
        lines.iter().map(|l| (l["key"].as_str().unwrap(), l["sub_sequence_number"].as_u64())).collect();
    assert_eq!(shown, [("k1", Some(0)), ("k2", Some(1)), ("plain", Some(0))]);
    assert_eq!(lines[0]["data"]["n"], 1);
    assert_eq!(lines[1]["headers"]["type"], "order.placed");

    let one =
        tail(&stack, &["events", "--filter", "type=order.placed", "--format", "payload"]).await.succeeds();
    assert_eq!(one.stdout, "two\n");
    let first = tail(&stack, &["events", "--count", "1", "--format", "raw"]).await.succeeds();
    assert_eq!(first.stdout, "{\"n\":1}");
    let none = tail(&stack, &["events", "--since", "LATEST"]).await.succeeds();
    assert_eq!(none.stdout, "");
    let recent = tail(&stack, &["events", "--since", "10m"]).await.succeeds();
    assert_eq!(recent.stdout.lines().count(), 3);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn parents_come_before_children() {
    let stack = stack_with("split", 1).await;
    for n in 0..5 {
        put(&stack, "split", &format!("k{n}"), format!("before {n}")).await;
    }
    let half = (u128::MAX / 2 + 1).to_string();
    let split = stack.kinesis().split_shard().stream_name("split").shard_to_split("shardId-000000000000");
    split.new_starting_hash_key(half).send().await.unwrap();
    active(&stack, "split").await;
    for n in 0..5 {
        put(&stack, "split", &format!("k{n}"), format!("after {n}")).await;
    }
    let ran = tail(&stack, &["split", "--format", "payload"]).await.succeeds();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..5], ["before 0", "before 1", "before 2", "before 3", "before 4"]);
    let mut after = lines[5..].to_vec();
    after.sort_unstable();
    assert_eq!(after, ["after 0", "after 1", "after 2", "after 3", "after 4"]);
    stack.shutdown().await.unwrap();
}
