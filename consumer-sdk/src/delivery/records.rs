//! A stream of records that the caller acknowledges.

use std::collections::VecDeque;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use futures_util::{FutureExt, Stream, StreamExt};
use headworks_telemetry::RecordTracer;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;

use super::tracker::{Counts, Ticket, Tracker};
use super::{Delivery, Interrupt};
use crate::consumer::Summary;
use crate::delivered::{Batch, Delivered};
use crate::error::Error;
use crate::handle::{Handle, ShardGauge};
use crate::lease::checkpointer::Progress;
use crate::position::Position;
use crate::shard::Session;
use crate::spans;

/// Parts of batches on their way to the caller; their records are bounded by `max_unacknowledged`.
pub(crate) const QUEUED_PARTS: usize = 64;

/// A record that waits to be acknowledged.
///
/// The shard is checkpointed up to the first record that is not acknowledged, so they may be acknowledged
/// in any order. A record that is dropped without being acknowledged holds the checkpoint in front of it
/// for good: it comes again after a restart, and when the shard ends or `max_unacknowledged` records wait
/// behind it, the consumer stops with an error.
#[derive(Debug)]
pub struct Pending {
    delivered: Delivered,
    ticket: Ticket,
    shard: Arc<Shard>,
    // When the caller got it; only for records whose span is wanted.
    handed_out: Option<SystemTime>,
}

/// What all records of a shard have in common.
#[derive(Debug)]
struct Shard {
    session: Session,
    tracer: RecordTracer,
}

impl Pending {
    /// The record is done.
    pub fn ack(self) -> Delivered {
        if let Some(started) = self.handed_out {
            spans::processed_one(&self.shard.tracer, &self.delivered, started);
        }
        self.ticket.acknowledge();
        self.delivered
    }
}

impl Deref for Pending {
    type Target = Delivered;

    fn deref(&self) -> &Delivered {
        &self.delivered
    }
}

/// The records of all shards that this worker reads, in order within each shard; made by
/// [`Consumer::stream`](crate::Consumer::stream).
///
/// It ends after the consumer was told to shut down, and yields an error, as its last item, if the consumer
/// stopped because of one. Dropping it shuts the consumer down without waiting.
#[derive(Debug)]
pub struct Records {
    parts: mpsc::Receiver<Vec<Pending>>,
    ready: VecDeque<Pending>,
    task: Option<AbortOnDropHandle<Result<Summary, Error>>>,
    summary: Option<Summary>,
    handle: Handle,
    _shutdown: DropGuard,
}

impl Records {
    pub(crate) fn new(
        parts: mpsc::Receiver<Vec<Pending>>,
        task: AbortOnDropHandle<Result<Summary, Error>>,
        handle: Handle,
        shutdown: DropGuard,
    ) -> Self {
        Self { parts, ready: VecDeque::new(), task: Some(task), summary: None, handle, _shutdown: shutdown }
    }

    /// The next record; `None` when the consumer has stopped.
    pub async fn next(&mut self) -> Option<Result<Pending, Error>> {
        StreamExt::next(self).await
    }

    /// Counters and states.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What the consumer did, once the stream has ended well.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    fn pop(&mut self) -> Option<Pending> {
        while let Some(mut pending) = self.ready.pop_front() {
            // Since it was queued the shard may have gone to another worker, who delivers it.
            if pending.shard.session.admit() {
                let creation = pending.delivered.record.headers.creation();
                if creation.is_some_and(|creation| pending.shard.tracer.wants(creation)) {
                    pending.handed_out = Some(SystemTime::now());
                }
                return Some(pending);
            }
        }
        None
    }
}

