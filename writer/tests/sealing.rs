//! When aggregates leave and how full they are, in paused time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{MemoryStream, Misbehaviour, Rule, first_occurrences, numbered};
use headworks_record::Record;
use headworks_record::aggregate::{Decoded, decode};
use headworks_writer::{Capacity, Config, Handle, Put, Writer};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

async fn start(capacity: impl Into<Option<Capacity>>, config: Config) -> (MemoryStream, Handle) {
    let stream = MemoryStream::new(1, 1);
    stream.with(|state| {
        state.capacity = capacity.into();
        state.misbehaviour = Misbehaviour { answer_late_ms: 20, ..Default::default() };
    });
    let (service, writer) = Writer::start(config, stream.clone(), Default::default()).await.unwrap();
    tokio::spawn(service.run(Default::default()));
    (stream, writer)
}

fn record(n: u32, bytes: usize) -> Vec<Put> {
    vec![Put::new(Record::builder(format!("key-{n}")).unwrap().data(vec![b'x'; bytes]).build())]
}

/// A record of this size every so often for ten seconds; the sizes of the Kinesis records and the longest wait.
async fn steady(
    capacity: impl Into<Option<Capacity>>,
    bytes: usize,
    every: Duration,
) -> (Vec<usize>, Duration) {
    let (stream, writer) = start(capacity, Config::default()).await;
    let mut waits = tokio::task::JoinSet::new();
    let mut clock = tokio::time::interval(every);
    for n in 0..(10_000_000 / every.as_micros()) as u32 {
        clock.tick().await;
        let begin = Instant::now();
        let ticket = writer.put(record(n, bytes)).await.unwrap();
        waits.spawn(async move {
            ticket.await.remove(0).unwrap();
            begin.elapsed()
        });
    }
    let longest = waits.join_all().await.into_iter().max().unwrap();
    (stream.with(|state| state.shards[0].entries.iter().map(|entry| entry.bytes()).collect()), longest)
}

/// The time to fill (50 ms), the wait for other lanes (5 ms) and the answer to the one before (20 ms); twice, because what
/// is beyond the last unit goes with the next aggregate.
const LONGEST: Duration = Duration::from_millis(150);

fn fill(sizes: &[usize], unit: usize) -> f64 {
    let billed: usize = sizes.iter().map(|size| size.div_ceil(unit) * unit).sum();
    sizes.iter().sum::<usize>() as f64 / billed as f64
}

#[tokio::test(start_paused = true)]
async fn a_provisioned_shard_at_its_full_rate_fills_its_units() {
    let (sizes, longest) = steady(Capacity::Provisioned, 1000, Duration::from_millis(1)).await;
    let fill = fill(&sizes, 25 * 1024);
    assert!(fill > 0.97, "{fill}: {sizes:?}");
    assert!(longest <= LONGEST, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn an_on_demand_stream_is_billed_by_the_kilobyte() {
    let (sizes, longest) = steady(Capacity::OnDemand, 300, Duration::from_micros(300)).await;
    let fill = fill(&sizes, 1024);
    assert!(fill > 0.95, "{fill}: {sizes:?}");
    assert!(longest <= LONGEST, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_mode_may_not_be_known_is_taken_as_provisioned() {
    let every = Duration::from_micros(300);
    let (sizes, _) = steady(None, 300, every).await;
    assert_eq!(sizes, steady(Capacity::Provisioned, 300, every).await.0);
    assert_ne!(sizes, steady(Capacity::OnDemand, 300, every).await.0);
}

/// One of eight lanes of a shard at its full rate: a unit takes 0.2 s, and gaps are as random as users are.
#[tokio::test(start_paused = true)]
async fn random_gaps_do_not_cut_units_short() {
    for seed in 0..4 {
        let config = Config { fill_ms: 250, ..Config::default() };
        let (stream, writer) = start(Capacity::Provisioned, config).await;
        let mut rng = SmallRng::seed_from_u64(seed);
        let begin = Instant::now();
        for n in 0..4_000 {
            // Exponential, 8 ms on average.
            tokio::time::sleep(Duration::from_secs_f64(-0.008 * (1.0 - rng.random::<f64>()).ln())).await;
            drop(writer.put(record(n, 1000)).await.unwrap());
        }
        writer.drain().await;
        let sizes: Vec<usize> =
            stream.with(|state| state.shards[0].entries.iter().map(|entry| entry.bytes()).collect());
        let fill = fill(&sizes, 25 * 1024);
        assert!(fill > 0.9, "seed {seed}: {fill} in {:?}: {sizes:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn at_low_rates_nothing_waits_for_a_unit_to_fill() {
    let (sizes, longest) = steady(Capacity::Provisioned, 1000, Duration::from_millis(100)).await;
    assert_eq!(sizes.len(), 100, "one at a time");
    assert!(longest <= Duration::from_millis(20), "{longest:?}: only the answer");
}

#[tokio::test(start_paused = true)]
async fn the_size_limit_seals_before_the_linger_is_over() {
    let (stream, writer) =
        start(Capacity::Provisioned, Config { linger_ms: 10_000, ..Config::default() }).await;
    writer.put(record(0, 10)).await.unwrap().await.remove(0).unwrap();
    let begin = Instant::now();
    let ticket = writer.put((1..200).flat_map(|n| record(n, 1000)).collect()).await.unwrap();
    while stream.with(|state| state.calls.len()) == 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(begin.elapsed() < Duration::from_millis(10));
    let size = stream.with(|state| state.shards[0].entries[1].bytes());
    assert!((101_000..=102_400).contains(&size), "just under four units: {size}");
    writer.drain().await;
    assert_eq!(ticket.await.len(), 199);
}

#[tokio::test(start_paused = true)]
async fn a_compressed_stream_reads_as_any_other() {
    let config = Config { zstd_level: Some(3), ..Config::default() };
    let (stream, writer) = start(Capacity::Provisioned, config).await;
    let mut tickets = Vec::new();
    for n in 0..200 {
        let puts = (0..40).map(|i| Put::new(numbered(&format!("k{}", i % 3), n * 40 + i))).collect();
        tickets.push(writer.put(puts).await.unwrap());
    }
    for ticket in tickets {
        assert!(ticket.await.iter().all(Result::is_ok));
    }
    let stats = writer.stats();
    assert!(stats.entry_bytes < stats.user_bytes, "{stats:?}");
    for rule in [Rule::Ours, Rule::Kcl] {
        let read = stream.read(rule);
        for key in 0..3 {
            let numbers = first_occurrences(&read[&format!("k{key}")]);
            let expected: Vec<u32> = (0..8000).filter(|n| n % 40 % 3 == key).collect();
            assert_eq!(numbers, expected);
        }
    }
    // The outer record's hash key is the entry's, which decided the shard.
    stream.with(|state| {
        let shard = &state.shards[0];
        for entry in &shard.entries {
            assert!(matches!(decode(&entry.data), Ok(Decoded::Aggregate(_))));
            assert!(shard.range.contains(entry.explicit_hash_key.unwrap()));
        }
    });
}
