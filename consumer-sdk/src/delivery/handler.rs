//! Handlers: called with one batch after another, tried again when they fail.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt;
use headworks_record::ShardId;
use headworks_telemetry::RecordTracer;

use super::{Delivery, Interrupt};
use crate::backoff::Backoff;
use crate::config::HandlerRetry;
use crate::delivered::Batch;
use crate::error::Error;
use crate::handle::ShardGauge;
use crate::lease::checkpointer::Progress;
use crate::position::Position;
use crate::shard::Session;
use crate::spans;

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
    /// fails or panics, the same batch is tried again, later, and the consumer stops when it has failed
    /// too often. A panic costs the handler its life: the next attempt gets a new one from the factory.
    fn handle(&mut self, batch: Batch) -> impl Future<Output = Result<(), HandlerError>> + Send;
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

    /// A failure that no other attempt can mend: the consumer stops.
    pub fn permanent(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into(), retryable: false }
    }

    /// Whether the batch is worth another attempt.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    fn panicked(payload: Box<dyn Any + Send>) -> Self {
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

/// Calls a handler, and makes a new one after a panic.
pub(crate) struct Handling<H, F> {
    handler: H,
    factory: Arc<F>,
    shard: ShardId,
    retry: HandlerRetry,
    tracer: RecordTracer,
    gauge: ShardGauge,
}

impl<H: Handler, F: Fn(&ShardId) -> H + Send + Sync + 'static> Handling<H, F> {
    pub(crate) fn new(
        factory: Arc<F>,
        shard: ShardId,
        retry: HandlerRetry,
        tracer: RecordTracer,
        gauge: ShardGauge,
    ) -> Self {
        Self { handler: factory(&shard), factory, shard, retry, tracer, gauge }
    }

    async fn attempt(&mut self, batch: &Batch) -> Result<(), HandlerError> {
        match AssertUnwindSafe(self.handler.handle(batch.clone())).catch_unwind().await {
            Ok(result) => result,
            Err(payload) => {
                self.handler = (self.factory)(&self.shard);
                Err(HandlerError::panicked(payload))
            }
        }
    }
}

impl<H: Handler, F: Fn(&ShardId) -> H + Send + Sync + 'static> Delivery for Handling<H, F> {
    async fn deliver(
        &mut self,
        batch: Batch,
        session: &Session,
        progress: &Progress,
    ) -> Result<(), Interrupt> {
        let mut backoff = Backoff::new(self.retry.min_delay, self.retry.max_delay);
        for attempt in 1.. {
            if !session.admit() {
                return Err(Interrupt::Session);
            }
            let started = SystemTime::now();
            let Err(error) = self.attempt(&batch).await else {
                spans::processed(&self.tracer, &batch, started);
                self.gauge.delivered(batch.len());
                progress.done(batch.end().clone());
                return Ok(());
            };
            self.gauge.handler_failed();
            let last = attempt >= self.retry.attempts || !error.is_retryable();
            tracing::warn!(shard = %self.shard, attempt, last, %error, "the handler failed");
            spans::failed(&self.tracer, &batch, started, &error.to_string(), last);
            if last {
                let first = batch.records().first().map(|first| first.sequence_number.clone());
                return Err(Interrupt::Failed(Error::Handler {
                    shard: self.shard.clone(),
                    sequence_number: first.unwrap_or_else(|| batch.end().sequence.clone()),
                    attempts: attempt,
                    source: error.source,
                }));
            }
            if session.over_within(backoff.next_delay()).await {
                return Err(Interrupt::Session);
            }
        }
        Ok(())
    }

    fn skip(&mut self, position: Position, progress: &Progress) {
        progress.done(position);
    }

    async fn settle(&mut self, _session: &Session) -> Result<(), Interrupt> {
        // A batch that was delivered is done.
        Ok(())
    }

    async fn drain(&mut self) {}
}
