//! The router as a process of its own, against the embedded stack.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use headworks_local::Stack;
use headworks_local::faults::{Action, Fault};
use headworks_local::stack::{ACCESS_KEY, SECRET_KEY};
use headworks_record::aggregate::{Builder, Decoded, decode};
use headworks_record::{Creation, Record};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

fn record(i: usize) -> Record {
    let mut random = [3; 18];
    random[..8].copy_from_slice(&(i as u64).to_be_bytes());
    Record::builder(format!("k{}", i % 5))
        .unwrap()
        .header("type", ["click", "order.placed", "login"][i % 3])
        .unwrap()
        .creation(Creation::mint(1_790_000_000_000, random))
        .data(format!("{i:03}"))
        .build()
}

async fn put(stack: &Stack, from: usize, to: usize) {
    for chunk in (from..to).collect::<Vec<_>>().chunks(7) {
        let mut builder = Builder::new();
        chunk.iter().for_each(|i| builder.push(&record(*i)));
        let blob = aws_sdk_kinesis::primitives::Blob::new(builder.finish());
        let put =
            stack.kinesis().put_record().stream_name("inbound").partition_key("hw/shardId-000000000000/0");
        put.data(blob).send().await.unwrap();
    }
}

async fn read(stack: &Stack, stream: &str) -> Vec<String> {
    let client = stack.kinesis();
    let from = aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon;
    let iterator = client.get_shard_iterator().stream_name(stream).shard_id("shardId-000000000000");
    let iterator = iterator.shard_iterator_type(from).send().await.unwrap().shard_iterator;
    let got = client.get_records().set_shard_iterator(iterator).send().await.unwrap();
    let blobs = got.records().iter().map(|found| Bytes::copy_from_slice(found.data().as_ref()));
    let members = blobs.flat_map(|blob| {
        let Decoded::Aggregate(aggregate) = decode(&blob).unwrap() else { panic!("an aggregate") };
        aggregate.members().map(|m| String::from_utf8(m.data().to_vec()).unwrap()).collect::<Vec<_>>()
    });
    members.collect()
}

fn spawn(stack: &Stack) -> Child {
    Command::new(env!("CARGO_BIN_EXE_headworks-router"))
        .args(["--stream", "inbound", "--application", "router"])
        .env_clear()
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_ENDPOINT_URL_KINESIS", stack.kinesis_endpoint())
        .env("AWS_ENDPOINT_URL_DYNAMODB", stack.dynamodb_endpoint())
        .env("HEADWORKS_ROUTES", concat!(env!("CARGO_MANIFEST_DIR"), "/routes.example.toml"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Waits until the outbound streams hold so many records.
async fn arrived(stack: &Stack, count: usize) {
    let arrived = async {
        loop {
            let mut found = 0;
            for stream in ["orders", "clicks", "default"] {
                found += read(stack, stream).await.len();
            }
            if found >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, arrived).await.unwrap();
}

async fn stop(mut child: Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_routes_goes_on_where_it_stopped_and_repeats_nothing_while_a_destination_is_down() {
    let stack = headworks_local::start().await.unwrap();
    for stream in ["inbound", "orders", "payments", "clicks", "default"] {
        stack.kinesis().create_stream().stream_name(stream).shard_count(1).send().await.unwrap();
    }
    put(&stack, 0, 60).await;
    let down = stack.faults().add(Fault::on("PutRecords", Action::Throttle).resource("orders")).unwrap();
    let first = spawn(&stack);
    arrived(&stack, 40).await;
    assert!(read(&stack, "orders").await.is_empty());
    stack.faults().remove(down).unwrap();
    arrived(&stack, 60).await;
    stop(first).await;

    put(&stack, 60, 90).await;
    let second = spawn(&stack);
    arrived(&stack, 90).await;
    stop(second).await;
    for (place, stream) in ["clicks", "orders", "default"].into_iter().enumerate() {
        let expected: Vec<String> = (0..90).filter(|i| i % 3 == place).map(|i| format!("{i:03}")).collect();
        assert_eq!(read(&stack, stream).await, expected, "{stream}: in order, each once");
    }
    stack.shutdown().await.unwrap();
}
