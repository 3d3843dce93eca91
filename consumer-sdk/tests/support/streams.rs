//! A stream in memory: fan-out with one subscription per shard, plain reads, splits and merges.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use headworks_consumer::SequenceNumber;
use headworks_consumer::streams::{
    ConsumerId, Error, Event, Page, RawRecord, ReadFrom, Registered, Registration, ShardFilter, ShardInfo,
    Streams, Subscription,
};
use headworks_record::{HashRange, ShardId};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct FakeShard {
    info: ShardInfo,
    records: Vec<RawRecord>,
    children: Vec<ShardInfo>,
}

#[derive(Debug, Default)]
struct Stream {
    shards: BTreeMap<ShardId, FakeShard>,
    sequence: u64,
    registered: Option<Instant>,
    subscribers: HashMap<ShardId, (Instant, CancellationToken)>,
}

#[derive(Debug, Clone)]
pub struct FakeStreams {
    stream: Arc<Mutex<Stream>>,
    changes: Arc<watch::Sender<u64>>,
    pub subscribed: Arc<AtomicUsize>,
    pub read: Arc<AtomicUsize>,
    /// Subscriptions that never bring anything, until this is zero.
    pub stalled: Arc<AtomicUsize>,
    pub session: Duration,
    /// What plain reads fail with, while there is something.
    pub read_fails: Arc<Mutex<Option<Error>>>,
    /// What registrations fail with.
    pub register_fails: Arc<Mutex<Option<Error>>>,
    /// Until when a consumer that was registered before is being deleted.
    pub deleted_at: Arc<Mutex<Option<Instant>>>,
    /// What subscriptions fail with.
    pub subscribe_fails: Arc<Mutex<Option<Error>>>,
    /// The next so many plain reads find their iterator expired.
    pub expires: Arc<AtomicUsize>,
    /// Whether every second plain read is throttled.
    pub throttles: Arc<AtomicBool>,
}

pub fn seq(n: u64) -> SequenceNumber {
    SequenceNumber::new(n.to_string()).unwrap()
}

fn number(sequence: &SequenceNumber) -> u64 {
    sequence.as_str().parse().unwrap()
}

impl FakeStreams {
    /// A stream whose shards `s0`, `s1` … share the hash space evenly.
    pub fn new(shards: u128) -> Self {
        let mut stream = Stream { sequence: 100, ..Stream::default() };
        let width = u128::MAX / shards;
        for i in 0..shards {
            let end = if i + 1 == shards { u128::MAX } else { width * (i + 1) - 1 };
            let info = ShardInfo {
                id: format!("s{i}").as_str().into(),
                parents: vec![],
                range: HashRange::new(width * i, end),
                open: true,
                begins: None,
            };
            stream.add(info);
        }
        Self {
            stream: Arc::new(Mutex::new(stream)),
            changes: Arc::new(watch::channel(0).0),
            subscribed: Arc::default(),
            read: Arc::default(),
            stalled: Arc::default(),
            session: Duration::from_secs(300),
            read_fails: Arc::default(),
            register_fails: Arc::default(),
            deleted_at: Arc::default(),
            subscribe_fails: Arc::default(),
            expires: Arc::default(),
            throttles: Arc::default(),
        }
    }

    /// Puts a Kinesis record; returns its sequence number.
    pub fn put(&self, shard: &str, key: &str, data: impl Into<Bytes>) -> u64 {
        self.put_later(shard, key, data, 0)
    }

    /// The same, this many milliseconds after the time that it would otherwise arrive at.
    pub fn put_later(&self, shard: &str, key: &str, data: impl Into<Bytes>, later_ms: u64) -> u64 {
        let mut stream = self.stream.lock().unwrap();
        stream.sequence += 1;
        let n = stream.sequence;
        let shard = stream.shards.get_mut(&ShardId::from(shard)).unwrap();
        assert!(shard.info.open, "the shard is closed");
        shard.records.push(RawRecord {
            sequence_number: seq(n),
            partition_key: key.to_owned().into(),
            arrival_ms: 1_000_000 + n + later_ms,
            data: data.into(),
        });
        drop(stream);
        self.changed();
        n
    }

    pub fn split(&self, shard: &str, left: &str, right: &str) {
        let mut stream = self.stream.lock().unwrap();
        let range = stream.shards[&ShardId::from(shard)].info.range;
        let middle = range.start.0 + (range.end.0 - range.start.0) / 2;
        let child = |id: &str, start, end| ShardInfo {
            id: id.into(),
            parents: vec![shard.into()],
            range: HashRange::new(start, end),
            open: true,
            begins: None,
        };
        let children = vec![child(left, range.start.0, middle), child(right, middle + 1, range.end.0)];
        stream.become_(&[shard], children);
        drop(stream);
        self.changed();
    }

