//! Reads one shard and delivers its records, until it ends or is given up.

use std::sync::Arc;
use std::time::SystemTime;

use bytestring::ByteString;
use headworks_record::ShardId;
use tokio_util::task::AbortOnDropHandle;

use super::held::{Exit, Held, retries};
use crate::admin::resolve;
use crate::dead_letter::{DeadLetter, write_before_moving_on};
use crate::dedup::Window;
use crate::delivered::Batch;
use crate::delivery::{Checkpoints, Delivery, Opening};
use crate::error::Error;
use crate::fanout::{Fetched, Fetcher, Ownership};
use crate::lease;
use crate::lease::checkpointer::{Checkpointer, Last, Progress, Renewal};
use crate::position::{Checkpoint, Position};
use crate::reader::{Reader, Rejected};
use crate::spans;
use crate::streams::{Event, ShardInfo, StreamShard};

/// How a shard's reading ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The shard was read to its end.
    Ended,
    /// The lease was given up.
    Released,
    /// The lease is, or may be, another worker's.
    Lost,
    /// The consumer has to stop.
    Failed(Error),
}

/// Reads one shard.
pub(crate) struct Worker<D> {
    held: Held,
    delivery: D,
    // Records know their stream and their shard by its own name; aggregates are labelled with that, too.
    stream: ByteString,
    shard: ShardId,
    // Built when the first records come, unless repeats are not looked for.
    window: Option<Window>,
}

impl<D: Delivery> Worker<D> {
    pub(crate) fn new(held: Held, delivery: D) -> Self {
        let StreamShard { stream, shard } = StreamShard::of(&held.lease.shard);
        let stream = match stream {
            Some(stream) => stream.name().clone(),
            None => held.context.config.stream_name().into(),
        };
        Self { held, delivery, stream, shard, window: None }
    }

    pub(crate) async fn run(mut self) -> Outcome {
        let Some(holding) = self.held.lease.holding() else { return Outcome::Lost };
        let config = self.held.context.config.clone();
        let mut checkpointer = Checkpointer::start(
            self.held.context.store.clone(),
            holding,
            config.checkpoint_interval,
            config.call_timeout,
            config.renew_leases_every.map(|every| {
                let session = self.held.session.clone();
                Renewal { every, admitted: Box::new(move || session.admit()) }
            }),
            self.held.session.lost_token(),
            self.held.gauge.clone(),
        );
        self.delivery.open(Opening {
            shard: self.held.lease.shard.clone(),
            checkpoint: self.held.lease.checkpoint.clone(),
            pending: self.held.lease.pending.clone(),
            checkpoints: Checkpoints::new(
                self.held.lease.shard.clone(),
                self.held.context.store.clone(),
                checkpointer.progress(),
                config.call_timeout,
            ),
        });
        let exit = self.read(&mut checkpointer).await;
        self.finish(exit, checkpointer).await
    }

