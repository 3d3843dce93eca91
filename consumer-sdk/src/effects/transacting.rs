//! Delivers batches as transactions.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use headworks_record::ShardId;
use headworks_telemetry::RecordTracer;
use tokio::sync::oneshot;

use super::commit::{Committer, Outcome};
use super::part::{Effect, pack};
use super::{Effects, Error};
use crate::backoff::Backoff;
use crate::config::OnFailure;
use crate::dead_letter::{DeadLetter, write_before_moving_on};
use crate::delivered::{Batch, Delivered};
use crate::delivery::attempts::Policy;
use crate::delivery::{Delivery, HandlerError, Interrupt};
use crate::handle::ShardGauge;
use crate::lease;
use crate::lease::checkpointer::{Advance, Progress};
use crate::position::Position;
use crate::shard::Session;

/// Asks for effects and commits them.
pub(crate) struct Transacting<E, F> {
    effects: E,
    factory: Arc<F>,
    shard: ShardId,
    policy: Arc<Policy>,
    committer: Committer,
    tracer: RecordTracer,
    gauge: ShardGauge,
}

impl<E: Effects, F: Fn(&ShardId) -> E + Send + Sync + 'static> Transacting<E, F> {
    pub(crate) fn new(
        factory: Arc<F>,
        shard: ShardId,
        policy: Arc<Policy>,
        committer: Committer,
        tracer: RecordTracer,
        gauge: ShardGauge,
    ) -> Self {
        Self { effects: factory(&shard), factory, shard, policy, committer, tracer, gauge }
    }

    /// The record's effects, after as many attempts as configured; `None` if it became a dead letter.
    async fn effects_of(
        &mut self,
        delivered: &Delivered,
        session: &Session,
    ) -> Result<Option<Effect>, Interrupt> {
        let mut backoff = Backoff::new(self.policy.retry.min_delay, self.policy.retry.max_delay);
        let mut attempt = 0;
        loop {
            if !session.admit() {
                return Err(Interrupt::Session);
            }
            attempt += 1;
            let made = AssertUnwindSafe(self.effects.effects(delivered)).catch_unwind().await;
            let error = match made {
                Ok(Ok(actions)) => {
                    let effect = Effect { delivered: delivered.clone(), actions };
                    match effect.check() {
                        Ok(()) => return Ok(Some(effect)),
                        Err(error) => return self.refuse(delivered, error, session).await.map(|()| None),
                    }
                }
                Ok(Err(error)) => error,
                Err(payload) => {
                    self.effects = (self.factory)(&self.shard);
                    HandlerError::panicked(payload)
                }
            };
            self.gauge.handler_failed();
            tracing::warn!(shard = %self.shard, attempt, %error, "the effects of a record could not be told");
            if attempt >= self.policy.retry.attempts || !error.is_retryable() {
                return self
                    .give_up(delivered, "handler-failed", error, attempt, session)
                    .await
                    .map(|()| None);
            }
            if session.over_within(backoff.next_delay()).await {
                return Err(Interrupt::Session);
            }
        }
    }

    async fn refuse(
        &mut self,
        delivered: &Delivered,
        error: Error,
        session: &Session,
    ) -> Result<(), Interrupt> {
        let code = error.code();
        self.give_up(delivered, code, HandlerError::permanent(error), 1, session).await
    }

    /// A record that cannot have its effects: a dead letter, or the end of the consumer.
    async fn give_up(
        &mut self,
        delivered: &Delivered,
        code: &'static str,
        error: HandlerError,
        attempts: u32,
        session: &Session,
    ) -> Result<(), Interrupt> {
        let (OnFailure::DeadLetter, Some(letters)) = (self.policy.on_failure, &self.policy.letters) else {
            return Err(Interrupt::Failed(crate::Error::Handler {
                shard: self.shard.clone(),
                sequence_number: delivered.sequence_number.clone(),
                attempts,
                source: error.into_source(),
            }));
        };
        let application = &self.policy.application;
        let letter =
            DeadLetter::new(application, code, &error.to_string(), attempts, delivered.clone(), false);
        write_before_moving_on(letters, &letter, self.policy.call_timeout, session).await?;
        tracing::warn!(shard = %self.shard, origin = letter.origin(), %error, "a dead letter was written");
        self.gauge.dead_lettered(1);
        Ok(())
    }

    /// Commits a part and everything up to `end`, dropping what turns out to have been done before.
    async fn commit(
        &mut self,
        part: Vec<Effect>,
        end: Position,
        session: &Session,
        progress: &Progress,
    ) -> Result<(), Interrupt> {
        let mut open = vec![(part, end)];
        while let Some((mut part, end)) = open.pop() {
            if part.is_empty() {
                // What was in it is a repeat or a dead letter.
                progress.done(end);
                continue;
            }
            if !session.admit() {
                return Err(Interrupt::Session);
            }
            let started = std::time::SystemTime::now();
            match self.transact(part.clone(), end.clone(), session, progress).await? {
                Outcome::Committed => {
                    self.gauge.delivered(part.len());
                    for effect in &part {
                        crate::spans::processed_one(&self.tracer, &effect.delivered, started);
                    }
                }
                Outcome::Repeats(places) => {
                    self.gauge.repeated(places.len() as u64);
                    let mut place = 0;
                    part.retain(|_| {
                        place += 1;
                        !places.contains(&(place - 1))
                    });
                    open.push((part, end));
                }
                Outcome::Refused { record, reason } if record < part.len() => {
                    // Those in front of it are committed before it is given up.
                    let after = part.split_off(record + 1);
                    if part.len() > 1
                        && let (Some(refused), Some(before)) = (part.pop(), part.last())
                    {
                        let position = before.delivered.position();
                        let rest: Vec<Effect> = std::iter::once(refused).chain(after).collect();
                        open.push((rest, end));
                        open.push((part, position));
                    } else if let Some(refused) = part.pop() {
                        self.refuse(&refused.delivered, Error::Refused { reason }, session).await?;
                        open.push((after, end));
                    }
                }
                Outcome::RefusedWhole { .. } if part.len() > 1 => {
                    // A single record tells which one it is, and an item touched twice is then touched once.
                    let after = part.split_off(part.len() / 2);
                    let middle = part.last().map_or_else(|| end.clone(), |last| last.delivered.position());
                    open.push((after, end));
                    open.push((part, middle));
                }
                Outcome::Refused { reason, .. } | Outcome::RefusedWhole { reason } => {
                    if let Some(refused) = part.pop() {
                        self.refuse(&refused.delivered, Error::Refused { reason }, session).await?;
                    }
                    open.push((part, end));
                }
                Outcome::Lost(lease::Error::Conflict { .. }) => {
                    session.lose();
                    return Err(Interrupt::Session);
                }
                Outcome::Lost(error) => return Err(Interrupt::Failed(error.into())),
            }
        }
        Ok(())
    }

    /// One transaction, in turn with the shard's other writes.
    async fn transact(
        &mut self,
        part: Vec<Effect>,
        end: Position,
        session: &Session,
        progress: &Progress,
    ) -> Result<Outcome, Interrupt> {
        let (answer, answered) = oneshot::channel();
        let committer = self.committer.clone();
        let accepted = progress.perform(Box::new(move |holding| {
            Box::pin(async move {
                let (outcome, next) = committer.commit(holding, &part, &end).await;
                // The worker may have been told to stop meanwhile; the lease says what was committed.
                let _ = answer.send(outcome);
                next.map(|holding| Advance { holding, checkpointed: Some(end) })
            })
        }));
        if !accepted.await {
            return Err(Interrupt::Session);
        }
        tokio::select! {
            biased;
            outcome = answered => outcome.map_err(|_| Interrupt::Session),
            () = session.over() => Err(Interrupt::Session),
        }
    }
}

impl<E: Effects, F: Fn(&ShardId) -> E + Send + Sync + 'static> Delivery for Transacting<E, F> {
    async fn deliver(
        &mut self,
        batch: Batch,
        session: &Session,
        progress: &Progress,
    ) -> Result<(), Interrupt> {
        let mut effects = Vec::with_capacity(batch.len());
        for delivered in &batch {
            effects.extend(self.effects_of(delivered, session).await?);
        }
        let parts = pack(effects);
        let last = parts.len().saturating_sub(1);
        if parts.is_empty() {
            progress.done(batch.end().clone());
        }
        for (place, part) in parts.into_iter().enumerate() {
            let end = match part.last() {
                Some(effect) if place < last => effect.delivered.position(),
                // Behind the last one there may be dead letters, and what is rightly left out.
                _ => batch.end().clone(),
            };
            self.commit(part, end, session, progress).await?;
        }
        Ok(())
    }

    fn skip(&mut self, position: Position, progress: &Progress) {
        progress.done(position);
    }

    async fn settle(&mut self, _session: &Session) -> Result<(), Interrupt> {
        Ok(())
    }

    async fn drain(&mut self, _session: &Session) {}
}
