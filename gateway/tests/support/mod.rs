//! A gateway over a stream that lives in memory and does what the test says.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headworks_gateway::{Config, Gateway, Handle, Report, RunError};
use headworks_proto::v1;
use headworks_proto::v1::gateway_client::GatewayClient;
use headworks_record::aggregate::{self, Decoded};
use headworks_record::{HashRange, LaneCount, PartitionKey, Record, Shard, key};
use headworks_telemetry::{Minter, RecordTracer, Sampler};
use headworks_writer::{CallError, Entry, EntryError, Fault, ListedShard, Stored, Stream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// How long a condition may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub async fn soon<T>(what: &str, happening: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happening).await {
        Ok(happened) => happened,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// What the stream does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Stores and answers.
    Open,
    /// Neither stores nor answers until it is opened.
    Shut,
    /// Stores, and does not answer until it is opened.
    Mute,
    /// Does not exist.
    Missing,
}

#[derive(Debug)]
struct Inner {
    name: String,
    mode: watch::Sender<Mode>,
    calls: watch::Sender<usize>,
    records: watch::Sender<Vec<Record>>,
    sequence: Mutex<u64>,
}

/// A stream of two shards in memory.
#[derive(Debug, Clone)]
pub struct FakeStream(Arc<Inner>);

impl FakeStream {
    pub fn new(name: &str) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            mode: watch::Sender::new(Mode::Open),
            calls: watch::Sender::new(0),
            records: watch::Sender::new(Vec::new()),
            sequence: Mutex::new(0),
        }))
    }

    pub fn set(&self, mode: Mode) {
        self.0.mode.send_replace(mode);
    }

    /// Everything stored so far, in the order of the calls.
    pub fn records(&self) -> Vec<Record> {
        self.0.records.borrow().clone()
    }

    /// The payloads of one key, in order.
    pub fn of_key(&self, key: &str) -> Vec<String> {
        let text = |record: &Record| String::from_utf8(record.data.to_vec()).unwrap();
        self.0.records.borrow().iter().filter(|r| r.key.as_str() == key).map(text).collect()
    }

    /// How many calls have come in.
    pub fn calls(&self) -> usize {
        *self.0.calls.borrow()
    }

    /// Waits until this many calls have come in.
    pub async fn called(&self, calls: usize) {
        let mut watch = self.0.calls.subscribe();
        soon("a call of the stream", watch.wait_for(|n| *n >= calls)).await.unwrap();
    }

    /// Waits until this many records are stored.
    pub async fn stored(&self, records: usize) {
        let mut watch = self.0.records.subscribe();
        soon("records on the stream", watch.wait_for(|stored| stored.len() >= records)).await.unwrap();
    }

    fn shards() -> [Shard; 2] {
        let half = u128::MAX / 2;
        [
            Shard { id: "shardId-000000000000".into(), range: HashRange::new(0, half) },
            Shard { id: "shardId-000000000001".into(), range: HashRange::new(half + 1, u128::MAX) },
        ]
    }

    async fn until(&self, wanted: impl Fn(Mode) -> bool) {
        let mut mode = self.0.mode.subscribe();
        // The sender lives in `self`.
        let _ = mode.wait_for(|mode| wanted(*mode)).await;
    }

    fn store(&self, entries: &[Entry]) -> Vec<Result<Stored, EntryError>> {
        entries
            .iter()
            .map(|entry| {
                let hash = entry.explicit_hash_key.unwrap_or_else(|| key::hash_of(&entry.partition_key));
                let [low, high] = Self::shards();
                let shard = if low.range.contains(hash) { low.id } else { high.id };
                let records = match aggregate::decode(&entry.data).unwrap() {
                    Decoded::Aggregate(aggregate) => {
                        aggregate.members().map(|member| member.to_record().unwrap()).collect()
                    }
                    _ => vec![Record {
                        key: PartitionKey::new(entry.partition_key.clone()).unwrap(),
                        explicit_hash_key: entry.explicit_hash_key,
                        headers: Default::default(),
                        data: entry.data.clone(),
                    }],
                };
                self.0.records.send_modify(|all| all.extend(records));
                let mut sequence = self.0.sequence.lock().unwrap();
                *sequence += 1;
                Ok(Stored { shard, sequence_number: format!("{sequence:056}").into() })
            })
            .collect()
    }
}

