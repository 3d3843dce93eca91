//! This worker's sign of life: one small write at a time, however many shards it reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::fence::Fence;
use super::store::{Beat, Error, LeaseStore};
use crate::backoff::Backoff;

/// Tells the other workers, through the heartbeat, that leases changed and are worth a look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: AtomicU64,
    load: AtomicU64,
    news: Notify,
}

impl Changes {
    /// What this worker reads, in bytes/s; told with the next heartbeat.
    pub(crate) fn set_load(&self, load: u64) {
        self.0.load.store(load, Ordering::Relaxed);
    }

    /// Another change; the next heartbeat leaves at once.
    pub(crate) fn add(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.news.notify_one();
    }
}

/// Beats until it is dropped or the worker's id is taken.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) worker: String,
    pub(crate) incarnation: String,
    pub(crate) interval: Duration,
    /// How long one write may take, so that several fit before the fence closes.
    pub(crate) limit: Duration,
    pub(crate) changes: Changes,
}

impl Heartbeat {
    pub(crate) fn beat(&self) -> Beat {
        Beat {
            worker: self.worker.clone(),
            incarnation: self.incarnation.clone(),
            counter: 0,
            changes: self.changes.0.count.load(Ordering::Relaxed),
            load: self.changes.0.load.load(Ordering::Relaxed),
        }
    }

    /// The first beat takes the worker's id over; returns when it was sent.
    pub(crate) async fn first(&self, give_up: Instant) -> Result<Instant, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            let sent = Instant::now();
            match timeout(self.limit, self.store.beat(&self.beat(), true)).await {
                Ok(Ok(())) => return Ok(sent),
                Ok(Err(error)) if !error.is_retryable() || Instant::now() >= give_up => return Err(error),
                Ok(Err(error)) => tracing::debug!(%error, "the first heartbeat will be tried again"),
                Err(_) => tracing::debug!("the first heartbeat got no answer in time"),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Beats for ever; returns only what cannot pass.
    pub(crate) async fn run(self, fence: Fence) -> Error {
        let mut backoff = Backoff::new(Duration::from_millis(20), self.interval);
        loop {
            let sent = Instant::now();
            let next = match timeout(self.limit, self.store.beat(&self.beat(), false)).await {
                Ok(Ok(())) => {
                    fence.renew(sent);
                    backoff.reset();
                    sent + self.interval
                }
                Ok(Err(error)) if !error.is_retryable() => return error,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the heartbeat failed and will be tried again");
                    Instant::now() + backoff.next_delay()
                }
                Err(_) => {
                    tracing::warn!("the heartbeat got no answer in time and will be tried again");
                    Instant::now()
                }
            };
            // Many changes at once, as at a start, make a few early beats, not one each.
            let early = async {
                self.changes.0.news.notified().await;
                sleep_until(sent + self.interval / 5).await;
            };
            tokio::select! {
                biased;
                () = sleep_until(next) => {}
                () = early => {}
            }
        }
    }
}
