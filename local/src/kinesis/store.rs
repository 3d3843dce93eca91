//! The directory in which streams are kept: a snapshot (`kinesis.cbor`) and the log of what has happened since.
//!
//! The snapshot names the generation of the log that follows it. A log that has grown is succeeded by the next
//! generation first and by a new snapshot then, so at every moment the snapshot and the logs from its generation on are
//! the whole state. Replaying is idempotent: a change that the snapshot holds already changes nothing.

use std::cell::Cell;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::account::Account;
use super::engine::Engine;
use super::error::Error;
use super::journal::{self, Journal, Mark};
use super::record::Record;
use super::sequence::SequenceNumber;
use super::shardmap::ShardMap;
use super::snapshot::{self, SnapshotError};
use super::stream::{Control, Stream};
use super::sync::lock;

/// Kinds of entries.
const STREAM: u8 = b'S';
const DELETED: u8 = b'D';
const PUT: u8 = b'P';
const ACCOUNT: u8 = b'A';

/// A log is succeeded once it is this large, and twice as large as what is held.
const COMPACTED_FROM: u64 = 64 << 20;

/// Where the streams of an engine are kept.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    journal: Journal,
    /// Locked for as long as the store is open, so that no second process writes to the same log.
    lock: Mutex<Option<File>>,
}

/// The snapshot in `dir`.
fn snapshot_path(dir: &Path) -> PathBuf {
    dir.join("kinesis.cbor")
}

/// Reads what `dir` keeps into `engine`, which must be empty, and keeps every change there from now on. A log that ends
/// in the middle of an entry, as a killed process leaves it, loses that entry: it was never acknowledged.
///
/// # Errors
/// [`SnapshotError`]; [`SnapshotError::InUse`] while another process has the directory open.
pub fn open(engine: &Engine, dir: &Path) -> Result<(), SnapshotError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SnapshotError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let lock_path = dir.join("kinesis.lock");
    let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SnapshotError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(SnapshotError::Io { path: lock_path, source }),
    }
    let first = snapshot::load(engine, &snapshot_path(dir))?;
    let (mut generation, mut length) = (first, 0);
    for next in first.. {
        let path = journal::path_of(dir, next);
        let replayed = journal::replay(&path, |entry| apply(engine, entry));
        let found = match replayed {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(error) if error.get_ref().is_some() => {
                return Err(SnapshotError::Malformed { path, reason: error.to_string() });
            }
            Err(source) => return Err(SnapshotError::Io { path, source }),
        };
        if found.torn > 0 {
            tracing::warn!(
                path = %path.display(),
                bytes = found.torn,
                "the log ends in an entry that was not written to its end, as when a process is killed: the entry is \
                 dropped"
            );
        }
        (generation, length) = (next, found.good);
    }
    let journal_path = journal::path_of(dir, generation);
    let journal = Journal::open(dir, generation, length).map_err(failed(&journal_path))?;
    remove_before(dir, first);
    engine.trim_to_bound();
    engine.keep_in(Store { dir: dir.to_owned(), journal, lock: Mutex::new(Some(lock)) });
    Ok(())
}

/// Writes a new snapshot and begins a new log; nothing happens without [`open`].
///
/// # Errors
/// [`SnapshotError::Io`]; what was kept is kept still.
pub fn compact(engine: &Engine) -> Result<(), SnapshotError> {
    let Some(store) = engine.store() else { return Ok(()) };
    let path = snapshot_path(&store.dir);
    let generation =
        store.journal.rotate().map_err(|source| SnapshotError::Io { path: store.dir.clone(), source })?;
    snapshot::save(engine, &path, generation)?;
    remove_before(&store.dir, generation);
    Ok(())
}

/// Compacts what is kept and lets go of the directory. From now on nothing can be put: it could not be kept. Nothing
/// happens when it is closed already.
///
/// # Errors
/// [`SnapshotError::Io`]; what was kept is kept still, in its log.
pub fn close(engine: &Engine) -> Result<(), SnapshotError> {
    let Some(store) = engine.store() else { return Ok(()) };
    let mut lock = lock(&store.lock);
    if lock.is_none() {
        return Ok(());
    }
    compact(engine)?;
    store.journal.close("the stack has been shut down, and what is put now could not be kept");
    lock.take();
    Ok(())
}

/// Whether the log has grown so far that it should be compacted.
pub(crate) fn has_grown(engine: &Engine) -> bool {
    engine.store().is_some_and(|store| store.journal.length() > COMPACTED_FROM.max(2 * engine.held().0))
}

/// Removes logs that the snapshot has made superfluous; one that stays does no harm.
fn remove_before(dir: &Path, generation: u64) {
    for old in (0..generation).rev() {
        let path = journal::path_of(dir, old);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => tracing::warn!(path = %path.display(), %error, "an old log cannot be removed"),
        }
    }
}

/// The entries of one call of puts to one stream.
#[derive(Debug)]
pub(crate) struct PutLog<'a> {
    store: &'a Store,
    stream: &'a Stream,
    mark: Cell<Mark>,
}

impl<'a> PutLog<'a> {
    /// Refuses when nothing can be kept any more.
    pub(crate) fn begin(store: &'a Store, stream: &'a Stream) -> Result<Self, Error> {
        store.journal.check().map_err(Error::Internal)?;
        Ok(Self { store, stream, mark: Cell::default() })
    }

