//! Several gateways that share a stream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod inbound;
mod support;

use std::collections::HashMap;

use headworks_proto::v1::put_stream_request::{Batch, Message as Asked, Open};
use headworks_proto::v1::put_stream_response::Message as Told;
use headworks_proto::v1::{PutStreamRequest, gateway_client::GatewayClient};
use inbound::{everything, gateway, stack};
use support::{codes, record, soon};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

const PRODUCERS: usize = 4;
const BATCHES: usize = 60;
const KEYS: usize = 8;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_each_connection_keeps_its_order() {
    let (_stack, kinesis) = stack(3).await;
    let gateways = [gateway(&kinesis).await, gateway(&kinesis).await];
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
    let mut found: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
    for (key, payload) in everything(&kinesis).await {
        let (producer, batch) = std::str::from_utf8(&payload).unwrap().split_once(' ').unwrap();
        found.entry(key).or_default().push((producer.parse().unwrap(), batch.parse().unwrap()));
    }
    assert_eq!(found.len(), KEYS);
    for (key, places) in found {
        for producer in 0..PRODUCERS {
            let of = places.iter().filter(|(by, _)| *by == producer).map(|(_, batch)| *batch);
            assert_eq!(of.collect::<Vec<_>>(), (0..BATCHES).collect::<Vec<_>>(), "{key} of {producer}");
        }
    }
}
