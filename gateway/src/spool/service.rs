//! The tasks of a spool: one writes and syncs, one puts on the stream what is durable.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use headworks_proto::{convert, v1};
use headworks_record::Record;
use headworks_writer as writer;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::disk::{Disk, Os};
use super::forward::Forwarder;
use super::handle::{Append, Failure, Handle, weight};
use super::log::{AppendError, Appended, Log, Settings};
use super::read::Reader;
use super::recover::OpenError;
use super::state::{Fresh, State, now_ms};
use crate::config::SpoolConfig;

/// Batches that wait for the task; their bytes are bounded as well.
pub(super) const QUEUE: usize = 1024;
/// How long after it changed the progress is written where no record takes it along: until then, a crash has what was
/// settled put again.
const PROGRESS: Duration = Duration::from_millis(500);
/// The same once nothing waits any more, and the disk has nothing else to do.
const IDLE_PROGRESS: Duration = Duration::from_millis(50);
/// The file that says who uses the directory.
const LOCK: &str = "lock";

/// What a spool held when it stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Acknowledged records that the stream does not have yet.
    pub(crate) records: u64,
    /// Bytes of the files.
    pub(crate) bytes: u64,
}

/// A spool that is open and does not run yet.
#[derive(Debug)]
pub(crate) struct Spool {
    log: Log,
    reader: Reader,
    queue: mpsc::Receiver<Append>,
    state: Arc<State>,
    config: SpoolConfig,
    lock: fs::File,
}

impl Spool {
    /// Takes the directory and reads what is there. Blocking.
    pub(crate) fn open(config: &SpoolConfig, stream: &str) -> Result<(Self, Handle), OpenError> {
        let directory = config.directory_of(stream);
        let lock = lock(&directory)?;
        Self::open_on(Arc::new(Os), config, stream, lock)
    }

    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        config: &SpoolConfig,
        stream: &str,
        lock: fs::File,
    ) -> Result<(Self, Handle), OpenError> {
        let directory = config.directory_of(stream);
        let settings = Settings { directory: directory.clone(), segment_bytes: config.segment_bytes };
        let (log, found) = Log::open(Arc::clone(&disk), settings)?;
        let records = found.next - 1 - found.done;
        info!(stream, ?directory, records, bytes = log.bytes(), torn = found.torn, "the spool is open");
        let state =
            Arc::new(State::new(stream, config.max_bytes, 2 * config.commit_bytes, log.bytes(), &found));
        let (sender, queue) = mpsc::channel(QUEUE);
        let handle = Handle {
            queue: sender,
            pending: Arc::new(Semaphore::new(config.pending_bytes)),
            pending_bytes: config.pending_bytes,
            state: Arc::clone(&state),
        };
        let reader = Reader::new(disk, directory, log.index());
        Ok((Self { log, reader, queue, state, config: config.clone(), lock }, handle))
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.config.directory_of(&self.state.stream)
    }

    /// Runs until `shutdown` is cancelled: then takes nothing more, writes how far everything is
    /// settled, and tells what is left.
    pub(crate) async fn run(self, writer: writer::Handle, shutdown: CancellationToken) -> Left {
        let Spool { log, reader, queue, state, config, lock } = self;
        let forwarder = Forwarder { reader, writer, state: Arc::clone(&state) };
        let forwarding = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(forwarder.run()));
        let log = commit(log, queue, &state, &config, shutdown).await;
        drop(forwarding);
        if let Some(mut log) = log {
            let settled = *state.settled.borrow();
            if settled > log.done() {
                // A failure means repeats at the next start, no more.
                let _ = spawn_blocking(move || log.append(std::iter::empty(), settled, now_ms())).await;
            }
        }
        drop(lock);
        Left { records: state.waiting(), bytes: state.disk_bytes() }
    }
}

