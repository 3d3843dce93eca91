//! The router as a process of its own: it reads the inbound stream by itself, with leases, instead of being
//! called by Lambda.
//!
//! A batch of the consumer becomes an [`Event`], which the same [`Router`] handles. The handler returns when every
//! record of it is settled, so only what is settled is checkpointed. What is not done is tried again, from the
//! first record that is not, for as long as the shard is held; destinations that have their part do not get it again.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use headworks_consumer::{Batch, Builder, Consumer, Delivered, Handler, HandlerError, Undecodable};
use headworks_record::aggregate::{self, looks_aggregated};
use headworks_record::{Creation, Lane};
use tokio::time::{Instant, sleep};

use crate::event::{Event, KinesisRecord};
use crate::handler::{Invocation, Router};
use crate::plan::identity;
use crate::source::Reloader;

/// How long one attempt at a batch may take; then what is done is noted, and the rest tried again.
pub const ATTEMPT: Duration = Duration::from_secs(30);

/// A consumer of the inbound stream as a router wants it: everything is delivered, repeats and what cannot be taken
/// apart included, because the router accounts for each.
pub fn consumer(application: impl Into<String>, stream: impl Into<String>) -> Builder {
    Consumer::builder(application, stream)
        .dedup_window(Duration::ZERO)
        .configure(|config| config.undecodable = Undecodable::DeliverRaw)
}

/// Routes the batches of a consumer; one per shard, all with one router.
#[derive(Debug, Clone)]
pub struct Routing {
    router: Arc<Router>,
    reloader: Option<Arc<Reloader>>,
    attempt: Duration,
}

impl Routing {
    /// Routes with this router, which should have [`progress::Memory`](crate::progress::Memory) and read it always.
    pub fn new(router: Arc<Router>, reloader: Option<Arc<Reloader>>) -> Self {
        Self { router, reloader, attempt: ATTEMPT }
    }

    /// How long one attempt may take. Default [`ATTEMPT`].
    pub fn with_attempt(mut self, attempt: Duration) -> Self {
        self.attempt = attempt;
        self
    }
}

impl Handler for Routing {
    async fn handle(&mut self, batch: Batch) -> Result<(), HandlerError> {
        let mut event = event_of(batch.records());
        let pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_jitter();
        let mut pauses = pauses.build();
        loop {
            if let Some(reloader) = &self.reloader {
                reloader.check(&self.router).await;
            }
            let invocation = Invocation { deadline: Instant::now() + self.attempt, request_id: None };
            let report = self.router.handle(&event, &invocation).await?;
            let Some(failed) = report.failed else { return Ok(()) };
            let place = event.records.iter().position(|r| r.sequence_number == failed.sequence_number);
            event.records.drain(..place.unwrap_or(0));
            sleep(pauses.next().unwrap_or(Duration::from_secs(5))).await;
        }
    }
}

/// Records as Lambda would hand them over: those of one Kinesis record together, in their order.
fn event_of(records: &[Delivered]) -> Event {
    let mut event = Event::default();
    for together in records.chunk_by(|a, b| a.sequence_number == b.sequence_number) {
        let Some(first) = together.first() else { continue };
        event.stream = first.stream.clone();
        // What could not be taken apart comes as it is, and goes to the dead letters.
        let raw = together.len() == 1 && looks_aggregated(&first.record.data);
        let raw = raw && first.record.headers.creation().is_none();
        let (partition_key, data) = if raw {
            (first.record.key.text().clone(), first.record.data.clone())
        } else {
            let mut builder = aggregate::Builder::new();
            for delivered in together {
                builder.push(&with_identity(delivered));
            }
            let lane = Lane { shard: first.shard.clone(), number: 0 };
            (lane.label().into(), builder.finish())
        };
        event.records.push(KinesisRecord {
            shard: first.shard.clone(),
            sequence_number: first.sequence_number.as_str().into(),
            partition_key,
            data,
            arrival_ms: first.arrival_ms,
        });
    }
    event
}

/// The record; of another writer's, with the identity that it gets wherever it is routed.
fn with_identity(delivered: &Delivered) -> headworks_record::Record {
    let mut record = delivered.record.clone();
    if record.headers.creation().is_none() {
        let Delivered { stream, shard, sequence_number, arrival_ms, .. } = delivered;
        let place = delivered.sub_sequence_number as u32;
        let creation: Creation =
            identity(stream, shard.as_str(), sequence_number.as_str(), place, *arrival_ms);
        record.headers.set_creation(creation);
    }
    record
}
