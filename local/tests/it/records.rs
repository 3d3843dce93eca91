//! Putting and getting.

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use headworks_local::Settings;
use headworks_local::kinesis::WriteLimits;
use headworks_local::kinesis::hash::hash_of;

use crate::support::{FIRST, SECOND, START_MS, fixture, fixture_with, texts};

fn entry(key: &str, data: &[u8]) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build().unwrap()
}

#[tokio::test]
async fn what_is_put_is_read_byte_for_byte_and_in_order() {
    let f = fixture().await;
    let arn = f.create("s", 2).await;
    let payloads: Vec<Vec<u8>> = (0..200u8).map(|n| vec![n; usize::from(n)]).collect();
    let entries = payloads.iter().enumerate().map(|(n, data)| entry(&format!("key-{n}"), data)).collect();
    let put = f.client.put_records().stream_arn(&arn).set_records(Some(entries)).send().await.unwrap();
    assert_eq!(put.failed_record_count, Some(0));

    let mut seen = 0;
    for (shard, upper) in [(FIRST, false), (SECOND, true)] {
        let got = f.all("s", shard).await;
        assert_eq!(got.millis_behind_latest, Some(0));
        let mut last = String::new();
        for record in &got.records {
            let key = record.partition_key.as_deref().unwrap();
            assert_eq!(hash_of(key) >> 127 == 1, upper, "{key} is on the shard of its hash");
            let n: usize = key["key-".len()..].parse().unwrap();
            assert_eq!(record.data.as_ref(), payloads[n]);
            assert_eq!(put.records[n].sequence_number.as_deref(), Some(record.sequence_number.as_str()));
            assert_eq!(put.records[n].shard_id.as_deref(), Some(shard));
            assert_eq!(record.sequence_number.len(), 56);
            assert!(record.sequence_number > last);
            assert_eq!(record.approximate_arrival_timestamp.unwrap().to_millis().unwrap(), START_MS);
            last.clone_from(&record.sequence_number);
            seen += 1;
        }
    }
    assert_eq!(seen, payloads.len());
}

#[tokio::test]
async fn an_explicit_hash_key_chooses_the_shard() {
    let f = fixture().await;
    f.create("s", 2).await;
    assert_eq!(f.put("s", 0, "low").await.0, FIRST);
    assert_eq!(f.put("s", u128::MAX, "high").await.0, SECOND);
    assert_eq!(f.put("s", u128::MAX / 2, "still low").await.0, FIRST);
    assert_eq!(f.put("s", u128::MAX / 2 + 1, "just high").await.0, SECOND);
}

#[tokio::test]
async fn reads_stop_at_the_limit_of_records_and_at_ten_mebibytes() {
    let f = fixture().await;
    f.client
        .create_stream()
        .stream_name("s")
        .shard_count(1)
        .max_record_size_in_kib(10_240)
        .send()
        .await
        .unwrap();
    for _ in 0..3 {
        let call =
            f.client.put_record().stream_name("s").partition_key("k").data(Blob::new(vec![7; 4 << 20]));
        call.send().await.unwrap();
    }
    let first = f.all("s", FIRST).await;
    assert_eq!(first.records.len(), 2, "three of 4 MiB exceed 10 MiB");
    let rest = f.get(first.next_shard_iterator.as_deref().unwrap()).await;
    assert_eq!(rest.records.len(), 1);

    let iterator = f.iterator("s", FIRST, ShardIteratorType::TrimHorizon).await;
    let one = f.client.get_records().shard_iterator(iterator).limit(1).send().await.unwrap();
    assert_eq!(one.records.len(), 1);

    let largest = Blob::new(vec![1; (10 << 20) - 1]);
    f.client.put_record().stream_name("s").partition_key("k").data(largest).send().await.unwrap();
    let behind = f.get(rest.next_shard_iterator.as_deref().unwrap()).await;
    assert_eq!(behind.records[0].data.as_ref().len(), (10 << 20) - 1);
}

#[tokio::test]
async fn millis_behind_latest_is_the_age_of_the_last_record_returned() {
    let f = fixture().await;
    f.create("s", 1).await;
    for data in ["a", "b", "c"] {
        f.put("s", 0, data).await;
        f.clock.advance_ms(1_000);
    }
    let iterator = f.iterator("s", FIRST, ShardIteratorType::TrimHorizon).await;
    let mut next = Some(iterator);
    let mut behind = Vec::new();
    for _ in 0..4 {
        let got = f.client.get_records().shard_iterator(next.unwrap()).limit(1).send().await.unwrap();
        behind.push(got.millis_behind_latest.unwrap());
        next = got.next_shard_iterator;
    }
    assert_eq!(behind, [3_000, 2_000, 0, 0]);
}

#[tokio::test]
async fn retention_trims_what_is_older_than_a_day() {
    let f = fixture().await;
    f.create("s", 1).await;
    let (_, old) = f.put("s", 0, "old").await;
    f.clock.advance_ms(24 * 3_600_000 - 1_000);
    f.put("s", 0, "new").await;
    assert_eq!(texts(&f.all("s", FIRST).await), ["old", "new"]);
    f.clock.advance_ms(1_001);
    assert_eq!(texts(&f.all("s", FIRST).await), ["new"]);
    let call = f.client.get_shard_iterator().stream_name("s").shard_id(FIRST);
    let call = call.shard_iterator_type(ShardIteratorType::AtSequenceNumber).starting_sequence_number(old);
    let iterator = call.send().await.unwrap().shard_iterator.unwrap();
    assert_eq!(texts(&f.get(&iterator).await), ["new"], "a trimmed number starts at the trim horizon");

    let call = f.client.increase_stream_retention_period().stream_name("s");
    call.retention_period_hours(48).send().await.unwrap();
    f.clock.advance_ms(24 * 3_600_000);
    assert_eq!(texts(&f.all("s", FIRST).await), ["new"]);
    let call = f.client.decrease_stream_retention_period().stream_name("s");
    call.retention_period_hours(24).send().await.unwrap();
    assert!(f.all("s", FIRST).await.records.is_empty());
}

#[tokio::test]
async fn a_shard_over_its_limit_fails_single_records() {
    let limits = WriteLimits { bytes_per_second: 1 << 20, records_per_second: 3 };
    let f = fixture_with(Settings { write_limits: Some(limits), ..Settings::default() }).await;
    f.create("s", 2).await;
    let hashes = [0, 0, 0, 0, u128::MAX];
    let entries = hashes.iter().map(|hash| {
        let entry = PutRecordsRequestEntry::builder().partition_key("k").explicit_hash_key(hash.to_string());
        entry.data(Blob::new("x")).build().unwrap()
    });
    let put =
        f.client.put_records().stream_name("s").set_records(Some(entries.collect())).send().await.unwrap();
    assert_eq!(put.failed_record_count, Some(1));
    let failed = &put.records[3];
    assert_eq!(failed.error_code.as_deref(), Some("ProvisionedThroughputExceededException"));
    let expected = format!("Rate exceeded for shard {FIRST} in stream s under account 000000000000.");
    assert_eq!(failed.error_message.as_deref(), Some(expected.as_str()));
    assert!(failed.sequence_number.is_none());
    assert!(put.records[4].sequence_number.is_some(), "the other shard has room");

    f.clock.advance_ms(334);
    f.put("s", 0, "again").await;
    assert_eq!(f.all("s", FIRST).await.records.len(), 4);
}