#[async_trait::async_trait]
impl Stream for FakeStream {
    fn name(&self) -> &str {
        &self.0.name
    }

    async fn list_shards(&self) -> Result<Vec<ListedShard>, CallError> {
        if *self.0.mode.borrow() == Mode::Missing {
            return Err(CallError {
                fault: Fault::Permanent,
                code: "ResourceNotFoundException".to_owned(),
                message: format!("Stream {} under account 000000000000 not found.", self.0.name),
            });
        }
        Ok(Self::shards().map(|shard| ListedShard { shard, closed: false }).into())
    }

    async fn lanes(&self) -> Result<LaneCount, CallError> {
        Ok(LaneCount::ONE)
    }

    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<Result<Stored, EntryError>>, CallError> {
        self.0.calls.send_modify(|calls| *calls += 1);
        self.until(|mode| mode != Mode::Shut).await;
        let stored = self.store(entries);
        self.until(|mode| mode != Mode::Mute).await;
        Ok(stored)
    }
}

/// A gateway that runs on the test's own runtime.
#[derive(Debug)]
pub struct Running {
    pub handle: Handle,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<Report, RunError>>,
}

/// The settings of tests: any free port.
pub fn config(streams: &[&FakeStream]) -> Config {
    let mut config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Config::default() };
    for stream in streams {
        config.streams.extend(Config::for_stream(&stream.0.name).streams);
    }
    config
}

/// What `Gateway::bind` takes.
pub fn factory(streams: &[&FakeStream]) -> impl Fn(&str) -> Arc<dyn Stream> + use<> {
    let streams: Vec<FakeStream> = streams.iter().map(|stream| (*stream).clone()).collect();
    move |name| Arc::new(streams.iter().find(|stream| stream.0.name == name).unwrap().clone())
}

impl Running {
    pub async fn start(streams: &[&FakeStream]) -> Self {
        Self::with(config(streams), streams, RecordTracer::disabled()).await
    }

    pub async fn with(config: Config, streams: &[&FakeStream], tracer: RecordTracer) -> Self {
        Self::over(config, factory(streams), tracer).await
    }

    /// Over streams of any kind.
    pub async fn over(
        config: Config,
        streams: impl Fn(&str) -> Arc<dyn Stream>,
        tracer: RecordTracer,
    ) -> Self {
        let minter = Minter::new(Sampler::always());
        let (gateway, handle) = Gateway::bind(config, streams, minter, tracer).await.unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(gateway.run(shutdown.clone()));
        Self { handle, shutdown, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.handle.local_addr())
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.url()).unwrap().connect().await.unwrap()
    }

    pub async fn client(&self) -> GatewayClient<Channel> {
        GatewayClient::new(self.channel().await)
    }

    pub async fn stop(self) -> Report {
        self.shutdown.cancel();
        soon("the gateway's end", self.task).await.unwrap().unwrap()
    }
}

/// A record on the wire.
pub fn record(key: &str, data: impl Into<bytes::Bytes>) -> v1::Record {
    v1::Record { key: key.to_owned(), data: data.into(), ..Default::default() }
}

/// The error of a result, or `None` if the record is stored.
pub fn error(result: &v1::RecordResult) -> Option<&v1::Error> {
    match result.outcome.as_ref().unwrap() {
        v1::record_result::Outcome::Stored(_) | v1::record_result::Outcome::Spooled(_) => None,
        v1::record_result::Outcome::Error(error) => Some(error),
    }
}

/// The codes of the results; "" where the record is stored.
pub fn codes(results: &[v1::RecordResult]) -> Vec<&str> {
    results.iter().map(|result| error(result).map_or("", |error| &error.code)).collect()
}
