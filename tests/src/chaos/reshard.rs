//! Splits and merges at random.

use anyhow::Context as _;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{Shard, ShardFilter, ShardFilterType, StreamStatus};
use rand::RngExt as _;
use rand::rngs::StdRng;

/// More are merged rather than split.
const MOST_SHARDS: usize = 6;

/// Splits or merges a shard of the stream; says what it did.
pub(super) async fn reshard(client: &Client, stream: &str, rng: &mut StdRng) -> anyhow::Result<String> {
    let summary = client.describe_stream_summary().stream_name(stream).send().await?;
    let status = summary.stream_description_summary().map(|summary| summary.stream_status().clone());
    if status != Some(StreamStatus::Active) {
        return Ok(format!("{stream} is still {status:?}"));
    }
    let latest = ShardFilter::builder().r#type(ShardFilterType::AtLatest).build()?;
    let listed = client.list_shards().stream_name(stream).shard_filter(latest).send().await?;
    let mut shards = listed
        .shards
        .unwrap_or_default()
        .into_iter()
        .map(|shard| Ok((range(&shard)?, shard)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    shards.sort_by_key(|(range, _)| *range);
    let merge = shards.len() > 1 && (shards.len() >= MOST_SHARDS || rng.random_bool(0.4));
    if merge {
        let first = rng.random_range(0..shards.len() - 1);
        let (left, right) = (shards[first].1.shard_id(), shards[first + 1].1.shard_id());
        client
            .merge_shards()
            .stream_name(stream)
            .shard_to_merge(left)
            .adjacent_shard_to_merge(right)
            .send()
            .await?;
        return Ok(format!("{left} and {right} of {stream} merge"));
    }
    let ((start, end), shard) = &shards[rng.random_range(0..shards.len())];
    // Anywhere but at the edges, so that lanes are cut too.
    let at = start + (end - start) / 100 * rng.random_range(20..80);
    client
        .split_shard()
        .stream_name(stream)
        .shard_to_split(shard.shard_id())
        .new_starting_hash_key(at.to_string())
        .send()
        .await?;
    Ok(format!("{} of {stream} splits", shard.shard_id()))
}

fn range(shard: &Shard) -> anyhow::Result<(u128, u128)> {
    let range = shard.hash_key_range().context("a shard without a range")?;
    Ok((range.starting_hash_key().parse()?, range.ending_hash_key().parse()?))
}
