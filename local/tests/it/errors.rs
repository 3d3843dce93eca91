//! What is refused, and in whose words.

use std::collections::HashMap;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType as Kind, StartingPosition};

use headworks_local::Settings;

use crate::support::{FIRST, Fixture, SECOND, fixture, fixture_with};

fn refusal<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug, R: std::fmt::Debug>(
    answer: Result<T, SdkError<E, R>>,
) -> (String, String) {
    let error = answer.unwrap_err();
    let meta = error.as_service_error().expect("an answer of the service").meta();
    (meta.code().unwrap_or_default().to_owned(), meta.message().unwrap_or_default().to_owned())
}

async fn put(f: &Fixture, stream: &str, key: &str, hash: Option<&str>, bytes: usize) -> (String, String) {
    let call = f.client.put_record().stream_name(stream).partition_key(key).data(Blob::new(vec![0; bytes]));
    refusal(call.set_explicit_hash_key(hash.map(str::to_owned)).send().await)
}

#[tokio::test]
async fn bad_records_are_refused_with_the_value_and_the_limit() {
    let f = fixture().await;
    f.create("s", 1).await;
    let not_found = (
        "ResourceNotFoundException".to_owned(),
        "Stream nowhere under account 000000000000 not found.".to_owned(),
    );
    assert_eq!(put(&f, "nowhere", "k", None, 1).await, not_found);

    let (code, message) = put(&f, "s", "", None, 1).await;
    assert_eq!(code, "ValidationException");
    assert_eq!(
        message,
        "1 validation error detected: Value '' at 'partitionKey' failed to satisfy constraint: Member must have \
         length greater than or equal to 1"
    );
    let (code, message) = put(&f, "s", &"ö".repeat(257), None, 1).await;
    assert_eq!(code, "ValidationException");
    assert!(message.ends_with("Member must have length less than or equal to 256"), "{message}");
    f.client
        .put_record()
        .stream_name("s")
        .partition_key("ö".repeat(256))
        .data(Blob::new("x"))
        .send()
        .await
        .expect("256 characters, not bytes");

    for hash in ["", "-1", "01", "x", "1000000000000000000000000000000000000000"] {
        let (code, message) = put(&f, "s", "k", Some(hash), 1).await;
        assert_eq!(code, "ValidationException");
        assert_eq!(
            message,
            format!(
                "1 validation error detected: Value '{hash}' at 'explicitHashKey' failed to satisfy constraint: \
                 Member must satisfy regular expression pattern: 0|([1-9]\\d{{0,38}})"
            )
        );
    }
    let beyond = "340282366920938463463374607431768211456";
    let (code, message) = put(&f, "s", "k", Some(beyond), 1).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(message.ends_with(&format!("[0, 2^128-1]. Specified value was {beyond}")), "{message}");

    let (code, message) = put(&f, "s", "k", None, 1 << 20).await;
    assert_eq!(code, "ValidationException", "the partition key counts");
    assert!(message.contains("1048577 bytes") && message.contains("1048576 bytes"), "{message}");
    let (code, _) = put(&f, "s", "k", None, (10 << 20) + 1).await;
    assert_eq!(code, "ValidationException");
}

#[tokio::test]
async fn bad_batches_store_nothing() {
    let f = fixture().await;
    f.client
        .create_stream()
        .stream_name("s")
        .shard_count(1)
        .max_record_size_in_kib(10_240)
        .send()
        .await
        .unwrap();
    let entry = |key: &str, bytes: usize| {
        PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(vec![0; bytes])).build().unwrap()
    };
    let call = |entries| f.client.put_records().stream_name("s").set_records(Some(entries)).send();

    let (code, message) = refusal(call(vec![]).await);
    assert_eq!(code, "ValidationException", "{message}");
    let (code, message) = refusal(call(vec![entry("k", 1); 501]).await);
    assert_eq!(code, "ValidationException");
    assert!(message.contains("501 records") && message.contains("500"), "{message}");
    let (code, message) = refusal(call(vec![entry("k", 6 << 20), entry("k", 6 << 20)]).await);
    assert_eq!(code, "InvalidArgumentException", "{message}");
    let (code, message) = refusal(call(vec![entry("k", 1), entry("", 1)]).await);
    assert_eq!(code, "ValidationException");
    assert!(message.contains("'records.2.member.partitionKey'"), "{message}");
    let bad_hash = PutRecordsRequestEntry::builder().partition_key("k").explicit_hash_key("x");
    let bad_hash = bad_hash.data(Blob::new("x")).build().unwrap();
    let (code, message) = refusal(call(vec![entry("k", 1), bad_hash]).await);
    assert_eq!(code, "ValidationException");
    assert_eq!(
        message,
        "1 validation error detected: Value 'x' at 'records.2.member.explicitHashKey' failed to satisfy constraint: \
         Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38})"
    );
    assert_eq!(f.stack.engine().held(), (0, 0));
    call(vec![entry("k", 1); 500]).await.unwrap();
}

