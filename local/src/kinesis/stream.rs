//! One stream: its state, its settings, its consumers and its shards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::arn;
use super::codec::Timestamp;
use super::consumer::{Consumer, ConsumerInfo};
use super::error::Error;
use super::features::Features;
use super::hash::HashRange;
use super::sequence::SequenceNumber;
use super::settings::{Settings, millis};
use super::shard::Shard;
use super::shardmap::ShardMap;
use super::sync::{lock, read, write};

/// The largest record of a stream that does not ask for more, in KiB.
pub const DEFAULT_MAX_RECORD_KIB: u32 = 1_024;

/// How many shards a new on-demand stream has.
pub const ON_DEMAND_SHARDS: u32 = 4;

/// How the capacity of a stream is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamMode {
    /// By its number of shards.
    #[default]
    Provisioned,
    /// By the service.
    OnDemand,
}

impl StreamMode {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioned => "PROVISIONED",
            Self::OnDemand => "ON_DEMAND",
        }
    }
}

/// The state of a stream or a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    /// Not usable yet.
    Creating,
    /// Usable.
    Active,
    /// Usable, and being resharded or changed.
    Updating,
    /// Going away.
    Deleting,
}

impl StreamStatus {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "CREATING",
            Self::Active => "ACTIVE",
            Self::Updating => "UPDATING",
            Self::Deleting => "DELETING",
        }
    }
}

/// A stream to create.
#[derive(Debug, Clone, Default)]
pub struct CreateStream {
    /// 1 to 128 of `a-z A-Z 0-9 _ . -`.
    pub name: String,
    /// How many shards; an on-demand stream has four whatever this says.
    pub shards: u32,
    /// How its capacity is set.
    pub mode: StreamMode,
    /// Up to 50 tags.
    pub tags: BTreeMap<String, String>,
    /// The largest record in KiB, 1,024 to 10,240. Default: 1,024.
    pub max_record_kib: Option<u32>,
    /// The MiB/s that an on-demand stream takes from the start: it has a shard for each. Default: none asked for.
    pub warm_mibps: Option<u32>,
}

/// What is known of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its name.
    pub shard_id: String,
    /// The hash keys that it takes.
    pub range: HashRange,
    /// The shard that it was split from, or the first of those it was merged from.
    pub parent: Option<String>,
    /// The second of the shards it was merged from.
    pub adjacent_parent: Option<String>,
    /// Where its sequence numbers begin.
    pub starting_sequence: SequenceNumber,
    /// Where they end, once it is closed.
    pub ending_sequence: Option<SequenceNumber>,
    /// When it was opened, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it was closed.
    pub closed_ms: Option<i64>,
}

/// What is known of a stream.
#[derive(Debug, Clone)]
pub struct StreamSummary {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its state.
    pub status: StreamStatus,
    /// How its capacity is set.
    pub mode: StreamMode,
    /// How long records are kept, in whole hours as the protocol counts (rounded up).
    pub retention_hours: i64,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// How many shards take records.
    pub open_shards: usize,
    /// How many consumers are registered.
    pub consumers: usize,
    /// Its largest record, in KiB.
    pub max_record_kib: u32,
    /// The key that encrypts its new records.
    pub key_id: Option<String>,
    /// The shard-level metrics that are switched on.
    pub metrics: Vec<String>,
    /// The warm throughput that was asked for, in MiB/s.
    pub warm_mibps: Option<u32>,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    name: String,
    arn: String,
    account_id: String,
    created_ms: i64,
    control: Mutex<Control>,
    map: RwLock<ShardMap>,
    retention_ms: AtomicI64,
    deleted: AtomicBool,
    /// Whether new records are encrypted.
    encrypted: AtomicBool,
    /// When the load of its shards began to be counted.
    period_ms: AtomicI64,
}

/// What control operations change.
#[derive(Debug)]
pub(crate) struct Control {
    status: StreamStatus,
    /// When `status` passes into the next.
    settles_ms: i64,
    pub(crate) mode: StreamMode,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) consumers: BTreeMap<String, Arc<Consumer>>,
    pub(crate) max_record_kib: u32,
    pub(crate) features: Features,
}

