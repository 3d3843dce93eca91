//! The engine: all streams of one account and region, behind a synchronous API.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use super::arn;
use super::clock::{Clock, SystemClock};
use super::consumer::{Claim, Consumer, ConsumerInfo};
use super::error::Error;
use super::memory::Memory;
use super::rates::Rates;
use super::reader::{Position, ReadBatch, ReadLimits, ShardReader, StartPosition};
use super::record::{Put, PutEntry};
use super::settings::{Settings, millis};
use super::shard::{RECORD_COST, Refusal, Shard};
use super::stream::{
    CreateStream, HOUR_MS, ShardInfo, Stream, StreamMode, StreamStatus, StreamSummary, describe,
    stream_not_found,
};
use super::sync::{read, write};
use super::target;
use crate::faults::Faults;

/// All streams. Every method returns at once; puts to different shards do not wait for each other.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    clock: Arc<dyn Clock>,
    streams: RwLock<BTreeMap<String, Arc<Stream>>>,
    faults: Faults,
    memory: Memory,
    rates: Rates,
}

impl Engine {
    /// An empty engine on the machine's clock.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with_clock(settings, Arc::new(SystemClock))
    }

    /// An empty engine on `clock`.
    #[must_use]
    pub fn with_clock(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self {
            settings,
            clock,
            streams: RwLock::default(),
            faults: Faults::default(),
            memory: Memory::default(),
            rates: Rates::default(),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Now, by the injected clock, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The faults in force.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Shares the faults of a stack.
    #[must_use]
    pub(crate) fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// How often operations have been called.
    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    // ---- streams

    /// Creates a stream.
    ///
    /// # Errors
    /// `ResourceInUse` when the name is taken, `LimitExceeded` over the shard limit.
    pub fn create_stream(&self, request: CreateStream) -> Result<(), Error> {
        let now_ms = self.now_ms();
        self.sweep_deleted(now_ms);
        let mut streams = write(&self.streams);
        if streams.contains_key(&request.name) {
            return Err(Error::ResourceInUse(format!(
                "Stream {} under account {} already exists.",
                request.name, self.settings.account_id
            )));
        }
        if request.mode == StreamMode::Provisioned {
            let current: usize = streams.values().map(|stream| stream.map().open().len()).sum();
            self.check_shard_limit(current, request.shards as usize)?;
        }
        let stream = Arc::new(Stream::new(request, &self.settings, now_ms));
        streams.insert(stream.name().to_owned(), stream);
        Ok(())
    }

    /// Refuses when `added` more shards would exceed the account's limit.
    pub(crate) fn check_shard_limit(&self, current: usize, added: usize) -> Result<(), Error> {
        let limit = self.settings.shard_limit as usize;
        if current.saturating_add(added) <= limit {
            return Ok(());
        }
        Err(Error::LimitExceeded(format!(
            "This request would exceed the shard limit for the account {} in {}. Current shard count for the \
             account: {current}. Limit: {limit}. Number of additional shards that would have resulted from this \
             request: {added}. Refer to the AWS Service Limits page \
             (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current limits and how to \
             request higher limits.",
            self.settings.account_id, self.settings.region
        )))
    }

    /// Deletes a stream; subscriptions and readers end.
    ///
    /// # Errors
    /// `ResourceNotFound`; `ResourceInUse` when it has consumers and `with_consumers` is false.
    pub fn delete_stream(&self, name: &str, with_consumers: bool) -> Result<(), Error> {
        let stream = self.stream(name)?;
        let now_ms = self.now_ms();
        {
            let mut control = stream.control();
            if !with_consumers && !control.consumers.is_empty() {
                return Err(Error::ResourceInUse(format!(
                    "Stream {name} under account {} has enhanced fan-out consumers; deregister them, or set \
                     EnforceConsumerDeletion.",
                    self.settings.account_id
                )));
            }
            control.enter(StreamStatus::Deleting, now_ms, millis(self.settings.transition));
        }
        stream.set_deleted();
        self.sweep_deleted(now_ms);
        Ok(())
    }

    /// Describes a stream in any state.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn describe_stream(&self, name: &str) -> Result<StreamSummary, Error> {
        let stream = self.stream(name)?;
        stream.expire(self.now_ms());
        Ok(stream.summary(self.now_ms()))
    }

    /// All streams, by name.
    #[must_use]
    pub fn list_streams(&self) -> Vec<StreamSummary> {
        let now_ms = self.now_ms();
        self.sweep_deleted(now_ms);
        read(&self.streams).values().map(|stream| stream.summary(now_ms)).collect()
    }

    /// Open shards of all streams.
    pub(crate) fn open_shards(&self) -> usize {
        read(&self.streams).values().map(|stream| stream.map().open().len()).sum()
    }

    /// Sets the retention of a stream, in whole hours. Records older than it are trimmed.
    ///
    /// # Errors
    /// `ResourceNotFound`, or `ResourceInUse` while the stream is not ACTIVE.
    pub fn set_retention_hours(&self, name: &str, hours: i64) -> Result<(), Error> {
        let stream = self.stream(name)?;
        let now_ms = self.now_ms();
        let mut control = stream.control();
        control.require_active(&stream, now_ms)?;
        control.enter(StreamStatus::Updating, now_ms, millis(self.settings.transition));
        stream.set_retention_ms(hours.saturating_mul(HOUR_MS));
        Ok(())
    }

    /// Every stream, whatever its state.
    pub(crate) fn streams(&self) -> Vec<Arc<Stream>> {
        read(&self.streams).values().cloned().collect()
    }

    pub(crate) fn insert(&self, stream: Stream) {
        write(&self.streams).insert(stream.name().to_owned(), Arc::new(stream));
    }

    /// The stream with this name, in any state but gone.
    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Stream>, Error> {
        let found = read(&self.streams).get(name).cloned();
        let Some(stream) = found else {
            return Err(stream_not_found(name, &self.settings.account_id));
        };
        if stream.is_deleted() && stream.control().status(self.now_ms()).is_none() {
            return Err(stream.not_found());
        }
        Ok(stream)
    }

    /// The stream with this name, if records can be put to it and read from it.
    pub(crate) fn usable(&self, name: &str) -> Result<Arc<Stream>, Error> {
        let stream = self.stream(name)?;
        if stream.is_deleted() {
            return Err(stream.not_found());
        }
        // The service answers "not found" for data calls while a stream is being created.
        let creating = stream.control().status(self.now_ms()) == Some(StreamStatus::Creating);
        if creating { Err(stream.not_found()) } else { Ok(stream) }
    }

    fn sweep_deleted(&self, now_ms: i64) {
        let gone = |stream: &Stream| stream.is_deleted() && stream.control().status(now_ms).is_none();
        let any = read(&self.streams).values().any(|stream| gone(stream));
        if any {
            write(&self.streams).retain(|_, stream| !gone(stream));
        }
    }

    /// Trims every shard to its stream's retention. Reads and puts trim the shard they touch; this is for idle ones.
    pub fn sweep(&self) {
        let now_ms = self.now_ms();
        self.sweep_deleted(now_ms);
        for stream in self.streams() {
            stream.sweep(now_ms);
        }
        self.memory.report(now_ms, self.settings.max_held_bytes);
    }

    /// How many records were trimmed before their retention was over, to keep [`Settings::max_held_bytes`].
    #[must_use]
    pub fn trimmed_early(&self) -> u64 {
        self.memory.trimmed()
    }

    /// Payload and partition key bytes, and records, in all shards.
    #[must_use]
    pub fn held(&self) -> (u64, usize) {
        let mut total = (0, 0);
        for stream in self.streams() {
            for shard in stream.map().all() {
                let (bytes, records) = shard.held();
                total = (total.0 + bytes, total.1 + records);
            }
        }
        total
    }

    // ---- records

    /// Puts one record.
    ///
    /// # Errors
    /// `ResourceNotFound`, `Validation` for a record too large, `ThroughputExceeded` when the shard throttles.
    pub fn put(&self, stream: &str, entry: PutEntry) -> Result<Put, Error> {
        let mut answers = self.put_all("PutRecord", stream, vec![entry])?;
        answers.pop().unwrap_or_else(|| Err(Error::Internal("a put was not answered".to_owned())))
    }

    /// Puts records in order; each is answered for itself. Readers of a shard are woken once.
    ///
    /// # Errors
    /// `ResourceNotFound` or `Validation` for the call; `ThroughputExceeded` for single records.
    pub fn put_batch(&self, stream: &str, entries: Vec<PutEntry>) -> Result<Vec<Result<Put, Error>>, Error> {
        self.put_all("PutRecords", stream, entries)
    }

    fn put_all(
        &self,
        operation: &str,
        stream: &str,
        entries: Vec<PutEntry>,
    ) -> Result<Vec<Result<Put, Error>>, Error> {
        let stream = self.usable(stream)?;
        let max = stream.control().max_record_kib as usize * 1_024;
        if let Some((at, entry)) = entries.iter().enumerate().find(|(_, entry)| entry.size() > max) {
            return Err(Error::Validation(format!(
                "Record {} of the request is {} bytes with its partition key: the maximum of stream {} is {max} \
                 bytes; send less, or create the stream with a larger MaxRecordSizeInKiB.",
                at + 1,
                entry.size(),
                stream.name()
            )));
        }
        let faults = self.faults.of_entries(operation, stream.name());
        let now_ms = self.now_ms();
        let horizon_ms = stream.horizon(now_ms);
        let cost = |entry: &PutEntry| entry.size() as u64 + RECORD_COST;
        let bound = self.settings.max_held_bytes.map(|max| (max, entries.iter().map(cost).sum()));
        // Held while storing, so that no shard closes under a put.
        let map = stream.map();
        let mut touched = vec![false; map.open().len()];
        let answers = entries
            .into_iter()
            .map(|entry| {
                let at = map.place_of(entry.hash());
                let shard = map
                    .open()
                    .get(at)
                    .ok_or_else(|| Error::Internal("a stream without shards".to_owned()))?;
                if !faults.is_empty() {
                    let id = shard.id();
                    let refused = faults.iter().find_map(|rule| rule.entry(&id, &entry.partition_key));
                    if let Some(injected) = refused {
                        return Err(target::entry_error(injected, &id, &stream));
                    }
                }
                match shard.put(entry, now_ms, horizon_ms) {
                    Ok(sequence) => {
                        touched[at] = true;
                        Ok(Put { shard_index: shard.identity().index, sequence })
                    }
                    Err(Refusal::Throttled) => Err(rate_exceeded(&shard.id(), &stream)),
                    Err(Refusal::Closed) => {
                        Err(Error::Internal(format!("{} is closed but mapped", shard.id())))
                    }
                }
            })
            .collect();
        for (shard, _) in map.open().iter().zip(touched).filter(|(_, touched)| *touched) {
            shard.wake();
        }
        drop(map);
        if let Some((max, put)) = bound {
            self.memory.put(self, put, max);
        }
        Ok(answers)
    }

    /// All shards that hold or take records, parents before children.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn shards(&self, stream: &str) -> Result<Vec<ShardInfo>, Error> {
        let stream = self.stream(stream)?;
        stream.expire(self.now_ms());
        let map = stream.map();
        Ok(map.all().iter().map(|shard| describe(shard)).collect())
    }

    /// A reader of one shard, which spares the look-ups of the three methods below.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn reader(&self, stream: &str, shard_id: &str) -> Result<ShardReader, Error> {
        let stream = self.usable(stream)?;
        stream.expire(self.now_ms());
        let shard = stream.shard(shard_id)?;
        Ok(ShardReader { stream, shard, clock: Arc::clone(&self.clock) })
    }

    /// See [`ShardReader::position`].
    ///
    /// # Errors
    /// As there, and `ResourceNotFound`.
    pub fn position(&self, stream: &str, shard_id: &str, start: StartPosition) -> Result<Position, Error> {
        self.reader(stream, shard_id)?.position(start)
    }

    /// See [`ShardReader::read`].
    ///
    /// # Errors
    /// As there, and `ResourceNotFound`.
    pub fn read(
        &self,
        stream: &str,
        shard_id: &str,
        position: Position,
        limits: ReadLimits,
    ) -> Result<ReadBatch, Error> {
        self.reader(stream, shard_id)?.read(position, limits)
    }

    /// See [`ShardReader::wait_for_more`].
    ///
    /// # Errors
    /// As there, and `ResourceNotFound`.
    pub async fn wait_for_more(&self, stream: &str, shard_id: &str, position: Position) -> Result<(), Error> {
        self.reader(stream, shard_id)?.wait_for_more(position).await
    }

    // ---- consumers

    /// Registers an enhanced fan-out consumer.
    ///
    /// # Errors
    /// `ResourceInUse` when the name is taken, `LimitExceeded` over the stream's limit.
    pub fn register_consumer(&self, stream: &str, name: &str) -> Result<ConsumerInfo, Error> {
        let stream = self.usable(stream)?;
        let now_ms = self.now_ms();
        let mut control = stream.control();
        if control.consumers.contains_key(name) {
            return Err(Error::ResourceInUse(format!(
                "Consumer {name} under stream {} already exists for account {}.",
                stream.name(),
                self.settings.account_id
            )));
        }
        if control.consumers.len() >= self.settings.consumers_per_stream {
            return Err(Error::LimitExceeded(format!(
                "Stream {} under account {} already has {} consumers, its limit; deregister one first.",
                stream.name(),
                self.settings.account_id,
                control.consumers.len()
            )));
        }
        let creating = control.consumers.values().filter(|consumer| now_ms < consumer.active_ms).count();
        if let Some(limit) = self.settings.consumers_creating
            && creating >= limit
        {
            return Err(Error::LimitExceeded(format!(
                "Stream {} under account {} already has {creating} consumers in state CREATING, its limit; wait until \
                 one is ACTIVE.",
                stream.name(),
                self.settings.account_id
            )));
        }
        let consumer_arn = arn::consumer_arn(stream.arn(), name, now_ms);
        let active_ms = now_ms.saturating_add(millis(self.settings.transition));
        let consumer = Arc::new(Consumer::new(name.to_owned(), consumer_arn, now_ms, active_ms));
        let info = stream.describe_consumer(&consumer, now_ms);
        control.consumers.insert(name.to_owned(), consumer);
        Ok(info)
    }

    /// Describes a consumer by the names of its stream and its own.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn describe_consumer(&self, stream: &str, name: &str) -> Result<ConsumerInfo, Error> {
        let stream = self.stream(stream)?;
        let consumer = stream.consumer(name)?;
        Ok(stream.describe_consumer(&consumer, self.now_ms()))
    }

    /// The consumers of a stream, by name.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn list_consumers(&self, stream: &str) -> Result<Vec<ConsumerInfo>, Error> {
        let stream = self.stream(stream)?;
        let now_ms = self.now_ms();
        let control = stream.control();
        Ok(control.consumers.values().map(|consumer| stream.describe_consumer(consumer, now_ms)).collect())
    }

    /// Deregisters a consumer; its subscriptions end.
    ///
    /// # Errors
    /// `ResourceNotFound`.
    pub fn deregister_consumer(&self, stream: &str, name: &str) -> Result<(), Error> {
        let stream = self.stream(stream)?;
        let consumer = stream.consumer(name)?;
        stream.control().consumers.remove(name);
        consumer.end();
        Ok(())
    }

    /// Claims a shard for a consumer and opens it for reading.
    pub(crate) fn claim(
        &self,
        stream: &str,
        consumer: &str,
        shard_id: &str,
    ) -> Result<(ShardReader, Claim), Error> {
        let reader = self.reader(stream, shard_id)?;
        let consumer = reader.stream.consumer(consumer)?;
        let now_ms = self.now_ms();
        if now_ms < consumer.active_ms {
            return Err(Error::ResourceInUse(format!("Consumer {} is not ACTIVE yet.", consumer.arn)));
        }
        let hold_ms = millis(self.settings.subscription_hold);
        let interval_ms = millis(self.settings.subscribe_interval);
        let claim = consumer.claim(reader.shard.identity().index, shard_id, now_ms, hold_ms, interval_ms)?;
        Ok((reader, claim))
    }

    pub(crate) fn new_shard(&self, identity: super::shard::Identity) -> Arc<Shard> {
        Arc::new(Shard::new(identity, self.settings.write_limits))
    }
}

/// A shard takes or gives no more for now, in the service's words.
pub(crate) fn rate_exceeded(shard_id: &str, stream: &Stream) -> Error {
    Error::ThroughputExceeded(format!(
        "Rate exceeded for shard {shard_id} in stream {} under account {}.",
        stream.name(),
        stream.account_id()
    ))
}
