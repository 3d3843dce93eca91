//! All streams in one file, and one stream without its records as the log has it; see [`super::store`].
//!
//! Kept: streams with their mode, tags, retention, record size and what else is set on them, shards open and closed with
//! their records, consumers. Not kept: subscriptions, tokens, states that were passing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::account::Account;
use super::arn;
use super::consumer::Consumer;
use super::engine::Engine;
use super::features::{Attached, Features};
use super::hash::HashRange;
use super::reader::ChildShard;
use super::record::Record;
use super::sequence::SequenceNumber;
use super::shard::{Closed, Contents, Identity, Shard};
use super::shardmap::ShardMap;
use super::stream::{Control, Stream, StreamMode};
use super::sync::lock;

const VERSION: u32 = 1;

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file cannot be opened, written or renamed.
    #[error("the Kinesis snapshot {path} cannot be used: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process keeps its streams there.
    #[error(
        "{path} is in use by another process of the embedded stack: stop it, or choose another data directory"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{path} is not a Kinesis snapshot of version {VERSION} ({reason}): move it away to start empty")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    /// The first log to replay over it.
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    account: Account,
    streams: Vec<StreamPart>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StreamPart {
    name: String,
    created_ms: i64,
    on_demand: bool,
    tags: BTreeMap<String, String>,
    max_record_kib: u32,
    retention_ms: i64,
    next_index: u32,
    shards: Vec<ShardPart>,
    consumers: Vec<(String, i64)>,
    /// By the name of the consumer, where anything is attached.
    #[serde(default)]
    attached: BTreeMap<String, Attached>,
    #[serde(default)]
    features: Features,
}

#[derive(Debug, Serialize, Deserialize)]
struct ShardPart {
    index: u32,
    range: RangePart,
    parent: Option<u32>,
    adjacent_parent: Option<u32>,
    created_ms: i64,
    sequence_s: u64,
    next: u64,
    last: SequenceNumber,
    last_arrival_ms: i64,
    closed: Option<ClosedPart>,
    records: Vec<(SequenceNumber, String, Raw, i64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClosedPart {
    at_ms: i64,
    ending: SequenceNumber,
    children: Vec<(String, Vec<String>, RangePart)>,
}

/// Start and end, in halves: not every encoding has 128 bits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct RangePart([u64; 4]);

impl From<HashRange> for RangePart {
    fn from(range: HashRange) -> Self {
        Self([(range.start >> 64) as u64, range.start as u64, (range.end >> 64) as u64, range.end as u64])
    }
}

impl From<RangePart> for HashRange {
    fn from(RangePart([a, b, c, d]): RangePart) -> Self {
        let join = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        Self { start: join(a, b), end: join(c, d) }
    }
}

/// Bytes as a byte string.
#[derive(Debug)]
struct Raw(Bytes);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl serde::de::Visitor<'_> for RawVisitor {
            type Value = Raw;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a byte string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Raw, E> {
                Ok(Raw(bytes.into()))
            }
        }
        deserializer.deserialize_byte_buf(RawVisitor)
    }
}

/// Writes all streams of `engine` to `path`, to be followed by the log of `generation`: to a new file first, so that a
/// crash leaves the old one.
///
/// # Errors
/// [`SnapshotError::Io`]; the file at `path` is then unchanged.
pub(crate) fn save(engine: &Engine, path: &Path, generation: u64) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::Io { path: path.to_owned(), source };
    let snapshot = Snapshot {
        version: VERSION,
        generation,
        account: *lock(engine.account()),
        streams: engine
            .streams()
            .iter()
            .filter(|stream| !stream.is_deleted())
            .map(|stream| {
                let control = stream.control();
                let map = stream.map();
                let mut part = outline(stream, &control, &map);
                part.shards = map.all().iter().map(|shard| ShardPart::from(shard.contents())).collect();
                part
            })
            .collect(),
    };
    let fresh = path.with_extension("tmp");
    let mut out = BufWriter::new(File::create(&fresh).map_err(failed)?);
    ciborium::into_writer(&snapshot, &mut out)
        .map_err(|error| failed(io::Error::other(error.to_string())))?;
    out.flush().map_err(failed)?;
    out.get_ref().sync_all().map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)
}

/// Adds the streams in `path` to `engine`, and returns the generation of the log that follows. A file that is not there
/// is an empty one.
///
/// # Errors
/// [`SnapshotError`]; the engine is then unchanged.
pub(crate) fn load(engine: &Engine, path: &Path) -> Result<u64, SnapshotError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(SnapshotError::Io { path: path.to_owned(), source }),
    };
    let malformed = |reason: String| SnapshotError::Malformed { path: path.to_owned(), reason };
    let snapshot: Snapshot =
        ciborium::from_reader(BufReader::new(file)).map_err(|error| malformed(error.to_string()))?;
    if snapshot.version != VERSION {
        return Err(malformed(format!("its version is {}", snapshot.version)));
    }
    *lock(engine.account()) = snapshot.account;
    for part in snapshot.streams {
        engine.insert(restore(engine, part, &[]));
    }
    Ok(snapshot.generation)
}

