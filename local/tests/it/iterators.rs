//! Every kind of shard iterator, and those that are refused.

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType as Kind;

use crate::support::{FIRST, Fixture, SECOND, START_MS, fixture, texts};

async fn at(
    f: &Fixture,
    kind: Kind,
    number: Option<&str>,
    ms: Option<i64>,
) -> Result<String, (String, String)> {
    let call = f.client.get_shard_iterator().stream_name("s").shard_id(FIRST).shard_iterator_type(kind);
    let call = call.set_starting_sequence_number(number.map(str::to_owned));
    let answer = call.set_timestamp(ms.map(DateTime::from_millis)).send().await;
    answer.map(|answer| answer.shard_iterator.unwrap()).map_err(|error| {
        let error = error.into_service_error();
        (error.code().unwrap_or_default().to_owned(), error.message().unwrap_or_default().to_owned())
    })
}

#[tokio::test]
async fn every_type_starts_where_it_says() {
    let f = fixture().await;
    f.create("s", 2).await;
    let latest_of_empty = f.iterator("s", FIRST, Kind::Latest).await;
    let mut numbers = Vec::new();
    for data in ["a", "b", "c"] {
        numbers.push(f.put("s", 0, data).await.1);
        f.clock.advance_ms(1_000);
    }
    assert_eq!(texts(&f.get(&latest_of_empty).await), ["a", "b", "c"]);

    let number = Some(numbers[1].as_str());
    for (kind, number, ms, expected) in [
        (Kind::TrimHorizon, None, None, vec!["a", "b", "c"]),
        (Kind::AtSequenceNumber, number, None, vec!["b", "c"]),
        (Kind::AfterSequenceNumber, number, None, vec!["c"]),
        (Kind::AtTimestamp, None, Some(START_MS - 5_000), vec!["a", "b", "c"]),
        (Kind::AtTimestamp, None, Some(START_MS + 1_000), vec!["b", "c"]),
        (Kind::AtTimestamp, None, Some(START_MS + 1_001), vec!["c"]),
        (Kind::AtTimestamp, None, Some(START_MS + 2_001), vec![]),
        (Kind::Latest, None, None, vec![]),
    ] {
        let iterator = at(&f, kind.clone(), number, ms).await.unwrap();
        assert_eq!(texts(&f.get(&iterator).await), expected, "{kind:?} {ms:?}");
    }

    // The place of an iterator does not move with what is put later.
    let latest = at(&f, Kind::Latest, None, None).await.unwrap();
    let after_last = at(&f, Kind::AtTimestamp, None, Some(START_MS + 2_500)).await.unwrap();
    f.put("s", 0, "d").await;
    assert_eq!(texts(&f.get(&latest).await), ["d"]);
    assert_eq!(texts(&f.get(&after_last).await), ["d"]);
}

#[tokio::test]
async fn a_shards_own_starting_number_starts_at_its_first_record() {
    let f = fixture().await;
    f.create("s", 2).await;
    f.put("s", 0, "a").await;
    let shards = f.client.list_shards().stream_name("s").send().await.unwrap().shards.unwrap();
    let starting = shards[0].sequence_number_range.as_ref().unwrap().starting_sequence_number.clone();
    for kind in [Kind::AtSequenceNumber, Kind::AfterSequenceNumber] {
        let iterator = at(&f, kind, Some(&starting), None).await.unwrap();
        assert_eq!(texts(&f.get(&iterator).await), ["a"]);
    }
}

#[tokio::test]
async fn what_is_no_place_in_the_shard_is_refused() {
    let f = fixture().await;
    f.create("s", 2).await;
    let (shard, elsewhere) = f.put("s", u128::MAX, "x").await;
    assert_eq!(shard, SECOND);

    let (code, message) = at(&f, Kind::AtSequenceNumber, Some(&elsewhere), None).await.unwrap_err();
    assert_eq!(code, "InvalidArgumentException");
    assert!(
        message
            .contains(&format!("It encodes {SECOND}, while it was used in a call to a shard with {FIRST}"))
    );

    let (code, message) = at(&f, Kind::AfterSequenceNumber, Some("12"), None).await.unwrap_err();
    assert_eq!(code, "InvalidArgumentException");
    assert!(message.ends_with("in stream s under account 000000000000 is invalid."), "{message}");

    let (code, _) = at(&f, Kind::AtSequenceNumber, None, None).await.unwrap_err();
    assert_eq!(code, "InvalidArgumentException");
    let (code, _) = at(&f, Kind::AtTimestamp, None, None).await.unwrap_err();
    assert_eq!(code, "InvalidArgumentException");
    let (code, message) = at(&f, Kind::AtTimestamp, None, Some(START_MS + 1)).await.unwrap_err();
    assert_eq!(code, "InvalidArgumentException");
    assert!(message.contains("cannot be greater than the currentTimestampInMillis"), "{message}");
    let (code, _) = at(&f, Kind::from("SOMEWHERE"), None, None).await.unwrap_err();
    assert_eq!(code, "ValidationException");

    // A number that the shard has not given out yet, as a reader has after the stream was created anew.
    let (_, own) = f.put("s", 0, "x").await;
    f.client.delete_stream().stream_name("s").send().await.unwrap();
    f.create("s", 2).await;
    let (code, _) = at(&f, Kind::AfterSequenceNumber, Some(&own), None).await.unwrap_err();
    assert_eq!(code, "InvalidArgumentException");
}

#[tokio::test]
async fn iterators_live_five_minutes_and_only_as_issued() {
    let f = fixture().await;
    f.create("s", 1).await;
    let iterator = f.iterator("s", FIRST, Kind::TrimHorizon).await;
    f.clock.advance_ms(300_000);
    f.get(&iterator).await;
    f.clock.advance_ms(1);
    let error =
        f.client.get_records().shard_iterator(&iterator).send().await.unwrap_err().into_service_error();
    assert!(error.is_expired_iterator_exception(), "{error:?}");
    let message = error.message().unwrap_or_default();
    assert!(message.contains("tolerated delay of 300000 milliseconds"), "{message}");

    for invented in ["nonsense", "", &iterator[4..]] {
        let error =
            f.client.get_records().shard_iterator(invented).send().await.unwrap_err().into_service_error();
        assert!(error.is_invalid_argument_exception(), "{error:?}");
    }

    let iterator = f.iterator("s", FIRST, Kind::TrimHorizon).await;
    f.client.delete_stream().stream_name("s").send().await.unwrap();
    let error =
        f.client.get_records().shard_iterator(&iterator).send().await.unwrap_err().into_service_error();
    assert!(error.is_resource_not_found_exception(), "{error:?}");
}
