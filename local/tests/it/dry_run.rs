//! `DryRun`: a call is checked as it would be, and does nothing.

use std::collections::BTreeSet;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};

use crate::support::{FIRST, Fixture, START_MS, fixture, from, texts};

fn code<T: std::fmt::Debug, E: ProvideErrorMetadata>(answer: Result<T, SdkError<E>>) -> String {
    let error = answer.unwrap_err();
    error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap().to_owned()
}

fn entry(data: Vec<u8>) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder().partition_key("k").data(Blob::new(data)).build().unwrap()
}

async fn put(f: &Fixture, stream: &str, data: Vec<u8>) -> BTreeSet<String> {
    let one = f.client.put_record().stream_name(stream).partition_key("k").data(Blob::new(data.clone()));
    let many = f.client.put_records().stream_name(stream).records(entry(data));
    [code(one.dry_run(true).send().await), code(many.dry_run(true).send().await)].into()
}

#[tokio::test]
async fn puts_are_checked_and_store_nothing() {
    let f = fixture().await;
    f.create("s", 1).await;
    let only = |code: &str| BTreeSet::from([code.to_owned()]);
    assert_eq!(put(&f, "s", vec![0; 10]).await, only("DryRunOperationException"));
    assert_eq!(put(&f, "s", vec![0; (1 << 20) + 1]).await, only("ValidationException"));
    assert_eq!(put(&f, "nowhere", vec![0; 10]).await, only("ResourceNotFoundException"));
    let hash = f.client.put_record().stream_name("s").partition_key("k").data(Blob::new("x"));
    let hash = hash.explicit_hash_key("340282366920938463463374607431768211456").dry_run(true);
    assert_eq!(code(hash.send().await), "InvalidArgumentException");
    assert!(f.all("s", FIRST).await.records.is_empty());

    let put = f.client.put_records().stream_name("s").records(entry(b"stored".to_vec())).dry_run(false);
    put.send().await.unwrap();
    assert_eq!(texts(&f.all("s", FIRST).await), ["stored"]);
}

#[tokio::test]
async fn reads_are_checked_and_take_over_nothing() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    f.put("s", 0, "a").await;
    let iterator = f.iterator("s", FIRST, ShardIteratorType::TrimHorizon).await;
    let get = |iterator: &str| f.client.get_records().shard_iterator(iterator).dry_run(true).send();
    assert_eq!(code(get(&iterator).await), "DryRunOperationException");
    assert_eq!(code(get("AAAA").await), "InvalidArgumentException");
    let issue = |shard: &str| {
        let call = f.client.get_shard_iterator().stream_name("s").shard_id(shard);
        call.shard_iterator_type(ShardIteratorType::Latest).dry_run(true).send()
    };
    assert_eq!(code(issue(FIRST).await), "DryRunOperationException");
    assert_eq!(code(issue("shardId-000000000007").await), "ResourceNotFoundException");

    let consumer = f.register(&arn, "c").await;
    let try_it = || {
        let call = f.client.subscribe_to_shard().consumer_arn(&consumer).shard_id(FIRST);
        call.starting_position(from(ShardIteratorType::TrimHorizon)).dry_run(true).send()
    };
    assert_eq!(code(try_it().await), "DryRunOperationException");
    let mut events = f.subscribe(&consumer, FIRST, from(ShardIteratorType::TrimHorizon)).await;
    assert_eq!(events.records(1).await, ["a"]);
    // Six seconds later a real call would take over.
    f.clock.advance_ms(6_000);
    assert_eq!(code(try_it().await), "DryRunOperationException");
    f.put("s", 0, "b").await;
    assert_eq!(events.records(1).await, ["b"]);
}

#[tokio::test]
async fn a_stream_is_told_from_another_of_its_name() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    f.register(&arn, "c").await;
    let list = |seconds: i64| {
        let call = f.client.list_stream_consumers().stream_arn(&arn);
        call.stream_creation_timestamp(DateTime::from_secs(seconds)).send()
    };
    assert_eq!(list(START_MS / 1_000).await.unwrap().consumers.unwrap().len(), 1);
    assert_eq!(code(list(START_MS / 1_000 + 60).await), "ResourceNotFoundException");
    let shards = |seconds: i64| {
        let call = f.client.list_shards().stream_arn(&arn);
        call.stream_creation_timestamp(DateTime::from_secs(seconds)).send()
    };
    assert_eq!(shards(START_MS / 1_000).await.unwrap().shards.unwrap().len(), 1);
    assert_eq!(code(shards(START_MS / 1_000 + 60).await), "ResourceNotFoundException");
}