/// Makes a stream as `part` says, with the records that its shards have; a stream that was deleted and created again is
/// not confused with the later one.
pub(crate) fn apply(engine: &Engine, part: StreamPart) {
    let known = engine.find(&part.name);
    let shards: Vec<Arc<Shard>> = match &known {
        Some(stream) if stream.created_ms() > part.created_ms => return,
        Some(stream) if stream.created_ms() == part.created_ms => stream.map().all().to_vec(),
        _ => Vec::new(),
    };
    engine.insert(restore(engine, part, &shards));
}

/// A stream without the records of its shards.
pub(crate) fn outline(stream: &Stream, control: &Control, map: &ShardMap) -> StreamPart {
    let attached = control.consumers.values().filter_map(|consumer| {
        let attached = consumer.attached();
        let is_empty = attached.policy.is_none() && attached.tags.is_empty();
        (!is_empty).then(|| (consumer.name.clone(), attached.clone()))
    });
    StreamPart {
        name: stream.name().to_owned(),
        created_ms: stream.created_ms(),
        on_demand: control.mode == StreamMode::OnDemand,
        tags: control.tags.clone(),
        max_record_kib: control.max_record_kib,
        retention_ms: stream.retention_ms(),
        next_index: map.next_index(),
        shards: map.all().iter().map(|shard| ShardPart::from(shard.outline())).collect(),
        consumers: control.consumers.values().map(|c| (c.name.clone(), c.created_ms)).collect(),
        attached: attached.collect(),
        features: control.features.clone(),
    }
}

fn restore(engine: &Engine, part: StreamPart, known: &[Arc<Shard>]) -> Stream {
    let settings = engine.settings();
    let stream_arn = arn::stream_arn(settings, &part.name);
    let mut attached = part.attached;
    let consumers = part
        .consumers
        .into_iter()
        .map(|(name, created_ms)| {
            let arn = arn::consumer_arn(&stream_arn, &name, created_ms);
            let consumer = Consumer::new(name.clone(), arn, created_ms, created_ms);
            if let Some(attached) = attached.remove(&name) {
                *consumer.attached() = attached;
            }
            (name, Arc::new(consumer))
        })
        .collect();
    let mode = if part.on_demand { StreamMode::OnDemand } else { StreamMode::Provisioned };
    let control = Control::restored(mode, part.tags, consumers, part.max_record_kib, part.features);
    let shards = part
        .shards
        .into_iter()
        .map(|shard| match known.iter().find(|known| known.identity().index == shard.index) {
            Some(known) => {
                known.close_as(shard.closed.map(Closed::from));
                Arc::clone(known)
            }
            None => Arc::new(Shard::restore(shard.into(), settings.write_limits)),
        })
        .collect();
    let map = ShardMap::restore(shards, part.next_index);
    Stream::restore(part.name, settings, part.created_ms, control, map, part.retention_ms)
}

impl From<ClosedPart> for Closed {
    fn from(closed: ClosedPart) -> Self {
        Self {
            at_ms: closed.at_ms,
            ending: closed.ending,
            children: closed
                .children
                .into_iter()
                .map(|(shard_id, parent_shards, range)| ChildShard {
                    shard_id,
                    parent_shards,
                    range: range.into(),
                })
                .collect(),
        }
    }
}

impl From<Contents> for ShardPart {
    fn from(contents: Contents) -> Self {
        let identity = contents.identity;
        Self {
            index: identity.index,
            range: identity.range.into(),
            parent: identity.parent,
            adjacent_parent: identity.adjacent_parent,
            created_ms: identity.created_ms,
            sequence_s: identity.sequence_s,
            next: contents.next,
            last: contents.last,
            last_arrival_ms: contents.last_arrival_ms,
            closed: contents.closed.map(|closed| ClosedPart {
                at_ms: closed.at_ms,
                ending: closed.ending,
                children: closed
                    .children
                    .into_iter()
                    .map(|child| (child.shard_id, child.parent_shards, child.range.into()))
                    .collect(),
            }),
            records: contents
                .records
                .into_iter()
                .map(|record| {
                    (record.sequence, record.partition_key.to_string(), Raw(record.data), record.arrival_ms)
                })
                .collect(),
        }
    }
}

impl From<ShardPart> for Contents {
    fn from(part: ShardPart) -> Self {
        Self {
            identity: Identity {
                index: part.index,
                range: part.range.into(),
                parent: part.parent,
                adjacent_parent: part.adjacent_parent,
                created_ms: part.created_ms,
                sequence_s: part.sequence_s,
            },
            next: part.next,
            last: part.last,
            last_arrival_ms: part.last_arrival_ms,
            closed: part.closed.map(Closed::from),
            records: part
                .records
                .into_iter()
                .map(|(sequence, key, Raw(data), arrival_ms)| Record {
                    sequence,
                    partition_key: key.into(),
                    data,
                    arrival_ms,
                })
                .collect(),
        }
    }
}
