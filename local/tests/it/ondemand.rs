//! On-demand streams reshard by themselves.

use std::time::Duration;

use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType, StreamMode, StreamModeDetails};
use headworks_local::Settings;
use headworks_local::kinesis::{OnDemandScaling, PutEntry};

use crate::support::{Fixture, fixture_with};

const SCALING: OnDemandScaling = OnDemandScaling {
    period: Duration::from_secs(10),
    split_above: 0.5,
    merge_below: 0.1,
    merge_after: Duration::from_secs(60),
    min_shards: 4,
    max_shards: 6,
};

async fn on_demand(scaling: Option<OnDemandScaling>) -> Fixture {
    let f = fixture_with(Settings { on_demand: scaling, ..Settings::default() }).await;
    let details = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build().unwrap();
    f.client.create_stream().stream_name("s").stream_mode_details(details).send().await.unwrap();
    f
}

async fn open(f: &Fixture) -> Vec<String> {
    let latest = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build().unwrap();
    let answer = f.client.list_shards().stream_name("s").shard_filter(latest).send().await.unwrap();
    answer.shards.unwrap().into_iter().map(|shard| shard.shard_id).collect()
}

/// Puts `records` with the same hash key, of one period.
fn load(f: &Fixture, hash: u128, records: usize) {
    for _ in 0..records.div_ceil(500) {
        let entry = || PutEntry::new("k", "x").with_hash_key(hash);
        f.stack.engine().put_batch("s", std::iter::repeat_with(entry).take(500).collect()).unwrap();
    }
}

/// Ends the period, which the next put notices.
fn period(f: &Fixture) {
    f.clock.advance_ms(10_000);
    f.stack.engine().put("s", PutEntry::new("k", "x").with_hash_key(u128::MAX)).unwrap();
}

#[tokio::test]
async fn a_hot_shard_is_split_and_calm_ones_are_merged_again() {
    let f = on_demand(Some(SCALING)).await;
    assert_eq!(open(&f).await.len(), 4);
    load(&f, 0, 5_000);
    period(&f);
    assert_eq!(open(&f).await.len(), 4, "5,000 in ten seconds are half of what a shard takes, and not more");
    load(&f, 0, 5_500);
    period(&f);
    let split = open(&f).await;
    assert_eq!(split.len(), 5);
    assert!(!split.contains(&"shardId-000000000000".to_owned()), "the hot one: {split:?}");
    for _ in 0..2 {
        load(&f, 0, 10_000);
        period(&f);
    }
    assert_eq!(open(&f).await.len(), 6, "no more than the most");

    period(&f);
    assert_eq!(open(&f).await.len(), 6, "calm, and not for long enough");
    for _ in 0..25 {
        period(&f);
    }
    assert_eq!(open(&f).await.len(), 4, "no fewer than the least");
    // Nothing was lost on the way.
    let mut records = 0;
    for shard in f.stack.engine().shards("s").unwrap() {
        let reader = f.stack.engine().reader("s", &shard.shard_id).unwrap();
        let mut position = headworks_local::kinesis::Position::TRIM_HORIZON;
        loop {
            let batch = reader.read(position, headworks_local::kinesis::ReadLimits::default()).unwrap();
            records += batch.records.len();
            position = batch.next;
            if batch.records.is_empty() {
                break;
            }
        }
    }
    assert_eq!(records, 5_000 + 5_500 + 2 * 10_000 + 30);
}

#[tokio::test]
async fn bytes_count_as_records_do() {
    let f = on_demand(Some(SCALING)).await;
    for _ in 0..11 {
        f.stack.engine().put("s", PutEntry::new("k", vec![0; 1 << 19]).with_hash_key(0)).unwrap();
    }
    period(&f);
    assert_eq!(open(&f).await.len(), 5);
}

#[tokio::test]
async fn streams_stay_as_they_are_where_it_is_off_or_they_are_provisioned() {
    let f = on_demand(None).await;
    load(&f, 0, 20_000);
    period(&f);
    assert_eq!(open(&f).await.len(), 4);

    let f = fixture_with(Settings { on_demand: Some(SCALING), ..Settings::default() }).await;
    f.create("s", 4).await;
    load(&f, 0, 20_000);
    period(&f);
    assert_eq!(open(&f).await.len(), 4);
}
