//! A time range of a stream of the embedded stack, read again.

use std::io::{BufRead, BufReader};

use aws_sdk_kinesis::primitives::Blob;
use headworks_local::Stack;

use crate::consumers::later;
use crate::support::{Ran, command, finish, run};

async fn stack() -> Stack {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name("orders").shard_count(2).send().await.unwrap();
    stack
}

async fn put(stack: &Stack, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let put = stack.kinesis().put_record().stream_name("orders").partition_key(format!("k{n}"));
        put.data(Blob::new(n.to_string())).send().await.unwrap();
    }
}

async fn replay(stack: &Stack, arguments: &[&str]) -> Ran {
    let child = child(stack, arguments);
    tokio::task::spawn_blocking(move || finish(child)).await.unwrap()
}

fn child(stack: &Stack, arguments: &[&str]) -> std::process::Child {
    let mut command = command(&[&["replay", "orders"], arguments].concat());
    command.env("AWS_ENDPOINT_URL_KINESIS", stack.kinesis_endpoint()).spawn().unwrap()
}

fn numbers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<u64> {
    let mut numbers: Vec<u64> = lines.map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_shown_as_tail_shows_it() {
    let stack = stack().await;
    put(&stack, 0..10).await;
    later(&stack, 2).await;
    let middle = jiff::Timestamp::now().to_string();
    later(&stack, 2).await;
    put(&stack, 10..15).await;

    let all = replay(&stack, &["--from", "1h", "--format", "payload"]).await.succeeds();
    assert_eq!(numbers(all.stdout.lines()), (0..15).collect::<Vec<_>>());
    assert!(all.stderr.contains("15 records of orders, 2 shards; done"), "{}", all.stderr);
    let first = replay(&stack, &["--from", "1h", "--to", &middle, "--format", "payload"]).await.succeeds();
    assert_eq!(numbers(first.stdout.lines()), (0..10).collect::<Vec<_>>());
    let second = replay(&stack, &["--from", &middle, "--json"]).await.succeeds();
    assert_eq!(second.json().len(), 5);
    assert!(second.json().iter().all(|line| line["stream"] == "orders" && line["data"].is_number()));

    let none = replay(&stack, &["--from", "1h", "--filter", "type=a"]).await.succeeds();
    assert_eq!(none.stdout, "");
    replay(&stack, &["--from", "1h", "--to", "2h"]).await.fails(2, &["swap them", "[replay-range-invalid]"]);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_was_stopped_goes_on_where_it_was() {
    let stack = stack().await;
    put(&stack, 0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("place.json");
    let arguments = ["--from", "1h", "--format", "payload", "--resume", place.to_str().unwrap()];

    // A reader that takes one line of the many and goes.
    let mut first = child(&stack, &arguments);
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.trim().parse::<u64>().is_ok(), "{line:?}");
    tokio::task::spawn_blocking(move || finish(first)).await.unwrap();
    let rest = replay(&stack, &arguments).await.succeeds();
    let done = replay(&stack, &arguments).await.succeeds();
    assert_eq!(done.stdout, "");
    assert!(done.stderr.contains("the replay is done: 3 records"), "{} after {}", done.stderr, rest.stderr);

    // The place in the middle of it: one shard done, the other not begun.
    let token = std::fs::read_to_string(&place).unwrap();
    let mut token: serde_json::Value = serde_json::from_str(&token).unwrap();
    token["done"] = false.into();
    token["shards"].as_object_mut().unwrap().remove("shardId-000000000001");
    let token = token.to_string();
    let half = replay(&stack, &["--format", "json", "--resume", &token]).await.succeeds().json();
    let all = replay(&stack, &["--from", "1h", "--json"]).await.succeeds().json();
    let of_second = all.iter().filter(|line| line["shard"] == "shardId-000000000001").count();
    assert_eq!(half.len(), of_second);
    assert!(half.iter().all(|line| line["shard"] == "shardId-000000000001"));

    std::fs::write(&place, token.replace("\"orders\"", "\"clicks\"")).unwrap();
    replay(&stack, &arguments).await.fails(2, &["\"clicks\"", "\"orders\"", "[replay-token-invalid]"]);
    std::fs::write(&place, "{}").unwrap();
    replay(&stack, &arguments).await.fails(2, &["place.json", "[replay-token-invalid]"]);
    stack.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said() {
    run(&["replay", "orders"]).fails(2, &["--from", "[from-missing]"]);
    run(&["replay", "orders", "--from", "once"]).fails(2, &["once", "[time-invalid]"]);
    run(&["replay", "orders", "--resume", "{]"]).fails(2, &["[replay-token-invalid]"]);
    let stack = headworks_local::start().await.unwrap();
    let ran = replay(&stack, &["--from", "1h"]).await;
    ran.fails(3, &["\"orders\"", &stack.kinesis_endpoint(), "[stream-not-found]"]);
    stack.shutdown().await.unwrap();
}