    pub fn merge(&self, left: &str, right: &str, into: &str) {
        let mut stream = self.stream.lock().unwrap();
        let range = |stream: &Stream, id: &str| stream.shards[&ShardId::from(id)].info.range;
        let (start, end) = (range(&stream, left).start, range(&stream, right).end);
        let child = ShardInfo {
            id: into.into(),
            parents: vec![left.into(), right.into()],
            range: HashRange { start, end },
            open: true,
            begins: None,
        };
        stream.become_(&[left, right], vec![child]);
        drop(stream);
        self.changed();
    }

    /// Removes a shard, as when its last record has expired.
    pub fn expire(&self, shard: &str) {
        self.stream.lock().unwrap().shards.remove(&ShardId::from(shard)).unwrap();
        self.changed();
    }

    /// Drops the shard's records up to this one, as when the trim horizon passes them.
    pub fn trim(&self, shard: &str, up_to: u64) {
        let mut stream = self.stream.lock().unwrap();
        let shard = stream.shards.get_mut(&ShardId::from(shard)).unwrap();
        shard.records.retain(|record| number(&record.sequence_number) > up_to);
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Everything after this sequence number, at most 10 records.
    fn after(&self, shard: &ShardId, after: u64) -> Result<(Event, u64), Error> {
        self.after_at_most(shard, after, 10)
    }

    fn after_at_most(&self, shard: &ShardId, after: u64, most: usize) -> Result<(Event, u64), Error> {
        let stream = self.stream.lock().unwrap();
        let found = stream.shards.get(shard).ok_or_else(|| Error::NotFound {
            operation: "SubscribeToShard",
            message: format!("no shard {shard}"),
        })?;
        let unread = found.records.iter().filter(|record| number(&record.sequence_number) > after);
        let records: Vec<RawRecord> = unread.clone().take(most).cloned().collect();
        let more = unread.count() > records.len();
        let ended = !found.info.open && !more;
        let reached = match (more, records.last()) {
            (true, Some(last)) => number(&last.sequence_number),
            _ => stream.sequence,
        };
        let event = Event {
            records,
            continuation: (!ended).then(|| seq(reached)),
            millis_behind: if more { 1000 } else { 0 },
            end: ended.then(|| found.children.clone()),
        };
        Ok((event, reached))
    }

    fn begin(&self, shard: &ShardId, from: &ReadFrom) -> u64 {
        let stream = self.stream.lock().unwrap();
        match from {
            ReadFrom::TrimHorizon => 0,
            ReadFrom::Latest => stream.sequence,
            ReadFrom::At(sequence) => number(sequence) - 1,
            ReadFrom::After(sequence) => number(sequence),
            ReadFrom::AtTimestamp(time) => {
                let ms = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
                let records = &stream.shards[shard].records;
                let first = records.iter().find(|record| record.arrival_ms >= ms);
                first.map_or(stream.sequence, |record| number(&record.sequence_number) - 1)
            }
        }
    }
}

impl Stream {
    fn add(&mut self, info: ShardInfo) {
        self.shards.insert(info.id.clone(), FakeShard { info, records: Vec::new(), children: Vec::new() });
    }

    fn become_(&mut self, parents: &[&str], children: Vec<ShardInfo>) {
        self.sequence += 1;
        for parent in parents {
            let parent = self.shards.get_mut(&ShardId::from(*parent)).unwrap();
            parent.info.open = false;
            parent.children = children.clone();
        }
        children.into_iter().for_each(|child| self.add(child));
    }
}

#[async_trait]
impl Streams for FakeStreams {
    async fn arn(&self) -> Result<String, Error> {
        Ok("arn:stream".to_owned())
    }

    async fn shards(&self, filter: ShardFilter) -> Result<Vec<ShardInfo>, Error> {
        let stream = self.stream.lock().unwrap();
        let all = stream.shards.values().map(|shard| shard.info.clone());
        Ok(match filter {
            ShardFilter::AtLatest => all.filter(|shard| shard.open).collect(),
            ShardFilter::AtTrimHorizon | ShardFilter::AtTimestamp(_) => {
                let oldest = |shard: &ShardInfo| shard.parents.iter().all(|p| !stream.shards.contains_key(p));
                all.filter(oldest).collect()
            }
            ShardFilter::All => all.collect(),
        })
    }

