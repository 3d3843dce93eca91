//! A producer without a gateway, against the embedded Kinesis through the AWS SDK.
#![cfg(feature = "direct")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../gateway/tests/support/mod.rs"]
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use headworks_producer::{Error, Producer, Receipt, Record};
use headworks_writer::{Config, Writer};
use support::{FakeStream, Mode, soon};
use tokio_util::sync::CancellationToken;

fn record(key: &str, data: impl Into<bytes::Bytes>) -> Record {
    Record::builder(key).unwrap().header("type", "test").unwrap().data(data).build()
}

#[tokio::test]
async fn records_are_stored_in_order_with_their_places() {
    let stream = FakeStream::new("inbound");
    let (service, writer) =
        Writer::start(Config::default(), stream.clone(), Default::default()).await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(service.run(shutdown.clone()));
    let producer = Producer::builder().stream("inbound").direct(writer).unwrap();
    // One after the other: records that are sent at once have no order among them.
    let mut tickets = Vec::new();
    for i in 0..3_000 {
        tickets.push(producer.send(record(["a", "b", "c"][i % 3], i.to_string())).await);
    }
    soon("the flush", producer.flush()).await;
    assert_eq!(producer.report().stored, 3_000);
    for receipt in join_all(tickets).await {
        let Receipt::Stored(stored) = receipt.unwrap() else { panic!("there is no spool") };
        assert!(stored.shard_id.starts_with("shardId-") && stored.attempts == 1, "{stored:?}");
    }
    for (k, key) in ["a", "b", "c"].iter().enumerate() {
        let expected: Vec<String> = (k..3_000).step_by(3).map(|i| i.to_string()).collect();
        assert_eq!(stream.of_key(key), expected);
    }
    assert!(stream.records().iter().all(|record| record.headers.creation().is_some()));
    soon("an empty flush", producer.flush()).await;
    assert!(producer.gateways().is_empty());

    let mut large = record("a", vec![0; 2 << 20]);
    large.headers = Default::default();
    let error = soon("an answer", producer.put(large)).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("record-too-large", false));

    // What the stream does not take by the end is told as unknown, what it never saw as not sent.
    stream.set(Mode::Shut);
    let calls = stream.calls();
    let ticket = producer.send(record("a", "last")).await;
    stream.called(calls + 1).await;
    let report = soon("the end", producer.clone().close(Duration::from_millis(20))).await;
    assert_eq!((report.stored, report.failed, report.unknown, report.abandoned), (3_000, 1, 1, 1));
    assert!(ticket.await.unwrap_err().outcome_unknown());
    assert_eq!(producer.put(record("a", "late")).await, Err(Error::Closed));
    stream.set(Mode::Open);
    shutdown.cancel();
    soon("the writer's end", running).await.unwrap();
}
