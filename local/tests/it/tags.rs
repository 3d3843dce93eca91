//! Tags of consumers, from their registration on, and what tags may be.

use std::collections::HashMap;

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::ConsumerStatus;
use headworks_local::kinesis::{self, Alone};
use headworks_local::{Engine, Settings};
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, fixture, fixture_with};

fn numbered(count: usize) -> HashMap<String, String> {
    (0..count).map(|n| (format!("tag-{n:03}"), n.to_string())).collect()
}

async fn tags(f: &Fixture, arn: &str) -> Vec<(String, String)> {
    let answer = f.client.list_tags_for_resource().resource_arn(arn).send().await.unwrap();
    let tags = answer.tags.unwrap_or_default().into_iter();
    tags.map(|tag| (tag.key, tag.value.unwrap_or_default())).collect()
}

async fn register(
    f: &Fixture,
    stream: &str,
    name: &str,
    tags: HashMap<String, String>,
) -> Result<String, String> {
    let call = f.client.register_stream_consumer().stream_arn(stream).consumer_name(name);
    match call.set_tags(Some(tags)).send().await {
        Ok(answer) => Ok(answer.consumer.unwrap().consumer_arn),
        Err(error) => Err(error.into_service_error().code().unwrap().to_owned()),
    }
}

#[tokio::test]
async fn a_consumer_has_its_tags_from_its_registration_on() {
    let transition = std::time::Duration::from_secs(2);
    let f = fixture_with(Settings { transition, ..Settings::default() }).await;
    f.client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    f.clock.advance_ms(2_000);
    let summary = f.client.describe_stream_summary().stream_name("s").send().await.unwrap();
    let stream = summary.stream_description_summary.unwrap().stream_arn;

    let given = HashMap::from([("team".to_owned(), "web".to_owned()), ("empty".to_owned(), String::new())]);
    let consumer = register(&f, &stream, "c", given).await.unwrap();
    let described = f.client.describe_stream_consumer().consumer_arn(&consumer).send().await.unwrap();
    let status = described.consumer_description.unwrap().consumer_status;
    assert_eq!(status, ConsumerStatus::Creating, "they count while it is being created");
    let expected = [("empty", ""), ("team", "web")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(tags(&f, &consumer).await, expected);
    assert!(tags(&f, &stream).await.is_empty(), "a consumer's tags are its own");
    f.clock.advance_ms(2_000);

    f.client.tag_resource().resource_arn(&consumer).tags("team", "shop").tags("b", "2").send().await.unwrap();
    f.client.untag_resource().resource_arn(&consumer).tag_keys("empty").tag_keys("no").send().await.unwrap();
    let expected = [("b", "2"), ("team", "shop")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(tags(&f, &consumer).await, expected);

    // Another consumer of the same name is another resource.
    f.client.deregister_stream_consumer().consumer_arn(&consumer).send().await.unwrap();
    f.clock.advance_ms(2_000);
    let again = f.register(&stream, "c").await;
    assert!(tags(&f, &again).await.is_empty());
    let gone = f.client.list_tags_for_resource().resource_arn(&consumer).send().await.unwrap_err();
    assert!(gone.into_service_error().is_resource_not_found_exception());
    let gone = f.client.tag_resource().resource_arn(&consumer).tags("a", "1").send().await.unwrap_err();
    assert!(gone.into_service_error().is_resource_not_found_exception());
    let gone = f.client.untag_resource().resource_arn(&consumer).tag_keys("a").send().await.unwrap_err();
    assert!(gone.into_service_error().is_resource_not_found_exception());
}

#[tokio::test]
async fn a_resource_has_fifty_tags() {
    let f = fixture().await;
    let stream = f.create("s", 1).await;
    assert_eq!(register(&f, &stream, "c", numbered(51)).await.unwrap_err(), "InvalidArgumentException");
    let unknown = f.client.describe_stream_consumer().stream_arn(&stream).consumer_name("c").send().await;
    assert!(
        unknown.unwrap_err().into_service_error().is_resource_not_found_exception(),
        "nothing is registered"
    );
    let consumer = register(&f, &stream, "c", numbered(50)).await.unwrap();
    assert_eq!(tags(&f, &consumer).await.len(), 50);

    let add = |key: &str| f.client.tag_resource().resource_arn(&consumer).tags(key, "new").send();
    add("tag-007").await.unwrap();
    let error = add("one-more").await.unwrap_err().into_service_error();
    assert!(error.is_invalid_argument_exception(), "{error:?}");
    assert!(error.message().unwrap().contains("consumer c of stream s"), "{error:?}");
    assert!(error.message().unwrap().contains("more than 50 tags"), "{error:?}");
    f.client.untag_resource().resource_arn(&consumer).tag_keys("tag-000").send().await.unwrap();
    add("one-more").await.unwrap();
    assert_eq!(tags(&f, &consumer).await.len(), 50);

    let created = f.client.create_stream().stream_name("t").shard_count(1).set_tags(Some(numbered(51)));
    assert!(created.send().await.unwrap_err().into_service_error().is_invalid_argument_exception());
}

#[tokio::test]
async fn tags_have_lengths_letters_and_a_reserved_prefix() {
    let f = fixture().await;
    let stream = f.create("s", 1).await;
    let long = |count: usize| "x".repeat(count);
    let cases = [
        ("Größe der Sendung", "_ . : / = + - @ 7", None),
        (&long(128), &long(256), None),
        (&long(129), "x", Some("ValidationException")),
        ("", "x", Some("ValidationException")),
        ("x", &long(257), Some("ValidationException")),
        ("aws:x", "x", Some("InvalidArgumentException")),
        ("AWS:x", "x", Some("InvalidArgumentException")),
        ("a;b", "x", Some("InvalidArgumentException")),
        ("x", "100%", Some("InvalidArgumentException")),
    ];
    for (n, (key, value, expected)) in cases.into_iter().enumerate() {
        let given = HashMap::from([(key.to_owned(), value.to_owned())]);
        let found = register(&f, &stream, &format!("c{n}"), given.clone()).await;
        assert_eq!(found.err().as_deref(), expected, "registering with {key}: {value}");
        let found = f.client.tag_resource().resource_arn(&stream).set_tags(Some(given)).send().await;
        let found = found.err().map(|error| error.into_service_error().code().unwrap().to_owned());
        assert_eq!(found.as_deref(), expected, "tagging with {key}: {value}");
    }
    assert_eq!(register(&f, &stream, "d", numbered(0)).await.unwrap_err(), "ValidationException");
    assert_eq!(register(&f, &stream, "d", numbered(201)).await.unwrap_err(), "ValidationException");
    let untag = |keys: Vec<String>| {
        let call = f.client.untag_resource().resource_arn(&stream).set_tag_keys(Some(keys));
        async move { call.send().await.unwrap_err().into_service_error().code().unwrap().to_owned() }
    };
    assert_eq!(untag(Vec::new()).await, "ValidationException");
    assert_eq!(untag(numbered(51).into_keys().collect()).await, "ValidationException");
    assert_eq!(untag(vec![long(129)]).await, "ValidationException");
}

#[tokio::test]
async fn tags_of_consumers_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let engine = Engine::new(Settings::default());
        kinesis::store::open(&engine, dir.path()).unwrap();
        engine
    };
    let engine = open();
    engine
        .create_stream(kinesis::CreateStream { name: "s".to_owned(), shards: 1, ..Default::default() })
        .unwrap();
    let arn = engine.register_tagged_consumer("s", "c", numbered(3).into_iter().collect()).unwrap().arn;
    // As after a kill: nothing is closed, so it is the log that is read.
    drop(engine);
    drop(open());

    let listener = kinesis::bind(0).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let alone = Alone { data_dir: Some(dir.path().to_owned()), ..Alone::default() };
    let serving = tokio::spawn(kinesis::serve(listener, alone, stop.clone()));
    let client = crate::alone::client(address.port());
    let found = client.list_tags_for_resource().resource_arn(&arn).send().await.unwrap();
    assert_eq!(found.tags.unwrap_or_default().len(), 3);
    stop.cancel();
    serving.await.unwrap().unwrap();
}
