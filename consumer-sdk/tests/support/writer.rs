//! A writer of aggregates that knows the stream's shards, and reshards it.

use std::collections::BTreeMap;

use aws_sdk_kinesis::primitives::Blob;
use headworks_local::Stack;
use headworks_record::aggregate::Builder;
use headworks_record::{HashKey, HashRange, Lane, Record, Shard, ShardId, ShardMap};

use super::Journal;

/// Puts aggregates as a writer does: grouped by predicted shard, labelled with it.
pub struct Writer<'a> {
    stack: &'a Stack,
    pub map: ShardMap,
    pub counts: BTreeMap<String, u32>,
}

impl<'a> Writer<'a> {
    pub async fn new(stack: &'a Stack) -> Self {
        Self { stack, map: shards(stack).await, counts: BTreeMap::new() }
    }

    pub async fn refresh(&mut self) {
        self.map = shards(self.stack).await;
    }

    /// One more record for each of 40 keys.
    pub async fn round(&mut self) {
        let mut groups: BTreeMap<usize, Builder> = BTreeMap::new();
        for key in (0..40).map(|i| format!("key-{i}")) {
            let count = self.counts.entry(key.clone()).or_default();
            let record = Record::builder(key).unwrap().data(count.to_string()).build();
            *count += 1;
            groups.entry(self.map.predict(record.hash_key())).or_default().push(&record);
        }
        for (place, builder) in groups {
            let shard = &self.map.open()[place];
            put(self.stack, shard, shard.range.start, builder).await;
        }
    }

    pub fn total(&self) -> usize {
        self.counts.values().map(|count| *count as usize).sum()
    }
}

pub async fn put(stack: &Stack, shard: &Shard, at: HashKey, builder: Builder) {
    let lane = Lane { shard: shard.id.clone(), number: 0 };
    let request = stack.kinesis().put_record().stream_name("orders").partition_key(lane.label());
    let data = Blob::new(builder.finish().to_vec());
    request.explicit_hash_key(at.to_string()).data(data).send().await.unwrap();
}

pub async fn shards(stack: &Stack) -> ShardMap {
    let listed = stack.kinesis().list_shards().stream_name("orders").send().await.unwrap();
    let open = listed.shards().iter().filter(|shard| {
        shard.sequence_number_range().is_some_and(|range| range.ending_sequence_number().is_none())
    });
    let shard = |shard: &aws_sdk_kinesis::types::Shard| {
        let range = shard.hash_key_range().unwrap();
        let key = |text: &str| text.parse::<HashKey>().unwrap();
        let range = HashRange { start: key(range.starting_hash_key()), end: key(range.ending_hash_key()) };
        Shard { id: ShardId::from(shard.shard_id()), range }
    };
    ShardMap::new(open.map(shard).collect()).unwrap()
}

pub async fn split(stack: &Stack, shard: &Shard) {
    let middle = shard.range.start.0 + (shard.range.end.0 - shard.range.start.0) / 2;
    let request = stack.kinesis().split_shard().stream_name("orders").shard_to_split(shard.id.as_str());
    request.new_starting_hash_key(middle.to_string()).send().await.unwrap();
}

/// Merges two adjacent shards.
pub async fn merge(stack: &Stack, left: &Shard, right: &Shard) {
    let request = stack.kinesis().merge_shards().stream_name("orders").shard_to_merge(left.id.as_str());
    request.adjacent_shard_to_merge(right.id.as_str()).send().await.unwrap();
}

/// Every record once, and in order for each key.
pub fn exactly_once(journal: &Journal, counts: &BTreeMap<String, u32>) {
    let mut found: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for seen in journal.all() {
        found.entry(seen.key).or_default().push(seen.data.parse().unwrap());
    }
    for (key, count) in counts {
        assert_eq!(found[key], (0..*count).collect::<Vec<_>>(), "{key}");
    }
}
