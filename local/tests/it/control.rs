//! Streams, their states, tags and consumers.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_kinesis::types::{ConsumerStatus, StreamMode, StreamModeDetails, StreamStatus};
use headworks_local::Settings;

use crate::support::{Fixture, fixture, fixture_with};

async fn status(f: &Fixture, stream: &str) -> Option<StreamStatus> {
    let answer = f.client.describe_stream_summary().stream_name(stream).send().await;
    answer.ok().map(|answer| answer.stream_description_summary.unwrap().stream_status)
}

#[tokio::test]
async fn states_last_as_long_as_they_are_told_to() {
    let f = fixture_with(Settings { transition: Duration::from_secs(3), ..Settings::default() }).await;
    f.client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    assert_eq!(status(&f, "s").await, Some(StreamStatus::Creating));
    let early =
        f.client.put_record().stream_name("s").partition_key("k").data("x".as_bytes().into()).send().await;
    assert!(early.unwrap_err().into_service_error().is_resource_not_found_exception());
    f.clock.advance_ms(3_000);
    assert_eq!(status(&f, "s").await, Some(StreamStatus::Active));

    let split = f.client.split_shard().stream_name("s").shard_to_split("shardId-000000000000");
    split.new_starting_hash_key("1000").send().await.unwrap();
    assert_eq!(status(&f, "s").await, Some(StreamStatus::Updating));
    f.put("s", 0, "goes on while updating").await;
    let again = f.client.split_shard().stream_name("s").shard_to_split("shardId-000000000001");
    let again = again.new_starting_hash_key("100").send().await.unwrap_err().into_service_error();
    assert!(again.is_resource_in_use_exception(), "{again:?}");
    f.clock.advance_ms(3_000);

    let arn = f.stack.engine().describe_stream("s").unwrap().arn;
    let registered =
        f.client.register_stream_consumer().stream_arn(&arn).consumer_name("c").send().await.unwrap();
    assert_eq!(registered.consumer.unwrap().consumer_status, ConsumerStatus::Creating);
    f.clock.advance_ms(3_000);
    let known = f.client.describe_stream_consumer().stream_arn(&arn).consumer_name("c").send().await.unwrap();
    assert_eq!(known.consumer_description.unwrap().consumer_status, ConsumerStatus::Active);

    let kept = f.client.delete_stream().stream_name("s").send().await.unwrap_err().into_service_error();
    assert!(kept.is_resource_in_use_exception(), "{kept:?}");
    f.client.delete_stream().stream_name("s").enforce_consumer_deletion(true).send().await.unwrap();
    assert_eq!(status(&f, "s").await, Some(StreamStatus::Deleting));
    f.clock.advance_ms(3_000);
    assert_eq!(status(&f, "s").await, None);
    assert!(f.client.list_streams().send().await.unwrap().stream_names.is_empty());
}

#[tokio::test]
async fn streams_are_listed_by_name_in_pages() {
    let f = fixture().await;
    for name in ["c", "a", "b"] {
        f.create(name, 1).await;
    }
    let first = f.client.list_streams().limit(2).send().await.unwrap();
    assert_eq!(first.stream_names, ["a", "b"]);
    assert!(first.has_more_streams);
    let summaries = first.stream_summaries.unwrap();
    assert_eq!(summaries[0].stream_arn, "arn:aws:kinesis:us-east-1:000000000000:stream/a");
    let rest = f.client.list_streams().next_token(first.next_token.unwrap()).send().await.unwrap();
    assert_eq!((rest.stream_names, rest.has_more_streams), (vec!["c".to_owned()], false));
}

