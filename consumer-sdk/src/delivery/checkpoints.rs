//! Checkpoints that a handler writes itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headworks_record::ShardId;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::lease::checkpointer::{Advance, Progress};
use crate::lease::{self, LeaseStore, PendingCheckpoint};
use crate::position::Position;
use crate::sync::lock;

/// Writes checkpoints of one shard; a handler gets it with its [`Opening`](crate::Opening). Clones are for
/// the same shard.
///
/// Every write is fenced: when the lease has gone to another worker it fails, and nothing is changed.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    shard: ShardId,
    store: Arc<dyn LeaseStore>,
    progress: Progress,
    call_timeout: Duration,
    delivered: Arc<Mutex<Option<Position>>>,
}

/// Why a checkpoint was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The position lies behind what was handed to the handler.
    #[error(
        "{shard} cannot be checkpointed at {}-{}: records were handed over only up to {reached}; checkpoint a record that the handler got",
        position.sequence, position.sub
    )]
    NotDelivered {
        /// The shard.
        shard: ShardId,
        /// The position.
        position: Position,
        /// The last record handed over.
        reached: String,
    },
    /// The lease is, or may be, another worker's.
    #[error(
        "{shard} cannot be checkpointed any more: its lease was given up or is another worker's; stop working on the shard"
    )]
    Lost {
        /// The shard.
        shard: ShardId,
    },
    /// The lease table refused the write.
    #[error(transparent)]
    Store(#[from] lease::Error),
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotDelivered { .. } => "checkpoint-not-delivered",
            Error::Lost { .. } => "lease-lost",
            Error::Store(source) => source.code(),
        }
    }

    /// Whether the same checkpoint may be written later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::NotDelivered { .. } | Error::Lost { .. } => false,
            Error::Store(source) => source.is_retryable(),
        }
    }
}

impl Checkpoints {
    pub(crate) fn new(
        shard: ShardId,
        store: Arc<dyn LeaseStore>,
        progress: Progress,
        call_timeout: Duration,
    ) -> Self {
        Self { shard, store, progress, call_timeout, delivered: Arc::default() }
    }

    pub(crate) fn handed_over(&self, position: Position) {
        let mut delivered = lock(&self.delivered);
        *delivered = Some(position).max(delivered.take());
    }

    /// Everything up to and including this position is done; returns when that is written. A position at or
    /// in front of the last checkpoint changes nothing.
    pub async fn write(&self, position: Position) -> Result<(), Error> {
        self.check(&position)?;
        match self.progress.write(position).await {
            true => Ok(()),
            false => Err(Error::Lost { shard: self.shard.clone() }),
        }
    }

    /// Announces a checkpoint, with what the next owner needs to know if this one gets no further, such as
    /// the name of a file. The next owner finds it in [`Opening::pending`](crate::Opening::pending), until
    /// any later checkpoint is written.
    pub async fn prepare(&self, position: Position, state: Option<Bytes>) -> Result<Prepared, Error> {
        self.check(&position)?;
        let pending = PendingCheckpoint { position: position.clone(), state };
        let (answer, answered) = oneshot::channel();
        let (store, limit) = (self.store.clone(), self.call_timeout);
        let accepted = self.progress.perform(Box::new(move |holding| {
            Box::pin(async move {
                let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
                loop {
                    match timeout(limit, store.prepare_checkpoint(&holding, &pending)).await {
                        Ok(Ok(holding)) => {
                            // Whoever asked may have gone; the lease says so all the same.
                            let _ = answer.send(Ok(()));
                            return Some(Advance { holding, checkpointed: None });
                        }
                        Ok(Err(error)) if !error.is_retryable() => {
                            let _ = answer.send(Err(error));
                            return None;
                        }
                        Ok(Err(error)) => tracing::warn!(%error, "a prepared checkpoint will be tried again"),
                        Err(_) => tracing::warn!("a prepared checkpoint got no answer"),
                    }
                    sleep(backoff.next_delay()).await;
                }
            })
        }));
        let lost = || Error::Lost { shard: self.shard.clone() };
        if !accepted.await {
            return Err(lost());
        }
        answered.await.map_err(|_| lost())??;
        Ok(Prepared { checkpoints: self.clone(), position })
    }

    fn check(&self, position: &Position) -> Result<(), Error> {
        let delivered = lock(&self.delivered).clone();
        if delivered.as_ref() >= Some(position) {
            return Ok(());
        }
        let reached = delivered.map_or_else(|| "none".to_owned(), |at| format!("{}-{}", at.sequence, at.sub));
        Err(Error::NotDelivered { shard: self.shard.clone(), position: position.clone(), reached })
    }
}

/// A checkpoint that was announced.
#[derive(Debug)]
#[must_use = "a prepared checkpoint moves nothing until it is committed"]
pub struct Prepared {
    checkpoints: Checkpoints,
    position: Position,
}

impl Prepared {
    /// The place that was announced.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Writes the checkpoint and ends the announcement.
    pub async fn commit(self) -> Result<(), Error> {
        self.checkpoints.write(self.position).await
    }
}
