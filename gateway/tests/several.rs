//! Several gateways that share a stream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_sdk_kinesis::types::ShardIteratorType;
use headworks_gateway::{Config, Gateway};
use headworks_proto::v1::put_stream_request::{Batch, Message as Asked, Open};
use headworks_proto::v1::put_stream_response::Message as Told;
use headworks_proto::v1::{PutStreamRequest, gateway_client::GatewayClient};
use headworks_record::aggregate::{self, Decoded};
use headworks_telemetry::{Minter, RecordTracer, Sampler};
use headworks_writer::{KinesisStream, Stream};
use support::{Running, codes, record, soon};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

const PRODUCERS: usize = 4;
const BATCHES: usize = 60;
const KEYS: usize = 8;

async fn start(kinesis: &aws_sdk_kinesis::Client) -> Running {
    let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::for_stream("inbound") };
    let kinesis = kinesis.clone();
    let streams = move |name: &str| Arc::new(KinesisStream::new(kinesis.clone(), name)) as Arc<dyn Stream>;
    let minter = Minter::new(Sampler::never());
    let (gateway, handle) = Gateway::bind(config, streams, minter, RecordTracer::disabled()).await.unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(gateway.run(shutdown.clone()));
    Running { handle, shutdown, task }
}

/// One connection: batches of every key, each record with its producer and its place in the connection.
async fn produce(url: String, producer: usize) {
    let mut client = GatewayClient::connect(url).await.unwrap();
    let (asks, asked) = mpsc::channel(BATCHES + 1);
    let message = |asked| PutStreamRequest { message: Some(asked) };
    asks.send(message(Asked::Open(Open::default()))).await.unwrap();
    for batch in 0..BATCHES {
        let records =
            (0..KEYS).map(|key| record(&format!("key-{key}"), format!("{producer} {batch}"))).collect();
        asks.send(message(Asked::Batch(Batch { number: batch as u64, records }))).await.unwrap();
    }
    drop(asks);
    let mut answers = client.put_stream(ReceiverStream::new(asked)).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(told) = soon("an answer", answers.message()).await.unwrap() {
        if let Some(Told::Results(results)) = told.message {
            assert_eq!(codes(&results.results), [""; KEYS]);
            answered += 1;
        }
    }
    assert_eq!(answered, BATCHES);
}

/// What each key's records say, in their order on the stream.
async fn everything(client: &aws_sdk_kinesis::Client) -> HashMap<String, Vec<(usize, usize)>> {
    let mut found: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
    let shards = client.list_shards().stream_name("inbound").send().await.unwrap();
    for shard in shards.shards() {
        let iterator = client
            .get_shard_iterator()
            .stream_name("inbound")
            .shard_id(shard.shard_id())
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let mut iterator = iterator.send().await.unwrap().shard_iterator;
        while let Some(at) = iterator.take() {
            let got = client.get_records().shard_iterator(at).send().await.unwrap();
            for kinesis in got.records() {
                let data = bytes::Bytes::copy_from_slice(kinesis.data().as_ref());
                let Decoded::Aggregate(aggregate) = aggregate::decode(&data).unwrap() else { panic!() };
                for member in aggregate.members() {
                    let text = std::str::from_utf8(member.data()).unwrap();
                    let (producer, batch) = text.split_once(' ').unwrap();
                    let place = (producer.parse().unwrap(), batch.parse().unwrap());
                    found.entry(member.key().to_owned()).or_default().push(place);
                }
            }
            if got.millis_behind_latest() != Some(0) || !got.records().is_empty() {
                iterator = got.next_shard_iterator;
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_each_connection_keeps_its_order() {
    let stack = headworks_local::start().await.unwrap();
    let kinesis = stack.kinesis();
    kinesis.create_stream().stream_name("inbound").shard_count(3).send().await.unwrap();
    let gateways = [start(&kinesis).await, start(&kinesis).await];
    let mut producing = JoinSet::new();
    for producer in 0..PRODUCERS {
        producing.spawn(produce(gateways[producer % gateways.len()].url(), producer));
    }
    soon("the producers", producing.join_all()).await;
    let shares = gateways.each_ref().map(|gateway| gateway.handle.writer("inbound").unwrap().stats().stored);
    assert_eq!(shares, [(BATCHES * KEYS * PRODUCERS / 2) as u64; 2]);
    for gateway in gateways {
        assert_eq!(gateway.stop().await.unanswered, 0);
    }
    let found = everything(&kinesis).await;
    assert_eq!(found.len(), KEYS);
    for (key, places) in found {
        for producer in 0..PRODUCERS {
            let of = places.iter().filter(|(by, _)| *by == producer).map(|(_, batch)| *batch);
            assert_eq!(of.collect::<Vec<_>>(), (0..BATCHES).collect::<Vec<_>>(), "{key} of {producer}");
        }
    }
}
