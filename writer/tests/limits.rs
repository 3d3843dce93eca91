//! Writers and the limits of shards, in paused time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::time::Duration;

use common::{MemoryStream, Misbehaviour};
use headworks_record::{HashKey, Record};
use headworks_writer::{Config, Handle, Put, Stats, Writer};
use tokio::task::JoinHandle;
use tokio::time::Instant;

async fn limited(shards: u128) -> MemoryStream {
    let stream = MemoryStream::new(shards, 1);
    stream.with(|state| {
        state.limited = true;
        state.misbehaviour = Misbehaviour { answer_late_ms: 20, ..Default::default() };
    });
    stream
}

async fn writer(stream: &MemoryStream, config: Config) -> Handle {
    let (service, writer) = Writer::start(config, stream.clone(), Default::default()).await.unwrap();
    tokio::spawn(service.run(Default::default()));
    writer
}

fn config() -> Config {
    Config { deadline_ms: 600_000, max_buffered_bytes: 4 << 20, ..Config::default() }
}

/// Keeps the writer full of records of this size, of one key or of many.
fn load(writer: &Handle, bytes: usize, keys: u32) -> JoinHandle<()> {
    let writer = writer.clone();
    tokio::spawn(async move {
        for n in 0u32.. {
            let record = |i: u32| {
                let key = format!("key-{}", (n * 16 + i) % keys);
                Put::new(Record::builder(key).unwrap().data(vec![b'x'; bytes]).build())
            };
            let Ok(ticket) = writer.put((0..16).map(record).collect()).await else { return };
            drop(ticket);
        }
    })
}

fn since(now: Stats, before: Stats) -> (f64, f64, f64) {
    let throttled = now.throttled - before.throttled;
    let bytes = now.user_bytes - before.user_bytes;
    (bytes as f64, throttled as f64, (now.entries - before.entries) as f64)
}

/// Jain's index of fairness: 1 if all have the same, 1/n if one has everything.
fn jain(parts: &[f64]) -> f64 {
    let sum: f64 = parts.iter().sum();
    sum * sum / (parts.len() as f64 * parts.iter().map(|part| part * part).sum::<f64>())
}

#[tokio::test(start_paused = true)]
async fn three_writers_share_a_shard_fairly_and_waste_little() {
    // Over a minute, chance may favour one of them.
    const MEASURED: Duration = Duration::from_mins(5);
    let stream = limited(1).await;
    let mut writers = Vec::new();
    for _ in 0..3 {
        let writer = writer(&stream, config()).await;
        let _loading = load(&writer, 1000, 1000);
        // They come one after the other: the first has the whole shard when the others begin.
        tokio::time::sleep(Duration::from_secs(10)).await;
        writers.push(writer);
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before: Vec<Stats> = writers.iter().map(Handle::stats).collect();
    tokio::time::sleep(MEASURED).await;
    let parts: Vec<_> = writers.iter().zip(before).map(|(w, before)| since(w.stats(), before)).collect();
    let bytes: Vec<f64> = parts.iter().map(|part| part.0).collect();
    assert!(jain(&bytes) > 0.95, "{parts:?}");
    let used = bytes.iter().sum::<f64>() / MEASURED.as_secs_f64() / 1_048_576.0;
    assert!(used > 0.85, "{used} of the shard: {parts:?}");
    let wasted = parts.iter().map(|p| p.1).sum::<f64>() / parts.iter().map(|p| p.2).sum::<f64>();
    assert!(wasted < 0.1, "{wasted} of the Kinesis records were refused: {parts:?}");
    println!("jain {:.4}, used {used:.3}, refused {wasted:.4}", jain(&bytes));
}

#[tokio::test(start_paused = true)]
async fn who_is_left_alone_has_the_whole_shard_again() {
    let stream = limited(1).await;
    let (first, second) = (writer(&stream, config()).await, writer(&stream, config()).await);
    let _loading = load(&first, 1000, 1000);
    let loading = load(&second, 1000, 4);
    tokio::time::sleep(Duration::from_secs(30)).await;
    loading.abort();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = first.stats();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (bytes, ..) = since(first.stats(), before);
    assert!(bytes / 20.0 > 0.85 * 1_048_576.0, "{} bytes/s", bytes / 20.0);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_shard_delays_no_other() {
    let stream = limited(2).await;
    let writer = writer(&stream, config()).await;
    let other = writer.clone();
    let low = |_| {
        let record = Record::builder("low").unwrap().explicit_hash_key(HashKey(0));
        Put::new(record.data(vec![0; 100_000]).build())
    };
    let _low = writer.put((0..30).map(low).collect()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..20 {
        let begin = Instant::now();
        let record = Record::builder("high").unwrap().explicit_hash_key(HashKey::MAX).build();
        let outcome = other.put(vec![Put::new(record)]).await.unwrap().await.remove(0).unwrap();
        assert_eq!(outcome.attempts, 1);
        // Linger, and an answer that is up to 20 ms late.
        assert!(begin.elapsed() <= Duration::from_millis(35), "{:?}", begin.elapsed());
    }
    assert!(writer.buffered_bytes() > 0, "the low shard is still busy");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_brings_more_than_a_shard_takes_is_named() {
    let stream = limited(1).await;
    let writer = writer(&stream, Config { deadline_ms: 5_000, ..config() }).await;
    let _loading = load(&writer, 5_000, 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let [hot] = &writer.hot_keys()[..] else { panic!("one hot key: {:?}", writer.hot_keys()) };
    assert_eq!((&*hot.key, &*hot.lane, hot.percent), ("key-0", "hw/shardId-000000000000/0", 100));
    assert!(writer.stats().hot_keys >= 1);
    // What then fails says which key it is and what to do.
    stream.with(|state| state.throttle_label = Some("hw/".to_owned()));
    let late = Record::builder("key-0").unwrap().data("x").build();
    let failure = writer.put(vec![Put::new(late)]).await.unwrap().await.remove(0).unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("the key \"key-0\" is 100 % of lane hw/shardId-000000000000/0"), "{text}");
    assert!(text.contains("spread its records over several keys"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn many_keys_that_together_fill_a_shard_are_not_hot() {
    let stream = limited(1).await;
    let writer = writer(&stream, config()).await;
    let _loading = load(&writer, 5_000, 10);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(writer.stats().throttled > 0);
    assert_eq!(writer.stats().hot_keys, 0);
}

#[tokio::test(start_paused = true)]
async fn limits_are_learned_anew_after_a_split() {
    let stream = limited(1).await;
    let writer = writer(&stream, config()).await;
    let _loading = load(&writer, 1000, 1000);
    tokio::time::sleep(Duration::from_secs(20)).await;
    stream.split(0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = writer.stats();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (bytes, ..) = since(writer.stats(), before);
    assert!(bytes / 20.0 > 1.7 * 1_048_576.0, "{} bytes/s of two shards", bytes / 20.0);
}
