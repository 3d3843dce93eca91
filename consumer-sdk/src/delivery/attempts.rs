//! A handler's attempts on a batch: retries with backoff, a new handler after a panic, dead letters.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use headworks_record::ShardId;
use headworks_telemetry::RecordTracer;

use super::Interrupt;
use super::handler::{Closing, Handler, HandlerError, Opening};
use crate::backoff::Backoff;
use crate::config::{HandlerRetry, OnFailure};
use crate::dead_letter::{DeadLetter, DeadLetters, write_before_moving_on};
use crate::delivered::Batch;
use crate::error::Error;
use crate::handle::ShardGauge;
use crate::shard::Session;
use crate::spans;

/// The stable code of a failed handler, as in `docs/errors/`.
const HANDLER_FAILED: &str = "handler-failed";

/// What is done about handlers that fail.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) application: String,
    pub(crate) retry: HandlerRetry,
    pub(crate) on_failure: OnFailure,
    pub(crate) letters: Option<Arc<dyn DeadLetters>>,
    pub(crate) call_timeout: Duration,
}

/// Calls one handler, and makes a new one after a panic.
pub(crate) struct Attempts<H, F> {
    handler: H,
    factory: Arc<F>,
    shard: ShardId,
    policy: Arc<Policy>,
    tracer: RecordTracer,
    gauge: ShardGauge,
    opening: Option<Opening>,
    opened: bool,
}

/// How the attempts on a batch ended.
enum Tried {
    Done,
    GivenUp { error: HandlerError, attempts: u32 },
}

impl<H: Handler, F: Fn(&ShardId) -> H + Send + Sync + 'static> Attempts<H, F> {
    pub(crate) fn new(
        factory: Arc<F>,
        shard: ShardId,
        policy: Arc<Policy>,
        tracer: RecordTracer,
        gauge: ShardGauge,
    ) -> Self {
        let handler = factory(&shard);
        Self { handler, factory, shard, policy, tracer, gauge, opening: None, opened: false }
    }

    pub(crate) fn open(&mut self, opening: Opening) {
        self.opening = Some(opening);
        self.opened = false;
    }

    /// Works on a batch until each of its records is done or a dead letter.
    pub(crate) async fn work(&mut self, batch: Batch, session: &Session) -> Result<(), Interrupt> {
        let mut parts = vec![(batch, self.policy.retry.attempts)];
        while let Some((part, attempts)) = parts.pop() {
            let (error, attempts) = match self.tries(&part, attempts, session).await? {
                Tried::Done => {
                    self.gauge.delivered(part.len());
                    continue;
                }
                Tried::GivenUp { error, attempts } => (error, attempts),
            };
            let first = part.records().first();
            let (OnFailure::DeadLetter, Some(letters)) = (self.policy.on_failure, &self.policy.letters)
            else {
                let sequence_number = first.map(|first| first.sequence_number.clone());
                return Err(Interrupt::Failed(Error::Handler {
                    shard: self.shard.clone(),
                    sequence_number: sequence_number.unwrap_or_else(|| part.end().sequence.clone()),
                    attempts,
                    source: error.into_source(),
                }));
            };
            if let Some((left, right)) = part.halves().filter(|_| part.len() > 1) {
                // The batch had its attempts; only what is left of it in the end gets all of them again.
                for half in [right, left] {
                    let attempts = if half.len() == 1 { self.policy.retry.attempts } else { 1 };
                    parts.push((half, attempts));
                }
            } else if let Some(record) = first {
                let (application, message) = (&self.policy.application, error.to_string());
                let letter =
                    DeadLetter::new(application, HANDLER_FAILED, &message, attempts, record.clone(), false);
                write_before_moving_on(letters, &letter, self.policy.call_timeout, session).await?;
                tracing::warn!(shard = %self.shard, origin = letter.origin(), message, "a dead letter was written");
                self.gauge.dead_lettered(1);
            }
        }
        Ok(())
    }

    async fn tries(&mut self, batch: &Batch, most: u32, session: &Session) -> Result<Tried, Interrupt> {
        let mut backoff = Backoff::new(self.policy.retry.min_delay, self.policy.retry.max_delay);
        let mut attempt = 0;
        loop {
            if !session.admit() {
                return Err(Interrupt::Session);
            }
            attempt += 1;
            let started = SystemTime::now();
            let Err(error) = self.attempt(batch).await else {
                spans::processed(&self.tracer, batch, started);
                return Ok(Tried::Done);
            };
            self.gauge.handler_failed();
            let given_up = attempt >= most || !error.is_retryable();
            // A batch that will be halved is not lost yet.
            let last = given_up && (batch.len() == 1 || self.policy.on_failure == OnFailure::Stop);
            tracing::warn!(shard = %self.shard, attempt, last, %error, "the handler failed");
            spans::failed(&self.tracer, batch, started, &error.to_string(), last);
            if given_up {
                return Ok(Tried::GivenUp { error, attempts: attempt });
            }
            if session.over_within(backoff.next_delay()).await {
                return Err(Interrupt::Session);
            }
        }
    }

    async fn attempt(&mut self, batch: &Batch) -> Result<(), HandlerError> {
        self.ensure_open().await?;
        match AssertUnwindSafe(self.handler.handle(batch.clone())).catch_unwind().await {
            Ok(result) => result,
            Err(payload) => Err(self.replace(payload)),
        }
    }

    async fn ensure_open(&mut self) -> Result<(), HandlerError> {
        let Some(opening) = self.opening.clone().filter(|_| !self.opened) else { return Ok(()) };
        match AssertUnwindSafe(self.handler.open(opening)).catch_unwind().await {
            Ok(result) => result?,
            Err(payload) => return Err(self.replace(payload)),
        }
        self.opened = true;
        Ok(())
    }

    fn replace(&mut self, payload: Box<dyn std::any::Any + Send>) -> HandlerError {
        self.handler = (self.factory)(&self.shard);
        self.opened = false;
        HandlerError::panicked(payload)
    }

    /// Tells the handler that nothing more comes; at a shard's end until it agrees.
    pub(crate) async fn close(&mut self, closing: Closing, session: &Session) -> Result<(), Interrupt> {
        let mut backoff = Backoff::new(self.policy.retry.min_delay, self.policy.retry.max_delay);
        for attempt in 1.. {
            if !self.opened {
                // It never got a batch, or its successor did not.
                return Ok(());
            }
            let Err(error) = self.try_close(closing).await else { return Ok(()) };
            self.gauge.handler_failed();
            tracing::warn!(shard = %self.shard, attempt, %error, "the handler failed to close");
            if closing == Closing::Released {
                return Ok(());
            }
            if attempt >= self.policy.retry.attempts || !error.is_retryable() {
                let sequence_number = self.gauge.checkpoint().map(|position| position.sequence);
                return Err(Interrupt::Failed(Error::Close {
                    shard: self.shard.clone(),
                    sequence_number,
                    attempts: attempt,
                    source: error.into_source(),
                }));
            }
            if session.over_within(backoff.next_delay()).await {
                return Err(Interrupt::Session);
            }
        }
        Ok(())
    }

    async fn try_close(&mut self, closing: Closing) -> Result<(), HandlerError> {
        match AssertUnwindSafe(self.handler.close(closing)).catch_unwind().await {
            Ok(result) => result,
            Err(payload) => Err(HandlerError::panicked(payload)),
        }
    }
}
