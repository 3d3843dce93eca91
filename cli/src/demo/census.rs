//! Counts what is on a stream, with a reader that is nobody's consumer: `GetRecords`, shard by shard.

use std::collections::HashSet;

use anyhow::Context as _;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::ShardIteratorType;
use bytes::Bytes;
use headworks_record::aggregate::{Decoded, decode};
use headworks_record::ownership::{Foreign, Verdict, verdict};
use headworks_record::{HashKey, HashRange, ShardId};

/// What a stream holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Different records, by identity.
    pub(super) records: u64,
    /// Kinesis records, aggregates mostly.
    pub(super) kinesis_records: u64,
    /// Aggregates that readers skip because their writer put them again after a reshard.
    pub(super) misplaced: u64,
    /// Shards, closed ones included.
    pub(super) shards: u64,
}

/// Reads a whole stream.
pub(super) async fn take(client: &Client, stream: &str) -> anyhow::Result<Census> {
    let mut census = Census::default();
    let mut identities = HashSet::new();
    let listed = client.list_shards().stream_name(stream).send().await?;
    for shard in listed.shards() {
        census.shards += 1;
        let range = shard.hash_key_range().context("a shard without a range")?;
        let range = HashRange {
            start: range.starting_hash_key().parse::<HashKey>()?,
            end: range.ending_hash_key().parse::<HashKey>()?,
        };
        let id = ShardId::new(shard.shard_id());
        let mut iterator = client
            .get_shard_iterator()
            .stream_name(stream)
            .shard_id(shard.shard_id())
            .shard_iterator_type(ShardIteratorType::TrimHorizon)
            .send()
            .await?
            .shard_iterator;
        while let Some(at) = iterator {
            let page = client.get_records().shard_iterator(at).send().await?;
            for record in &page.records {
                census.kinesis_records += 1;
                let data = Bytes::copy_from_slice(record.data.as_ref());
                let Decoded::Aggregate(aggregate) = decode(&data)? else {
                    census.records += 1;
                    continue;
                };
                match verdict(
                    &aggregate,
                    record.partition_key().unwrap_or_default(),
                    &id,
                    &range,
                    Foreign::Deliver,
                )? {
                    Verdict::Misplaced { .. } => census.misplaced += 1,
                    Verdict::Deliver => {
                        for member in aggregate.members() {
                            match member.creation()? {
                                Some(creation) => {
                                    identities.insert((creation.trace_id, creation.span_id));
                                }
                                None => census.records += 1,
                            }
                        }
                    }
                }
            }
            let caught_up = page.records.is_empty() && page.millis_behind_latest == Some(0);
            iterator = page.next_shard_iterator.filter(|_| !caught_up);
        }
    }
    census.records += identities.len() as u64;
    Ok(census)
}