    /// Notes a record, under the lock of its shard.
    pub(crate) fn note(&self, shard: u32, record: &Record) {
        let name = self.stream.name().as_bytes();
        let key = record.partition_key.as_bytes();
        let mut head = [0; PUT_HEAD];
        head[0] = PUT;
        head[1..9].copy_from_slice(&self.stream.created_ms().to_le_bytes());
        head[9..13].copy_from_slice(&shard.to_le_bytes());
        head[13..21].copy_from_slice(&record.sequence.index().to_le_bytes());
        head[21..29].copy_from_slice(&record.arrival_ms.to_le_bytes());
        // A name has at most 128 characters of one byte, a key at most 256 of four.
        head[29..31].copy_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        head[31..33].copy_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.mark.set(self.store.journal.append(&[&head, name, key, &record.data]));
    }

    /// Writes what was noted.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        self.store.journal.flush(self.mark.get()).map_err(Error::Internal)
    }
}

const PUT_HEAD: usize = 33;

/// A record as the log has it.
#[derive(Debug)]
struct PutEntry<'a> {
    created_ms: i64,
    shard: u32,
    index: u64,
    arrival_ms: i64,
    stream: &'a str,
    key: &'a str,
    data: &'a [u8],
}

impl<'a> PutEntry<'a> {
    fn read(entry: &'a [u8]) -> Option<Self> {
        let (head, rest) = entry.split_first_chunk::<PUT_HEAD>()?;
        let at = |from: usize| -> Option<[u8; 8]> { head.get(from..from + 8)?.try_into().ok() };
        let (name_len, key_len) =
            (u16::from_le_bytes([head[29], head[30]]), u16::from_le_bytes([head[31], head[32]]));
        let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
        let (key, data) = rest.split_at_checked(usize::from(key_len))?;
        Some(Self {
            created_ms: i64::from_le_bytes(at(1)?),
            shard: u32::from_le_bytes([head[9], head[10], head[11], head[12]]),
            index: u64::from_le_bytes(at(13)?),
            arrival_ms: i64::from_le_bytes(at(21)?),
            stream: std::str::from_utf8(name).ok()?,
            key: std::str::from_utf8(key).ok()?,
            data,
        })
    }
}

/// Changes `engine` as an entry says.
fn apply(engine: &Engine, entry: &[u8]) -> Result<(), String> {
    let Some((kind, body)) = entry.split_first() else { return Err("an entry is empty".to_owned()) };
    match *kind {
        PUT => {
            let put = PutEntry::read(entry).ok_or("a record's entry is too short")?;
            let Some(stream) = engine.find(put.stream).filter(|found| found.created_ms() == put.created_ms)
            else {
                // A put that came too late: its stream was deleted before it was noted.
                return Ok(());
            };
            let shard = stream.map().find(&super::record::shard_id(put.shard)).cloned();
            if let Some(shard) = shard {
                let identity = shard.identity();
                let arrival_s = u64::try_from(put.arrival_ms.div_euclid(1_000)).unwrap_or(0);
                let sequence =
                    SequenceNumber::compose(identity.index, identity.sequence_s, put.index, arrival_s);
                shard.replay(Record {
                    sequence,
                    partition_key: put.key.into(),
                    data: bytes::Bytes::copy_from_slice(put.data),
                    arrival_ms: put.arrival_ms,
                });
            }
            Ok(())
        }
        STREAM => {
            let part = ciborium::from_reader(body).map_err(|error| error.to_string())?;
            snapshot::apply(engine, part);
            Ok(())
        }
        DELETED => {
            let (name, created_ms): (String, i64) =
                ciborium::from_reader(body).map_err(|error| error.to_string())?;
            if engine.find(&name).is_some_and(|found| found.created_ms() == created_ms) {
                engine.remove(&name);
            }
            Ok(())
        }
        ACCOUNT => {
            let account: Account = ciborium::from_reader(body).map_err(|error| error.to_string())?;
            *lock(engine.account()) = account;
            Ok(())
        }
        other => Err(format!("an entry is of the unknown kind {other}: it is of a later version")),
    }
}

impl Engine {
    /// Notes how a stream is, records aside, while what has changed is still locked.
    pub(crate) fn note(&self, stream: &Stream, control: &Control, map: &ShardMap) -> Mark {
        match self.store() {
            Some(store) => append(store, STREAM, &snapshot::outline(stream, control, map)),
            None => Mark::default(),
        }
    }

    pub(crate) fn note_deleted(&self, stream: &Stream) -> Mark {
        match self.store() {
            Some(store) => append(store, DELETED, &(stream.name(), stream.created_ms())),
            None => Mark::default(),
        }
    }

    pub(crate) fn note_account(&self, account: &Account) -> Mark {
        match self.store() {
            Some(store) => append(store, ACCOUNT, account),
            None => Mark::default(),
        }
    }

    /// Writes what was noted up to `mark`.
    pub(crate) fn flush(&self, mark: Mark) -> Result<(), Error> {
        match self.store() {
            Some(store) => store.journal.flush(mark).map_err(Error::Internal),
            None => Ok(()),
        }
    }

    /// Notes how a stream is, and writes it.
    pub(crate) fn keep(&self, stream: &Stream) -> Result<(), Error> {
        let mark = {
            let control = stream.control();
            self.note(stream, &control, &stream.map())
        };
        self.flush(mark)
    }
}

fn append<T: serde::Serialize>(store: &Store, kind: u8, value: &T) -> Mark {
    let mut body = vec![kind];
    // Writing numbers and strings into memory cannot fail.
    let _ = ciborium::into_writer(value, &mut body);
    store.journal.append(&[&body])
}
