//! Several gateways: their keys, the loss of one, and its return.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mortal;
#[path = "../../gateway/tests/support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use headworks_producer::{Producer, Record};
use mortal::{Mortal, first_occurrences};
use support::{FakeStream, Mode, config, soon};

fn record(key: &str, data: impl Into<bytes::Bytes>) -> Record {
    Record::builder(key).unwrap().data(data).build()
}

async fn connect(gateways: &[&Mortal]) -> Producer {
    let endpoints = gateways.iter().map(|gateway| gateway.url());
    let producer = Producer::builder().endpoints(endpoints).stream("inbound").connect().await.unwrap();
    connected(&producer, gateways.len()).await;
    producer
}

/// Waits until so many gateways are connected.
async fn connected(producer: &Producer, wanted: usize) {
    soon("the connections", async {
        while producer.gateways().iter().filter(|gateway| gateway.connected).count() != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A key of the gateway behind this stream.
async fn key_of(stream: &FakeStream, producer: &Producer) -> String {
    for i in 0.. {
        let key = format!("key-{i}");
        soon("an answer", producer.put(record(&key, "probe"))).await.unwrap();
        if !stream.of_key(&key).is_empty() {
            return key;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn each_key_has_one_gateway_and_all_gateways_have_keys() {
    let streams = [FakeStream::new("inbound"), FakeStream::new("inbound"), FakeStream::new("inbound")];
    let mut gateways = Vec::new();
    for stream in &streams {
        gateways.push(Mortal::start(config(&[stream]), stream).await);
    }
    let producer = connect(&gateways.iter().collect::<Vec<_>>()).await;
    let tickets: Vec<_> =
        join_all((0..900).map(|i| producer.send(record(&format!("key-{}", i % 90), i.to_string())))).await;
    for receipt in soon("the answers", join_all(tickets)).await {
        receipt.unwrap();
    }
    let keys: Vec<HashSet<String>> = streams
        .iter()
        .map(|stream| stream.records().iter().map(|record| record.key.as_str().to_owned()).collect())
        .collect();
    assert!(keys.iter().all(|keys| keys.len() > 5), "{keys:?}");
    assert_eq!(keys.iter().map(HashSet::len).sum::<usize>(), 90, "no key is with two gateways");
}

#[tokio::test]
async fn a_lost_gateways_records_go_to_the_others_in_order() {
    let stream = FakeStream::new("inbound");
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(Mortal::start(config(&[&stream]), &stream).await);
    }
    let producer = connect(&gateways.iter().collect::<Vec<_>>()).await;
    let (mut tickets, mut sent) = (Vec::new(), 0_usize);
    for mode in [Mode::Shut, Mode::Mute] {
        // One is lost before the stream has its records, one before it answers for them.
        stream.set(mode);
        let calls = stream.calls();
        for _ in 0..300 {
            tickets.push(producer.send(record(&format!("key-{}", sent % 30), sent.to_string())).await);
            sent += 1;
        }
        stream.called(calls + gateways.len()).await;
        drop(gateways.pop());
        stream.set(Mode::Open);
        for _ in 0..300 {
            tickets.push(producer.send(record(&format!("key-{}", sent % 30), sent.to_string())).await);
            sent += 1;
        }
    }
    for receipt in soon("the answers", join_all(tickets)).await {
        receipt.unwrap();
    }
    for key in 0..30 {
        let expected: Vec<String> = (key..sent).step_by(30).map(|i| i.to_string()).collect();
        assert_eq!(first_occurrences(&stream, &format!("key-{key}")), expected);
    }
    let identities: HashSet<_> = stream.records().iter().map(|r| *r.headers.creation().unwrap()).collect();
    assert_eq!(identities.len(), sent, "what came twice came as the same record");
}

#[tokio::test]
async fn a_gateway_that_comes_back_waits_for_what_the_others_have_of_its_keys() {
    let (first, second) = (FakeStream::new("inbound"), FakeStream::new("inbound"));
    let mut settings = config(&[&first]);
    let gateway = Mortal::start(settings.clone(), &first).await;
    let other = Mortal::start(config(&[&second]), &second).await;
    let producer = connect(&[&gateway, &other]).await;
    let key = key_of(&first, &producer).await;
    settings.listen = gateway.address;
    drop(gateway);
    soon("an answer", producer.put(record(&key, "1"))).await.unwrap();
    assert_eq!(second.of_key(&key), ["1"], "the other gateway has the key now");

    second.set(Mode::Shut);
    let calls = second.calls();
    let held = producer.send(record(&key, "2")).await;
    second.called(calls + 1).await;
    let gateway = Mortal::start(settings, &first).await;
    connected(&producer, 2).await;
    let mut next = producer.send(record(&key, "3")).await;
    // A record of the other gateway's keys passes through the same task after it.
    let probe = producer.send(record("any", "probe")).await;
    assert!((&mut next).now_or_never().is_none());
    assert!(!first.of_key(&key).contains(&"3".to_owned()), "it would overtake the one that is held");
    second.set(Mode::Open);
    soon("the held answer", held).await.unwrap();
    soon("the next answer", next).await.unwrap();
    soon("the probe's answer", probe).await.unwrap();
    assert_eq!(first.of_key(&key).last().unwrap(), "3", "the key is back where it belongs");
    drop(gateway);
}

#[tokio::test]
async fn offline_records_wait_without_losing_their_time() {
    let stream = FakeStream::new("inbound");
    let place = Mortal::start(config(&[&stream]), &stream).await;
    let mut settings = config(&[&stream]);
    settings.listen = place.address;
    let url = place.url();
    drop(place);
    let producer = Producer::builder()
        .endpoint(url)
        .stream("inbound")
        .timeout(Duration::from_millis(500))
        .longest_pause(Duration::from_millis(20))
        .buffer_offline(true)
        .connect()
        .await
        .unwrap();
    let mut tickets = Vec::new();
    for i in 0..50 {
        tickets.push(producer.send(record("k", i.to_string())).await);
    }
    // Longer than each record's own time, which does not run meanwhile.
    let mut waiting = std::pin::pin!(join_all(tickets));
    let answered = tokio::time::timeout(Duration::from_millis(700), &mut waiting).await;
    assert!(answered.is_err(), "nobody can have answered");
    let _gateway = Mortal::start(settings, &stream).await;
    for receipt in soon("the answers", waiting).await {
        receipt.unwrap();
    }
    let expected: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    assert_eq!(stream.of_key("k"), expected);
}
