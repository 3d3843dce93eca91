//! Handlers: called with one batch after another.

use std::any::Any;

use headworks_record::ShardId;

use super::attempts::Attempts;
use super::checkpoints::Checkpoints;
use super::{Delivery, Interrupt};
use crate::config::Checkpointing;
use crate::delivered::Batch;
use crate::lease::PendingCheckpoint;
use crate::lease::checkpointer::Progress;
use crate::position::{Checkpoint, Position};
use crate::shard::Session;

/// Works on the records of one shard, a batch at a time and in order.
///
/// ```
/// use headworks_consumer::{Batch, Handler, HandlerError};
///
/// struct Print;
///
/// impl Handler for Print {
///     async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
///         for delivered in &batch {
///             println!("{} {:?}", delivered.record.key, delivered.record.headers.get("type"));
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Handler: Send + 'static {
    /// Works on a batch. When it returns `Ok`, all of the batch is done and will be checkpointed; when it
    /// fails or panics, the same batch is tried again, later, and when it has failed too often
    /// [`Config::on_failure`](crate::Config::on_failure) says what happens. A panic costs the handler its
    /// life: the next attempt gets a new one from the factory.
    fn handle(&mut self, batch: Batch) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Called before the first batch, and again for a handler that takes the place of one that panicked. A
    /// failure counts as one of the first batch's attempts.
    fn open(&mut self, opening: Opening) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = opening;
        std::future::ready(Ok(()))
    }

    /// Called when no more batches come, unless the lease was lost. At the shard's end, `Ok` means that all
    /// of the shard is done; a failure is tried again, and then stops the consumer. When the shard is given
    /// up, it may still checkpoint; a failure is logged.
    fn close(&mut self, closing: Closing) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = closing;
        std::future::ready(Ok(()))
    }
}

/// With what a handler begins.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Opening {
    /// The shard.
    pub shard: ShardId,
    /// How far the shard was done.
    pub checkpoint: Checkpoint,
    /// What an earlier owner announced by [`Checkpoints::prepare`] and did not commit.
    pub pending: Option<PendingCheckpoint>,
    /// For handlers that checkpoint by themselves.
    pub checkpoints: Checkpoints,
}

/// Why no more batches come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closing {
    /// The shard was read to its end.
    ShardEnd,
    /// The shard is given up: the worker stops, or another worker takes over.
    Released,
}

/// Why a handler failed. Any error converts into one that is worth another attempt.
#[derive(Debug)]
pub struct HandlerError {
    source: Box<dyn std::error::Error + Send + Sync>,
    retryable: bool,
}

impl HandlerError {
    /// A failure that may pass: the batch is tried again.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into(), retryable: true }
    }

    /// A failure that no other attempt can mend.
    pub fn permanent(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into(), retryable: false }
    }

    /// Whether the batch is worth another attempt.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    pub(crate) fn into_source(self) -> Box<dyn std::error::Error + Send + Sync> {
        self.source
    }

    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self::new(format!("the handler panicked: {}", text.unwrap_or_else(|| "no message".to_owned())))
    }
}

impl std::fmt::Display for HandlerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source.fmt(f)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// Hands one batch after another to one handler.
pub(crate) struct Handling<H, F> {
    attempts: Attempts<H, F>,
    checkpointing: Checkpointing,
    checkpoints: Option<Checkpoints>,
}

impl<H: Handler, F: Fn(&ShardId) -> H + Send + Sync + 'static> Handling<H, F> {
    pub(crate) fn new(attempts: Attempts<H, F>, checkpointing: Checkpointing) -> Self {
        Self { attempts, checkpointing, checkpoints: None }
    }
}

impl<H: Handler, F: Fn(&ShardId) -> H + Send + Sync + 'static> Delivery for Handling<H, F> {
    fn open(&mut self, opening: Opening) {
        self.checkpoints = Some(opening.checkpoints.clone());
        self.attempts.open(opening);
    }

    async fn deliver(
        &mut self,
        batch: Batch,
        session: &Session,
        progress: &Progress,
    ) -> Result<(), Interrupt> {
        let end = batch.end().clone();
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.handed_over(end.clone());
        }
        self.attempts.work(batch, session).await?;
        match self.checkpointing {
            Checkpointing::Manual => {}
            Checkpointing::Periodic => progress.done(end),
            Checkpointing::PerBatch => {
                let written = tokio::select! {
                    biased;
                    written = progress.write(end) => written,
                    () = session.over() => false,
                };
                if !written {
                    return Err(Interrupt::Session);
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, position: Position, progress: &Progress) {
        if self.checkpointing != Checkpointing::Manual {
            progress.done(position);
        }
    }

    async fn settle(&mut self, session: &Session) -> Result<(), Interrupt> {
        // A batch that was delivered is done.
        self.attempts.close(Closing::ShardEnd, session).await
    }

    async fn drain(&mut self, session: &Session) {
        // Its failures were logged.
        let _ = self.attempts.close(Closing::Released, session).await;
    }
}