impl Stream for Records {
    type Item = Result<Pending, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pending) = self.pop() {
                return Poll::Ready(Some(Ok(pending)));
            }
            if let Some(part) = ready!(self.parts.poll_recv(cx)) {
                self.ready.extend(part);
                continue;
            }
            let Some(task) = self.task.as_mut() else { return Poll::Ready(None) };
            let ended = ready!(task.poll_unpin(cx));
            self.task = None;
            return Poll::Ready(match ended {
                Ok(Ok(summary)) => {
                    self.summary = Some(summary);
                    None
                }
                Ok(Err(error)) => Some(Err(error)),
                Err(error) => {
                    Some(Err(Error::Internal { shard: "every shard".into(), reason: error.to_string() }))
                }
            });
        }
    }
}

/// Hands a shard's records out and waits for their acknowledgement.
pub(crate) struct Handout {
    parts: mpsc::Sender<Vec<Pending>>,
    tracker: Option<Tracker>,
    shard: Option<Arc<Shard>>,
    max_unacknowledged: usize,
    tracer: RecordTracer,
    gauge: ShardGauge,
}

impl Handout {
    pub(crate) fn new(
        parts: mpsc::Sender<Vec<Pending>>,
        max_unacknowledged: usize,
        tracer: RecordTracer,
        gauge: ShardGauge,
    ) -> Self {
        Self { parts, tracker: None, shard: None, max_unacknowledged, tracer, gauge }
    }

    fn tracker(&mut self, progress: &Progress) -> Tracker {
        self.tracker.get_or_insert_with(|| Tracker::new(progress.clone())).clone()
    }
}

impl Delivery for Handout {
    async fn deliver(
        &mut self,
        batch: Batch,
        session: &Session,
        progress: &Progress,
    ) -> Result<(), Interrupt> {
        let tracker = self.tracker(progress);
        let shard = self
            .shard
            .get_or_insert_with(|| Arc::new(Shard { session: session.clone(), tracer: self.tracer.clone() }));
        let max = self.max_unacknowledged;
        let (mut rest, mut positions) = (batch.records(), batch.positions());
        while !rest.is_empty() {
            let stuck = |counts: &Counts| counts.open == 0 && counts.dropped > 0;
            let now = tokio::select! {
                biased;
                counts = tracker.wait_for(|counts| counts.held < max || stuck(counts)) => counts,
                () = session.over() => return Err(Interrupt::Session),
            };
            if !session.admit() {
                return Err(Interrupt::Session);
            }
            let room = max.saturating_sub(now.held);
            if room == 0 {
                return Err(unacknowledged(session, &now));
            }
            let (part, later) = rest.split_at(room.min(rest.len()));
            rest = later;
            let tickets = tracker.add(positions.by_ref().take(part.len()));
            let pending = part.iter().zip(tickets).map(|(delivered, ticket)| Pending {
                delivered: delivered.clone(),
                ticket,
                shard: shard.clone(),
                handed_out: None,
            });
            let pending = pending.collect();
            tokio::select! {
                biased;
                sent = self.parts.send(pending) => sent.map_err(|_| Interrupt::Session)?,
                () = session.over() => return Err(Interrupt::Session),
            }
            self.gauge.delivered(part.len());
        }
        Ok(())
    }

    fn skip(&mut self, position: Position, progress: &Progress) {
        self.tracker(progress).skip(position);
    }

    async fn settle(&mut self, session: &Session) -> Result<(), Interrupt> {
        let Some(tracker) = &self.tracker else { return Ok(()) };
        let counts = tokio::select! {
            biased;
            counts = tracker.wait_for(|counts| counts.open == 0) => counts,
            () = session.over() => return Err(Interrupt::Session),
        };
        match counts.dropped {
            0 => Ok(()),
            _ => Err(unacknowledged(session, &counts)),
        }
    }

    async fn drain(&mut self, _session: &Session) {
        if let Some(tracker) = &self.tracker {
            tracker.wait_for(|counts| counts.open == 0).await;
        }
    }
}

/// The shard cannot be checkpointed any further, so the consumer stops before it forgets that.
fn unacknowledged(session: &Session, counts: &Counts) -> Interrupt {
    Interrupt::Failed(Error::Unacknowledged { shard: session.shard().clone(), count: counts.dropped })
}
