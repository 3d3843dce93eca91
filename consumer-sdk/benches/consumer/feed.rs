//! A stream of one shard whose records are all there when it is opened.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use headworks_consumer::SequenceNumber;
use headworks_consumer::streams::{
    ConsumerId, Error, Event, Page, RawRecord, ReadFrom, Registered, Registration, ShardFilter, ShardInfo,
    Streams, Subscription,
};
use headworks_record::aggregate::Builder;
use headworks_record::{Creation, HashRange, Record, ShardId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

/// Bytes of one aggregate: what the writer seals by default.
const AGGREGATE_BYTES: usize = 100 << 10;
/// Aggregates of one event, and the time between events: some 2 MB a second, as a shard gives.
const PER_EVENT: usize = 5;
const EVENT_EVERY_MS: u64 = 250;
const BEGAN_MS: u64 = 1_790_000_000_000;

#[derive(Debug, Clone)]
pub struct Feed {
    events: Arc<[Event]>,
    opened: Arc<watch::Sender<bool>>,
}

impl Feed {
    /// Records with this much data, two headers and a creation context of their own.
    pub fn new(all: usize, bytes: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(7);
        let (mut events, mut sealed, mut builder) = (Vec::new(), Vec::new(), Builder::new());
        for i in 1..=all {
            builder.push(&record(&mut rng, bytes));
            if builder.len() >= AGGREGATE_BYTES || i == all {
                sealed.push(raw(i, events.len() as u64 * EVENT_EVERY_MS, builder.take()));
            }
            if sealed.len() == PER_EVENT || i == all {
                let records: Vec<RawRecord> = std::mem::take(&mut sealed);
                let continuation = records.last().map(|record| record.sequence_number.clone());
                let millis_behind = u64::from(i < all);
                events.push(Event { records, continuation, millis_behind, end: None });
            }
        }
        Self { events: events.into(), opened: Arc::new(watch::channel(false).0) }
    }

    /// From now on subscriptions bring the events.
    pub fn open(&self) {
        self.opened.send_replace(true);
    }

    /// The data of every Kinesis record.
    pub fn blobs(&self) -> impl Iterator<Item = &Bytes> {
        self.events.iter().flat_map(|event| event.records.iter().map(|record| &record.data))
    }

    /// The same events for another consumer.
    pub fn again(&self) -> Self {
        Self { events: self.events.clone(), opened: Arc::new(watch::channel(false).0) }
    }
}

fn record(rng: &mut SmallRng, bytes: usize) -> Record {
    let mut data = vec![0; bytes];
    rng.fill(&mut data[..]);
    let key = format!("session-{:08x}", rng.random::<u32>());
    let record = Record::builder(key).unwrap().header("type", "order.placed").unwrap();
    let record = record.header("tenant", "acme-shop").unwrap();
    record.creation(Creation::mint(BEGAN_MS, rng.random())).data(data).build()
}

fn raw(number: usize, later_ms: u64, data: Bytes) -> RawRecord {
    RawRecord {
        // As long as those of the service.
        sequence_number: SequenceNumber::new(format!("4965{number:052}")).unwrap(),
        partition_key: "hw/s0/0".into(),
        arrival_ms: BEGAN_MS + later_ms,
        data,
    }
}

fn refused(operation: &'static str) -> Error {
    Error::Refused { operation, message: "this stream is only subscribed to".to_owned() }
}

#[async_trait]
impl Streams for Feed {
    async fn arn(&self) -> Result<String, Error> {
        Ok("arn:stream".to_owned())
    }

    async fn shards(&self, _: ShardFilter) -> Result<Vec<ShardInfo>, Error> {
        Ok(vec![ShardInfo {
            id: "s0".into(),
            parents: vec![],
            range: HashRange::ALL,
            open: true,
            begins: None,
        }])
    }

    async fn consumer(&self, _: &str, _: &ConsumerId) -> Result<Option<Registered>, Error> {
        Ok(Some(Registered { arn: "arn:consumer".to_owned(), state: Registration::Active }))
    }

    async fn register(&self, _: &str, _: &str) -> Result<Registered, Error> {
        Err(refused("RegisterStreamConsumer"))
    }

    async fn subscribe(&self, _: &str, _: &ShardId, _: &ReadFrom) -> Result<Subscription, Error> {
        let mut opened = self.opened.subscribe();
        let gate = async move {
            // The sender lives as long as the stream.
            let _ = opened.wait_for(|opened| *opened).await;
            futures_util::stream::empty()
        };
        let events = self.events.clone();
        let events = futures_util::stream::iter((0..events.len()).map(move |i| Ok(events[i].clone())));
        let gate = futures_util::stream::once(gate).flatten();
        Ok(gate.chain(events).chain(futures_util::stream::pending()).boxed())
    }

    async fn iterator(&self, _: &ShardId, _: &ReadFrom) -> Result<String, Error> {
        Err(refused("GetShardIterator"))
    }

    async fn records(&self, _: &str, _: usize) -> Result<Page, Error> {
        Err(refused("GetRecords"))
    }
}