#[tokio::test]
async fn bad_control_calls() {
    let f = fixture().await;
    f.create("s", 2).await;
    let c = &f.client;
    let code = |(code, _): (String, String)| code;

    assert_eq!(
        refusal(c.create_stream().stream_name("s").shard_count(1).send().await),
        (
            "ResourceInUseException".to_owned(),
            "Stream s under account 000000000000 already exists.".to_owned()
        )
    );
    assert_eq!(
        code(refusal(c.create_stream().stream_name("a b").shard_count(1).send().await)),
        "ValidationException"
    );
    assert_eq!(
        code(refusal(c.create_stream().stream_name("t").shard_count(0).send().await)),
        "ValidationException"
    );
    assert_eq!(code(refusal(c.create_stream().stream_name("t").send().await)), "ValidationException");
    let many = c.create_stream().stream_name("t").shard_count(999).send().await;
    let (name, message) = refusal(many);
    assert_eq!(name, "LimitExceededException");
    assert!(message.contains("Current shard count for the account: 2. Limit: 1000."), "{message}");

    let split = |shard: &str, hash: &str| {
        c.split_shard().stream_name("s").shard_to_split(shard).new_starting_hash_key(hash).send()
    };
    for hash in ["0", "1", &(1u128 << 127).to_string(), &u128::MAX.to_string()] {
        let (name, message) = refusal(split(FIRST, hash).await);
        assert_eq!(name, "InvalidArgumentException");
        assert!(
            message.contains("is not both greater than one plus the shard's StartingHashKey 0"),
            "{message}"
        );
    }
    assert_eq!(code(refusal(split("shardId-000000000009", "5").await)), "ResourceNotFoundException");
    assert_eq!(code(refusal(split(FIRST, "half").await)), "ValidationException");
    let beyond = split(FIRST, "340282366920938463463374607431768211456").await;
    assert_eq!(code(refusal(beyond)), "InvalidArgumentException");
    split(FIRST, "1000").await.unwrap();
    let (name, message) = refusal(split(FIRST, "2000").await);
    assert_eq!(name, "InvalidArgumentException");
    assert!(message.contains("has already been merged or split"), "{message}");

    let apart = c.merge_shards().stream_name("s").shard_to_merge(SECOND);
    let (name, message) = refusal(apart.adjacent_shard_to_merge("shardId-000000000002").send().await);
    assert_eq!(name, "InvalidArgumentException");
    assert_eq!(
        message,
        "Shards shardId-000000000001 and shardId-000000000002 in stream s under account 000000000000 are not an \
         adjacent pair of shards eligible for merging"
    );
    let inverted = c.merge_shards().stream_name("s").shard_to_merge("shardId-000000000003");
    let (name, message) = refusal(inverted.adjacent_shard_to_merge("shardId-000000000002").send().await);
    assert_eq!(name, "InvalidArgumentException");
    assert!(message.contains("shardId-000000000003 and shardId-000000000002"), "{message}");

    let count =
        c.update_shard_count().stream_name("s").target_shard_count(7).scaling_type("UNIFORM_SCALING".into());
    assert_eq!(code(refusal(count.send().await)), "InvalidArgumentException");
    let retention = c.increase_stream_retention_period().stream_name("s").retention_period_hours(23);
    assert_eq!(code(refusal(retention.send().await)), "InvalidArgumentException");
    let retention = c.decrease_stream_retention_period().stream_name("s").retention_period_hours(48);
    assert_eq!(code(refusal(retention.send().await)), "InvalidArgumentException");
    assert_eq!(code(refusal(c.delete_stream().stream_name("t").send().await)), "ResourceNotFoundException");
    assert_eq!(code(refusal(c.delete_stream().send().await)), "InvalidArgumentException");
    assert_eq!(
        code(refusal(c.describe_stream().stream_arn("arn:nonsense").send().await)),
        "ValidationException"
    );
    let both =
        c.describe_stream().stream_name("s").stream_arn("arn:aws:kinesis:us-east-1:000000000000:stream/t");
    assert_eq!(code(refusal(both.send().await)), "InvalidArgumentException");
}

#[tokio::test]
async fn positions_and_tags_of_the_wrong_form() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let c = &f.client;
    let pattern = "Member must satisfy regular expression pattern: 0|([1-9]\\d{0,128})";
    for kind in [Kind::AtSequenceNumber, Kind::AfterSequenceNumber] {
        let call = c.get_shard_iterator().stream_name("s").shard_id(FIRST).shard_iterator_type(kind);
        let (name, message) = refusal(call.clone().starting_sequence_number("x").send().await);
        assert_eq!(name, "ValidationException");
        let at = "Value 'x' at 'startingSequenceNumber' failed to satisfy constraint";
        assert_eq!(message, format!("1 validation error detected: {at}: {pattern}"));
        // Well formed, but no number of this shard.
        let (name, _) = refusal(call.starting_sequence_number("1".repeat(129)).send().await);
        assert_eq!(name, "InvalidArgumentException");
    }
    // The form is looked at before what is named.
    let call = c.get_shard_iterator().stream_name("nowhere").shard_id(FIRST);
    let call = call.shard_iterator_type(Kind::AtSequenceNumber).starting_sequence_number("x");
    assert_eq!(refusal(call.send().await).0, "ValidationException");

    let consumer = f.register(&arn, "c").await;
    let start = StartingPosition::builder().r#type(Kind::AtSequenceNumber).sequence_number("x");
    let call = c.subscribe_to_shard().consumer_arn(consumer).shard_id(FIRST);
    let answer = call.starting_position(start.build().unwrap()).send().await;
    let (name, message) = refusal(answer.map(|_| ()));
    assert_eq!(name, "ValidationException");
    assert!(message.contains("'startingPosition.sequenceNumber'"), "{message}");

    let none = HashMap::new();
    let (name, message) = refusal(c.add_tags_to_stream().stream_name("s").set_tags(Some(none)).send().await);
    assert_eq!(name, "ValidationException");
    assert_eq!(
        message,
        "1 validation error detected: Value '{}' at 'tags' failed to satisfy constraint: Member must have length \
         greater than or equal to 1"
    );
}

