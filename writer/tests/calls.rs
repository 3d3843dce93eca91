//! What one `PutRecords` call carries and what the writer holds, on both sides of each limit, in paused time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{MemoryStream, Misbehaviour};
use headworks_record::aggregate::Builder;
use headworks_record::{HashKey, Record};
use headworks_writer::{Config, Failure, Fault, Handle, Put, Refused, Writer};

async fn start(shards: u128, config: Config) -> (MemoryStream, Handle) {
    let stream = MemoryStream::new(shards, 1);
    // No call is answered before all that fit beside it have been made.
    stream.with(|state| state.misbehaviour = Misbehaviour { answer_late_ms: 20, ..Default::default() });
    let (service, writer) = Writer::start(config, stream.clone(), Default::default()).await.unwrap();
    tokio::spawn(service.run(Default::default()));
    (stream, writer)
}

/// A record for the shard of this number.
fn record(shard: u128, of: u128, data: Vec<u8>) -> Record {
    let hash = HashKey(u128::MAX / of * shard + 1);
    Record::builder("k").unwrap().explicit_hash_key(hash).data(data).build()
}

/// A record that is an entry of this many bytes, the label of its lane included.
fn entry(shard: u128, of: u128, bytes: usize) -> Put {
    let label = "hw/shardId-000000000000/0".len();
    let alone = |data| Builder::new().len_with(&record(shard, of, vec![b'x'; data]), None);
    let data = bytes - label - (alone(bytes) - bytes);
    let data = (data..).find(|data| alone(*data) + label >= bytes).unwrap();
    assert_eq!(alone(data) + label, bytes);
    Put::new(record(shard, of, vec![b'x'; data]))
}

/// Entries of each call, in the order of the calls.
async fn calls(shards: u128, puts: Vec<Put>, config: Config) -> Vec<usize> {
    let (stream, writer) = start(shards, config).await;
    for outcome in writer.put(puts).await.unwrap().await {
        assert_eq!(outcome.unwrap().attempts, 1);
    }
    stream.with(|state| state.calls.clone())
}

#[tokio::test(start_paused = true)]
async fn a_call_carries_500_entries_and_no_more() {
    let puts = |shards: u128| (0..shards).map(|n| Put::new(record(n, shards, vec![1]))).collect();
    assert_eq!(calls(500, puts(500), Config::default()).await, [500]);
    assert_eq!(calls(501, puts(501), Config::default()).await, [500, 1]);
    let three = Config { call_entries: 3, ..Config::default() };
    assert_eq!(calls(3, puts(3), three.clone()).await, [3]);
    assert_eq!(calls(4, puts(4), three).await, [3, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_call_carries_its_bytes_and_not_one_more() {
    const HALF: usize = 512 * 1024;
    let puts = |count: u128, last: usize| {
        (0..count).map(|n| entry(n, count, if n + 1 == count { last } else { HALF })).collect()
    };
    let least = Config { call_bytes: 1 << 20, ..Config::default() };
    assert_eq!(calls(2, puts(2, HALF), least.clone()).await, [2]);
    assert_eq!(calls(2, puts(2, HALF + 1), least).await, [1, 1]);
    assert_eq!(calls(10, puts(10, HALF), Config::default()).await, [10]);
    assert_eq!(calls(10, puts(10, HALF + 1), Config::default()).await, [9, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_reaches_the_budget_and_not_one_byte_beyond() {
    const LIMIT: usize = 1 << 20;
    let (stream, writer) = start(1, Config { max_buffered_bytes: LIMIT, ..Config::default() }).await;
    stream.with(|state| state.misbehaviour.refuse_call = 1.0);
    let sized = |bytes: usize| vec![Put::new(record(0, 1, vec![b'x'; bytes]))];
    // What a record weighs beside its data: told by the writer, so that only the sum is tested here.
    let probe = writer.try_put(sized(1)).await.unwrap();
    let beside = writer.buffered_bytes() - 1;
    drop(probe);
    let first = LIMIT - 2 * beside - 1 - 100_000;
    let _first = writer.try_put(sized(first)).await.unwrap();
    let left = LIMIT - writer.buffered_bytes() - beside;
    let refused = writer.try_put(sized(left + 1)).await.unwrap_err();
    assert!(matches!(refused, Refused::Full { limit: LIMIT, .. }), "{refused:?}");
    let second = writer.try_put(sized(left)).await.unwrap();
    assert_eq!(writer.buffered_bytes(), LIMIT);

    // Who waits is let in when there is room, and not before.
    let waiting = writer.clone();
    let waiting = tokio::spawn(async move { waiting.put(sized(1)).await.unwrap().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    stream.with(|state| state.misbehaviour.refuse_call = 0.0);
    second.await.remove(0).unwrap();
    waiting.await.unwrap().remove(0).unwrap();
    writer.drain().await;
    assert_eq!(writer.buffered_bytes(), 0);

    // A batch of the whole budget is taken; one byte more never will be.
    let batch =
        |bytes: usize| sized(bytes / 2).into_iter().chain(sized(bytes - bytes / 2)).collect::<Vec<_>>();
    writer.put(batch(LIMIT - 2 * beside)).await.unwrap().await.remove(0).unwrap();
    let refused = writer.put(batch(LIMIT - 2 * beside + 1)).await.unwrap_err();
    assert_eq!(refused, Refused::BatchTooLarge { bytes: LIMIT + 1, limit: LIMIT });
}

#[tokio::test(start_paused = true)]
async fn a_call_refused_as_a_whole_fails_only_what_it_was_refused_for() {
    const SHARDS: u128 = 4;
    // No lane lingers: whether one did would depend on how long the last answer took.
    let (stream, writer) = start(SHARDS, Config { linger_ms: 0, ..Config::default() }).await;
    stream.with(|state| state.refuse_larger = Some(1000));
    let puts = |sizes: [usize; SHARDS as usize]| {
        sizes
            .iter()
            .zip(0..)
            .map(|(size, shard)| Put::new(record(shard, SHARDS, vec![b'x'; *size])))
            .collect()
    };
    for sizes in [[10, 2000, 10, 10], [2000, 10, 10, 2000], [10; 4]] {
        stream.with(|state| state.calls.clear());
        let outcomes = writer.put(puts(sizes)).await.unwrap().await;
        for (size, outcome) in sizes.iter().zip(&outcomes) {
            assert_eq!(outcome.is_ok(), *size < 1000, "{outcome:?}");
            let refused =
                matches!(outcome, Err(Failure::Refused { code, .. }) if code == "InvalidArgumentException");
            assert_eq!(refused, *size > 1000, "{outcome:?}");
        }
        // Once they have been alone, they go together again.
        let expected = if sizes.contains(&2000) { vec![4, 1, 1, 1, 1] } else { vec![4] };
        assert_eq!(stream.with(|state| state.calls.clone()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_gone_is_gone_for_every_entry_at_once() {
    let (stream, writer) = start(4, Config::default()).await;
    stream.with(|state| state.refuse_all = Some((Fault::Permanent, "ResourceNotFoundException")));
    let puts = (0..4).map(|shard| Put::new(record(shard, 4, vec![1]))).collect();
    for outcome in writer.put(puts).await.unwrap().await {
        assert!(matches!(outcome, Err(Failure::Refused { .. })), "{outcome:?}");
    }
    assert_eq!(writer.stats().calls, 1);
}
