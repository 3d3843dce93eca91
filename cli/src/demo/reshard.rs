//! Splits a shard while records flow.

use anyhow::Context as _;
use aws_sdk_kinesis::Client;
use headworks_record::HashKey;

/// Splits the stream's widest open shard and tells which one that was.
///
/// Not in the middle, where a lane ends, but within a lane: what is in flight then has members on both sides.
pub(super) async fn split_widest(client: &Client, stream: &str) -> anyhow::Result<String> {
    let listed = client.list_shards().stream_name(stream).send().await?;
    let mut widest: Option<(u128, u128, &str)> = None;
    for shard in listed.shards() {
        let open =
            shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_none());
        let Some(range) = shard.hash_key_range().filter(|_| open) else { continue };
        let start = range.starting_hash_key().parse::<HashKey>()?.0;
        let width = range.ending_hash_key().parse::<HashKey>()?.0 - start;
        if widest.is_none_or(|(_, known, _)| width > known) {
            widest = Some((start, width, shard.shard_id()));
        }
    }
    let (start, width, shard) = widest.with_context(|| format!("{stream} has no open shard"))?;
    client
        .split_shard()
        .stream_name(stream)
        .shard_to_split(shard)
        .new_starting_hash_key((start + width / 5 * 2 + 1).to_string())
        .send()
        .await
        .with_context(|| format!("splitting {shard} of {stream}"))?;
    Ok(shard.to_owned())
}
