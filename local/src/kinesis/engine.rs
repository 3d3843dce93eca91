//! The engine: all streams of one account and region, behind a synchronous API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use super::account::Account;
use super::clock::{Clock, SystemClock};
use super::error::Error;
use super::memory::Memory;
use super::rates::Rates;
use super::reader::{Position, ReadBatch, ReadLimits, ShardReader, StartPosition};
use super::record::parse_shard_id;
use super::settings::{Settings, millis};
use super::shard::Shard;
use super::store::Store;
use super::stream::{
    CreateStream, HOUR_MS, ShardInfo, Stream, StreamMode, StreamStatus, StreamSummary, could_not_find,
    describe, stream_not_found,
};
use super::sync::{read, write};
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
    account: Mutex<Account>,
    /// Where everything is kept, if it is.
    store: OnceLock<Store>,
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
            account: Mutex::default(),
            store: OnceLock::new(),
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

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn account(&self) -> &Mutex<Account> {
        &self.account
    }

    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.get()
    }

    /// Keeps every change from now on.
    pub(crate) fn keep_in(&self, store: Store) {
        // A second store is dropped: an engine is opened once.
        let _ = self.store.set(store);
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
        // Seen: kinesalite's tests of CreateStream.
        if streams.contains_key(&request.name) {
            return Err(Error::ResourceInUse(format!(
                "Stream {} under account {} already exists.",
                request.name, self.settings.account_id
            )));
        }
        // API_CreateStream: no more than five streams in CREATING at any time; LimitExceededException. Words: ours.
        let creating = |stream: &Arc<Stream>| stream.control().status(now_ms) == Some(StreamStatus::Creating);
        if let Some(limit) = self.settings.streams_creating
            && streams.values().filter(|stream| creating(stream)).count() >= limit
        {
            return Err(Error::LimitExceeded(format!(
                "Account {} already has {limit} streams in state CREATING, its limit; wait until one is ACTIVE.",
                self.settings.account_id
            )));
        }
        match request.mode {
            StreamMode::Provisioned => {
                let current: usize = streams.values().map(|stream| stream.map().open().len()).sum();
                self.check_shard_limit(current, request.shards as usize)?;
            }
            StreamMode::OnDemand => {
                let on_demand =
                    streams.values().filter(|stream| stream.control().mode == StreamMode::OnDemand);
                self.check_on_demand(on_demand.count())?;
            }
        }
        let stream = Arc::new(Stream::new(request, &self.settings, now_ms));
        // Noted before anyone can put to it.
        let mark = self.note(&stream, &stream.control(), &stream.map());
        streams.insert(stream.name().to_owned(), stream);
        drop(streams);
        self.flush(mark)
    }

    /// Refuses when the account has as many on-demand streams as it may.
    pub(crate) fn check_on_demand_limit(&self) -> Result<(), Error> {
        let streams = read(&self.streams);
        let on_demand = streams.values().filter(|stream| stream.control().mode == StreamMode::OnDemand);
        self.check_on_demand(on_demand.count())
    }

    fn check_on_demand(&self, current: usize) -> Result<(), Error> {
        let limit = self.settings.on_demand_stream_limit;
        if current < limit {
            return Ok(());
        }
        // The guide's page of quotas and limits; API_CreateStream: LimitExceededException. Words: ours.
        Err(Error::LimitExceeded(format!(
            "Account {} in {} already has {current} on-demand streams, its limit; delete one, or create the stream \
             in PROVISIONED mode.",
            self.settings.account_id, self.settings.region
        )))
    }

    /// Refuses when `added` more shards would exceed the account's limit.
    pub(crate) fn check_shard_limit(&self, current: usize, added: usize) -> Result<(), Error> {
        let limit = self.settings.shard_limit as usize;
        if current.saturating_add(added) <= limit {
            return Ok(());
        }
        // Seen: kinesalite's tests of CreateStream and SplitShard.
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
            // API_DeleteStream: EnforceConsumerDeletion, else ResourceInUseException. Words: ours.
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
        let mark = self.note_deleted(&stream);
        self.sweep_deleted(now_ms);
        self.flush(mark)
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
        {
            let mut control = stream.control();
            control.require_active(&stream, now_ms)?;
            control.enter(StreamStatus::Updating, now_ms, millis(self.settings.transition));
            stream.set_retention_ms(hours.saturating_mul(HOUR_MS));
        }
        self.keep(&stream)
    }

    /// Every stream, whatever its state.
    pub(crate) fn streams(&self) -> Vec<Arc<Stream>> {
        read(&self.streams).values().cloned().collect()
    }

    pub(crate) fn insert(&self, stream: Stream) {
        write(&self.streams).insert(stream.name().to_owned(), Arc::new(stream));
    }

    pub(crate) fn remove(&self, name: &str) {
        write(&self.streams).remove(name);
    }

    /// The stream with this name, whatever its state.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Stream>> {
        read(&self.streams).get(name).cloned()
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
            if let Err(error) = self.scale(&stream, now_ms) {
                tracing::error!(stream = stream.name(), %error, "an on-demand stream could not be resharded");
            }
        }
        self.memory.report(now_ms, self.settings.max_held_bytes);
    }

    /// Trims what was read from disk to [`Settings::max_held_bytes`].
    pub(crate) fn trim_to_bound(&self) {
        if let Some(max) = self.settings.max_held_bytes {
            self.memory.put(self, max, max);
        }
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

    // ---- shards

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

    /// A reader for `GetShardIterator` and `GetRecords`, which speak of the shard whatever is not there.
    pub(crate) fn reader_of_shard(&self, stream: &str, shard_id: &str) -> Result<ShardReader, Error> {
        self.reader(stream, shard_id).map_err(|error| match (error, parse_shard_id(shard_id)) {
            // Seen: kinesalite's tests of GetShardIterator, GetRecords and CreateStream: also for a stream that is
            // unknown, being created or deleted, but only for what can be the name of a shard.
            (Error::ResourceNotFound(_), Some(index)) => Error::ResourceNotFound(format!(
                "Shard {} in stream {stream} under account {} does not exist",
                super::record::shard_id(index),
                self.settings.account_id
            )),
            (Error::ResourceNotFound(_), None) => could_not_find(shard_id, stream, &self.settings.account_id),
            (other, _) => other,
        })
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

    pub(crate) fn new_shard(&self, identity: super::shard::Identity) -> Arc<Shard> {
        Arc::new(Shard::new(identity, self.settings.write_limits))
    }
}
