//! One `SubscribeToShard` call: a body that pushes what is put, with no task and no queue of its own. The next
//! event is read only when the connection asks for it, so a slow reader holds nothing in memory.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::subscribe::event_payload;
use super::codec::Codec;
use super::consumer::Claim;
use super::error::Error;
use super::eventstream;
use super::reader::{Position, ReadBatch, ShardReader};
use super::record::Record;
use super::settings::Settings;
use crate::faults::{EventFault, Faults, MESSAGE};
use crate::http::Dropped;

/// Everything a subscription needs to run.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) reader: ShardReader,
    pub(crate) claim: Claim,
    pub(crate) position: Position,
    pub(crate) codec: Codec,
    pub(crate) settings: Settings,
    pub(crate) shutdown: CancellationToken,
    pub(crate) faults: Faults,
}

struct Running {
    subscription: Subscription,
    phase: Phase,
    ends: Instant,
    /// When the consumer may be pushed more.
    free_at: Instant,
    /// Wakes a quiet subscription when its shard has an outage.
    faults_changed: watch::Receiver<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The initial response is due.
    Opening,
    /// The first event is due at once, with or without records.
    First,
    Pushing,
    /// A fault has cut the last event: the connection is next.
    Cut,
    Ended,
}

/// What ends a wait.
enum Wake {
    More,
    Heartbeat,
    Over,
    Superseded,
    FaultsChanged,
    Failed(Error),
}

impl Subscription {
    /// The messages of the response.
    pub(crate) fn into_messages(self) -> impl Stream<Item = Result<Bytes, Dropped>> + Send {
        let ends = Instant::now() + self.settings.subscription_length;
        let faults_changed = self.faults.changes();
        let running = Running {
            subscription: self,
            phase: Phase::Opening,
            ends,
            free_at: Instant::now(),
            faults_changed,
        };
        futures_util::stream::unfold(running, |mut running| async move {
            let message = running.next().await?;
            Some((message, running))
        })
    }

    fn exception(&self, error: &Error) -> Bytes {
        let payload = super::api::error_payload(self.codec, error);
        // The model of the stream knows this one by another name than calls do.
        let name = match error.exception() {
            "InternalFailure" => "InternalFailureException",
            name => name,
        };
        eventstream::exception(name, self.codec.content_type(), &payload)
    }
}

impl Running {
    async fn next(&mut self) -> Option<Result<Bytes, Dropped>> {
        let message = match self.phase {
            Phase::Cut => {
                // Once round the executor, so that the connection sends the half before it closes.
                tokio::task::yield_now().await;
                self.phase = Phase::Ended;
                return Some(Err(Dropped));
            }
            Phase::Ended => None,
            Phase::Opening => {
                self.phase = Phase::First;
                Some(eventstream::initial_response(self.subscription.codec.content_type()))
            }
            Phase::First => {
                self.phase = Phase::Pushing;
                self.due().await
            }
            Phase::Pushing => match self.wait_through_changes().await {
                Wake::More | Wake::Heartbeat => self.due().await,
                Wake::Over | Wake::FaultsChanged => None,
                // API_SubscribeToShard: the earlier one fails with ResourceInUseException. Words: ours.
                Wake::Superseded => Some(self.fail(&Error::ResourceInUse(format!(
                    "Another subscription of this consumer to shard {} has taken over.",
                    self.subscription.reader.shard_id()
                )))),
                Wake::Failed(error) => Some(self.fail(&error)),
            },
        };
        message.map(Ok)
    }

    /// The next event, or what faults make of it.
    async fn due(&mut self) -> Option<Bytes> {
        let Subscription { reader, faults, shutdown, .. } = &self.subscription;
        if faults.is_idle() {
            return Some(self.event());
        }
        match faults.event(reader.stream.name(), &reader.shard_id()) {
            None => Some(self.event()),
            Some(EventFault::Reset) => {
                let whole = self.event();
                self.phase = Phase::Cut;
                Some(whole.slice(..whole.len() / 2))
            }
            Some(EventFault::Stall) => {
                shutdown.cancelled().await;
                self.phase = Phase::Ended;
                None
            }
        }
    }

    fn fail(&mut self, error: &Error) -> Bytes {
        self.phase = Phase::Ended;
        self.subscription.exception(error)
    }

    /// Waits on through every change of the faults in force but an outage of this shard.
    async fn wait_through_changes(&mut self) -> Wake {
        loop {
            let wake = self.wait().await;
            if !matches!(wake, Wake::FaultsChanged) {
                return wake;
            }
            let Subscription { reader, faults, .. } = &self.subscription;
            if faults.outage(reader.stream.name(), &reader.shard_id()) {
                return Wake::Failed(Error::Internal(MESSAGE.to_owned()));
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        let Subscription { reader, claim, position, settings, shutdown, .. } = &self.subscription;
        let heartbeat = Instant::now() + settings.heartbeat;
        let free_at = self.free_at;
        let more = async {
            sleep_until(free_at).await;
            reader.wait_for_more(*position).await
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Wake::Over,
            () = claim.superseded.cancelled() => Wake::Superseded,
            // SubscribeToShardEventStream: ResourceNotFoundException. Words: ours.
            () = claim.gone.cancelled() => Wake::Failed(Error::ResourceNotFound(
                "The consumer or its stream has been deleted.".to_owned(),
            )),
            () = sleep_until(self.ends) => Wake::Over,
            _ = self.faults_changed.changed() => Wake::FaultsChanged,
            more = more => match more {
                Ok(()) => Wake::More,
                Err(error) => Wake::Failed(error),
            },
            () = sleep_until(heartbeat) => Wake::Heartbeat,
        }
    }

    fn event(&mut self) -> Bytes {
        let subscription = &self.subscription;
        let mut limits = subscription.settings.event_limits;
        if Instant::now() < self.free_at {
            // A heartbeat while the rate is being kept: it says how far behind the consumer is, and no more.
            limits.records = 0;
        }
        let read = subscription.reader.read(subscription.position, limits);
        match read.and_then(|batch| {
            Ok((event_payload(subscription.codec, &batch, &subscription.reader.stream)?, batch))
        }) {
            Err(error) => self.fail(&error),
            Ok((payload, ReadBatch { records, next, end, .. })) => {
                if let Some(rate) = subscription.settings.fan_out_bytes_per_second {
                    let bytes: usize = records.iter().map(Record::size).sum();
                    let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
                    self.free_at = self.free_at.max(Instant::now()) + takes;
                }
                self.subscription.position = next;
                if end.is_some() {
                    self.phase = Phase::Ended;
                }
                eventstream::event("SubscribeToShardEvent", self.subscription.codec.content_type(), &payload)
            }
        }
    }
}
