//! One `SubscribeToShard` call: a body that pushes what is put, with no task and no queue of its own. The next
//! event is read only when the connection asks for it, so a slow reader holds nothing in memory.

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::api::subscribe::event_payload;
use super::codec::Codec;
use super::consumer::Claim;
use super::error::Error;
use super::eventstream;
use super::reader::{Position, ReadBatch, ShardReader};
use super::settings::Settings;

/// Everything a subscription needs to run.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) reader: ShardReader,
    pub(crate) claim: Claim,
    pub(crate) position: Position,
    pub(crate) codec: Codec,
    pub(crate) settings: Settings,
    pub(crate) shutdown: CancellationToken,
}

struct Running {
    subscription: Subscription,
    phase: Phase,
    ends: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The initial response is due.
    Opening,
    /// The first event is due at once, with or without records.
    First,
    Pushing,
    Ended,
}

/// What ends a wait.
enum Wake {
    More,
    Heartbeat,
    Over,
    Superseded,
    Failed(Error),
}

impl Subscription {
    /// The messages of the response.
    pub(crate) fn into_messages(self) -> impl Stream<Item = Bytes> + Send {
        let ends = Instant::now() + self.settings.subscription_length;
        let running = Running { subscription: self, phase: Phase::Opening, ends };
        futures_util::stream::unfold(running, |mut running| async move {
            let message = running.next().await?;
            Some((message, running))
        })
    }

    fn exception(&self, error: &Error) -> Bytes {
        let payload = super::api::error_payload(self.codec, error);
        eventstream::exception(error.exception(), self.codec.content_type(), &payload)
    }
}

impl Running {
    async fn next(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Ended => None,
            Phase::Opening => {
                self.phase = Phase::First;
                Some(eventstream::initial_response(self.subscription.codec.content_type()))
            }
            Phase::First => {
                self.phase = Phase::Pushing;
                Some(self.event())
            }
            Phase::Pushing => match self.wait().await {
                Wake::More | Wake::Heartbeat => Some(self.event()),
                Wake::Over => None,
                Wake::Superseded => Some(self.fail(&Error::ResourceInUse(format!(
                    "Another subscription of this consumer to shard {} has taken over.",
                    self.subscription.reader.shard_id()
                )))),
                Wake::Failed(error) => Some(self.fail(&error)),
            },
        }
    }

    fn fail(&mut self, error: &Error) -> Bytes {
        self.phase = Phase::Ended;
        self.subscription.exception(error)
    }

    async fn wait(&self) -> Wake {
        let Subscription { reader, claim, position, settings, shutdown, .. } = &self.subscription;
        let heartbeat = Instant::now() + settings.heartbeat;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Wake::Over,
            () = claim.superseded.cancelled() => Wake::Superseded,
            () = claim.gone.cancelled() => Wake::Failed(Error::ResourceNotFound(
                "The consumer or its stream has been deleted.".to_owned(),
            )),
            () = sleep_until(self.ends) => Wake::Over,
            more = reader.wait_for_more(*position) => match more {
                Ok(()) => Wake::More,
                Err(error) => Wake::Failed(error),
            },
            () = sleep_until(heartbeat) => Wake::Heartbeat,
        }
    }

    fn event(&mut self) -> Bytes {
        let subscription = &self.subscription;
        let read = subscription.reader.read(subscription.position, subscription.settings.event_limits);
        match read.and_then(|batch| Ok((event_payload(subscription.codec, &batch)?, batch))) {
            Err(error) => self.fail(&error),
            Ok((payload, ReadBatch { next, end, .. })) => {
                self.subscription.position = next;
                if end.is_some() {
                    self.phase = Phase::Ended;
                }
                eventstream::event("SubscribeToShardEvent", self.subscription.codec.content_type(), &payload)
            }
        }
    }
}