fn lock(directory: &PathBuf) -> Result<fs::File, OpenError> {
    let unusable = |source| OpenError::Unusable { path: directory.clone(), source };
    fs::create_dir_all(directory).map_err(unusable)?;
    let file = fs::File::options().create(true).append(true).open(directory.join(LOCK)).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.clone() }),
        Err(fs::TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// A record as it stands on disk.
fn encode(record: &Record) -> Vec<u8> {
    convert::to_wire(record).encode_to_vec()
}

/// The record of such bytes.
pub(super) fn decode(bytes: Bytes) -> Result<Record, String> {
    let message = v1::Record::decode(bytes).map_err(|error| error.to_string())?;
    convert::from_wire(message).map_err(|error| error.to_string())
}

struct Commit {
    log: Log,
    batches: Vec<Append>,
    result: Result<Appended, AppendError>,
}

/// Writes what waits, as much as shares one fsync, again and again. `None` if the log was lost.
pub(super) async fn commit(
    mut log: Log,
    mut queue: mpsc::Receiver<Append>,
    state: &Arc<State>,
    config: &SpoolConfig,
    shutdown: CancellationToken,
) -> Option<Log> {
    let mut settled = state.settled.subscribe();
    let mut carried: Option<Append> = None;
    let mut progress_at: Option<Instant> = None;
    loop {
        let now = *settled.borrow_and_update();
        progress_at = (now > log.done()).then(|| {
            let idle = now == *state.durable.borrow();
            let at = Instant::now() + if idle { IDLE_PROGRESS } else { PROGRESS };
            progress_at.map_or(at, |before| before.min(at))
        });
        let first = match carried.take() {
            Some(append) => Some(append),
            None => tokio::select! {
                append = queue.recv() => match append {
                    Some(append) => Some(append),
                    None => return Some(log),
                },
                () = sleep_until(progress_at.unwrap_or_else(Instant::now)), if progress_at.is_some() => None,
                Ok(()) = settled.changed() => continue,
                () = shutdown.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
            },
        };
        if first.is_some() && config.commit_linger_ms > 0 {
            sleep(Duration::from_millis(config.commit_linger_ms)).await;
        }
        let batches = gather(first, &mut queue, config.commit_bytes, &mut carried);
        let (done, time_ms) = (*state.settled.borrow(), now_ms());
        let written = spawn_blocking(move || {
            let bodies: Vec<Vec<u8>> = batches.iter().flat_map(|batch| &batch.records).map(encode).collect();
            let result = log.append(bodies.iter().map(|body| &body[..]), done, time_ms);
            if let Err(error) = log.remove_settled() {
                warn!("a settled file of the spool cannot be removed: {error}");
            }
            Commit { log, batches, result }
        })
        .await;
        log = answer(written, state, time_ms)?;
    }
}

fn gather(
    first: Option<Append>,
    queue: &mut mpsc::Receiver<Append>,
    limit: usize,
    carried: &mut Option<Append>,
) -> Vec<Append> {
    let mut bytes = first.as_ref().map_or(0, |append| append.reserved);
    let mut batches = Vec::from_iter(first);
    while let Ok(append) = queue.try_recv() {
        if !batches.is_empty() && bytes + append.reserved > limit as u64 {
            *carried = Some(append);
            break;
        }
        bytes += append.reserved;
        batches.push(append);
    }
    batches
}

/// Tells everybody what became of a commit.
fn answer(written: Result<Commit, JoinError>, state: &State, time_ms: u64) -> Option<Log> {
    let Commit { log, batches, result } = match written {
        Ok(commit) => commit,
        Err(lost) => {
            error!(stream = state.stream, "the spool's writing task was lost: {lost}");
            return None;
        }
    };
    let counters = &state.counters;
    let reserved = batches.iter().map(|batch| batch.reserved).sum();
    let records: u64 = batches.iter().map(|batch| batch.records.len() as u64).sum();
    match result {
        Ok(Appended { first, synced_in, poisoned }) => {
            counters.syncs.record(synced_in);
            counters.appended.fetch_add(records, Ordering::Relaxed);
            counters.poisoned.fetch_add(poisoned as u64, Ordering::Relaxed);
            if poisoned > 0 {
                error!(stream = state.stream, poisoned, "the spool gave up files that could not be written");
            }
            state.failing.store(false, Ordering::Relaxed);
            let (mut answers, mut all) = (Vec::with_capacity(batches.len()), Vec::new());
            for batch in batches {
                all.extend(batch.records);
                answers.push(batch.answer);
            }
            if records > 0 {
                let bytes = all.iter().map(weight).sum();
                state.keep(Fresh { first, time_ms, records: all, bytes });
                state.durable.send_replace(first + records - 1);
            }
            state.used(reserved, log.bytes());
            for answer in answers {
                // Whoever gave up does not take the record back.
                let _ = answer.send(Ok(()));
            }
        }
        Err(AppendError { source, written }) => {
            counters.failed.fetch_add(records, Ordering::Relaxed);
            state.failing.store(true, Ordering::Relaxed);
            state.used(reserved, log.bytes());
            error!(
                stream = state.stream,
                records, "the spool cannot write to its disk, and acknowledges nothing: {source}"
            );
            let failure = Failure::Disk { reason: source.to_string(), written };
            for batch in batches {
                let _ = batch.answer.send(Err(failure.clone()));
            }
        }
    }
    Some(log)
}
