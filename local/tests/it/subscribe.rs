//! Enhanced fan-out.

use std::time::Duration;

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ShardIteratorType as Kind, StartingPosition};
use headworks_local::Settings;

use crate::support::{FIRST, SECOND, START_MS, fixture, fixture_with, from, from_number, text};

#[tokio::test]
async fn the_first_event_comes_at_once_and_can_be_resumed_after() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    f.put("s", 0, "old").await;
    let mut latest = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    let first = latest.next().await;
    assert!(first.records.is_empty());
    assert_eq!(first.millis_behind_latest, 0);
    let continuation = first.continuation_sequence_number;
    drop(latest);

    // What is put while nobody is subscribed is not skipped: that makes LATEST durable.
    f.put("s", 0, "a").await;
    f.clock.advance_ms(5_000);
    let mut resumed =
        f.subscribe(&consumer, FIRST, from_number(Kind::AfterSequenceNumber, &continuation)).await;
    let event = resumed.next().await;
    assert_eq!(event.records.iter().map(|record| text(&record.data)).collect::<Vec<_>>(), ["a"]);
    assert_eq!(event.continuation_sequence_number, event.records[0].sequence_number);

    let (_, number) = f.put("s", 0, "b").await;
    let event = resumed.next().await;
    assert_eq!(text(&event.records[0].data), "b");
    assert_eq!(event.records[0].sequence_number, number);
    assert_eq!(event.continuation_sequence_number, number);
}

#[tokio::test]
async fn an_empty_shard_has_a_continuation_too() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    let continuation = {
        let mut empty = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
        empty.next().await.continuation_sequence_number
    };
    f.put("s", 0, "a").await;
    f.clock.advance_ms(5_000);
    let mut resumed =
        f.subscribe(&consumer, FIRST, from_number(Kind::AfterSequenceNumber, &continuation)).await;
    assert_eq!(resumed.records(1).await, ["a"]);
}

#[tokio::test]
async fn every_starting_position() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    let mut numbers = Vec::new();
    for data in ["a", "b", "c"] {
        numbers.push(f.put("s", 0, data).await.1);
        f.clock.advance_ms(1_000);
    }
    let timestamp =
        |ms| StartingPosition::builder().r#type(Kind::AtTimestamp).timestamp(DateTime::from_millis(ms));
    for (start, expected) in [
        (from(Kind::TrimHorizon), vec!["a", "b", "c", "d"]),
        (from_number(Kind::AtSequenceNumber, &numbers[1]), vec!["b", "c", "d"]),
        (from_number(Kind::AfterSequenceNumber, &numbers[1]), vec!["c", "d"]),
        (timestamp(START_MS + 1).build().unwrap(), vec!["b", "c", "d"]),
    ] {
        f.clock.advance_ms(5_000);
        let mut events = f.subscribe(&consumer, FIRST, start.clone()).await;
        if expected.len() == 4 {
            f.put("s", 0, "d").await;
        }
        assert_eq!(events.records(expected.len()).await, expected, "{start:?}");
    }
}

#[tokio::test]
async fn one_subscription_per_consumer_and_shard() {
    let f = fixture().await;
    let arn = f.create("s", 2).await;
    let consumer = f.register(&arn, "c").await;
    let other = f.register(&arn, "other").await;
    let mut first = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    first.next().await;
    // Another shard and another consumer are free.
    f.subscribe(&consumer, SECOND, from(Kind::Latest)).await;
    f.subscribe(&other, FIRST, from(Kind::Latest)).await;

    f.clock.advance_ms(4_999);
    let call = f.client.subscribe_to_shard().consumer_arn(&consumer).shard_id(FIRST);
    let refused = call.starting_position(from(Kind::Latest)).send().await.unwrap_err().into_service_error();
    assert!(refused.is_resource_in_use_exception(), "{refused:?}");
    f.put("s", 0, "a").await;
    assert_eq!(first.records(1).await, ["a"], "a refusal does not disturb the one that runs");

    f.clock.advance_ms(1);
    let mut second = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    second.next().await;
    let ended = first.end().await.unwrap_err();
    assert!(ended.contains("ResourceInUseException"), "{ended}");
    f.put("s", 0, "b").await;
    assert_eq!(second.records(1).await, ["b"]);
}

#[tokio::test]
async fn a_quiet_subscription_sends_heartbeats_and_ends_after_its_length() {
    let settings = Settings {
        heartbeat: Duration::from_millis(5),
        subscription_length: Duration::from_millis(200),
        ..Settings::default()
    };
    let f = fixture_with(settings).await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    let first = events.next().await;
    let second = events.next().await;
    assert!(second.records.is_empty());
    assert_eq!(second.continuation_sequence_number, first.continuation_sequence_number);
    assert_eq!(events.end().await, Ok(()));
}

#[tokio::test]
async fn a_subscription_ends_with_its_consumer_its_stream_or_the_stack() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    events.next().await;
    f.client.deregister_stream_consumer().consumer_arn(&consumer).send().await.unwrap();
    assert!(events.end().await.unwrap_err().contains("ResourceNotFoundException"));

    let consumer = f.register(&arn, "d").await;
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    events.next().await;
    f.client.delete_stream().stream_name("s").enforce_consumer_deletion(true).send().await.unwrap();
    assert!(events.end().await.unwrap_err().contains("ResourceNotFoundException"));

    let arn = f.create("t", 1).await;
    let consumer = f.register(&arn, "c").await;
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::Latest)).await;
    events.next().await;
    f.stack.shutdown().await.unwrap();
    assert_eq!(events.end().await, Ok(()));
}

#[tokio::test]
async fn everything_put_while_subscribed_is_pushed_in_order() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let consumer = f.register(&arn, "c").await;
    let mut events = f.subscribe(&consumer, FIRST, from(Kind::TrimHorizon)).await;
    let expected: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    let put = async {
        for data in &expected {
            f.put("s", 0, data).await;
        }
    };
    let (found, ()) = tokio::join!(events.records(expected.len()), put);
    assert_eq!(found, expected);
}