impl Stream {
    pub(crate) fn new(request: CreateStream, settings: &Settings, now_ms: i64) -> Self {
        let shards = match request.mode {
            StreamMode::Provisioned => request.shards,
            StreamMode::OnDemand => ON_DEMAND_SHARDS.max(request.warm_mibps.unwrap_or(0)),
        };
        let control = Control {
            status: StreamStatus::Creating,
            settles_ms: now_ms.saturating_add(millis(settings.transition)),
            mode: request.mode,
            tags: request.tags,
            consumers: BTreeMap::new(),
            max_record_kib: request.max_record_kib.unwrap_or(DEFAULT_MAX_RECORD_KIB),
            features: Features { warm_mibps: request.warm_mibps, ..Features::default() },
        };
        let map = ShardMap::new(shards, now_ms, settings.write_limits);
        Self::restore(request.name, settings, now_ms, control, map, millis(settings.retention))
    }

    pub(crate) fn restore(
        name: String,
        settings: &Settings,
        created_ms: i64,
        control: Control,
        map: ShardMap,
        retention_ms: i64,
    ) -> Self {
        Self {
            arn: arn::stream_arn(settings, &name),
            account_id: settings.account_id.clone(),
            name,
            created_ms,
            encrypted: AtomicBool::new(control.features.key_id().is_some()),
            period_ms: AtomicI64::new(created_ms),
            control: Mutex::new(control),
            map: RwLock::new(map),
            retention_ms: AtomicI64::new(retention_ms),
            deleted: AtomicBool::new(false),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn arn(&self) -> &str {
        &self.arn
    }

    pub(crate) fn account_id(&self) -> &str {
        &self.account_id
    }

    pub(crate) fn created_ms(&self) -> i64 {
        self.created_ms
    }

    pub(crate) fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    pub(crate) fn map(&self) -> RwLockReadGuard<'_, ShardMap> {
        read(&self.map)
    }

    pub(crate) fn map_mut(&self) -> RwLockWriteGuard<'_, ShardMap> {
        write(&self.map)
    }

    pub(crate) fn retention_ms(&self) -> i64 {
        self.retention_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_retention_ms(&self, ms: i64) {
        self.retention_ms.store(ms, Ordering::Relaxed);
    }

    /// Records that arrived before this are trimmed.
    pub(crate) fn horizon(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.retention_ms())
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Whether new records are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.encrypted.load(Ordering::Relaxed)
    }

    pub(crate) fn set_encrypted(&self, encrypted: bool) {
        self.encrypted.store(encrypted, Ordering::Relaxed);
    }

    /// When the period of counting load began that is over now, to the one caller that is first.
    pub(crate) fn begin_period(&self, now_ms: i64, length_ms: i64) -> Option<i64> {
        let since_ms = self.period_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(since_ms) < length_ms {
            return None;
        }
        self.period_ms.compare_exchange(since_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).ok()
    }

    /// Wakes and ends everyone who reads or subscribes.
    pub(crate) fn set_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        for consumer in self.control().consumers.values() {
            consumer.end();
        }
        for shard in self.map().all() {
            shard.wake();
        }
    }

    pub(crate) fn not_found(&self) -> Error {
        stream_not_found(&self.name, &self.account_id)
    }

    /// Refuses while it is being created or deleted. API_ListShards: ResourceInUseException; the KCL waits on it until
    /// the stream is ACTIVE or UPDATING. Words: those of the operations that want it ACTIVE.
    pub(crate) fn require_listable(&self, now_ms: i64) -> Result<(), Error> {
        let control = self.control();
        match control.status(now_ms) {
            Some(StreamStatus::Updating) => Ok(()),
            _ => control.require_active(self, now_ms),
        }
    }

    /// Tells it from an earlier or a later stream of the same name, to the second, as clients show the time.
    pub(crate) fn require_created(&self, at: Timestamp) -> Result<(), Error> {
        let same = at.0.div_euclid(1_000) == self.created_ms().div_euclid(1_000);
        if same { Ok(()) } else { Err(self.not_found()) }
    }

    /// The shard with this name.
    pub(crate) fn shard(&self, id: &str) -> Result<Arc<Shard>, Error> {
        self.map().find(id).cloned().ok_or_else(|| could_not_find(id, &self.name, &self.account_id))
    }

    /// The consumer with this name. API_DescribeStreamConsumer: ResourceNotFoundException. Words: ours.
    pub(crate) fn consumer(&self, name: &str) -> Result<Arc<Consumer>, Error> {
        self.control().consumers.get(name).cloned().ok_or_else(|| {
            Error::ResourceNotFound(format!(
                "Consumer {name}, account {} not found for stream {}.",
                self.account_id, self.name
            ))
        })
    }

    pub(crate) fn describe_consumer(&self, consumer: &Consumer, now_ms: i64) -> ConsumerInfo {
        ConsumerInfo {
            name: consumer.name.clone(),
            arn: consumer.arn.clone(),
            stream_arn: self.arn.clone(),
            status: if now_ms >= consumer.active_ms { StreamStatus::Active } else { StreamStatus::Creating },
            created_ms: consumer.created_ms,
        }
    }

    pub(crate) fn summary(&self, now_ms: i64) -> StreamSummary {
        let control = self.control();
        StreamSummary {
            name: self.name.clone(),
            arn: self.arn.clone(),
            status: control.status(now_ms).unwrap_or(StreamStatus::Deleting),
            mode: control.mode,
            retention_hours: (self.retention_ms() + HOUR_MS - 1).div_euclid(HOUR_MS),
            created_ms: self.created_ms,
            open_shards: self.map().open().len(),
            consumers: control.consumers.len(),
            max_record_kib: control.max_record_kib,
            key_id: control.features.key_id().map(str::to_owned),
            metrics: control.features.metrics.iter().cloned().collect(),
            warm_mibps: control.features.warm_mibps,
        }
    }

    /// Forgets what retention has taken.
    pub(crate) fn expire(&self, now_ms: i64) {
        let horizon_ms = self.horizon(now_ms);
        let has_expired = self
            .map()
            .all()
            .iter()
            .any(|shard| shard.closed().is_some_and(|closed| closed.at_ms < horizon_ms));
        if has_expired {
            self.map_mut().expire(horizon_ms);
        }
    }

    /// Drops records older than the retention in every shard, written to or not.
    pub(crate) fn sweep(&self, now_ms: i64) {
        let horizon_ms = self.horizon(now_ms);
        for shard in self.map().all() {
            shard.trim(horizon_ms);
        }
        self.expire(now_ms);
    }
}