    async fn read(&mut self, checkpointer: &mut Checkpointer) -> Exit {
        let config = self.held.context.config.clone();
        let range = match self.held.range().await {
            Ok(range) => range,
            Err(exit) => return exit,
        };
        let (from, done) = self.held.starting_point();
        let ownership = Ownership {
            store: self.held.context.store.clone(),
            shard: self.held.lease.shard.clone(),
            worker: config.worker_id.clone(),
            limit: config.call_timeout,
        };
        let (fetcher, mut events) = Fetcher::new(
            self.held.context.streams.clone(),
            ownership,
            config.clone(),
            self.held.context.consumer_arns.of(&self.held.lease.shard),
            from,
        );
        let _fetching = AbortOnDropHandle::new(tokio::spawn(fetcher.run()));
        let mut reader = Reader::new(
            self.stream.clone(),
            self.shard.clone(),
            range,
            config.foreign,
            config.undecodable,
            done,
        );
        let progress = checkpointer.progress();
        let mut wishes = self.held.gauge.seeks();
        let mut anchor = self.held.anchor();
        let mut durable = matches!(self.held.lease.checkpoint, Checkpoint::At(_));
        loop {
            let fetched = tokio::select! {
                biased;
                () = self.held.session.over() => return Exit::Stopped,
                error = self.delivery.failure() => return Exit::Failed(error),
                Some(seek) = wishes.recv() => {
                    let shard = &self.held.lease.shard;
                    match resolve(self.held.context.streams.as_ref(), shard, &seek.target).await {
                        Ok(to) => return Exit::Moved(to, seek.answer),
                        Err(error) => {
                            // Whoever asked may have gone; the shard is read on.
                            let _ = seek.answer.send(Err(self.held.context.stream_error(error)));
                            continue;
                        }
                    }
                }
                fetched = events.recv() => fetched,
            };
            // The permit is held until the event is done: it bounds what is read ahead.
            let (event, received, _permit) = match fetched {
                Some(Fetched::Event { event, received, permit }) => (event, received, permit),
                Some(Fetched::Polling) => {
                    self.held.gauge.polled();
                    continue;
                }
                Some(Fetched::Superseded) => return Exit::Lost,
                Some(Fetched::Failed(error)) => return Exit::Failed(self.held.context.stream_error(error)),
                Some(Fetched::Gone(error)) => match self.held.gone(error).await {
                    Ok(children) => return Exit::Ended(children),
                    Err(exit) => return exit,
                },
                None => {
                    let reason = "its fetcher ended without a word".to_owned();
                    return Exit::Failed(Error::Internal { shard: self.held.lease.shard.clone(), reason });
                }
            };
            let first = event.records.first().map(|record| &record.sequence_number);
            let (ended, at_tip) = (event.end.is_some(), event.millis_behind == 0);
            if (first.is_some() || ended || at_tip)
                && let Some(at) = anchor.take()
            {
                if self.held.is_trimmed(&at, first, ended).await {
                    self.held.trimmed(at.sequence, first.cloned());
                } else if first.is_none() && !ended {
                    // The record may come yet.
                    anchor = Some(at);
                }
            }
            if !durable && let Some(position) = place_before(&event) {
                // A start that is only a word in the lease would begin elsewhere after a fail-over.
                let written = tokio::select! {
                    biased;
                    written = checkpointer.write_now(position) => written,
                    () = self.held.session.over() => return Exit::Stopped,
                };
                if !written {
                    return Exit::Lost;
                }
                durable = true;
            }
            if self.window.is_none()
                && !config.dedup_window.is_zero()
                && let Some(first) = event.records.first()
            {
                match self.held.window(range, first.arrival_ms).await {
                    Ok(window) => self.window = Some(window),
                    Err(exit) => return exit,
                }
            }
            if let Err(exit) = self.deliver(&mut reader, &event, received, &progress).await {
                return exit;
            }
            self.held.gauge.behind(event.millis_behind);
            if let Some(children) = event.end {
                return Exit::Ended(children);
            }
        }
    }

    async fn deliver(
        &mut self,
        reader: &mut Reader,
        event: &Event,
        received: SystemTime,
        progress: &Progress,
    ) -> Result<(), Exit> {
        let mut read = reader.read(event, received);
        self.held.gauge.count(&read.counts);
        self.held.gauge.received(event, read.records.len());
        self.held.session.read(event.bytes());
        self.put_away(std::mem::take(&mut read.rejected)).await?;
        if let Some(window) = &mut self.window {
            self.held.gauge.dropped(&window.drop_repeats(&mut read.records));
        }
        spans::received(&self.held.context.tracer, event, &read.records, received);
        let most = self.held.context.config.max_batch_records;
        let end = read.end.take();
        let records = Arc::new(std::mem::take(&mut read.records));
        let mut begin = 0;
        while begin < records.len() {
            if self.held.session.is_over() {
                return Err(Exit::Stopped);
            }
            let part = begin..records.len().min(begin + most);
            begin = part.end;
            let position = match (&end, records.get(part.end), records.get(part.end - 1)) {
                // Behind the last record there may be more that is rightly left out.
                (Some(end), None, _) => end.clone(),
                (_, _, Some(last)) => last.position(),
                (_, _, None) => break,
            };
            let shard = self.shard.clone();
            let batch = Batch::part_of(shard, records.clone(), part, position, event.millis_behind);
            self.delivery.deliver(batch, &self.held.session, progress).await?;
        }
        if !records.is_empty() {
            return match read.stopped {
                Some(error) => Err(Exit::Failed(error.into())),
                None => Ok(()),
            };
        }
        if let Some(end) = end {
            self.delivery.skip(end, progress);
        }
        match read.stopped {
            Some(error) => Err(Exit::Failed(error.into())),
            None => Ok(()),
        }
    }

