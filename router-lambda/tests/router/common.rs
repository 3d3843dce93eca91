//! Fakes behind the router's three traits, and events to feed it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headworks_record::aggregate::{Builder, MAGIC, Origin};
use headworks_record::{Creation, HashRange, Record, Shard};
use headworks_router::dead_letter::{self, DeadLetters, Letter};
use headworks_router::{
    Event, Invocation, KinesisRecord, ListShards, Load, Outbound, RouteTable, Router, Trouble,
};
use headworks_writer::{CallError, Fault};
use md5::{Digest, Md5};
use tokio::time::Instant;

pub(crate) const SHARD: &str = "shardId-000000000001";

type Script = Box<dyn Fn(&str, &Record) -> Result<(), Trouble> + Send + Sync>;

/// Streams in memory; the script says which puts fail.
pub(crate) struct Streams {
    pub(crate) stored: Mutex<BTreeMap<String, Vec<(Record, Origin)>>>,
    script: Script,
    /// Streams that never answer.
    pub(crate) silent: Vec<&'static str>,
}

impl Streams {
    pub(crate) fn new(script: impl Fn(&str, &Record) -> Result<(), Trouble> + Send + Sync + 'static) -> Self {
        Self { stored: Mutex::default(), script: Box::new(script), silent: Vec::new() }
    }

    pub(crate) fn data(&self, stream: &str) -> Vec<String> {
        let stored = self.stored.lock().unwrap();
        let text = |(record, _): &(Record, _)| String::from_utf8_lossy(&record.data).into_owned();
        stored.get(stream).map(|records| records.iter().map(text).collect()).unwrap_or_default()
    }

    pub(crate) fn records(&self, stream: &str) -> Vec<Record> {
        let stored = self.stored.lock().unwrap();
        stored.get(stream).map(|r| r.iter().map(|(record, _)| record.clone()).collect()).unwrap_or_default()
    }
}

#[async_trait]
impl Outbound for Streams {
    async fn put(&self, stream: &str, loads: Vec<Load>, _until: Instant) -> Vec<Result<(), Trouble>> {
        if self.silent.contains(&stream) {
            std::future::pending::<()>().await;
        }
        let mut stored = self.stored.lock().unwrap();
        loads
            .into_iter()
            .flat_map(|load| load.into_puts().unwrap())
            .map(|put| {
                assert!(put.deadline.is_some());
                (self.script)(stream, &put.record)?;
                let origin = (*put.origin.unwrap()).clone();
                stored.entry(stream.to_owned()).or_default().push((put.record, origin));
                Ok(())
            })
            .collect()
    }
}

/// Dead letters in memory, or a bucket that refuses.
#[derive(Default)]
pub(crate) struct Letters {
    pub(crate) written: Mutex<Vec<Letter>>,
    pub(crate) broken: bool,
}

impl Letters {
    pub(crate) fn keys(&self) -> Vec<String> {
        self.written.lock().unwrap().iter().map(Letter::key).collect()
    }
}

#[async_trait]
impl DeadLetters for Letters {
    async fn write(&self, letter: &Letter) -> Result<(), dead_letter::Error> {
        if self.broken {
            return Err(dead_letter::Error::NotConfigured);
        }
        self.written.lock().unwrap().push(letter.clone());
        Ok(())
    }
}

/// One shard with the lower half of the hash space; counts how often it is listed.
#[derive(Default)]
pub(crate) struct Shards {
    pub(crate) calls: AtomicUsize,
    pub(crate) down: bool,
}

#[async_trait]
impl ListShards for Shards {
    async fn list(&self, _stream: &str) -> Result<Vec<Shard>, CallError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.down {
            return Err(CallError {
                fault: Fault::Access,
                code: "AccessDeniedException".into(),
                message: "no".into(),
            });
        }
        Ok(vec![Shard { id: SHARD.into(), range: HashRange::new(0, u128::MAX / 2) }])
    }
}

pub(crate) const ROUTES: &str = r#"
mode = "all-matches"
[[rules]]
name = "orders"
when.type.prefix = "order"
to = "orders"
[[rules]]
when.type.one-of = ["click", "order.click"]
to = "clicks"
[[rules]]
when.type = "noise"
drop = true
[[rules]]
when.type = "marked"
to = "marked"
set.mark = "yes"
[default]
to = "default"
"#;

pub(crate) struct World {
    pub(crate) streams: Arc<Streams>,
    pub(crate) letters: Arc<Letters>,
    pub(crate) shards: Arc<Shards>,
}

impl World {
    pub(crate) fn new(streams: Streams, letters: Letters, shards: Shards) -> (Self, Router) {
        Self::with_routes(ROUTES, streams, letters, shards)
    }

    pub(crate) fn with_routes(
        routes: &str,
        streams: Streams,
        letters: Letters,
        shards: Shards,
    ) -> (Self, Router) {
        let world = Self { streams: Arc::new(streams), letters: Arc::new(letters), shards: Arc::new(shards) };
        let table = Arc::new(RouteTable::from_toml(routes).unwrap());
        let router = Router::new(table, world.streams.clone(), world.letters.clone(), world.shards.clone());
        (world, router)
    }

    pub(crate) fn kind() -> (Self, Router) {
        Self::new(Streams::new(|_, _| Ok(())), Letters::default(), Shards::default())
    }
}

pub(crate) fn invocation() -> Invocation {
    Invocation { deadline: Instant::now() + Duration::from_secs(60), request_id: Some("r-1".into()) }
}

/// A record as the gateway makes it.
pub(crate) fn record(key: &str, kind: &str, data: &str) -> Record {
    let mut random = [7; 18];
    random[..data.len().min(10)].copy_from_slice(&data.as_bytes()[..data.len().min(10)]);
    Record::builder(key)
        .unwrap()
        .header("type", kind)
        .unwrap()
        .creation(Creation::mint(1_790_000_000_000, random))
        .data(data.to_owned())
        .build()
}

pub(crate) fn aggregate(records: &[Record]) -> Bytes {
    let mut builder = Builder::new();
    records.iter().for_each(|record| builder.push(record));
    builder.finish()
}

/// Puts magic and MD5 around a protobuf.
pub(crate) fn seal(protobuf: &[u8]) -> Bytes {
    let mut blob = MAGIC.to_vec();
    blob.extend_from_slice(protobuf);
    blob.extend_from_slice(&Md5::digest(protobuf));
    blob.into()
}

/// An aggregate as the KPL makes it: members of key "k" with this data.
pub(crate) fn kpl(data: &[&str]) -> Bytes {
    let mut protobuf = vec![0x0a, 1, b'k'];
    for data in data {
        protobuf.extend([0x1a, data.len() as u8 + 4, 0x08, 0, 0x1a, data.len() as u8]);
        protobuf.extend(data.as_bytes());
    }
    seal(&protobuf)
}

/// Kinesis records in order, with sequence numbers from 100.
pub(crate) fn event(data: Vec<Bytes>) -> Event {
    labelled(data.into_iter().map(|data| (format!("hw/{SHARD}/0"), data)).collect())
}

pub(crate) fn labelled(records: Vec<(String, Bytes)>) -> Event {
    let records = records
        .into_iter()
        .enumerate()
        .map(|(i, (partition_key, data))| KinesisRecord {
            shard: SHARD.into(),
            sequence_number: format!("{}", 100 + i).into(),
            partition_key: partition_key.into(),
            data,
            arrival_ms: 1_790_000_000_500 + i as u64,
        })
        .collect();
    Event { stream: "inbound".into(), records }
}