#[tokio::test]
async fn on_demand_streams_have_four_shards_and_count_apart() {
    let f = fixture().await;
    let details = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build().unwrap();
    let create = f.client.create_stream().stream_name("s").stream_mode_details(details).tags("team", "web");
    create.send().await.unwrap();
    let summary = f.client.describe_stream_summary().stream_name("s").send().await.unwrap();
    let summary = summary.stream_description_summary.unwrap();
    assert_eq!(summary.open_shard_count, 4);
    assert_eq!(summary.stream_mode_details.unwrap().stream_mode, StreamMode::OnDemand);
    assert_eq!(summary.max_record_size_in_kib, Some(1_024));
    let limits = f.client.describe_limits().send().await.unwrap();
    assert_eq!((limits.shard_limit, limits.open_shard_count, limits.on_demand_stream_count), (1_000, 4, 1));
    let tags = f.client.list_tags_for_stream().stream_name("s").send().await.unwrap();
    assert_eq!((tags.tags[0].key.as_str(), tags.tags[0].value.as_deref()), ("team", Some("web")));
}

#[tokio::test]
async fn tags_by_stream_and_by_resource_are_the_same() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    f.client.add_tags_to_stream().stream_name("s").tags("a", "1").tags("b", "2").send().await.unwrap();
    f.client.tag_resource().resource_arn(&arn).tags("c", "3").send().await.unwrap();
    f.client.remove_tags_from_stream().stream_arn(&arn).tag_keys("a").send().await.unwrap();
    let page = f.client.list_tags_for_stream().stream_name("s").limit(1).send().await.unwrap();
    assert!(page.has_more_tags);
    assert_eq!(page.tags[0].key, "b");
    f.client.untag_resource().resource_arn(&arn).tag_keys("b").send().await.unwrap();
    let rest = f.client.list_tags_for_resource().resource_arn(&arn).send().await.unwrap().tags.unwrap();
    assert_eq!(rest.iter().map(|tag| tag.key.as_str()).collect::<Vec<_>>(), ["c"]);

    let call =
        (0..50).fold(f.client.add_tags_to_stream().stream_name("s"), |call, n| call.tags(n.to_string(), "x"));
    assert!(call.send().await.unwrap_err().into_service_error().is_invalid_argument_exception());
}

#[tokio::test]
async fn consumers_by_name_and_by_arn() {
    let f = fixture().await;
    let stream = f.create("s", 1).await;
    let arn = f.register(&stream, "c").await;
    assert_eq!(arn, format!("{stream}/consumer/c:1763600000"));
    for call in [
        f.client.describe_stream_consumer().consumer_arn(&arn),
        f.client.describe_stream_consumer().stream_arn(&stream).consumer_name("c"),
    ] {
        let found = call.send().await.unwrap().consumer_description.unwrap();
        assert_eq!((found.consumer_arn.as_str(), found.stream_arn.as_str()), (arn.as_str(), stream.as_str()));
    }
    let twice =
        f.client.register_stream_consumer().stream_arn(&stream).consumer_name("c").send().await.unwrap_err();
    assert!(twice.into_service_error().is_resource_in_use_exception());
    for n in 0..19 {
        f.register(&stream, &format!("more-{n}")).await;
    }
    let over = f
        .client
        .register_stream_consumer()
        .stream_arn(&stream)
        .consumer_name("over")
        .send()
        .await
        .unwrap_err();
    assert!(over.into_service_error().is_limit_exceeded_exception());

    let mut names = BTreeSet::new();
    let mut token = None;
    loop {
        let call = f.client.list_stream_consumers().stream_arn(&stream).max_results(8).set_next_token(token);
        let page = call.send().await.unwrap();
        names.extend(page.consumers.unwrap().into_iter().map(|consumer| consumer.consumer_name));
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names.len(), 20);

    // A consumer registered again is another: its earlier ARN is gone.
    f.client.deregister_stream_consumer().stream_arn(&stream).consumer_name("c").send().await.unwrap();
    f.clock.advance_ms(1_000);
    assert_ne!(f.register(&stream, "c").await, arn);
    let gone = f.client.describe_stream_consumer().consumer_arn(&arn).send().await.unwrap_err();
    assert!(gone.into_service_error().is_resource_not_found_exception());
}
