//! The writer as its users hold it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use headworks_record::{Record, aggregate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};

use crate::config::Config;
use crate::outcome::{Failure, Outcome, Put};
use crate::stats::{self, Counters, Stats};

/// A batch on its way to the service task.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) puts: Vec<Put>,
    pub(crate) answer: oneshot::Sender<Vec<Outcome>>,
    pub(crate) permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(crate) enum Message {
    Put(Batch),
    Drain(oneshot::Sender<()>),
}

/// Gives records to a writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) queue: mpsc::Sender<Message>,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) config: Arc<Config>,
    pub(crate) counters: Arc<Counters>,
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The records that wait fill the budget.
    #[error(
        "the writer holds {limit} bytes of unanswered records, which is its limit; try again in {retry_after:?}"
    )]
    Full {
        /// `max_buffered_bytes`.
        limit: usize,
        /// When room is likely.
        retry_after: Duration,
    },
    /// The batch alone is larger than the budget.
    #[error(
        "the batch has {bytes} bytes, the writer takes {limit} at a time; split it, or raise max_buffered_bytes"
    )]
    BatchTooLarge {
        /// Its size.
        bytes: usize,
        /// `max_buffered_bytes`.
        limit: usize,
    },
    /// The writer stopped.
    #[error("the writer has stopped; use another one")]
    Stopped,
}

impl Refused {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::Full { .. } => "writer-full",
            Refused::BatchTooLarge { .. } => "batch-too-large",
            Refused::Stopped => "writer-stopped",
        }
    }

    /// Whether the same batch may be taken later, here or elsewhere.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Refused::BatchTooLarge { .. })
    }
}

/// What a record weighs in the budget: its bytes, and what holding it costs beside them.
pub(crate) fn weight(record: &Record) -> usize {
    record.user_bytes() + 256
}

pub(crate) fn check_size(config: &Config, put: &Put) -> Result<(), Failure> {
    // Beside the data there are at most a key, headers and an envelope, all of them bounded.
    const MOST_BESIDE_DATA: usize = 16 * 1024;
    let limit = config.max_record_bytes;
    if put.record.data.len() + MOST_BESIDE_DATA <= limit {
        return Ok(());
    }
    let label = headworks_record::key::MAX_KEY_CHARS;
    let bytes = aggregate::Builder::new().len_with(&put.record, put.origin.as_deref()) + label;
    if bytes > limit { Err(Failure::TooLarge { bytes, limit }) } else { Ok(()) }
}

impl Handle {
    /// Hands over a batch, waiting for room. Records of one key keep the order in which they are given.
    ///
    /// Dropping the ticket does not take the records back.
    pub async fn put(&self, puts: Vec<Put>) -> Result<Ticket, Refused> {
        let bytes = self.check(&puts)?;
        let permit =
            Arc::clone(&self.budget).acquire_many_owned(bytes).await.map_err(|_closed| Refused::Stopped)?;
        self.hand_over(puts, permit).await
    }

    /// Hands over a batch, or says at once that there is no room.
    pub async fn try_put(&self, puts: Vec<Put>) -> Result<Ticket, Refused> {
        let bytes = self.check(&puts)?;
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(bytes).map_err(|error| match error {
            TryAcquireError::Closed => Refused::Stopped,
            TryAcquireError::NoPermits => Refused::Full {
                limit: self.config.max_buffered_bytes,
                retry_after: Duration::from_millis(100),
            },
        })?;
        self.hand_over(puts, permit).await
    }

    /// Waits until every record that was given before is answered; lanes send without lingering.
    pub async fn drain(&self) {
        let (done, drained) = oneshot::channel();
        // A writer that has stopped has answered everything.
        if self.queue.send(Message::Drain(done)).await.is_ok() {
            let _ = drained.await;
        }
    }

    /// What the writer has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Bytes of records that are taken and not yet answered.
    pub fn buffered_bytes(&self) -> usize {
        self.config.max_buffered_bytes - self.budget.available_permits()
    }

    /// The settings in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a record fits into a Kinesis record of this stream.
    pub fn check_size(&self, put: &Put) -> Result<(), Failure> {
        check_size(&self.config, put)
    }

    fn check(&self, puts: &[Put]) -> Result<u32, Refused> {
        let limit = self.config.max_buffered_bytes;
        let bytes = puts.iter().map(|put| weight(&put.record)).sum::<usize>();
        match u32::try_from(bytes) {
            Ok(bytes) if bytes as usize <= limit => Ok(bytes),
            _ => Err(Refused::BatchTooLarge { bytes, limit }),
        }
    }

    async fn hand_over(&self, puts: Vec<Put>, permit: OwnedSemaphorePermit) -> Result<Ticket, Refused> {
        let (answer, outcomes) = oneshot::channel();
        let records = puts.len();
        let message = Message::Put(Batch { puts, answer, permit });
        self.queue.send(message).await.map_err(|_closed| Refused::Stopped)?;
        stats::add(&self.counters.records, records as u64);
        Ok(Ticket { outcomes, records })
    }
}

/// The outcomes of a batch, in the order in which the records were given.
#[derive(Debug)]
#[must_use = "dropping a ticket leaves the records on their way but forgets what becomes of them"]
pub struct Ticket {
    outcomes: oneshot::Receiver<Vec<Outcome>>,
    records: usize,
}

impl Future for Ticket {
    type Output = Vec<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        Pin::new(&mut self.outcomes).poll(cx).map(|outcomes| {
            // The service task was dropped: puts may have been in flight.
            outcomes.unwrap_or_else(|_gone| {
                let failure =
                    Failure::OutcomeUnknown { attempts: 0, last: "the writer's task was dropped".to_owned() };
                vec![Err(failure); self.records]
            })
        })
    }
}
