//! A stream of the embedded stack that is resharded under load: splits, merges and another number of shards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{ScalingType, Shard, ShardIteratorType, StreamStatus};
use bytes::Bytes;
use common::{Rule, first_occurrences, numbered};
use headworks_record::aggregate::{Decoded, decode};
use headworks_record::ownership::{Foreign, Verdict, verdict};
use headworks_record::{HashRange, Record, ShardId};
use headworks_writer::{Config, Handle, KinesisStream, Put, Writer};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
const STREAM: &str = "inbound";
/// Enough keys that an aggregate in flight holds some of either child.
const PRODUCERS: usize = 32;

async fn shards(client: &Client) -> Vec<Shard> {
    client.list_shards().stream_name(STREAM).send().await.unwrap().shards.unwrap()
}

async fn active(client: &Client) {
    loop {
        let answer = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        if answer.stream_description_summary().unwrap().stream_status() == &StreamStatus::Active {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn range_of(shard: &Shard) -> HashRange {
    let range = shard.hash_key_range().unwrap();
    HashRange {
        start: range.starting_hash_key().parse().unwrap(),
        end: range.ending_hash_key().parse().unwrap(),
    }
}

async fn open(client: &Client) -> Vec<Shard> {
    let closed = |shard: &Shard| shard.sequence_number_range().unwrap().ending_sequence_number().is_some();
    let mut open: Vec<Shard> = shards(client).await.into_iter().filter(|shard| !closed(shard)).collect();
    open.sort_by_key(|shard| range_of(shard).start);
    open
}

/// One key: record after record, each answered before the batch after the next is sent.
async fn produce(
    writer: Handle,
    key: String,
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU32>,
) -> (String, u32) {
    let mut next = 0;
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let puts = (next..next + 5).map(|number| Put::new(numbered(&key, number))).collect();
        next += 5;
        open.push(writer.put(puts).await.unwrap());
        if open.len() == 2 {
            for outcome in open.remove(0).await {
                outcome.unwrap();
                stored.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    for ticket in open {
        for outcome in ticket.await {
            outcome.unwrap();
        }
    }
    (key, next)
}

/// What a reader delivers by this rule, per key, parents before children.
async fn read(client: &Client, rule: Rule) -> (HashMap<String, Vec<Record>>, usize) {
    let (mut found, mut skipped) = (HashMap::<String, Vec<Record>>::new(), 0);
    let mut left: BTreeMap<String, Shard> =
        shards(client).await.into_iter().map(|shard| (shard.shard_id().to_owned(), shard)).collect();
    let mut done = BTreeSet::new();
    while !left.is_empty() {
        let is_ready = |shard: &Shard| {
            let parents = shard.parent_shard_id().into_iter().chain(shard.adjacent_parent_shard_id());
            parents.into_iter().all(|parent| done.contains(parent))
        };
        let id = left.iter().find(|(_, shard)| is_ready(shard)).unwrap().0.clone();
        let shard = left.remove(&id).unwrap();
        let asked = client
            .get_shard_iterator()
            .stream_name(STREAM)
            .shard_id(&id)
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let mut iterator = asked.send().await.unwrap().shard_iterator;
        while let Some(at) = iterator.take() {
            let got = client.get_records().shard_iterator(at).send().await.unwrap();
            for kinesis in got.records() {
                let data = Bytes::copy_from_slice(kinesis.data().as_ref());
                let Decoded::Aggregate(aggregate) = decode(&data).unwrap() else { panic!("an aggregate") };
                let label = if rule == Rule::Kcl { "" } else { kinesis.partition_key().unwrap() };
                let (name, range) = (ShardId::new(id.clone()), range_of(&shard));
                match verdict(&aggregate, label, &name, &range, Foreign::Skip).unwrap() {
                    Verdict::Misplaced { .. } => skipped += 1,
                    Verdict::Deliver => aggregate.members().for_each(|member| {
                        let record = member.to_record().unwrap();
                        found.entry(member.key().to_owned()).or_default().push(record);
                    }),
                }
            }
            if got.millis_behind_latest() != Some(0) || !got.records().is_empty() {
                iterator = got.next_shard_iterator;
            }
        }
        done.insert(id);
    }
    (found, skipped)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_nothing_is_lost_and_every_key_keeps_its_order_for_both_kinds_of_reader() {
    let stack = headworks_local::start().await.unwrap();
    let client = stack.kinesis();
    client.create_stream().stream_name(STREAM).shard_count(2).send().await.unwrap();
    active(&client).await;
    let config = Config { linger_ms: 1, deadline_ms: 600_000, ..Config::default() };
    let (service, writer) =
        Writer::start(config, KinesisStream::new(client.clone(), STREAM), Default::default()).await.unwrap();
    let shutdown = CancellationToken::new();
    let service = tokio::spawn(service.run(shutdown.clone()));
    let (stop, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut producing = JoinSet::new();
    for n in 0..PRODUCERS {
        producing.spawn(produce(writer.clone(), format!("key-{n}"), Arc::clone(&stop), Arc::clone(&stored)));
    }
    // The load goes on before, between and after.
    let more = async || {
        let until = stored.load(Ordering::Relaxed) + 1600;
        let reached = async {
            while stored.load(Ordering::Relaxed) < until {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap();
    };
    more().await;
    for _ in 0..2 {
        let parent = open(&client).await.remove(0);
        let range = range_of(&parent);
        let middle = range.start.0 + (range.end.0 - range.start.0) / 2;
        let split = client.split_shard().stream_name(STREAM).shard_to_split(parent.shard_id());
        split.new_starting_hash_key(middle.to_string()).send().await.unwrap();
        active(&client).await;
        more().await;
    }
    let (left, right) = {
        let open = open(&client).await;
        (open[1].shard_id().to_owned(), open[2].shard_id().to_owned())
    };
    let merge = client.merge_shards().stream_name(STREAM).shard_to_merge(left);
    merge.adjacent_shard_to_merge(right).send().await.unwrap();
    active(&client).await;
    more().await;
    let resize = client.update_shard_count().stream_name(STREAM).target_shard_count(6);
    resize.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
    active(&client).await;
    more().await;
    stop.store(true, Ordering::Relaxed);
    let sent = timeout(PATIENCE, producing.join_all()).await.unwrap();
    shutdown.cancel();
    assert_eq!(service.await.unwrap().unanswered, 0);
    let stats = writer.stats();
    assert_eq!(open(&client).await.len(), 6);
    assert!(stats.misplaced > 0 && stats.map_changes >= 4, "{stats:?}");

    for rule in [Rule::Ours, Rule::Kcl] {
        let (found, skipped) = read(&client, rule).await;
        for (key, count) in &sent {
            let order = first_occurrences(&found[key]);
            assert_eq!(order, (0..*count).collect::<Vec<_>>(), "{key} by {rule:?}");
        }
        assert!(rule == Rule::Ours || skipped > 0, "the KCL's rule skips what spans two children");
    }
}