/// One hour.
pub(crate) const HOUR_MS: i64 = 3_600_000;

impl Control {
    /// An active stream's, as a snapshot gives it back.
    pub(crate) fn restored(
        mode: StreamMode,
        tags: BTreeMap<String, String>,
        consumers: BTreeMap<String, Arc<Consumer>>,
        max_record_kib: u32,
        features: Features,
    ) -> Self {
        Self { status: StreamStatus::Active, settles_ms: 0, mode, tags, consumers, max_record_kib, features }
    }

    /// The state now, or `None` when the stream is gone.
    pub(crate) fn status(&self, now_ms: i64) -> Option<StreamStatus> {
        match self.status {
            StreamStatus::Deleting if now_ms >= self.settles_ms => None,
            _ if now_ms >= self.settles_ms => Some(StreamStatus::Active),
            status => Some(status),
        }
    }

    /// Enters `status` for `duration_ms`.
    pub(crate) fn enter(&mut self, status: StreamStatus, now_ms: i64, duration_ms: i64) {
        self.status = status;
        self.settles_ms = now_ms.saturating_add(duration_ms);
    }

    /// Refuses unless the stream is ACTIVE.
    pub(crate) fn require_active(&self, stream: &Stream, now_ms: i64) -> Result<(), Error> {
        match self.status(now_ms) {
            Some(StreamStatus::Active) => Ok(()),
            None => Err(stream.not_found()),
            // Seen: kinesalite's tests of SplitShard, MergeShards and CreateStream.
            Some(status) => Err(Error::ResourceInUse(format!(
                "Stream {} under account {} not ACTIVE, instead in state {}",
                stream.name,
                stream.account_id,
                status.as_str()
            ))),
        }
    }
}

/// There is no stream with this name. Seen: kinesalite's tests of every operation.
pub(crate) fn stream_not_found(name: &str, account_id: &str) -> Error {
    Error::ResourceNotFound(format!("Stream {name} under account {account_id} not found."))
}

/// There is no such shard. Seen: kinesalite's tests of SplitShard and MergeShards.
pub(crate) fn could_not_find(shard_id: &str, stream: &str, account_id: &str) -> Error {
    Error::ResourceNotFound(format!(
        "Could not find shard {shard_id} in stream {stream} under account {account_id}."
    ))
}

/// Describes a shard.
pub(crate) fn describe(shard: &Shard) -> ShardInfo {
    let identity = shard.identity();
    let closed = shard.closed();
    ShardInfo {
        shard_id: shard.id(),
        range: identity.range,
        parent: identity.parent.map(super::record::shard_id),
        adjacent_parent: identity.adjacent_parent.map(super::record::shard_id),
        starting_sequence: shard.starting(),
        ending_sequence: closed.as_ref().map(|closed| closed.ending),
        created_ms: identity.created_ms,
        closed_ms: closed.map(|closed| closed.at_ms),
    }
}
