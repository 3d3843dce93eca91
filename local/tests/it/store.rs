//! What is kept while it is being compacted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headworks_local::kinesis::snapshot::SnapshotError;
use headworks_local::kinesis::{CreateStream, Position, PutEntry, ReadLimits, store};
use headworks_local::{Engine, Settings};

use crate::support::{FIRST, SECOND};

fn open(dir: &std::path::Path) -> Engine {
    let engine = Engine::new(Settings::default());
    store::open(&engine, dir).unwrap();
    engine
}

fn numbers(engine: &Engine) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for shard in [FIRST, SECOND] {
        let mut position = Position::TRIM_HORIZON;
        loop {
            let batch = engine.read("s", shard, position, ReadLimits::default()).unwrap();
            if batch.records.is_empty() {
                break;
            }
            found.extend(batch.records.iter().map(|record| record.sequence.to_string()));
            position = batch.next;
        }
    }
    found
}

#[test]
fn compacting_in_the_middle_of_puts_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..2 {
        let engine = open(dir.path());
        if round == 0 {
            let stream = CreateStream { name: "s".to_owned(), shards: 2, ..CreateStream::default() };
            engine.create_stream(stream).unwrap();
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let (engine, stop) = (&engine, &stop);
                    scope.spawn(move || {
                        let mut numbers = Vec::new();
                        for n in 0.. {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            let entry = PutEntry::new(format!("{writer}/{n}"), "data");
                            numbers.push(engine.put("s", entry).unwrap().sequence.to_string());
                        }
                        numbers
                    })
                })
                .collect();
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(5));
                store::compact(&engine).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            for writer in writers {
                acknowledged.extend(writer.join().unwrap());
            }
        });
        // Dropped, not closed.
    }
    assert_eq!(numbers(&open(dir.path())), acknowledged);
    let logs = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(logs.filter(|path| path.extension().is_some_and(|end| end == "log")).count(), 1);
}

#[test]
fn a_directory_has_one_owner_and_a_closed_one_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    engine
        .create_stream(CreateStream { name: "s".to_owned(), shards: 2, ..CreateStream::default() })
        .unwrap();
    let second = store::open(&Engine::new(Settings::default()), dir.path()).unwrap_err();
    assert!(matches!(second, SnapshotError::InUse { .. }), "{second}");
    store::close(&engine).unwrap();
    store::close(&engine).unwrap();
    let error = engine.put("s", PutEntry::new("k", "x")).unwrap_err();
    assert!(error.to_string().contains("has been shut down"), "{error}");
    assert!(numbers(&open(dir.path())).is_empty(), "what was refused is not there");
}
