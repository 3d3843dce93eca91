//! A stack on a clock that tests move, and what they do with it.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    ShardIteratorType, StartingPosition, StreamStatus, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use headworks_local::kinesis::ManualClock;
use headworks_local::{Config, Settings, Stack};

/// Some Thursday in 2025.
pub(crate) const START_MS: i64 = 1_763_600_000_000;
/// Nothing here takes this long, unless it never comes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const FIRST: &str = "shardId-000000000000";
pub(crate) const SECOND: &str = "shardId-000000000001";

pub(crate) struct Fixture {
    pub(crate) stack: Stack,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) client: Client,
}

pub(crate) async fn fixture() -> Fixture {
    fixture_with(Settings::default()).await
}

pub(crate) async fn fixture_with(settings: Settings) -> Fixture {
    let clock = Arc::new(ManualClock::new(START_MS));
    let stack = Stack::start(Config { settings, clock: clock.clone(), ..Config::default() }).await.unwrap();
    let client = stack.kinesis();
    Fixture { stack, clock, client }
}

impl Fixture {
    pub(crate) async fn create(&self, stream: &str, shards: i32) -> String {
        self.client.create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
        let summary = self.client.describe_stream_summary().stream_name(stream).send().await.unwrap();
        let summary = summary.stream_description_summary.unwrap();
        assert_eq!(summary.stream_status, StreamStatus::Active);
        summary.stream_arn
    }

    /// Puts `data` by explicit hash key and returns shard and sequence number.
    pub(crate) async fn put(&self, stream: &str, hash: u128, data: &str) -> (String, String) {
        let put = self
            .client
            .put_record()
            .stream_name(stream)
            .partition_key("key")
            .explicit_hash_key(hash.to_string())
            .data(Blob::new(data))
            .send()
            .await
            .unwrap();
        (put.shard_id, put.sequence_number)
    }

    pub(crate) async fn iterator(&self, stream: &str, shard: &str, kind: ShardIteratorType) -> String {
        let call =
            self.client.get_shard_iterator().stream_name(stream).shard_id(shard).shard_iterator_type(kind);
        call.send().await.unwrap().shard_iterator.unwrap()
    }

    pub(crate) async fn get(&self, iterator: &str) -> GetRecordsOutput {
        self.client.get_records().shard_iterator(iterator).send().await.unwrap()
    }

    /// Everything in a shard, from its trim horizon.
    pub(crate) async fn all(&self, stream: &str, shard: &str) -> GetRecordsOutput {
        let iterator = self.iterator(stream, shard, ShardIteratorType::TrimHorizon).await;
        self.get(&iterator).await
    }

    pub(crate) async fn register(&self, stream_arn: &str, name: &str) -> String {
        let call = self.client.register_stream_consumer().stream_arn(stream_arn).consumer_name(name);
        call.send().await.unwrap().consumer.unwrap().consumer_arn
    }

    pub(crate) async fn subscribe(
        &self,
        consumer_arn: &str,
        shard: &str,
        from: StartingPosition,
    ) -> Subscription {
        let call = self.client.subscribe_to_shard().consumer_arn(consumer_arn).shard_id(shard);
        Subscription(call.starting_position(from).send().await.unwrap())
    }
}

pub(crate) fn texts(answer: &GetRecordsOutput) -> Vec<String> {
    answer.records.iter().map(|record| text(&record.data)).collect()
}

pub(crate) fn text(blob: &Blob) -> String {
    String::from_utf8(blob.clone().into_inner()).unwrap()
}

pub(crate) fn from(kind: ShardIteratorType) -> StartingPosition {
    StartingPosition::builder().r#type(kind).build().unwrap()
}

pub(crate) fn from_number(kind: ShardIteratorType, number: &str) -> StartingPosition {
    StartingPosition::builder().r#type(kind).sequence_number(number).build().unwrap()
}

pub(crate) struct Subscription(SubscribeToShardOutput);

impl Subscription {
    /// The next event, `None` at the end, or the exception that ended it.
    pub(crate) async fn try_next(&mut self) -> Result<Option<SubscribeToShardEvent>, String> {
        let received =
            tokio::time::timeout(DEADLINE, self.0.event_stream.recv()).await.expect("an event in time");
        match received {
            Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => Ok(Some(event)),
            Ok(None) => Ok(None),
            Ok(other) => panic!("unexpected event {other:?}"),
            Err(error) => Err(format!("{:?}", error.into_service_error())),
        }
    }

    pub(crate) async fn next(&mut self) -> SubscribeToShardEvent {
        self.try_next().await.unwrap().expect("an event, not the end")
    }

    /// Events until `count` records have come, which are returned as text.
    pub(crate) async fn records(&mut self, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < count {
            found.extend(self.next().await.records.iter().map(|record| text(&record.data)));
        }
        found
    }

    /// Reads heartbeats until the end and returns how it ended.
    pub(crate) async fn end(&mut self) -> Result<(), String> {
        while self.try_next().await?.is_some() {}
        Ok(())
    }
}
