//! The stream `inbound` of an embedded stack: its gateway, and what is on it.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part of it.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_sdk_kinesis::types::ShardIteratorType;
use headworks_gateway::Config;
use headworks_record::aggregate::{self, Decoded};
use headworks_telemetry::RecordTracer;
use headworks_writer::{KinesisStream, Stream};

use crate::support::Running;

/// A gateway in front of it.
pub async fn gateway(client: &aws_sdk_kinesis::Client) -> Running {
    let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::for_stream("inbound") };
    let client = client.clone();
    let streams = move |name: &str| Arc::new(KinesisStream::new(client.clone(), name)) as Arc<dyn Stream>;
    Running::over(config, streams, RecordTracer::disabled()).await
}

/// An embedded stack with the stream `inbound` of so many shards, and its client.
pub async fn stack(shards: i32) -> (headworks_local::Stack, aws_sdk_kinesis::Client) {
    let stack = headworks_local::start().await.unwrap();
    let kinesis = stack.kinesis();
    kinesis.create_stream().stream_name("inbound").shard_count(shards).send().await.unwrap();
    (stack, kinesis)
}

/// What the stream `inbound` has: keys and payloads, shard by shard in their order.
pub async fn everything(client: &aws_sdk_kinesis::Client) -> Vec<(String, bytes::Bytes)> {
    let mut found = Vec::new();
    let shards = client.list_shards().stream_name("inbound").send().await.unwrap();
    for shard in shards.shards() {
        let asked = client
            .get_shard_iterator()
            .stream_name("inbound")
            .shard_id(shard.shard_id())
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let mut iterator = asked.send().await.unwrap().shard_iterator;
        while let Some(at) = iterator.take() {
            let got = client.get_records().shard_iterator(at).send().await.unwrap();
            for kinesis in got.records() {
                let data = bytes::Bytes::copy_from_slice(kinesis.data().as_ref());
                let Decoded::Aggregate(aggregate) = aggregate::decode(&data).unwrap() else { panic!() };
                let of = |member: aggregate::Member<'_>| {
                    (member.key().to_owned(), bytes::Bytes::copy_from_slice(member.data()))
                };
                found.extend(aggregate.members().map(of));
            }
            if got.millis_behind_latest() != Some(0) || !got.records().is_empty() {
                iterator = got.next_shard_iterator;
            }
        }
    }
    found
}