    /// What cannot be taken apart is durable elsewhere before anything behind it is delivered.
    async fn put_away(&mut self, rejected: Vec<Rejected>) -> Result<(), Exit> {
        let context = &self.held.context;
        for Rejected { whole, error } in rejected {
            let Some(letters) = &context.letters else { return Err(Exit::Failed(error.into())) };
            let (application, message) = (&context.config.application, error.to_string());
            let letter = DeadLetter::new(application, error.code(), &message, 0, whole, true);
            let limit = context.config.call_timeout;
            write_before_moving_on(letters, &letter, limit, &self.held.session).await?;
            tracing::warn!(origin = letter.origin(), message, "a dead letter was written");
            self.held.gauge.dead_lettered(1);
        }
        Ok(())
    }

    async fn finish(mut self, exit: Exit, checkpointer: Checkpointer) -> Outcome {
        let exit = match exit {
            Exit::Ended(children) => match self.end(children).await {
                Ok(children) => match checkpointer.finish(Last::ShardEnd { children }).await {
                    Ok(()) => return Outcome::Ended,
                    Err(error) => return ended_by(error),
                },
                Err(exit) => (exit, checkpointer),
            },
            exit => (exit, checkpointer),
        };
        let (exit, checkpointer) = exit;
        if self.held.session.is_lost() || matches!(exit, Exit::Lost) {
            self.held.session.lose();
            let outcome = checkpointer.abandon().await.err().map(ended_by).unwrap_or(Outcome::Lost);
            return match exit {
                Exit::Failed(error) => Outcome::Failed(error),
                _ => outcome,
            };
        }
        // What the caller still has in hand may be acknowledged; the whole drain is bounded elsewhere too.
        let drain = tokio::time::timeout(
            self.held.context.config.drain_timeout,
            self.delivery.drain(&self.held.session),
        );
        tokio::select! {
            biased;
            drained = drain => if drained.is_err() {
                tracing::warn!(shard = %self.held.lease.shard, "records in hand were not finished in time");
            },
            () = self.held.session.lost_token().cancelled_owned() => {}
        }
        self.held.session.lose();
        if let Exit::Moved(to, answer) = exit {
            return match checkpointer.finish(Last::Move { to: to.clone() }).await {
                Ok(()) => {
                    tracing::info!(shard = %self.held.lease.shard, checkpoint = %to.text(), "the shard was moved");
                    // Whoever asked may have gone.
                    let _ = answer.send(Ok(to));
                    Outcome::Released
                }
                Err(error) => ended_by(error),
            };
        }
        let released = match &exit {
            Exit::Failed(_) => {
                // The failure is what matters: giving up the lease is tried for a moment only.
                let limit = self.held.context.config.call_timeout;
                tokio::time::timeout(limit, checkpointer.finish(Last::Release)).await.unwrap_or(Ok(()))
            }
            _ => checkpointer.finish(Last::Release).await,
        };
        match (exit, released) {
            (Exit::Failed(error), _) => Outcome::Failed(error),
            (_, Ok(())) => Outcome::Released,
            (_, Err(error)) => ended_by(error),
        }
    }

    /// Sees to it that nothing of the shard is open and that its children have their leases.
    async fn end(&mut self, children: Vec<ShardInfo>) -> Result<Vec<ShardId>, Exit> {
        self.delivery.settle(&self.held.session).await?;
        if let Some(window) = self.window.take() {
            // Before a child can be claimed.
            self.held.context.handover.put(self.held.lease.shard.clone(), window);
        }
        let mut backoff = retries();
        loop {
            if !self.held.session.admit() {
                return Err(Exit::Lost);
            }
            match self.held.create_children(&children).await {
                Ok(children) => return Ok(children),
                Err(error) if error.is_retryable() => {
                    tracing::warn!(shard = %self.held.lease.shard, %error, "the shard's end will be tried again");
                }
                Err(error) => return Err(Exit::Failed(error)),
            }
            if self.held.session.over_within(backoff.next_delay()).await {
                return Err(Exit::Stopped);
            }
        }
    }
}

/// The place of a start that was only a word until its first event came.
fn place_before(event: &Event) -> Option<Position> {
    match (event.records.first(), &event.continuation) {
        (Some(first), _) => Some(Position::before(first.sequence_number.clone())),
        (None, Some(continuation)) => Some(Position::past(continuation.clone())),
        (None, None) => None,
    }
}

/// What a refused write means for the shard.
fn ended_by(error: lease::Error) -> Outcome {
    match error {
        lease::Error::Conflict { .. } => Outcome::Lost,
        error => Outcome::Failed(error.into()),
    }
}
