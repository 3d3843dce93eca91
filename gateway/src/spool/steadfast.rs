//! A stream that is put to for as long as it takes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use headworks_record::{HashRange, LaneCount, Shard, ShardId};
use headworks_writer::{CallError, Entry, EntryError, Fault, ListedShard, Stored, Stream};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::state::State;

/// The file with the shards as they were last seen.
const SHARDS: &str = "shards.json";

/// Puts to another stream, and takes no refusal for final: what the stream refuses for good today, an operator
/// may mend. So the writer keeps it, in its order, and tries again.
///
/// It also remembers the stream's shards, so that a gateway that starts during an outage takes records. If the
/// stream was resharded meanwhile, the writer finds out as it does on any other day.
#[derive(Debug)]
pub(crate) struct Steadfast {
    inner: Arc<dyn Stream>,
    state: Arc<State>,
    shards: PathBuf,
    /// Whether the writer has its shards: what was remembered is for the start only.
    started: AtomicBool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    lanes: u16,
    shards: Vec<RememberedShard>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RememberedShard {
    id: String,
    /// Decimal, as Kinesis writes them.
    first: String,
    last: String,
    closed: bool,
}

impl Steadfast {
    pub(crate) fn new(inner: Arc<dyn Stream>, state: Arc<State>, directory: PathBuf) -> Self {
        Self { inner, state, shards: directory.join(SHARDS), started: AtomicBool::new(false) }
    }

    fn remembered(&self) -> Option<Remembered> {
        serde_json::from_slice(&std::fs::read(&self.shards).ok()?).ok()
    }

    /// Notes what was seen; that it is old does no harm, and that it is lost means no start in an outage.
    fn remember(&self, remembered: &Remembered) {
        let write = || -> io::Result<()> {
            let fresh = self.shards.with_extension("new");
            std::fs::write(&fresh, serde_json::to_vec(remembered)?)?;
            std::fs::rename(&fresh, &self.shards)
        };
        if let Err(error) = write() {
            warn!(stream = self.inner.name(), "the shards cannot be noted in the spool: {error}");
        }
    }

    fn accepted(&self) {
        if self.state.refusing.swap(false, Ordering::Relaxed) {
            info!(stream = self.inner.name(), "the stream takes spooled records again");
        }
    }

    /// Makes a refusal a delay, and raises the alarm.
    fn soften(&self, fault: &mut Fault, code: &str, message: &str) {
        if !matches!(fault, Fault::Permanent | Fault::Access) {
            return;
        }
        *fault = Fault::Access;
        self.state.counters.refused.fetch_add(1, Ordering::Relaxed);
        if !self.state.refusing.swap(true, Ordering::Relaxed) {
            error!(
                stream = self.inner.name(),
                code,
                "the stream refuses spooled records, which stay in the spool and are tried again: {message}"
            );
        }
    }
}

#[async_trait]
impl Stream for Steadfast {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn list_shards(&self) -> Result<Vec<ListedShard>, CallError> {
        match self.inner.list_shards().await {
            Ok(listed) => Ok(listed),
            Err(error) if self.started.load(Ordering::Relaxed) => Err(error),
            Err(error) => {
                let Some(remembered) = self.remembered() else { return Err(error) };
                let listed: Option<Vec<ListedShard>> =
                    remembered.shards.iter().map(RememberedShard::listed).collect();
                warn!(
                    stream = self.inner.name(),
                    "the stream cannot be read, and records are spooled by its shards as they were: {error}"
                );
                listed.ok_or(error)
            }
        }
    }

    async fn lanes(&self) -> Result<LaneCount, CallError> {
        let lanes = match self.inner.lanes().await {
            Ok(lanes) => {
                if let Ok(listed) = self.inner.list_shards().await {
                    let shards = listed.iter().map(RememberedShard::of).collect();
                    self.remember(&Remembered { lanes: lanes.get(), shards });
                }
                Ok(lanes)
            }
            Err(error) => {
                let remembered = self.remembered().and_then(|remembered| LaneCount::new(remembered.lanes));
                remembered.ok_or(error)
            }
        };
        self.started.store(lanes.is_ok(), Ordering::Relaxed);
        lanes
    }

    async fn put_records(&self, entries: &[Entry]) -> Result<Vec<Result<Stored, EntryError>>, CallError> {
        match self.inner.put_records(entries).await {
            Ok(mut results) => {
                for error in results.iter_mut().filter_map(|result| result.as_mut().err()) {
                    let EntryError { fault, code, message } = error;
                    self.soften(fault, code, message);
                }
                if results.iter().any(Result::is_ok) {
                    self.accepted();
                }
                Ok(results)
            }
            Err(mut error) => {
                self.soften(&mut error.fault, &error.code, &error.message);
                Err(error)
            }
        }
    }
}

impl RememberedShard {
    fn of(listed: &ListedShard) -> Self {
        let ListedShard { shard: Shard { id, range }, closed } = listed;
        let (first, last) = (range.start.0.to_string(), range.end.0.to_string());
        Self { id: id.as_str().to_owned(), first, last, closed: *closed }
    }

    fn listed(&self) -> Option<ListedShard> {
        let range = HashRange::new(self.first.parse().ok()?, self.last.parse().ok()?);
        Some(ListedShard { shard: Shard { id: ShardId::from(&*self.id), range }, closed: self.closed })
    }
}
