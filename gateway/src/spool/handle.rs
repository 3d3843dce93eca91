//! The spool as the doors hold it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use headworks_record::Record;
use headworks_writer::Put;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tokio::time::{Instant, Sleep, timeout_at};

use super::state::State;

/// When room is likely.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The disk's share is used.
    Full { limit: u64, retry_after: Duration },
    /// Too much waits for its fsync.
    Busy { limit: usize, retry_after: Duration },
    /// More than may ever wait.
    BatchTooLarge { bytes: usize, limit: usize },
    /// The spool has ended.
    Stopped,
}

/// Why a record is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error(
        "the spool is full: its files have {limit} bytes, which is spool.max_bytes, and the stream takes nothing; try again later, or raise the limit"
    )]
    Full { limit: u64 },
    #[error(
        "the spool cannot write to its disk: {reason}; look at the disk and its free space, and try again"
    )]
    Disk { reason: String, written: bool },
    #[error("its deadline passed while the spool's disk was writing: the record may be kept")]
    Deadline,
}

impl Failure {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Failure::Full { .. } => "spool-full",
            Failure::Disk { .. } => "spool-failed",
            Failure::Deadline => "outcome-unknown",
        }
    }

    pub(crate) fn is_retryable(&self) -> bool {
        true
    }

    /// Whether the record may be put on the stream all the same, after a crash.
    pub(crate) fn outcome_unknown(&self) -> bool {
        matches!(self, Failure::Disk { written: true, .. } | Failure::Deadline)
    }
}

/// Records on their way to the disk.
pub(super) struct Append {
    pub(super) records: Vec<Record>,
    /// Room taken on disk.
    pub(super) reserved: u64,
    pub(super) answer: oneshot::Sender<Result<(), Failure>>,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

/// Gives records to a spool. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(super) queue: mpsc::Sender<Append>,
    pub(super) pending: Arc<Semaphore>,
    pub(super) pending_bytes: usize,
    pub(super) state: Arc<State>,
}

/// What a record weighs in memory.
pub(super) fn weight(record: &Record) -> usize {
    record.user_bytes() + 256
}

/// The most that a record takes on disk.
fn disk_bytes(record: &Record) -> u64 {
    (record.user_bytes() + 16 * record.headers.len() + 192) as u64
}

struct Sizes {
    weight: u32,
    disk: u64,
}

impl Handle {
    /// Hands over a batch, or says at once that there is no room.
    pub(crate) async fn try_append(&self, puts: Vec<Put>) -> Result<Ticket, Refused> {
        let sizes = self.sizes(&puts)?;
        let pending = Arc::clone(&self.pending);
        let permit = pending.try_acquire_many_owned(sizes.weight).map_err(|error| match error {
            TryAcquireError::Closed => Refused::Stopped,
            TryAcquireError::NoPermits => {
                Refused::Busy { limit: self.pending_bytes, retry_after: Duration::from_millis(100) }
            }
        })?;
        if !self.state.reserve(sizes.disk) {
            return Err(Refused::Full { limit: self.state.max_bytes, retry_after: RETRY_AFTER });
        }
        self.hand_over(puts, permit, sizes.disk).await
    }

    /// Hands over a batch, waiting for room until the records' deadline.
    pub(crate) async fn append(&self, puts: Vec<Put>) -> Result<Ticket, Refused> {
        let sizes = self.sizes(&puts)?;
        let deadline = deadline(&puts);
        let room = async {
            let pending = Arc::clone(&self.pending);
            let permit =
                pending.acquire_many_owned(sizes.weight).await.map_err(|_closed| Refused::Stopped)?;
            loop {
                let mut woken = std::pin::pin!(self.state.room.notified());
                // From here on no wake-up is missed.
                woken.as_mut().enable();
                if self.state.reserve(sizes.disk) {
                    return Ok(permit);
                }
                woken.await;
            }
        };
        match timeout_at(deadline, room).await {
            Ok(permit) => self.hand_over(puts, permit?, sizes.disk).await,
            Err(_elapsed) => {
                let failure = Failure::Full { limit: self.state.max_bytes };
                Ok(Ticket { answer: Err(failure), deadline: Box::pin(tokio::time::sleep_until(deadline)) })
            }
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Waits until the stream has everything.
    pub(crate) async fn drain(&self) {
        let mut settled = self.state.settled.subscribe();
        // The sender lives in `self`.
        let _ = settled.wait_for(|settled| *settled >= *self.state.durable.borrow()).await;
    }

    fn sizes(&self, puts: &[Put]) -> Result<Sizes, Refused> {
        let bytes: usize = puts.iter().map(|put| weight(&put.record)).sum();
        match u32::try_from(bytes) {
            Ok(weight) if bytes <= self.pending_bytes => {
                Ok(Sizes { weight, disk: puts.iter().map(|put| disk_bytes(&put.record)).sum() })
            }
            _ => Err(Refused::BatchTooLarge { bytes, limit: self.pending_bytes }),
        }
    }

    async fn hand_over(
        &self,
        puts: Vec<Put>,
        permit: OwnedSemaphorePermit,
        reserved: u64,
    ) -> Result<Ticket, Refused> {
        let deadline = deadline(&puts);
        let (answer, told) = oneshot::channel();
        let records = puts.into_iter().map(|put| put.record).collect();
        let append = Append { records, reserved, answer, _permit: permit };
        if self.queue.send(append).await.is_err() {
            self.state.release(reserved);
            return Err(Refused::Stopped);
        }
        let deadline = Box::pin(tokio::time::sleep_until(deadline));
        Ok(Ticket { answer: Ok(told), deadline })
    }
}

/// Until when the client waits. The records of one batch share it.
fn deadline(puts: &[Put]) -> Instant {
    let latest = puts.iter().filter_map(|put| put.deadline).max();
    latest.unwrap_or_else(|| Instant::now() + crate::config::MAX_TIMEOUT)
}

/// What becomes of a batch: of all of it, or of none.
#[derive(Debug)]
pub(crate) struct Ticket {
    answer: Result<oneshot::Receiver<Result<(), Failure>>, Failure>,
    deadline: Pin<Box<Sleep>>,
}

impl Future for Ticket {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let told = match &mut self.answer {
            Err(failure) => return Poll::Ready(Err(failure.clone())),
            Ok(answer) => Pin::new(answer).poll(cx),
        };
        match told {
            Poll::Ready(Ok(told)) => Poll::Ready(told),
            // The task is gone, perhaps in the middle of a write.
            Poll::Ready(Err(_gone)) => {
                let reason = "the spool's task has ended".to_owned();
                Poll::Ready(Err(Failure::Disk { reason, written: true }))
            }
            Poll::Pending => self.deadline.as_mut().poll(cx).map(|()| Err(Failure::Deadline)),
        }
    }
}