    async fn consumer(&self, _: &str, _: &ConsumerId) -> Result<Option<Registered>, Error> {
        if self.deleted_at.lock().unwrap().is_some_and(|at| Instant::now() < at) {
            let state = Registration::Deleting;
            return Ok(Some(Registered { arn: "arn:consumer".to_owned(), state }));
        }
        let registered = self.stream.lock().unwrap().registered;
        Ok(registered.map(|since| Registered {
            arn: "arn:consumer".to_owned(),
            state: match since.elapsed() > Duration::from_secs(2) {
                true => Registration::Active,
                false => Registration::Creating,
            },
        }))
    }

    async fn register(&self, _: &str, _: &str) -> Result<Registered, Error> {
        if let Some(error) = self.register_fails.lock().unwrap().clone() {
            return Err(error);
        }
        let mut stream = self.stream.lock().unwrap();
        if stream.registered.is_some() {
            return Err(Error::InUse { operation: "RegisterStreamConsumer", message: "exists".to_owned() });
        }
        stream.registered = Some(Instant::now());
        Ok(Registered { arn: "arn:consumer".to_owned(), state: Registration::Creating })
    }

    async fn subscribe(&self, _: &str, shard: &ShardId, from: &ReadFrom) -> Result<Subscription, Error> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if let Some(error) = self.subscribe_fails.lock().unwrap().clone() {
            return Err(error);
        }
        self.after(shard, u64::MAX - 1)?;
        let superseded = CancellationToken::new();
        {
            let mut stream = self.stream.lock().unwrap();
            if let Some((since, before)) = stream.subscribers.get(shard) {
                if since.elapsed() < Duration::from_secs(5) {
                    return Err(Error::InUse {
                        operation: "SubscribeToShard",
                        message: "another subscription is younger than five seconds".to_owned(),
                    });
                }
                before.cancel();
            }
            stream.subscribers.insert(shard.clone(), (Instant::now(), superseded.clone()));
        }
        self.subscribed.fetch_add(1, Ordering::SeqCst);
        let stalled = self.stalled.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let position = self.begin(shard, from);
        let ends = Instant::now() + self.session;
        let state = (self.clone(), shard.clone(), position, superseded, self.changes.subscribe());
        if stalled.is_ok() {
            return Ok(futures_util::stream::pending().boxed());
        }
        let events = futures_util::stream::unfold(Some((state, true)), move |state| async move {
            let ((fake, shard, position, superseded, mut changes), first) = state?;
            let deadline = (Instant::now() + Duration::from_secs(5)).min(ends);
            loop {
                if superseded.is_cancelled() {
                    let message = "superseded".to_owned();
                    return Some((Err(Error::InUse { operation: "SubscribeToShard", message }), None));
                }
                if Instant::now() >= ends {
                    return None;
                }
                changes.mark_unchanged();
                let (event, reached) = match fake.after(&shard, position) {
                    Ok(found) => found,
                    Err(error) => return Some((Err(error), None)),
                };
                let idle = event.records.is_empty() && event.end.is_none();
                if !idle || first || Instant::now() >= deadline {
                    let ended = event.end.is_some();
                    let next = ((fake, shard, reached, superseded, changes), false);
                    return Some((Ok(event), (!ended).then_some(next)));
                }
                tokio::select! {
                    _ = timeout(deadline - Instant::now(), changes.changed()) => {}
                    () = superseded.cancelled() => {}
                }
            }
        });
        Ok(events.boxed())
    }

    async fn iterator(&self, shard: &ShardId, from: &ReadFrom) -> Result<String, Error> {
        self.after(shard, u64::MAX - 1)?;
        Ok(format!("{shard}|{}", self.begin(shard, from)))
    }

    async fn records(&self, iterator: &str, most: usize) -> Result<Page, Error> {
        let before = self.read.fetch_add(1, Ordering::SeqCst);
        if self.throttles.load(Ordering::SeqCst) && before % 2 == 1 {
            return Err(Error::Throttled { operation: "GetRecords", message: "slow down".to_owned() });
        }
        if let Some(error) = self.read_fails.lock().unwrap().clone() {
            return Err(error);
        }
        let expired = self.expires.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if expired.is_ok() {
            return Err(Error::ExpiredIterator { operation: "GetRecords" });
        }
        let (shard, after) = iterator.split_once('|').unwrap();
        let (mut event, reached) = self.after_at_most(&shard.into(), after.parse().unwrap(), most.min(10))?;
        event.continuation = None;
        let next = event.end.is_none().then(|| format!("{shard}|{reached}"));
        Ok(Page { event, next })
    }
}
