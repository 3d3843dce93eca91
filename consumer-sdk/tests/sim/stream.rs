//! A stream with splits and merges, behind the same network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use headworks_consumer::SequenceNumber;
use headworks_consumer::streams::{
    ConsumerId, Error, Event, Page, RawRecord, ReadFrom, Registered, Registration, ShardFilter, ShardInfo,
    Streams, Subscription,
};
use headworks_record::{HashRange, ShardId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::world::{Line, World};

/// How long a shard that was read to its end stays: longer than any call is under way.
const RETENTION: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Shard {
    info: ShardInfo,
    records: Vec<(u64, RawRecord)>,
    children: Vec<ShardInfo>,
    subscriber: Option<(Instant, CancellationToken)>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
pub struct Stream {
    shards: BTreeMap<ShardId, Shard>,
    sequence: u64,
    made: u32,
}

impl World {
    pub fn add_shards(&mut self, count: u32) {
        self.stream.sequence = 100;
        for i in 0..count {
            let width = u128::MAX / u128::from(count);
            let start = width * u128::from(i);
            let end = if i + 1 == count { u128::MAX } else { start + width - 1 };
            self.add_shard(vec![], HashRange::new(start, end));
        }
    }

    fn add_shard(&mut self, parents: Vec<ShardId>, range: HashRange) -> ShardInfo {
        let id = ShardId::from(format!("s{:02}", self.stream.made).as_str());
        self.stream.made += 1;
        self.judge.shard(&id, &parents);
        let info = ShardInfo { id: id.clone(), parents, range, open: true, begins: None };
        let shard = Shard {
            info: info.clone(),
            records: vec![],
            children: vec![],
            subscriber: None,
            news: Arc::default(),
        };
        self.stream.shards.insert(id, shard);
        info
    }

    pub fn open_shards(&self) -> Vec<ShardId> {
        let open = self.stream.shards.values().filter(|shard| shard.info.open);
        open.map(|shard| shard.info.id.clone()).collect()
    }

    /// Puts a record that arrives at this time, in milliseconds.
    pub fn put(&mut self, shard: &ShardId, arrival_ms: u64, bytes: usize) {
        self.stream.sequence += 1;
        let n = self.stream.sequence;
        self.judge.put(shard, n);
        let shard = self.stream.shards.get_mut(shard).unwrap();
        let record = RawRecord {
            sequence_number: sequence(n),
            partition_key: "k".into(),
            arrival_ms: 1_700_000_000_000 + arrival_ms,
            data: vec![b'x'; bytes].into(),
        };
        shard.records.push((n, record));
        shard.news.notify_waiters();
    }

    /// Drops the shards that were read to their end so long ago, as the service does after the retention.
    pub fn expire(&mut self, now: Duration) {
        let judge = &self.judge;
        self.stream.shards.retain(|id, _| judge.ended(id).is_none_or(|ended| now < ended + RETENTION));
    }

    fn close(&mut self, shards: &[ShardId], children: Vec<ShardInfo>) {
        self.stream.sequence += 1;
        for id in shards {
            self.judge.closed(id);
            let shard = self.stream.shards.get_mut(id).unwrap();
            shard.info.open = false;
            shard.children.clone_from(&children);
            shard.news.notify_waiters();
        }
    }

    pub fn split(&mut self, id: &ShardId) -> Vec<ShardId> {
        let range = self.stream.shards[id].info.range;
        let middle = range.start.0 + (range.end.0 - range.start.0) / 2;
        let left = self.add_shard(vec![id.clone()], HashRange::new(range.start.0, middle));
        let right = self.add_shard(vec![id.clone()], HashRange::new(middle + 1, range.end.0));
        let ids = vec![left.id.clone(), right.id.clone()];
        self.close(std::slice::from_ref(id), vec![left, right]);
        ids
    }

    /// Merges the shard with its right neighbour, if it has one.
    pub fn merge(&mut self, id: &ShardId) -> Option<ShardId> {
        let range = self.stream.shards[id].info.range;
        let open = self.stream.shards.values().filter(|shard| shard.info.open);
        let next = range.end.0.checked_add(1)?;
        let next = open.map(|shard| &shard.info).find(|info| info.range.start.0 == next)?;
        let (other, end) = (next.id.clone(), next.range.end);
        let range = HashRange { start: range.start, end };
        let child = self.add_shard(vec![id.clone(), other.clone()], range);
        let merged = child.id.clone();
        self.close(&[id.clone(), other], vec![child]);
        Some(merged)
    }
}

fn sequence(n: u64) -> SequenceNumber {
    SequenceNumber::new(n.to_string()).unwrap()
}

pub fn number(sequence: &SequenceNumber) -> u64 {
    sequence.as_str().parse().unwrap()
}

impl Stream {
    fn after(&self, shard: &ShardId, after: u64, most: usize) -> Result<(Event, u64), Error> {
        let found = self.found(shard)?;
        let first = found.records.partition_point(|(n, _)| *n <= after);
        let unread = &found.records[first..];
        let records: Vec<RawRecord> = unread.iter().take(most).map(|(_, record)| record.clone()).collect();
        let more = unread.len() > records.len();
        let ended = !found.info.open && !more;
        let reached = match (more, records.last()) {
            (true, Some(last)) => number(&last.sequence_number),
            _ => self.sequence,
        };
        let event = Event {
            records,
            continuation: (!ended).then(|| sequence(reached)),
            millis_behind: if more { 1000 } else { 0 },
            end: ended.then(|| found.children.clone()),
        };
        Ok((event, reached))
    }

    fn found(&self, shard: &ShardId) -> Result<&Shard, Error> {
        let gone = || Error::NotFound { operation: "a read", message: format!("{shard} has expired") };
        self.shards.get(shard).ok_or_else(gone)
    }

    fn begin(&self, from: &ReadFrom) -> u64 {
        match from {
            ReadFrom::TrimHorizon | ReadFrom::AtTimestamp(_) => 0,
            ReadFrom::Latest => self.sequence,
            ReadFrom::At(sequence) => number(sequence) - 1,
            ReadFrom::After(sequence) => number(sequence),
        }
    }
}

/// One worker's way to the stream.
#[derive(Debug, Clone)]
pub struct SimStreams {
    pub line: Line,
}

impl SimStreams {
    async fn call(&self, operation: &'static str) -> Result<(), Error> {
        self.line.awake().await;
        self.line.leg().await;
        if let Some(until) = self.line.is_cut_from_streams() {
            sleep_until(until).await;
        }
        let faults = self.line.faults();
        if self.line.happens(faults.lost) {
            return std::future::pending().await;
        }
        match self.line.happens(faults.refused) {
            false => Ok(()),
            true if self.line.happens(500) => {
                Err(Error::Throttled { operation, message: "slow down".to_owned() })
            }
            true => Err(Error::Unavailable { operation, message: "refused".to_owned() }),
        }
    }

    /// The next event of a subscription; the subscription's end is `None`.
    async fn event(&self, reading: &mut Reading) -> Option<Result<Event, Error>> {
        let idle = Instant::now() + Duration::from_secs(5);
        let news = match self.line.shared.lock().stream.found(&reading.shard) {
            Ok(shard) => shard.news.clone(),
            Err(error) => return Some(Err(error)),
        };
        loop {
            let notified = news.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let found = self.line.shared.lock().stream.after(&reading.shard, reading.position, 10);
            let (event, reached) = match found {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let quiet = event.records.is_empty() && event.end.is_none();
            if !quiet || reading.first || Instant::now() >= idle {
                self.line.leg().await;
                if let Some(until) = self.line.is_cut_from_streams() {
                    sleep_until(until).await;
                }
                self.line.awake().await;
                if reading.superseded.is_cancelled() {
                    continue;
                }
                (reading.first, reading.position) = (false, reached);
                return Some(Ok(event));
            }
            let operation = "SubscribeToShard";
            tokio::select! {
                biased;
                () = reading.superseded.cancelled() => {
                    return Some(Err(Error::InUse { operation, message: "superseded".to_owned() }));
                }
                () = notified => {}
                () = sleep_until(reading.breaks) => {
                    if reading.silently {
                        return std::future::pending().await;
                    }
                    return Some(Err(Error::Unavailable { operation, message: "reset".to_owned() }));
                }
                () = sleep_until(idle) => {}
            }
        }
    }
}

#[derive(Debug)]
struct Reading {
    shard: ShardId,
    position: u64,
    first: bool,
    superseded: CancellationToken,
    breaks: Instant,
    silently: bool,
}

#[async_trait]
impl Streams for SimStreams {
    async fn arn(&self) -> Result<String, Error> {
        self.call("DescribeStreamSummary").await?;
        Ok("arn:stream".to_owned())
    }

    async fn shards(&self, filter: ShardFilter) -> Result<Vec<ShardInfo>, Error> {
        self.call("ListShards").await?;
        let world = self.line.shared.lock();
        let all = world.stream.shards.values().map(|shard| shard.info.clone());
        Ok(match filter {
            ShardFilter::All => all.collect(),
            ShardFilter::AtLatest => all.filter(|shard| shard.open).collect(),
            // Nothing expires here.
            ShardFilter::AtTrimHorizon | ShardFilter::AtTimestamp(_) => {
                all.filter(|shard| shard.parents.is_empty()).collect()
            }
        })
    }

    async fn consumer(&self, _: &str, _: &ConsumerId) -> Result<Option<Registered>, Error> {
        self.call("DescribeStreamConsumer").await?;
        Ok(Some(Registered { arn: "arn:consumer".to_owned(), state: Registration::Active }))
    }

    async fn register(&self, _: &str, _: &str) -> Result<Registered, Error> {
        Ok(Registered { arn: "arn:consumer".to_owned(), state: Registration::Active })
    }

    async fn subscribe(&self, _: &str, shard: &ShardId, from: &ReadFrom) -> Result<Subscription, Error> {
        self.call("SubscribeToShard").await?;
        let superseded = CancellationToken::new();
        let position = {
            let mut world = self.line.shared.lock();
            let position = world.stream.begin(from);
            world.stream.found(shard)?;
            let subscriber = &mut world.stream.shards.get_mut(shard).unwrap().subscriber;
            if let Some((since, before)) = subscriber {
                if since.elapsed() < Duration::from_secs(5) {
                    let message = "another subscription is younger than five seconds".to_owned();
                    return Err(Error::InUse { operation: "SubscribeToShard", message });
                }
                before.cancel();
            }
            *subscriber = Some((Instant::now(), superseded.clone()));
            position
        };
        self.line.leg().await;
        let breaks = self.line.happens(self.line.faults().broken_subscription);
        let after = if breaks { self.line.draw(0..10_000) } else { 300_000 };
        let reading = Reading {
            shard: shard.clone(),
            position,
            first: true,
            superseded,
            breaks: Instant::now() + Duration::from_millis(after),
            silently: breaks && self.line.happens(300),
        };
        let state = Some((self.clone(), reading));
        let events = futures_util::stream::unfold(state, move |state| async move {
            let (streams, mut reading) = state?;
            let event = streams.event(&mut reading).await?;
            let over = event.as_ref().map_or(true, |event| event.end.is_some());
            Some((event, (!over).then_some((streams, reading))))
        });
        Ok(events.boxed())
    }

    async fn iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String, Error> {
        self.call("GetShardIterator").await?;
        let world = self.line.shared.lock();
        world.stream.found(shard)?;
        Ok(format!("{shard}|{}", world.stream.begin(from)))
    }

    async fn records(&self, iterator: &str, most: usize) -> Result<Page, Error> {
        self.call("GetRecords").await?;
        let (shard, after) = iterator.split_once('|').unwrap();
        let world = self.line.shared.lock();
        let (mut event, reached) = world.stream.after(&shard.into(), after.parse().unwrap(), most.min(20))?;
        event.continuation = None;
        let next = event.end.is_none().then(|| format!("{shard}|{reached}"));
        Ok(Page { event, next })
    }
}

/// How long an answer of a handler takes.
pub async fn work(line: &Line) -> bool {
    let faults = line.faults();
    let most = if line.happens(faults.handler_slow) { 4_000_000 } else { 5_000 };
    let delay = line.draw(0..most);
    sleep(Duration::from_micros(delay)).await;
    line.awake().await;
    !line.happens(faults.handler_fails)
}
