//! The engine in process, and many threads at once.

use std::sync::Arc;
use std::thread;

use headworks_local::kinesis::{
    CreateStream, Engine, ManualClock, Position, PutEntry, ReadLimits, Settings, StartPosition,
};

use crate::support::{DEADLINE, FIRST, START_MS};

fn engine(shards: u32) -> (Arc<Engine>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START_MS));
    let engine = Arc::new(Engine::with_clock(Settings::default(), clock.clone()));
    engine.create_stream(CreateStream { name: "s".to_owned(), shards, ..CreateStream::default() }).unwrap();
    (engine, clock)
}

#[tokio::test]
async fn waiting_ends_with_a_record_with_the_shard_and_with_the_stream() {
    let (engine, _) = engine(1);
    let reader = engine.reader("s", FIRST).unwrap();
    let latest = reader.position(StartPosition::Latest).unwrap();

    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait_for_more(latest).await }
    });
    tokio::task::yield_now().await;
    engine.put("s", PutEntry::new("k", "x")).unwrap();
    tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap();
    let batch = reader.read(latest, ReadLimits::default()).unwrap();
    assert_eq!((batch.records.len(), batch.end.is_some(), batch.trimmed), (1, false, 0));

    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait_for_more(batch.next).await }
    });
    tokio::task::yield_now().await;
    engine.split_shard("s", FIRST, 1 << 127).unwrap();
    tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(reader.read(batch.next, ReadLimits::default()).unwrap().end.unwrap().len(), 2);

    let child = engine.reader("s", "shardId-000000000001").unwrap();
    let waiting = tokio::spawn(async move { child.wait_for_more(Position::TRIM_HORIZON).await });
    tokio::task::yield_now().await;
    engine.delete_stream("s", true).unwrap();
    let ended = tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap_err();
    assert_eq!(ended.code(), "local-kinesis-resource-not-found");
}

#[test]
fn a_reader_learns_what_retention_took_from_it() {
    let (engine, clock) = engine(1);
    for data in ["a", "b"] {
        engine.put("s", PutEntry::new("k", data)).unwrap();
    }
    clock.advance_ms(24 * 3_600_000 + 1);
    engine.put("s", PutEntry::new("k", "c")).unwrap();
    let batch = engine.read("s", FIRST, Position::TRIM_HORIZON, ReadLimits::default()).unwrap();
    assert_eq!((batch.records.len(), batch.trimmed), (1, 2));
    assert_eq!(engine.held().1, 1);
}

#[test]
fn nothing_is_lost_or_reordered_while_shards_split_and_merge_under_load() {
    const WRITERS: usize = 4;
    const EACH: usize = 5_000;
    let (engine, _) = engine(2);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                for batch in 0..EACH / 10 {
                    let entries =
                        (0..10).map(|n| PutEntry::new(format!("w{writer}"), format!("{}", batch * 10 + n)));
                    for answer in engine.put_batch("s", entries.collect()).unwrap() {
                        answer.unwrap();
                    }
                }
            })
        })
        .collect();
    for target in [4, 3, 6, 5, 3, 2, 4, 2, 1, 2] {
        engine.update_shard_count("s", target).unwrap();
        thread::yield_now();
    }
    for writer in writers {
        writer.join().unwrap();
    }

    // Parents come before children in the listing, so per key the order of reading is the order of writing.
    let mut seen = vec![Vec::new(); WRITERS];
    for shard in engine.shards("s").unwrap() {
        let reader = engine.reader("s", &shard.shard_id).unwrap();
        let mut position = Position::TRIM_HORIZON;
        let mut last = None;
        loop {
            let batch = reader.read(position, ReadLimits { records: 100, ..ReadLimits::default() }).unwrap();
            for record in &batch.records {
                assert!(last < Some(record.sequence));
                last = Some(record.sequence);
                let writer: usize = record.partition_key[1..].parse().unwrap();
                seen[writer].push(String::from_utf8(record.data.to_vec()).unwrap().parse::<usize>().unwrap());
            }
            if batch.records.is_empty() || batch.end.is_some() {
                break;
            }
            position = batch.next;
        }
    }
    for of_writer in seen {
        assert_eq!(of_writer, (0..EACH).collect::<Vec<_>>());
    }
}
