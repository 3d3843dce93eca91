//! All streams in one file, written at a clean end and read at the next start.
//!
//! Kept: streams with their mode, tags, retention and record size, shards open and closed with their records,
//! consumers. Not kept: subscriptions, tokens, states that were passing. What is put after the snapshot is not in
//! it: a process that is killed loses everything since its last clean end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::arn;
use super::consumer::Consumer;
use super::engine::Engine;
use super::hash::HashRange;
use super::reader::ChildShard;
use super::record::Record;
use super::sequence::SequenceNumber;
use super::shard::{Closed, Contents, Identity, Shard};
use super::shardmap::ShardMap;
use super::stream::{Control, Stream, StreamMode};

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
    streams: Vec<StreamPart>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StreamPart {
    name: String,
    created_ms: i64,
    on_demand: bool,
    tags: BTreeMap<String, String>,
    max_record_kib: u32,
    retention_ms: i64,
    next_index: u32,
    shards: Vec<ShardPart>,
    consumers: Vec<(String, i64)>,
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

/// Writes all streams of `engine` to `path`: to a new file first, so that a crash leaves the old one.
///
/// # Errors
/// [`SnapshotError::Io`]; the file at `path` is then unchanged.
pub fn save(engine: &Engine, path: &Path) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::Io { path: path.to_owned(), source };
    let snapshot = Snapshot {
        version: VERSION,
        streams: engine
            .streams()
            .iter()
            .filter(|stream| !stream.is_deleted())
            .map(|stream| part_of(stream))
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

/// Adds the streams in `path` to `engine`. A file that is not there is an empty one.
///
/// # Errors
/// [`SnapshotError`]; the engine is then unchanged.
pub fn load(engine: &Engine, path: &Path) -> Result<(), SnapshotError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(SnapshotError::Io { path: path.to_owned(), source }),
    };
    let malformed = |reason: String| SnapshotError::Malformed { path: path.to_owned(), reason };
    let snapshot: Snapshot =
        ciborium::from_reader(BufReader::new(file)).map_err(|error| malformed(error.to_string()))?;
    if snapshot.version != VERSION {
        return Err(malformed(format!("its version is {}", snapshot.version)));
    }
    for part in snapshot.streams {
        engine.insert(restore(engine, part));
    }
    Ok(())
}

fn part_of(stream: &Stream) -> StreamPart {
    let control = stream.control();
    let map = stream.map();
    StreamPart {
        name: stream.name().to_owned(),
        created_ms: stream.created_ms(),
        on_demand: control.mode == StreamMode::OnDemand,
        tags: control.tags.clone(),
        max_record_kib: control.max_record_kib,
        retention_ms: stream.retention_ms(),
        next_index: map.next_index(),
        shards: map.all().iter().map(|shard| ShardPart::from(shard.contents())).collect(),
        consumers: control.consumers.values().map(|c| (c.name.clone(), c.created_ms)).collect(),
    }
}

fn restore(engine: &Engine, part: StreamPart) -> Stream {
    let settings = engine.settings();
    let stream_arn = arn::stream_arn(settings, &part.name);
    let consumers = part
        .consumers
        .into_iter()
        .map(|(name, created_ms)| {
            let arn = arn::consumer_arn(&stream_arn, &name, created_ms);
            (name.clone(), Arc::new(Consumer::new(name, arn, created_ms, created_ms)))
        })
        .collect();
    let mode = if part.on_demand { StreamMode::OnDemand } else { StreamMode::Provisioned };
    let control = Control::restored(mode, part.tags, consumers, part.max_record_kib);
    let shards = part
        .shards
        .into_iter()
        .map(|shard| Arc::new(Shard::restore(shard.into(), settings.write_limits)))
        .collect();
    let map = ShardMap::restore(shards, part.next_index);
    Stream::restore(part.name, settings, part.created_ms, control, map, part.retention_ms)
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
            closed: part.closed.map(|closed| Closed {
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
            }),
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