#[tokio::test]
async fn iterators_speak_of_the_shard_whatever_is_not_there() {
    let transition = std::time::Duration::from_secs(2);
    let f = fixture_with(Settings { transition, ..Settings::default() }).await;
    let c = &f.client;
    let iterator = |stream: &str, shard: &str| {
        c.get_shard_iterator().stream_name(stream).shard_id(shard).shard_iterator_type(Kind::Latest).send()
    };
    let missing = |shard: &str, stream: &str| {
        let account = "000000000000";
        let message = format!("Shard {shard} in stream {stream} under account {account} does not exist");
        ("ResourceNotFoundException".to_owned(), message)
    };
    assert_eq!(refusal(iterator("nowhere", "shardId-5").await), missing("shardId-000000000005", "nowhere"));
    let (name, message) = refusal(iterator("nowhere", "ABKLFD8").await);
    assert_eq!(name, "ResourceNotFoundException");
    assert_eq!(message, "Could not find shard ABKLFD8 in stream nowhere under account 000000000000.");

    c.create_stream().stream_name("s").shard_count(2).send().await.unwrap();
    assert_eq!(refusal(iterator("s", FIRST).await), missing(FIRST, "s"), "it is being created");
    let described = c.describe_stream().stream_name("s").send().await.unwrap().stream_description.unwrap();
    assert!(described.shards.is_empty() && !described.has_more_shards, "{described:?}");
    let creating = (
        "ResourceInUseException".to_owned(),
        "Stream s under account 000000000000 not ACTIVE, instead in state CREATING".to_owned(),
    );
    assert_eq!(refusal(c.list_shards().stream_name("s").send().await), creating);
    f.clock.advance_ms(2_000);
    assert_eq!(c.list_shards().stream_name("s").send().await.unwrap().shards.unwrap().len(), 2);

    let issued = iterator("s", SECOND).await.unwrap().shard_iterator.unwrap();
    c.delete_stream().stream_name("s").send().await.unwrap();
    assert_eq!(refusal(c.list_shards().stream_name("s").send().await).0, "ResourceInUseException");
    assert_eq!(refusal(c.get_records().shard_iterator(&issued).send().await), missing(SECOND, "s"));
    f.clock.advance_ms(2_000);
    assert_eq!(refusal(c.get_records().shard_iterator(&issued).send().await), missing(SECOND, "s"));
    assert_eq!(refusal(c.list_shards().stream_name("s").send().await).0, "ResourceNotFoundException");
}

#[tokio::test]
async fn types_and_numbers_belong_together() {
    let f = fixture().await;
    f.create("s", 2).await;
    let (_, number) = f.put("s", 0, "a").await;
    let call = |kind: Kind, number: Option<&str>| {
        let call = f.client.get_shard_iterator().stream_name("s").shard_id(FIRST).shard_iterator_type(kind);
        call.set_starting_sequence_number(number.map(str::to_owned)).send()
    };
    for (kind, number, what) in [
        (Kind::Latest, Some(number.as_str()), "LATEST and also a"),
        (Kind::TrimHorizon, Some(number.as_str()), "TRIM_HORIZON and also a"),
        (Kind::AtSequenceNumber, None, "AT_SEQUENCE_NUMBER and no"),
        (Kind::AfterSequenceNumber, None, "AFTER_SEQUENCE_NUMBER and no"),
    ] {
        let (name, message) = refusal(call(kind, number).await);
        assert_eq!(name, "InvalidArgumentException");
        assert_eq!(
            message,
            format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or \
                 (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {what} \
                 StartingSequenceNumber."
            )
        );
    }
    let ordered = |number: &str| {
        let call = f.client.put_record().stream_name("s").partition_key("k").data(Blob::new("b"));
        call.sequence_number_for_ordering(number).send()
    };
    ordered(&number).await.unwrap();
    assert_eq!(refusal(ordered("x").await).0, "ValidationException");
    let odd = "1".repeat(129);
    let message = format!(
        "ExclusiveMinimumSequenceNumber {odd} used in PutRecord on stream s under account 000000000000 is invalid."
    );
    assert_eq!(refusal(ordered(&odd).await), ("InvalidArgumentException".to_owned(), message));
}
