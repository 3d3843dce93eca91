//! Listing shards: every filter, paging, expiry.

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType as Filter};

use crate::support::{FIRST, Fixture, START_MS, fixture};

async fn numbers(f: &Fixture, filter: Option<ShardFilter>) -> Vec<u32> {
    let shards =
        f.client.list_shards().stream_name("s").set_shard_filter(filter).send().await.unwrap().shards;
    shards.unwrap().iter().map(|shard| shard.shard_id["shardId-".len()..].parse().unwrap()).collect()
}

fn filter(kind: Filter) -> Option<ShardFilter> {
    Some(ShardFilter::builder().r#type(kind).build().unwrap())
}

fn at(kind: Filter, ms: i64) -> Option<ShardFilter> {
    Some(ShardFilter::builder().r#type(kind).timestamp(DateTime::from_millis(ms)).build().unwrap())
}

/// Shards 0 and 1 at the start; 0 becomes 2 and 3 after 10 s; 3 and 1 become 4 after 20 s.
async fn family() -> Fixture {
    let f = fixture().await;
    f.create("s", 2).await;
    f.clock.advance_ms(10_000);
    let call = f.client.split_shard().stream_name("s").shard_to_split(FIRST);
    call.new_starting_hash_key((1u128 << 126).to_string()).send().await.unwrap();
    f.clock.advance_ms(10_000);
    let call = f.client.merge_shards().stream_name("s").shard_to_merge("shardId-000000000003");
    call.adjacent_shard_to_merge("shardId-000000000001").send().await.unwrap();
    f.clock.advance_ms(10_000);
    f
}

#[tokio::test]
async fn every_filter_lists_what_it_says() {
    let f = family().await;
    assert_eq!(numbers(&f, None).await, [0, 1, 2, 3, 4]);
    assert_eq!(numbers(&f, filter(Filter::FromTrimHorizon)).await, [0, 1, 2, 3, 4]);
    assert_eq!(numbers(&f, filter(Filter::AtTrimHorizon)).await, [0, 1]);
    assert_eq!(numbers(&f, filter(Filter::AtLatest)).await, [2, 4]);
    assert_eq!(numbers(&f, at(Filter::AtTimestamp, START_MS + 5_000)).await, [0, 1]);
    assert_eq!(numbers(&f, at(Filter::AtTimestamp, START_MS + 15_000)).await, [1, 2, 3]);
    assert_eq!(numbers(&f, at(Filter::AtTimestamp, START_MS + 25_000)).await, [2, 4]);
    assert_eq!(
        numbers(&f, at(Filter::AtTimestamp, START_MS - 25_000)).await,
        [0, 1],
        "corrected to the trim horizon"
    );
    assert_eq!(numbers(&f, at(Filter::FromTimestamp, START_MS + 5_000)).await, [0, 1, 2, 3, 4]);
    assert_eq!(numbers(&f, at(Filter::FromTimestamp, START_MS + 15_000)).await, [1, 2, 3, 4]);
    assert_eq!(numbers(&f, at(Filter::FromTimestamp, START_MS + 25_000)).await, [2, 4]);
    let after =
        ShardFilter::builder().r#type(Filter::AfterShardId).shard_id("shardId-000000000002").build().unwrap();
    assert_eq!(numbers(&f, Some(after)).await, [3, 4]);
}

#[tokio::test]
async fn pages_agree_with_their_filter_and_expire() {
    let f = family().await;
    let call = f.client.list_shards().stream_name("s").max_results(2);
    let first = call.clone().send().await.unwrap();
    let mut listed: Vec<_> = first.shards.unwrap().into_iter().map(|shard| shard.shard_id).collect();
    let mut token = first.next_token;
    let early = token.clone().unwrap();
    while let Some(next) = token {
        let page = f.client.list_shards().next_token(next).max_results(2).send().await.unwrap();
        listed.extend(page.shards.unwrap().into_iter().map(|shard| shard.shard_id));
        token = page.next_token;
    }
    assert_eq!(listed.len(), 5);
    assert!(listed.is_sorted());

    let both = f.client.list_shards().stream_name("s").next_token(&early).send().await.unwrap_err();
    assert!(both.into_service_error().is_invalid_argument_exception());
    let exclusive =
        f.client.list_shards().stream_name("s").exclusive_start_shard_id(&listed[2]).send().await.unwrap();
    assert_eq!(exclusive.shards.unwrap().len(), 2);
    f.clock.advance_ms(300_001);
    let expired = f.client.list_shards().next_token(&early).send().await.unwrap_err().into_service_error();
    assert!(expired.is_expired_next_token_exception(), "{expired:?}");
}

#[tokio::test]
async fn closed_shards_are_forgotten_after_the_retention() {
    let f = family().await;
    f.clock.advance_ms(24 * 3_600_000 - 15_000);
    assert_eq!(numbers(&f, None).await, [1, 2, 3, 4]);
    assert_eq!(numbers(&f, filter(Filter::AtTrimHorizon)).await, [1, 2, 3]);
    f.clock.advance_ms(10_000);
    assert_eq!(numbers(&f, None).await, [2, 4]);
    let error =
        f.client.get_shard_iterator().stream_name("s").shard_id(FIRST).shard_iterator_type("LATEST".into());
    assert!(error.send().await.unwrap_err().into_service_error().is_resource_not_found_exception());
}

#[tokio::test]
async fn describe_stream_pages_too() {
    let f = family().await;
    let first = f
        .client
        .describe_stream()
        .stream_name("s")
        .limit(3)
        .send()
        .await
        .unwrap()
        .stream_description
        .unwrap();
    assert!(first.has_more_shards);
    let last = &first.shards[2].shard_id;
    let call = f.client.describe_stream().stream_name("s").exclusive_start_shard_id(last);
    let rest = call.send().await.unwrap().stream_description.unwrap();
    assert!(!rest.has_more_shards);
    assert_eq!(first.shards.len() + rest.shards.len(), 5);
}
