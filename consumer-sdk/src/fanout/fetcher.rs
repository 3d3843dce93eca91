//! Fetches one shard: subscribes, subscribes again, and bridges with plain reads while refused.
//!
//! ```text
//!             refused, lease still ours
//!   subscribe ────────────────────────▶ bridge (GetRecords for a second)
//!    ▲     │ ◀─────────────────────────────┘
//!    │     ▼ accepted
//!    └── stream: ends, renews before its five minutes are over, falls silent, breaks, is superseded
//! ```
//!
//! Whatever happens, reading goes on after the last sequence number that was passed on, so there is
//! neither gap nor repeat at a seam. Where there is no fan-out, it polls all the time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use headworks_record::ShardId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use super::registration::limited;
use crate::backoff::Backoff;
use crate::config::{Config, Reading};
use crate::lease::LeaseStore;
use crate::streams::{self, Event, ReadFrom, Streams, Subscription};

/// The service accepts one subscription per second for each consumer and shard.
const SUBSCRIBE_EVERY: Duration = Duration::from_secs(1);
/// The service allows five reads per second and shard, shared with all who read it without fan-out.
pub(crate) const READ_EVERY: Duration = Duration::from_millis(250);
/// The most records that one read may bring.
pub(crate) const GET_RECORDS_LIMIT: usize = 10_000;
/// Events that wait for the handler; their bytes are bounded separately.
const QUEUED_EVENTS: usize = 64;

/// What the fetcher passes on.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// Records, or news without records. The permit bounds the bytes read ahead.
    Event { event: Event, received: SystemTime, permit: OwnedSemaphorePermit },
    /// From now on the shard is polled.
    Polling,
    /// The shard's lease belongs to another worker.
    Superseded,
    /// The service does not know the shard, or the consumer, any more.
    Gone(streams::Error),
    /// It cannot go on.
    Failed(streams::Error),
}

/// Whether the lease is still this worker's: asked before fighting for a subscription, because otherwise a
/// worker that lost its lease without noticing and the new owner evict each other for ever.
#[derive(Debug, Clone)]
pub(crate) struct Ownership {
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) shard: ShardId,
    pub(crate) worker: String,
    pub(crate) limit: Duration,
}

impl Ownership {
    /// `None` if the table cannot be read now.
    async fn is_ours(&self) -> Option<bool> {
        match tokio::time::timeout(self.limit, self.store.lease(&self.shard)).await {
            Ok(Ok(lease)) => Some(lease.is_some_and(|lease| lease.owner.as_ref() == Some(&self.worker))),
            _ => None,
        }
    }
}

/// The bounded way from a fetcher to its shard's worker.
#[derive(Debug)]
struct Out {
    queue: mpsc::Sender<Fetched>,
    bytes: Arc<Semaphore>,
    capacity: usize,
}

/// The receiver is gone: there is nothing left to do.
struct Closed;

#[derive(Debug)]
pub(crate) struct Fetcher {
    streams: Arc<dyn Streams>,
    ownership: Ownership,
    config: Arc<Config>,
    // `None` where shards are polled.
    consumer_arn: Option<Arc<str>>,
    from: ReadFrom,
    // Kept while nothing else moves the position.
    iterator: Option<String>,
    // When reading after the newest record began, until there was a record.
    began: Option<SystemTime>,
    out: Out,
}

/// How a subscription ended.
enum Ended {
    /// Its time was over, or the service closed it.
    Renew,
    /// Another subscription took its place.
    Superseded,
    /// It broke or fell silent.
    Broken(streams::Error),
    /// The shard has been read to its end.
    ShardEnd,
}

impl Fetcher {
    pub(crate) fn new(
        streams: Arc<dyn Streams>,
        ownership: Ownership,
        config: Arc<Config>,
        consumer_arn: Option<Arc<str>>,
        from: ReadFrom,
    ) -> (Self, mpsc::Receiver<Fetched>) {
        let (queue, events) = mpsc::channel(QUEUED_EVENTS);
        let capacity = config.read_ahead_bytes;
        let out = Out { queue, bytes: Arc::new(Semaphore::new(capacity)), capacity };
        (Self { streams, ownership, config, consumer_arn, from, iterator: None, began: None, out }, events)
    }

