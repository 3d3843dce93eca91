//! The embedded stack with one stream, and consumers of it through the real clients.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use headworks_consumer::{Builder, Consumer};
use headworks_local::Stack;
use headworks_local::faults::{Fault, FaultId};
use headworks_record::Record;

use super::Journal;

pub const STREAM: &str = "orders";

/// A stack with the stream.
pub async fn stack(shards: i32) -> Stack {
    let stack = headworks_local::start().await.unwrap();
    stack.kinesis().create_stream().stream_name(STREAM).shard_count(shards).send().await.unwrap();
    stack
}

/// A worker of the application `app`, quick to checkpoint.
pub fn worker(id: &str, stack: &Stack) -> Builder {
    Consumer::builder("app", STREAM)
        .kinesis(stack.kinesis())
        .dynamodb(stack.dynamodb())
        .worker_id(id)
        .checkpoint_interval(Duration::from_millis(100))
}

/// Puts one aggregate for each number; its data is the number.
pub async fn put(stack: &Stack, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let record = Record::builder(format!("key-{}", number % 7)).unwrap().header("type", "a").unwrap();
        let record = record.data(number.to_string()).build();
        let mut aggregate = headworks_record::aggregate::Builder::new();
        aggregate.push(&record);
        let request = stack.kinesis().put_record().stream_name(STREAM).partition_key(record.key.as_str());
        request.data(Blob::new(aggregate.finish().to_vec())).send().await.unwrap();
    }
}

/// Splits the open shard with the lowest hash keys in the middle.
pub async fn split(stack: &Stack) {
    let listed = stack.kinesis().list_shards().stream_name(STREAM).send().await.unwrap();
    let open = listed.shards().iter().find(|shard| {
        shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_none())
    });
    let shard = open.unwrap();
    let range = shard.hash_key_range().unwrap();
    let key = |text: &str| text.parse::<u128>().unwrap();
    let (start, end) = (key(range.starting_hash_key()), key(range.ending_hash_key()));
    let request = stack.kinesis().split_shard().stream_name(STREAM).shard_to_split(shard.shard_id());
    request.new_starting_hash_key((start + (end - start) / 2).to_string()).send().await.unwrap();
}

/// Puts a fault in force, as `headworks dev --fault` reads it.
pub fn fault(stack: &Stack, text: &str) -> FaultId {
    stack.faults().add(Fault::parse(text).unwrap()).unwrap()
}

/// The numbers that were handled, sorted.
pub fn handled(journal: &Journal) -> Vec<u32> {
    let mut numbers: Vec<u32> = journal.data().iter().map(|data| data.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// Waits under a deadline, which only a failure reaches.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Waits until so many records were handled.
pub async fn arrived(journal: &Journal, total: usize) {
    within(&format!("{total} records"), async {
        while journal.len() < total {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