    /// Fetches until the shard ends, the lease is lost, or the receiver is gone.
    pub(crate) async fn run(mut self) {
        // The receiver being gone is the usual end.
        let _ = self.fetch().await;
    }

    async fn fetch(&mut self) -> Result<(), Closed> {
        let Some(consumer_arn) = self.consumer_arn.clone() else { return self.poll().await };
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let next_attempt = Instant::now() + SUBSCRIBE_EVERY;
            let call = self.streams.subscribe(&consumer_arn, &self.ownership.shard, &self.from);
            let failed = match limited(&self.config, "SubscribeToShard", call).await {
                Ok(subscription) => match self.stream(subscription, &mut backoff).await? {
                    Ended::ShardEnd => return Ok(()),
                    Ended::Renew => None,
                    Ended::Superseded => Some(streams::Error::InUse {
                        operation: "SubscribeToShard",
                        message: "superseded".to_owned(),
                    }),
                    Ended::Broken(error) => Some(error),
                },
                Err(error) => Some(error),
            };
            match failed {
                None => {}
                Some(streams::Error::InUse { .. }) => {
                    // Where the table cannot be read, the fence decides how long this worker may go on.
                    if self.ownership.is_ours().await == Some(false) {
                        return self.out.send(Fetched::Superseded).await;
                    }
                    if self.bridge(next_attempt).await? {
                        return Ok(());
                    }
                }
                Some(error @ streams::Error::NotFound { .. }) => {
                    return self.out.send(Fetched::Gone(error)).await;
                }
                Some(error) if error.is_retryable() => {
                    tracing::debug!(shard = %self.ownership.shard, %error, "the subscription failed");
                    self.pause(backoff.next_delay()).await?;
                }
                Some(error @ streams::Error::Refused { .. })
                    if self.config.reading == Reading::FanOutOrPolling =>
                {
                    tracing::warn!(shard = %self.ownership.shard, %error, "fan-out is not possible: the shard is polled");
                    return self.poll().await;
                }
                Some(error) => return self.out.send(Fetched::Failed(error)).await,
            }
            self.pause(next_attempt.saturating_duration_since(Instant::now())).await?;
        }
    }

    /// Reads without subscriptions until the shard ends.
    async fn poll(&mut self) -> Result<(), Closed> {
        self.out.send(Fetched::Polling).await?;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            if self.from == ReadFrom::Latest && self.iterator.is_none() {
                // An iterator that is lost before the first record must not be replaced by a later one.
                self.began.get_or_insert_with(SystemTime::now);
            }
            let pause = match self.read_page().await {
                Ok(event) => {
                    backoff.reset();
                    let (ended, behind) = (event.end.is_some(), event.millis_behind > 0);
                    self.pass_on(event).await?;
                    if ended {
                        return Ok(());
                    }
                    if behind { Duration::ZERO } else { self.config.poll_interval }
                }
                Err(error @ streams::Error::NotFound { .. }) => {
                    return self.out.send(Fetched::Gone(error)).await;
                }
                Err(streams::Error::ExpiredIterator { .. }) => {
                    tracing::debug!(shard = %self.ownership.shard, "the iterator has expired; another is fetched");
                    if let (ReadFrom::Latest, Some(began)) = (&self.from, self.began) {
                        self.from = ReadFrom::AtTimestamp(began);
                    }
                    backoff.next_delay()
                }
                Err(error) if error.is_retryable() => {
                    tracing::debug!(shard = %self.ownership.shard, %error, "a read failed");
                    // Never at once: those who poll the shard from elsewhere want their turn, too.
                    READ_EVERY + backoff.next_delay()
                }
                Err(error) => return self.out.send(Fetched::Failed(error)).await,
            };
            self.pause(pause).await?;
        }
    }

    async fn stream(
        &mut self,
        mut subscription: Subscription,
        backoff: &mut Backoff,
    ) -> Result<Ended, Closed> {
        let renew = Instant::now() + self.config.resubscribe_after;
        loop {
            let silent = Instant::now() + self.config.inactivity_timeout;
            let next = tokio::select! {
                biased;
                next = timeout_at(silent.min(renew), subscription.next()) => next,
                () = self.out.queue.closed() => return Err(Closed),
            };
            let event = match next {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(streams::Error::InUse { .. }))) => return Ok(Ended::Superseded),
                Ok(Some(Err(error))) => return Ok(Ended::Broken(error)),
                Ok(None) => return Ok(Ended::Renew),
                Err(_) if Instant::now() >= renew => return Ok(Ended::Renew),
                Err(_) => {
                    let message = format!("silent for {:?}", self.config.inactivity_timeout);
                    let operation = "SubscribeToShard";
                    return Ok(Ended::Broken(streams::Error::Unavailable { operation, message }));
                }
            };
            backoff.reset();
            let ended = event.end.is_some();
            self.pass_on(event).await?;
            if ended {
                return Ok(Ended::ShardEnd);
            }
            if Instant::now() >= renew {
                return Ok(Ended::Renew);
            }
        }
    }

    /// Reads without a subscription until the next one may be tried; tells whether the shard ended.
    async fn bridge(&mut self, until: Instant) -> Result<bool, Closed> {
        if self.from == ReadFrom::Latest {
            // A read that finds nothing gives no sequence number to go on from: what came between it and
            // the subscription would be lost. There is nothing to be late with yet.
            return Ok(false);
        }
        loop {
            match self.read_page().await {
                Ok(event) => {
                    let ended = event.end.is_some();
                    self.pass_on(event).await?;
                    if ended {
                        return Ok(true);
                    }
                }
                // The next attempt to subscribe comes soon and says what is wrong.
                Err(error) => {
                    tracing::debug!(shard = %self.ownership.shard, %error, "a read beside the subscription failed");
                }
            }
            let next = Instant::now() + READ_EVERY;
            if next >= until {
                return Ok(false);
            }
            self.pause(READ_EVERY).await?;
        }
    }

    async fn read_page(&mut self) -> Result<Event, streams::Error> {
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => {
                let call = self.streams.iterator(&self.ownership.shard, &self.from);
                limited(&self.config, "GetShardIterator", call).await?
            }
        };
        let call = self.streams.records(&iterator, GET_RECORDS_LIMIT);
        let page = match limited(&self.config, "GetRecords", call).await {
            Ok(page) => page,
            Err(error) => {
                if !matches!(error, streams::Error::ExpiredIterator { .. }) {
                    self.iterator = Some(iterator);
                }
                return Err(error);
            }
        };
        let next = page.next;
        let event = page.event;
        // The next page's iterator is good only for where the reader is after this one.
        self.advance(&event);
        self.iterator = next;
        Ok(event)
    }

    async fn pass_on(&mut self, event: Event) -> Result<(), Closed> {
        let received = SystemTime::now();
        self.advance(&event);
        let permit = self.out.reserve(event.bytes()).await?;
        self.out.send(Fetched::Event { event, received, permit }).await
    }

    /// Reading goes on after this event.
    fn advance(&mut self, event: &Event) {
        let last = event.records.last().map(|record| &record.sequence_number);
        if let Some(seen) = last.max(event.continuation.as_ref()) {
            let after = ReadFrom::After(seen.clone());
            if self.from != after {
                self.from = after;
                self.iterator = None;
            }
        }
    }

    async fn pause(&self, delay: Duration) -> Result<(), Closed> {
        if delay.is_zero() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = sleep(delay) => Ok(()),
            () = self.out.queue.closed() => Err(Closed),
        }
    }
}

impl Out {
    async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Closed> {
        // An event larger than the bound takes all of it and is alone.
        let permits = u32::try_from(bytes.min(self.capacity)).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            permit = self.bytes.clone().acquire_many_owned(permits) => permit.map_err(|_| Closed),
            () = self.queue.closed() => Err(Closed),
        }
    }

    async fn send(&self, fetched: Fetched) -> Result<(), Closed> {
        self.queue.send(fetched).await.map_err(|_| Closed)
    }
}
